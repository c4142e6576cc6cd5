//! What happened to a step (an item), other than its calls.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{AnswerRecord, Failure, ResultTaken, Skipped};
use super::group::{EventSubject, kinds};
use crate::expression::SharedJson;
use crate::names::StepId;

/// What happened to a step (an item), other than its calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEvent {
    /// A `set` step has its value.
    #[serde(rename = "step_computed")]
    Computed {
        /// Which step.
        step: StepId,
        /// Its value.
        output: SharedJson,
    },
    /// A step will not run.
    #[serde(rename = "step_skipped")]
    Skipped {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`, where only this item is skipped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// Why it will not run.
        reason: Skipped,
    },
    /// A `for_each` knows its items.
    FanOutOpened {
        /// Which step.
        step: StepId,
        /// The items, in order.
        items: Vec<Arc<Value>>,
        /// Whether failed items are collected, and the others go on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        collect: bool,
        /// Whether the step declares a fallback, which runs in the place of single items.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fallback: bool,
    },
    /// A `fail` step was reached: the run ends with this answer.
    FailReached {
        /// Which step.
        step: StepId,
        /// The answer.
        answer: Arc<AnswerRecord>,
    },
    /// Attempts of a step (an item) are used up or useless, and certainly nothing was done: the fallback replaces it.
    FallbackTaken {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`: only this one is replaced.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// Its fallback.
        by: StepId,
        /// The failure that the step would have had.
        failure: Failure,
    },
    /// A probe found out whether an attempt with unknown outcome took effect.
    Probed {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The attempt that the probe was about.
        attempt: u32,
        /// Whether it took effect; `None` where the probe could not tell.
        done: Option<bool>,
        /// The step's output where the attempt took effect; otherwise what the probe answered.
        output: Arc<Value>,
    },
    /// A rerun takes over the results of a step from the earlier run.
    ResultTaken(Box<ResultTaken>),
}

kinds!(StepEvent {
    StepEvent::Computed { .. } => "step_computed",
    StepEvent::Skipped { .. } => "step_skipped",
    StepEvent::FanOutOpened { .. } => "fan_out_opened",
    StepEvent::FailReached { .. } => "fail_reached",
    StepEvent::FallbackTaken { .. } => "fallback_taken",
    StepEvent::Probed { .. } => "probed",
    StepEvent::ResultTaken(_) => "result_taken",
});

impl StepEvent {
    pub(super) fn subject(&self) -> EventSubject<'_> {
        match self {
            StepEvent::Skipped { step, item, .. }
            | StepEvent::FallbackTaken { step, item, .. }
            | StepEvent::Probed { step, item, .. } => Some((step, *item)),
            StepEvent::Computed { step, .. }
            | StepEvent::FanOutOpened { step, .. }
            | StepEvent::FailReached { step, .. } => Some((step, None)),
            StepEvent::ResultTaken(taken) => Some((&taken.step, None)),
        }
    }
}
