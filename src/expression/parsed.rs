//! One expression: parsed, with the list of what it reads.

use std::sync::Arc;

use serde_json::Value;

use super::bounds::Bounds;
use super::error::ExpressionError;
use super::node::{Node, PathPart, Root};
use super::operators::Operator;
use super::reads::{self, ReadPath};
use super::scope::Scope;
use super::value::kind;
use super::{evaluate, parse, scan};

/// One CEL expression (without `${ }`). Cheap to clone.
#[derive(Clone)]
pub struct Expression(Arc<Parsed>);

struct Parsed {
    source: String,
    node: Node,
    reads: Vec<ReadPath>,
}

impl Expression {
    /// Parses CEL within the default bounds.
    ///
    /// # Errors
    /// A syntax error, an unknown function, or one of the bounds (size, nesting), with the offset.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        Self::parse_within(source, &Bounds::default())
    }

    /// Parses CEL within other bounds.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub fn parse_within(source: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        let node = parse::parse(source, bounds)?;
        let reads = reads::of(&node);
        Ok(Self(Arc::new(Parsed { source: source.to_owned(), node, reads })))
    }

    /// Every full path it can read, sorted, each once.
    pub fn reads(&self) -> &[ReadPath] {
        &self.0.reads
    }

    /// The path, where the expression is only a path without indexes: its value is then the value at that path.
    pub fn as_path(&self) -> Option<&ReadPath> {
        let keys = |parts: &[PathPart]| parts.iter().all(|part| matches!(part, PathPart::Key(_)));
        match &self.0.node {
            Node::Path(Root::Name(_), parts) if keys(parts) => self.0.reads.first(),
            _ => None,
        }
    }

    /// The two sides, where the expression is an equation (`a == b`).
    pub fn equation(&self) -> Option<(Expression, Expression)> {
        let Node::Binary(Operator::Equal, ..) = self.0.node else { return None };
        // The operator at the root is the last `==` outside strings and brackets. Within those, the sides of a `==` do
        // not parse.
        let mut places: Vec<usize> = self.source().match_indices("==").map(|(at, _)| at).collect();
        places.reverse();
        places.into_iter().find_map(|at| {
            let side = |text: &str| Self::parse_within(text, &Bounds::LARGEST).ok();
            Some((side(self.source().get(..at)?)?, side(self.source().get(at + 2..)?)?))
        })
    }

    /// The value.
    ///
    /// # Errors
    /// An absent key, a type error, a result that JSON cannot hold, a budget that is used up.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExpressionError> {
        evaluate::evaluate(&self.0.node, scope)
    }

    /// The value as a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and where the value is not a bool.
    pub fn holds(&self, scope: &Scope) -> Result<bool, ExpressionError> {
        match self.evaluate(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(ExpressionError::new(format!(
                "`{}` gives {}, and a condition is true or false",
                scan::shorten(self.source()),
                kind(&other)
            ))),
        }
    }

    /// The source text.
    pub fn source(&self) -> &str {
        &self.0.source
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "${{{}}}", self.source())
    }
}
