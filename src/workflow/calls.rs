//! The state of steps and their calls, as parts of a [`super::Run`].
//!
//! Always true: a call is identified by step, item and part; only [`super::evolve`] changes one. Calls that were done
//! stay listed in the order of completion, because a compensation undoes them in reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::serde_forms::present;
use super::{CallRecord, Choice, Conflict, EffectClass, Failure, StepPart, StepStarted};
use crate::expression::SharedJson;
use crate::names::{RunId, Seq, StepId, WorkflowName};

/// A step and the item of its `for_each`.
pub(super) type StepItem = (StepId, Option<u32>);

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum StepState {
    /// Calls are under way or to come.
    Open(Open),
    /// It has a result.
    Done {
        /// Why there is no output, where the step was rehearsed and declares none. A step that reads it fails with this
        /// reason.
        #[serde(rename = "undeclared")]
        why_no_output: Option<String>,
    },
    /// It will not run.
    Skipped,
    /// It ended without a result.
    Failed,
    /// It certainly did nothing, and another step runs in its place. It ends when that one ends.
    Replaced {
        /// Its fallback.
        by: StepId,
        /// The failure that the step would have had.
        failure: Box<Failure>,
    },
}

/// A step whose calls are under way.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Open {
    /// The items of a fan-out; `None` is a single call.
    pub items: Option<Arc<Vec<Arc<Value>>>>,
    /// Whether failed items are collected, and the others go on.
    pub collect: bool,
    /// Items begin in order: the index of the first that has not begun.
    pub next: u32,
    /// By item (a single call is 0): calls that have begun and not ended.
    pub calls: BTreeMap<u32, CallState>,
    /// Items whose child run has not ended (a single one is 0).
    pub children: BTreeSet<u32>,
    /// Items that wait for a lock, or hold it, and have not begun.
    pub queued: BTreeSet<u32>,
    /// By item: the result, which is empty where the item was skipped.
    pub results: BTreeMap<u32, CallResult>,
    /// By item: the failure, where failed items are collected.
    pub failures: BTreeMap<u32, Failure>,
    /// By item: the fallback that runs in its place, because the item certainly did nothing.
    pub replaced: BTreeMap<u32, Replaced>,
    /// By item: the fallback that gave the result; only where the step declares a fallback.
    #[serde(rename = "by")]
    pub fallbacks_by_item: Option<BTreeMap<u32, StepId>>,
    /// Only of a fallback that runs item by item: the items that it replaces. Only these begin, and the fallback ends
    /// together with the step whose items they are.
    #[serde(rename = "taken")]
    pub replaced_items: Option<BTreeSet<u32>>,
}

/// An item that certainly did nothing, and in whose place a fallback runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Replaced {
    /// The fallback.
    pub by: StepId,
    /// The failure that the item would have had.
    pub failure: Failure,
}

impl Open {
    /// The number of calls in all.
    pub fn all(&self) -> usize {
        self.items.as_ref().map_or(1, |items| items.len())
    }
    /// How many of them have ended.
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
    /// How many count towards the concurrency limit: calls, child runs, queued items, and items whose fallback runs.
    pub fn under_way(&self) -> usize {
        self.calls.len() + self.children.len() + self.queued.len() + self.replaced.len()
    }
    /// Whether no call and no run has begun, and none has ended.
    pub fn nothing_begun(&self) -> bool {
        self.calls.is_empty() && self.children.is_empty() && self.replaced.is_empty() && self.ended() == 0
    }
    /// How many items have begun, or have ended without having begun.
    pub fn begun_or_ended(&self) -> usize {
        self.calls.len() + self.children.len() + self.replaced.len() + self.ended()
    }
    /// Whether a call is under way or will be repeated, or a child run of an item is under way.
    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty() || !self.children.is_empty()
    }
    /// Whether there is such an item (0 is the single call); of a fallback, whether it replaces that item.
    pub fn includes(&self, slot: u32) -> bool {
        (slot as usize) < self.all() && self.replaced_items.as_ref().is_none_or(|taken| taken.contains(&slot))
    }
    /// Moves `next` past the items that have begun, or have ended without having begun.
    pub fn advance_next(&mut self) {
        while (self.next as usize) < self.all() && !self.is_new(self.next) {
            self.next += 1;
        }
    }
}

