//! Templates: values with `${ … }` in their strings.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::error::ExpressionError;
use super::functions::{scalar, scalar_line, scalar_lines};
use super::parsed::Expression;
use super::reads::{self, ReadPath};
use super::scan::{self, Token, Tokens};
use super::scope::Scope;
use crate::problem::Segment;

/// A value with `${ … }` in its strings: a tree of maps, lists, strings and scalars. A string that is exactly one
/// `${…}` keeps the type of its value; mixed text becomes a string; `$${` is a literal `${`. Cheap to clone.
#[derive(Clone)]
pub struct Template(Arc<Inner>);

struct Inner {
    tree: Tree,
    reads: Vec<ReadPath>,
    /// The source, where the template was parsed from one string.
    text: Option<Box<str>>,
}

enum Tree {
    Constant(Value),
    /// A string that is exactly one `${…}`.
    Single(Expression),
    /// A string with other text, or with several `${…}`.
    Text(Vec<Piece>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// A piece of a text.
pub(super) enum Piece {
    Literal(String),
    Expression(Expression),
}

impl Piece {
    fn literal_len(&self) -> usize {
        match self {
            Piece::Literal(text) => text.len(),
            Piece::Expression(_) => 0,
        }
    }
}

impl Template {
    /// Parses every string of the tree.
    ///
    /// # Errors
    /// All errors, each with the key path within `value`.
    pub fn parse(value: &Value) -> Result<Self, Vec<(Vec<Segment>, ExpressionError)>> {
        Self::parse_within(value, &Bounds::default())
    }

    /// Parses within other bounds.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse_within(value: &Value, bounds: &Bounds) -> Result<Self, Vec<(Vec<Segment>, ExpressionError)>> {
        let mut errors = Vec::new();
        let tree = Tree::parse(value, bounds, &mut Vec::new(), &mut errors);
        if errors.is_empty() { Ok(Self::of(tree, None)) } else { Err(errors) }
    }

    /// Parses one string.
    ///
    /// # Errors
    /// The first error.
    pub fn parse_str(text: &str) -> Result<Self, ExpressionError> {
        Self::parse_str_within(text, &Bounds::default())
    }

    /// Parses one string within other bounds.
    ///
    /// # Errors
    /// The first error.
    pub fn parse_str_within(text: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        Tree::text(text, bounds).map(|tree| Self::of(tree, Some(text.into())))
    }

    /// A value that is not parsed: `${` stays as it is.
    pub fn constant(value: Value) -> Self {
        Self::of(Tree::Constant(value), None)
    }

    fn of(tree: Tree, text: Option<Box<str>>) -> Self {
        let mut lists = Vec::new();
        tree.reads(&mut lists);
        let reads = reads::union(lists);
        Self(Arc::new(Inner { tree, reads, text }))
    }

    /// The source, where the template was parsed from one string.
    pub fn text(&self) -> Option<&str> {
        self.0.text.as_deref()
    }

    /// Every full path that any part reads, sorted, each once.
    pub fn reads(&self) -> &[ReadPath] {
        &self.0.reads
    }

    /// What each expression of the tree reads, with the key path to its string.
    pub fn reads_by_location(&self) -> Vec<(Vec<Segment>, &[ReadPath])> {
        self.expressions().into_iter().map(|(at, expression, _)| (at, expression.reads())).collect()
    }

    /// Every expression of the tree with the key path to its string, and whether it is the whole string, so that the
    /// value keeps its type.
    pub fn expressions(&self) -> Vec<(Vec<Segment>, &Expression, bool)> {
        let mut found = Vec::new();
        self.0.tree.expressions(&mut Vec::new(), &mut found);
        found
    }

    /// The value, where the template contains no expression.
    pub fn as_constant(&self) -> Option<&Value> {
        match &self.0.tree {
            Tree::Constant(value) => Some(value),
            Tree::Single(_) | Tree::Text(_) | Tree::List(_) | Tree::Map(_) => None,
        }
    }

    /// The expression, where the template is exactly one `${ … }`.
    pub fn single(&self) -> Option<&Expression> {
        match &self.0.tree {
            Tree::Single(expression) => Some(expression),
            Tree::Constant(_) | Tree::Text(_) | Tree::List(_) | Tree::Map(_) => None,
        }
    }

    /// How many bytes of a text are outside its expressions: in a result of this length, all expressions gave an empty
    /// text. 0 where the template is not text with expressions in it.
    pub fn literal_len(&self) -> usize {
        match &self.0.tree {
            Tree::Text(pieces) => pieces.iter().map(Piece::literal_len).sum(),
            Tree::Constant(_) | Tree::Single(_) | Tree::List(_) | Tree::Map(_) => 0,
        }
    }

    /// The value as it is declared, with the source of each expression in its place.
    pub fn outline(&self) -> Value {
        self.0.tree.outline()
    }

    /// The value, with each expression replaced by its value.
    ///
    /// # Errors
    /// The first expression that fails.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        self.0.tree.evaluate(scope)
    }

