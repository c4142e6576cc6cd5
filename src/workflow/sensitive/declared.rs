//! What a workflow declares as sensitive.

use super::path::SensitivePath;
use crate::names::StepId;

/// All that a plan declares as sensitive.
#[derive(Clone, Debug, Default)]
pub struct Sensitive {
    /// Paths in the request's body.
    pub body: Vec<SensitivePath>,
    /// Headers of the request and of replies, in lower case.
    pub headers: Vec<String>,
    /// Paths in the outputs of steps.
    pub steps: Vec<(StepId, Vec<SensitivePath>)>,
}

impl Sensitive {
    /// Whether anything is declared.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.headers.is_empty() && self.steps.is_empty()
    }
}
