//! Finds what looks like a secret in a text, whatever stands before it: numbers of payment cards, bearer tokens, and,
//! where they are asked for, e-mail addresses.
//!
//! Always true: the parts that are found do not overlap and begin and end between characters. A number that only looks
//! like that of a card is replaced too: about one of ten numbers of 13 to 19 digits that begin with 2 to 6 passes the
//! check digit.

use std::borrow::Cow;
use std::ops::Range;

/// How many digits the number of a card has.
const CARD_DIGITS: Range<usize> = 13..20;
/// A word after `Bearer` is taken for a token if it has a digit or so many characters: not "bearer of news".
const TOKEN_CHARS_MIN: usize = 16;
const BEARER: &str = "bearer";

/// Which detectors search, beside those for cards and bearer tokens, which always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detectors {
    /// E-mail addresses.
    pub email: bool,
}

/// Returns a text in which each part that a detector finds is replaced. `replace` gets the secret in the form in which
/// it is compared: the number of a card without blanks and dashes.
pub fn replace_detected<'t>(
    text: &'t str,
    detectors: Detectors,
    replace: &mut dyn FnMut(&str) -> String,
) -> Cow<'t, str> {
    let found = detected(text, detectors);
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = 0;
    for part in found {
        let secret = &text[part.clone()];
        out.push_str(&text[rest..part.start]);
        match secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b' ' | b'-')) {
            true => out.push_str(&replace(&secret.replace([' ', '-'], ""))),
            false => out.push_str(&replace(secret)),
        }
        rest = part.end;
    }
    out.push_str(&text[rest..]);
    Cow::Owned(out)
}

/// The parts of a text that look like secrets, in order.
fn detected(text: &str, detectors: Detectors) -> Vec<Range<usize>> {
    let mut found = cards(text);
    found.extend(tokens(text));
    if detectors.email && text.contains('@') {
        found.extend(emails(text));
    }
    found.sort_by_key(|part| part.start);
    let mut end = 0;
    found.retain(|part| {
        let is_free = part.start >= end;
        end = if is_free { part.end } else { end };
        is_free
    });
    found
}

/// Runs of digits, blanks and dashes between them included, with a length and a check digit of a card's number.
fn cards(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        let (mut digits, mut end) = (Vec::new(), at);
        while at < bytes.len() {
            match bytes[at] {
                digit @ b'0'..=b'9' => {
                    digits.push(digit - b'0');
                    end = at + 1;
                }
                b' ' | b'-' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {}
                _ => break,
            }
            at += 1;
        }
        let is_word_before = text[..start].chars().next_back().is_some_and(char::is_alphanumeric);
        let is_fraction = start >= 2 && bytes[start - 1] == b'.' && bytes[start - 2].is_ascii_digit();
        let is_word_behind = text[end..].chars().next().is_some_and(char::is_alphanumeric);
        if is_word_before || is_word_behind || is_fraction {
            continue;
        }
        if is_card(&digits) {
            found.push(start..end);
        } else if let Some(group) = grouped_card(&text[start..end]) {
            found.push(start + group.start..start + group.end);
        }
    }
    found
}

/// The first number of a card among groups of digits that belong to more than one number: `17 4111 1111 1111 1111`.
fn grouped_card(run: &str) -> Option<Range<usize>> {
    let starts = std::iter::once(0).chain(run.match_indices([' ', '-']).map(|(at, _)| at + 1)).collect::<Vec<_>>();
    let ends = run.match_indices([' ', '-']).map(|(at, _)| at).chain([run.len()]).collect::<Vec<_>>();
    let digits = |from: usize, to: usize| -> Vec<u8> {
        run[from..to].bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
    };
    // Each digit of a card stands in a group of its own at most, so that the search stays linear in the length of the
    // run.
    let behind = |from: usize| move |to: &&usize| **to < from + 2 * CARD_DIGITS.end;
    starts.iter().enumerate().find_map(|(first, from)| {
        let mut to = ends.iter().skip(first).take_while(behind(*from));
        let to = to.find(|to| *to - from >= CARD_DIGITS.start && is_card(&digits(*from, **to)))?;
        Some(*from..*to)
    })
}

