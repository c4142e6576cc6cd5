//! A call of a step: which one, and the request as it is recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Payload;

/// Which of a step's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The step's own.
    #[default]
    Do,
    /// `probe:` asks whether an unknown attempt took place.
    Probe,
    /// `undo:` takes it back.
    Undo,
}

impl Part {
    /// The step's own call.
    pub fn is_do(&self) -> bool {
        *self == Part::Do
    }
    /// The call that a person decides over: of a probe it is the step's own, which the probe asks about.
    pub(super) fn asked_about(self) -> Part {
        match self {
            Part::Do | Part::Probe => Part::Do,
            Part::Undo => Part::Undo,
        }
    }
}

/// A request as it is sent, without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The method.
    pub method: String,
    /// The whole URL; stars where a secret stands.
    pub url: String,
    /// What `headers:` name, and `content-type`; stars where a secret stands.
    pub headers: Vec<(String, String)>,
    /// The exact bytes of the body.
    pub body: Payload,
}
