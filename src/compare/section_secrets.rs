//! Finds the values in a section that holds secrets, in an INI or TOML file: `[secrets]`, and then lines with names and
//! values.
//!
//! Always true: the name of a section with other meanings (`[session]`) says nothing, and the section ends at the first
//! line that is no assignment, no comment and no part of a value of several lines.

use crate::secret::{is_weakly_secret, singular};

/// The name of the secrets in a section that a line begins, if all values in it are secret.
pub(super) fn section_of_secrets<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<&'l str> {
    let inner = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    // A table of a list: `[[tokens]]`.
    let inner = inner.map(|name| name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name));
    let part = |part: &'l str| {
        let name = part.trim().trim_matches(['"', '\'']);
        let names = [Some(name), singular(name)];
        names.into_iter().flatten().find(|name| is_secret(name) && !is_weakly_secret(name))
    };
    inner.filter(|name| is_name(name)).and_then(|name| name.split('.').find_map(part))
}

/// What a line of such a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionLine<'l> {
    /// A name and its value.
    Value(&'l str),
    /// A part of a value that began on an earlier line.
    Continued,
    /// A comment.
    Comment,
    /// It does not belong to the section.
    Outside,
}

impl<'l> SectionLine<'l> {
    /// What a line that is not empty is.
    pub(super) fn of(line: &'l str) -> Self {
        let content = line.trim();
        if content.starts_with(['#', ';']) {
            return Self::Comment;
        }
        match content.split_once('=') {
            Some((name, value)) if is_name(name) => Self::Value(value.trim()),
            _ if line.starts_with([' ', '\t']) || content.starts_with([']', '}', '"', '\'']) => Self::Continued,
            _ => Self::Outside,
        }
    }
}

fn is_name(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.\"' ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::is_secret;

    #[test]
    fn sections_of_secrets_are_told_from_others() {
        for line in ["[secrets]", " [app.secrets] ", "[[tokens]]", "[\"credentials\".prod]", "[password]"] {
            assert!(section_of_secrets(line, &is_secret).is_some(), "{line}");
        }
        for line in ["[session]", "[cards]", "[server]", "secrets", "[secrets] are kept", "[secrets, 7]", "[]", "["] {
            assert_eq!(section_of_secrets(line, &is_secret), None, "{line}");
        }
        for (line, expected) in [
            ("pay = \"hunter2\"", SectionLine::Value("\"hunter2\"")),
            ("# old", SectionLine::Comment),
            ("  \"hunter2\",", SectionLine::Continued),
            ("]", SectionLine::Continued),
            ("[server]", SectionLine::Outside),
            ("Hello Bob,", SectionLine::Outside),
        ] {
            assert_eq!(SectionLine::of(line), expected, "{line}");
        }
    }
}
