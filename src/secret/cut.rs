//! Cuts texts that are shown to people, so that no part of a hidden value is left before the cut.
//!
//! Always true: [`masked_and_cut`] masks the whole text before it cuts it, because a part of a value would not be
//! recognised. If a text had to be cut before all values to hide were known, [`beginnings_before_cuts`] finds the
//! beginning of such a value directly before the cut. A beginning of fewer than [`BEGINNING_CHARS_MIN`] characters
//! stays.

use std::ops::Range;

use super::keyed::REDACTED;

/// Marks where a text was cut.
pub const CUT: char = '…';

/// Shorter beginnings of values are not hidden: many texts end in the first three characters of some value.
pub const BEGINNING_CHARS_MIN: usize = 4;

/// How long a text may be before it is cut.
#[derive(Clone, Copy, Debug)]
pub enum LengthMax {
    /// In bytes, including the mark of the cut.
    Bytes(usize),
    /// In characters, without the mark of the cut.
    Chars(usize),
}

impl LengthMax {
    /// Where the text is cut; `None` if it fits.
    fn end(self, text: &str) -> Option<usize> {
        match self {
            Self::Bytes(max) if text.len() <= max => None,
            Self::Bytes(max) => Some(text.floor_char_boundary(max.saturating_sub(CUT.len_utf8()))),
            Self::Chars(max) => text.char_indices().nth(max).map(|(at, _)| at),
        }
    }
}

/// Masks the whole text, then cuts it.
pub fn masked_and_cut(text: &str, mask: impl FnOnce(&str) -> String, max: LengthMax) -> String {
    let mut masked = mask(text);
    if let Some(end) = max.end(&masked) {
        masked.truncate(before_placeholder(&masked, end));
        masked.push(CUT);
    }
    masked
}

/// Where to cut: before the placeholder of a redacted value if `end` is within one, because a part of a placeholder
/// could be taken for a value; else at `end`.
fn before_placeholder(text: &str, end: usize) -> usize {
    let Some(begin) = text[..end].rfind('[').filter(|begin| text[*begin..].starts_with(REDACTED)) else { return end };
    match text[begin..].find(']') {
        Some(last) if begin + last >= end => begin,
        _ => end,
    }
}

/// The longest beginning of the value directly before each cut in the text.
pub(super) fn beginnings_before_cuts(text: &str, value: &str) -> Vec<Range<usize>> {
    // A beginning that is longer than the text cannot be in it.
    let value = &value[..value.floor_char_boundary(text.len() + 1)];
    let bytes_min = value.char_indices().nth(BEGINNING_CHARS_MIN).map(|(at, _)| at);
    let Some(bytes_min) = bytes_min.filter(|bytes_min| text.contains(&value[..*bytes_min])) else { return Vec::new() };
    let found = matches_before_cuts(text, value.as_bytes()).into_iter().filter(|(_, bytes)| *bytes >= bytes_min);
    found.map(|(end, bytes)| end - bytes..end).collect()
}

/// For each cut in the text: its position, and how many bytes before it are the longest beginning of the value. One
/// pass over the text (Knuth, Morris and Pratt), because the text may be large and made by an attacker.
fn matches_before_cuts(text: &str, value: &[u8]) -> Vec<(usize, usize)> {
    let shorter = shorter_beginnings(value);
    let step = |mut matched: usize, byte: u8| {
        while matched > 0 && value.get(matched) != Some(&byte) {
            matched = shorter[matched - 1];
        }
        if value.get(matched) == Some(&byte) { matched + 1 } else { 0 }
    };
    let (mut found, mut matched) = (Vec::new(), 0);
    for (at, character) in text.char_indices() {
        if character == CUT && matched > 0 {
            found.push((at, matched));
        }
        let end = at + character.len_utf8();
        matched = text.as_bytes()[at..end].iter().fold(matched, |matched, byte| step(matched, *byte));
    }
    found
}

/// For each beginning of the value: the length of its longest proper prefix that is also its suffix.
fn shorter_beginnings(value: &[u8]) -> Vec<usize> {
    let mut lengths = vec![0; value.len()];
    let mut matched = 0;
    for at in 1..value.len() {
        while matched > 0 && value[at] != value[matched] {
            matched = lengths[matched - 1];
        }
        matched += usize::from(value[at] == value[matched]);
        lengths[at] = matched;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_masked_before_it_is_cut() {
        let mask = |text: &str| text.replace("secret", "*");
        assert_eq!(masked_and_cut("a secret b", mask, LengthMax::Chars(5)), "a * b");
        assert_eq!(masked_and_cut("a secret bc", mask, LengthMax::Chars(5)), "a * b…");
        let same = |text: &str| text.to_owned();
        assert_eq!(masked_and_cut("äöü", same, LengthMax::Bytes(6)), "äöü");
        assert_eq!(masked_and_cut("ääääää", same, LengthMax::Bytes(8)), "ää…");
        assert_eq!(masked_and_cut("abc", same, LengthMax::Bytes(0)), "…");
        // What stands in place of a value stays whole, or is left out.
        let (text, end) = ("a [redacted 45d367e4c5d7644c] bc", "a [redacted 45d367e4c5d7644c]".len());
        for chars in 3..end {
            assert_eq!(masked_and_cut(text, same, LengthMax::Chars(chars)), "a …", "{chars}");
        }
        assert_eq!(masked_and_cut(text, same, LengthMax::Chars(end)), format!("{}…", &text[..end]));
        assert_eq!(masked_and_cut("a [redact] bc", same, LengthMax::Chars(5)), "a [re…");
    }
}
