//! Commands of people that steer a run (`runs pause`, `cancel`, `adjust`, …).

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Risk;
use super::group::{EventSubject, kinds};
use crate::names::StepId;

/// A command of a person or a program, once accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlEvent {
    /// A pause was requested: nothing more begins.
    #[serde(rename = "pause_ordered")]
    PauseRequested {
        /// Who requested it.
        by: String,
        /// The reason given.
        reason: Option<String>,
        /// When it was requested. Absent in events of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
    /// The pause was lifted. The timeouts of open questions and of waits for signals are postponed by its length, if
    /// this event and the one that requested the pause both have `at`.
    Resumed {
        /// Who requested it.
        by: String,
        /// The reason given.
        reason: Option<String>,
        /// When it was requested. Absent in events of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
    /// The run was requested to end.
    #[serde(rename = "cancel_ordered")]
    CancelRequested {
        /// Who requested it.
        by: String,
        /// Whether steps that were done and have an `undo` are undone first.
        compensate: bool,
        /// The reason given.
        reason: Option<String>,
        /// No person requested it, so nobody has seen the open conflicts: those over unknown outcomes stay open. Absent
        /// in events of earlier versions, which closed them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        automatic: bool,
    },
    /// A step that has not begun got another input.
    InputAdjusted {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The input.
        input: Arc<Value>,
        /// Who requested it; in a rerun that took the input over, the earlier run.
        by: String,
        /// The reason given.
        reason: Option<String>,
        /// The risk at which people were asked about the step in an earlier run, where a rerun took the input over:
        /// they are asked again at no lower risk. Absent where nobody was asked, and in events of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        least_risk: Option<Risk>,
        /// Whether a rerun took the input over from a run in which it was sensitive.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sensitive: bool,
    },
    /// A wait was cut short: the next attempt starts now.
    RetriedNow {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Who requested it.
        by: String,
    },
}

kinds!(ControlEvent {
    ControlEvent::PauseRequested { .. } => "pause_ordered",
    ControlEvent::Resumed { .. } => "resumed",
    ControlEvent::CancelRequested { .. } => "cancel_ordered",
    ControlEvent::InputAdjusted { .. } => "input_adjusted",
    ControlEvent::RetriedNow { .. } => "retried_now",
});

impl ControlEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            ControlEvent::InputAdjusted { step, item, .. } | ControlEvent::RetriedNow { step, item, .. } => {
                Some((step, *item))
            }
            ControlEvent::PauseRequested { .. }
            | ControlEvent::Resumed { .. }
            | ControlEvent::CancelRequested { .. } => None,
        }
    }
}