/// A call that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CallState {
    pub attempt: u32,
    /// The sequence number of its first attempt's event.
    pub began: Seq,
    pub request: Arc<CallRecord>,
    pub key: Option<String>,
    pub effect: EffectClass,
    pub repeatable: bool,
    /// Whether it is unknown if an earlier attempt took effect.
    pub uncertain: bool,
    /// The first attempt that may have taken effect: attempts after it send its very bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_unknown: Option<u32>,
    pub phase: Phase,
    /// Attempts that do not count towards the limit: the breaker was open, the process ended, or a person asked for
    /// another.
    #[serde(rename = "free")]
    pub uncounted: u32,
    /// How many times a person gave it another input.
    pub renewed: u32,
    /// The next attempt is built again, with that input and another key.
    pub renew: bool,
    /// Where the next attempt is built again: the input that people had given to the attempts before it.
    #[serde(with = "present", default)]
    pub input_before: Option<Arc<Value>>,
    /// A person asked for the next attempt, or the files have again what it lacked.
    pub requested: bool,
    /// Whether a reload, and not a person, `requested` the next attempt: the files have again what the call lacked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested_by_reload: bool,
    /// A person requested the attempt under way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_requested: bool,
    /// A person asked for the next attempt knowing that an earlier one may have taken effect, and at which address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub move_accepted: bool,
    /// The deadline of all its attempts and the pauses between them.
    pub until: Option<Timestamp>,
    /// The result of a call that was done, but whose output does not fit the schema that the step declares.
    #[serde(rename = "gave")]
    pub unfit_result: Option<Box<CallResult>>,
    /// How the last attempt ended, for people.
    pub why: Option<String>,
    /// Only of a probe: when its latest attempt was decided.
    pub at: Option<Timestamp>,
    /// Until this time an attempt with unknown effect may still take effect.
    #[serde(rename = "settled")]
    pub may_take_effect_until: Option<Timestamp>,
    /// The reply to the last attempt with unknown effect.
    #[serde(rename = "evidence")]
    pub unknown_reply: Option<UnknownReply>,
}

/// What came back from an attempt with unknown effect.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct UnknownReply {
    pub status: Option<u16>,
    #[serde(with = "present")]
    pub response: Option<Arc<Value>>,
}

/// The phase of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// An attempt was sent, or is about to be.
    InFlight,
    /// The next attempt starts at this time.
    Waiting(Timestamp),
    /// Its effect is unknown, and its probe starts at this time.
    ToProbe(Timestamp),
    /// Its probe is under way.
    Probing,
    /// It waits for a person's decision.
    #[serde(rename = "Stuck")]
    AwaitsDecision,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CallResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(with = "present", skip_serializing_if = "Option::is_none")]
    pub output: Option<SharedJson>,
    #[serde(rename = "undeclared", skip_serializing_if = "Option::is_none")]
    pub why_no_output: Option<String>,
}

/// A private or shared call that was done (or rehearsed): what an `undo` works on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DoneCall {
    pub step: StepId,
    pub item: Option<u32>,
    /// The item itself.
    pub value: Option<Arc<Value>>,
    /// The sequence number of its first attempt's event.
    pub first_seq: Seq,
    /// The sequence number of the event that ended it.
    pub last_seq: Seq,
    pub status: Option<u16>,
    pub output: SharedJson,
    /// Nothing was sent, so only the intent of the undo is recorded.
    pub rehearsed: bool,
    /// A child run without effects: it needs no undo.
    pub harmless: bool,
    /// The run that did it, where this one took over its result: keys are derived from that run's id.
    pub origin: Option<RunId>,
    /// If this run took over its result: the number of its group. The calls of a group had overlapped in time; a group
    /// with a greater number is undone first.
    pub group_before: Option<u32>,
    /// The child run and its workflow, where the step began one.
    pub child: Option<(RunId, WorkflowName)>,
}

