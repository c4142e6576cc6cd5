//! Why an expression was refused or failed.

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

impl ExpressionError {
    /// An error without a place.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None, absent: None }
    }
    /// An error at a character.
    pub(super) fn at(message: impl Into<String>, offset: usize) -> Self {
        Self { message: message.into(), offset: Some(offset), absent: None }
    }
    /// A path that is not there.
    pub(super) fn absent(path: String) -> Self {
        Self { message: format!("`{path}` is absent"), offset: None, absent: Some(path) }
    }
    /// The same error, seen from a text in which its expression begins at a character.
    pub(super) fn moved(mut self, by: usize) -> Self {
        self.offset = Some(self.offset.unwrap_or(0) + by);
        self
    }
}
