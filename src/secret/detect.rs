//! Finds what looks like a secret in a text, whatever stands before it: numbers of payment cards, bearer tokens,
//! private keys (`private_keys`), and, where they are asked for, e-mail addresses.
//!
//! Always true: the parts that are found do not overlap and begin and end between characters. A number that only looks
//! like that of a card is replaced too: about one of ten numbers of 13 to 19 digits that begin with 2 to 6 passes the
//! check digit.

use std::borrow::Cow;
use std::ops::Range;

use super::private_keys::private_keys;

/// How many digits the number of a card has.
const CARD_DIGITS: Range<usize> = 13..20;
/// A word after `Bearer` is taken for a token if it has a digit or at least so many characters: "bearer of news" has
/// none.
const TOKEN_CHARS_MIN: usize = 16;
const BEARER: &str = "bearer";
/// Which detectors search, beside those for cards, bearer tokens and private keys, which always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detectors {
    /// E-mail addresses.
    pub email: bool,
}

/// Returns a text in which each part that a detector finds is replaced. `replace` gets the secret in the form in which
/// it is compared: the number of a card without spaces and dashes.
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
    found.extend(private_keys(text));
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

/// The numbers of cards among the digits of a text, in order.
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
        let mut groups = Vec::new();
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            groups.push(at..at + digits);
            let has_more = matches!(bytes.get(at + digits), Some(b' ' | b'-'))
                && bytes.get(at + digits + 1).is_some_and(u8::is_ascii_digit);
            at += digits + usize::from(has_more);
        }
        // A group that is part of a word or of a fraction belongs to no card. The groups beside it may.
        let is_word_before = text[..start].chars().next_back().is_some_and(char::is_alphanumeric);
        let is_fraction = start >= 2 && bytes[start - 1] == b'.' && bytes[start - 2].is_ascii_digit();
        let is_word_after = text[at..].chars().next().is_some_and(char::is_alphanumeric);
        let first = usize::from(is_word_before || is_fraction);
        let last = groups.len() - usize::from(is_word_after);
        if let Some(groups) = groups.get(first..last) {
            cards_of_groups(bytes, groups, &mut found);
        }
    }
    found
}

/// The numbers of cards in a run of groups of digits, such as `17 4111 1111 1111 1111`. If the whole run is the number
/// of a card, it is the only one. Otherwise each group may begin a number, of which the shortest is taken.
fn cards_of_groups(bytes: &[u8], groups: &[Range<usize>], found: &mut Vec<Range<usize>>) {
    let card_of = |groups: &[Range<usize>]| {
        let digits: Vec<u8> = groups.iter().flat_map(|group| &bytes[group.clone()]).map(|digit| digit - b'0').collect();
        is_card(&digits).then(|| groups[0].start..groups[groups.len() - 1].end)
    };
    let mut rest = groups;
    if digits_of(groups) < CARD_DIGITS.end
        && let Some(card) = card_of(groups)
    {
        found.push(card);
        rest = &[];
    }
    while !rest.is_empty() {
        // The number of a card may end with any of these groups.
        let ends = (1..=rest.len()).take_while(|end| digits_of(&rest[..*end]) < CARD_DIGITS.end);
        let mut cards = ends.filter_map(|end| Some((end, card_of(&rest[..end])?)));
        match cards.next() {
            Some((end, card)) => {
                found.push(card);
                rest = &rest[end..];
            }
            None => rest = &rest[1..],
        }
    }
}

/// How many digits these groups have. Stops counting once there are more than a card has.
fn digits_of(groups: &[Range<usize>]) -> usize {
    groups.iter().take(CARD_DIGITS.end).map(ExactSizeIterator::len).sum()
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

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/' | '=')
}

/// Where the run of token characters that begins at `start` ends.
fn token_end(text: &str, start: usize) -> usize {
    text[start..].find(|c| !is_token_char(c)).map_or(text.len(), |end| start + end)
}

/// The tokens after each `Bearer`, and JSON web tokens wherever they are.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, window) in text.as_bytes().windows(BEARER.len()).enumerate() {
        if !window.eq_ignore_ascii_case(BEARER.as_bytes()) {
            continue;
        }
        let after = &text[at + BEARER.len()..];
        let start = text.len() - after.trim_start().len();
        if start == at + BEARER.len() {
            continue;
        }
        let token = start..token_end(text, start);
        let shown = &text[token.clone()];
        if shown.len() >= TOKEN_CHARS_MIN || shown.bytes().any(|b| b.is_ascii_digit()) {
            found.push(token);
        }
    }
    // The position of the last `eyJ`, where its run of token characters ends, and how many dots are between the two.
    // They are remembered because the next `eyJ` may be in the same run: to read to its end for each would take
    // quadratic time.
    let (mut last, mut end, mut dots) = (0, 0, 0);
    let dots_in = |part: Range<usize>| text.as_bytes()[part].iter().filter(|byte| **byte == b'.').count();
    for (at, _) in text.match_indices("eyJ") {
        if at < end {
            dots -= dots_in(last..at);
        } else {
            end = token_end(text, at);
            dots = dots_in(at..end);
        }
        last = at;
        let is_within = text[..at].chars().next_back().is_some_and(is_token_char) && !text[..at].ends_with(['=', '/']);
        if !is_within && dots == 2 {
            found.push(at..end);
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
        let after = &text[at + 1..];
        let domain = &after[..after.find(|c| !is_domain(c)).unwrap_or(after.len())];
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
            ("charged 12.50 4111111111111111", "charged 12.50 <4111111111111111>"),
            ("v2 4111 1111 1111 1111", "v2 <4111111111111111>"),
            ("4111 1111 1111 1111 2nd try", "<4111111111111111> 2nd try"),
            ("4111111111111111 5500000000000004 7", "<4111111111111111> <5500000000000004> 7"),
            ("4111 1111 1111 1111 3782-822463-10005", "<4111111111111111> <378282246310005>"),
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
            "v4111111111111111 7",
            "17 4111111111111111st",
            "12.4111111111111111 4111111111111111b",
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
