//! One simulation: its actions and their times are drawn from the seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::services::{SimExecutor, SimServices};
use super::{Figures, invariants, plans};
use crate::affinity::StoreAffinity;
use crate::clock::{self, Moment, ProcessClock};
use crate::engine::Engine;
use crate::engine::EngineParts;
use crate::engine::Start;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{RunId, Seq, WorkflowName};
use crate::store::tests::simulated::{Shared, SimStore};
use crate::store::{MemoryStore, RunCoordination, RunFilter, Store, StoreHandle};
use crate::transport::AddressRegistry;
use crate::workflow::{
    CheckpointAnswer, Choice, Conflict, ConflictKind, ControlCommand, OpenCheckpoint, Plan, Run, RunStatus, RunSummary,
    fold,
};

/// How many processes there are.
const PROCESSES: usize = 2;
/// Idempotency keys of starts: few, so that many starts are repeated.
const KEYS: u8 = 8;
/// How long clients wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Within this many seconds after the faults have stopped, all runs must have ended.
const SETTLE_S_MAX: u32 = 1_800;

/// What was acknowledged to clients.
#[derive(Default)]
pub(super) struct Acknowledged {
    /// Started runs, by key.
    pub started: BTreeMap<u8, Vec<RunId>>,
    /// Commands that were carried out.
    pub commands: u64,
}

/// Which faults a simulation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// All of them.
    AllFaults,
    /// All of them, with a single process and a store of its own: no sweep makes up for lost wake-ups.
    SingleProcess,
    /// Many faults of store and services. No process is killed, and people send commands only to runs that wait for
    /// them.
    LostReplies,
}

pub(super) struct Simulation {
    scenario: Scenario,
    random: fastrand::Rng,
    store: Arc<SimStore>,
    services: Arc<SimServices>,
    plans: BTreeMap<WorkflowName, Arc<Plan>>,
    processes: Vec<Option<Arc<Engine>>>,
    acknowledged: Arc<Mutex<Acknowledged>>,
    kills: u64,
    jumps: u64,
}

impl Simulation {
    pub(super) async fn new(seed: u64, scenario: Scenario) -> Self {
        clock::simulated::begin("2026-01-01T00:00:00Z".parse().unwrap());
        let mut random = fastrand::Rng::with_seed(seed);
        let (store, services) = match scenario {
            Scenario::AllFaults | Scenario::SingleProcess => (random.u8(0..12), random.u8(0..30)),
            Scenario::LostReplies => (random.u8(10..30), random.u8(20..60)),
        };
        Self {
            scenario,
            store: SimStore::new(random.u64(..), store, scenario != Scenario::SingleProcess),
            processes: (0..if scenario == Scenario::SingleProcess { 1 } else { PROCESSES }).map(|_| None).collect(),
            services: SimServices::new(random.u64(..), services),
            random,
            plans: plans::all(),
            acknowledged: Arc::default(),
            kills: 0,
            jumps: 0,
        }
    }

    pub(super) async fn run(mut self) -> (Figures, Vec<String>) {
        let begun = Instant::now();
        for process in 0..self.processes.len() {
            self.start_process(process).await;
        }
        for _ in 0..self.random.u32(20..80) {
            sleep(Duration::from_millis(self.random.u64(0..1_200))).await;
            self.act().await;
        }
        self.store.heal();
        self.services.heal();
        let mut wrong = self.settle().await;
        let runs = all(self.store.memory()).await;
        let mut figures = Figures {
            runs: runs.len(),
            kills: self.kills,
            jumps: self.jumps,
            faults: self.store.faults() + self.services.faults(),
            effects: self.services.keys().values().map(|known| known.effects).sum(),
            virtual_s: begun.elapsed().as_secs(),
            ..Figures::default()
        };
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        figures.commands = acknowledged.commands;
        figures.events =
            invariants::check(&self.store, &self.services, &self.plans, &runs, &acknowledged, &mut wrong).await;
        if !wrong.is_empty() && std::env::var_os("POINTSMAN_SHOW").is_some() {
            self.show(&runs).await;
        }
        (figures, wrong)
    }

    /// Prints all stored events and all calls: `POINTSMAN_SHOW=1`.
    async fn show(&self, runs: &[RunSummary]) {
        for run in runs {
            println!("{} of {}: {}", run.run_id, run.workflow, run.status.as_str());
            for stored in self.store.memory().events(run.run_id, Seq::FIRST).await.unwrap_or_default() {
                let event: String = format!("{:?}", stored.event).chars().take(300).collect();
                println!("  {} {} {event}", stored.seq, stored.at);
            }
        }
        self.services.log().iter().for_each(|line| println!("{line}"));
    }

