//! PURE. Templates and CEL: parse, what an expression reads, evaluate.
//!
//! The question it answers: "what is the value of `${ … }` here, and what does it read?" One expression language for
//! workflows, keys, cohorts and asserts.
//!
//! Always true: an [`Expression`] or [`Template`] has been parsed, its nesting and size are bounded, and
//! [`Expression::reads`] lists every full path it can read, so that checks know before any request which steps,
//! secrets and parts of the request it touches. No clock, no IO, no side effects. Evaluation borrows from the values
//! of the [`Scope`] and copies only what becomes part of the result; it is counted, and stops at a fixed budget.
//!
//! The grammar is CEL's, read by the crate `cel`. The syntax tree is evaluated here over JSON itself, because JSON is
//! what comes and goes: nothing is converted, numbers that are only passed on keep every digit, mixed arithmetic
//! (`total * 2`, `1.5 * 2`) gives a number, and an absent key is named by its whole path.
//!
//! Where it differs from plain CEL: `has(a.b.c)` is false (not an error) where `a.b` is absent too; there are no
//! bytes, timestamps, durations and messages; unsigned numbers are numbers; names under `headers` are lower case
//! however they are written; and there are functions for what workflows need (`default`, `round`, `sum`, …; the list
//! stands in `functions`).
//!
//! It leaves to its neighbours which names exist in a place and what they mean.

mod bounds;
mod draw;
mod each;
mod error;
mod evaluate;
mod follow;
mod form;
mod functions;
mod node;
mod number;
mod operators;
mod parse;
mod reads;
mod scan;
mod scope;
mod template;
mod url;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

pub use bounds::Bounds;
pub use error::ExpressionError;
pub use form::pairs;
pub use reads::ReadPath;
pub use scope::{Given, Scope};
pub use template::Template;
pub use url::UrlTemplate;

use node::Node;

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

    /// Parses a condition or a key as files write it: `${ … }`, all of the text.
    ///
    /// # Errors
    /// As [`Expression::parse`]; text that is anything but one `${ … }`.
    pub fn parse_braced(text: &str, bounds: &Bounds) -> Result<Self, ExpressionError> {
        match Template::parse_str_within(text, bounds)?.single() {
            Some(expression) => Ok(expression.clone()),
            None => {
                Err(ExpressionError::new(format!("`{}` is not one expression; write `${{ … }}`", scan::short(text))))
            }
        }
    }

    /// Every full path it can read, sorted, each once.
    pub fn reads(&self) -> &[ReadPath] {
        &self.0.reads
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
                scan::short(self.source()),
                node::kind(&other)
            ))),
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "${{{}}}", self.source())
    }
}
