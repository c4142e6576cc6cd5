//! A YAML file as a tree with the position of each key and value.
//!
//! Always true: the keys of a map are strings and unique, every number can be written as JSON, every span lies within
//! the file's text on character boundaries. [`super::parse`] builds the tree; the checks read it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::problem::{Segment, Site};

/// One file's text, and its tree if it could be parsed.
#[derive(Clone, Debug)]
pub(crate) struct ParsedFile {
    /// The path, as the user gave it.
    pub file: Arc<str>,
    /// The file's text.
    pub text: Arc<str>,
    /// The file's content; `None` if it could not be parsed.
    pub root: Option<Node>,
    /// The entries that are not in it, because their key stands twice in its map; by where the map begins.
    pub repeated: Arc<BTreeMap<usize, Vec<MapEntry>>>,
    /// Where parsing failed: in a file without a tree, every problem has this position.
    pub failed_at: usize,
}

/// A value and its position.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The position in the text, in bytes.
    pub span: Range<usize>,
    /// The value.
    pub kind: NodeKind,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Null,
    Bool(bool),
    Number(Number),
    Text(Arc<str>),
    List(Arc<[Node]>),
    Map(Arc<[MapEntry]>),
}

/// A key of a map with its value.
#[derive(Clone, Debug)]
pub(crate) struct MapEntry {
    pub key: Arc<str>,
    pub key_span: Range<usize>,
    pub value: Node,
}

/// A position in a file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextPosition {
    /// The position in the text, in bytes; within one line.
    pub span: Range<usize>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Node {
    /// The name of this type of value, for messages.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "true or false",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }
    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }
    /// The entry of a map.
    pub fn entry(&self, key: &str) -> Option<&MapEntry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }
    /// The entries of a map, else none.
    pub fn entries(&self) -> &[MapEntry] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }
    /// The items of a list, else none.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::List(items) => items,
            _ => &[],
        }
    }
    /// The text, if the value is one.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The value as JSON, without positions.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(bool) => Value::Bool(*bool),
            NodeKind::Number(number) => Value::Number(number.clone()),
            NodeKind::Text(text) => Value::String(text.to_string()),
            NodeKind::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            NodeKind::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.to_string(), e.value.to_value())).collect::<Map<_, _>>())
            }
        }
    }
}

impl ParsedFile {
    /// The position of a site. If its path does not exist (a key is missing), the position of the last part that
    /// exists.
    pub fn locate(&self, site: &Site, offset: Option<usize>) -> TextPosition {
        let Some(root) = &self.root else { return self.position(self.failed_at..self.failed_at) };
        let mut node = root;
        let mut key_span: Option<&Range<usize>> = None;
        let mut is_complete = true;
        for segment in &site.path {
            let next = match segment {
                Segment::Key(key) => node.entry(key).map(|entry| (Some(&entry.key_span), &entry.value)),
                Segment::Index(index) => node.items().get(*index).map(|item| (None, item)),
            };
            let Some((key, value)) = next else {
                is_complete = false;
                break;
            };
            // An item of a list has no key: its position is that of the value.
            (key_span, node) = (key, value);
        }
        if is_complete
            && !site.at_key
            && let Some(offset) = offset
            && let Some(at) = self.position_in_text(node, offset)
        {
            return self.position(at);
        }
        match key_span {
            Some(span) if site.at_key || !is_complete || !is_scalar(node) => self.position(span.clone()),
            _ if is_scalar(node) => self.position(node.span.clone()),
            // A list or map without a key has the position of its first key or first character.
            _ => match (node.entries().first(), site.path.is_empty() && is_complete) {
                (Some(entry), _) => self.position(entry.key_span.clone()),
                (None, true) => self.position(node.span.start..node.span.start),
                (None, false) => self.position(node.span.clone()),
            },
        }
    }

    /// Line and column of a span; the span is cut to its first line.
    pub fn position(&self, span: Range<usize>) -> TextPosition {
        let start = floor(&self.text, span.start.min(self.text.len()));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let rest = &self.text[start..];
        let line_end = start + rest.find(['\n', '\r']).unwrap_or(rest.len());
        let end = floor(&self.text, span.end.clamp(start, line_end));
        let end = start + self.text[start..end].trim_end().len();
        TextPosition {
            span: start..end,
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
        }
    }

    /// The position of a character of a string value, if it can be computed: an escape counts as one character, and the
    /// lines of a literal block lose their indentation.
    fn position_in_text(&self, node: &Node, offset: usize) -> Option<Range<usize>> {
        let text = node.text()?;
        let source = self.text.get(node.span.clone())?;
        let byte = text.char_indices().nth(offset).map_or(text.len(), |(at, _)| at);
        let found = match source.as_bytes().first()? {
            b'"' => in_quotes(source, offset, '\\')?,
            b'\'' => in_quotes(source, offset, '\'')?,
            _ => match source.find(text) {
                Some(start) => start + byte,
                None => in_block(source, text, byte)?,
            },
        };
        let start = node.span.start + found;
        let width = self.text[start..].chars().next().map_or(0, char::len_utf8);
        Some(start..(start + width))
    }
}

/// The byte position of the `offset`-th character between quotes; each escape counts as one character.
fn in_quotes(source: &str, offset: usize, escape: char) -> Option<usize> {
    let mut chars = source.char_indices().skip(1).peekable();
    for _ in 0..offset {
        let (_, c) = chars.next()?;
        if c == escape {
            let (_, kind) = chars.next()?;
            let digits = match kind {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            for _ in 0..(if escape == '\\' { digits } else { 0 }) {
                chars.next()?;
            }
        } else if c == '\n' {
            return None; // folded lines: the position cannot be computed
        }
    }
    chars.next().map(|(at, _)| at)
}

/// The position in `source` of a byte of a literal block's text. The lines of the text lack the block's indentation,
/// and so does the first line of `source`. `None` for a folded block, because its lines in the file differ from the
/// text's.
fn in_block(source: &str, text: &str, byte: usize) -> Option<usize> {
    let line_start = text[..byte].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let mut at = 0;
    for _ in 0..text[..byte].matches('\n').count() {
        at += source[at..].find('\n')? + 1;
    }
    let written = source[at..].lines().next().unwrap_or("");
    let indent = written.len().checked_sub(line.len()).filter(|_| written.trim_start().ends_with(line.trim_start()))?;
    let found = at + indent + (byte - line_start);
    source.is_char_boundary(found).then_some(found)
}

fn is_scalar(node: &Node) -> bool {
    !matches!(node.kind, NodeKind::List(_) | NodeKind::Map(_))
}

/// The character boundary at or before a byte.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
