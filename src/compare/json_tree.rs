//! A JSON document as one list of values over one text, for documents that are read once and walked.
//!
//! Always true: the texts of all keys, strings and numbers are parts of the one text, so that a document costs a few
//! allocations and not one for each of its values; no object repeats a key; a value stands before the values within it,
//! in the order of the text.
//!
//! It is built by `json_reader`, and seen through `node`.

use serde_json::{Map, Number, Value};

/// Objects with more members than this are searched by a sorted list of them.
const SEARCHED_IN_ORDER_MAX: usize = 16;

/// A JSON document.
#[derive(Debug)]
pub(super) struct JsonTree {
    /// The document's text, and behind it the texts that have another form in the document: those with escapes.
    text: String,
    entries: Vec<Entry>,
    /// The members of each large object, sorted by their keys.
    sorted: Vec<u32>,
}

/// A part of the text, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// One value.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Empty unless the value is a member of an object.
    key: Span,
    value: EntryValue,
}

#[derive(Clone, Copy, Debug)]
enum EntryValue {
    Null,
    Bool(bool),
    Number(Span),
    String(Span),
    Array(Extent),
    /// Of a large object also the index of its first member in `JsonTree::sorted`.
    Object(Extent, Option<u32>),
}

/// The range in the list that the values of an array or object occupy; it starts right after the container's own entry.
#[derive(Clone, Copy, Debug)]
struct Extent {
    count: u32,
    /// The index after its last value.
    end: u32,
}

/// One value of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreeNode<'v> {
    tree: &'v JsonTree,
    at: u32,
}

/// What a value of a tree is.
pub(super) enum TreeValue<'v> {
    Null,
    Bool(bool),
    Number(&'v str),
    String(&'v str),
    Array(Children<'v>),
    Object(Children<'v>),
}

/// The values directly within an array or an object.
#[derive(Clone, Copy)]
pub(super) struct Children<'v> {
    tree: &'v JsonTree,
    /// The index of the array or object.
    of: u32,
    extent: Extent,
    sorted: Option<u32>,
}

/// The values directly within an array or an object, one after the other.
#[derive(Clone)]
pub(super) struct ChildrenIter<'v> {
    tree: &'v JsonTree,
    at: u32,
    end: u32,
}

impl JsonTree {
    /// The value that contains all others.
    pub(super) fn root(&self) -> TreeNode<'_> {
        TreeNode { tree: self, at: 0 }
    }

    /// The number of its values.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn text(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn entry(&self, at: u32) -> Entry {
        let null = Entry { key: Span::EMPTY, value: EntryValue::Null };
        self.entries.get(at as usize).copied().unwrap_or(null)
    }
}

impl<'v> TreeNode<'v> {
    /// The tree to which it belongs.
    pub(super) fn tree(self) -> &'v JsonTree {
        self.tree
    }

    /// Its place in the tree's list.
    pub(super) fn index(self) -> usize {
        self.at as usize
    }

    /// The number of values in this subtree, with its root.
    pub(super) fn len(self) -> usize {
        match self.tree.entry(self.at).value {
            EntryValue::Array(extent) | EntryValue::Object(extent, _) => extent.end.saturating_sub(self.at) as usize,
            EntryValue::Null | EntryValue::Bool(_) | EntryValue::Number(_) | EntryValue::String(_) => 1,
        }
    }

    pub(super) fn value(self) -> TreeValue<'v> {
        let children = |extent, sorted| Children { tree: self.tree, of: self.at, extent, sorted };
        match self.tree.entry(self.at).value {
            EntryValue::Null => TreeValue::Null,
            EntryValue::Bool(value) => TreeValue::Bool(value),
            EntryValue::Number(span) => TreeValue::Number(self.tree.text(span)),
            EntryValue::String(span) => TreeValue::String(self.tree.text(span)),
            EntryValue::Array(extent) => TreeValue::Array(children(extent, None)),
            EntryValue::Object(extent, sorted) => TreeValue::Object(children(extent, sorted)),
        }
    }

    /// The same value in the form that expressions, searches and displays take. Recursion is bounded by the depth of
    /// the document.
    pub(super) fn to_value(self) -> Value {
        match self.value() {
            TreeValue::Null => Value::Null,
            TreeValue::Bool(value) => Value::Bool(value),
            TreeValue::Number(text) => text.parse::<Number>().map_or(Value::Null, Value::Number),
            TreeValue::String(text) => Value::String(text.to_owned()),
            TreeValue::Array(items) => Value::Array(items.iter().map(|(_, item)| item.to_value()).collect()),
            TreeValue::Object(members) => {
                let mut map = Map::with_capacity(members.len());
                members.iter().for_each(|(key, value)| drop(map.insert(key.to_owned(), value.to_value())));
                Value::Object(map)
            }
        }
    }
}

impl<'v> Children<'v> {
    pub(super) fn len(self) -> usize {
        self.extent.count as usize
    }

    /// Each with its key, which is empty in an array.
    pub(super) fn iter(self) -> ChildrenIter<'v> {
        ChildrenIter { tree: self.tree, at: self.of + 1, end: self.extent.end }
    }

    /// The member of an object with this key.
    pub(super) fn get(self, key: &str) -> Option<(&'v str, TreeNode<'v>)> {
        let Some(first) = self.sorted else { return self.iter().find(|(other, _)| *other == key) };
        let members = self.tree.sorted.get(first as usize..first as usize + self.len())?;
        let key_of = |at: &u32| self.tree.text(self.tree.entry(*at).key);
        let at = members.binary_search_by(|at| key_of(at).cmp(key)).ok().and_then(|n| members.get(n).copied())?;
        Some((key_of(&at), TreeNode { tree: self.tree, at }))
    }
}

