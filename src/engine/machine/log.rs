//! A run's events on their way to the store.
//!
//! Always true: one append is under way at a time, so places are given out in order; an append whose outcome is unknown,
//! or that was refused after others had been kept, is handed in again with the same batch id until the store says what
//! became of it. Without a store (a rehearsal) an event counts as stored when it is recorded.
//!
//! When the store is slow, events wait here and go in together with the next append.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::birth_record::birth_of;
use crate::flag::{Arm, PinKey};
use crate::names::{Fence, RunId, Seq, WorkerId};
use crate::store::{Append, AppendError, Claim, Conflict, LockChange, NewPin, Notice, Priority};
use crate::workflow::{AnswerEvent, Event, LockEvent, Run, RunSummary};

/// How this process writes a run's events.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Writes {
    pub priority: Priority,
    /// This process.
    pub worker: WorkerId,
    /// Under which number it owns the run.
    pub fence: Fence,
}

/// The first pause before an append is handed in again; doubled with each refusal.
const AGAIN: Duration = Duration::from_millis(20);
/// It is doubled no more often than this.
const DOUBLED_MAX: u32 = 7;

/// What became of an append.
#[derive(Debug, PartialEq)]
pub(super) enum Settled {
    /// It is in the store; whether it held messages to webhooks.
    Stored { messages: bool },
    /// Nothing of the run is in the store, for sure, and this was its first append.
    NothingStored(String),
    /// It is not in the store, or that is unknown: it is to be handed in again after a pause. How often that has been
    /// said since the last one that was stored.
    Again { why: String, times: u32, pause: Duration },
    /// The id that the run gave its instance is taken: the same is to be handed in without it. Whether the other arm has
    /// it.
    PinTaken { key: PinKey, by_other_arm: bool },
    /// Another run has the retry key; nothing of this one is in the store.
    KeyTaken { run: RunId, same_request: bool },
    /// The run belongs to somebody else now.
    Lost(String),
}

pub(super) struct Log {
    writes: Option<Writes>,
    claim: Option<Claim>,
    pending: Vec<(Timestamp, Event)>,
    notices: Vec<Notice>,
    /// Orders that came through the store and are answered by what is pending.
    answers: Vec<(Uuid, serde_json::Value)>,
    /// Up to here the events are in the store.
    stored: Seq,
    /// Up to here they have been handed to the writer.
    handed: Seq,
    /// Whether the outcome of an append of this run was ever unknown.
    uncertain: bool,
    refusals: u32,
    under_way: Option<Arc<Append>>,
    /// The last append that was acknowledged.
    last: Option<Arc<Append>>,
}

