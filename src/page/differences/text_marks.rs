//! Recorded texts as HTML: inert, and with everything visible that is in them.
//!
//! Always true: characters that nobody sees, or that change the direction of the text around them, are shown by their
//! number; what was hidden before the text was stored is marked as hidden; what is left out of a long line is counted.

use std::ops::Range;

use maud::{Markup, html};

use crate::page::html::count;
use crate::secret::{REDACTED, STARS};

/// A line that is longer, in bytes, is shown without the middle of what is equal on both sides.
const LONG_LINE_BYTES: usize = 400;
/// How much of an equal part of a long line is shown, in bytes.
const EQUAL_BYTES_MAX: usize = 160;
/// How much of one line is shown, in bytes.
pub(in crate::page) const LINE_BYTES_MAX: usize = 2_000;
/// The longest placeholder of a hidden value, in bytes.
const PLACEHOLDER_BYTES_MAX: usize = 40;
/// What stands before the hash of a text of which only the hash was stored.
const DIGEST: &str = "digest ";
/// The number of hexadecimal digits of such a hash.
const DIGEST_DIGITS: usize = 16;

/// Which side of a comparison a text is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum Side {
    Legacy,
    Engine,
}

/// A recorded text.
pub(in crate::page) fn shown(text: &str) -> Markup {
    html! {
        @for piece in pieces(text) {
            @match piece {
                Piece::Plain(text) => { (text) }
                Piece::Invisible(character, times) => {
                    span.character {
                        (format!("U+{:04X}", u32::from(character)))
                        @if times > 1 { (format!("×{times}")) }
                    }
                }
                Piece::Hidden(placeholder) => {
                    mark.hidden-value { span.for-readers { "hidden: " } (placeholder) }
                }
            }
        }
    }
}

/// The beginning of a recorded text, with a note of how much is left out.
pub(in crate::page) fn shown_up_to(text: &str, bytes_max: usize) -> Markup {
    let end = text.floor_char_boundary(bytes_max);
    html! { (shown(&text[..end])) (left_out(text[end..].chars().count())) }
}

/// A recorded line with its differing ranges marked: `del` on legacy's side, `ins` on the engine's.
pub(in crate::page) fn marked(line: &str, differing: &[Range<usize>], side: Side) -> Markup {
    html! {
        @for (part, differs) in shortened(line, differing) {
            @match (differs, side) {
                (false, _) => { (shown_part(&part)) }
                (true, Side::Legacy) => { del { span.for-readers { "differs: " } (shown_part(&part)) } }
                (true, Side::Engine) => { ins { span.for-readers { "differs: " } (shown_part(&part)) } }
            }
        }
    }
}

fn shown_part(part: &Part<'_>) -> Markup {
    html! { (shown(part.head)) (left_out(part.left_out)) (shown(part.tail)) }
}

/// Says how many characters are not shown; nothing, if all are.
fn left_out(characters: usize) -> Markup {
    html! {
        @if characters > 0 { span.left-out { "… " (count(characters as u64)) " characters not shown …" } }
    }
}

/// A part of a line, without its middle if it is long.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    head: &'a str,
    left_out: usize,
    tail: &'a str,
}

impl<'a> Part<'a> {
    fn cut(text: &'a str, bytes_max: usize) -> Self {
        if text.len() <= bytes_max {
            return Self { head: text, left_out: 0, tail: "" };
        }
        let head = text.floor_char_boundary(bytes_max / 2);
        let tail = text.ceil_char_boundary(text.len() - bytes_max / 2);
        Self { head: &text[..head], left_out: text[head..tail].chars().count(), tail: &text[tail..] }
    }
}

