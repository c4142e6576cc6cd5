//! What is shown and kept of the texts of rules. A condition (`when:`, `assert:`) or the filter of a path that may
//! compare with a secret is shown and kept without its literals, and a pattern without what looks like a secret.

use std::borrow::Cow;

use crate::expression::masked_with_hash;
pub(super) use crate::expression::shown_condition as shown;
use crate::secret::{FoundSecret, RedactRules, STARS, replace_secrets};

/// Behind a secret name in a pattern, this many letters and digits may be a secret, also without a digit among them.
const LITERAL_CHARS_MIN: usize = 4;

/// A text as it is shown, with a hash if something is masked in it: rules that differ in what is masked have different
/// texts.
pub(super) fn with_hash(text: &str, shown: Cow<'_, str>) -> String {
    masked_with_hash(text, shown.into_owned())
}

/// What is shown of the text of a path: one with a filter that may compare with a secret has no literals in its
/// filters.
pub(super) fn shown_path<'a>(text: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    let has_filter = text.match_indices('[').any(|(at, _)| text[at + 1..].trim_start().starts_with('?'));
    // What a filter reads may be at a place that is declared as secret.
    let may_be_secret = || redact.has_paths() || secret_name_in(text, redact).is_some() || redact.finds_secret_in(text);
    match has_filter && may_be_secret() {
        true => Cow::Owned(without_literals_in_filters(text)),
        false => Cow::Borrowed(text),
    }
}

/// Where the first secret name in a text ends.
fn secret_name_in(text: &str, redact: &RedactRules) -> Option<usize> {
    let is_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut start = 0;
    text.split(|c| !is_of_name(c)).find_map(|name| {
        let end = start + name.len();
        start = end + text[end..].chars().next().map_or(0, char::len_utf8);
        (!name.is_empty() && redact.is_secret(name)).then_some(end)
    })
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

/// What is shown of a pattern for lines: stars stand in place of what looks like a secret in it, and of all that stands
/// behind a secret name, if it may be one.
pub(super) fn shown_pattern<'a>(pattern: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    let mut stars = |found: FoundSecret<'_>| may_be_secret(found.value).then(|| STARS.to_owned());
    let shown = replace_secrets(pattern, &|name| redact.is_secret(name), redact.detectors(), &mut stars);
    let shown = shown.map_or(Cow::Borrowed(pattern), Cow::Owned);
    match secret_name_in(&shown, redact) {
        Some(end) if may_follow_name(&shown[end..]) => Cow::Owned(format!("{}{STARS}", &shown[..end])),
        _ => shown,
    }
}

/// What is shown of the pattern of a call: no segment of its path behind a secret name; with a hash, if one is masked.
pub(super) fn shown_call(pattern: &str, redact: &RedactRules) -> String {
    let segments: Vec<&str> = pattern.split('/').collect();
    let is_hidden = |n: usize| n > 0 && segments[n] != "*" && redact.is_secret(segments[n - 1]);
    let shown = segments.iter().enumerate().map(|(n, segment)| if is_hidden(n) { STARS } else { *segment });
    masked_with_hash(pattern, shown.collect::<Vec<_>>().join("/"))
}

/// Whether what follows a secret name in a pattern may have a secret: a value behind a sign, or characters that are no
/// words.
fn may_follow_name(rest: &str) -> bool {
    let literals = literals(rest);
    !rest.starts_with(STARS)
        && !rest.trim_start_matches([':', '=', ' ']).starts_with(STARS)
        && (literals.contains(char::is_numeric) || rest.contains([':', '=']) && !literals.is_empty())
}

/// Whether a part of a pattern may be a secret.
fn may_be_secret(pattern: &str) -> bool {
    literals(pattern).chars().count() >= LITERAL_CHARS_MIN
}

/// The letters and digits that a part of a pattern looks for, without classes, groups and numbers of repetitions:
/// `(\w+)` and `[a-z0-9]{8}` have none.
fn literals(pattern: &str) -> String {
    let (mut chars, mut literals) = (pattern.chars(), String::new());
    while let Some(c) = chars.next() {
        let closing = match c {
            '\\' => {
                chars.next();
                continue;
            }
            '[' => ']',
            '{' => '}',
            c => {
                literals.extend(Some(c).filter(|c| c.is_alphanumeric()));
                continue;
            }
        };
        chars.by_ref().find(|c| *c == closing);
    }
    literals
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
            (r"^password\s*[:=]\s*k3y", "^password***"),
            (r"^token\s+k3y", "^token***"),
            ("^(?:password|token)=k3y", "^(?:password***"),
            (r"api_key\W+k3y", "api_key***"),
            ("^pin: 739", "^pin***"),
            ("^password changed at .*", "^password changed at .*"),
        ] {
            assert_eq!(shown_pattern(pattern, &redact()), expected);
        }
        for (call, expected) in
            [("POST bank/token/k3y", "POST bank/token/***"), ("bank/token/*/of/7", "bank/token/*/of/7")]
        {
            let shown = shown_call(call, &redact());
            assert_eq!(shown.split(" (").next(), Some(expected));
        }
        let of_paths = redact().and(&RedactRules::new([], vec!["$.a[*].b".parse().unwrap()], Detectors::default()));
        assert_eq!(shown_path("$.a[?@.b == 'k3y'].c", &of_paths), "$.a[?@.b == '***'].c");
        let [one, other] =
            ["^token: k3y-1", "^token: k3y-2"].map(|text| with_hash(text, shown_pattern(text, &redact())));
        assert!(one != other && !one.contains("k3y") && one.starts_with("^token: *** ("), "{one} {other}");
    }
}
