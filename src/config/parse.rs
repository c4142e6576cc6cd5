//! Parses YAML text into a tree, within bounds.
//!
//! Always true: it reads YAML 1.2 (`off`, `yes` and `no` are strings); a number written with leading zeros is a string,
//! so that no id loses digits; nesting, values and text are bounded after aliases are expanded. Refused, each with its
//! position: a duplicate key in a map, tags (except `!!str`), merge keys (`<<`), a second document, an alias inside its
//! own anchor. No input makes it panic.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, options};

use super::plain_scalar::plain_scalar;
use super::tree::{MapEntry, Node, NodeKind, ParsedFile};
use crate::expression::{RESERVED_PREFIX, is_reserved_key};
use crate::limits::{FLAG_FILE_DEPTH_MAX, FLAG_FILE_TEXT_BYTES_MAX, FLAG_FILE_VALUES_MAX};

/// A syntax error, or a construct that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// The position in the text, in bytes.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Parses a file's text. After an error that leaves the tree usable (a duplicate key), the tree is returned too, so
/// that its other problems are found.
pub(crate) fn parse(file: &Arc<str>, text: &str) -> (ParsedFile, Vec<ParseError>) {
    let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(text).into();
    let mut builder = Builder { text: &text, ..Builder::default() };
    let outcome = builder.read();
    let mut errors = builder.errors;
    let mut failed_at = 0;
    let root = match outcome {
        Ok(root) => root.or(Some(Node { span: 0..0, kind: NodeKind::Null })),
        Err(error) => {
            failed_at = error.span.start;
            errors.push(error);
            None
        }
    };
    let repeated = Arc::new(builder.repeated);
    (ParsedFile { file: file.clone(), text: text.clone(), root, repeated, failed_at }, errors)
}

/// A list or map whose end has not been read yet.
struct OpenCollection {
    span: Range<usize>,
    anchor: usize,
    items: Vec<Node>,
    map: Option<OpenMap>,
}

/// The entries of an open map.
#[derive(Default)]
struct OpenMap {
    entries: Vec<MapEntry>,
    pending: Option<(Arc<str>, Range<usize>)>,
    seen: HashMap<Arc<str>, usize>,
}

/// The value and the size of a complete anchor, which aliases repeat.
struct Anchored {
    node: Node,
    height: usize,
    values: usize,
    bytes: usize,
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    stack: Vec<OpenCollection>,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    bytes: usize,
    root: Option<Node>,
    repeated: BTreeMap<usize, Vec<MapEntry>>,
    errors: Vec<ParseError>,
}

