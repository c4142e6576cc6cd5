//! A call of a step: which one, and the request as it is recorded.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Payload;

/// A part of a step that is a call of its own. Events, views and the API call it `part`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepPart {
    /// The step's own call.
    #[default]
    Do,
    /// `probe:` asks whether an attempt with unknown outcome took effect.
    Probe,
    /// `undo:` reverses what the step did.
    Undo,
}

impl StepPart {
    /// Whether it is the step's own call.
    pub fn is_do(&self) -> bool {
        *self == StepPart::Do
    }
    /// The call that a person decides about: for a probe it is the step's own call, which the probe asks about.
    pub(super) fn decided_part(self) -> StepPart {
        match self {
            StepPart::Do | StepPart::Probe => StepPart::Do,
            StepPart::Undo => StepPart::Undo,
        }
    }
}

/// A request as it is sent, without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The method.
    pub method: String,
    /// The whole URL, with stars in place of secrets.
    pub url: String,
    /// The headers that `headers:` names, and `content-type`; with stars in place of secrets.
    pub headers: Vec<(String, String)>,
    /// The exact bytes of the body.
    pub body: Payload,
    /// The secrets that are filled in for the stars, by name: a short keyed hash of each value, which tells whether it
    /// is still the same and nothing else. Empty in records of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
}