    /// Performs a random action.
    async fn act(&mut self) {
        let process = self.random.usize(0..self.processes.len());
        match self.random.u8(0..100) {
            35..=99 if self.scenario == Scenario::LostReplies => self.start(process),
            0..=34 => self.start(process),
            35..=44 => self.kill(process),
            45..=59 => self.start_process(process).await,
            65..=69 => {
                // A jump that the process clock must not follow.
                let seconds = self.random.i64(61..7_200) * if self.random.bool() { 1 } else { -1 };
                clock::simulated::skew(SignedDuration::from_secs(seconds));
                self.jumps += 1;
            }
            60..=64 => {
                let blocked = self.random.bool();
                if let Some(engine) = &self.processes[process] {
                    self.store.block_heartbeats(engine.core.schedule.worker, blocked);
                }
            }
            _ => self.send_random_command(process).await,
        }
    }

    /// Starts the process unless it runs.
    async fn start_process(&mut self, process: usize) {
        if self.processes[process].is_some() {
            return;
        }
        if self.scenario == Scenario::SingleProcess {
            clock::simulated::skew(SignedDuration::ZERO); // a process takes the wall clock at its start as the time
        }
        let store: StoreHandle = Arc::new(Shared::new(self.store.clone()));
        let limits = Limits {
            lease_ms: 3_000,
            sweep_ms: 1_000,
            command_wait_ms: 5_000,
            // Small, so that nearly every run that is loaded again is loaded from a snapshot.
            run_snapshot_every_events: 3,
            run_snapshot_pause_ms: 100,
            ..Limits::default()
        };
        let Ok(affinity) = StoreAffinity::load(store.clone(), &limits).await else { return };
        let clock = Arc::new(ProcessClock::starting());
        if let (true, Some(now)) = (store.is_shared(), clock::simulated::time()) {
            clock.follow(now, Moment::now()); // the program does this too before it makes its engine
        }
        let engine = Engine::new(EngineParts {
            store,
            plans: self.plans.clone(),
            services: plans::services(),
            secrets: BTreeMap::new(),
            store_key: None,
            key_secret: [9; 32],
            limits: Arc::new(limits),
            addresses: AddressRegistry::new(),
            affinity,
            clock,
            late_failures: Arc::new(()),
        });
        assert!(engine.core.ports.executor_override.set(Arc::new(SimExecutor(self.services.clone()))).is_ok());
        // A process that cannot read the store ends, as the program does.
        if engine.recover().await.is_ok() {
            self.processes[process] = Some(Arc::new(engine));
        }
    }

    /// Ends the process without a drain.
    fn kill(&mut self, process: usize) {
        if let Some(engine) = self.processes[process].take() {
            engine.core.process.cancelled.cancel();
            engine.core.process.draining.send_replace(true); // no client reaches a process that has ended
            self.kills += 1;
        }
    }

    fn start(&mut self, process: usize) {
        let Some(engine) = self.processes[process].clone() else { return };
        let key = self.random.u8(0..KEYS);
        let (workflow, input) = plans::start_of(key);
        let start = Start { workflow, input, by: "sim".into(), key: Some((RetryKey([key; 32]), [key; 32])) };
        let acknowledged = self.acknowledged.clone();
        tokio::spawn(async move {
            if let Ok(Ok(started)) = timeout(ANSWER_TIMEOUT, engine.start(start)).await {
                acknowledged.lock().unwrap().started.entry(key).or_default().push(started.run);
            }
        });
    }

    /// Sends a command to a random run, whether it applies or not.
    async fn send_random_command(&mut self, process: usize) {
        let runs = all(self.store.memory()).await;
        let Some(run) = self.random.choice(runs.iter()) else { return };
        let reason = || Some("at random".to_owned());
        if self.random.u8(0..10) == 0 && run.parent.is_none() {
            return self.rerun(process, run);
        }
        let command = match self.random.u8(0..8) {
            0 => ControlCommand::Pause { reason: reason() },
            1 | 2 => ControlCommand::Resume { reason: reason() },
            3 if self.random.u8(0..4) == 0 => {
                ControlCommand::Cancel { compensate: self.random.bool(), reason: reason(), automatic: false }
            }
            4 => {
                let steps = &self.plans[&run.workflow].steps;
                let step = steps[self.random.usize(0..steps.len())].id.clone();
                ControlCommand::Skip { step, reason: reason() }
            }
            _ => match self.commands_for(run).await.into_iter().next() {
                Some(command) => command,
                None => return,
            },
        };
        self.send_command(process, run.run_id, command);
    }

    /// Reruns a run from a random step; the process may end meanwhile.
    fn rerun(&mut self, process: usize, run: &RunSummary) {
        let Some(engine) = self.processes[process].clone() else { return };
        let steps = &self.plans[&run.workflow].steps;
        let step = steps[self.random.usize(0..steps.len())].id.clone();
        let of = run.run_id;
        tokio::spawn(async move {
            let _ = timeout(ANSWER_TIMEOUT, engine.rerun(of, step, "ann".into())).await; // the result is in the store
        });
    }