/// The parts of a line and whether they differ, together no longer than what is shown of a line.
fn shortened<'a>(line: &'a str, differing: &[Range<usize>]) -> Vec<(Part<'a>, bool)> {
    let mut left = LINE_BYTES_MAX;
    let mut out = Vec::new();
    for (range, differs) in partition(line, differing) {
        if left == 0 {
            out.push((Part { head: "", left_out: line[range.start..].chars().count(), tail: "" }, false));
            break;
        }
        let part_max = if differs || line.len() <= LONG_LINE_BYTES { left } else { left.min(EQUAL_BYTES_MAX) };
        let part = Part::cut(&line[range], part_max);
        left = left.saturating_sub(part.head.len() + part.tail.len() + 1);
        out.push((part, differs));
    }
    out
}

/// Divides a line into parts that differ and parts that do not. A placeholder of a hidden value is never divided: it
/// differs as a whole.
fn partition(line: &str, differing: &[Range<usize>]) -> Vec<(Range<usize>, bool)> {
    let hidden = hidden_places(line);
    let mut out: Vec<(Range<usize>, bool)> = Vec::new();
    let (mut at, mut next_hidden) = (0, 0);
    for range in differing {
        // Hidden places and differing ranges are in order, so that each is looked at once.
        while hidden.get(next_hidden).is_some_and(|place| place.end <= range.start) {
            next_hidden += 1;
        }
        let first = hidden.get(next_hidden).filter(|place| place.start < range.end);
        let begin = first.map_or(range.start, |place| place.start.min(range.start)).max(at);
        let mut end = range.end;
        while let Some(place) = hidden.get(next_hidden).filter(|place| place.start < end) {
            end = end.max(place.end);
            next_hidden += 1;
        }
        if begin > at {
            out.push((at..begin, false));
        }
        if end > begin {
            match out.last_mut() {
                Some((last, true)) if last.end == begin => last.end = end,
                _ => out.push((begin..end, true)),
            }
        }
        at = at.max(end);
    }
    if at < line.len() {
        out.push((at..line.len(), false));
    }
    out
}

/// Whether something in a text was hidden before it was stored.
pub(in crate::page) fn has_hidden(text: &str) -> bool {
    !hidden_places(text).is_empty()
}

/// Where placeholders of hidden values stand, in order.
fn hidden_places(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['*', '[', 'd']) {
        let begin = at + found;
        // The three characters have one byte each.
        at = begin + placeholder_bytes(&text[begin..]).unwrap_or(1);
        if at > begin + 1 {
            out.push(begin..at);
        }
    }
    out
}

/// The length of the placeholder that a text begins with; `None` if it begins with none.
fn placeholder_bytes(text: &str) -> Option<usize> {
    if text.starts_with(STARS) {
        return Some(STARS.len());
    }
    if text.starts_with(REDACTED) {
        let end = text.bytes().take(PLACEHOLDER_BYTES_MAX).position(|byte| byte == b']')?;
        return Some(end + 1);
    }
    let digits = text.strip_prefix(DIGEST)?.bytes().take(DIGEST_DIGITS).filter(u8::is_ascii_hexdigit).count();
    (digits == DIGEST_DIGITS).then_some(DIGEST.len() + DIGEST_DIGITS)
}

/// A piece of a text, by how it is shown.
enum Piece<'a> {
    Plain(&'a str),
    /// A character that cannot be seen, and how often it stands in a row.
    Invisible(char, usize),
    /// A placeholder.
    Hidden(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut at = 0;
    for place in hidden_places(text) {
        add_characters(&mut out, &text[at..place.start]);
        out.push(Piece::Hidden(&text[place.clone()]));
        at = place.end;
    }
    add_characters(&mut out, &text[at..]);
    out
}

/// Adds a text without placeholders.
fn add_characters<'a>(out: &mut Vec<Piece<'a>>, text: &'a str) {
    let mut plain_from = 0;
    for (at, character) in text.char_indices().filter(|(_, character)| is_invisible(*character)) {
        if at > plain_from {
            out.push(Piece::Plain(&text[plain_from..at]));
        }
        match out.last_mut() {
            Some(Piece::Invisible(last, times)) if *last == character => *times += 1,
            _ => out.push(Piece::Invisible(character, 1)),
        }
        plain_from = at + character.len_utf8();
    }
    if plain_from < text.len() {
        out.push(Piece::Plain(&text[plain_from..]));
    }
}

