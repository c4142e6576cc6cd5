//! What a database error says about the write that failed. Each store classifies its own errors.

use super::StoreError;

/// The three cases in which a store's writer reacts differently.
#[derive(Debug)]
pub(super) enum WriteError {
    /// A row violates a constraint: nothing was written. The writer finds out which append it was.
    Constraint(String),
    /// Certainly nothing was written.
    NotWritten(String),
    /// It may be on disk. The writer looks it up on a new connection, once the transaction can certainly no longer be
    /// committed.
    Unknown(String),
}

impl WriteError {
    pub(super) fn text(&self) -> &str {
        match self {
            WriteError::Constraint(text) | WriteError::NotWritten(text) | WriteError::Unknown(text) => text,
        }
    }
}

/// A row that cannot be read: nothing of the write is done.
impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        WriteError::NotWritten(error.0)
    }
}
