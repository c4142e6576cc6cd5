//! A problem of the files, as the API shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that is wrong with the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileProblem {
    /// `error` or `warning`.
    pub severity: String,
    /// The path of the file or directory.
    pub file: String,
    /// From 1; `null` where the whole file or directory is meant.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}
