//! Finds secrets in a text that quotes XML or HTML, by the names of its elements and attributes.
//!
//! The text is searched as it is and not parsed: it may quote a part of a document, or one with text beside elements.
//! Therefore what stands in an element without an end tag is taken for secret up to the end of the text.

use std::ops::Range;

use crate::secret::{STARS, replaced};

/// The text with `replace` of the contents of elements and attributes with secret names in their place.
pub(super) fn without_secrets(
    text: &str,
    is_secret: &dyn Fn(&str) -> bool,
    replace: &dyn Fn(&str) -> String,
) -> String {
    let places: Vec<_> = secrets_in(text, is_secret).into_iter().map(|(_, place)| place).collect();
    replaced(text, &places, &|content| Some(replace(content))).unwrap_or_else(|| STARS.to_owned())
}

/// The names and the decoded texts of elements and attributes with secret names; of elements, only if they have no
/// others in them.
pub(super) fn named_secrets<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Vec<(&'t str, String)> {
    let decoded = |(name, place): (&'t str, Range<usize>)| {
        let content = &text[place];
        let document = (!has_elements(content)).then(|| format!("<a>{content}</a>"))?;
        let parsed = roxmltree::Document::parse(&document).ok()?;
        let texts = parsed.root_element().children().filter_map(|node| node.text().map(str::to_owned));
        Some((name, texts.collect::<String>().trim().to_owned()))
    };
    secrets_in(text, is_secret).into_iter().filter_map(decoded).collect()
}

/// How a text begins in which nothing is escaped.
pub(super) const CDATA: &str = "<![CDATA[";

fn has_elements(content: &str) -> bool {
    let mut rest = content;
    while let Some(open) = rest.find('<') {
        let text = rest[open..].strip_prefix(CDATA);
        let Some((_, behind)) = text.and_then(|text| text.split_once("]]>")) else { return true };
        rest = behind;
    }
    false
}

/// The names of secrets, and where they are: sorted, and none within another one.
fn secrets_in<'t>(text: &'t str, is_secret: &dyn Fn(&str) -> bool) -> Vec<(&'t str, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find('<').map(|start| at + start + 1) {
        at = start;
        let name = &text[start..start + name_length(&text[start..])];
        if name.is_empty() {
            continue;
        }
        let head = start + name.len();
        let behind = &text[head..];
        // A quote that is not closed is no quote.
        let Some(end) = end_of_tag(behind).or_else(|| behind.find('>')).map(|end| head + end) else { break };
        for (attribute, place) in attributes(&text[head..end]) {
            if is_secret(local(attribute)) {
                found.push((attribute, head + place.start..head + place.end));
            }
        }
        at = end + 1;
        if is_secret(local(name)) && !text[..end].ends_with('/') {
            let content = end_tag(&text[at..], name).map_or(at..text.len(), |end| at..at + end);
            at = content.end;
            if !content.is_empty() {
                found.push((name, content));
            }
        }
    }
    found
}

fn name_length(text: &str) -> usize {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c| !is_of_name(c)).unwrap_or(text.len())
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// Where the `>` is behind the name of an element: a quoted one does not count.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        None
    })
}

/// The attributes behind the name of an element, with the places of their values.
fn attributes(text: &str) -> Vec<(&str, Range<usize>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(sign) = text[at..].find('=').map(|sign| at + sign) {
        let before = text[at..sign].trim_end();
        let name = &before[before.rfind(char::is_whitespace).map_or(0, |space| space + 1)..];
        let behind = text[sign + 1..].trim_start();
        let open = text.len() - behind.len();
        let Some(quote) = behind.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            at = sign + 1;
            continue;
        };
        let end = behind[1..].find(quote).map_or(text.len(), |length| open + 1 + length);
        found.push((name, open + 1..end));
        at = (end + 1).min(text.len());
    }
    found
}

/// Where the end tag of this element begins: one in CDATA is text.
fn end_tag(text: &str, name: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let open = at + text[at..].find('<')?;
        let rest = &text[open..];
        if rest.starts_with(CDATA) {
            at = open + rest.find("]]>")?;
            continue;
        }
        let behind = rest.strip_prefix("</").and_then(|rest| rest.strip_prefix(name));
        if behind.is_some_and(|behind| behind.trim_start().starts_with('>')) {
            return Some(open);
        }
        at = open + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::is_secret;

    fn shown(text: &str) -> String {
        without_secrets(text, &is_secret, &|_| STARS.to_owned())
    }

    #[test]
    fn what_stands_in_an_element_or_attribute_with_a_secret_name_is_hidden() {
        for (text, expected) in [
            ("<password>hunter2</password>", "<password>***</password>"),
            ("<password><![CDATA[hunter2]]></password>", "<password>***</password>"),
            ("<pin><![CDATA[a</pin>]]>hunter2</pin >, n", "<pin>***</pin >, n"),
            ("<a>1 <s:token t='>'>&#x68;unter2</s:token></a>", "<a>1 <s:token t='>'>***</s:token></a>"),
            ("<a n='1' password = \"hunter2\"/>", "<a n='1' password = \"***\"/>"),
            ("said <password>hunter2", "said <password>***"),
            ("<password/><a>shown</a>", "<password/><a>shown</a>"),
            ("1 < 2, a <> b, <token", "1 < 2, a <> b, <token"),
            ("<card><no>hunter2</no></card>", "<card>***</card>"),
            ("<b it's><pin>1</pin>", "<b it's><pin>***</pin>"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn the_decoded_text_is_learned() {
        let text = "<a pin='p&amp;1'><password><![CDATA[hun<ter]]>&#x32;</password><card><no>1</no></card></a>";
        let known = named_secrets(text, &is_secret);
        assert_eq!(known, [("pin", "p&1".to_owned()), ("password", "hun<ter2".to_owned())]);
    }
}
