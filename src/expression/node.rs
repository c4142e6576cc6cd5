//! The tree that is evaluated: CEL's syntax tree, with names resolved to slots, member access joined to paths, macros
//! recognised and functions looked up.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::functions::Function;
use super::operators::Operator;
use super::pseudo_random::PseudoRandom;

/// A node.
pub(super) enum Node {
    /// A literal.
    Constant(Value),
    /// `request.body.items[0]`: a root and constant parts.
    Path(Root, Vec<PathPart>),
    /// Member access on something computed.
    Select(Box<Node>, PathPart),
    /// `a[b]` with a computed `b`.
    Index(Box<Node>, Box<Node>),
    /// `has(a.b)`.
    Has(Box<Node>),
    /// `[a, b]`.
    List(Vec<Node>),
    /// `{"a": b}`.
    Map(Vec<(Node, Node)>),
    /// `a + b`.
    Binary(Operator, Box<Node>, Box<Node>),
    /// `a && b`, `a || b`. `deciding_value` is the value of one side that settles the result: false for `&&`, true for
    /// `||`.
    Logic { deciding_value: bool, left: Box<Node>, right: Box<Node> },
    /// `!a`.
    Not(Box<Node>),
    /// `-a`.
    Negate(Box<Node>),
    /// `a ? b : c`.
    Choose(Box<Node>, Box<Node>, Box<Node>),
    /// `default(a, b)`: `b` where `a` is absent or null.
    Default(Box<Node>, Box<Node>),
    /// `a.matches("…")`.
    Matches(Box<Node>, Regex),
    /// A function of values.
    Call(Function, Vec<Node>),
    /// `uuid("name")`, `random("name")`.
    PseudoRandom(PseudoRandom, Box<Node>),
    /// `list.map(x, …)` and the other macros.
    Macro(Box<Macro>),
}

/// Where a path begins.
#[derive(Clone)]
pub(super) enum Root {
    /// A name of the scope.
    Name(Arc<str>),
    /// The variable of a macro: its index among the variables of the enclosing macros, and its name for messages.
    Local(usize, Arc<str>),
}

/// One constant part of a path.
#[derive(Clone)]
pub(super) enum PathPart {
    /// A key.
    Key(Arc<str>),
    /// An index into a list.
    Index(usize),
}

/// A macro over a list, or over the keys of a map.
pub(super) struct Macro {
    pub(super) kind: MacroKind,
    pub(super) range: Node,
    /// `map(x, filter, …)` and `filter`.
    pub(super) filter: Option<Node>,
    /// The predicate, or the value that replaces each element.
    pub(super) body: Node,
}

/// What a macro does with its body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MacroKind {
    /// `all` (the first `false` decides) and `exists` (the first `true` decides).
    Quantifier { deciding_value: bool },
    /// `exists_one`.
    One,
    /// `map` and `filter`.
    Map,
}

impl Root {
    pub(super) fn name(&self) -> &Arc<str> {
        match self {
            Root::Name(name) | Root::Local(_, name) => name,
        }
    }
}

/// A path as people write it: `steps.price.output.total`, `request.headers["x-tenant"]`, `items[0]`.
pub(super) fn path_text(root: &str, parts: &[PathPart]) -> String {
    let mut text = root.to_owned();
    for part in parts {
        push_part(&mut text, part);
    }
    text
}

/// Adds one part to a path.
pub(super) fn push_part(text: &mut String, part: &PathPart) {
    match part {
        PathPart::Key(key) if is_name(key) => {
            text.push('.');
            text.push_str(key);
        }
        PathPart::Key(key) => text.push_str(&format!("[{:?}]", &**key)),
        PathPart::Index(index) => text.push_str(&format!("[{index}]")),
    }
}

fn is_name(key: &str) -> bool {
    let mut chars = key.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
