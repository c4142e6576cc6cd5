//! Texts that were recorded of runs, as the page shows them.
//!
//! Always true: ciphertext, which nobody can read, is shown as stars; control characters and marks that change the
//! direction of the text around them are replaced. Markup is escaped where the text is inserted.

use std::borrow::Cow;

use maud::{Markup, html};

use crate::admin::types::{SEALED, STARS};

/// A recorded text without ciphertext and without control characters.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let is_replaced = |character: char| {
        (character.is_control() && !matches!(character, '\n' | '\t'))
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(SEALED[0]) && !text.chars().any(is_replaced) {
        return Cow::Borrowed(text);
    }
    let unsealed = without_ciphertext(text);
    let replaced = unsealed.chars().map(|character| if is_replaced(character) { '\u{fffd}' } else { character });
    Cow::Owned(replaced.collect())
}

/// Replaces ciphertext by stars, also ciphertext whose end was cut off.
fn without_ciphertext(text: &str) -> String {
    let [opens, closes] = SEALED;
    let mut pieces = text.split(opens);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str(STARS);
        out.push_str(piece.split_once(closes).map_or("", |(_, after)| after));
    }
    out
}

/// A sentence: what stands between backticks, such as the name of a step, is shown as code.
pub(super) fn prose(text: &str) -> Markup {
    let text = clean(text);
    let pieces: Vec<&str> = text.split('`').collect();
    // A backtick without a partner is shown as it is.
    let is_paired = pieces.len() % 2 == 1;
    html! {
        @if is_paired {
            @for (at, piece) in pieces.iter().enumerate() {
                @if at % 2 == 1 { code { (piece) } } @else { (piece) }
            }
        } @else { (text) }
    }
}

/// The beginning of a text, at most so many characters; what is cut ends with an ellipsis.
pub(super) fn beginning(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphertext_and_control_characters_are_replaced() {
        assert_eq!(clean("plain عربي text\n"), "plain عربي text\n");
        assert_eq!(clean("a «sealed:abc» b \u{202e}c\u{0}"), format!("a {STARS} b \u{fffd}c\u{fffd}"));
        assert_eq!(clean("cut off «sealed:abcdef"), format!("cut off {STARS}"));
    }

    #[test]
    fn names_in_a_sentence_are_code_and_markup_is_escaped() {
        assert_eq!(prose("`pay` failed").into_string(), "<code>pay</code> failed");
        assert_eq!(prose("`<b>` & more").into_string(), "<code>&lt;b&gt;</code> &amp; more");
        assert_eq!(prose("a ` alone").into_string(), "a ` alone");
    }

    #[test]
    fn the_beginning_of_a_text_says_that_it_was_cut() {
        assert_eq!(beginning("abc", 3), "abc");
        assert_eq!(beginning("漢字漢字", 2), "漢字…");
    }
}
