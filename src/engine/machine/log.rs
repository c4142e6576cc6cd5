//! Collects a run's events into appends, and tracks which of them are durable.
//!
//! Always true: one append is in flight at a time, so sequence numbers are assigned in order; an append whose outcome
//! is unknown, or that was refused after earlier ones were stored, is retried with the same batch id until its outcome
//! is known. For a run that is not stored (a rehearsal, or a run of a route with `keep: none`) an event counts as
//! durable when it is recorded.
//!
//! When the store is slow, events wait here and share the next append.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::inputs_outputs::RehearsedChild;
use super::pending_run_record::pending_run_of;
use crate::exchange::{IntentsBelow, RehearsedEvents};
use crate::flag::{Arm, PinKey, lower_case_uuid};
use crate::names::{Fence, RunId, Seq, WorkerId};
use crate::store::{
    Append, AppendConflict, AppendError, Claim, ClaimedRequest, EventsSize, LockChange, NewPin, Priority,
    WebhookMessage,
};
use crate::workflow::{AnswerEvent, Event, LockEvent, Pinned, Plan, Run, RunSummary};

/// The fields that all appends of one driver have in common.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct AppendHeader {
    pub priority: Priority,
    /// This process, as the store knows it.
    pub worker: WorkerId,
    /// The fencing token under which this process owns the run.
    pub fence: Fence,
}

/// Half of the first pause before an append is retried; each failure doubles the pause.
const HALF_OF_FIRST_RETRY_PAUSE: Duration = Duration::from_millis(20);
/// After this many failures the pause no longer grows.
const DOUBLINGS_MAX: u32 = 7;

/// What the result of an append means for the run.
#[derive(Debug, PartialEq)]
pub(super) enum AppendOutcome {
    Durable {
        has_webhook_messages: bool,
    },
    /// The run's first append was certainly not stored.
    NothingStored(String),
    /// The append was not stored, or it is unknown whether it was: it is retried after a pause. `failures` counts the
    /// failed tries since the last success.
    Retry {
        why: String,
        failures: u32,
        pause: Duration,
    },
    /// Another run, of either arm, has pinned the id of this run's instance, or another spelling of it: the append is
    /// repeated without that pin ([`Log::without_pin`]).
    PinTaken {
        key: PinKey,
        by_other_arm: bool,
    },
    /// Another run has the retry key; nothing of this one is stored.
    KeyTaken {
        run: RunId,
        request: ClaimedRequest,
    },
    /// Legacy has the retry key; nothing of this run is stored.
    KeyTakenByLegacy,
    /// Another process owns the run now.
    Lost(String),
}

pub(super) struct Log {
    /// `None` for a run that is not stored.
    append_header: Option<AppendHeader>,
    claim: Option<Claim>,
    pending: Vec<(Timestamp, Event)>,
    webhook_messages: Vec<WebhookMessage>,
    /// Answers to commands that came through the store, to be stored with the pending events.
    command_answers: Vec<(Uuid, serde_json::Value)>,
    /// The last durable event.
    durable_seq: Seq,
    /// The last event that was submitted to the writer.
    submitted_seq: Seq,
    /// Whether the outcome of an append of this run was ever unknown.
    had_unknown_outcome: bool,
    failures: u32,
    in_flight: Option<Arc<Append>>,
    last_durable: Option<Arc<Append>>,
    /// The first events of a rehearsal and of the runs below it, to be shown if it differs; `None` for other runs.
    rehearsed: Option<RehearsedEvents>,
    /// The intents and the branches of the runs below a rehearsal.
    intents_below: IntentsBelow,
}