impl Builder<'_> {
    fn read(&mut self) -> Result<Option<Node>, ParseError> {
        let options = options! {
            emit_comments: false,
            flow_nesting_limit: FLAG_FILE_DEPTH_MAX,
            block_nesting_limit: FLAG_FILE_DEPTH_MAX,
        };
        let text = self.text;
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| self.scan_error(&error))?;
            let span = self.byte_offset(span.start)..self.byte_offset(span.end);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(parse_error(span, "a second document in one file", "one file holds one document"));
                    }
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let tag = tag.map(|tag| tag.original());
                    let node = self.scalar(&value, style, tag.as_deref(), span)?;
                    self.count(1, value.len(), &node.span)?;
                    if anchor != 0 {
                        self.anchor(anchor, node.clone());
                    }
                    self.add(node)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.open(span, anchor, tag.map(|tag| tag.original()), None)?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.open(span, anchor, tag.map(|tag| tag.original()), Some(OpenMap::default()))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(span.end)?,
                Event::Alias(id) => self.alias(id, span)?,
                _ => {}
            }
        }
        Ok(self.root.take())
    }

    fn scalar(
        &self,
        value: &str,
        style: ScalarStyle,
        tag: Option<&str>,
        span: Range<usize>,
    ) -> Result<Node, ParseError> {
        let kind = match (tag, style) {
            (Some("!!str"), _) => NodeKind::Text(value.into()),
            (Some(tag), _) => return Err(tag_error(span, tag)),
            (None, ScalarStyle::Plain) => plain_scalar(value),
            (None, _) => NodeKind::Text(value.into()),
        };
        Ok(Node { span, kind })
    }

    fn open(
        &mut self,
        span: Range<usize>,
        anchor: usize,
        tag: Option<String>,
        map: Option<OpenMap>,
    ) -> Result<(), ParseError> {
        if let Some(tag) = tag {
            return Err(tag_error(span, &tag));
        }
        self.count(1, 0, &span)?;
        if self.stack.len() >= FLAG_FILE_DEPTH_MAX {
            return Err(too_deep(span));
        }
        self.stack.push(OpenCollection { span, anchor, items: Vec::new(), map });
        Ok(())
    }

    fn close(&mut self, end: usize) -> Result<(), ParseError> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let kind = match open.map {
            Some(keys) => NodeKind::Map(keys.entries.into()),
            None => NodeKind::List(open.items.into()),
        };
        let node = Node { span: open.span.start..end.max(open.span.start), kind };
        if open.anchor != 0 {
            self.anchor(open.anchor, node.clone());
        }
        self.add(node)
    }

    fn anchor(&mut self, id: usize, node: Node) {
        let (height, values, bytes) = measure(&node);
        self.anchors.insert(id, Anchored { node, height, values, bytes });
    }

    fn alias(&mut self, id: usize, span: Range<usize>) -> Result<(), ParseError> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(parse_error(span, "an alias inside its own anchor", "write the value out"));
        };
        let (values, bytes) = (anchored.values, anchored.bytes);
        if self.stack.len() + anchored.height > FLAG_FILE_DEPTH_MAX {
            return Err(too_deep(span));
        }
        // Positions inside an alias point at the anchor, where the text is.
        let node = anchored.node.clone();
        self.count(values, bytes, &span)?;
        self.add(node)
    }

    fn count(&mut self, values: usize, bytes: usize, span: &Range<usize>) -> Result<(), ParseError> {
        self.values = self.values.saturating_add(values);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.values > FLAG_FILE_VALUES_MAX || self.bytes > FLAG_FILE_TEXT_BYTES_MAX {
            let message = format!(
                "the file is too large with aliases expanded: more than {FLAG_FILE_VALUES_MAX} values, or more than {FLAG_FILE_TEXT_BYTES_MAX} bytes of text"
            );
            return Err(parse_error(span.clone(), message, "split it, or use fewer aliases"));
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<(), ParseError> {
        let text = self.text;
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let Some(keys) = &mut open.map else {
            open.items.push(node);
            return Ok(());
        };
        let Some((key, key_span)) = keys.pending.take() else {
            let key: Arc<str> = match &node.kind {
                NodeKind::Text(text) => text.clone(),
                NodeKind::Bool(bool) => bool.to_string().into(),
                NodeKind::Number(number) => number.to_string().into(),
                NodeKind::Null => {
                    return Err(parse_error(node.span, "a key without a name", "write the key in front of the colon"));
                }
                NodeKind::List(_) | NodeKind::Map(_) => {
                    return Err(parse_error(
                        node.span,
                        "a list or a map as a key",
                        "a value that begins with `{`, `[` or `${` in a flow map needs quotes",
                    ));
                }
            };
            if &*key == "<<" {
                return Err(parse_error(
                    node.span,
                    "merge keys (`<<`) are not supported",
                    "write the keys out, or alias one value",
                ));
            }
            if is_reserved_key(&key) {
                let message = format!("keys that begin with `{RESERVED_PREFIX}` are reserved");
                return Err(parse_error(node.span, message, "choose another key"));
            }
            keys.pending = Some((key, node.span));
            return Ok(());
        };
        if let Some(first) = keys.seen.get(&key) {
            let line = text[..keys.entries[*first].key_span.start].matches('\n').count() + 1;
            self.errors.push(parse_error(
                key_span.clone(),
                format!("the key `{key}` is twice in this map"),
                format!("it is in line {line} too; keep one of them"),
            ));
            let entry = MapEntry { key, key_span, value: node };
            self.repeated.entry(open.span.start).or_default().push(entry);
        } else {
            keys.seen.insert(key.clone(), keys.entries.len());
            keys.entries.push(MapEntry { key, key_span, value: node });
        }
        Ok(())
    }

    /// The byte offset of a marker, on a character boundary.
    fn byte_offset(&self, marker: Marker) -> usize {
        let mut at = marker
            .byte_offset()
            .unwrap_or_else(|| self.text.char_indices().nth(marker.index()).map_or(self.text.len(), |(at, _)| at));
        at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn scan_error(&self, error: &ScanError) -> ParseError {
        let at = self.byte_offset(*error.marker());
        let line_start = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let line = &self.text[line_start..];
        let line = &line[..line.find('\n').unwrap_or(line.len())];
        let info = error.info();
        let before = &line[..line.len().min(at - line_start)];
        let hint = if line.starts_with('\t') || before.trim_start_matches(' ').starts_with('\t') {
            Some("indent with spaces, not with a tab")
        } else if info.starts_with("mapping values") {
            Some("a value with a colon in it needs quotes")
        } else if info.starts_with("illegal placement") {
            Some("a `[`, `{` or quote in a line above may not be closed")
        } else if line.contains("${") {
            Some("put a value with `${…}` and any of `: { } [ ] , # \"` in quotes")
        } else {
            None
        };
        ParseError { span: at..at, message: format!("not YAML: {info}"), hint: hint.map(str::to_owned) }
    }
}

fn parse_error(span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> ParseError {
    ParseError { span, message: message.into(), hint: Some(hint.into()) }
}

fn too_deep(span: Range<usize>) -> ParseError {
    parse_error(span, format!("nested deeper than {FLAG_FILE_DEPTH_MAX} levels"), "nest fewer lists and maps")
}

fn tag_error(span: Range<usize>, tag: &str) -> ParseError {
    parse_error(span, format!("the tag `{tag}` is not supported"), "leave it out; quote a value that is to stay text")
}

/// The depth of a value, the number of values in it, and the bytes of its text. Keys count as values, as they do where
/// the value is parsed.
fn measure(node: &Node) -> (usize, usize, usize) {
    let sum = |children: &mut dyn Iterator<Item = (Option<&str>, &Node)>| {
        let (mut height, mut values, mut bytes) = (0, 1, 0);
        for (key, child) in children {
            let (child_height, child_values, child_bytes) = measure(child);
            height = height.max(child_height);
            values += child_values + usize::from(key.is_some());
            bytes += child_bytes + key.map_or(0, str::len);
        }
        (height + 1, values, bytes)
    };
    match &node.kind {
        NodeKind::List(items) => sum(&mut items.iter().map(|item| (None, item))),
        NodeKind::Map(entries) => sum(&mut entries.iter().map(|entry| (Some(&*entry.key), &entry.value))),
        NodeKind::Text(text) => (0, 1, text.len()),
        NodeKind::Null | NodeKind::Bool(_) | NodeKind::Number(_) => (0, 1, 0),
    }
}
