//! What a [`super::Run`] waits for besides its calls: answers of people, times, signals, locks and child runs.
//!
//! Always true: only [`super::evolve`] changes it. A question is open, answered once, or withdrawn because what it
//! asked about has changed or its step has ended; it is never reopened. Signals and the ids of their deliveries are
//! bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::StepItem;
use super::serde_forms::pairs;
use super::{CheckpointAnswer, OpenCheckpoint, Risk, SignalDelivery};
use crate::names::{CheckpointId, RunId, Seq, StepId, WorkflowName};

/// The ids of this many deliveries are remembered, so that a repeated delivery changes nothing.
const DELIVERIES_MAX: usize = 1_000;

/// The part of a run's state that is neither a step nor a call.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Interactions {
    /// All questions, whatever their state.
    pub questions: BTreeMap<CheckpointId, RunQuestion>,
    /// The latest question about a step (an item); removed when it is withdrawn because what it asked about has
    /// changed.
    #[serde(with = "pairs")]
    pub current: BTreeMap<StepItem, CheckpointId>,
    /// How often people were asked about a step (an item).
    #[serde(rename = "times", with = "pairs")]
    pub times_asked: BTreeMap<StepItem, u32>,
    /// Steps of kind `wait` that have begun and not ended.
    pub waits: BTreeMap<StepId, OpenWait>,
    /// Signals that no step has taken, oldest first.
    pub signals: VecDeque<Signal>,
    /// Deliveries with an id, oldest first.
    pub deliveries: VecDeque<SignalDelivery>,
    /// Entries in the queues of locks.
    #[serde(with = "pairs")]
    pub queue_entries: BTreeMap<StepItem, QueueEntry>,
    /// Steps (items) that a person has told to wait for their lock, until they hold it: nobody is asked about them
    /// again.
    pub locks_told_to_wait: BTreeSet<StepItem>,
    /// Child runs that have not ended.
    #[serde(with = "pairs")]
    pub children: BTreeMap<StepItem, Child>,
    /// Items that got another input after other items of their step had begun: people are asked about each of them
    /// separately.
    pub changed: BTreeSet<StepItem>,
    /// By step with an input that was taken over: the risk at which people were asked about it in earlier runs.
    pub least_risks: BTreeMap<StepId, Risk>,
    /// By step: how many items people skipped, gave an output or replaced by the fallback because something was missing
    /// that the first attempt needs. The risk may not have been evaluated then.
    pub decided_when_missing: BTreeMap<StepId, usize>,
    /// How many items were struck out, by step.
    pub struck: BTreeMap<StepId, u32>,
}

/// A question to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunQuestion {
    /// The checkpoint in its current form: an escalation changes who may answer and until when.
    pub checkpoint: Arc<OpenCheckpoint>,
    pub escalated: bool,
    pub state: QuestionState,
}

/// The state of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum QuestionState {
    /// It waits for an answer.
    Open,
    /// A person or a time-out has answered it.
    Answered { said: Box<CheckpointAnswer>, by: String, seq: Seq },
    /// What it asked about has changed, or will not happen.
    Withdrawn,
}

impl RunQuestion {
    pub fn is_open(&self) -> bool {
        self.state == QuestionState::Open
    }
    /// The answer, where it approves.
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

/// A signal that was received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Signal {
    pub seq: Seq,
    pub name: String,
    pub payload: Arc<Value>,
    /// The id of its delivery.
    pub id: Option<String>,
}

/// An entry in a lock's queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct QueueEntry {
    pub name: String,
    /// The sequence number of the event that queued it.
    pub queued: Seq,
    /// Whether it is first in the queue, and so holds the lock.
    pub taken: bool,
    /// Whether a person was asked about it and decided that it waits.
    pub told_to_wait: bool,
}

/// A run that a step of this one began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Child {
    pub run: RunId,
    pub workflow: WorkflowName,
    pub input: Arc<Value>,
    pub began: Seq,
    /// Whether it was requested to pause together with this run.
    pub paused: bool,
}

impl Interactions {
    /// The latest question about a step (an item), unless it was withdrawn because what it asked about has changed.
    pub fn question(&self, step: &StepId, item: Option<u32>) -> Option<&RunQuestion> {
        self.questions.get(self.current.get(&(step.clone(), item))?)
    }
    /// Whether a question about a step (an item) is open.
    pub fn is_asked_about(&self, step: &StepId, item: Option<u32>) -> bool {
        self.question(step, item).is_some_and(RunQuestion::is_open)
    }
    /// Postpones the timeouts of open questions and of waits for signals. The time of a step that waits for a time is
    /// not changed.
    pub fn postpone_timeouts(&mut self, by: SignedDuration) {
        // Saturates: a timeout that would pass the largest timestamp is set to it.
        let later = |until: &mut Timestamp| *until = until.saturating_add(by).unwrap_or(Timestamp::MAX);
        let questions = self.questions.values_mut().filter(|question| question.is_open());
        for question in questions.filter(|question| question.checkpoint.until.is_some()) {
            Arc::make_mut(&mut question.checkpoint).until.iter_mut().for_each(later);
        }
        let waits = self.waits.values_mut().filter(|wait| wait.signal.is_some());
        waits.for_each(|wait| wait.until.iter_mut().for_each(later));
    }
    /// Open questions.
    pub fn open_questions(&self) -> impl Iterator<Item = &RunQuestion> {
        self.questions.values().filter(|question| question.is_open())
    }
    /// Withdraws the question about a step (an item), because what it asked about has changed. An answer to it does not
    /// count any more.
    pub fn withdraw(&mut self, step: &StepId, item: Option<u32>) {
        if let Some(id) = self.current.remove(&(step.clone(), item))
            && let Some(question) = self.questions.get_mut(&id)
            && question.is_open()
        {
            question.state = QuestionState::Withdrawn;
        }
    }
    /// Withdraws the open questions about a step and all its items, because it has ended.
    pub fn withdraw_open(&mut self, step: &StepId) {
        let open =
            self.questions.values_mut().filter(|question| question.checkpoint.step == *step && question.is_open());
        open.for_each(|question| question.state = QuestionState::Withdrawn);
    }
    /// Notes the risk at which people were asked about a step in earlier runs.
    pub fn raise_least_risk(&mut self, step: &StepId, risk: Option<Risk>) {
        if let Some(risk) = risk {
            let known = self.least_risks.entry(step.clone()).or_insert(risk);
            *known = risk.max(*known);
        }
    }
    /// The entry of a step (an item) in a lock's queue.
    pub fn queue_entry(&self, step: &StepId, item: Option<u32>) -> Option<&QueueEntry> {
        self.queue_entries.get(&(step.clone(), item))
    }
    /// Whether a signal was delivered under this id.
    pub fn is_delivered(&self, id: &str) -> bool {
        self.deliveries.iter().any(|delivery| delivery.id == id)
    }
    /// Remembers a delivery. A rerun knows the ids of the signals that it takes over already from its first event.
    pub fn remember_delivery(&mut self, id: &str) {
        if self.is_delivered(id) {
            return;
        }
        if self.deliveries.len() >= DELIVERIES_MAX {
            self.deliveries.pop_front();
        }
        self.deliveries.push_back(SignalDelivery { id: id.to_owned(), taken_by: None });
    }
    /// Remembers which step took the signal that was delivered under this id.
    pub fn delivery_taken(&mut self, id: &str, step: &StepId) {
        if let Some(delivery) = self.deliveries.iter_mut().find(|delivery| delivery.id == id) {
            delivery.taken_by = Some(step.clone());
        }
    }
}
