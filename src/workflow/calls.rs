//! Where steps and their calls stand, as parts of a [`super::Run`].
//!
//! Always true: a call is named by step, item and part; only [`super::evolve`] changes one. A call that was done stays
//! listed in the order of completion, because that is what a compensation walks back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::serde_forms::{pairs, present};
use super::{CallRecord, EffectClass, Failure, Part, StepStarted};
use crate::names::{RunId, Seq, StepId, WorkflowName};

/// A step and the item of its `for_each`.
pub(super) type StepItem = (StepId, Option<u32>);

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum StepState {
    /// Calls are under way or to come.
    Open(Open),
    /// It ran to a result.
    Done {
        /// A rehearsed step whose output nobody declared: who reads it cannot go on.
        undeclared: Option<String>,
    },
    /// It will not run.
    Skipped,
    /// It ended without a result.
    Failed,
    /// It did nothing, and another step runs in its place: it has not ended before that one has.
    Replaced {
        /// Its fallback.
        by: StepId,
        /// Why.
        failure: Box<Failure>,
    },
}

/// A step whose calls are under way.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Open {
    /// The items of a fan-out; `None` is a single call.
    pub items: Option<Arc<Vec<Arc<Value>>>>,
    /// Items that fail are collected, and the others go on.
    pub collect: bool,
    /// Items begin in order: the place of the first that has not.
    pub next: u32,
    /// By item (a single call is 0): begun and not ended.
    pub calls: BTreeMap<u32, CallState>,
    /// Items whose run, begun by this one, has not ended (a single one is 0).
    pub children: BTreeSet<u32>,
    /// Items that stand in a lock's queue, or hold it, and have not begun.
    pub queued: BTreeSet<u32>,
    /// By item: ended with a result; a skipped one has an empty one.
    pub results: BTreeMap<u32, CallResult>,
    /// By item: ended without one, where that is collected.
    pub failures: BTreeMap<u32, Failure>,
    /// By item: it did nothing, and the step's fallback runs in its place.
    pub replaced: BTreeMap<u32, Replaced>,
    /// By item: the step that gave its result in its place; only where the step declares a fallback.
    pub by: Option<BTreeMap<u32, StepId>>,
    /// Only of a fallback that runs item by item: the items whose place it takes. No others begin, and the step ends
    /// with the one whose items they are.
    pub taken: Option<BTreeSet<u32>>,
}

/// An item that did nothing, and in whose place a fallback runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Replaced {
    /// The fallback.
    pub by: StepId,
    /// Why: what the item would have failed with.
    pub failure: Failure,
}

impl Open {
    /// How many calls there are in all.
    pub fn all(&self) -> usize {
        self.items.as_ref().map_or(1, |items| items.len())
    }
    /// How many have ended.
    pub fn ended(&self) -> usize {
        self.results.len() + self.failures.len()
    }
    /// Whether a call has ended.
    pub fn has_ended(&self, slot: u32) -> bool {
        self.results.contains_key(&slot) || self.failures.contains_key(&slot)
    }
    /// Whether nothing has happened to an item.
    pub fn is_new(&self, slot: u32) -> bool {
        !(self.calls.contains_key(&slot)
            || self.children.contains(&slot)
            || self.queued.contains(&slot)
            || self.replaced.contains_key(&slot)
            || self.has_ended(slot))
    }
    /// How many take up room: under way, or about to be; an item whose fallback runs is one of them.
    pub fn under_way(&self) -> usize {
        self.calls.len() + self.children.len() + self.queued.len() + self.replaced.len()
    }
    /// Whether no call and no run has begun, and none has ended.
    pub fn nothing_begun(&self) -> bool {
        self.calls.is_empty() && self.children.is_empty() && self.replaced.is_empty() && self.ended() == 0
    }
    /// Whether a call is under way or to come again, or a run that an item began.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty() || !self.children.is_empty()
    }
    /// Whether an item may begin: of a fallback only one whose place it takes.
    pub fn takes(&self, slot: u32) -> bool {
        (slot as usize) < self.all() && self.taken.as_ref().is_none_or(|taken| taken.contains(&slot))
    }
    /// A call has begun, or ended without having begun.
    pub fn begun(&mut self) {
        while (self.next as usize) < self.all() && !self.is_new(self.next) {
            self.next += 1;
        }
    }
}

