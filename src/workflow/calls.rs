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
    Open(RunningStep),
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
    /// It certainly did nothing, and its fallback runs in its place. It ends when the fallback ends.
    Replaced {
        /// Its fallback.
        by: StepId,
        /// The failure that the step would have had.
        failure: Box<Failure>,
    },
}

/// A step whose calls are under way.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct RunningStep {
    /// The items of a fan-out; `None` for a step with a single call.
    pub items: Option<Arc<Vec<Arc<Value>>>>,
    /// Whether failed items are collected, and the others go on.
    pub collect: bool,
    /// The index of the first item that has not begun. Items begin in order.
    pub next: u32,
    /// By item (a single call is 0): calls that have begun and not ended.
    pub calls: BTreeMap<u32, CallState>,
    /// Items whose child run has not ended (a single child run is 0).
    pub children: BTreeSet<u32>,
    /// Items that wait for a lock, or hold it, and have not begun.
    pub queued: BTreeSet<u32>,
    /// By item: the result, which is empty where the item was skipped.
    pub results: BTreeMap<u32, CallResult>,
    /// By item: the failure, where failed items are collected.
    pub failures: BTreeMap<u32, Failure>,
    /// By item that certainly did nothing: the fallback that runs in its place.
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

impl RunningStep {
    /// The number of calls in all.
    pub fn all(&self) -> usize {
        self.items.as_ref().map_or(1, |items| items.len())
    }
    /// How many calls have ended.
    pub fn ended(&self) -> usize {
        self.results.len() + self.failures.len()
    }
    /// Whether a call has ended.
    pub fn has_ended(&self, item_index: u32) -> bool {
        self.results.contains_key(&item_index) || self.failures.contains_key(&item_index)
    }
    /// Whether nothing has happened to an item.
    pub fn is_new(&self, item_index: u32) -> bool {
        !(self.calls.contains_key(&item_index)
            || self.children.contains(&item_index)
            || self.queued.contains(&item_index)
            || self.replaced.contains_key(&item_index)
            || self.has_ended(item_index))
    }
    /// How many items count towards the concurrency limit: those with a call, a child run or a fallback under way, and
    /// queued ones.
    pub fn under_way(&self) -> usize {
        self.calls.len() + self.children.len() + self.queued.len() + self.replaced.len()
    }
    /// Whether no call and no child run has begun, and none has ended.
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
    /// Whether the step has this item (0 is the single call); for a fallback of single items, whether it replaces the
    /// item.
    pub fn includes(&self, item_index: u32) -> bool {
        (item_index as usize) < self.all()
            && self.replaced_items.as_ref().is_none_or(|taken| taken.contains(&item_index))
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
    /// The first attempt that may have taken effect: later attempts send the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_unknown: Option<u32>,
    pub phase: Phase,
    /// How many attempts do not count towards the limit, because the breaker was open, the process ended, or a person
    /// asked for another attempt.
    #[serde(rename = "free")]
    pub uncounted: u32,
    /// How many times a person gave it another input.
    pub renewed: u32,
    /// Whether the next attempt sends a new request, with the input that a person gave and under another key.
    pub renew: bool,
    /// Where `renew` is set: the input that people had given to the earlier attempts.
    #[serde(with = "present", default)]
    pub input_before: Option<Arc<Value>>,
    /// Whether the next attempt was requested, by a person or by a reload.
    pub requested: bool,
    /// Whether a reload `requested` the next attempt: the files have again what the call lacked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested_by_reload: bool,
    /// Whether the attempt under way was requested by a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_requested: bool,
    /// Whether a person asked for the next attempt after being told that an earlier one may have taken effect, and at
    /// which address or with which secret.
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
    /// The call was rehearsed: nothing was sent, and of its undo only the intent is recorded.
    pub rehearsed: bool,
    /// The call is a child run without effects, which needs no undo.
    pub harmless: bool,
    /// The earlier run that made the call, where this run took over its result: keys are derived from that run's id.
    pub origin: Option<RunId>,
    /// Where this run took over the result: the number of the group in which the call is undone. The calls of a group
    /// had overlapped in time; a group with a greater number is undone first.
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
    /// The attempt whose bytes it sends: the first one that may have taken effect, else itself; of a `read` always
    /// itself.
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

/// The calls that have begun and not ended: those of the steps, then probes and undos.
pub(super) fn all_calls<'r>(
    steps: &'r BTreeMap<StepId, StepState>,
    side_calls: &'r BTreeMap<(StepId, Option<u32>, StepPart), CallState>,
) -> impl Iterator<Item = (&'r StepId, Option<u32>, StepPart, &'r CallState)> {
    let open = steps.iter().filter_map(|(step, state)| match state {
        StepState::Open(open) => Some((step, open)),
        StepState::Done { .. } | StepState::Skipped | StepState::Failed | StepState::Replaced { .. } => None,
    });
    let of_steps = open.flat_map(|(step, open)| {
        let item = |item_index: u32| open.items.as_ref().map(|_| item_index);
        open.calls.iter().map(move |(item_index, call)| (step, item(*item_index), StepPart::Do, call))
    });
    of_steps.chain(side_calls.iter().map(|((step, item, part), call)| (step, *item, *part, call)))
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
    /// Records that no earlier attempt matters to the next one: none took effect, or the next one has another key.
    pub(super) fn clear_unknown(&mut self) {
        (self.uncertain, self.first_unknown) = (false, None);
    }
    /// Whether this is a private or shared call that may have taken effect.
    pub(super) fn unknown_effect(&self) -> bool {
        self.uncertain && self.effect != EffectClass::Read
    }
    /// Records that the conflict over this call was resolved by another attempt. Where a person decided, the attempts
    /// so far do not count towards the limit any more; a reload only ends a pause. In both cases the deadline begins
    /// anew, so the pause does not count towards it.
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
    /// Records that people rejected the other input before any attempt sent it: the next attempt sends what the earlier
    /// ones sent, under the same key. Returns the input that people had given to the earlier ones.
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
