//! Splits a text that quotes XML or HTML into the contents of its elements and attributes, and tells what is secret.
//!
//! The text is searched as it is and not parsed: it may quote a part of a document, or one with text beside elements.
//! Therefore what stands in an element without an end tag is taken for secret up to the end of the text.

use std::collections::HashMap;
use std::ops::Range;

use super::forms::{holds_a_value, is_name_attribute, may_name_next_element};

/// The delimiters of a text of XML in which nothing is escaped.
pub const CDATA: [&str; 2] = ["<![CDATA[", "]]>"];
/// The longest reference to a character of XML: `&#x0010FFFF;`.
const REFERENCE_BYTES_MAX: usize = 12;
/// The attribute and its value by which HTML says that a field holds a password.
const PASSWORD_FIELD: [&str; 2] = ["type", "password"];
/// Elements of HTML that have no end tag. One of XML with such a name has content if its end tag is the next tag.
const VOID_ELEMENTS: [&str; 13] =
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"];

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'t> {
    pub place: Range<usize>,
    pub kind: PieceKind<'t>,
    /// How many elements are open around it.
    pub depth: usize,
    /// The least nesting depth since the piece before it.
    pub depth_min: usize,
}

/// What a part of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind<'t> {
    /// What stands in an element or attribute with this secret name.
    Secret(&'t str),
    /// Another attribute, or what is between attributes. References such as `&amp;` stand for characters.
    InTag,
    /// A text in or beside elements, in which references stand for characters.
    Escaped,
    /// A text in CDATA delimiters.
    Verbatim,
}

/// The parts of a text that quotes elements or references, in order; `None` if it quotes none. What is between them are
/// the names of elements, and delimiters.
pub(super) fn pieces<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Option<Vec<Piece<'t>>> {
    let may_be_markup = text.contains('<') || text.contains('&') && text.contains(';');
    if !may_be_markup {
        return None;
    }
    let mut found = Pieces::default();
    let (mut at, mut run) = (0, 0);
    let mut named_before = None;
    while let Some(open) = text[at..].find('<').map(|open| at + open) {
        let rest = &text[open..];
        if let Some(inner) = rest.strip_prefix(CDATA[0]) {
            let start = open + CDATA[0].len();
            let end = inner.find(CDATA[1]).map_or(text.len(), |end| start + end);
            found.push(run..open, PieceKind::Escaped);
            found.push(start..end, PieceKind::Verbatim);
            at = (end + CDATA[1].len()).min(text.len());
            run = at;
            continue;
        }
        let is_end = rest.starts_with("</");
        at = open + 1 + usize::from(is_end);
        let name = &text[at..at + name_length(&text[at..])];
        // `<password: hunter2>` is no tag, but a name and its value in angle brackets.
        if name.is_empty() && !is_end || name.ends_with(':') {
            continue;
        }
        let head = at + name.len();
        let Some(end) = end_of_tag(&text[head..]).map(|end| head + end) else { continue };
        found.push(run..open, PieceKind::Escaped);
        let named = match is_end {
            true => {
                found.push(at..end, PieceKind::InTag);
                None
            }
            false => found.attributes(text, head..end, is_secret),
        };
        at = end + 1;
        let has_content = !is_end && !text[..end].ends_with('/') && !is_void(name, &text[at..]);
        match is_end {
            true => found.close(name),
            false if has_content => found.open(name),
            false => {}
        }
        let of_sibling = if is_end { None } else { named_before.take() };
        let secret = if is_secret(local(name)) { Some(local(name)) } else { named.or(of_sibling) };
        if has_content && may_name_next_element(local(name)) {
            // The text up to the next tag names the value in the next element: `<key>PIN</key><string>1234</string>`.
            let name = text[at..].split('<').next().unwrap_or_default().trim();
            named_before = Some(name).filter(|name| is_secret(name));
        }
        if let Some(secret) = secret.filter(|_| has_content) {
            let content = end_tag(&text[at..], name).map_or(at..text.len(), |end| at..at + end);
            at = content.end;
            found.push(content, PieceKind::Secret(secret));
        }
        run = at;
    }
    found.push(run..text.len(), PieceKind::Escaped);
    let found = found.pieces;
    let is_plain = matches!(&found[..], [piece] if piece.place == (0..text.len()) && !has_references(text));
    (!is_plain).then_some(found)
}

/// The pieces of a text that were read, and the elements that are open at their end.
#[derive(Default)]
struct Pieces<'t> {
    pieces: Vec<Piece<'t>>,
    open: Vec<&'t str>,
    /// By name: how many of the open elements have it.
    counts: HashMap<&'t str, usize>,
    depth_min: usize,
}

impl<'t> Pieces<'t> {
    fn push(&mut self, place: Range<usize>, kind: PieceKind<'t>) {
        if !place.is_empty() {
            let depth = self.open.len();
            let depth_min = std::mem::replace(&mut self.depth_min, depth);
            self.pieces.push(Piece { place, kind, depth, depth_min });
        }
    }

    fn open(&mut self, name: &'t str) {
        self.open.push(name);
        *self.counts.entry(name).or_default() += 1;
    }