/// A call that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CallState {
    pub attempt: u32,
    /// The place of its first attempt's event.
    pub began: Seq,
    pub request: Arc<CallRecord>,
    pub key: Option<String>,
    pub effect: EffectClass,
    pub repeatable: bool,
    /// It is unknown what an earlier attempt did.
    pub uncertain: bool,
    pub phase: Phase,
    /// Attempts that do not count: the breaker was open, or a person asked for another.
    pub free: u32,
    /// How often a person gave it another input.
    pub renewed: u32,
    /// The next attempt is made anew, with that input and another key.
    pub renew: bool,
    /// A person asked for the next attempt: it starts although the run ends.
    pub asked: bool,
    /// Attempts and pauses are over then.
    pub until: Option<Timestamp>,
    /// It was done, and what it gave is not what the step promises.
    pub gave: Option<Box<CallResult>>,
    /// How the last attempt ended, for people.
    pub why: Option<String>,
    /// When an attempt was decided, of a probe.
    pub at: Option<Timestamp>,
    /// Until then an attempt of which nobody knows what it did may still take effect.
    pub settled: Option<Timestamp>,
    /// What came back of the last attempt of which nobody knows what it did.
    pub evidence: Option<Evidence>,
}

/// What came back of an attempt of which nobody knows what it did.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Evidence {
    pub status: Option<u16>,
    #[serde(with = "present")]
    pub response: Option<Arc<Value>>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// An attempt was sent, or is about to be.
    InFlight,
    /// The next attempt starts at this time.
    Waiting(Timestamp),
    /// It is unknown what it did, and its probe asks at this time.
    ToProbe(Timestamp),
    /// Its probe asks.
    Probing,
    /// A person decides.
    Stuck,
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CallResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(with = "present", skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undeclared: Option<String>,
}

/// A private or shared call that was done (or rehearsed), in the order of completion: what an `undo` works on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct DoneCall {
    pub step: StepId,
    pub item: Option<u32>,
    /// The item itself.
    #[serde(with = "present")]
    pub value: Option<Arc<Value>>,
    /// Its first attempt.
    pub began: Seq,
    /// Its end.
    pub ended: Seq,
    pub status: Option<u16>,
    pub output: Arc<Value>,
    /// Nothing was sent: so nothing is there to be undone, but for the intent.
    pub rehearsed: bool,
    /// A run that did nothing: nobody misses its undoing.
    pub harmless: bool,
    /// The run that did it, where this one took its result over: keys are made from that one's id.
    pub origin: Option<RunId>,
    /// The run that the step began, and what it ran, where it began one.
    pub child: Option<(RunId, WorkflowName)>,
}

/// A call of which it stays unknown whether it took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Unsettled {
    pub step: StepId,
    pub item: Option<u32>,
    /// How that came, in a sentence.
    pub why: String,
}

/// A compensation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Undoing {
    /// One group after the other; those of one at the same time.
    pub groups: Vec<Vec<StepItem>>,
    /// The group at which it is.
    pub at: usize,
    /// How many of that group have not ended.
    pub left: usize,
    /// What becomes of each.
    #[serde(with = "pairs")]
    pub calls: BTreeMap<StepItem, UndoCall>,
}

/// The undoing of one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UndoCall {
    /// Its place in the run's list of what was done.
    pub done: usize,
    pub undone: Undone,
}

/// What became of something that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undone {
    /// Its `undo` is to come, or under way.
    NotYet,
    /// It was taken back.
    Undone,
    /// Nothing was sent, and so nothing taken back: the intent is recorded.
    Rehearsed,
    /// It stays as it is: why.
    Left(String),
}

/// An attempt that was sent, or was about to be when the process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    pub part: Part,
    /// From 1.
    pub attempt: u32,
    /// Its idempotency key, where it has one.
    pub key: Option<String>,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Whether sending it again does no harm.
    pub repeatable: bool,
    /// What was recorded of the request.
    pub request: Arc<CallRecord>,
    /// The step's `deadline`: it takes no longer.
    pub until: Option<Timestamp>,
}

impl CallState {
    /// A first attempt.
    pub(super) fn first(started: &StepStarted, request: &Arc<CallRecord>, began: Seq) -> Self {
        Self {
            attempt: started.attempt,
            began,
            request: request.clone(),
            key: started.key.clone(),
            effect: started.effect,
            repeatable: started.repeatable,
            uncertain: false,
            phase: Phase::InFlight,
            free: 0,
            renewed: 0,
            renew: false,
            asked: false,
            until: started.until,
            gave: None,
            why: None,
            at: started.at,
            settled: None,
            evidence: None,
        }
    }
    /// Attempts that count.
    pub(super) fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.free)
    }
    /// It is an effect, and nobody knows whether it took place.
    pub(super) fn unknown_effect(&self) -> bool {
        self.uncertain && self.effect != EffectClass::Read
    }
    pub(super) fn in_flight(&self, step: &StepId, item: Option<u32>, part: Part) -> InFlight {
        InFlight {
            step: step.clone(),
            item,
            part,
            attempt: self.attempt,
            key: self.key.clone(),
            effect: self.effect,
            repeatable: self.repeatable,
            request: self.request.clone(),
            until: self.until,
        }
    }
}
