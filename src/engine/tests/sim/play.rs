//! One simulation: who does what, when, drawn from its seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::outside::{Outside, Way};
use super::store::{Shared, SimStore};
use super::{Figures, plans, verdict};
use crate::affinity::StoreAffinity;
use crate::clock::{self, ProcessClock};
use crate::engine::Engine;
use crate::engine::EngineParts;
use crate::engine::Start;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{RunId, Seq, WorkflowName};
use crate::store::{MemoryStore, RunFilter, SharedStore, Store, Work};
use crate::workflow::{
    CheckpointAnswer, Choice, Conflict, ConflictKind, OpenCheckpoint, Order, Plan, Run, RunStatus, RunSummary, fold,
};

/// Two processes.
const SLOTS: usize = 2;
/// Keys under which runs are started: few, so that many starts come twice.
const KEYS: u8 = 8;
/// The longest that anybody waits for an answer.
const ANSWER: Duration = Duration::from_secs(60);
/// In this time everything has come to its end after all has healed.
const SETTLED: u32 = 1_800;

/// What clients were told.
#[derive(Default)]
pub(super) struct Told {
    /// Runs that were acknowledged, by key.
    pub started: BTreeMap<u8, Vec<RunId>>,
    pub done: u64,
}

/// What may happen in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Everything.
    Anything,
    /// Everything, to one process with a store of its own: no second look behind what is missed.
    Alone,
    /// Store and world fail much; nobody is killed, and people say only what they are asked.
    LostReplies,
}

pub(super) struct Play {
    what: What,
    random: fastrand::Rng,
    store: Arc<SimStore>,
    outside: Arc<Outside>,
    plans: BTreeMap<WorkflowName, Arc<Plan>>,
    slots: Vec<Option<Arc<Engine>>>,
    told: Arc<Mutex<Told>>,
    kills: u64,
    orders: u64,
    jumps: u64,
}

