//! The files of a set, read once into memory.
//!
//! Always true: a [`Files`] is one consistent state of the directory, or has a finding that says it is not; the size of
//! each file and the number of files are bounded; temporary files of editors and Kubernetes (hidden files, `..data`,
//! `~`, `.swp`) are ignored. A file that cannot be read is a finding with its path, and does not hide the other files.
//! A slow disk delays only the reading thread.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::limits::{FLAG_FILE_BYTES_MAX, FLAG_FILES_MAX};
use crate::problem::Severity;

use super::render::Finding;
use super::unparsed_lines::shown_line;

/// The three kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `pointsman.yaml`.
    Pointsman,
    /// `routes/*.yaml`.
    Routes,
    /// `workflows/*.yaml`.
    Workflow,
}

/// One file's text.
pub(crate) struct File {
    pub kind: FileKind,
    /// The path: the directory as the user gave it, and the file's name.
    pub name: String,
    pub text: String,
}

/// The content of the directory.
#[derive(Default)]
pub(crate) struct Files {
    pub files: Vec<File>,
    pub findings: Vec<Finding>,
    /// A hash that is equal for equal names and contents.
    pub hash: [u8; 32],
}

/// How often a set is read at most, if its files change during each reading.
const READINGS_MAX: usize = 5;

/// Reads a directory. If its files changed meanwhile, reads it again, at most `READINGS_MAX` times in all.
pub(crate) fn read(dir: &Path) -> Files {
    for _ in 1..READINGS_MAX {
        let before = stamps(dir);
        let files = read_once(dir);
        if stamps(dir) == before {
            return files;
        }
    }
    let mut files = read_once(dir);
    files.findings.push(finding_about_path(
        dir,
        Severity::Error,
        "the files change faster than they can be read",
        None,
    ));
    files
}

/// Modification time and size: differs when a file has been written or replaced.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

fn stamps(dir: &Path) -> Vec<Stamp> {
    let mut all = Vec::new();
    for at in [dir.to_owned(), dir.join("routes"), dir.join("workflows")] {
        all.push((at.clone(), fs::canonicalize(&at).ok().and_then(|real| stamp(&real))));
        for path in listing(&at).unwrap_or_default() {
            let stamp = stamp(&path);
            all.push((path, stamp));
        }
    }
    all
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The entries of a directory except temporary files, sorted by name; at most one more than `FLAG_FILES_MAX`.
fn listing(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !is_temporary(&path) {
            paths.push(path);
        }
        if paths.len() > FLAG_FILES_MAX {
            break;
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether this is a temporary or hidden file of an editor or of Kubernetes.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || name.starts_with('#')
        || name.ends_with('~')
        || name == "4913" // Vim creates and removes this file to test whether it may write in the directory
        || [".swp", ".swx", ".tmp", ".bak", ".orig", ".part"].iter().any(|end| name.ends_with(end))
}

fn read_once(dir: &Path) -> Files {
    let mut files = Files::default();
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            let hint = "name the directory that holds pointsman.yaml, routes/ and workflows/";
            files.findings.push(finding_about_path(dir, Severity::Error, "not a directory", Some(hint)));
            return files;
        }
        Err(error) => {
            files.findings.push(finding_about_path(dir, Severity::Error, format!("cannot be read: {error}"), None));
            return files;
        }
    }
    let main = dir.join("pointsman.yaml");
    if fs::symlink_metadata(&main).is_err() {
        let hint = "it needs at least `services:` and `default_legacy:`; `pointsman schema pointsman` lists all keys";
        files.findings.push(finding_about_path(&main, Severity::Error, "there is no such file", Some(hint)));
    } else {
        files.read_file(FileKind::Pointsman, &main);
    }
    for path in listing(dir).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !matches!(&*name, "pointsman.yaml" | "routes" | "workflows") && is_yaml(&path) {
            let hint = "routes belong in routes/, workflows in workflows/";
            files.findings.push(finding_about_path(&path, Severity::Warning, "this file is not read", Some(hint)));
        }
    }
    files.read_folder(dir, "routes", FileKind::Routes);
    files.read_folder(dir, "workflows", FileKind::Workflow);
    let mut hasher = blake3::Hasher::new();
    for file in &files.files {
        hasher.update(&(file.name.len() as u64).to_le_bytes()).update(file.name.as_bytes());
        hasher.update(&(file.text.len() as u64).to_le_bytes()).update(file.text.as_bytes());
    }
    for finding in &files.findings {
        hasher.update(finding.one_line().as_bytes());
    }
    files.hash = *hasher.finalize().as_bytes();
    files
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml")
}

