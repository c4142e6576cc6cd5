//! PURE. Templates and CEL: parse, what an expression reads, evaluate.
//!
//! The question it answers: "what is the value of `${ … }` here, and what does it read?" One expression language for
//! workflows, keys, cohorts and asserts. Always true: an [`Expression`] or [`Template`] has been parsed, its nesting
//! and size are bounded, and [`Expression::reads`] lists every full path it can read, so that checks know before any
//! request which steps, secrets and parts of the request it touches. No clock, no IO, no side effects; evaluation is
//! bounded by what it reads.

use std::sync::Arc;

use serde_json::Value;

/// Why an expression or template was refused, or failed to evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong, for a person.
    pub message: String,
    /// Characters from the start of the template text.
    pub offset: Option<usize>,
    /// The path that was absent, where that is why (`steps.charge.output.id`).
    pub absent: Option<String>,
}

/// A full path that an expression reads: `steps.price.output.total`, `request.headers.x-tenant`. A part that is
/// computed (`a[b]`) ends the path.
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
}

/// What names mean while something is evaluated. Values are shared, not copied, and converted to CEL at most once.
#[derive(Clone, Default)]
pub struct Scope {
    // filled in by the implementation
    _values: Vec<(Arc<str>, Arc<Value>)>,
}

impl Scope {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }
    /// Gives a root name a value.
    pub fn set(&mut self, name: &str, value: Arc<Value>) -> &mut Self {
        self._values.push((name.into(), value));
        self
    }
}

/// One CEL expression (without `${ }`).
#[derive(Clone)]
pub struct Expression {}

impl Expression {
    /// Parses CEL.
    ///
    /// # Errors
    /// A syntax error, or one of the bounds of [`crate::limits`] (size, nesting), with the offset.
    pub fn parse(_source: &str) -> Result<Self, ExpressionError> {
        todo!()
    }
    /// Every full path it can read.
    pub fn reads(&self) -> &[ReadPath] {
        todo!()
    }
    /// The value.
    ///
    /// # Errors
    /// An absent key, a type error, a result that JSON cannot hold.
    pub fn evaluate(&self, _scope: &Scope) -> Result<Value, ExpressionError> {
        todo!()
    }
    /// The value as a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and where the value is not a bool.
    pub fn holds(&self, _scope: &Scope) -> Result<bool, ExpressionError> {
        todo!()
    }
    /// As it was written.
    pub fn source(&self) -> &str {
        todo!()
    }
}

/// A value with `${ … }` in its strings: a tree of maps, lists, strings and scalars. A string that is exactly one
/// `${…}` keeps the type of its value; mixed text becomes a string; `$${` is a literal `${`.
#[derive(Clone)]
pub struct Template {}

impl Template {
    /// Parses every string of the tree. On an error, also the key path within `value` where it stands.
    ///
    /// # Errors
    /// All errors, each with where it stands.
    pub fn parse(_value: &Value) -> Result<Self, Vec<(Vec<crate::problem::Segment>, ExpressionError)>> {
        todo!()
    }
    /// Parses one string.
    ///
    /// # Errors
    /// The first error.
    pub fn parse_str(_text: &str) -> Result<Self, ExpressionError> {
        todo!()
    }
    /// Every full path that any part reads.
    pub fn reads(&self) -> &[ReadPath] {
        todo!()
    }
    /// The value with everything filled in.
    ///
    /// # Errors
    /// The first expression that fails.
    pub fn evaluate(&self, _scope: &Scope) -> Result<Value, ExpressionError> {
        todo!()
    }
    /// The value as text (numbers and bools as JSON writes them; maps and lists are an error).
    ///
    /// # Errors
    /// As [`Template::evaluate`]; a map, a list or null; CR or LF in the result.
    pub fn evaluate_text(&self, _scope: &Scope) -> Result<String, ExpressionError> {
        todo!()
    }
}

/// A call's URL: `${services.stock}/reservations/${output.id}?q=${item}`. Each value in path or query is
/// percent-encoded as one component; an expression in scheme or host must be `services.NAME` at the very start.
#[derive(Clone)]
pub struct UrlTemplate {}

impl UrlTemplate {
    /// Parses a URL template.
    ///
    /// # Errors
    /// A bad expression; anything but `${services.NAME}` or a literal base in front.
    pub fn parse(_text: &str) -> Result<Self, ExpressionError> {
        todo!()
    }
    /// The service that is called, where it is a named one.
    pub fn service(&self) -> Option<&str> {
        todo!()
    }
    /// Every full path that it reads.
    pub fn reads(&self) -> &[ReadPath] {
        todo!()
    }
    /// Path and query after the service's base, each value percent-encoded.
    ///
    /// # Errors
    /// An expression that fails; a value that is no scalar; a dot segment made by a value.
    pub fn evaluate(&self, _scope: &Scope) -> Result<String, ExpressionError> {
        todo!()
    }
}
