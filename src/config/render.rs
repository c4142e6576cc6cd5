//! Findings for people, logs and programs.
//!
//! Always true: the plain form is the same text for the same files, so that logs, the API and tests can compare it;
//! colour is only added to it. A finding carries the source line that it points at, so that it can be shown long after
//! the files have changed. Values of secrets never appear: findings name keys and positions.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use serde::{Serialize, Serializer};

use super::referenced_files::ReferencedFile;
use crate::problem::Severity;

/// One thing that is wrong with the files, with its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Error or warning.
    #[serde(serialize_with = "severity_word")]
    pub severity: Severity,
    /// The path of the file or directory, as the user gave it.
    pub file: String,
    /// The line, from 1; `null` if the finding concerns the whole file or directory.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The text of the line.
    #[serde(skip)]
    pub(crate) source: String,
    /// The bytes of the line at which the caret points.
    #[serde(skip)]
    pub(crate) span: Range<usize>,
}

fn severity_word<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    })
}

/// The findings of one reading of the files, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Whether any finding is an error, so that the set is refused.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }
    /// The number of findings of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// All findings with line, caret and hint, then their number. `colour` is for terminals only.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut text = String::new();
        for finding in &self.0 {
            text.push_str(&finding.render(&renderer));
            text.push_str("\n\n");
        }
        text.push_str(&self.summary());
        text
    }
    /// `3 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let counted = |count: usize, word: &str| match count {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{count} {word}s")),
        };
        let parts = [counted(self.count(Severity::Error), "error"), counted(self.count(Severity::Warning), "warning")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "nothing wrong".to_owned() } else { parts.join(", ") }
    }
    /// The findings as a JSON list.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
    /// Sorts the findings by file and position, and removes duplicates.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by(|a, b| (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity)));
        self.0.dedup();
    }
}

impl Finding {
    /// The finding in one line: `flags/routes/orders.yaml:7:5: error: unknown key … (did you mean …?)`.
    pub fn one_line(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("{}: {severity}: {}", self.position(), self.message_and_hint())
    }

    /// The finding in one line, without its severity: `flags/routes/orders.yaml:7:5: unknown key … (did you mean …?)`.
    pub fn without_severity(&self) -> String {
        format!("{}: {}", self.position(), self.message_and_hint())
    }

    fn message_and_hint(&self) -> String {
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
        self.message.clone() + &hint
    }

    /// `FILE:LINE:COLUMN`, or the file alone.
    pub fn position(&self) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.file),
            _ => self.file.clone(),
        }
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = match self.line {
            Some(_) => self.message.clone(),
            None => format!("{}: {}", self.file, self.message),
        };
        let mut group = level.primary_title(title).elements(self.line.map(|line| {
            Snippet::source(self.source.as_str())
                .line_start(line)
                .path(self.file.as_str())
                .annotation(AnnotationKind::Primary.span(self.span.clone()))
        }));
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Why a set of files was refused: everything that is wrong. Logs, `status` and the terminal show its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFailed {
    /// All findings, warnings included.
    pub findings: Findings,
    /// The certificates and keys that were looked for.
    pub referenced_files: Vec<ReferencedFile>,
}

impl CheckFailed {
    /// The findings with line, caret and hint. `colour` is for terminals only.
    pub fn render(&self, colour: bool) -> String {
        self.findings.render(colour)
    }
}

impl fmt::Display for CheckFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.fmt(f)
    }
}

impl std::error::Error for CheckFailed {}