impl Log {
    /// Of a run that is in the store up to a place (0 is a new one).
    pub fn new(writes: Option<Writes>, claim: Option<Claim>, stored: Seq) -> Self {
        Self {
            writes,
            claim,
            pending: Vec::new(),
            notices: Vec::new(),
            answers: Vec::new(),
            stored,
            handed: stored,
            uncertain: false,
            refusals: 0,
            under_way: None,
            last: None,
        }
    }
    /// Records an event that the run has taken in at this place.
    pub fn push(&mut self, at: Timestamp, event: Event, seq: Seq) {
        match self.writes {
            Some(_) => self.pending.push((at, event)),
            None => (self.stored, self.handed) = (seq, seq),
        }
    }
    /// A message of this process that goes in with what is pending.
    pub fn notice(&mut self, notice: Notice) {
        self.notices.push(Notice { by: self.writes.map(|writes| writes.worker), ..notice });
    }
    /// An order that came through the store is answered by what is pending.
    pub fn answer(&mut self, order: Uuid, answer: serde_json::Value) {
        self.answers.push((order, answer));
    }
    /// Whether anything is stored at all.
    pub fn is_durable(&self) -> bool {
        self.writes.is_some()
    }
    /// Up to here the events are in the store.
    pub fn stored(&self) -> Seq {
        self.stored
    }
    /// The run as it stands in the store, where anything of it was stored here.
    pub fn summary(&self) -> Option<&RunSummary> {
        self.last.as_deref().map(|append| &append.summary)
    }
    /// Under which number it appends.
    pub fn fence(&self) -> Option<Fence> {
        self.writes.map(|writes| writes.fence)
    }
    /// The writer was never given anything.
    pub fn is_untouched(&self) -> bool {
        self.handed == Seq(0)
    }
    /// Nothing is pending and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_none()
    }

    /// The next append, where something is pending and none is under way. With `release` the run is nobody's after it.
    pub fn next(&mut self, run: &Run, release: bool, batch: impl FnOnce() -> Uuid) -> Option<Arc<Append>> {
        let (Some(writes), None, Some((updated, _))) = (self.writes, &self.under_way, self.pending.last()) else {
            return None;
        };
        let births = self.pending.iter().filter_map(|(at, event)| birth_of(run.id(), *at, event)).collect();
        let append = Arc::new(Append {
            run_id: run.id(),
            first: self.handed.next(),
            summary: run.summary(*updated),
            pins: self.pending.iter().filter_map(|(_, event)| pin_of(event)).collect(),
            locks: self.pending.iter().filter_map(|(_, event)| lock_change_of(event)).collect(),
            events: std::mem::take(&mut self.pending),
            batch: batch(),
            claim: if self.is_untouched() { self.claim } else { None },
            priority: writes.priority,
            worker: writes.worker,
            fence: writes.fence,
            release: release || run.is_final(),
            notices: std::mem::take(&mut self.notices),
            settled: std::mem::take(&mut self.answers),
            births,
        });
        self.handed = run.seq();
        self.under_way = Some(append.clone());
        Some(append)
    }

    /// The append that is under way, to be handed in again as it is.
    pub fn again(&self) -> Option<Arc<Append>> {
        self.under_way.clone()
    }

    /// The same without pins, as another append.
    pub fn again_without_pins(&mut self, batch: Uuid) -> Option<Arc<Append>> {
        let append = Arc::unwrap_or_clone(self.under_way.take()?);
        self.under_way = Some(Arc::new(Append { pins: Vec::new(), batch, ..append }));
        self.again()
    }

    /// What the outcome of the append that is under way means.
    pub fn settle(&mut self, result: Result<(), AppendError>) -> Option<Settled> {
        let append = self.under_way.as_ref()?;
        Some(match result {
            Ok(()) => {
                let append = self.under_way.take()?;
                (self.stored, self.refusals) = (self.handed, 0);
                let messages = !append.notices.is_empty();
                self.last = Some(append);
                Settled::Stored { messages }
            }
            Err(AppendError::Conflict(Conflict::Claim { run, same_request })) if self.stored == Seq(0) => {
                Settled::KeyTaken { run, same_request }
            }
            Err(AppendError::Conflict(Conflict::Pin { key, owner })) if !append.pins.is_empty() => {
                let by_other_arm = !append.pins.iter().any(|pin| pin.key == key && pin.arm == owner);
                Settled::PinTaken { key, by_other_arm }
            }
            Err(error @ (AppendError::Conflict(_) | AppendError::Fenced(_))) => Settled::Lost(error.to_string()),
            Err(AppendError::Refused(why)) if self.stored == Seq(0) && !self.uncertain => Settled::NothingStored(why),
            Err(error @ (AppendError::Refused(_) | AppendError::Unavailable(_))) => {
                self.uncertain |= matches!(error, AppendError::Unavailable(_));
                self.refusals = self.refusals.saturating_add(1);
                let pause = AGAIN.saturating_mul(1 << self.refusals.min(DOUBLED_MAX));
                Settled::Again { why: error.to_string(), times: self.refusals, pause }
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

fn pin_of(event: &Event) -> Option<NewPin> {
    let Event::Answer(AnswerEvent::Responded { pin: Some(pin), .. } | AnswerEvent::Pending { pin: Some(pin), .. }) =
        event
    else {
        return None;
    };
    let key = PinKey { family: pin.family.clone(), id: pin.id.as_str().into() };
    Some(NewPin { key, arm: if pin.twin { Arm::Legacy } else { Arm::Engine } })
}
