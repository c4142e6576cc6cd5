//! Which paths an expression can read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::{Node, PathPart, Root};

/// A full path that an expression reads: `steps.price.output.total`, `request.headers.x-tenant`. It ends before a part
/// that is computed (`a[b]`) or an index into a list (`a[0]`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadPath(pub Vec<Arc<str>>);

impl ReadPath {
    /// The first name: `steps`, `request`, `legacy`, …
    pub fn root(&self) -> &str {
        self.0.first().map_or("", |s| s)
    }
    /// The n-th name after the root.
    pub fn part(&self, n: usize) -> Option<&str> {
        self.0.get(n + 1).map(|s| &**s)
    }
    /// For a path that leads into a text of `request`, where there is never a value: what is wrong, and which path was
    /// probably meant. `None` for any other path.
    pub fn misread_request_text(&self) -> Option<(String, String)> {
        let text_at = match self.part(0).filter(|_| self.root() == "request")? {
            "method" | "path" | "peer" => 1,
            "params" | "query" | "headers" => 2,
            _ => return None,
        };
        let member = self.part(text_at)?;
        let text = Self(self.0[..=text_at].to_vec());
        let meant = match self.part(0) {
            Some("path") => Self(["request", "params", member].map(Arc::from).to_vec()),
            _ => text.clone(),
        };
        Some((format!("`{text}` is a text and has no `{member}`"), format!("did you mean `{meant}`?")))
    }
}

impl std::fmt::Display for ReadPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<PathPart> = self.0.iter().skip(1).map(|part| PathPart::Key(part.clone())).collect();
        f.write_str(&super::node::path_text(self.root(), &parts))
    }
}

/// The paths of a tree, sorted, each once.
pub(super) fn of(node: &Node) -> Vec<ReadPath> {
    let mut found = BTreeSet::new();
    walk(node, &mut found);
    found.into_iter().collect()
}

/// The paths of several expressions, sorted, each once.
pub(super) fn union<'a>(lists: impl IntoIterator<Item = &'a [ReadPath]>) -> Vec<ReadPath> {
    let all: BTreeSet<&ReadPath> = lists.into_iter().flatten().collect();
    all.into_iter().cloned().collect()
}

fn walk(node: &Node, found: &mut BTreeSet<ReadPath>) {
    match node {
        Node::Constant(_) | Node::Path(Root::Local(..), _) => {}
        Node::Path(Root::Name(name), parts) => {
            let keys = parts.iter().map_while(|part| match part {
                PathPart::Key(key) => Some(key.clone()),
                PathPart::Index(_) => None,
            });
            found.insert(ReadPath(std::iter::once(name.clone()).chain(keys).collect()));
        }
        Node::Select(inner, _)
        | Node::Has(inner)
        | Node::Not(inner)
        | Node::Negate(inner)
        | Node::Matches(inner, _) => {
            walk(inner, found);
        }
        Node::Index(left, right)
        | Node::Binary(_, left, right)
        | Node::Logic { left, right, .. }
        | Node::Default(left, right) => {
            walk(left, found);
            walk(right, found);
        }
        Node::Choose(condition, yes, no) => {
            walk(condition, found);
            walk(yes, found);
            walk(no, found);
        }
        Node::PseudoRandom(pseudo_random, name) => {
            found.insert(ReadPath(vec![pseudo_random.root_name().into()]));
            walk(name, found);
        }
        Node::List(nodes) | Node::Call(_, nodes) => nodes.iter().for_each(|node| walk(node, found)),
        Node::Map(entries) => {
            for (key, value) in entries {
                walk(key, found);
                walk(value, found);
            }
        }
        Node::Macro(inner) => {
            walk(&inner.range, found);
            if let Some(filter) = &inner.filter {
                walk(filter, found);
            }
            walk(&inner.body, found);
        }
    }
}
