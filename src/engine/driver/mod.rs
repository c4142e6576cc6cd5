//! Drives one run's machine: performs its outputs, and feeds their results back as inputs.
//!
//! Always true: nothing is decided here. Outputs are performed in the order in which the machine returns them. Changes
//! of the kill switch and the beginning of a drain are fed before any other input, so that nothing begins that they
//! forbid. When this task is dropped, the next process continues the run from what is in the store.
//!
//! A call, an append and a query are futures here: while the service, the store or a child is slow, the run goes on.

mod acquired;
mod global_state;
mod perform;
mod reads;
mod streams;

#[cfg(test)]
pub(in crate::engine) use acquired::drive_contradicting;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use global_state::GlobalState;
use streams::Streams;

use crate::compare::AwaitedIntents;
use crate::engine::clock::Clock;
use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::legacy_replies::LegacySources;
use crate::engine::machine::{
    AppendHeader, CallId, CallerAnswer, CallerTerms, ChildState, CommandId, DriverEnd, Input, Machine, MachineParts,
    RecoveryPause, RehearsedRun, StartAnswer,
};
use crate::engine::ports::client::Executor;
use crate::engine::ports::writer::Writer;
use crate::engine::run_metrics::RunMetrics;
use crate::engine::scheduler::mailbox::{CommandReply, CommandRequest, ExecutionSlot, Message};
use crate::engine::scheduler::registry::Registration;
use crate::engine::scheduler::spawn_policy_cell::SpawnPolicyCell;
use crate::names::Seq;
use crate::priority;
use crate::store::Claim;
use crate::workflow::{AttemptResult, Event, Mode, Plan, Run};

/// The caller who waits for a run's answer, and until when.
pub(super) struct WaitingCaller {
    pub answer_sender: oneshot::Sender<CallerAnswer>,
    pub may_fall_back: bool,
    /// A little before the caller's deadline, to leave time for recording the answer.
    pub answer_by: Instant,
    /// Between that and the caller's deadline: see [`CallerTerms::give_up_by`].
    pub give_up_by: Instant,
    /// See [`ArmRequest::awaited_intents`](crate::exchange::ArmRequest::awaited_intents).
    pub awaited_intents: AwaitedIntents,
}

/// The parts of a new driver.
pub(super) struct DriverParts {
    pub core: Arc<Core>,
    pub snapshot: Arc<FilesSnapshot>,
    pub plan: Arc<Plan>,
    pub run: Run,
    pub credentials: BTreeMap<String, String>,
    pub executor: Arc<dyn Executor>,
    /// `None` for a run that is not stored: a rehearsal, or a run of a route with `keep: none`.
    pub writer: Option<(Writer, AppendHeader)>,
    pub claim: Option<Claim>,
    /// Sequence number of the last durable event; 0 for a new run.
    pub durable_seq: Seq,
    pub clock: Clock,
    pub caller: Option<WaitingCaller>,
    /// Announces the result to requests with the same retry key.
    pub registration: Option<Registration>,
    /// Receives the run's messages; `None` for a run that is not stored.
    pub slot: Option<ExecutionSlot>,
    /// Gets the result of the run's first append.
    pub starter: Option<oneshot::Sender<StartAnswer>>,
    /// How many ancestors the run has; counted only in rehearsals, whose runs are not in the store.
    pub depth: u64,
    /// What is known of legacy's own calls and reads. Empty if the driver resumes a stored run, because it is kept in
    /// memory only.
    pub legacy_sources: LegacySources,
}

pub(super) struct Driver {
    core: Arc<Core>,
    machine: Machine,
    snapshot: Arc<FilesSnapshot>,
    credentials: BTreeMap<String, String>,
    executor: Arc<dyn Executor>,
    writer: Option<Writer>,
    clock: Clock,
    caller: Option<oneshot::Sender<CallerAnswer>>,
    starter: Option<oneshot::Sender<StartAnswer>>,
    registration: Option<Registration>,
    slot: Option<ExecutionSlot>,
    takes_messages: bool,
    metrics: RunMetrics,
    spawn_policy: Arc<SpawnPolicyCell>,
    depth: u64,
    legacy_sources: LegacySources,
    /// The senders of commands that wait for an answer.
    command_replies: HashMap<CommandId, oneshot::Sender<CommandReply>>,
    next_command_id: u64,
    calls: FuturesUnordered<BoxFuture<'static, (CallId, AttemptResult)>>,
    /// For each of `calls`: cancels it if it still waits for its turn at the service (`calls_max`, `rate`).
    withdrawals: Vec<(CallId, CancellationToken)>,
    streams: Streams,
    queries: FuturesUnordered<BoxFuture<'static, Input>>,
    timer: Option<Timestamp>,
    end: Option<DriverEnd>,
}

