//! A run's events on their way to the store.
//!
//! Always true: one append is under way at a time, so places are handed out in order; an append whose reply was lost
//! is handed in again with the same batch id until the store says what became of it. A rehearsal has no store: what it
//! notes counts as kept at once and is gone with it.
//!
//! When the store is slow, events wait here and go in together with the next append.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

use super::lease::{Hold, Lease};
use crate::affinity::StoreAffinity;
use crate::flag::{Arm, PinKey};
use crate::names::{Fence, PlanId, Seq, WorkerId};
use crate::store::{Append, AppendError, Claim, Conflict, LockChange, NewPin, Notice, Priority, SharedStore};
use crate::workflow::{Event, Plan, Run, RunSummary};

const KNOWN_PLANS_MAX: usize = 1_024;

/// Plans that the store is known to have: a run's plan is there before its first event.
#[derive(Clone, Default)]
pub(super) struct KeptPlans(Arc<Mutex<HashSet<PlanId>>>);

impl KeptPlans {
    fn has(&self, id: &PlanId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
    fn note(&self, id: &PlanId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_PLANS_MAX {
            known.clear(); // asking the store again is all that it costs
        }
        known.insert(id.clone());
    }
}

/// What became of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is on disk.
    Kept,
    /// Nothing of the run is on disk, for sure, and this was its first append.
    NothingKept(String),
    /// It is not on disk, or nobody knows; it is handed in again after a while. How often that has been said.
    Later(String, u32),
    /// Another run has the retry key; nothing of this one is on disk.
    Claimed { run: crate::names::RunId, same_request: bool },
    /// The run belongs to somebody else now: stop.
    Lost(String),
}

/// Where events go.
#[derive(Clone)]
pub(super) struct Keeper {
    pub store: SharedStore,
    /// Hears of pins before the answer leaves.
    pub pins: Arc<StoreAffinity>,
    pub plans: KeptPlans,
    pub plan: Arc<Plan>,
    /// Opens the run's sealed credentials; there before the run's first event.
    pub run_key: Option<Vec<u8>>,
    /// This process.
    pub worker: WorkerId,
    /// Under which number it owns the run.
    pub fence: Fence,
    pub lease: Arc<Lease>,
}

