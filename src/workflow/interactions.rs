//! What stands between steps and their calls, as part of a [`super::Run`]: questions to people, waits, signals, places
//! in locks' queues, runs that it began.
//!
//! Always true: only [`super::evolve`] changes it. A question is open, answered once, or void because what it asked
//! about has changed; it is never open again. Signals and the names of their deliveries are bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::StepItem;
use super::serde_forms::pairs;
use super::{CheckpointAnswer, OpenCheckpoint};
use crate::names::{CheckpointId, RunId, Seq, StepId, WorkflowName};

/// Names of deliveries that are remembered, so that a second one of the same changes nothing.
const DELIVERIES_MAX: usize = 1_000;

/// What a run knows beside its steps and calls.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Interactions {
    /// All that was asked.
    pub asks: BTreeMap<CheckpointId, RunQuestion>,
    /// What a step (an item) was asked about last; gone when what was asked about has changed.
    #[serde(with = "pairs")]
    pub current: BTreeMap<StepItem, CheckpointId>,
    /// How often people were asked about a step (an item).
    #[serde(with = "pairs")]
    pub times: BTreeMap<StepItem, u32>,
    /// Steps that wait for a time or a signal.
    pub waits: BTreeMap<StepId, OpenWait>,
    /// Signals that came and were not taken, oldest first.
    pub signals: VecDeque<Signal>,
    /// Names of deliveries, oldest first.
    pub deliveries: VecDeque<String>,
    /// Places in locks' queues.
    #[serde(with = "pairs")]
    pub places: BTreeMap<StepItem, Queued>,
    /// Steps (items) whose lock a person was asked about and that have not got it: they are not asked about again.
    pub asked_locks: BTreeSet<StepItem>,
    /// Runs that it began and that have not ended.
    #[serde(with = "pairs")]
    pub children: BTreeMap<StepItem, Child>,
    /// Items that got another input when others of their step had begun: they are asked about alone.
    pub changed: BTreeSet<StepItem>,
    /// Items that were struck out, by step.
    pub struck: BTreeMap<StepId, u32>,
}

/// A question to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunQuestion {
    /// As it stands: who may answer and until when change with an escalation.
    pub asked: Arc<OpenCheckpoint>,
    pub escalated: bool,
    pub state: QuestionState,
}

/// Where a question stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum QuestionState {
    /// Nobody has answered.
    Open,
    /// Somebody has, or the time-out.
    Answered { said: Box<CheckpointAnswer>, by: String, seq: Seq },
    /// What it asked about has changed, or will not happen any more.
    Void,
}

impl RunQuestion {
    pub fn is_open(&self) -> bool {
        self.state == QuestionState::Open
    }
    /// What was said, where it was a yes.
    pub fn approved(&self) -> Option<&CheckpointAnswer> {
        match &self.state {
            QuestionState::Answered { said, .. } if said.approve => Some(said),
            _ => None,
        }
    }
}

/// A `wait` step that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenWait {
    pub until: Option<Timestamp>,
    pub signal: Option<String>,
}

/// A signal that came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Signal {
    pub seq: Seq,
    pub name: String,
    pub payload: Arc<Value>,
}

/// A place in a lock's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub name: String,
    /// The place of the event with which it stood in line.
    pub queued: Seq,
    /// It stands first, and holds the lock.
    pub taken: bool,
    /// A person was asked about it, and said that it waits.
    pub asked: bool,
}

/// A run that this one began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pub run: RunId,
    pub workflow: WorkflowName,
    pub input: Arc<Value>,
    pub began: Seq,
    /// It was asked to pause when this run was.
    pub paused: bool,
}

impl Interactions {
    /// The last question about a step (an item), unless it is void.
    pub fn ask(&self, step: &StepId, item: Option<u32>) -> Option<&RunQuestion> {
        self.asks.get(self.current.get(&(step.clone(), item))?)
    }
    /// Whether a step (an item) waits for an answer.
    pub fn asks(&self, step: &StepId, item: Option<u32>) -> bool {
        self.ask(step, item).is_some_and(RunQuestion::is_open)
    }
    /// Open questions.
    pub fn open(&self) -> impl Iterator<Item = &RunQuestion> {
        self.asks.values().filter(|ask| ask.is_open())
    }
    /// What was asked about a step (an item) asks no more, and what was said does not hold.
    pub fn void(&mut self, step: &StepId, item: Option<u32>) {
        if let Some(id) = self.current.remove(&(step.clone(), item))
            && let Some(ask) = self.asks.get_mut(&id)
            && ask.is_open()
        {
            ask.state = QuestionState::Void;
        }
    }
    /// The same of a step and all its items: it will not happen any more, or has.
    pub fn void_open(&mut self, step: &StepId) {
        let open = self.asks.values_mut().filter(|ask| ask.asked.step == *step && ask.is_open());
        open.for_each(|ask| ask.state = QuestionState::Void);
    }
    /// The place of a step (an item) in a lock's queue.
    pub fn place(&self, step: &StepId, item: Option<u32>) -> Option<&Queued> {
        self.places.get(&(step.clone(), item))
    }
    /// Remembers a delivery.
    pub fn deliver(&mut self, id: &str) {
        if self.deliveries.len() >= DELIVERIES_MAX {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(id.to_owned());
    }
}
