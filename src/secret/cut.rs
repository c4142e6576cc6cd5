//! Cuts texts that people are shown, so that no part of a hidden value is left before the cut.
//!
//! Always true: [`masked_and_cut`] masks the whole text and cuts it then, because the half of a value would not be
//! recognised. Where a text had to be cut before all values were known that must be hidden, [`hide_cut_values`] finds
//! the beginning of such a value directly before the cut. A beginning of fewer than [`BEGINNING_CHARS_MIN`] characters
//! stays.

use std::collections::BTreeMap;

/// Stands where a text was cut.
pub const CUT: char = '…';

/// Shorter beginnings of values are not hidden: many texts end in the first three characters of some value.
pub const BEGINNING_CHARS_MIN: usize = 4;

/// How long a text may be before it is cut.
#[derive(Clone, Copy, Debug)]
pub enum LengthMax {
    /// In bytes, the mark of the cut included.
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

/// The text, masked as a whole and then cut.
pub fn masked_and_cut(text: &str, mask: impl FnOnce(&str) -> String, max: LengthMax) -> String {
    let mut masked = mask(text);
    if let Some(end) = max.end(&masked) {
        masked.truncate(end);
        masked.push(CUT);
    }
    masked
}

/// Replaces the beginnings of values that stand directly before a cut in any of these pieces of a text, except in
/// pieces that are replacements themselves (`true`), and joins the pieces; `None` where `replace` fails.
pub fn hide_cut_values<'a>(
    pieces: Vec<(String, bool)>,
    values: impl Iterator<Item = &'a str> + Clone,
    replace: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let hidden = pieces.into_iter().map(|(piece, is_replacement)| match is_replacement || !piece.contains(CUT) {
        true => Some(piece),
        false => hide_in_piece(&piece, values.clone(), replace),
    });
    hidden.collect()
}

fn hide_in_piece<'a>(
    piece: &str,
    values: impl Iterator<Item = &'a str>,
    replace: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    // By its end, the start of the longest beginning of a value.
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    for value in values {
        // A longer beginning than the piece itself is not in it.
        let value = &value[..value.floor_char_boundary(piece.len() + 1)];
        let least = value.char_indices().nth(BEGINNING_CHARS_MIN).map(|(at, _)| at);
        let Some(least) = least.filter(|least| piece.contains(&value[..*least])) else { continue };
        for (end, bytes) in beginnings_before_cuts(piece, value.as_bytes()) {
            if bytes >= least {
                found.entry(end).and_modify(|start| *start = (*start).min(end - bytes)).or_insert(end - bytes);
            }
        }
    }
    let (mut hidden, mut written) = (String::with_capacity(piece.len()), 0);
    for (end, start) in found {
        let start = start.max(written);
        hidden.push_str(&piece[written..start]);
        hidden.push_str(&replace(&piece[start..end])?);
        written = end;
    }
    hidden.push_str(&piece[written..]);
    Some(hidden)
}

/// For each cut in the text: where it is, and how many bytes before it are the longest beginning of the value. One pass
/// over the text (Knuth, Morris and Pratt), because the text may be large and made by an attacker.
fn beginnings_before_cuts(text: &str, value: &[u8]) -> Vec<(usize, usize)> {
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

/// For each beginning of the value: the length of the longest shorter one that is also its end.
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

    fn hidden(text: &str, values: &[&str]) -> String {
        let pieces = vec![(text.to_owned(), false)];
        hide_cut_values(pieces, values.iter().copied(), &|_| Some("*".to_owned())).expect("it is replaced")
    }

    #[test]
    fn a_text_is_masked_before_it_is_cut() {
        let mask = |text: &str| text.replace("secret", "*");
        assert_eq!(masked_and_cut("a secret b", mask, LengthMax::Chars(5)), "a * b");
        assert_eq!(masked_and_cut("a secret bc", mask, LengthMax::Chars(5)), "a * b…");
        let same = |text: &str| text.to_owned();
        assert_eq!(masked_and_cut("äöü", same, LengthMax::Bytes(6)), "äöü");
        assert_eq!(masked_and_cut("ääääää", same, LengthMax::Bytes(8)), "ää…");
        assert_eq!(masked_and_cut("abc", same, LengthMax::Bytes(0)), "…");
    }

    #[test]
    fn the_beginning_of_a_value_before_a_cut_is_hidden() {
        for (text, expected) in [
            ("of CARD-12…", "of *…"),
            ("of CARD…", "of *…"),
            ("of CAR…", "of CAR…"),
            ("of CARD-12", "of CARD-12"),
            ("of CARD-12 …", "of CARD-12 …"),
            (r#"{"a":"CARD-…","b":"x CARD-1…"}"#, r#"{"a":"*…","b":"x *…"}"#),
            ("CARDCARDCARD-…", "CARDCARD*…"),
            ("äé CARD-1…é", "äé *…é"),
            ("…", "…"),
        ] {
            assert_eq!(hidden(text, &["CARD-1234", "other"]), expected, "{text}");
        }
        // The longest beginning of several values; a value that overlaps itself; one with a mark of its own.
        assert_eq!(hidden("xabcdef…", &["defghi", "cdefgh", "abcdefg"]), "x*…");
        assert_eq!(hidden("aaaaaaaaa…", &["aaaaab"]), "aaaa*…");
        assert_eq!(hidden("abcd…efgh…", &["abcd…efghi"]), "**…");
        assert_eq!(hidden("äöüäö…", &["äöüäöü"]), "*…");
        assert_eq!(hidden("abcd…", &["abcd"]), "abcd…", "a whole value is hidden elsewhere");
    }

    #[test]
    fn replacements_stay_and_a_failure_is_passed_on() {
        let pieces = vec![("CARD-1…".to_owned(), true), ("CARD-1…".to_owned(), false)];
        let replaced = hide_cut_values(pieces.clone(), ["CARD-1234"].into_iter(), &|cut| Some(format!("<{cut}>")));
        assert_eq!(replaced.as_deref(), Some("CARD-1…<CARD-1>…"));
        assert_eq!(hide_cut_values(pieces, ["CARD-1234"].into_iter(), &|_| None), None);
    }
}
