//! What can be an id, and which ids can stand for the same thing.

use super::number::Decimal;

/// The form of a text that a rule calls an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdForm {
    /// No id: empty, blank, or what programs write where they have no value.
    Nothing,
    /// One word, a natural number included.
    Word,
    /// Several words.
    Words,
    /// A number below zero.
    Negative,
    /// A number with a fraction.
    Fraction,
}

/// What programs write where they have no value, in lower case.
const NOTHING: [&str; 6] = ["null", "undefined", "none", "nil", "nan", "[object object]"];
/// The length of a UUID as text. One of zeros and dashes only is the nil UUID, which is no id.
const UUID_BYTES: usize = 36;

impl IdForm {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let is_zero = text.len() == UUID_BYTES && text.bytes().all(|b| matches!(b, b'0' | b'-'));
        if text.is_empty() || is_zero || NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing)) {
            return Self::Nothing;
        }
        match Decimal::parse(text) {
            Some(number) if number.is_negative() => Self::Negative,
            Some(number) if !number.is_whole() => Self::Fraction,
            None if text.contains(char::is_whitespace) => Self::Words,
            Some(_) | None => Self::Word,
        }
    }
}

/// Whether a text is no id at all.
pub(super) fn is_no_id(text: &str) -> bool {
    IdForm::of(text) == IdForm::Nothing
}

/// Whether an id of legacy and one of the engine can stand for the same thing. A sentence in place of a word is a
/// message, and a number below zero or with a fraction in place of a natural one is no id.
pub(super) fn may_correspond(legacy: &str, engine: &str) -> bool {
    match (IdForm::of(legacy), IdForm::of(engine)) {
        (IdForm::Nothing, _) | (_, IdForm::Nothing) => false,
        (IdForm::Words, IdForm::Word) => true,
        (legacy, engine) => legacy == engine,
    }
}

/// Whether a text has the form of a UUID.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == UUID_BYTES
        && text.bytes().enumerate().all(|(n, b)| match n {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_corresponds_to_nothing() {
        for none in ["", " ", "null", "undefined", "None", "00000000-0000-0000-0000-000000000000"] {
            assert!(!may_correspond("abc-1", none) && !may_correspond(none, "abc-1"), "{none:?}");
        }
        for (legacy, engine) in [("17", "-1"), ("17", "17.5"), ("abc-1", "Internal error: no id"), ("1.5", "-1")] {
            assert!(!may_correspond(legacy, engine), "{legacy} {engine}");
        }
        for (legacy, engine) in
            [("17", "run_9"), ("0", "1"), ("-5", "-7"), ("1.2", "1.3"), ("A 17", "b"), ("12e4", "x")]
        {
            assert!(may_correspond(legacy, engine), "{legacy} {engine}");
        }
    }
}
