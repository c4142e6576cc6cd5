//! Seals single values: replaces them by `«sealed:…»`; and opens sealed ones again.
//!
//! Always true: opening gives the value that was sealed, a number or a text. A text that contains a sealed value
//! itself, as somebody outside copied it, is given back with that value still sealed: whoever can send a text to a run
//! cannot have values opened with it. Earlier versions sealed some values repeatedly; opening gives the original value
//! of these. Text that only looks sealed, or was sealed for another run, is treated as plain text.

use serde_json::{Number, Value};

use crate::engine::ports::seal::Sealer;
use crate::names::RunId;
use crate::secret::SEALED;

const SEAL_START: &str = SEALED[0];
const SEAL_END: &str = SEALED[1];
/// Precedes a sealed number, so that opening it gives a number again.
const NUMBER: char = '\u{0}';
/// Precedes a sealed text that is taken literally when it is opened: one that begins with [`NUMBER`] itself or contains
/// [`SEAL_START`]. No number begins with a quotation mark.
const TEXT: &str = "\u{0}\"";
/// How often a value may have been sealed. Earlier versions sealed a value once for each declared path that covered it.
const NESTING_MAX: usize = 16;

/// A piece of a text.
pub(super) enum Piece<'t> {
    Clear(&'t str),
    /// A value that was sealed for this run: the sealed text, and the value.
    Sealed(&'t str, String),
}

/// Splits a text at the values in it that were sealed for this run.
pub(super) fn pieces<'t>(sealer: &Sealer, run: RunId, text: &'t str) -> Vec<Piece<'t>> {
    let mut found = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(opens) = text[at..].find(SEAL_START).map(|place| at + place) {
        let after = opens + SEAL_START.len();
        let Some(closes) = text[after..].find(SEAL_END).map(|place| after + place) else { break };
        let Some(plain) = sealer.open_text(run, &text[after..closes]) else {
            at = after;
            continue;
        };
        found.extend((from < opens).then(|| Piece::Clear(&text[from..opens])));
        at = closes + SEAL_END.len();
        found.push(Piece::Sealed(&text[opens..at], plain));
        from = at;
    }
    found.extend((from < text.len()).then(|| Piece::Clear(&text[from..])));
    found
}

/// Seals a text, also one that has the form of a sealed value; `None` if that fails.
pub(super) fn seal_text(sealer: &Sealer, run: RunId, text: &str) -> Option<String> {
    match text.starts_with(NUMBER) || text.contains(SEAL_START) {
        true => seal(sealer, run, &format!("{TEXT}{text}")),
        false => seal(sealer, run, text),
    }
}

/// Seals a number; `None` if that fails.
pub(super) fn seal_number(sealer: &Sealer, run: RunId, number: &Number) -> Option<String> {
    seal(sealer, run, &format!("{NUMBER}{number}"))
}

fn seal(sealer: &Sealer, run: RunId, plain: &str) -> Option<String> {
    sealer.seal_text(run, plain).map(|sealed| format!("{SEAL_START}{sealed}{SEAL_END}"))
}

/// Seals every text and number in a value; `None` if that fails.
pub(in crate::engine) fn seal_value(sealer: &Sealer, run: RunId, value: &mut Value) -> Option<()> {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => *text = seal_text(sealer, run, text)?,
        Value::Number(number) => *value = Value::String(seal_number(sealer, run, number)?),
        Value::Array(items) => items.iter_mut().try_for_each(|item| seal_value(sealer, run, item))?,
        Value::Object(members) => members.values_mut().try_for_each(|member| seal_value(sealer, run, member))?,
        Value::Null | Value::Bool(_) => {}
    }
    Some(())
}

