//! Where two lines differ, word by word.

use std::ops::Range;
use std::time::Instant;

use similar::{DiffOp, TextDiff};

/// Two lines of which a smaller share is equal are marked as a whole.
const SIMILAR_MIN: f32 = 0.3;

/// What is compared of a line.
pub(in crate::page) fn compared_part(line: &str, ignores_comma: bool) -> &str {
    line.strip_suffix(',').filter(|_| ignores_comma).unwrap_or(line)
}

/// Where two lines differ, word by word.
pub(in crate::page) fn differing(
    legacy: &str,
    engine: &str,
    ignores_commas: bool,
    until: Instant,
) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let (legacy, engine) = (compared_part(legacy, ignores_commas), compared_part(engine, ignores_commas));
    let (old, new) = (words(legacy), words(engine));
    let diff = TextDiff::configure().deadline(until).diff_slices(&old, &new);
    if diff.ratio() < SIMILAR_MIN {
        let whole = |line: &str| Vec::from_iter((!line.is_empty()).then_some(0..line.len()));
        return (whole(legacy), whole(engine));
    }
    let (mut in_legacy, mut in_engine) = (Vec::new(), Vec::new());
    let (mut at_legacy, mut at_engine) = (0, 0);
    for op in diff.ops() {
        let bytes = |words: &[&str]| words.iter().map(|word| word.len()).sum::<usize>();
        let (end_legacy, end_engine) =
            (at_legacy + bytes(&old[op.old_range()]), at_engine + bytes(&new[op.new_range()]));
        if !matches!(op, DiffOp::Equal { .. }) {
            in_legacy.extend((end_legacy > at_legacy).then_some(at_legacy..end_legacy));
            in_engine.extend((end_engine > at_engine).then_some(at_engine..end_engine));
        }
        (at_legacy, at_engine) = (end_legacy, end_engine);
    }
    (in_legacy, in_engine)
}

/// Divides a line into words, blanks and single other characters. A number is one word.
fn words(line: &str) -> Vec<&str> {
    #[derive(PartialEq)]
    enum Class {
        Word,
        Blank,
        Other,
    }
    let class = |character: char| match character {
        '.' | '-' | '+' | '_' => Class::Word,
        character if character.is_alphanumeric() => Class::Word,
        character if character.is_whitespace() => Class::Blank,
        _ => Class::Other,
    };
    let mut out = Vec::new();
    let (mut begin, mut last) = (0, Class::Other);
    for (at, character) in line.char_indices() {
        let class = class(character);
        if at > begin && (class == Class::Other || class != last) {
            out.push(&line[begin..at]);
            begin = at;
        }
        last = class;
    }
    if begin < line.len() {
        out.push(&line[begin..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_words_that_differ_are_found() {
        let later = Instant::now() + Duration::from_secs(60);
        let one = |range: Range<usize>| vec![range];
        let ranges = differing("\"total\": 12.50,", "\"total\": 12.49,", true, later);
        assert_eq!(ranges, (one(9..14), one(9..14)));
        assert_eq!(differing("a b", "x-y/z", false, later), (one(0..3), one(0..5)), "too different");
        assert_eq!(differing("", "x", false, later), (Vec::new(), one(0..1)));
        assert_eq!(differing("a 1", "a 1,", true, later), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_number_is_one_word() {
        assert_eq!(words("a1.5 =  \"ü\""), ["a1.5", " ", "=", "  ", "\"", "ü", "\""]);
        assert!(words("").is_empty());
    }
}
