//! Finds the lines of a section that holds secrets, in an INI or TOML file: `[secrets]`, and then lines with names and
//! values.
//!
//! Always true: the name of a section with other meanings (`[session]`) says nothing. All lines up to the header of the
//! next section are secret, comments too: how a value is written, and where it ends, differs from format to format. No
//! line is a header that is indented more than that of the section (a value of INI goes on there), nor one in a bracket
//! or in quotes that a value has opened; where it is not sure that these are closed, they count as open.

use crate::secret::{is_weakly_secret, singular};

/// Quotes of TOML in which a text may have a line that looks like a header.
const LONG_QUOTES: [&str; 2] = ["\"\"\"", "'''"];

/// If a line begins a section in which all values are secret: the name of these secrets.
pub(super) fn section_of_secrets<'l>(line: &'l str, is_secret: &dyn Fn(&str) -> bool) -> Option<&'l str> {
    let part = |part: &'l str| {
        let name = part.trim().trim_matches(['"', '\'']);
        let names = [Some(name), singular(name)];
        names.into_iter().flatten().find(|name| is_secret(name) && !is_weakly_secret(name))
    };
    header(line).and_then(|name| name.split('.').find_map(part))
}

/// The name of the section that a line begins: `[server]`, or `[[servers]] # all of them` for a table of a list.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let (open, close) = if line.starts_with("[[") { ("[[", "]]") } else { ("[", "]") };
    let (name, behind) = line.strip_prefix(open)?.split_once(close)?;
    let behind = behind.trim_start();
    (is_name(name) && (behind.is_empty() || behind.starts_with(['#', ';']))).then_some(name)
}

/// A section of secrets, from the line behind its header on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SectionOfSecrets {
    pub(super) name: String,
    /// By how much its header is indented.
    indent: usize,
    /// The quotes of a text of several lines that has not ended yet.
    quote: Option<&'static str>,
    /// How many brackets of values are open.
    brackets: usize,
}

/// What a line of such a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionLine {
    /// A name and its value.
    Value,
    /// Anything else that may have a part of a value.
    Other,
    /// The header of the next section.
    Header,
}

impl SectionOfSecrets {
    /// `line`: the header.
    pub(super) fn of(name: &str, line: &str) -> Self {
        Self { name: name.to_owned(), indent: indent_of(line), quote: None, brackets: 0 }
    }

    /// What a line that is not empty is.
    pub(super) fn next(&mut self, line: &str) -> SectionLine {
        let is_in_value = self.quote.is_some() || self.brackets > 0;
        // The element of a list in brackets is none: `["a"]`, `[17]`.
        let is_element = |name: &str| name.starts_with(['"', '\'']) && name.ends_with(['"', '\'']);
        let is_number = |name: &str| name.trim().bytes().all(|byte| byte.is_ascii_digit());
        let is_header = || header(line).is_some_and(|name| !is_element(name.trim()) && !is_number(name));
        if !is_in_value && indent_of(line) <= self.indent && is_header() {
            return SectionLine::Header;
        }
        self.read(line);
        match line.split_once('=') {
            Some((name, _)) if !is_in_value && is_name(name) => SectionLine::Value,
            _ => SectionLine::Other,
        }
    }

    /// Reads what a line opens and closes.
    fn read(&mut self, line: &str) {
        let mut rest = line;
        let mut before = ' ';
        while let Some(c) = rest.chars().next() {
            let mut read = c.len_utf8();
            match self.quote {
                Some(quote) if rest.starts_with(quote) => {
                    self.quote = None;
                    read = quote.len();
                }
                Some("\"\"\"") if c == '\\' => read += rest[read..].chars().next().map_or(0, char::len_utf8),
                Some(_) => {}
                None => match LONG_QUOTES.into_iter().find(|quote| rest.starts_with(quote)) {
                    Some(quote) => {
                        self.quote = Some(quote);
                        read = quote.len();
                    }
                    None if matches!(c, '#' | ';') && before.is_whitespace() => return,
                    None if matches!(c, '"' | '\'') => match end_of_quoted(rest, c) {
                        Some(end) => read = end,
                        // An apostrophe, or a text that is no TOML.
                        None => {
                            self.brackets += rest.matches('[').count();
                            return;
                        }
                    },
                    None if c == '[' => self.brackets += 1,
                    None if c == ']' => self.brackets = self.brackets.saturating_sub(1),
                    None => {}
                },
            }
            before = c;
            rest = &rest[read..];
        }
    }
}

/// Where a text in these quotes ends that begins with one, if it does so on its line.
fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' if quote == '"' => drop(characters.next()),
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_name(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-.\"' /:@".contains(c))
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
        for line in ["[secrets] # prod", "[secrets];prod", "[[tokens]] # a", "[app/secrets]", "[secrets] # [x]"] {
            assert!(section_of_secrets(line, &is_secret).is_some(), "{line}");
        }
        for (line, expected) in [
            ("pay = \"hunter2\"", SectionLine::Value),
            ("# old", SectionLine::Other),
            ("  \"hunter2\",", SectionLine::Other),
            ("]", SectionLine::Other),
            ("[\"hunter2\"]", SectionLine::Other),
            ("[server] # prod", SectionLine::Header),
            ("[\"a b\".c]", SectionLine::Header),
            ("Hello Bob,", SectionLine::Other),
        ] {
            assert_eq!(SectionOfSecrets::of("secrets", "[secrets]").next(line), expected, "{line}");
        }
    }
}