/// Whether a character has no shape of its own: it controls, joins, or changes the direction of what is around it.
fn is_invisible(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(range: Range<usize>) -> Vec<Range<usize>> {
        vec![range]
    }

    #[test]
    fn markup_and_invisible_characters_are_inert_and_visible() {
        let html = shown("<script>alert('x')</script>\u{202e}\0\0\0\u{200b}end").into_string();
        assert!(html.starts_with("&lt;script&gt;alert("), "{html}");
        assert!(!html.contains("<script") && !html.contains('\u{202e}') && !html.contains('\0'), "{html}");
        let character = |text: &str| format!("<span class=\"character\">{text}</span>");
        assert!(html.contains(&[character("U+202E"), character("U+0000×3"), character("U+200B")].concat()), "{html}");
        assert!(html.ends_with("end"));
        assert_eq!(shown("Ünï\tcode عربي").into_string(), "Ünï\tcode عربي", "what can be seen is left as it is");
    }

    #[test]
    fn what_was_hidden_is_marked() {
        let hidden = |text: &str| {
            format!("<mark class=\"hidden-value\"><span class=\"for-readers\">hidden: </span>{text}</mark>")
        };
        let redacted = "[redacted 0123456789abcdef]";
        assert_eq!(shown("a=***&b").into_string(), format!("a={}&amp;b", hidden("***")));
        assert_eq!(shown(redacted).into_string(), hidden(redacted));
        assert_eq!(
            shown("text, 7 bytes, digest 0123456789abcdef").into_string(),
            format!("text, 7 bytes, {}", hidden("digest 0123456789abcdef"))
        );
        for plain in ["a * b ** c", "[redacted", "digest of a day", "dd[d*", "digest 0123é"] {
            assert_eq!(shown(plain).into_string(), plain);
            assert!(!has_hidden(plain));
        }
    }

    #[test]
    fn only_what_differs_is_marked_and_a_placeholder_as_a_whole() {
        let legacy = marked("\"total\": 12.50,", &one(9..14), Side::Legacy).into_string();
        let words = "<span class=\"for-readers\">differs: </span>";
        assert_eq!(legacy, format!("&quot;total&quot;: <del>{words}12.50</del>,"));
        assert_eq!(marked("a<b", &one(0..3), Side::Engine).into_string(), format!("<ins>{words}a&lt;b</ins>"));
        let line = "x [redacted 1] y";
        assert_eq!(partition(line, &[12..13, 15..16]), [(0..2, false), (2..14, true), (14..15, false), (15..16, true)]);
        assert_eq!(partition(line, &[0..3, 12..13]), [(0..14, true), (14..16, false)]);
        assert!(partition("", &[]).is_empty());
    }

    #[test]
    fn a_long_line_shows_its_difference_and_counts_the_rest() {
        let line = format!("{}X{}", "é".repeat(5_000), "b".repeat(5_000));
        let html = marked(&line, &one(10_000..10_001), Side::Engine).into_string();
        assert!(html.len() < 3 * LINE_BYTES_MAX, "{}", html.len());
        assert!(html.contains("X</ins>"), "{html}");
        assert_eq!(html.matches(" characters not shown …").count(), 2, "{html}");
        let whole = marked(&line, &one(0..line.len()), Side::Legacy).into_string();
        assert!(whole.len() < 3 * LINE_BYTES_MAX, "{}", whole.len());
        let many: Vec<_> = (0..5_000).map(|n| 2 * n..2 * n + 2).step_by(2).collect();
        assert!(marked(&line, &many, Side::Legacy).into_string().len() < 60 * LINE_BYTES_MAX);
    }
}
