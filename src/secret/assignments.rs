//! Finds values behind secret names in a text of lines: in queries and forms (`a=1;token=V&b=2`), quoted headers
//! (`x-api-key: V`), sentences and log lines (`the password: V`, `password=V`), and parts of JSON (`"token": "V"`).
//!
//! Always true: where a text does not tell where a value ends, the value reaches to the end of the line, because a
//! secret may have blanks and any sign in it. Behind a colon, a name that has other meanings too (`session: …`) is
//! that of a secret only if the value looks like one.

use std::borrow::Cow;
use std::ops::Range;

use super::forms::decoded_component;
use super::names::is_weakly_secret;

/// A name is not longer, with its escapes.
const NAME_CHARS_MAX: usize = 128;
/// Behind a colon, the value of a name with other meanings is a secret if it has a digit or so many characters.
const SECRET_CHARS_MIN: usize = 16;
/// So much of a line is read to tell a value from the rest of a sentence.
const SENTENCE_BYTES_MAX: usize = 256;
/// How what is said of a field begins, and not its value: `password: must not be empty`.
const SENTENCES: [&str; 14] =
    ["must", "is", "are", "may", "should", "shall", "can", "cannot", "can't", "has", "was", "not", "too", "needs"];
/// The same, of one word.
const REMARKS: [&str; 8] = ["required", "invalid", "missing", "expired", "empty", "optional", "unknown", "none"];
/// Words that follow the name of a secret and name its value.
const LABELS: [&str; 9] = ["number", "no", "id", "key", "code", "value", "is", "was", "hash"];
const QUOTES: [char; 4] = ['"', '\'', '`', '\\'];

/// A value behind a secret name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment<'t> {
    pub name: Cow<'t, str>,
    pub value: Range<usize>,
    pub form: ValueForm,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueForm {
    /// As in a query or a form.
    Parameter,
    /// In quotes, as in JSON.
    Quoted,
    /// As it is, up to the end of the line.
    Line,
}

impl Assignment<'_> {
    /// Whether the value reaches to the end of its line because nothing tells where it ends.
    pub(super) fn is_line(&self) -> bool {
        self.form == ValueForm::Line
    }
    /// The value without its encoding: equal values are equal then.
    pub(super) fn plain(&self, text: &str) -> String {
        let value = &text[self.value.clone()];
        match self.form {
            ValueForm::Parameter if !value.contains(char::is_whitespace) => decoded_component(value),
            ValueForm::Quoted => serde_json::from_str(&format!("\"{value}\"")).unwrap_or_else(|_| value.to_owned()),
            ValueForm::Parameter | ValueForm::Line => value.trim().to_owned(),
        }
    }
}

/// The first value behind a secret name from this offset on.
pub(super) fn next_secret<'t>(text: &'t str, from: usize, is_secret: &dyn Fn(&str) -> bool) -> Option<Assignment<'t>> {
    let mut at = from;
    while let Some(sign) = text[at..].find([':', '=', '>', '→']).map(|sign| at + sign) {
        let rest = &text[sign..];
        at = sign + rest.chars().next().map_or(1, char::len_utf8);
        let is_arrow = rest.starts_with('→') || rest.starts_with('>') && text[from..sign].ends_with(['-', '=']);
        if rest.starts_with('>') && !is_arrow || rest.starts_with("://") || rest.starts_with("=>") {
            continue;
        }
        let is_parameter = rest.starts_with('=');
        let before = text[from..sign].trim_end_matches(|c: char| is_arrow && matches!(c, '-' | '='));
        let Some((name, is_quoted)) = name_at_end(before, is_secret) else { continue };
        let behind = text[at..].strip_prefix('=').unwrap_or(&text[at..]).trim_start_matches([' ', '\t']);
        let start = text.len() - behind.len();
        let found = value(behind, is_parameter, is_quoted, is_weakly_secret(&name));
        if let Some((place, form)) = found.filter(|(place, _)| !behind[place.clone()].trim().is_empty()) {
            return Some(Assignment { name, value: start + place.start..start + place.end, form });
        }
    }
    None
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '%' | '[' | ']' | '$')
}