/// A call whose effect stays unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UnknownEffect {
    pub step: StepId,
    pub item: Option<u32>,
    /// Why it is unknown, in a sentence.
    pub why: String,
}

/// An attempt that was sent, or was about to be when the process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    pub part: StepPart,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The attempt whose bytes it sends: the first one that may have taken effect, else itself. A `read` has no effect.
    pub bytes_of: u32,
    /// Its idempotency key, where it has one.
    pub key: Option<String>,
    /// The class of its effect.
    pub effect: EffectClass,
    /// Whether it may safely be sent again.
    pub repeatable: bool,
    /// What was recorded of the request.
    pub request: Arc<CallRecord>,
    /// When the step's `deadline` ends.
    pub until: Option<Timestamp>,
}

impl CallState {
    /// The state of a call whose first attempt begins.
    pub(super) fn first(started: &StepStarted, request: &Arc<CallRecord>, began: Seq) -> Self {
        Self {
            attempt: started.attempt,
            began,
            request: request.clone(),
            key: started.key.clone(),
            effect: started.effect,
            repeatable: started.repeatable,
            uncertain: false,
            first_unknown: None,
            phase: Phase::InFlight,
            uncounted: 0,
            renewed: 0,
            renew: false,
            input_before: None,
            requested: false,
            requested_by_reload: false,
            was_requested: false,
            move_accepted: false,
            until: started.until,
            unfit_result: None,
            why: None,
            at: started.at,
            may_take_effect_until: None,
            unknown_reply: None,
        }
    }
    /// The number of attempts that count towards the limit.
    pub(super) fn counted(&self) -> u32 {
        self.attempt.saturating_sub(self.uncounted)
    }
    /// Records that it is unknown whether the attempt under way took effect.
    pub(super) fn mark_unknown(&mut self) {
        self.uncertain = true;
        self.first_unknown.get_or_insert(self.attempt);
    }
    /// Records that no attempt so far concerns the next one: none took effect, or the next one has another key.
    pub(super) fn clear_unknown(&mut self) {
        (self.uncertain, self.first_unknown) = (false, None);
    }
    /// Whether it is an effect that may have taken place.
    pub(super) fn unknown_effect(&self) -> bool {
        self.uncertain && self.effect != EffectClass::Read
    }
    /// The conflict over it was resolved by another attempt. Where a person decided, the attempts so far do not count
    /// any more; a reload only ends a pause. In both cases the pause does not count towards the deadline, which begins
    /// anew.
    pub(super) fn retry_chosen(
        &mut self,
        choice: &Choice,
        conflict: &Conflict,
        by_reload: bool,
        input_before: Option<Arc<Value>>,
    ) {
        if !by_reload {
            self.uncounted = self.attempt;
        }
        self.requested = true;
        self.requested_by_reload = by_reload;
        self.move_accepted = conflict.names_earlier_url();
        self.until = None;
        self.unfit_result = None;
        if matches!(choice, Choice::RetryWith { .. }) {
            if !std::mem::replace(&mut self.renew, true) {
                self.input_before = input_before;
            }
            self.renewed += 1;
            self.clear_unknown();
        }
    }
    /// People said no to the other input, before any attempt sent it: another attempt sends what the earlier ones sent,
    /// under the same key. Returns the input that people had given to those.
    pub(super) fn other_input_rejected(&mut self) -> Option<Arc<Value>> {
        self.renew = false;
        self.input_before.take()
    }
    pub(super) fn in_flight(&self, step: &StepId, item: Option<u32>, part: StepPart) -> InFlight {
        InFlight {
            step: step.clone(),
            item,
            part,
            attempt: self.attempt,
            bytes_of: self.first_unknown.filter(|_| self.effect != EffectClass::Read).unwrap_or(self.attempt),
            key: self.key.clone(),
            effect: self.effect,
            repeatable: self.repeatable,
            request: self.request.clone(),
            until: self.until,
        }
    }
}