impl Driver {
    pub fn new(parts: DriverParts) -> Self {
        let DriverParts {
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
            legacy_sources,
        } = parts;
        let (writer, append_header) = writer.unzip();
        let terms = caller.as_ref().map(|caller| CallerTerms {
            may_fall_back: caller.may_fall_back,
            answer_by: clock.at(caller.answer_by),
            give_up_by: clock.at(caller.give_up_by),
            awaited_intents: caller.awaited_intents.clone(),
        });
        let shared = core.ports.store.is_shared().then(|| core.schedule.counted_runs.clone());
        let is_replay = legacy_sources.reads.as_ref().is_some_and(|reads| reads.is_replay());
        let metrics = RunMetrics::new(&run, durable_seq > Seq(0), writer.is_some(), shared).of_replay(is_replay);
        let machine = Machine::new(MachineParts {
            run,
            plan,
            decision_inputs: match legacy_sources.replies.clone() {
                None => snapshot.decision_inputs.clone(),
                Some(replies) => Arc::new((*snapshot.decision_inputs).clone().with_legacy_replies(Some(replies))),
            },
            durable_seq,
            append_header,
            claim,
            is_store_shared: core.ports.store.is_shared(),
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
            caller: caller.map(|caller| caller.answer_sender),
            starter,
            registration,
            takes_messages: slot.is_some(),
            slot,
            metrics,
            spawn_policy: Arc::default(),
            depth,
            legacy_sources,
            command_replies: HashMap::new(),
            next_command_id: 0,
            calls: FuturesUnordered::new(),
            withdrawals: Vec::new(),
            streams: Streams::default(),
            queries: FuturesUnordered::new(),
            timer: None,
            end: None,
        }
    }

    /// Records the run's first event.
    pub fn record_started(&mut self) {
        self.machine.record_started();
    }
    /// Records the events that a rerun takes over from the run that it supersedes.
    ///
    /// # Errors
    /// The events do not fit this run.
    pub fn record_taken_over(&mut self, events: Vec<Event>) -> Result<(), String> {
        self.machine.record_taken_over(events)
    }
    /// Pauses a new run in its first append.
    pub fn pause_before_start(&mut self, pause: Option<RecoveryPause>) {
        self.machine.pause_before_start(pause);
    }
    /// Continues a run that an earlier driver left unfinished; with `pause`, pauses it first.
    pub fn recover(&mut self, pause: Option<RecoveryPause>) {
        self.machine.recover(self.core.ports.store.is_shared(), pause);
    }
    /// The run's mode, which says what the run may send.
    pub fn mode(&self) -> Mode {
        self.machine.run().mode()
    }

    /// Drives the run until it has ended, is suspended, or the process drains.
    pub async fn drive(self) -> Run {
        self.drive_rehearsal().await.run
    }

    /// As [`Driver::drive`]; also returns the events of a rehearsal and the intents of the runs below it. Both are
    /// empty for other runs, and if a caller has got them with the answer.
    pub async fn drive_rehearsal(mut self) -> RehearsedRun {
        let mut global = GlobalState::of(&self.core, self.machine.run().started().parent.is_some());
        let mut inputs = VecDeque::from([Input::Begin { frozen: global.is_frozen, draining: global.is_draining }]);
        loop {
            while let Some(input) = inputs.pop_front() {
                inputs.extend(self.feed(input));
                if let Some(end) = self.end {
                    inputs.into_iter().for_each(|input| self.return_unfed(input));
                    self.handle_end(end);
                    return self.machine.into_rehearsed();
                }
            }
            let input = self.next_input(&mut global).await;
            inputs.extend(global.changes());
            inputs.extend(input);
        }
    }

    /// Feeds one input and performs the outputs; returns the input that performing them produced, if any.
    fn feed(&mut self, input: Input) -> Option<Input> {
        let mut feedback = None;
        // While a caller waits, and in a rehearsal, the run keeps the files that decided its request. But if it lacks a
        // service, a secret or a workflow, it takes the newest files: they may have come just before it recorded that,
        // and then no later reload would wake it.
        let keeps_files = self.caller.is_some() || self.mode() == Mode::Rehearse;
        if !keeps_files
            || self.machine.run().misses_something()
            || matches!(input, Input::Child { state: ChildState::NoWorkflow, .. })
        {
            self.use_newest_files();
        }
        if let Input::CallFinished { call, result } = &input {
            self.metrics.call_finished(*call, result, self.machine.plan());
            self.withdrawals.retain(|(known, _)| known != call);
        }
        for output in self.machine.step(self.clock.now(), input) {
            feedback = self.perform(output).or(feedback);
        }
        let withdrawn = self.withdrawals.iter().filter(|(call, _)| self.machine.withdraws(call));
        withdrawn.for_each(|(_, withdrawal)| withdrawal.cancel());
        self.metrics.update(self.machine.run());
        feedback
    }

    /// Takes over the services and secrets of the files in force. The run keeps its plan, except for what the files say
    /// of the services that it calls: if a service is no longer `keyed`, a call of unknown outcome is not repeated.
    fn use_newest_files(&mut self) {
        let newest = self.core.files.snapshot.load();
        if !Arc::ptr_eq(&newest, &self.snapshot) {
            self.machine.set_decision_inputs(newest.decision_inputs.clone());
            if let Some(plan) = newest.plan_as_loaded(self.machine.plan(), &self.core.files.limits) {
                self.machine.set_plan(plan);
            }
            self.snapshot = Arc::clone(&newest);
        }
    }

    /// Handles an input that was not fed because the driver has ended: the sender of a command is told to send it
    /// again, to the run's next driver.
    fn return_unfed(&mut self, input: Input) {
        match input {
            Input::Command { command_id, .. } => {
                if let Some(sender) = self.command_replies.remove(&command_id) {
                    let _ = sender.send(CommandReply::Retry); // the sender of the command may have stopped waiting
                }
            }
            Input::ChildEnded(_) => self.core.schedule.timers.wake_now(self.machine.run().id()),
            _ => {} // the next driver reads the state itself
        }
    }

    /// Waits for the next input; `None` where the global state may have changed.
    async fn next_input(&mut self, global: &mut GlobalState) -> Option<Input> {
        let timer = self.timer.map(|at| self.clock.until(at));
        tokio::select! {
            Some((call, result)) = self.calls.next(), if !self.calls.is_empty() => Some(Input::CallFinished { call, result }),
            Some(input) = self.queries.next(), if !self.queries.is_empty() => Some(input),
            result = append_finished(&mut self.writer) => Some(Input::AppendFinished(result)),
            message = next_message(&mut self.slot), if self.takes_messages => Some(self.input_of(message)),
            () = sleep(timer) => Some(Input::Time),
            () = caller_gone(&mut self.caller) => {
                self.caller = None;
                Some(Input::CallerGone)
            }
            () = global.changed() => None,
        }
    }

    /// Whether certainly no other process has acquired the run since its last append.
    fn is_owned(&self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.lease_proof().is_valid())
    }

