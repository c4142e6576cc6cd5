//! Files that the flag files name and that are read together with them: certificates and keys of listeners, services
//! and the collector under `traces:`.
//!
//! Always true: for each file that was looked for, the result is remembered, so that a change of its content is
//! noticed; the size of each file is bounded.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits::CERTIFICATE_FILE_BYTES_MAX;

/// A file that was looked for, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedFile {
    path: PathBuf,
    /// A hash of the file's content; `None` if it could not be read.
    hash: Option<[u8; 32]>,
}

impl ReferencedFile {
    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    /// Whether reading the file again would give the same result.
    pub(super) fn is_unchanged(&self) -> bool {
        content(&self.path).ok().map(|bytes| hash(&bytes)) == self.hash
    }
}

/// The files that were looked for in one check.
#[derive(Default)]
pub(crate) struct ReferencedFiles(pub(crate) Vec<ReferencedFile>);

impl ReferencedFiles {
    /// Reads a file, and remembers that it was read.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let read = content(path);
        let hash = read.as_ref().ok().map(|bytes| hash(bytes));
        self.0.push(ReferencedFile { path: path.to_owned(), hash });
        read.map_err(|why| format!("the file `{}` {why}", path.display()))
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    blake3::hash(bytes).into()
}

/// The content of a file; or why it cannot be read, worded as the end of a sentence that begins with the file.
fn content(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Only regular files are read: opening a pipe would block.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("cannot be read: not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(CERTIFICATE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > CERTIFICATE_FILE_BYTES_MAX {
        return Err(format!("is larger than {CERTIFICATE_FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}