/// The name of the workflow that a file holds: the value of its key `workflow`.
fn workflow_of(text: &str) -> Option<&str> {
    let name = text.lines().find_map(|line| line.strip_prefix("workflow:"))?;
    Some(name.split('#').next()?.trim().trim_matches(['"', '\'']))
}

impl Files {
    /// Replaces the file of a workflow by another file with the same workflow; adds it if no file has that workflow.
    pub(crate) fn with_workflow(mut self, path: &Path) -> Self {
        let before = self.files.len();
        self.read_file(FileKind::Workflow, path);
        if let Some(workflow) = self.files.get(before).and_then(|file| workflow_of(&file.text)).map(str::to_owned) {
            let last = self.files.len() - 1;
            let mut index = 0..;
            self.files.retain(|file| {
                let is_new = index.next() == Some(last);
                is_new || file.kind != FileKind::Workflow || workflow_of(&file.text) != Some(workflow.as_str())
            });
        }
        self
    }
    fn read_folder(&mut self, dir: &Path, name: &str, kind: FileKind) {
        let at = dir.join(name);
        if fs::symlink_metadata(&at).is_err() {
            return; // not an error: without routes, all requests go to legacy
        }
        let paths = match listing(&at) {
            Ok(paths) => paths,
            Err(error) => {
                self.findings.push(finding_about_path(&at, Severity::Error, format!("cannot be read: {error}"), None));
                return;
            }
        };
        if paths.len() > FLAG_FILES_MAX {
            let message = format!("more than {FLAG_FILES_MAX} files");
            self.findings.push(finding_about_path(
                &at,
                Severity::Error,
                message,
                Some("put several routes into one file"),
            ));
            return;
        }
        let mut files_read = 0;
        for path in paths {
            if path.extension().is_some_and(|ext| ext == "yaml") {
                self.read_file(kind, &path);
                files_read += 1;
            } else {
                // An error for a similar name: if it was given by mistake, the file and its routes would not be in the
                // set.
                let is_similar = |ext: &OsStr| ["yaml", "yml"].iter().any(|name| ext.eq_ignore_ascii_case(name));
                let (severity, hint) = match path.extension().is_some_and(is_similar) {
                    true => (Severity::Error, "only names that end in .yaml are read: rename it"),
                    false => (Severity::Warning, "only names that end in .yaml are read"),
                };
                self.findings.push(finding_about_path(&path, severity, "this file is not read", Some(hint)));
            }
        }
        // No warning of a set without routes if it has workflows, because the API can start them.
        let is_optional = kind == FileKind::Routes
            && listing(&dir.join("workflows")).unwrap_or_default().iter().any(|path| is_yaml(path));
        if files_read == 0 && !is_optional {
            self.findings.push(finding_about_path(
                &at,
                Severity::Warning,
                "there is no .yaml file in this directory",
                None,
            ));
        }
    }

    fn read_file(&mut self, kind: FileKind, path: &Path) {
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let read = fs::metadata(path).and_then(|meta| {
            if !meta.is_file() {
                return Err(std::io::Error::other("not a regular file"));
            }
            fs::File::open(path)?.take(FLAG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            self.findings.push(finding_about_path(path, Severity::Error, format!("cannot be read: {error}"), None));
            return;
        }
        if bytes.len() as u64 > FLAG_FILE_BYTES_MAX {
            let message = format!("larger than {FLAG_FILE_BYTES_MAX} bytes");
            self.findings.push(finding_about_path(path, Severity::Error, message, Some("split it")));
            return;
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.files.push(File { kind, name, text }),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let before = String::from_utf8_lossy(&bytes[..at]).into_owned();
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                let source = shown_line(&before[..line_start], &before[line_start..]);
                let end = source.len();
                self.findings.push(Finding {
                    severity: Severity::Error,
                    file: name,
                    line: Some(before.matches('\n').count() + 1),
                    column: Some(before[line_start..].chars().count() + 1),
                    message: format!("not UTF-8: byte 0x{:02x}", bytes[at]),
                    hint: Some("save the file as UTF-8".to_owned()),
                    span: end..end,
                    source,
                });
            }
        }
    }
}

/// A finding about a whole file or directory.
pub(crate) fn finding_about_path(
    path: &Path,
    severity: Severity,
    message: impl Into<String>,
    hint: Option<&str>,
) -> Finding {
    Finding {
        severity,
        file: path.display().to_string(),
        line: None,
        column: None,
        message: message.into(),
        hint: hint.map(str::to_owned),
        source: String::new(),
        span: 0..0,
    }
}
