//! `wait` steps, and the signals that end them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::group::{EventSubject, kinds};
use crate::names::{Seq, StepId};

/// What happened to a `wait` step, or to a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WaitEvent {
    /// A `wait` step began to wait.
    #[serde(rename = "wait_began")]
    Began {
        /// Which step.
        step: StepId,
        /// When the wait ends by itself.
        until: Option<Timestamp>,
        /// The signal that ends it.
        signal: Option<String>,
    },
    /// A signal was received; it is stored until a step takes it.
    #[serde(rename = "signal_received")]
    SignalReceived {
        /// Its name.
        name: String,
        /// Its payload.
        payload: Arc<Value>,
        /// The id of the delivery.
        id: Option<String>,
        /// Who sent it; in a rerun that took the signal over, the earlier run.
        by: String,
        /// Whether a rerun took the signal over from a run in which parts of it were sensitive.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sensitive: bool,
    },
    /// A `wait` step is over.
    #[serde(rename = "wait_ended")]
    Ended {
        /// Which step.
        step: StepId,
        /// The sequence number of the event of the signal that ended it; `None` if the time ended it.
        signal: Option<Seq>,
        /// Its output: the signal's payload.
        output: Arc<Value>,
    },
}

kinds!(WaitEvent {
    WaitEvent::Began { .. } => "wait_began",
    WaitEvent::SignalReceived { .. } => "signal_received",
    WaitEvent::Ended { .. } => "wait_ended",
});

impl WaitEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            WaitEvent::Began { step, .. } | WaitEvent::Ended { step, .. } => Some((step, None)),
            WaitEvent::SignalReceived { .. } => None,
        }
    }
}