/// Whether these are the digits of a card's number: its length, its first digit, and its check digit (Luhn).
fn is_card(digits: &[u8]) -> bool {
    if !CARD_DIGITS.contains(&digits.len()) || !matches!(digits[0], 2..=6) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            match place % 2 {
                0 => digit,
                _ if digit > 4 => digit * 2 - 9,
                _ => digit * 2,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The tokens behind each `Bearer`, and JSON web tokens wherever they are.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/' | '=');
    let token_at = |start: usize| start..text[start..].find(|c| !is_token(c)).map_or(text.len(), |end| start + end);
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for (at, window) in bytes.windows(BEARER.len()).enumerate() {
        if !window.eq_ignore_ascii_case(BEARER.as_bytes()) {
            continue;
        }
        let behind = at + BEARER.len();
        let blanks = text[behind..].len() - text[behind..].trim_start().len();
        let token = token_at(behind + blanks);
        let shown = &text[token.clone()];
        let is_secret = shown.bytes().any(|b| b.is_ascii_digit()) || shown.len() >= TOKEN_CHARS_MIN;
        if blanks > 0 && is_secret {
            found.push(token);
        }
    }
    for (at, _) in text.match_indices("eyJ") {
        let token = token_at(at);
        let is_within = text[..at].chars().next_back().is_some_and(is_token) && !text[..at].ends_with(['=', '/']);
        if !is_within && text[token.clone()].matches('.').count() == 2 {
            found.push(token);
        }
    }
    found
}

fn emails(text: &str) -> Vec<Range<usize>> {
    let is_local = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-');
    let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let mut found = Vec::new();
    for (at, _) in text.match_indices('@') {
        let before = &text[..at];
        let start = before
            .rfind(|c| !is_local(c))
            .map_or(0, |end| end + before[end..].chars().next().map_or(1, char::len_utf8));
        let behind = &text[at + 1..];
        let domain = &behind[..behind.find(|c| !is_domain(c)).unwrap_or(behind.len())];
        let domain = domain.trim_end_matches(['.', '-']);
        if start < at && domain.contains('.') {
            found.push(start..at + 1 + domain.len());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str, email: bool) -> String {
        replace_detected(text, Detectors { email }, &mut |secret| format!("<{secret}>")).into_owned()
    }

    #[test]
    fn numbers_of_cards_are_found_however_they_are_written() {
        for (text, shown) in [
            ("4111111111111111", "<4111111111111111>"),
            ("paid with 4111 1111 1111 1111.", "paid with <4111111111111111>."),
            ("5500-0000-0000-0004/x", "<5500000000000004>/x"),
            ("17 4111 1111 1111 1111", "17 <4111111111111111>"),
            ("amex 378282246310005 and 4111111111111111", "amex <378282246310005> and <4111111111111111>"),
            ("\u{e4}4111111111111111", "\u{e4}4111111111111111"),
        ] {
            assert_eq!(masked(text, false), shown);
        }
    }

    #[test]
    fn other_numbers_stay() {
        for text in [
            "4111111111111112",
            "1764136271000",
            "order-4111111111111111a",
            "0.4111111111111111",
            "2026-11-26T05:51:11.123456Z",
            "41111",
            "",
        ] {
            assert_eq!(masked(text, true), text);
        }
    }

    #[test]
    fn tokens_and_addresses_are_found_within_texts() {
        for (text, shown) in [
            ("said Bearer abc123 to it", "said Bearer <abc123> to it"),
            ("a bearer of bad news", "a bearer of bad news"),
            ("seen eyJhbGciOi.hunter2.x here", "seen <eyJhbGciOi.hunter2.x> here"),
            ("write to Jane.Doe@example.com.", "write to <Jane.Doe@example.com>."),
            ("a @ b", "a @ b"),
        ] {
            assert_eq!(masked(text, true), shown);
        }
        assert_eq!(masked("jane@example.com", false), "jane@example.com", "only where it is asked for");
    }
}
