//! A problem of the files, as the API shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An error or warning about the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileProblem {
    /// `error` or `warning`.
    pub severity: String,
    /// The path of the file or directory.
    pub file: String,
    /// The line, from 1; `null` if the problem concerns the whole file or directory.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