/// The secret name at the end of a text, and whether it stands in quotes.
fn name_at_end<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Option<(Cow<'t, str>, bool)> {
    let text = text.trim_end_matches([' ', '\t']);
    let name_end = text.trim_end_matches(QUOTES);
    let (word, before) = last_word(name_end);
    let is_quoted = name_end.len() < text.len();
    if word.is_empty() {
        return None;
    }
    let plain = match word.contains('%') {
        true => Cow::Owned(last_word(decoded_component(word).trim_end_matches(QUOTES)).0.to_owned()),
        false => Cow::Borrowed(word),
    };
    if is_secret(&plain) {
        return (!is_in_resource_name(before)).then_some((plain, is_quoted));
    }
    // A name of two words: `api key: V`, `card number: V`.
    let (earlier, _) = before.strip_suffix(' ').map(last_word)?;
    let is_label = || LABELS.iter().any(|label| plain.eq_ignore_ascii_case(label)) && is_secret(earlier);
    let both = format!("{earlier} {plain}");
    (!earlier.is_empty() && (is_label() || !is_secret(earlier) && is_secret(&both))).then_some((both.into(), is_quoted))
}

/// Whether what follows belongs to the name of a resource: `urn:oauth:token:jwt`, `arn:aws:secret:name`.
fn is_in_resource_name(before: &str) -> bool {
    let end = &before[before.floor_char_boundary(before.len().saturating_sub(NAME_CHARS_MAX))..];
    let run = end.rsplit(|c: char| c.is_whitespace() || QUOTES.contains(&c)).next().unwrap_or_default();
    ["urn:", "arn:"].iter().any(|scheme| run.starts_with(scheme))
}

/// The last word of a text, and what is before it.
fn last_word(text: &str) -> (&str, &str) {
    let word = text.char_indices().rev().take(NAME_CHARS_MAX).take_while(|(_, c)| is_of_name(*c)).last();
    let (before, word) = text.split_at(word.map_or(text.len(), |(at, _)| at));
    (word, before)
}

/// Where the value is in what follows a name and its sign.
fn value(behind: &str, is_parameter: bool, is_quoted: bool, is_weak: bool) -> Option<(Range<usize>, ValueForm)> {
    let line_end = || behind.find(['\n', '\r']).unwrap_or(behind.len());
    let quote = &behind[..behind.len() - behind.trim_start_matches('\\').len()];
    if let Some(mark @ ('"' | '\'')) = behind[quote.len()..].chars().next() {
        let quote = &behind[..quote.len() + mark.len_utf8()];
        let end = closing_quote(behind, quote).unwrap_or_else(line_end);
        return Some((quote.len().min(end)..end, ValueForm::Quoted));
    }
    if is_parameter {
        return Some((0..parameter_end(behind), ValueForm::Parameter));
    }
    let first = behind.split_whitespace().next().unwrap_or_default();
    let has_digit = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    if is_weak && !has_digit(first) && first.chars().count() < SECRET_CHARS_MIN && !is_quoted {
        return None;
    }
    let beginning = &behind[..behind.floor_char_boundary(SENTENCE_BYTES_MAX)];
    let sentence = beginning.lines().next().unwrap_or_default();
    let word = first.trim_end_matches(['.', ',', ';', '!']);
    let is_one_of = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other));
    let is_remark = is_one_of(&REMARKS) || is_one_of(&SENTENCES) && sentence.trim() != first;
    if is_remark && !has_digit(sentence) {
        return None;
    }
    // A value of JSON that is no text.
    let is_literal = is_quoted && !first.starts_with(['{', '[']);
    let end = if is_literal { behind.find([',', '}', ']', '\n', '\r']).unwrap_or(behind.len()) } else { line_end() };
    Some((0..end, ValueForm::Line))
}

