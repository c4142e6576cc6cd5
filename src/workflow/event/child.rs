//! Events of child runs, which `run` steps begin.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{RunStatus, SensitivePath, TreeEffects};
use super::group::{EventSubject, kinds};
use crate::expression::SharedJson;
use crate::names::{RunId, StepId, WorkflowName};

/// What happened to the child run of a `run` step (an item of it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChildEvent {
    /// A `run` step begins a child run, under this id.
    #[serde(rename = "child_started")]
    Started {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The run's id.
        child: RunId,
        /// Its workflow.
        workflow: WorkflowName,
        /// Its input: the body of its request.
        input: Arc<Value>,
    },
    /// The child run ended.
    #[serde(rename = "child_ended")]
    Ended {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The run's id.
        child: RunId,
        /// The status that it ended with.
        status: RunStatus,
        /// The body of its answer.
        output: SharedJson,
        /// Why it did not complete.
        note: Option<String>,
        /// Whether a completed run performed an effect that a person may want to undo.
        #[serde(default = "default_true", skip_serializing_if = "is_true")]
        effects: bool,
        /// What it and all runs below it did. Absent in events of earlier versions, and where the run cannot be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tree: Option<TreeEffects>,
        /// Whether the child completed with an output that does not fit the declared schema: the next event says how
        /// the step goes on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unfit: bool,
        /// Sensitive parts of the answer's body, as the child run declares them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sensitive: Vec<SensitivePath>,
    },
}

kinds!(ChildEvent {
    ChildEvent::Started { .. } => "child_started",
    ChildEvent::Ended { .. } => "child_ended",
});

impl ChildEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            ChildEvent::Started { step, item, .. } | ChildEvent::Ended { step, item, .. } => Some((step, *item)),
        }
    }
}

fn default_true() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls this with a reference
fn is_true(value: &bool) -> bool {
    *value
}
