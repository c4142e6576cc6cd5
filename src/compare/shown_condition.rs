//! What is shown and kept of the texts of rules. A condition (`when:`, `assert:`) or the filter of a path that may
//! compare with a secret is shown and kept without its literals, and a pattern without what looks like a secret.

use std::borrow::Cow;

pub(super) use crate::expression::shown_condition as shown;
use crate::secret::{FoundSecret, RedactRules, STARS, replace_secrets};

/// So many letters and digits behind a secret name in a pattern may be a secret.
const LITERAL_CHARS_MIN: usize = 4;

/// What is shown of the text of a path: one with a filter that may compare with a secret has no literals in its
/// filters.
pub(super) fn shown_path<'a>(text: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut names = text.split(|c| !is_of_name(c)).filter(|name| !name.is_empty());
    let has_filter = text.match_indices('[').any(|(at, _)| text[at + 1..].trim_start().starts_with('?'));
    match has_filter && (names.any(|name| redact.is_secret(name)) || redact.finds_secret_in(text)) {
        true => Cow::Owned(without_literals_in_filters(text)),
        false => Cow::Borrowed(text),
    }
}

/// The text of a JSONPath with stars in place of each text and number in its filters that is no name.
fn without_literals_in_filters(path: &str) -> String {
    let mut shown = String::with_capacity(path.len());
    // Of each bracket that is open, whether literals are in it and no names.
    let mut open: Vec<bool> = Vec::new();
    let (mut rest, mut last) = (path, ' ');
    while let Some(c) = rest.chars().next() {
        let is_in_filter = open.last() == Some(&true);
        let len = match c {
            '\'' | '"' => quoted_len(rest, c),
            '0'..='9' if !is_of_word(last) => rest.find(|c| !is_of_word(c) && c != '.').unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        match c {
            '[' => open.push(rest[1..].trim_start().starts_with('?')),
            '(' => open.push(is_in_filter),
            ']' | ')' => open.truncate(open.len().saturating_sub(1)),
            _ => {}
        }
        match c {
            '\'' | '"' if is_in_filter => shown.extend([&*c.to_string(), STARS, &*c.to_string()]),
            '0'..='9' if is_in_filter && !is_of_word(last) => shown.push_str(STARS),
            _ => shown.push_str(&rest[..len]),
        }
        last = rest[..len].chars().next_back().unwrap_or(' ');
        rest = &rest[len..];
    }
    shown
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How long a text in quotes is, with them.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let is_end = *c == quote && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, c)| at + c.len_utf8())
}

/// What is shown of a pattern for lines: stars stand in place of what looks like a secret in it.
pub(super) fn shown_pattern<'a>(pattern: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    let mut stars = |found: FoundSecret<'_>| has_literal(found.value).then(|| STARS.to_owned());
    let shown = replace_secrets(pattern, &|name| redact.is_secret(name), redact.detectors(), &mut stars);
    shown.map_or(Cow::Borrowed(pattern), Cow::Owned)
}

/// Whether a part of a pattern has characters that it looks for, beside classes, groups and numbers of repetitions:
/// `(\w+)` and `[a-z0-9]{8}` have none.
fn has_literal(pattern: &str) -> bool {
    let (mut chars, mut literals) = (pattern.chars(), 0);
    while let Some(c) = chars.next() {
        let closing = match c {
            '\\' => {
                chars.next();
                continue;
            }
            '[' => ']',
            '{' => '}',
            c => {
                literals += usize::from(c.is_alphanumeric());
                continue;
            }
        };
        chars.by_ref().find(|c| *c == closing);
    }
    literals >= LITERAL_CHARS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Detectors;

    fn redact() -> RedactRules {
        RedactRules::new(["x-staff".to_owned()], Vec::new(), Detectors::default())
    }

    #[test]
    fn literals_are_masked_where_the_condition_may_compare_with_a_secret() {
        for (source, expected) in [
            (r#"request.headers["x-api-key"] == "k3y""#, r#"request.headers["x-api-key"] == "***""#),
            (r#"request.headers["x-staff"] == "k3y""#, r#"request.headers["x-staff"] == "***""#),
            (r#"legacy.body.users[0].password == "k3y""#, r#"legacy.body.users[0].password == "***""#),
            (r#"request.headers.exists(h, h == "k3y")"#, r#"request.headers.exists(h, h == "***")"#),
            (r#"request.headers["x-a"] == "Bearer sk12345secret9""#, r#"request.headers["x-a"] == "***""#),
            (r#"request.query.kind == "gift""#, r#"request.query.kind == "gift""#),
            ("legacy.status < 400", "legacy.status < 400"),
            ("${intents.charge.body.amount == 7}", "${intents.charge.body.amount == 7}"),
        ] {
            assert_eq!(shown(source, &redact()), expected);
        }
        let of_paths = redact().and(&RedactRules::new([], vec!["$.iban".parse().unwrap()], Detectors::default()));
        assert_eq!(shown(r#"request.body.iban == "k3y""#, &of_paths), r#"request.body.iban == "***""#);
        assert_eq!(shown("legacy.status < 400", &of_paths), "legacy.status < 400");
    }

    #[test]
    fn filters_that_name_a_secret_and_patterns_that_have_one_are_masked() {
        for (path, expected) in [
            ("$.users[?@.api_key == 'k3y'].seen", "$.users[?@.api_key == '***'].seen"),
            (
                r#"$.users[? @["api_key"] == "k\"3y" && @.n > 17][0]['a']"#,
                r#"$.users[? @["api_key"] == "***" && @.n > ***][0]['a']"#,
            ),
            ("$.a[?match(@.pin, '12.*') || @.b[?@.c1 == 'k3y']]", "$.a[?match(@.pin, '***') || @.b[?@.c1 == '***']]"),
            ("$.a[?@.x_staff == 'k3y']", "$.a[?@.x_staff == '***']"),
            ("$.a[?@ == '4111111111111111']", "$.a[?@ == '***']"),
            ("$.users[?@.kind == 'gift'].seen", "$.users[?@.kind == 'gift'].seen"),
            ("$.tokens['a'][0]", "$.tokens['a'][0]"),
        ] {
            assert_eq!(shown_path(path, &redact()), expected);
        }
        for (pattern, expected) in [
            ("^token: k3y-1", "^token: ***"),
            ("^4111111111111111$", "^***$"),
            (r"^Token: (\w+)", r"^Token: (\w+)"),
            ("password=[a-z0-9]{16}", "password=[a-z0-9]{16}"),
            ("^generated .*", "^generated .*"),
        ] {
            assert_eq!(shown_pattern(pattern, &redact()), expected);
        }
    }
}
