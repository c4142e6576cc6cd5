//! Finds where a line of text begins to be secret.
//!
//! A line has no key, so the words in it are taken for one: what follows the name of a secret (`Password : …`,
//! `"token": …`, `<password>…`, `--password …`) is hidden, up to the end of the line.

use crate::secret::{CDATA, is_secret};

/// A value behind a name and a blank alone is taken for a secret if it has a digit or so many characters: `password
/// hunter2`, but not `password has expired`.
const SECRET_CHARS_MIN: usize = 16;
/// A line that is nothing but a name is not longer.
const NAME_BYTES_MAX: usize = 40;
const QUOTES: [char; 5] = ['"', '\'', '`', ']', ')'];

/// The offset in a line from which on it is secret.
pub(super) fn secret_from(line: &str) -> Option<usize> {
    words(line).find_map(|(start, end)| {
        let (before, word, rest) = (&line[..start], &line[start..end], &line[end..]);
        if word.starts_with("eyJ") && rest.starts_with('.') {
            return Some(start); // a JWT
        }
        let behind = rest.trim_start_matches(QUOTES);
        let blank = behind.len() - behind.trim_start().len();
        let next = behind.split_whitespace().next().unwrap_or_default();
        let is_scheme = ["bearer", "basic", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
        if is_scheme && blank > 0 && (may_be_secret(next) || word.eq_ignore_ascii_case("bearer") && !next.is_empty()) {
            return Some(end);
        }
        if !is_secret(word) {
            return None;
        }
        if before.ends_with('<') || before.ends_with(':') && before.contains('<') {
            return Some(rest.find('>').map_or(end, |at| end + at + 1));
        }
        // XML that is a text of XML.
        if before.ends_with("&lt;") || before.ends_with(':') && before.contains("&lt;") {
            return Some(rest.find("&gt;").map_or(end, |at| end + at + "&gt;".len()));
        }
        let after = rest.trim_start_matches(|c: char| QUOTES.contains(&c) || c.is_whitespace());
        let sign = ["->", "=>", "→", ":=", ":", "="].iter().find(|sign| after.starts_with(**sign));
        if let Some(sign) = sign {
            return Some(line.len() - after.len() + sign.len());
        }
        let is_option = word.starts_with('-') && !next.is_empty();
        (blank > 0 && (is_option || may_be_secret(next) || is_name_of_scheme(next))).then_some(end)
    })
}

/// Whether a line that was named as a secret only begins one, so that the next line is the secret.
pub(super) fn only_begins_a_secret(line: &str) -> bool {
    ["", CDATA[0]].contains(&line.trim())
}

/// Whether a secret of several lines begins behind a bracket: `"password": {`. Where it ends is not known.
pub(super) fn opens_a_secret(line: &str) -> bool {
    let line = line.trim_end();
    line.ends_with(['{', '[']) && secret_from(line).is_some()
}

/// Whether the value of a secret begins on the line after this one: `password:`, `password: |`, `<password>`.
pub(super) fn names_the_next_line(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_suffix(CDATA[0]).map_or(line, str::trim_end);
    let is_candidate = line.len() <= NAME_BYTES_MAX || line.ends_with([':', '=', '|', '>', '-', '+', '\\', '"', '\'']);
    if !is_candidate || line.is_empty() {
        return false;
    }
    let name = line.trim_end_matches(|c: char| {
        c.is_whitespace() || QUOTES.contains(&c) || matches!(c, ':' | '=' | '|' | '>' | '-' | '+' | '\\' | '*' | '#')
    });
    let Some((start, _)) = words(name).last().filter(|(start, end)| *end == name.len() && is_secret(&name[*start..]))
    else {
        return false;
    };
    // The name alone, or with what says that a value follows.
    let ends_with_sign = line[name.len()..].contains([':', '=', '\\']);
    let is_tag = name[..start].ends_with(['<', ':']) && name.contains('<') && line.ends_with('>');
    ends_with_sign || is_tag || name.trim_start_matches(['#', '*', '"', '\'', ' ']).len() == name.len() - start
}

fn words(line: &str) -> impl Iterator<Item = (usize, usize)> {
    let is_word_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + line[at..].find(is_word_char)?;
        let run = line[start..].find(|c| !is_word_char(c)).map_or(line.len(), |end| start + end);
        at = run;
        // The dash of an arrow belongs to no word.
        let end = if line[run..].starts_with('>') { start + line[start..run].trim_end_matches('-').len() } else { run };
        Some((start, end.max(start)))
    })
}

fn may_be_secret(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit()) || value.chars().count() >= SECRET_CHARS_MIN
}

fn is_name_of_scheme(word: &str) -> bool {
    ["bearer", "basic", "digest", "token"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_name_of_a_secret_is_secret() {
        for line in [
            "Password : hunter2",
            "\"password\": \"hunter2\"",
            "{\"user\":\"a\",\"password\":\"hunter2\",\"n\":1}",
            "<password>hunter2</password>",
            "<a:password x='1'>hunter2</a:password>",
            "<password><![CDATA[hunter2]]></password>",
            "<a>&lt;password&gt;hunter2&lt;/password&gt;</a>",
            "curl --password hunter2",
            "curl --password=hunter2",
            "password -> hunter2",
            "password->hunter2",
            "password => hunter2",
            "password hunter2",
            "Authorization Bearer hunter2",
            "Authorization: Basic hunter2",
            "got Bearer hunter2 from a",
            "seen eyJhbGciOi.hunter2.x",
            "[password] hunter2",
        ] {
            let shown = secret_from(line).map(|from| &line[..from]);
            assert!(shown.is_some_and(|shown| !shown.contains("hunter2")), "{line}: {shown:?}");
        }
        for line in ["Your password has expired", "discard 17", "Basic plan", "total: 5", "a->b", "the tokens are gone"]
        {
            assert_eq!(secret_from(line), None, "{line}");
        }
    }

    #[test]
    fn a_secret_may_go_on_for_several_lines() {
        for (line, opens) in
            [("  \"password\": {", true), ("tokens: [ ", true), ("\"total\": {", false), ("pin: 1", false)]
        {
            assert_eq!(opens_a_secret(line), opens, "{line}");
        }
    }

    #[test]
    fn the_value_may_be_on_the_next_line() {
        for line in [
            "password:",
            "  \"password\":",
            "password: |",
            "password: >-",
            "<password>",
            "<password><![CDATA[",
            "Password",
            "--token \\",
            "# API key token =",
        ] {
            assert!(names_the_next_line(line), "{line}");
        }
        for line in ["", "password: x", "the password", "total:", "Your password has expired"] {
            assert!(!names_the_next_line(line), "{line}");
        }
    }
}
