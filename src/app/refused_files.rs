//! The error for files that must not be put in force.

/// The error for a set of files that must not be put in force, whatever the store answers: see
/// [`crate::ladder::FilesError::Refused`].
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(super) struct RefusedFiles(pub Vec<String>);