/// An append that was handed to the writer, and its reply.
type AppendUnderWay = (Arc<Append>, BoxFuture<'static, Result<(), AppendError>>);

pub(super) struct Journal {
    keeper: Option<Keeper>,
    priority: Priority,
    claim: Option<Claim>,
    pending: Vec<(Timestamp, Event)>,
    notices: Vec<Notice>,
    /// What was asked through the store and is settled by what is pending.
    answers: Vec<(Uuid, serde_json::Value)>,
    /// Up to here the events are on disk.
    durable: Seq,
    /// Up to here they have been handed to the writer.
    handed: Seq,
    /// Whether an append of this run was ever answered with "unknown".
    uncertain: bool,
    refusals: u32,
    under_way: Option<AppendUnderWay>,
    /// Since when the run is certainly this process's: as of the last append that was kept, or that it was taken.
    hold: Option<Hold>,
    /// The same as of the append that is under way.
    next_hold: Option<Hold>,
    /// The run as it stands on disk, once an append was kept.
    kept: Option<Box<RunSummary>>,
}

impl Journal {
    /// Of a run that is on disk up to a place (0 is a new one). Without a store everything counts as kept.
    pub fn new(keeper: Option<Keeper>, priority: Priority, claim: Option<Claim>, durable: Seq) -> Self {
        let hold = keeper.as_ref().map(|keeper| keeper.lease.hold());
        Self::held(keeper, priority, claim, durable, hold)
    }
    /// Of a run that was taken while this held.
    pub fn of_taken(keeper: Option<Keeper>, priority: Priority, durable: Seq, hold: Hold) -> Self {
        Self::held(keeper, priority, None, durable, Some(hold))
    }
    fn held(
        keeper: Option<Keeper>,
        priority: Priority,
        claim: Option<Claim>,
        durable: Seq,
        hold: Option<Hold>,
    ) -> Self {
        Self {
            keeper,
            hold,
            next_hold: None,
            kept: None,
            priority,
            claim,
            pending: Vec::new(),
            notices: Vec::new(),
            answers: Vec::new(),
            durable,
            handed: durable,
            uncertain: false,
            refusals: 0,
            under_way: None,
        }
    }
    /// Notes an event; the run has taken it in.
    pub fn push(&mut self, at: Timestamp, event: Event, seq: Seq) {
        match self.keeper {
            Some(_) => self.pending.push((at, event)),
            None => {
                self.durable = seq;
                self.handed = seq;
            }
        }
    }
    /// A message that goes in with what is pending.
    pub fn notice(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
    /// What was asked through the store is settled by what is pending.
    pub fn answer(&mut self, order: Uuid, answer: serde_json::Value) {
        self.answers.push((order, answer));
    }
    /// Whether anything is kept at all.
    pub fn keeps(&self) -> bool {
        self.keeper.is_some()
    }
    /// Up to here the events are on disk.
    pub fn durable(&self) -> Seq {
        self.durable
    }
    /// The run as it stands on disk, where anything of it was kept here.
    pub fn kept(&self) -> Option<&RunSummary> {
        self.kept.as_deref()
    }
    /// Under which number it appends.
    pub fn fence(&self) -> Option<Fence> {
        self.keeper.as_ref().map(|keeper| keeper.fence)
    }
    /// This process's word over the run.
    pub fn hold(&self) -> Option<Hold> {
        self.hold.clone()
    }
    /// Whether the writer was ever given anything.
    pub fn untouched(&self) -> bool {
        self.handed == Seq(0)
    }
    /// Nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_none()
    }
    /// Hands in what waits, unless an append is under way: then it goes with the next one. With `release` the run is
    /// nobody's after it.
    pub fn flush(&mut self, run: &Run, release: bool) {
        let (Some(keeper), None, Some((updated, _))) = (&self.keeper, &self.under_way, self.pending.last()) else {
            return;
        };
        let pins = self.pending.iter().filter_map(|(_, event)| pin_of(event)).collect();
        let locks = self.pending.iter().filter_map(|(_, event)| lock_of(event)).collect();
        let append = Arc::new(Append {
            run_id: run.id(),
            first: self.handed.next(),
            summary: run.summary(*updated),
            events: std::mem::take(&mut self.pending),
            batch: Uuid::now_v7(),
            pins,
            claim: if self.handed == Seq(0) { self.claim } else { None },
            priority: self.priority,
            worker: keeper.worker,
            fence: keeper.fence,
            release: release || run.is_final(),
            locks,
            notices: std::mem::take(&mut self.notices),
            settled: std::mem::take(&mut self.answers),
            births: Vec::new(),
        });
        self.handed = run.seq();
        self.next_hold = Some(keeper.lease.hold());
        let future = hand_in(keeper.clone(), append.clone(), Duration::ZERO);
        self.under_way = Some((append, future));
    }
    /// Waits for the append that is under way; for ever where none is. May be dropped and called again.
    pub async fn settled(&mut self) -> Settled {
        let Some((_, future)) = &mut self.under_way else { return std::future::pending().await };
        let result = future.await;
        let Some((append, _)) = self.under_way.take() else { return Settled::Kept };
        match result {
            Ok(()) => {
                self.durable = self.handed;
                self.refusals = 0;
                self.hold = self.next_hold.take().or(self.hold.take());
                if let Some(keeper) = &self.keeper {
                    append.pins.iter().for_each(|pin| keeper.pins.pinned(pin, append.run_id));
                }
                // The store has let go of it by now, as a rule.
                let summary = Arc::try_unwrap(append).map_or_else(|shared| shared.summary.clone(), |own| own.summary);
                self.kept = Some(Box::new(summary));
                Settled::Kept
            }
            Err(AppendError::Conflict(Conflict::Claim { run, same_request })) if self.durable == Seq(0) => {
                Settled::Claimed { run, same_request }
            }
            Err(AppendError::Conflict(Conflict::Pin { key, owner })) if !append.pins.is_empty() => {
                // What the run did stays done, and its answer stands.
                let ours = append.pins.iter().any(|pin| pin.key == key && pin.arm == owner);
                match &self.keeper {
                    Some(keeper) if !ours => keeper.pins.collision(&key, append.run_id),
                    Some(_) | None => tracing::warn!(
                        run = %append.run_id, family = %key.family, id = %key.id,
                        "the id is another run's already: what follows up sees that run"
                    ),
                }
                let append = Append { pins: Vec::new(), batch: Uuid::now_v7(), ..Arc::unwrap_or_clone(append) };
                self.again(Arc::new(append), Duration::ZERO);
                Settled::Later("the instance's id is taken".into(), 0)
            }
            Err(error @ (AppendError::Conflict(_) | AppendError::Fenced(_))) => Settled::Lost(error.to_string()),
            Err(AppendError::Refused(why)) if self.durable == Seq(0) && !self.uncertain => Settled::NothingKept(why),
            Err(error @ (AppendError::Refused(_) | AppendError::Unavailable(_))) => {
                self.uncertain |= matches!(error, AppendError::Unavailable(_));
                self.refusals = self.refusals.saturating_add(1);
                let pause = Duration::from_millis(20).saturating_mul(1 << self.refusals.min(7));
                self.again(append, pause);
                Settled::Later(error.to_string(), self.refusals)
            }
        }
    }

    fn again(&mut self, append: Arc<Append>, pause: Duration) {
        if let Some(keeper) = &self.keeper {
            let future = hand_in(keeper.clone(), append.clone(), pause);
            self.under_way = Some((append, future));
        }
    }
}

fn hand_in(keeper: Keeper, append: Arc<Append>, pause: Duration) -> BoxFuture<'static, Result<(), AppendError>> {
    Box::pin(async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let Keeper { store, pins: _, plans, plan, run_key, worker: _, fence: _, lease: _ } = keeper;
        if !plans.has(&plan.id) {
            let put = store.put_plan(plan.id.clone(), (*plan.source).clone()).await;
            put.map_err(|error| AppendError::Refused(format!("the plan was not kept: {error}")))?;
            plans.note(&plan.id);
        }
        let (run, first) = (append.run_id, append.first);
        let Some(key) = run_key.filter(|_| first == Seq::FIRST) else { return store.append(append).await };
        let put = store.put_run_key(run, Some(key)).await;
        put.map_err(|error| AppendError::Refused(format!("the run's key was not kept: {error}")))?;
        let kept = store.append(append).await;
        if matches!(kept, Err(AppendError::Refused(_) | AppendError::Conflict(Conflict::Claim { .. })))
            && let Err(error) = store.put_run_key(run, None).await
        {
            // It opens nothing: the run's events are not there.
            tracing::debug!(%run, %error, "a key without a run stays");
        }
        kept
    })
}

fn lock_of(event: &Event) -> Option<LockChange> {
    match event {
        Event::LockQueued { step, item, name } => {
            Some(LockChange::Queue { name: name.clone(), step: step.clone(), item: *item })
        }
        Event::LockLeft { step, item, name } => {
            Some(LockChange::Leave { name: name.clone(), step: step.clone(), item: *item })
        }
        _ => None,
    }
}

fn pin_of(event: &Event) -> Option<NewPin> {
    let (Event::Responded { pin: Some(pin), .. } | Event::PendingAnswered { pin: Some(pin), .. }) = event else {
        return None;
    };
    let key = PinKey { family: pin.family.clone(), id: pin.id.as_str().into() };
    Some(NewPin { key, arm: if pin.twin { Arm::Legacy } else { Arm::Engine } })
}
