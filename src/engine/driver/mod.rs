//! Runs one run's machine: performs what it puts out, and feeds back what came of it.
//!
//! Always true: nothing is decided here. Outputs are performed in their order; the state of the kill switch and whether the
//! process drains are fed before any other input, so that nothing begins that they forbid. When this task is dropped,
//! what is in the store is what the next process goes on from.
//!
//! A slow service, a slow store and a slow child are futures here, and the run goes on meanwhile.

mod perform;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::machine::{
    CallId, CallerAnswer, CallerTerms, End, Input, Machine, MachineParts, StartAnswer, Ticket, Writes,
};
use crate::engine::ports::client::Executor;
use crate::engine::ports::writer::Writer;
use crate::engine::run_metrics::RunMetrics;
use crate::engine::scheduler::mailbox::{Message, OrderRequest, Reply, Slot};
use crate::engine::scheduler::registry::Registration;
use crate::engine::scheduler::spawn_gate::SpawnGate;
use crate::engine::snapshot::Snapshot;
use crate::flag::Freeze;
use crate::names::Seq;
use crate::store::Claim;
use crate::workflow::{AttemptResult, Event, Mode, Plan, Run};

/// Who waits for a run's answer.
pub(super) struct Caller {
    pub tell: oneshot::Sender<CallerAnswer>,
    pub may_fall_back: bool,
    /// A little before the caller's deadline, to leave time for recording what it is answered.
    pub answer_by: Instant,
}

/// What a new driver is made of.
pub(super) struct Parts {
    pub core: Arc<Core>,
    pub snapshot: Arc<Snapshot>,
    pub plan: Arc<Plan>,
    pub run: Run,
    pub credentials: BTreeMap<String, String>,
    pub executor: Arc<dyn Executor>,
    /// `None` of a run that is not kept: a rehearsal's, or of a route that keeps none.
    pub writer: Option<(Writer, Writes)>,
    pub claim: Option<Claim>,
    /// Sequence number of the last durable event; 0 for a new run.
    pub durable_seq: Seq,
    pub clock: Clock,
    pub caller: Option<Caller>,
    /// Tells who comes with the same retry key what becomes of it.
    pub registration: Option<Registration>,
    /// Where messages come; a run that is not kept gets none.
    pub slot: Option<Slot>,
    /// Waits for the run's first append.
    pub starter: Option<oneshot::Sender<StartAnswer>>,
    /// How many runs are above it; only of rehearsals.
    pub depth: u64,
}

pub(super) struct Driver {
    core: Arc<Core>,
    machine: Machine,
    snapshot: Arc<Snapshot>,
    credentials: BTreeMap<String, String>,
    executor: Arc<dyn Executor>,
    writer: Option<Writer>,
    clock: Clock,
    caller: Option<oneshot::Sender<CallerAnswer>>,
    starter: Option<oneshot::Sender<StartAnswer>>,
    registration: Option<Registration>,
    slot: Option<Slot>,
    takes_messages: bool,
    metrics: RunMetrics,
    spawn: Arc<SpawnGate>,
    depth: u64,
    /// Whoever ordered something and waits for an answer.
    askers: HashMap<Ticket, oneshot::Sender<Reply>>,
    tickets: u64,
    calls: FuturesUnordered<BoxFuture<'static, (CallId, AttemptResult)>>,
    looks: FuturesUnordered<BoxFuture<'static, Input>>,
    timer: Option<Timestamp>,
    end: Option<End>,
}

/// What everybody obeys, as it was fed to the machine last.
struct Levels {
    freeze: watch::Receiver<Freeze>,
    draining: watch::Receiver<bool>,
    frozen: bool,
    drains: bool,
}