    /// The value as text that may contain line breaks (numbers and bools as JSON writes them): the body of a `text:`, a
    /// field of a form.
    ///
    /// # Errors
    /// As [`Template::evaluate`]; a map, a list or null.
    pub fn evaluate_lines(&self, scope: &Scope) -> Result<String, ExpressionError> {
        scalar_lines(&self.evaluate(scope)?)
    }

    /// The value as one line of text (numbers and bools as JSON writes them).
    ///
    /// # Errors
    /// As [`Template::evaluate`]; a map, a list or null; CR or LF in the result.
    pub fn evaluate_text(&self, scope: &Scope) -> Result<String, ExpressionError> {
        scalar_line(&self.evaluate(scope)?)
    }

    /// As [`Template::evaluate_text`]; `None` if the value as a whole is null.
    ///
    /// # Errors
    /// As [`Template::evaluate`]; a map or a list; null within a text; CR or LF in the result.
    pub fn evaluate_text_or_null(&self, scope: &Scope) -> Result<Option<String>, ExpressionError> {
        let value = self.evaluate(scope)?;
        (!value.is_null()).then(|| scalar_line(&value)).transpose()
    }
}

impl Expression {
    /// Parses a condition or a key as files write it: the whole text is one `${ … }`.
    ///
    /// # Errors
    /// As [`Expression::parse`]; text that is anything but one `${ … }`.
    pub fn parse_braced(text: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        match Template::parse_str_within(text, bounds)?.single() {
            Some(expression) => Ok(expression.clone()),
            None => {
                Err(ExpressionError::new(format!("`{}` is not one expression; write `${{ … }}`", scan::shorten(text))))
            }
        }
    }
}

impl Tree {
    fn outline(&self) -> Value {
        match self {
            Tree::Constant(value) => value.clone(),
            Tree::Single(expression) => Value::String(expression.source().to_owned()),
            Tree::Text(pieces) => {
                let piece = |piece: &Piece| match piece {
                    Piece::Literal(text) => text.clone(),
                    Piece::Expression(expression) => expression.source().to_owned(),
                };
                Value::String(pieces.iter().map(piece).collect())
            }
            Tree::List(items) => items.iter().map(Tree::outline).collect(),
            Tree::Map(members) => members.iter().map(|(name, member)| (name.clone(), member.outline())).collect(),
        }
    }