impl<'v> Iterator for ChildrenIter<'v> {
    type Item = (&'v str, TreeNode<'v>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Self { tree, at, end } = *self;
        if at >= end {
            return None;
        }
        let entry = tree.entry(at);
        self.at = match entry.value {
            EntryValue::Array(extent) | EntryValue::Object(extent, _) => extent.end,
            EntryValue::Null | EntryValue::Bool(_) | EntryValue::Number(_) | EntryValue::String(_) => at + 1,
        };
        Some((tree.text(entry.key), TreeNode { tree, at }))
    }
}

impl Span {
    const EMPTY: Self = Self { start: 0, end: 0 };
}

/// Builds a tree, in the order of the text.
pub(super) struct TreeBuilder {
    tree: JsonTree,
    /// The indexes of the members of all objects that are open.
    members: Vec<u32>,
}

/// An array or an object that is not closed yet.
pub(super) struct OpenContainer {
    at: u32,
    members_before: usize,
}

/// How many bytes of text one value takes on average, about.
const BYTES_OF_VALUE: usize = 12;
/// The largest text of which all positions are sure to fit into 32 bits. Texts that have another form in the document
/// are appended, and are at most a third longer than there (`1E5` becomes `1e+5`).
const TEXT_BYTES_MAX: usize = u32::MAX as usize / 4;

impl TreeBuilder {
    /// Begins with the text of a document; `None` if it is too large.
    pub(super) fn of(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let entries = Vec::with_capacity(text.len() / BYTES_OF_VALUE + 1);
        let tree = JsonTree { text: text.to_owned(), entries, sorted: Vec::new() };
        Some(Self { tree, members: Vec::new() })
    }

    pub(super) fn text(&self, span: Span) -> &str {
        self.tree.text(span)
    }

    /// A part of the document's text, which is within [`TEXT_BYTES_MAX`].
    pub(super) fn part(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// Appends a text that has another form in the document.
    pub(super) fn other_text(&mut self, text: &str) -> Option<Span> {
        let start = self.tree.text.len();
        self.tree.text.push_str(text);
        Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(self.tree.text.len()).ok()? })
    }

    fn add(&mut self, key: Option<Span>, value: EntryValue) -> u32 {
        let at = self.tree.entries.len() as u32;
        if key.is_some() {
            self.members.push(at);
        }
        self.tree.entries.push(Entry { key: key.unwrap_or(Span::EMPTY), value });
        at
    }

    pub(super) fn null(&mut self, key: Option<Span>) {
        self.add(key, EntryValue::Null);
    }

    pub(super) fn bool(&mut self, key: Option<Span>, value: bool) {
        self.add(key, EntryValue::Bool(value));
    }

    pub(super) fn number(&mut self, key: Option<Span>, text: Span) {
        self.add(key, EntryValue::Number(text));
    }

    pub(super) fn string(&mut self, key: Option<Span>, text: Span) {
        self.add(key, EntryValue::String(text));
    }

    /// Begins an array or an object, to which the values that follow belong until it is closed.
    pub(super) fn open(&mut self, key: Option<Span>) -> OpenContainer {
        let at = self.add(key, EntryValue::Null);
        OpenContainer { at, members_before: self.members.len() }
    }

    pub(super) fn close_array(&mut self, open: &OpenContainer, count: usize) {
        let extent = Extent { count: count as u32, end: self.tree.entries.len() as u32 };
        self.set(open, EntryValue::Array(extent));
    }

    /// Closes an object; `None` if it repeats a key.
    pub(super) fn close_object(&mut self, open: &OpenContainer) -> Option<()> {
        let Self { tree, members } = self;
        let of_object = members.get_mut(open.members_before..)?;
        let extent = Extent { count: of_object.len() as u32, end: tree.entries.len() as u32 };
        let key_of = |at: u32| tree.text(tree.entry(at).key);
        let (is_repeated, sorted) = if of_object.len() <= SEARCHED_IN_ORDER_MAX {
            // Only texts of equal length are compared: few keys of an object are equally long.
            let spans = of_object.iter().map(|at| tree.entry(*at).key);
            let is_same = |a: Span, b: Span| a.end - a.start == b.end - b.start && tree.text(a) == tree.text(b);
            (spans.clone().enumerate().any(|(n, key)| spans.clone().take(n).any(|other| is_same(key, other))), None)
        } else {
            of_object.sort_unstable_by(|a, b| key_of(*a).cmp(key_of(*b)));
            let is_repeated = of_object.windows(2).any(|pair| key_of(pair[0]) == key_of(pair[1]));
            let first = tree.sorted.len() as u32;
            tree.sorted.extend_from_slice(of_object);
            (is_repeated, Some(first))
        };
        members.truncate(open.members_before);
        self.set(open, EntryValue::Object(extent, sorted));
        (!is_repeated).then_some(())
    }

    fn set(&mut self, open: &OpenContainer, value: EntryValue) {
        if let Some(entry) = self.tree.entries.get_mut(open.at as usize) {
            entry.value = value;
        }
    }

    pub(super) fn finish(self) -> JsonTree {
        self.tree
    }
}
