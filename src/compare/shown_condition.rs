//! What is shown and kept of the texts of rules. A condition (`when:`, `assert:`) or the filter of a path that may
//! compare with a secret is shown and kept without its literals, and a pattern without what looks like a secret.

use std::borrow::Cow;

pub(super) use crate::expression::shown_condition;
use crate::secret::{FoundSecret, RedactRules, STARS, replace_secrets};

/// The fewest letters and digits of a pattern that may be a secret.
const LITERAL_CHARS_MIN: usize = 4;

/// What a kind of text of rules is shown as: [`shown_condition`], [`shown_path`], [`shown_pattern`] or [`shown_call`].
pub(super) type Mask = for<'a> fn(&'a str, &RedactRules) -> Cow<'a, str>;

/// A text as it is shown, with a hash if something is masked in it: rules that differ in what is masked have different
/// texts, where there is a key for the hash.
pub(super) fn masked(text: &str, mask: Mask, redact: &RedactRules) -> String {
    redact.text_hash().append_if_masked(text, mask(text, redact).into_owned())
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
    // For each open bracket: whether texts and numbers in it are literals, as in a filter, and no names.
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

/// What is shown of the pattern of a call: no segment of its path that looks like a secret, or is behind a secret name.
pub(super) fn shown_call<'a>(pattern: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    let segments: Vec<&str> = pattern.split('/').collect();
    let is_secret = |n: usize| n > 0 && redact.is_secret(segments[n - 1]) || redact.finds_secret_in(segments[n]);
    let is_hidden = |n: usize| segments[n] != "*" && is_secret(n);
    if !(0..segments.len()).any(is_hidden) {
        return Cow::Borrowed(pattern);
    }
    let shown = segments.iter().enumerate().map(|(n, segment)| if is_hidden(n) { STARS } else { *segment });
    Cow::Owned(shown.collect::<Vec<_>>().join("/"))
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
    use crate::secret::{Detectors, TextHash};

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
            assert_eq!(shown_condition(source, &redact()), expected);
        }
        let of_paths = redact().and(&RedactRules::new([], vec!["$.iban".parse().unwrap()], Detectors::default()));
        assert_eq!(shown_condition(r#"request.body.iban == "k3y""#, &of_paths), r#"request.body.iban == "***""#);
        assert_eq!(shown_condition("legacy.status < 400", &of_paths), "legacy.status < 400");
        let on_path = r#"request.path == "/reset/hunter2""#;
        assert_eq!(shown_condition(on_path, &redact().for_path(&["token"])), r#"request.path == "***""#);
        assert_eq!(shown_condition(on_path, &redact().for_path(&["id"])), on_path);
        let card = r#"request.path == "/cards/4111111111111111""#;
        assert_eq!(shown_condition(card, &redact()), r#"request.path == "***""#);
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
        for (call, expected) in [
            ("POST bank/token/k3y", "POST bank/token/***"),
            ("bank/token/*/of/7", "bank/token/*/of/7"),
            ("GET bank/cards/4111111111111111/limit", "GET bank/cards/***/limit"),
        ] {
            assert_eq!(shown_call(call, &redact()), expected);
        }
        let of_paths = redact().and(&RedactRules::new([], vec!["$.a[*].b".parse().unwrap()], Detectors::default()));
        assert_eq!(shown_path("$.a[?@.b == 'k3y'].c", &of_paths), "$.a[?@.b == '***'].c");
        let of_store = redact().with_text_hash(&TextHash::derived_from(None, &[1; 32]));
        let texts = ["^token: k3y-1", "^token: k3y-2"];
        let [one, other] = texts.map(|text| masked(text, shown_pattern, &of_store));
        assert!(one != other && !one.contains("k3y") && one.starts_with("^token: *** ("), "{one} {other}");
        assert_eq!(
            texts.map(|text| masked(text, shown_pattern, &redact())),
            ["^token: ***"; 2],
            "no hash without a key"
        );
    }
}