/// Where a quoted value ends: `quote` is the quote with the escapes before it.
fn closing_quote(text: &str, quote: &str) -> Option<usize> {
    let mut at = quote.len();
    loop {
        let found = at + text[at..].find(quote)?;
        let behind = text[found + quote.len()..].chars().next();
        let is_end = behind.is_none_or(|c| c.is_whitespace() || ",;:}])&<>\"'\\.".contains(c));
        if is_end && !text[..found].ends_with('\\') {
            return Some(found);
        }
        at = found + quote.len();
    }
}

/// Where the value of a parameter ends: at a line break, a fragment, or a sign before the next parameter. What follows
/// another `&` or `;` belongs to a value that was not encoded.
fn parameter_end(text: &str) -> usize {
    let mut at = 0;
    while let Some(sign) = text[at..].find(['&', ';', '#', '\n', '\r']).map(|sign| at + sign) {
        let behind = &text[sign + 1..];
        let next = &behind[..behind.find(['&', ';', '#', '\n', '\r']).unwrap_or(behind.len())];
        let name = next.split('=').next().unwrap_or_default().trim_start();
        if !text[sign..].starts_with(['&', ';']) || name.chars().all(is_of_name) {
            return sign;
        }
        at = sign + 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{STARS, is_secret};

    fn shown(text: &str) -> String {
        let (mut out, mut at) = (String::new(), 0);
        while let Some(found) = next_secret(text, at, &is_secret) {
            out.push_str(&text[at..found.value.start]);
            out.push_str(STARS);
            at = found.value.end;
        }
        out + &text[at..]
    }

    #[test]
    fn values_behind_secret_names_are_found() {
        for (text, expected) in [
            ("x-api-key: hunter2\nfoo", "x-api-key: ***\nfoo"),
            ("got authorization: Basic aHVudGVyMg==", "got authorization: ***"),
            ("a=1;password=hunter2&b=2", "a=1;password=***&b=2"),
            ("password=hun&t<er2 x", "password=***"),
            ("?token=hunter2#x", "?token=***#x"),
            ("the password: hunter2 is yours", "the password: ***"),
            ("the password is: hunter2", "the password is: ***"),
            ("API key = hunter2", "API key = ***"),
            ("card number: hunter2", "card number: ***"),
            ("password := hunter2", "password := ***"),
            ("password -> hunter2", "password -> ***"),
            ("password => hunter2", "password => ***"),
            ("'token' : 'hun ter2', n", "'token' : '***', n"),
            (r#"{"password":"hunter2","n":1"#, r#"{"password":"***","n":1"#),
            (r#"{\"password\":\"hun\\\"ter2\",\"n\":1"#, r#"{\"password\":\"***\",\"n\":1"#),
            (r#""pin": 1234, "n": 1"#, r#""pin": ***, "n": 1"#),
            (r#""password":"hunter2"#, r#""password":"***"#),
            ("spring.datasource.password=hunter2", "spring.datasource.password=***"),
            ("user%5Bpass%77ord%5D=hunter2&n=1", "user%5Bpass%77ord%5D=***&n=1"),
            ("pin: 1234", "pin: ***"),
            ("password: must be hunter2", "password: ***"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "session: opening talk",
            "Card: for a birthday",
            "password: must not be empty",
            "token: expired",
            "https://shop.example/a?page=2&sort=asc;n=1",
            "due: 2026-11-17 10:00:00",
            "the token has expired; total=5",
            "password=&a=1",
            "company: ACME => partner",
            "urn:oauth:token:jwt",
            "role \"arn:aws:secret:prod\"",
            "a->b, 1 > 2, x >= 3",
            "password:",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_value_is_compared_without_its_encoding() {
        let plain = |text: &str| next_secret(text, 0, &is_secret).expect("a secret").plain(text);
        for text in ["token=a%22b+c", r#""token":"a\"b c""#, "token: a\"b c "] {
            assert_eq!(plain(text), "a\"b c", "{text}");
        }
    }
}