    /// Closes the innermost open element with this name, and those in it. An end tag without one closes nothing.
    fn close(&mut self, name: &str) {
        while self.counts.get(name).is_some_and(|count| *count > 0)
            && let Some(last) = self.open.pop()
        {
            self.counts.entry(last).and_modify(|count| *count -= 1);
            self.depth_min = self.depth_min.min(self.open.len());
            if last == name {
                break;
            }
        }
    }

    /// Adds what stands in a tag after the name of its element. Returns the secret name that an attribute gives to the
    /// element's value.
    fn attributes(&mut self, text: &'t str, tag: Range<usize>, is_secret: &dyn Fn(&str) -> bool) -> Option<&'t str> {
        let attributes = attributes(&text[tag.clone()]);
        let value_at = |place: &Range<usize>| &text[tag.start + place.start..tag.start + place.end];
        let named = attributes.iter().find_map(|(attribute, place)| {
            let (attribute, value) = (local(attribute), value_at(place));
            let [of_type, password] = PASSWORD_FIELD;
            let is_password = attribute.eq_ignore_ascii_case(of_type) && value.eq_ignore_ascii_case(password);
            (is_password || is_name_attribute(attribute) && is_secret(value)).then_some(value)
        });
        let mut written = tag.start;
        for (attribute, place) in attributes {
            let kind = match named {
                _ if is_secret(local(attribute)) => PieceKind::Secret(local(attribute)),
                Some(name) if holds_a_value(local(attribute)) => PieceKind::Secret(name),
                _ => PieceKind::InTag,
            };
            // What is between the values may be a text too, if the quotes are not those of markup.
            self.push(written..tag.start + place.start, PieceKind::InTag);
            written = tag.start + place.end;
            self.push(tag.start + place.start..written, kind);
        }
        self.push(written..tag.end, PieceKind::InTag);
        named
    }
}

/// Whether an element with this name and this text after its tag has no content because HTML knows no end tag of it.
fn is_void(name: &str, after: &str) -> bool {
    let is_end = |tag: &str| tag.strip_prefix("</").is_some_and(|rest| rest.starts_with(name));
    VOID_ELEMENTS.iter().any(|void| name.eq_ignore_ascii_case(void))
        && !after.find('<').is_some_and(|next| is_end(&after[next..]))
}

/// The content of an element or attribute as plain text. Content with elements in it stays as it is written.
pub(super) fn content(text: &str) -> String {
    let has_elements = || {
        let mut rest = text;
        while let Some(open) = rest.find('<') {
            let inner = rest[open..].strip_prefix(CDATA[0]);
            let Some((_, after)) = inner.and_then(|inner| inner.split_once(CDATA[1])) else { return true };
            rest = after;
        }
        false
    };
    if has_elements() { text.to_owned() } else { unescaped(text).trim().to_owned() }
}

/// A text with the characters that its references and CDATA delimiters stand for.
pub(super) fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    let last_end = text.rfind(CDATA[1]).unwrap_or_default();
    while let Some(next) = rest.find(['&', '<']) {
        plain.push_str(&rest[..next]);
        rest = &rest[next..];
        // No end is searched for after the last one, so that many beginnings without an end take linear time.
        let may_end = text.len() - rest.len() < last_end;
        let inner = rest.strip_prefix(CDATA[0]).filter(|_| may_end);
        if let Some((inner, after)) = inner.and_then(|inner| inner.split_once(CDATA[1])) {
            plain.push_str(inner);
            rest = after;
        } else if let Some((character, bytes)) = reference(rest) {
            plain.push(character);
            rest = &rest[bytes..];
        } else {
            plain.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    plain.push_str(rest);
    plain
}

/// A text as it is written in an element or attribute.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn has_references(text: &str) -> bool {
    text.match_indices('&').any(|(at, _)| reference(&text[at..]).is_some())
}

/// The character that the reference at the beginning of a text stands for, and the length of the reference.
pub(super) fn reference(text: &str) -> Option<(char, usize)> {
    let end = text.bytes().take(REFERENCE_BYTES_MAX).position(|byte| byte == b';')?;
    let name = text.strip_prefix('&').and_then(|_| text.get(1..end))?;
    let character = match (name, name.strip_prefix('#')) {
        ("amp", _) => Some('&'),
        ("lt", _) => Some('<'),
        ("gt", _) => Some('>'),
        ("quot", _) => Some('"'),
        ("apos", _) => Some('\''),
        (_, Some(number)) => {
            let number = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            number.ok().and_then(char::from_u32)
        }
        (_, None) => None,
    };
    character.map(|character| (character, name.len() + 2))
}

/// The length of the name with which a text begins; 0 if it begins with none.
fn name_length(text: &str) -> usize {
    let is_name_char = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c| !is_name_char(c)).unwrap_or(text.len())
}