    fn send_command(&mut self, process: usize, run: RunId, command: ControlCommand) {
        let Some(engine) = self.processes[process].clone() else { return };
        let acknowledged = self.acknowledged.clone();
        tokio::spawn(async move {
            if let Ok(Ok(_)) = timeout(ANSWER_TIMEOUT, engine.give_command(run, command, "ann".into())).await {
                acknowledged.lock().unwrap().commands += 1;
            }
        });
    }

    /// The commands that would resume a run which waits for a person or a signal.
    async fn commands_for(&mut self, run: &RunSummary) -> Vec<ControlCommand> {
        let Some(stored) = self.stored_run(run).await else { return Vec::new() };
        let mut commands: Vec<_> = stored
            .conflicts()
            .iter()
            .map(|conflict| ControlCommand::Resolve {
                step: conflict.step.clone(),
                item: conflict.item,
                attempt: None,
                choice: self.choice_for(conflict),
                reason: None,
            })
            .collect();
        commands.extend(self.answers(&stored));
        if run.status == RunStatus::WaitingSignal {
            commands.push(ControlCommand::Signal { name: "go".into(), payload: Arc::new(json!({ "n": 1 })), id: None });
        }
        if run.status == RunStatus::Paused && stored.conflicts().is_empty() {
            commands.push(ControlCommand::Resume { reason: None });
        }
        commands
    }

    /// Random answers to the open checkpoints: most of them approve, and most items of a review are approved.
    fn answers(&mut self, run: &Run) -> Vec<ControlCommand> {
        let mut answer = |open: &OpenCheckpoint| {
            let (approved, struck) = open.items.iter().map(|item| item.index).partition(|_| self.random.u8(0..5) > 0);
            let said =
                CheckpointAnswer { approve: self.random.u8(0..5) > 0, values: None, approved, struck, note: None };
            ControlCommand::Answer { checkpoint: open.checkpoint.clone(), answer: said }
        };
        run.open_checkpoints().map(&mut answer).collect()
    }

    /// A random choice of those that the conflict offers; but no retry of an unknown outcome, which might perform the
    /// effect twice.
    fn choice_for(&mut self, conflict: &Conflict) -> Choice {
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
            Some("cancel_without_undo") => Choice::Cancel { compensate: false },
            _ => Choice::Cancel { compensate: true },
        }
    }

    /// The run, folded from its stored events.
    async fn stored_run(&self, run: &RunSummary) -> Option<Run> {
        let events = self.store.memory().events(run.run_id, Seq::FIRST).await.ok()?;
        fold(events.iter().map(|stored| &stored.event)).ok()
    }

    /// Until all runs have ended, sends the commands that they wait for. Returns the runs that do not end in time.
    async fn settle(&mut self) -> Vec<String> {
        for _ in 0..SETTLE_S_MAX {
            for process in 0..self.processes.len() {
                self.start_process(process).await;
            }
            sleep(Duration::from_secs(1)).await;
            let open: Vec<_> =
                all(self.store.memory()).await.into_iter().filter(|run| !run.status.is_final()).collect();
            // A run that another run decided on may exist only in the outbox until some time after that run has ended.
            let is_pending = !self.store.memory().pending_runs(1).await.unwrap_or_default().is_empty();
            if open.is_empty() && !is_pending {
                return Vec::new();
            }
            for run in &open {
                for command in self.commands_for(run).await {
                    let process = self.random.usize(0..self.processes.len());
                    self.send_command(process, run.run_id, command);
                }
            }
        }
        let mut stuck = Vec::new();
        for run in all(self.store.memory()).await.iter().filter(|run| !run.status.is_final()) {
            let mut why = Vec::new();
            for engine in self.processes.iter().flatten() {
                why.push(match engine.explain(run.run_id).await {
                    Ok(explained) => explained.sentence,
                    Err(error) => error.to_string(),
                });
            }
            let events = self.store.memory().events(run.run_id, Seq::FIRST).await.unwrap_or_default();
            let kinds: Vec<_> = events.iter().map(|stored| stored.event.kind()).collect();
            let (id, status) = (run.run_id, run.status.as_str());
            stuck.push(format!("{id} of {} never ends: {status}: {why:?}: {kinds:?}", run.workflow));
        }
        stuck
    }
}

/// All stored runs.
async fn all(store: &MemoryStore) -> Vec<RunSummary> {
    let filter = RunFilter { limit: 10_000, ..RunFilter::default() };
    store.runs(filter).await.unwrap_or_default()
}

/// The input of a start, which all plans accept.
pub(super) fn input(items: u8) -> Value {
    json!({ "items": (0..items).collect::<Vec<_>>() })
}
