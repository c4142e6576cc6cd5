//! Builds a checked set from the files that were read.
//!
//! The order: every file is parsed and checked against its schema; the other modules check what passes (services, then
//! workflows, which name services, then routes, which name both, then the rules of each route); `cross_checks` checks
//! all files together. All problems are shown together. A name whose own file is invalid counts as known, so that one
//! mistake is not reported again at every use of the name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::checked_files::MainFile;
use super::files::{FileKind, Files};
use super::parse::parse;
use super::referenced_files::ReferencedFiles;
use super::render::{CheckFailed, Finding, Findings};
use super::setup::{Loaded, Overrides, Setup};
use super::shown_values::without_secrets;
use super::store_url::mask_password;
use super::tree::{Node, ParsedFile};
use super::{
    adoption, alive_secrets, check_files, child_undo, cross_checks, declared_reads, edition, other_spellings,
    rehearse_from_legacy, uncompared_steps,
};
use crate::problem::{Problems, Severity, Site};

/// Checks files.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn check(dir: &Path, read: Files, overrides: &Overrides) -> Result<Loaded, CheckFailed> {
    let read_at = std::time::Instant::now();
    let mut builder = SetBuilder { findings: Findings(read.findings), ..SetBuilder::default() };
    for file in &read.files {
        builder.add_file(file.kind, &file.name, &file.text);
    }
    let setup = builder.build(dir, overrides);
    let findings = builder.report();
    let referenced_files = builder.referenced_files.0;
    match setup {
        Some(setup) if !findings.has_errors() => {
            Ok(Loaded { setup, warnings: findings, hash: read.hash, referenced_files, read_at })
        }
        _ => Err(CheckFailed { findings: with_some_error(findings, dir), referenced_files }),
    }
}

/// Adds an error if there is none, because a refusal needs one even if a check failed without reporting it.
fn with_some_error(mut findings: Findings, dir: &Path) -> Findings {
    if !findings.has_errors() {
        let message = "the set could not be built, and no check reported an error: this is a bug in pointsman";
        findings.0.push(super::files::finding_about_path(dir, Severity::Error, message, None));
    }
    findings
}

/// The files that have been added, and what was found in them.
#[derive(Default)]
pub(super) struct SetBuilder {
    sources: Vec<(FileKind, ParsedFile)>,
    findings: Findings,
    problems: Problems,
    referenced_files: ReferencedFiles,
}

impl SetBuilder {
    fn add_file(&mut self, kind: FileKind, name: &str, text: &str) {
        let (source, errors) = parse(&Arc::from(name), text);
        for error in errors {
            let finding = finding_at(&source, Severity::Error, source.position(error.span), error.message, error.hint);
            self.findings.0.push(without_secrets(finding, &source));
        }
        self.sources.push((kind, source));
    }

    /// Adds a text that is not a file of the set; returns its tree, if it could be parsed without an error.
    pub(super) fn add_text(&mut self, name: &str, text: &str) -> Option<Node> {
        self.add_file(FileKind::Routes, name, text);
        self.sources.last().and_then(|(_, source)| source.root.clone()).filter(|_| !self.findings.has_errors())
    }

    /// Adds problems that were found in the files.
    pub(super) fn add_problems(&mut self, problems: Problems) {
        self.problems.extend(problems);
    }

    /// All findings with their positions, in the order of files and lines.
    pub(super) fn report(&mut self) -> Findings {
        let mut findings = std::mem::take(&mut self.findings);
        for problem in self.problems.iter() {
            let source = self.sources.iter().map(|(_, source)| source).find(|source| source.file == problem.site.file);
            let Some(source) = source else { continue };
            let position = source.locate(&problem.site, problem.offset);
            let message = self.with_line_numbers(&problem.message);
            let hint = problem.hint.as_deref().map(|hint| self.with_line_numbers(hint));
            let finding = finding_at(source, problem.severity, position, message, hint);
            findings.0.push(without_secrets(finding, source));
        }
        findings.sort();
        findings
    }

    /// Replaces key paths in a text (`FILE.routes[0]`) by lines (`FILE:7`).
    fn with_line_numbers(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (_, source) in &self.sources {
            let file = &*source.file;
            let mut from = 0;
            while let Some(start) = out[from..].find(file).map(|at| from + at) {
                let path_start = start + file.len();
                let (site, length) = key_path(file, &out[path_start..]);
                from = path_start;
                if length > 0 {
                    let line = format!(":{}", source.locate(&site, None).line);
                    out.replace_range(path_start..path_start + length, &line);
                    from += line.len();
                }
            }
        }
        out
    }

    /// The trees of the files of one kind that could be parsed.
    fn trees_of(&self, kind: FileKind) -> impl Iterator<Item = (Site, &Node)> {
        let sources = self.sources.iter().filter(move |(other, _)| *other == kind);
        sources.filter_map(|(_, source)| Some((Site::file(source.file.clone()), source.root.as_ref()?)))
    }