/// The name without its namespace prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// Finds the `>` that ends a tag, in the text after the element's name. A quoted `>` counts only if there is no other:
/// a closing quote may be missing. The search stops where another tag begins, so that at most three searches read the
/// same part of a text.
fn end_of_tag(text: &str) -> Option<usize> {
    let (mut quote, mut first_quoted) = (None, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '<') => break,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (Some(_), '>') => first_quoted = first_quoted.or(Some(at)),
            _ => {}
        }
    }
    first_quoted
}

/// The attributes after the name of an element, with the places of their values.
fn attributes(text: &str) -> Vec<(&str, Range<usize>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(equals) = text[at..].find('=').map(|equals| at + equals) {
        let before = text[at..equals].trim_end();
        let name = before.rsplit(char::is_whitespace).next().unwrap_or(before);
        let after = text[equals + 1..].trim_start();
        let open = text.len() - after.len();
        // In a string of JSON, escapes stand before the quotes.
        let escapes = after.len() - after.trim_start_matches('\\').len();
        if after[escapes..].starts_with(['"', '\'']) {
            let (quote, value) = after.split_at(escapes + 1);
            let end = value.find(quote).map_or(text.len(), |length| open + quote.len() + length);
            found.push((name, open + quote.len()..end));
            at = (end + quote.len()).min(text.len());
        } else {
            // HTML needs no quotes.
            at = after.find(char::is_whitespace).map_or(text.len(), |length| open + length);
            found.push((name, open..at));
        }
    }
    found
}

/// Where the end tag of this element begins. An end tag in CDATA delimiters is text and does not count.
fn end_tag(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let open = at + text[at..].find('<')?;
        let rest = &text[open..];
        if rest.starts_with(CDATA[0]) {
            at = open + rest.find(CDATA[1])?;
            continue;
        }
        let after = rest.strip_prefix("</").and_then(|rest| rest.strip_prefix(name));
        if after.is_some_and(|after| after.trim_start().starts_with('>')) {
            return Some(open);
        }
        at = open + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{STARS, is_secret};

    fn shown(text: &str) -> String {
        let (mut out, mut written) = (String::new(), 0);
        for Piece { place, kind, .. } in pieces(text, &is_secret).into_iter().flatten() {
            if let PieceKind::Secret(_) = kind {
                out.push_str(&text[written..place.start]);
                out.push_str(STARS);
                written = place.end;
            }
        }
        out + &text[written..]
    }

    #[test]
    fn what_stands_in_an_element_or_attribute_with_a_secret_name_is_secret() {
        for (text, expected) in [
            ("<password>hunter2</password>", "<password>***</password>"),
            ("<password><![CDATA[hunter2]]></password>", "<password>***</password>"),
            ("<pin><![CDATA[a</pin>]]>hunter2</pin >, n", "<pin>***</pin >, n"),
            ("<a>1 <s:token t='>'>&#x68;unter2</s:token></a>", "<a>1 <s:token t='>'>***</s:token></a>"),
            ("<a n='1' password = \"hunter2\"/>", "<a n='1' password = \"***\"/>"),
            ("<input name=password value=hunter2>", "<input name=password value=***>"),
            ("<p name='password' value='hunter2'/><p>1</p>", "<p name='password' value='***'/><p>1</p>"),
            ("<p name='password'>hunter2</p><p>1</p>", "<p name='password'>***</p><p>1</p>"),
            ("said <password>hunter2", "said <password>***"),
            ("<password/><a>shown</a>", "<password/><a>shown</a>"),
            ("1 < 2, a <> b, <token", "1 < 2, a <> b, <token"),
            ("<card><no>hunter2</no></card>", "<card>***</card>"),
            ("<b it's><pin>1</pin>", "<b it's><pin>***</pin>"),
            ("1 <x and <pin>1</pin>", "1 <x and <pin>***</pin>"),
            ("<meta name='csrf-token' content='hunter2'><p>1</p>", "<meta name='csrf-token' content='***'><p>1</p>"),
            ("<input type=\"password\" value=\"hunter2\"> 1", "<input type=\"password\" value=\"***\"> 1"),
            ("<input value='hunter2' type=Password>1", "<input value='***' type=Password>1"),
            ("<meta name='token'>hunter2</meta>1", "<meta name='token'>***</meta>1"),
            (
                "<Item><Name>password</Name><Value>hunter2</Value></Item>",
                "<Item><Name>password</Name><Value>***</Value></Item>",
            ),
            ("<field>pin</field><v>1</v><v>2</v>", "<field>pin</field><v>***</v><v>2</v>"),
            ("<header>token</header><parameter>1</parameter>", "<header>token</header><parameter>***</parameter>"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn references_and_cdata_are_decoded() {
        assert_eq!(content(" <![CDATA[hun<ter]]>&#x32; "), "hun<ter2");
        assert_eq!(content("<no>1</no>"), "<no>1</no>");
        assert_eq!(unescaped("p&amp;1 & 2; &#65;&quot;&none;"), "p&1 & 2; A\"&none;");
        assert_eq!(unescaped(&escaped("<a b=\"&\">")), "<a b=\"&\">");
        for plain in ["a=1&b=2;c", "1 < 2", "no delimiters"] {
            assert_eq!(pieces(plain, &is_secret), None, "{plain}");
        }
    }
}
