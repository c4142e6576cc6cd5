//! The problems that checks find in files, each with its position.
//!
//! The question it answers: "what must a person correct, and in which line?" The checks of all modules add to one
//! [`Problems`], so that a person sees all of them at once. A [`Site`] names a position by file and key path; only
//! `config`, which has the source text, turns it into line and column.

use std::fmt;
use std::sync::Arc;

/// One step of a key path into a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A key of a map.
    Key(Arc<str>),
    /// An index in a list.
    Index(usize),
}

/// A position in a file: the file, and the key path to the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The path from the top of the file to the value.
    pub path: Vec<Segment>,
    /// Whether the key itself is meant instead of its value.
    pub at_key: bool,
}

impl Site {
    /// The top of a file.
    pub fn file(file: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), path: Vec::new(), at_key: false }
    }
    /// The value under a key.
    pub fn key(&self, key: impl Into<Arc<str>>) -> Self {
        let mut site = self.clone();
        site.path.push(Segment::Key(key.into()));
        site
    }
    /// The value at an index of a list.
    pub fn index(&self, index: usize) -> Self {
        let mut site = self.clone();
        site.path.push(Segment::Index(index));
        site
    }
    /// Whether this position is `other` or lies inside `other`.
    pub fn is_within(&self, other: &Site) -> bool {
        self.file == other.file && self.path.starts_with(&other.path)
    }
    /// The key itself instead of its value.
    pub fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        for segment in &self.path {
            match segment {
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// How serious a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The set is refused.
    Error,
    /// The set is accepted, but a person should look at the problem.
    Warning,
}

/// One problem of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The position.
    pub site: Site,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The position in the value, in characters, if only a part of a string is wrong (an expression in a template).
    pub offset: Option<usize>,
}

impl Problem {
    /// Adds a hint: what to do about the problem.
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
    /// Points at a character of the value.
    pub fn offset(&mut self, offset: usize) -> &mut Self {
        self.offset = Some(offset);
        self
    }
}

/// All problems that a check found.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes an error; the returned problem takes a hint.
    pub fn error(&mut self, site: &Site, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Error, site, message.into())
    }
    /// Notes a warning; the returned problem takes a hint.
    pub fn warn(&mut self, site: &Site, message: impl Into<String>) -> &mut Problem {
        self.push(Severity::Warning, site, message.into())
    }
    fn push(&mut self, severity: Severity, site: &Site, message: String) -> &mut Problem {
        self.0.push(Problem { severity, site: site.clone(), message, hint: None, offset: None });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
    /// Whether any problem is an error, which refuses the set.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|p| p.severity == Severity::Error)
    }
    /// The problems in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
    /// The number of problems.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Drops the problems for which `keep` returns false.
    pub fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.0.retain(keep);
    }
    /// Adds the problems of another list.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }
}

/// The known word nearest to an unknown one, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