    /// Builds the set; checks as much as possible even if the set cannot be built.
    fn build(&mut self, dir: &Path, overrides: &Overrides) -> Option<Setup> {
        let mut problems = Problems::default();
        let mut referenced_files = ReferencedFiles::default();
        let (main_site, main) = match self.trees_of(FileKind::Pointsman).next() {
            Some((site, node)) => {
                let main = check_files::main(node, &site, dir, overrides, &mut referenced_files, &mut problems);
                (site, main)
            }
            // The other files are checked all the same, so that the error in this one does not hide theirs.
            None => {
                let (_, source) = self.sources.iter().find(|(kind, _)| *kind == FileKind::Pointsman)?;
                (Site::file(source.file.clone()), MainFile::of_unparsed(&source.text))
            }
        };
        let is_parsed = self.trees_of(FileKind::Pointsman).next().is_some();
        let mut workflows = check_files::workflows(self.trees_of(FileKind::Workflow), &main, &mut problems);
        for (_, source) in self.sources.iter().filter(|(kind, _)| *kind == FileKind::Workflow) {
            if source.root.as_ref().and_then(|root| root.get("workflow")).and_then(Node::text).is_none() {
                // A file whose `workflow:` cannot be read most likely holds the workflow that the file is named after.
                let stem = Path::new(&*source.file).file_stem().unwrap_or_default().to_string_lossy();
                workflows.entry((&*stem).into()).or_insert_with(|| (Site::file(source.file.clone()), None));
            }
        }
        let named = std::cell::RefCell::new(edition::NamedFiles::new());
        let read = |file: &str| -> Result<Option<String>, String> {
            let content = super::secrets::public_keys(&dir.join(file), overrides)?;
            named.borrow_mut().extend(content.clone().map(|content| (file.to_owned(), content)));
            Ok(content)
        };
        let routes = check_files::routes(self.trees_of(FileKind::Routes), &main, &workflows, &read, &mut problems);
        let services_site = main_site.key("services");
        if let Some(settings) = &main.settings {
            cross_checks::check_loops(settings, &main, &services_site, &routes.routes, &mut problems);
            cross_checks::warn_unverified_people(settings, &workflows, &mut problems);
            cross_checks::warn_forgotten_keys(settings, &routes.routes, &workflows, &mut problems);
            alive_secrets::check(&settings.secrets, &routes.routes, &mut problems);
            declared_reads::warn(&workflows, &mut problems);
            uncompared_steps::warn(settings.egress.is_some(), &routes, &workflows, &mut problems);
            rehearse_from_legacy::check(settings.egress.is_some(), &routes, &workflows, &mut problems);
        }
        cross_checks::check_sub_runs(&workflows, &mut problems);
        child_undo::check(&workflows, &mut problems);
        adoption::check(&routes.routes, &workflows, &mut problems);
        let has_egress = main.settings.as_ref().is_some_and(|settings| settings.egress.is_some());
        cross_checks::check_routes(&routes.routes, &workflows, has_egress, &mut problems);
        other_spellings::warn_bypassing_spellings(&routes.routes, &mut problems);
        if !is_parsed {
            // A warning may be about what the file says.
            problems.retain(|problem| problem.severity == Severity::Error);
        }
        self.problems = problems;
        self.referenced_files = referenced_files;
        let services: Option<BTreeMap<_, _>> =
            main.services.into_iter().map(|(name, service)| Some((name, service?))).collect();
        let workflows: Option<BTreeMap<_, _>> =
            workflows.into_iter().map(|(name, (_, plan))| Some((name, plan?))).collect();
        let services = services?;
        Some(Setup {
            settings: main.settings?,
            default_legacy: services.get(&main.default_legacy?)?.clone(),
            services,
            routes: routes.routes.into_iter().map(|(_, route)| route).collect(),
            workflows: workflows?,
            rules: routes.rules,
            limits: Arc::new(main.limits),
            edition: edition::edition(&self.sources, &named.into_inner()),
        })
    }
}

/// Parses the key path that follows the file in a displayed site; returns the site and the length of the path.
fn key_path(file: &str, text: &str) -> (Site, usize) {
    let mut site = Site::file(file);
    let mut rest = text;
    loop {
        if let Some((index, tail)) = rest.strip_prefix('[').and_then(|tail| tail.split_once(']'))
            && let Ok(index) = index.parse()
        {
            (site, rest) = (site.index(index), tail);
            continue;
        }
        let Some(tail) = rest.strip_prefix('.') else { break };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let end = tail.find(|c| !word(c)).unwrap_or(tail.len());
        if end == 0 {
            break;
        }
        (site, rest) = (site.key(&tail[..end]), &tail[end..]);
    }
    (site, text.len() - rest.len())
}

/// A finding at a position, with the source line that it points at.
fn finding_at(
    source: &ParsedFile,
    severity: Severity,
    position: super::tree::TextPosition,
    message: String,
    hint: Option<String>,
) -> Finding {
    let start = source.text[..position.span.start].rfind('\n').map_or(0, |at| at + 1);
    let end =
        source.text[position.span.start..].find(['\n', '\r']).map_or(source.text.len(), |at| position.span.start + at);
    Finding {
        severity,
        file: source.file.to_string(),
        line: Some(position.line),
        column: Some(position.column),
        message,
        hint,
        source: mask_password(&source.text[start..end]),
        span: (position.span.start - start)..(position.span.end - start),
    }
}
