//! One value of a document, whether the document is a tree of its own (`json_tree`), as the bodies of most replies are,
//! or a value that expressions read, as bodies of calls and texts of other formats are.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::json_tree::{Children, ChildrenIter, TreeNode, TreeValue};
use super::number::Decimal;

/// One value of a document.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'v> {
    Value(&'v Value),
    Tree(TreeNode<'v>),
}

/// What a value is.
pub(super) enum Kind<'v> {
    Null,
    Bool(bool),
    Number(&'v str),
    String(&'v str),
    Array(Elements<'v>),
    Object(Members<'v>),
}

/// The elements of an array.
#[derive(Clone, Copy)]
pub(super) enum Elements<'v> {
    Values(&'v [Value]),
    Tree(Children<'v>),
}

/// The members of an object.
#[derive(Clone, Copy)]
pub(super) enum Members<'v> {
    Values(&'v Map<String, Value>),
    Tree(Children<'v>),
}

impl<'v> From<&'v Value> for Node<'v> {
    fn from(value: &'v Value) -> Self {
        Self::Value(value)
    }
}

impl<'v> Node<'v> {
    #[inline]
    pub(super) fn kind(self) -> Kind<'v> {
        match self {
            Self::Value(Value::Null) => Kind::Null,
            Self::Value(Value::Bool(value)) => Kind::Bool(*value),
            Self::Value(Value::Number(number)) => Kind::Number(number.as_str()),
            Self::Value(Value::String(text)) => Kind::String(text),
            Self::Value(Value::Array(items)) => Kind::Array(Elements::Values(items)),
            Self::Value(Value::Object(members)) => Kind::Object(Members::Values(members)),
            Self::Tree(node) => match node.value() {
                TreeValue::Null => Kind::Null,
                TreeValue::Bool(value) => Kind::Bool(value),
                TreeValue::Number(text) => Kind::Number(text),
                TreeValue::String(text) => Kind::String(text),
                TreeValue::Array(children) => Kind::Array(Elements::Tree(children)),
                TreeValue::Object(children) => Kind::Object(Members::Tree(children)),
            },
        }
    }

    /// The same value in the form that displays and searches take.
    pub(super) fn value(self) -> Cow<'v, Value> {
        match self {
            Self::Value(value) => Cow::Borrowed(value),
            Self::Tree(node) => Cow::Owned(node.to_value()),
        }
    }

    /// How many values this value of a tree has in it, itself included: [`Node::value`] copies them. 1 for any other
    /// value, which is not copied.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Value(_) => 1,
            Self::Tree(node) => node.len(),
        }
    }

    pub(super) fn as_str(self) -> Option<&'v str> {
        match self.kind() {
            Kind::String(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Array(_) | Kind::Object(_) => None,
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self.kind(), Kind::Number(_))
    }

    /// The member with this key, if the value is an object that has it.
    pub(super) fn get(self, key: &str) -> Option<Self> {
        match self.kind() {
            Kind::Object(members) => members.get(key),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::String(_) | Kind::Array(_) => None,
        }
    }

    /// An id as text, whether it is a string or a number; `None` if the value is neither.
    pub(super) fn id_text(self) -> Option<&'v str> {
        match self.kind() {
            Kind::String(text) | Kind::Number(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Array(_) | Kind::Object(_) => None,
        }
    }

    /// As [`Node::id_text`]; `None` also for a number with a fraction, which is no id.
    pub(super) fn as_id(self) -> Option<&'v str> {
        match self.kind() {
            Kind::String(text) => Some(text),
            Kind::Number(text) => Some(text).filter(|text| Decimal::parse(text).is_none_or(|number| number.is_whole())),
            Kind::Null | Kind::Bool(_) | Kind::Array(_) | Kind::Object(_) => None,
        }
    }
}

impl<'v> Elements<'v> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Values(items) => items.len(),
            Self::Tree(children) => children.len(),
        }
    }

    pub(super) fn iter(self) -> ElementsIter<'v> {
        match self {
            Self::Values(items) => ElementsIter::Values(items.iter()),
            Self::Tree(children) => ElementsIter::Tree(children.iter()),
        }
    }

    /// The elements as a list, for pairing.
    pub(super) fn list(self) -> Vec<Node<'v>> {
        let mut list = Vec::with_capacity(self.len());
        list.extend(self.iter());
        list
    }
}

impl<'v> Members<'v> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Values(map) => map.len(),
            Self::Tree(children) => children.len(),
        }
    }

    pub(super) fn iter(self) -> MembersIter<'v> {
        match self {
            Self::Values(map) => MembersIter::Values(map.iter()),
            Self::Tree(children) => MembersIter::Tree(children.iter()),
        }
    }

    pub(super) fn get(self, key: &str) -> Option<Node<'v>> {
        self.get_with_key(key).map(|(_, value)| value)
    }

    /// The member with this key, together with the key as the document has it.
    pub(super) fn get_with_key(self, key: &str) -> Option<(&'v str, Node<'v>)> {
        match self {
            Self::Values(map) => map.get_key_value(key).map(|(key, value)| (key.as_str(), Node::Value(value))),
            Self::Tree(children) => children.get(key).map(|(key, node)| (key, Node::Tree(node))),
        }
    }
}

/// The elements of an array, one after the other.
pub(super) enum ElementsIter<'v> {
    Values(std::slice::Iter<'v, Value>),
    Tree(ChildrenIter<'v>),
}

impl<'v> Iterator for ElementsIter<'v> {
    type Item = Node<'v>;

    #[inline]
    fn next(&mut self) -> Option<Node<'v>> {
        match self {
            Self::Values(items) => items.next().map(Node::Value),
            Self::Tree(children) => children.next().map(|(_, node)| Node::Tree(node)),
        }
    }
}

/// The members of an object, one after the other.
pub(super) enum MembersIter<'v> {
    Values(serde_json::map::Iter<'v>),
    Tree(ChildrenIter<'v>),
}

impl<'v> Iterator for MembersIter<'v> {
    type Item = (&'v str, Node<'v>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Values(map) => map.next().map(|(key, value)| (key.as_str(), Node::Value(value))),
            Self::Tree(children) => children.next().map(|(key, node)| (key, Node::Tree(node))),
        }
    }
}