impl Levels {
    fn of(core: &Core) -> Self {
        let (mut freeze, mut draining) = (core.process.kill_switch.subscribe(), core.process.draining.subscribe());
        let frozen = *freeze.borrow_and_update() == Freeze::Effects;
        let drains = *draining.borrow_and_update();
        Self { freeze, draining, frozen, drains }
    }
    /// What has changed since the last time.
    fn notifications(&mut self) -> Vec<Input> {
        let mut news = Vec::new();
        let frozen = *self.freeze.borrow_and_update() == Freeze::Effects;
        if std::mem::replace(&mut self.frozen, frozen) != frozen {
            news.push(Input::Freeze(frozen));
        }
        let drains = *self.draining.borrow_and_update();
        if !std::mem::replace(&mut self.drains, drains) && drains {
            news.push(Input::Drain);
        }
        news
    }
    async fn changed(&mut self) {
        let closed = tokio::select! {
            changed = self.freeze.changed() => changed.is_err(),
            changed = self.draining.changed() => changed.is_err(),
        };
        if closed {
            std::future::pending::<()>().await;
        }
    }
}

impl Driver {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            core,
            snapshot,
            plan,
            run,
            credentials,
            executor,
            writer,
            claim,
            durable_seq,
            clock,
            caller,
            registration,
            slot,
            starter,
            depth,
        } = parts;
        let (writer, writes) = writer.unzip();
        let terms = caller
            .as_ref()
            .map(|caller| CallerTerms { may_fall_back: caller.may_fall_back, answer_by: clock.at(caller.answer_by) });
        let metrics = RunMetrics::new(&run, durable_seq > Seq(0), writer.is_some());
        let machine = Machine::new(MachineParts {
            run,
            plan,
            world: snapshot.world.clone(),
            durable_seq,
            writes,
            claim,
            caller: terms,
            has_starter: starter.is_some(),
            seed: fastrand::u64(..),
            now: clock.now(),
        });
        Self {
            core,
            machine,
            snapshot,
            credentials,
            executor,
            writer,
            clock,
            caller: caller.map(|caller| caller.tell),
            starter,
            registration,
            takes_messages: slot.is_some(),
            slot,
            metrics,
            spawn: Arc::default(),
            depth,
            askers: HashMap::new(),
            tickets: 0,
            calls: FuturesUnordered::new(),
            looks: FuturesUnordered::new(),
            timer: None,
            end: None,
        }
    }

    /// Records the run's first event.
    pub fn born(&mut self) {
        self.machine.record_birth();
    }
    /// Records what a rerun takes over of the run before it.
    ///
    /// # Errors
    /// The events do not fit.
    pub fn takes_over(&mut self, events: Vec<Event>) -> Result<(), String> {
        self.machine.record_carried_over(events)
    }
    /// Takes up what another process left.
    pub fn take_up(&mut self) {
        self.machine.recover(self.core.ports.store.is_shared());
    }
    /// What the run may send.
    pub fn mode(&self) -> Mode {
        self.machine.run().mode()
    }

    /// Drives the run until it has ended, only waits, or the process drains.
    pub async fn drive(mut self) -> Run {
        let mut levels = Levels::of(&self.core);
        let mut inputs = VecDeque::from([Input::Begin { frozen: levels.frozen, draining: levels.drains }]);
        loop {
            while let Some(input) = inputs.pop_front() {
                inputs.extend(self.feed(input));
                if let Some(end) = self.end {
                    inputs.into_iter().for_each(|input| self.unfed(input));
                    self.leave(end);
                    return self.machine.into_run();
                }
            }
            let input = self.next(&mut levels).await;
            inputs.extend(levels.notifications());
            inputs.extend(input);
        }
    }

    /// Feeds one input; what its outputs gave back at once.
    fn feed(&mut self, input: Input) -> Option<Input> {
        let mut back = None;
        if matches!(input, Input::ExternalChange { .. }) && self.machine.run().misses_something() {
            self.snapshot = self.core.files.snapshot.load_full();
            self.machine.set_world(self.snapshot.world.clone());
        }
        for output in self.machine.step(self.clock.now(), input) {
            back = self.perform(output).or(back);
        }
        self.metrics.update(self.machine.run());
        back
    }

    /// The run's driver has ended before this could be fed: whoever sent it tries again.
    fn unfed(&mut self, input: Input) {
        match input {
            Input::Order { ticket, .. } => {
                if let Some(asker) = self.askers.remove(&ticket) {
                    let _ = asker.send(Reply::Retry); // whoever asked may have gone
                }
            }
            Input::ChildEnded(_) => self.core.schedule.timers.wake_now(self.machine.run().id()),
            _ => {} // the next driver looks for itself
        }
    }

    /// Waits for what happens next; `None`: the levels may have changed.
    async fn next(&mut self, levels: &mut Levels) -> Option<Input> {
        let timer = self.timer.map(|at| self.clock.until(at));
        tokio::select! {
            Some((call, heard)) = self.calls.next(), if !self.calls.is_empty() => Some(Input::CallFinished { call, heard }),
            Some(input) = self.looks.next(), if !self.looks.is_empty() => Some(input),
            result = settled(&mut self.writer) => Some(Input::AppendFinished(result)),
            message = message(&mut self.slot), if self.takes_messages => Some(self.input_of(message)),
            () = maybe(timer.map(tokio::time::sleep)) => Some(Input::Time),
            () = gone(&mut self.caller) => {
                self.caller = None;
                Some(Input::CallerGone)
            }
            () = levels.changed() => None,
        }
    }

    /// Whether certainly nobody else has taken the run since its last append.
    fn is_owned(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.lease_proof().is_valid())
    }

    fn input_of(&mut self, message: Option<Message>) -> Input {
        match message {
            Some(Message::Order(asking)) => {
                let OrderRequest { order, by, reply } = *asking;
                let ticket = Ticket(self.tickets);
                self.tickets += 1;
                self.askers.insert(ticket, reply);
                Input::Order { ticket, order, by, owned: self.is_owned() }
            }
            Some(Message::ChildEnded(end)) => Input::ChildEnded(*end),
            Some(Message::DescendantWaits) => Input::DescendantWaits,
            None => Input::ExternalChange { reacquired: self.slot.as_ref().and_then(Slot::reacquired) },
        }
    }
}

