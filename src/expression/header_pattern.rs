//! Patterns of headers in which ids stand: `/orders/{id}`.
//!
//! Always true: a pattern that begins with a slash also fits an absolute URL with that path; one without `?` fits
//! whatever query and fragment. An id in a header is percent-encoded; [`decoded_id`] decodes what a pattern has found.

use percent_encoding::percent_decode_str;
use regex::{Regex, RegexBuilder};

/// The largest compiled pattern, in bytes.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 18;

/// The pattern of a header's value, with the names of ids in braces.
#[derive(Clone, Debug)]
pub struct HeaderPattern {
    pattern: Regex,
    /// The names in braces, one for each group of the pattern.
    names: Vec<String>,
}

/// Why a text is no such pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HeaderPatternError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

impl HeaderPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// It has no name in braces, or it is too long.
    pub fn parse(text: &str) -> Result<Self, HeaderPatternError> {
        let (mut pattern, mut names, mut rest) = (String::from("^"), Vec::new(), text);
        if text.starts_with('/') {
            pattern.push_str("(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)?");
        }
        while let Some((before, after)) = rest.split_once('{') {
            let Some((id, after)) = after.split_once('}').filter(|(id, _)| is_id_name(id)) else {
                names.clear();
                break;
            };
            pattern.push_str(&regex::escape(before));
            pattern.push_str("([^/?#&]+)");
            names.push(id.to_owned());
            rest = after;
        }
        if names.is_empty() {
            return Err(HeaderPatternError {
                message: format!("`{text}` does not say where the id is"),
                hint: "the path of the header with the id's name in braces: `/orders/{id}`",
            });
        }
        pattern.push_str(&regex::escape(rest));
        pattern.push_str(if text.contains('?') { "$" } else { "(?:[?#].*)?$" });
        match RegexBuilder::new(&pattern).size_limit(PATTERN_COMPILED_BYTES_MAX).build() {
            Ok(pattern) => Ok(Self { pattern, names }),
            Err(_) => Err(HeaderPatternError {
                message: "the pattern is too long".to_owned(),
                hint: "write the path with fewer ids",
            }),
        }
    }

    /// The names in braces, in their order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The ids in a value, one for each name and still encoded; `None` if the value does not fit.
    pub fn ids_in<'a>(&self, value: &'a str) -> Option<Vec<&'a str>> {
        let found = self.pattern.captures(value)?;
        Some(found.iter().skip(1).map(|id| id.map_or("", |id| id.as_str())).collect())
    }
}

/// An id as bodies and parameters of paths have it; `None` if it is not UTF-8.
pub(super) fn decoded_id(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(|id| id.into_owned())
}

/// Whether this is a name for an id in a pattern.
pub fn is_id_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}
