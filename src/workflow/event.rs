//! Past-tense facts of a run. Written by the workflow room's owner.

use serde::{Deserialize, Serialize};

/// One fact. Externally tagged on purpose: with arbitrary-precision numbers serde's other taggings break integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Placeholder.
    Started {},
}

impl Event {
    /// The version of this event's shape; a reader refuses newer ones.
    pub const VERSION: u16 = 1;
    /// Its name in the store and in listings (`step_started`).
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Started {} => "started",
        }
    }
}