    fn input_of(&mut self, message: Option<Message>) -> Input {
        match message {
            Some(Message::Command(request)) => {
                let CommandRequest { command, by, reply } = *request;
                let command_id = CommandId(self.next_command_id);
                self.next_command_id += 1;
                self.command_replies.insert(command_id, reply);
                Input::Command { command_id, command, by, owned: self.is_owned() }
            }
            Some(Message::ChildEnded(end)) => Input::ChildEnded(*end),
            Some(Message::DescendantWaits) => Input::DescendantWaits,
            None => Input::ExternalChange { reacquired: self.slot.as_ref().and_then(ExecutionSlot::reacquired) },
        }
    }
}

/// Drives a run in a task of its own. Dark runs and rehearsals, which answer no caller, stay on the runtime on which
/// this is called, because its threads have a lower priority.
pub(super) fn spawn(core: &Arc<Core>, driver: Driver, permit: Option<OwnedSemaphorePermit>) {
    match driver.mode() {
        Mode::Real => spawn_in_engine(core, driver, permit),
        Mode::Dark | Mode::Rehearse => {
            drop(core.process.tasks.spawn(priority::yielding(drive_until_cancelled(core, driver, permit))));
        }
    }
}

/// Drives a run in a task of the engine's runtime, whatever runtime this is called on.
pub(super) fn spawn_in_engine(core: &Arc<Core>, driver: Driver, permit: Option<OwnedSemaphorePermit>) {
    core.process.tasks.spawn_on(drive_until_cancelled(core, driver, permit), &core.process.runtime);
}

fn drive_until_cancelled(
    core: &Core,
    driver: Driver,
    permit: Option<OwnedSemaphorePermit>,
) -> impl Future<Output = ()> + Send + use<> {
    let cancelled = core.process.cancelled.clone();
    async move {
        let _permit = permit;
        // `None`: the process ends, and the next one continues the run from what is in the store.
        let _run = cancelled.run_until_cancelled(driver.drive()).await;
    }
}

async fn append_finished(writer: &mut Option<Writer>) -> Result<(), crate::store::AppendError> {
    match writer {
        Some(writer) => writer.finished().await,
        None => std::future::pending().await,
    }
}

/// The next message; `None` where something outside the run may have changed.
async fn next_message(slot: &mut Option<ExecutionSlot>) -> Option<Message> {
    match slot {
        Some(slot) => slot.next().await,
        None => std::future::pending().await,
    }
}

/// Sleeps for this duration; without a duration, for ever.
async fn sleep(timer: Option<Duration>) {
    match timer {
        Some(timer) => tokio::time::sleep(timer).await,
        None => std::future::pending().await,
    }
}

async fn caller_gone(caller: &mut Option<oneshot::Sender<CallerAnswer>>) {
    match caller {
        Some(caller) => caller.closed().await,
        None => std::future::pending().await,
    }
}
