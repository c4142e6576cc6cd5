//! The ids under which signals were delivered: a repeated delivery changes nothing.

use serde::{Deserialize, Serialize};

use crate::names::StepId;

/// A signal that was delivered under an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredDelivery")]
pub struct SignalDelivery {
    /// The id.
    pub id: String,
    /// The step that took the signal. Where that step runs again in a rerun, the delivery may be repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<StepId>,
}

/// The form in which [`SignalDelivery`] is deserialised: events of earlier versions hold only the id.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredDelivery {
    Id(String),
    Delivery { id: String, taken_by: Option<StepId> },
}

impl From<StoredDelivery> for SignalDelivery {
    fn from(stored: StoredDelivery) -> Self {
        match stored {
            StoredDelivery::Id(id) => Self { id, taken_by: None },
            StoredDelivery::Delivery { id, taken_by } => Self { id, taken_by },
        }
    }
}