impl Log {
    /// The log of a run whose events are durable up to this one (0 for a new run).
    pub fn new(append_header: Option<AppendHeader>, claim: Option<Claim>, durable_seq: Seq) -> Self {
        Self {
            append_header,
            claim,
            pending: Vec::new(),
            webhook_messages: Vec::new(),
            command_answers: Vec::new(),
            durable_seq,
            submitted_seq: durable_seq,
            had_unknown_outcome: false,
            failures: 0,
            in_flight: None,
            last_durable: None,
            rehearsed: None,
            intents_below: IntentsBelow::default(),
        }
    }
    /// Keeps the first events of a run that is not stored.
    pub fn keeping_events(mut self) -> Self {
        self.rehearsed = self.append_header.is_none().then(RehearsedEvents::default);
        self
    }
    /// Adds the event with this sequence number.
    pub fn push(&mut self, at: Timestamp, event: Event, seq: Seq) {
        match self.append_header {
            Some(_) => self.pending.push((at, event)),
            None => {
                (self.durable_seq, self.submitted_seq) = (seq, seq);
                if let Some(kept) = &mut self.rehearsed {
                    kept.push(at, event);
                }
            }
        }
    }
    /// Keeps the events, the intents and the branch of a child of a rehearsal that has ended, and of the runs below it.
    pub fn push_child(&mut self, child: RehearsedChild) {
        let RehearsedChild { end, step, item, events, intents, redaction, redactions_below, branch } = child;
        let redactions = redaction.iter().cloned().chain(redactions_below).collect();
        self.intents_below.add(&step, item, intents, redactions);
        self.intents_below.add_branch(&step, branch);
        if let Some(kept) = &mut self.rehearsed {
            kept.add_child(end.child, events, redaction);
        }
    }
    /// The intents and the branches of the runs below a rehearsal, which are kept no longer.
    pub fn take_intents_below(&mut self) -> IntentsBelow {
        std::mem::take(&mut self.intents_below)
    }
    /// The kept events, which are kept no longer.
    pub fn take_events(&mut self) -> RehearsedEvents {
        let mut kept = self.rehearsed.take().unwrap_or_default();
        kept.truncate_to_bounds();
        kept
    }
    /// Adds a message to a webhook, stored with the pending events.
    pub fn push_webhook_message(&mut self, message: WebhookMessage) {
        self.webhook_messages.push(WebhookMessage { by: self.append_header.map(|header| header.worker), ..message });
    }
    /// Adds the answer to a command that came through the store, stored with the pending events.
    pub fn push_command_answer(&mut self, command: Uuid, answer: serde_json::Value) {
        self.command_answers.push((command, answer));
    }
    /// Whether the run's events are written to the store; not those of a rehearsal, nor of a route with `keep: none`.
    pub fn is_kept(&self) -> bool {
        self.append_header.is_some()
    }
    /// The last durable event.
    pub fn durable_seq(&self) -> Seq {
        self.durable_seq
    }
    /// The run as of this driver's last durable append; `None` before its first one.
    pub fn summary(&self) -> Option<&RunSummary> {
        self.last_durable.as_deref().map(|append| &append.summary)
    }
    /// The fencing token of the run's appends.
    pub fn fence(&self) -> Option<Fence> {
        self.append_header.map(|header| header.fence)
    }
    /// Whether nothing of the run was ever submitted to the writer.
    pub fn is_unsubmitted(&self) -> bool {
        self.append_header.is_none() || self.submitted_seq == Seq(0)
    }
    /// Whether nothing is pending or in flight.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    /// The next append, where events are pending and no append is in flight. With `release` the append also gives up
    /// the ownership of the run.
    pub fn next(&mut self, run: &Run, plan: &Plan, release: bool, batch: impl FnOnce() -> Uuid) -> Option<Arc<Append>> {
        let (Some(header), None, Some((updated, _))) = (self.append_header, &self.in_flight, self.pending.last())
        else {
            return None;
        };
        let pending_runs = self.pending.iter().filter_map(|(at, event)| pending_run_of(run.id(), *at, event)).collect();
        let append = Arc::new(Append {
            run_id: run.id(),
            first: self.submitted_seq.next(),
            summary: run.shown_summary(*updated, plan),
            pins: self.pending.iter().flat_map(|(_, event)| pins_of(event)).collect(),
            locks: self.pending.iter().filter_map(|(_, event)| lock_change_of(event)).collect(),
            events: std::mem::take(&mut self.pending),
            batch: batch(),
            claim: if self.is_unsubmitted() { self.claim } else { None },
            priority: header.priority,
            worker: header.worker,
            fence: header.fence,
            release: release || run.is_final(),
            webhook_messages: std::mem::take(&mut self.webhook_messages),
            answered_commands: std::mem::take(&mut self.command_answers),
            pending_runs,
            size: EventsSize::default(),
        });
        self.submitted_seq = run.seq();
        self.in_flight = Some(append.clone());
        Some(append)
    }