    fn expressions<'a>(&'a self, at: &mut Vec<Segment>, found: &mut Vec<(Vec<Segment>, &'a Expression, bool)>) {
        match self {
            Tree::Constant(_) => {}
            Tree::Single(expression) => found.push((at.clone(), expression, true)),
            Tree::Text(pieces) => found.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Literal(_) => None,
                Piece::Expression(expression) => Some((at.clone(), expression, false)),
            })),
            Tree::List(trees) => {
                for (index, tree) in trees.iter().enumerate() {
                    at.push(Segment::Index(index));
                    tree.expressions(at, found);
                    at.pop();
                }
            }
            Tree::Map(trees) => {
                for (key, tree) in trees {
                    at.push(Segment::Key(key.as_str().into()));
                    tree.expressions(at, found);
                    at.pop();
                }
            }
        }
    }

    fn parse(
        value: &Value,
        bounds: &Bounds,
        at: &mut Vec<Segment>,
        errors: &mut Vec<(Vec<Segment>, ExpressionError)>,
    ) -> Self {
        match value {
            Value::String(text) => Tree::text(text, bounds).unwrap_or_else(|error| {
                errors.push((at.clone(), error));
                Tree::Constant(Value::Null)
            }),
            Value::Array(list) => {
                let trees = list.iter().enumerate().map(|(index, value)| {
                    at.push(Segment::Index(index));
                    let tree = Tree::parse(value, bounds, at, errors);
                    at.pop();
                    tree
                });
                let trees: Vec<Tree> = trees.collect();
                match trees.iter().all(|tree| matches!(tree, Tree::Constant(_))) {
                    true => Tree::Constant(trees.into_iter().filter_map(Tree::into_constant).collect()),
                    false => Tree::List(trees),
                }
            }
            Value::Object(map) => {
                let mut trees = Vec::with_capacity(map.len());
                for (key, value) in map {
                    at.push(Segment::Key(key.as_str().into()));
                    if key.contains("${") {
                        errors.push((at.clone(), ExpressionError::new("an expression cannot stand in a key")));
                    }
                    trees.push((key.clone(), Tree::parse(value, bounds, at, errors)));
                    at.pop();
                }
                match trees.iter().all(|(_, tree)| matches!(tree, Tree::Constant(_))) {
                    true => Tree::Constant(
                        trees.into_iter().filter_map(|(key, tree)| Some((key, tree.into_constant()?))).collect(),
                    ),
                    false => Tree::Map(trees),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Tree::Constant(value.clone()),
        }
    }

    fn text(text: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        let mut pieces = pieces(text, bounds)?;
        Ok(match pieces.pop() {
            None => Tree::Constant(Value::String(String::new())),
            Some(Piece::Literal(text)) if pieces.is_empty() => Tree::Constant(Value::String(text)),
            Some(Piece::Expression(expression)) if pieces.is_empty() => Tree::Single(expression),
            Some(last) => {
                pieces.push(last);
                Tree::Text(pieces)
            }
        })
    }

    fn into_constant(self) -> Option<Value> {
        match self {
            Tree::Constant(value) => Some(value),
            Tree::Single(_) | Tree::Text(_) | Tree::List(_) | Tree::Map(_) => None,
        }
    }

    fn reads<'a>(&'a self, found: &mut Vec<&'a [ReadPath]>) {
        match self {
            Tree::Constant(_) => {}
            Tree::Single(expression) => found.push(expression.reads()),
            Tree::Text(pieces) => found.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Literal(_) => None,
                Piece::Expression(expression) => Some(expression.reads()),
            })),
            Tree::List(trees) => trees.iter().for_each(|tree| tree.reads(found)),
            Tree::Map(trees) => trees.iter().for_each(|(_, tree)| tree.reads(found)),
        }
    }

    fn evaluate(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        Ok(match self {
            Tree::Constant(value) => value.clone(),
            Tree::Single(expression) => expression.evaluate(scope)?,
            Tree::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Expression(expression) => text.push_str(&evaluate_in_text(expression, scope)?),
                    }
                }
                Value::String(text)
            }
            Tree::List(trees) => Value::Array(trees.iter().map(|tree| tree.evaluate(scope)).collect::<Result<_, _>>()?),
            Tree::Map(trees) => {
                let mut map = Map::with_capacity(trees.len());
                for (key, tree) in trees {
                    map.insert(key.clone(), tree.evaluate(scope)?);
                }
                Value::Object(map)
            }
        })
    }
}

/// The value of an expression that stands in text, as text.
pub(super) fn evaluate_in_text(expression: &Expression, scope: &Scope) -> Result<String, ExpressionError> {
    scalar(&expression.evaluate(scope)?)
        .map_err(|e| ExpressionError::new(format!("`{}` in text {}", scan::shorten(expression.source()), e.message)))
}

/// Splits a text into literals and expressions. Adjacent literals are joined.
pub(super) fn pieces(text: &str, bounds: &Bounds) -> Result<Vec<Piece>, ExpressionError> {
    let (mut pieces, mut literal, mut at) = (Vec::new(), String::new(), 0);
    while let Some(found) = text[at..].find("${") {
        let dollar = at + found;
        if text[at..dollar].ends_with('$') {
            literal.push_str(&text[at..dollar - 1]);
            literal.push_str("${");
            at = dollar + 2;
            continue;
        }
        literal.push_str(&text[at..dollar]);
        let start = dollar + 2;
        let length = end_of(&text[start..])
            .ok_or_else(|| ExpressionError::at("`${` is not closed", scan::characters_before(text, dollar)))?;
        let expression = Expression::parse_within(text[start..start + length].trim_end(), bounds)
            .map_err(|error| error.offset_by(scan::characters_before(text, start)))?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Expression(expression));
        at = start + length + 1;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// The byte offset of the `}` that closes a `${`: the first that is not in a string and closes no `{` of the
/// expression.
fn end_of(rest: &str) -> Option<usize> {
    let mut open = 0usize;
    for (item, range) in Tokens::new(rest) {
        match item {
            Token::Open('{') => open += 1,
            Token::Close('}') if open == 0 => return Some(range.start),
            Token::Close('}') => open -= 1,
            _ => {}
        }
    }
    None
}