/// Opens everything that is sealed in a value; returns whether anything was sealed.
pub(in crate::engine) fn open_value(sealer: &Sealer, run: RunId, value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |any, item| open_value(sealer, run, item) | any),
        Value::Object(members) => members.values_mut().fold(false, |any, member| open_value(sealer, run, member) | any),
        Value::String(text) => match opened(sealer, run, text, NESTING_MAX) {
            Some(clear) => {
                *value = clear;
                true
            }
            None => false,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether anything in a value has the form of a sealed value, whether or not it can be opened.
pub(super) fn has_sealed_form(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_sealed_form),
        Value::Object(members) => members.values().any(has_sealed_form),
        Value::String(text) => text_has_sealed_form(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

pub(super) fn text_has_sealed_form(text: &str) -> bool {
    let parts = text.split(SEAL_START).skip(1).filter_map(|rest| rest.split_once(SEAL_END));
    parts.into_iter().any(|(sealed, _)| Sealer::has_sealed_form(sealed))
}

/// A text with everything in it opened.
pub(super) fn open_text(sealer: &Sealer, run: RunId, text: &str) -> String {
    opened(sealer, run, text, NESTING_MAX).map_or_else(|| text.to_owned(), written)
}

/// The value of a text in which something is sealed; `None` where nothing is.
fn opened(sealer: &Sealer, run: RunId, text: &str, nesting: usize) -> Option<Value> {
    if nesting == 0 || !text.contains(SEAL_START) {
        return None;
    }
    let value_of = |plain: String| match plain.strip_prefix(NUMBER) {
        Some(rest) => match (plain.strip_prefix(TEXT), rest.parse()) {
            (Some(text), _) => Value::String(text.to_owned()),
            (None, Ok(number)) => Value::Number(number),
            (None, Err(_)) => Value::String(plain),
        },
        None => opened(sealer, run, &plain, nesting - 1).unwrap_or(Value::String(plain)),
    };
    let mut pieces = pieces(sealer, run, text);
    if pieces.iter().all(|piece| matches!(piece, Piece::Clear(_))) {
        return None;
    }
    if let [Piece::Sealed(_, plain)] = pieces.as_mut_slice() {
        return Some(value_of(std::mem::take(plain)));
    }
    let clear = pieces.into_iter().map(|piece| match piece {
        Piece::Clear(text) => text.to_owned(),
        Piece::Sealed(_, plain) => written(value_of(plain)),
    });
    Some(Value::String(clear.collect()))
}

/// A text or number as it is written in a text.
fn written(value: Value) -> String {
    match value {
        Value::String(text) => text,
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::Secret;

    fn sealer() -> (Sealer, RunId) {
        (Sealer::new(Some(&Secret::new("k"))), RunId(uuid::Uuid::from_u128(1)))
    }

    #[test]
    fn sealed_values_are_opened_and_text_that_only_looks_sealed_is_left() {
        let (sealer, run) = sealer();
        let seal = |run, text: &str| seal(&sealer, run, text).unwrap();
        let text = format!("a {} b {} c {SEAL_START}x{SEAL_END} {SEAL_START}", seal(run, "one"), seal(run, "two"));
        assert_eq!(open_text(&sealer, run, &text), format!("a one b two c {SEAL_START}x{SEAL_END} {SEAL_START}"));
        let strange = seal(RunId(uuid::Uuid::from_u128(2)), "one");
        assert_eq!(open_text(&sealer, run, &strange), strange);
        let mut number = json!({ "n": seal(run, "\u{0}1234567"), "text": seal(run, "#1a") });
        assert!(open_value(&sealer, run, &mut number));
        assert_eq!(number, json!({ "n": 1234567, "text": "#1a" }));
    }

    #[test]
    fn a_text_that_contains_sealed_values_is_given_back_as_it_came() {
        let (sealer, run) = sealer();
        let other = seal(&sealer, RunId(uuid::Uuid::from_u128(2)), "one").unwrap();
        let copied = seal(&sealer, run, "a card's number").unwrap();
        let within = format!("pre {copied} post");
        let again = seal_text(&sealer, run, &copied).unwrap();
        let texts = ["a", "", "\u{0}17", "\u{0}\"x", "«sealed:eA==»", &other, &copied, &within, &again];
        let clear = json!({ "n": 17, "texts": texts, "no": null });
        let mut value = clear.clone();
        seal_value(&sealer, run, &mut value).unwrap();
        let sealed = value.to_string();
        assert!(!sealed.contains("eA==") && !sealed.contains(&copied), "text that looks sealed is sealed: {sealed}");
        assert!(open_value(&sealer, run, &mut value));
        assert_eq!(value, clear);
    }

    #[test]
    fn a_value_that_an_earlier_version_sealed_repeatedly_is_opened_completely() {
        let (sealer, run) = sealer();
        let again = |text: &str| seal(&sealer, run, text).unwrap();
        let card = json!({ "card": { "number": "4111", "n": 7 } }).to_string();
        let within = card.replace("4111", &again(&again("4111")));
        let mut value =
            json!({ "a": again(&again(&again("4111"))), "n": again(&again("\u{0}7")), "body": again(&within) });
        assert!(open_value(&sealer, run, &mut value));
        assert_eq!(value, json!({ "a": "4111", "n": 7, "body": card }));
        // Opening ends, however often something was sealed.
        let deep = (0..NESTING_MAX + 2).fold("x".to_owned(), |text, _| again(&text));
        assert!(open_text(&sealer, run, &deep).starts_with(SEAL_START));
    }
}
