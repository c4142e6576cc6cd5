//! Why an expression was refused or failed.

/// Why an expression or template was refused, or failed to evaluate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong, for a person.
    pub message: String,
    /// Where the error is, in characters from the start of the text.
    pub offset: Option<usize>,
    /// The absent path (`steps.charge.output.id`), where that is the cause.
    pub absent: Option<String>,
}

impl ExpressionError {
    /// An error without an offset.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None, absent: None }
    }
    /// An error at an offset.
    pub(super) fn at(message: impl Into<String>, offset: usize) -> Self {
        Self { message: message.into(), offset: Some(offset), absent: None }
    }
    /// An error because a path is absent.
    pub(super) fn absent(path: String) -> Self {
        Self { message: format!("`{path}` is absent"), offset: None, absent: Some(path) }
    }
    /// The same error, about a value that exists and is not known: `default` and `has` do not recover from it.
    pub(super) fn of_unknown(self) -> Self {
        Self { absent: None, ..self }
    }
    /// The same error with its offset counted in a longer text, in which the expression begins after `by` characters.
    pub(super) fn offset_by(mut self, by: usize) -> Self {
        self.offset = Some(self.offset.unwrap_or(0) + by);
        self
    }
}
