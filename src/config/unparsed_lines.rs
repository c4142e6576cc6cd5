//! What is shown of a line of a file that could not be parsed, or is not UTF-8: no tree says where a value ends.
//!
//! Always true: nothing is shown of a line that is below the name of a secret, by how the lines are indented or because
//! a bracket or a quote behind such a name may still be open; nor of what follows such a name in the line itself.

use crate::secret::{STARS, redact_line};

use super::secret_keys::is_secret_name;

const QUOTES: [char; 2] = ['"', '\''];
/// What is before a key in a line.
const BEFORE_KEY: [char; 4] = [' ', '\t', '-', '?'];

/// A line without what may be secret in it; `before`: the text of its file before the line.
pub(super) fn shown_line(before: &str, line: &str) -> String {
    // A value behind a key of its own line (`? key`).
    let is_value = line.trim_start().starts_with(':');
    // A key may be one of several lines, or escaped: then its name is not known.
    let has_odd_keys = content_lines(before).chain([line]).any(has_odd_key);
    if is_value || has_odd_keys || is_in_open_value(before) || is_indented_below(before, line) || is_behind_key(before)
    {
        let indent = line.len() - line.trim_start_matches(BEFORE_KEY).len();
        return format!("{}{STARS}", &line[..indent]);
    }
    match ends_of_secret_keys(line).next() {
        Some(end) if !line[end..].trim().is_empty() => format!("{} {STARS}", redact_line(&line[..end])),
        _ => redact_line(line),
    }
}

/// Where the names of secrets in a line end, behind their colons.
fn ends_of_secret_keys(line: &str) -> impl Iterator<Item = usize> {
    let is_secret_key = |colon: usize| {
        let text = line[..colon].trim_end().trim_end_matches(QUOTES);
        let key = text.rsplit(['{', '[', ',', '"', '\'']).next().unwrap_or_default().trim_start_matches(BEFORE_KEY);
        let is_word_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let word = text.rsplit(|c| !is_word_char(c)).next().unwrap_or_default().trim_start_matches('-');
        is_secret_name(key) || is_secret_name(word)
    };
    line.match_indices(':').map(|(at, _)| at).filter(move |at| is_secret_key(*at)).map(|at| at + 1)
}

/// Whether a line has an explicit key (`? key`), an escaped character, or a quote that it does not close.
fn has_odd_key(line: &str) -> bool {
    let is_explicit = line.trim_start_matches([' ', '\t', '-']).starts_with("? ");
    let is_escaped = ["\\u", "\\U", "\\x"].iter().any(|escape| line.contains(escape));
    let is_open = line.matches('"').count() % 2 == 1 && !line.contains(": ");
    is_explicit || is_escaped || is_open
}

fn names_a_secret(line: &str) -> bool {
    ends_of_secret_keys(line).next().is_some()
}

/// The lines of a text that are neither empty nor nothing but a comment.
fn content_lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'))
}

/// Whether a line is below the name of a secret, by how the lines before it are indented.
fn is_indented_below(before: &str, line: &str) -> bool {
    let indent_of = |line: &str| line.len() - line.trim_start_matches(BEFORE_KEY).len();
    let mut indent = indent_of(line);
    for line in content_lines(before).rev() {
        if indent_of(line) < indent {
            indent = indent_of(line);
            if names_a_secret(line) {
                return true;
            }
        }
    }
    false
}

/// Whether the last line is nothing but the name of a secret, whose value may be the next line.
fn is_behind_key(before: &str) -> bool {
    let ends_with_key = |line: &str| ends_of_secret_keys(line).any(|end| line[end..].trim().is_empty());
    content_lines(before).next_back().is_some_and(ends_with_key)
}

/// Whether a value that has begun behind the name of a secret may go on behind this text: in brackets or quotes.
fn is_in_open_value(text: &str) -> bool {
    let mut open = OpenValue::default();
    for line in text.lines() {
        let mut rest = line;
        loop {
            if !open.is_open() {
                let is_comment = rest.trim_start().starts_with('#');
                let Some(end) = ends_of_secret_keys(rest).next().filter(|_| !is_comment) else { break };
                rest = &rest[end..];
            }
            match open.read(rest) {
                Some(end) => rest = &rest[end..],
                None => break,
            }
        }
    }
    open.is_open()
}

/// A value that may take several lines.
#[derive(Default)]
struct OpenValue {
    brackets: usize,
    quote: Option<char>,
}

impl OpenValue {
    fn is_open(&self) -> bool {
        self.brackets > 0 || self.quote.is_some()
    }

    /// Reads more of the value, up to the end of a line. Returns where its last bracket or quote is closed.
    fn read(&mut self, text: &str) -> Option<usize> {
        let mut before = ' ';
        let mut characters = text.char_indices();
        while let Some((at, c)) = characters.next() {
            let begins_a_token = before.is_whitespace() || matches!(before, '{' | '[' | ',' | ':');
            match (self.quote, c) {
                (Some('"'), '\\') => drop(characters.next()),
                (Some(quote), _) if c == quote => self.quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => return None,
                (None, '"' | '\'') if begins_a_token => self.quote = Some(c),
                (None, '{' | '[') => self.brackets += 1,
                (None, '}' | ']') => self.brackets = self.brackets.saturating_sub(1),
                (None, _) => {}
            }
            if !self.is_open() && (QUOTES.contains(&c) || matches!(c, '}' | ']')) {
                return Some(at + c.len_utf8());
            }
            before = c;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (before, line, expected) in [
            ("", "store_key: {value: hunter2, q: : }", "store_key: ***"),
            ("secrets: {\n", "pay: \"hunter2\\q\",", "***"),
            ("secrets: {\n  a: \"}\",\n", "pay: hunter2,", "***"),
            ("secrets: { # }\n", "pay: hunter2,", "***"),
            ("{ \"tokens\": [\n", "\"hunter2\",", "***"),
            ("", "{\"secrets\":{\"pay\":\"hunter2\",}, \"x\": ]}", "{\"secrets\": ***"),
            ("secrets:\n", "  pay:\t hunter2: x: y", "  ***"),
            ("secrets:\n", "  pay:hunter2: x", "  ***"),
            ("secrets:\n", "\tpay: hunter2", "\t***"),
            ("secrets:\n  a: 1\n", "  - pay: hunter2: x", "  - ***"),
            ("a: { secrets:\n", "  pay: hunter2", "  ***"),
            ("token: \"a\n", "hunter2\": x", "***"),
            ("token:\n", "hunter2: x: y", "***"),
            ("? token\n", ": hunter2: x", "***"),
            ("", "token:hunter2: x", "token: ***"),
            ("", "db.password : hunter2: x", "db.password : ***"),
            ("", "limits: { password: hunter2, queue: : }", "limits: { password: ***"),
            ("", "a: ${x: y} # token: hunter2", "a: ${x: y} # token: ***"),
            ("secrets: { a: 1 }\n", "listen: a: b", "listen: a: b"),
            ("secrets: { a: \"}\" } # {\n", "listen: a: b", "listen: a: b"),
            ("secrets:\n  a: 1\n", "listen: a: b", "listen: a: b"),
            ("# secrets: {\n", "listen: a: b", "listen: a: b"),
            ("", "token: ${secrets.pay: x", "token: ***"),
        ] {
            assert_eq!(shown_line(before, line), expected, "{before}{line}");
        }
    }
}