/// Drives a run in a task of its own. What nobody is answered by keeps to its caller's threads, which step back for
/// others.
pub(super) fn spawn(core: &Arc<Core>, driver: Driver, permit: Option<OwnedSemaphorePermit>) {
    match driver.mode() {
        Mode::Real => spawn_in_engine(core, driver, permit),
        Mode::Dark | Mode::Rehearse => drop(core.process.tasks.spawn(moved(core, driver, permit))),
    }
}

/// Drives a run in a task of the engine's runtime: one that was asked for on threads that move no runs.
pub(super) fn spawn_in_engine(core: &Arc<Core>, driver: Driver, permit: Option<OwnedSemaphorePermit>) {
    core.process.tasks.spawn_on(moved(core, driver, permit), &core.process.runtime);
}

fn moved(core: &Core, driver: Driver, permit: Option<OwnedSemaphorePermit>) -> impl Future<Output = ()> + Send + use<> {
    let cut = core.process.cancelled.clone();
    async move {
        let _permit = permit;
        // `None`: the process ends; what is on disk is what the next one goes on from.
        let _cut = cut.run_until_cancelled(driver.drive()).await;
    }
}

async fn settled(writer: &mut Option<Writer>) -> Result<(), crate::store::AppendError> {
    match writer {
        Some(writer) => writer.settled().await,
        None => std::future::pending().await,
    }
}

/// The next message, or `None` where there is something to look at outside the run.
async fn message(slot: &mut Option<Slot>) -> Option<Message> {
    match slot {
        Some(slot) => slot.next().await,
        None => std::future::pending().await,
    }
}

async fn maybe(timer: Option<impl Future<Output = ()>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

async fn gone(caller: &mut Option<oneshot::Sender<CallerAnswer>>) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
}