    /// The append in flight, to be retried unchanged.
    pub fn in_flight(&self) -> Option<Arc<Append>> {
        self.in_flight.clone()
    }

    /// Replaces the append in flight by one without this pin, under another batch id. The first pin is that of the id
    /// itself: without it, the other spellings of the id are not pinned either.
    pub fn without_pin(&mut self, taken: &PinKey, batch: Uuid) -> Option<Arc<Append>> {
        let append = Arc::unwrap_or_clone(self.in_flight.take()?);
        let mut pins = append.pins;
        match pins.iter().position(|pin| pin.key == *taken) {
            Some(0) | None => pins.clear(),
            Some(_) => pins.retain(|pin| pin.key != *taken),
        }
        self.in_flight = Some(Arc::new(Append { pins, batch, ..append }));
        self.in_flight()
    }

    /// Takes the result of the append in flight; `None` where there is none.
    pub fn complete(&mut self, result: Result<(), AppendError>) -> Option<AppendOutcome> {
        let append = self.in_flight.as_ref()?;
        Some(match result {
            Ok(()) => {
                let append = self.in_flight.take()?;
                (self.durable_seq, self.failures) = (self.submitted_seq, 0);
                let has_webhook_messages = !append.webhook_messages.is_empty();
                self.last_durable = Some(append);
                AppendOutcome::Durable { has_webhook_messages }
            }
            Err(AppendError::Conflict(AppendConflict::Claim { run, request })) if self.durable_seq == Seq(0) => {
                AppendOutcome::KeyTaken { run, request }
            }
            Err(AppendError::Conflict(AppendConflict::LegacyClaim)) if self.durable_seq == Seq(0) => {
                AppendOutcome::KeyTakenByLegacy
            }
            Err(AppendError::Conflict(AppendConflict::Pin { key, owner: _, made_by })) if !append.pins.is_empty() => {
                // The arm of a pin is that which gave out the id: legacy for the pin of a dark run, and for an instance
                // that the engine has adopted.
                let by_other_arm = !append.pins.iter().any(|pin| pin.key == key && pin.arm == made_by);
                AppendOutcome::PinTaken { key, by_other_arm }
            }
            Err(error @ (AppendError::Conflict(_) | AppendError::Fenced(_))) => AppendOutcome::Lost(error.to_string()),
            Err(AppendError::Refused(why)) if self.durable_seq == Seq(0) && !self.had_unknown_outcome => {
                AppendOutcome::NothingStored(why)
            }
            Err(AppendError::LeaseOver(why)) if self.durable_seq == Seq(0) => AppendOutcome::NothingStored(why),
            Err(error @ (AppendError::Refused(_) | AppendError::LeaseOver(_) | AppendError::Unavailable(_))) => {
                self.had_unknown_outcome |= matches!(error, AppendError::Unavailable(_));
                self.failures = self.failures.saturating_add(1);
                let pause = HALF_OF_FIRST_RETRY_PAUSE.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
                AppendOutcome::Retry { why: error.to_string(), failures: self.failures, pause }
            }
        })
    }
}

fn lock_change_of(event: &Event) -> Option<LockChange> {
    match event {
        Event::Lock(LockEvent::Queued { step, item, name }) => {
            Some(LockChange::Queue { name: name.clone(), step: step.clone(), item: *item })
        }
        Event::Lock(LockEvent::Left { step, item, name }) => {
            Some(LockChange::Leave { name: name.clone(), step: step.clone(), item: *item })
        }
        _ => None,
    }
}

fn pins_of(event: &Event) -> impl Iterator<Item = NewPin> {
    let pin = match event {
        Event::Answer(AnswerEvent::Responded { pin, .. } | AnswerEvent::Pending { pin, .. }) => pin.as_ref(),
        _ => None,
    };
    pin.into_iter().flat_map(new_pins)
}

/// The pins by which the instance of an answer is found: one for each spelling of its id.
pub(in crate::engine) fn new_pins(pin: &Pinned) -> impl Iterator<Item = NewPin> {
    let arm = if pin.twin { Arm::Legacy } else { Arm::Engine };
    let ids = [Some(pin.id.clone()), pin.integer.clone(), lower_case_uuid(&pin.id)];
    let new_pin = move |id: String| NewPin { key: PinKey { family: pin.family.clone(), id: id.into() }, arm };
    ids.into_iter().flatten().map(new_pin)
}