impl Play {
    pub(super) async fn new(seed: u64, what: What) -> Self {
        clock::simulated::begin("2026-01-01T00:00:00Z".parse().unwrap());
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, outside) = match what {
            What::Anything | What::Alone => (random.u8(0..12), random.u8(0..30)),
            What::LostReplies => (random.u8(10..30), random.u8(20..60)),
        };
        Self {
            what,
            store: SimStore::new(random.u64(..), store, what != What::Alone),
            slots: (0..if what == What::Alone { 1 } else { SLOTS }).map(|_| None).collect(),
            outside: Outside::new(random.u64(..), outside),
            random,
            plans: plans::all(),
            told: Arc::default(),
            kills: 0,
            orders: 0,
            jumps: 0,
        }
    }

    pub(super) async fn play(mut self) -> (Figures, Vec<String>) {
        let begun = Instant::now();
        for slot in 0..self.slots.len() {
            self.raise(slot).await;
        }
        for _ in 0..self.random.u32(20..80) {
            sleep(Duration::from_millis(self.random.u64(0..1_200))).await;
            self.something().await;
        }
        self.store.heal();
        self.outside.heal();
        let mut wrong = self.settle().await;
        let runs = all(self.store.kept()).await;
        let mut figures = Figures {
            runs: runs.len(),
            kills: self.kills,
            jumps: self.jumps,
            orders: self.orders,
            faults: self.store.faults() + self.outside.faults(),
            effects: self.outside.keys().values().map(|known| known.effects).sum(),
            virtual_s: begun.elapsed().as_secs(),
            ..Figures::default()
        };
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        figures.orders = told.done;
        figures.events = verdict::check(&self.store, &self.outside, &self.plans, &runs, &told, &mut wrong).await;
        if !wrong.is_empty() && std::env::var_os("POINTSMAN_SHOW").is_some() {
            self.show(&runs).await;
        }
        (figures, wrong)
    }

    /// All that was kept, and all that the world saw: `POINTSMAN_SHOW=1`.
    async fn show(&self, runs: &[RunSummary]) {
        for run in runs {
            println!("{} of {}: {}", run.run_id, run.workflow, run.status.as_str());
            for stored in self.store.kept().events(run.run_id, Seq::FIRST).await.unwrap_or_default() {
                let event: String = format!("{:?}", stored.event).chars().take(300).collect();
                println!("  {} {} {event}", stored.seq, stored.at);
            }
        }
        self.outside.log().iter().for_each(|line| println!("{line}"));
    }

    /// What happens next.
    async fn something(&mut self) {
        let slot = self.random.usize(0..self.slots.len());
        match self.random.u8(0..100) {
            35..=99 if self.what == What::LostReplies => self.start(slot),
            0..=34 => self.start(slot),
            35..=44 => self.kill(slot),
            45..=59 => self.raise(slot).await,
            65..=69 => {
                // Further than what is followed: no time may come of it.
                let wrong = self.random.i64(61..7_200) * if self.random.bool() { 1 } else { -1 };
                clock::simulated::skew(SignedDuration::from_secs(wrong));
                self.jumps += 1;
            }
            60..=64 => {
                let mute = self.random.bool();
                if let Some(engine) = &self.slots[slot] {
                    self.store.mute(engine.core.schedule.worker, mute);
                }
            }
            _ => self.somebody_speaks(slot).await,
        }
    }

    /// The process starts.
    async fn raise(&mut self, slot: usize) {
        if self.slots[slot].is_some() {
            return;
        }
        if self.what == What::Alone {
            clock::simulated::skew(SignedDuration::ZERO); // what it shows at the start is the time
        }
        let store: SharedStore = Arc::new(Shared(self.store.clone()));
        let limits = Limits {
            lease_ms: 3_000,
            sweep_ms: 1_000,
            order_wait_ms: 5_000,
            // Nearly every run that is taken again is read from a snapshot.
            run_snapshot_every_events: 3,
            run_snapshot_pause_ms: 100,
            ..Limits::default()
        };
        let Ok(pins) = StoreAffinity::load(store.clone(), &limits).await else { return };
        let engine = Engine::new(EngineParts {
            store,
            plans: self.plans.clone(),
            services: plans::services(),
            secrets: BTreeMap::new(),
            store_key: None,
            key_secret: [9; 32],
            limits: Arc::new(limits),
            pins,
            clock: Arc::new(ProcessClock::starting()),
        });
        assert!(engine.core.ports.executor_override.set(Arc::new(Way(self.outside.clone()))).is_ok());
        // One that cannot read the store ends, as the program does.
        if engine.recover().await.is_ok() {
            self.slots[slot] = Some(Arc::new(engine));
        }
    }

    /// The process ends where it is.
    fn kill(&mut self, slot: usize) {
        if let Some(engine) = self.slots[slot].take() {
            engine.core.process.cancelled.cancel();
            engine.core.process.draining.send_replace(true); // nobody asks a process that is gone
            self.kills += 1;
        }
    }

    fn start(&mut self, slot: usize) {
        let Some(engine) = self.slots[slot].clone() else { return };
        let key = self.random.u8(0..KEYS);
        let (workflow, input) = plans::asked(key);
        let start = Start { workflow, input, by: "sim".into(), key: Some((RetryKey([key; 32]), [key; 32])) };
        let told = self.told.clone();
        tokio::spawn(async move {
            if let Ok(Ok(started)) = timeout(ANSWER, engine.start(start)).await {
                told.lock().unwrap().started.entry(key).or_default().push(started.run);
            }
        });
    }

    /// Somebody says something to some run, sensible or not.
    async fn somebody_speaks(&mut self, slot: usize) {
        let runs = all(self.store.kept()).await;
        let Some(run) = self.random.choice(runs.iter()) else { return };
        let reason = || Some("by lot".to_owned());
        if self.random.u8(0..10) == 0 && run.parent.is_none() {
            return self.rerun(slot, run);
        }
        let order = match self.random.u8(0..8) {
            0 => Order::Pause { reason: reason() },
            1 | 2 => Order::Resume { reason: reason() },
            3 if self.random.u8(0..4) == 0 => Order::Cancel { compensate: self.random.bool(), reason: reason() },
            4 => {
                let steps = &self.plans[&run.workflow].steps;
                let step = steps[self.random.usize(0..steps.len())].id.clone();
                Order::Skip { step, reason: reason() }
            }
            _ => match self.asked_of(run).await.into_iter().next() {
                Some(order) => order,
                None => return,
            },
        };
        self.say(slot, run.run_id, order);
    }

    /// Somebody wants the run begun anew from a step; the process may end in the middle of it.
    fn rerun(&mut self, slot: usize, run: &RunSummary) {
        let Some(engine) = self.slots[slot].clone() else { return };
        let steps = &self.plans[&run.workflow].steps;
        let step = steps[self.random.usize(0..steps.len())].id.clone();
        let of = run.run_id;
        tokio::spawn(async move {
            let _ = timeout(ANSWER, engine.rerun(of, step, "ann".into())).await; // what came of it stands in the store
        });
    }

    fn say(&mut self, slot: usize, run: RunId, order: Order) {
        let Some(engine) = self.slots[slot].clone() else { return };
        let told = self.told.clone();
        self.orders += 1;
        tokio::spawn(async move {
            if let Ok(Ok(_)) = timeout(ANSWER, engine.order(run, order, "ann".into())).await {
                told.lock().unwrap().done += 1;
            }
        });
    }

    /// What would move a run that waits for somebody.
    async fn asked_of(&mut self, run: &RunSummary) -> Vec<Order> {
        let Some(folded) = self.folded(run).await else { return Vec::new() };
        let mut orders: Vec<_> = folded
            .conflicts()
            .iter()
            .map(|conflict| Order::Resolve {
                step: conflict.step.clone(),
                item: conflict.item,
                choice: self.chosen(conflict),
                reason: None,
            })
            .collect();
        orders.extend(self.answers(&folded));
        if run.status == RunStatus::WaitingSignal {
            orders.push(Order::Signal { name: "go".into(), payload: Arc::new(json!({ "n": 1 })), id: None });
        }
        if run.status == RunStatus::Paused && folded.conflicts().is_empty() {
            orders.push(Order::Resume { reason: None });
        }
        orders
    }

    /// Yes, mostly; of a review the one item, and not the other.
    fn answers(&mut self, run: &Run) -> Vec<Order> {
        let mut answer = |asked: &OpenCheckpoint| {
            let (approved, struck) = asked.items.iter().map(|item| item.index).partition(|_| self.random.u8(0..5) > 0);
            let said =
                CheckpointAnswer { approve: self.random.u8(0..5) > 0, values: None, approved, struck, note: None };
            Order::Answer { checkpoint: asked.checkpoint.clone(), said }
        };
        run.asked().map(&mut answer).collect()
    }

    /// Whoever does not know what was done does not say "again".
    fn chosen(&mut self, conflict: &Conflict) -> Choice {
        let unknown = conflict.kind == ConflictKind::OutcomeUnknown;
        let sensible: Vec<&String> =
            conflict.choices.iter().filter(|choice| !(unknown && choice.starts_with("retry"))).collect();
        match self.random.choice(sensible).map(String::as_str) {
            Some("retry") => Choice::Retry,
            Some("retry_with") => Choice::RetryWith { input: Arc::new(json!({ "n": 7 })) },
            Some("skip") => Choice::Skip,
            Some("fallback") => Choice::Fallback,
            Some("wait") => Choice::Wait,
            Some("take") => Choice::Take { output: Arc::new(json!({ "id": 0 })) },
            _ => Choice::Cancel { compensate: true },
        }
    }

    async fn folded(&self, run: &RunSummary) -> Option<Run> {
        let events = self.store.kept().events(run.run_id, Seq::FIRST).await.ok()?;
        fold(events.iter().map(|stored| &stored.event)).ok()
    }

    /// People say what they are asked, until all is over; what is not.
    async fn settle(&mut self) -> Vec<String> {
        for _ in 0..SETTLED {
            for slot in 0..self.slots.len() {
                self.raise(slot).await;
            }
            sleep(Duration::from_secs(1)).await;
            let open: Vec<_> = all(self.store.kept()).await.into_iter().filter(|run| !run.status.is_final()).collect();
            // A run that another one decided on may be in the outbox only: it begins a while after the other has ended.
            let is_pending = !self.store.kept().pending_runs(1).await.unwrap_or_default().is_empty();
            if open.is_empty() && !is_pending {
                return Vec::new();
            }
            for run in &open {
                for order in self.asked_of(run).await {
                    let slot = self.random.usize(0..self.slots.len());
                    self.say(slot, run.run_id, order);
                }
            }
        }
        let mut stuck = Vec::new();
        for run in all(self.store.kept()).await.iter().filter(|run| !run.status.is_final()) {
            let mut why = Vec::new();
            for engine in self.slots.iter().flatten() {
                why.push(match engine.explain(run.run_id).await {
                    Ok(explained) => explained.sentence,
                    Err(error) => error.to_string(),
                });
            }
            let kept = self.store.kept().events(run.run_id, Seq::FIRST).await.unwrap_or_default();
            let kinds: Vec<_> = kept.iter().map(|stored| stored.event.kind()).collect();
            let (id, status) = (run.run_id, run.status.as_str());
            stuck.push(format!("{id} of {} never ends: {status}: {why:?}: {kinds:?}", run.workflow));
        }
        stuck
    }
}

/// Every run that is kept.
async fn all(store: &MemoryStore) -> Vec<RunSummary> {
    let filter = RunFilter { limit: 10_000, ..RunFilter::default() };
    store.runs(filter).await.unwrap_or_default()
}

/// What a client sends: nothing that the plans do not take.
pub(super) fn input(items: u8) -> Value {
    json!({ "items": (0..items).collect::<Vec<_>>() })
}
