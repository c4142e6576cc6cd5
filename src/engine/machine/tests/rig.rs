//! A simulated environment for one machine: a store, services, locks and children that answer when the test decides.
//!
//! It checks every output: no effect is sent and nobody is answered before the append was acknowledged, and one append
//! is in flight at a time. Violations are collected, so that an exhaustive search can report all of them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::compare::AwaitedIntents;
use crate::engine::machine::{
    AppendHeader, CallRequest, CallerAnswer, CallerTerms, ChildSpec, CommandAnswer, DriverEnd, Input, LockQuery,
    Machine, MachineParts, Output, StartAnswer, WakeCause,
};
use crate::exchange::ArmReply;
use crate::limits::Limits;
use crate::names::{Fence, PlanId, RunId, Seq, ServiceName, WorkerId};
use crate::store::{Append, Priority};
use crate::workflow::{
    ChildEvent, DecisionInputs, DeclaredNames, EffectClass, Event, Mode, Plan, Run, RunStarted, RunStatus, evolve, fold,
};

/// A request of the machine that was not answered yet.
pub(super) enum Pending {
    Append(Arc<Append>),
    Call(CallRequest),
    Lock(LockQuery),
    Child(ChildSpec),
    ChildCommand(RunId),
    Commands,
    CommandAnswer,
}

/// Which pending requests took effect, though the process crashed before it received their results.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub appends_written: bool,
    pub calls_arrived: bool,
}

/// Random faults.
pub(super) struct Faults {
    pub random: fastrand::Rng,
    /// The percentage of requests that fail.
    pub percent: u8,
}

pub(super) struct Rig {
    pub plan: Arc<Plan>,
    pub decision_inputs: Arc<DecisionInputs>,
    pub machine: Machine,
    pub now: Timestamp,
    pub frozen: bool,
    /// The stored events, of which the first `acknowledged` are known to the machine.
    pub stored: Vec<(Timestamp, Event)>,
    pub acknowledged: usize,
    pub batches: HashSet<Uuid>,
    pub pending: VecDeque<Pending>,
    /// Messages in the run's mailbox.
    pub mailbox: VecDeque<Input>,
    pub timer: Option<Timestamp>,
    pub end: Option<DriverEnd>,
    /// Arrivals of private and shared calls, by key.
    pub arrivals: BTreeMap<String, usize>,
    pub caller: Vec<CallerAnswer>,
    /// Whether the caller was told that nothing was done: from then on nothing may be done.
    pub told_nothing_done: bool,
    pub fence: u64,
    pub commands_sent: u64,
    pub faults: Option<Faults>,
    pub violations: Vec<String>,
    /// The pauses before appends.
    pub pauses: Vec<std::time::Duration>,
}

pub(super) fn plan(definition: &Value) -> Arc<Plan> {
    plan_with(definition, true)
}

/// A plan that was checked with files in which the service `stock` is declared as keyed, or not.
pub(super) fn plan_with(definition: &Value, is_stock_keyed: bool) -> Arc<Plan> {
    let services = BTreeMap::from([(ServiceName::from("stock"), is_stock_keyed), (ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    Arc::new(Plan::from_source(definition, &known).unwrap_or_else(|problems| panic!("{problems:#?}")))
}

fn decision_inputs() -> Arc<DecisionInputs> {
    let (stock, bank) = (ServiceName::from("stock"), ServiceName::from("bank"));
    let services = [(&stock, "http://stock".to_owned()), (&bank, "http://bank".to_owned())];
    Arc::new(DecisionInputs::new(services, [], [7; 32], 100, 100))
}

fn new_run(plan: &Plan, mode: Mode, now: Timestamp) -> Run {
    let started = RunStarted {
        run: RunId(Uuid::from_u128(1)),
        workflow: plan.workflow.clone(),
        plan: PlanId::clone(&plan.id),
        mode,
        child_plans: None,
        route: None,
        started: now,
        request: Arc::new(json!({ "body": { "items": [1, 2] } })),
        credentials: Vec::new(),
        sealed: None,
        legacy: None,
        injected: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        route_above: None,
        approval_above: None,
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by: None,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: false,
        sensitive_paths: Vec::new(),
        until: None,
    };
    evolve(None, &Event::RunStarted(Arc::new(started))).unwrap()
}

impl Rig {
    /// A new run whose caller waits for 20 s and whose request may go back to legacy.
    pub fn new(plan: &Arc<Plan>) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let answer_by = now + SignedDuration::from_secs(20);
        let give_up_by = now + SignedDuration::from_secs(25);
        let caller = CallerTerms { may_fall_back: true, answer_by, give_up_by, awaited_intents: AwaitedIntents::None };
        let mut rig = Self {
            plan: plan.clone(),
            decision_inputs: decision_inputs(),
            machine: machine(plan, &decision_inputs(), new_run(plan, Mode::Real, now), 0, 1, Some(caller), now),
            now,
            frozen: false,
            stored: Vec::new(),
            acknowledged: 0,
            batches: HashSet::new(),
            pending: VecDeque::new(),
            mailbox: VecDeque::new(),
            timer: None,
            end: None,
            arrivals: BTreeMap::new(),
            caller: Vec::new(),
            told_nothing_done: false,
            fence: 1,
            commands_sent: 0,
            faults: None,
            violations: Vec::new(),
            pauses: Vec::new(),
        };
        rig.machine.record_started();
        rig
    }

    pub fn begin(&mut self) {
        self.step(Input::Begin { frozen: self.frozen, draining: false });
    }

    /// Feeds an input and performs every output.
    pub fn step(&mut self, input: Input) {
        self.step_until(input, usize::MAX);
    }

    /// Feeds an input and performs at most this many outputs; returns how many were performed.
    pub fn step_until(&mut self, input: Input, outputs_max: usize) -> usize {
        let mut inputs = VecDeque::from([input]);
        let mut outputs = 0;
        while let Some(input) = inputs.pop_front() {
            if self.end.is_some() {
                break;
            }
            for output in self.machine.step(self.now, input) {
                if outputs >= outputs_max {
                    return outputs;
                }
                outputs += 1;
                inputs.extend(self.perform(output));
            }
        }
        outputs
    }

    pub fn report(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub fn acknowledged_run(&self) -> Option<Run> {
        fold(self.stored[..self.acknowledged].iter().map(|(_, event)| event)).ok()
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        if self.end.is_some() {
            self.report(format!("an output after the end: {output:?}"));
        }
        match output {
            Output::Append(append, pause) => {
                self.pauses.push(pause);
                if self.pending.iter().any(|pending| matches!(pending, Pending::Append(_))) {
                    self.report("two appends are in flight");
                }
                self.pending.push_back(Pending::Append(append));
            }
            Output::Call(call) => self.record_call(call),
            Output::Durable(seq) if seq != Seq(self.acknowledged as u64) => {
                self.report(format!("{seq} is reported as durable, and {} are acknowledged", self.acknowledged));
            }
            Output::QueryLock(query, _) => self.pending.push_back(Pending::Lock(query)),
            Output::EnsureChild(spec) => {
                let starts_child = |(_, event): &(_, Event)| matches!(event, Event::Child(ChildEvent::Started { child, .. }) if *child == spec.child);
                if !self.stored[..self.acknowledged].iter().any(starts_child) {
                    self.report("a child is begun whose parent's event is not acknowledged");
                }
                self.pending.push_back(Pending::Child(spec));
            }
            Output::CommandChild(child, _) => self.pending.push_back(Pending::ChildCommand(child)),
            Output::ReadCommands => self.pending.push_back(Pending::Commands),
            Output::StoreCommandAnswer(..) => self.pending.push_back(Pending::CommandAnswer),
            Output::AnswerCommand(_, CommandAnswer::Done(run)) if run.seq > Seq(self.acknowledged as u64) => {
                self.report(format!("a command is answered with {}, which is not acknowledged", run.seq));
            }
            Output::AnswerStarter(StartAnswer::Stored) if self.acknowledged == 0 => {
                self.report("the starter is answered before the first event is acknowledged");
            }
            Output::AnswerCaller(answer) => self.caller_answered(answer),
            Output::Timer(at) => self.timer = at,
            Output::CloseMailbox { .. } => {
                if self.faults.as_mut().is_some_and(|faults| faults.random.u8(0..4) == 0) {
                    self.mailbox.push_back(Input::ExternalChange { reacquired: None });
                }
                return Some(Input::MailboxClosed(self.mailbox.is_empty()));
            }
            Output::End(end) => {
                if let DriverEnd::Suspended { cause: WakeCause::Nothing, .. } = end {
                    self.report("the run is suspended, and nothing will wake it");
                }
                self.end = Some(end);
            }
            Output::Durable(_)
            | Output::AnswerCommand(..)
            | Output::AnswerStarter(_)
            | Output::WebhookMessagesDurable
            | Output::PinCollision(_)
            | Output::SetSpawnPolicy(_)
            | Output::RetainRetryKey
            | Output::FirstEventDurable
            | Output::GiveRetryKeyToLegacy
            | Output::Announce(_)
            | Output::Retract
            | Output::Measure(_)
            | Output::StoreRefused(_) => {}
        }
        None
    }

    /// Checks that the `StepStarted` of a private or shared call was acknowledged.
    fn record_call(&mut self, call: CallRequest) {
        let attempt = &call.attempt;
        let starts_attempt = |(_, event): &(_, Event)| {
            matches!(event, Event::StepStarted(started)
                if started.step == attempt.step && started.item == attempt.item && started.part == attempt.part
                    && started.attempt == attempt.attempt)
        };
        if attempt.effect != EffectClass::Read && !self.stored[..self.acknowledged].iter().any(starts_attempt) {
            let (step, number) = (attempt.step.clone(), attempt.attempt);
            self.report(format!("attempt {number} of `{step}` is sent before its event is acknowledged"));
        }
        self.pending.push_back(Pending::Call(call));
    }

    /// Checks that the caller is answered once, and only with acknowledged events.
    fn caller_answered(&mut self, answer: CallerAnswer) {
        let stored = self.acknowledged_run();
        let is_stored = match &answer {
            CallerAnswer::OtherRun { .. } => true,
            CallerAnswer::Reply(reply) => match (&**reply, &stored) {
                (ArmReply::Answer(_), run) => {
                    run.as_ref().is_some_and(|run| run.answer().is_some() || run.pending().is_some())
                }
                (ArmReply::Abandoned(abandoned), None) => abandoned.run.is_none(),
                (ArmReply::Abandoned(_), Some(run)) => run.status() == RunStatus::Abandoned,
                (ArmReply::Refused(problem, _), Some(run)) => match problem.kind.as_str() {
                    "run-paused" if self.machine.descendant_waits => true,
                    "run-paused" => matches!(run.status(), RunStatus::Paused | RunStatus::WaitingCheckpoint),
                    "outcome-unknown" | "run-goes-on" => true,
                    _ => run.failure().is_some(),
                },
                (ArmReply::Refused(problem, _), None) => problem.kind == "outcome-unknown",
            },
        };
        if !is_stored {
            let stored = stored.map(|run| run.status());
            self.report(format!("the caller is answered {answer:?}, and the store has {stored:?}"));
        }
        if !self.caller.is_empty() {
            self.report("the caller is answered twice");
        }
        if let CallerAnswer::Reply(reply) = &answer {
            self.told_nothing_done |= match &**reply {
                ArmReply::Abandoned(_) => true,
                ArmReply::Refused(problem, _) => problem.detail.contains("Nothing was done"),
                ArmReply::Answer(_) => false,
            };
        }
        if self.told_nothing_done && !self.arrivals.is_empty() {
            self.report("the caller is told that nothing was done, and something was");
        }
        self.caller.push(answer);
    }

    /// The status of the stored run.
    pub fn status(&self) -> Option<RunStatus> {
        fold(self.stored.iter().map(|(_, event)| event)).ok().map(|run| run.status())
    }
}

pub(super) fn machine(
    plan: &Arc<Plan>,
    decision_inputs: &Arc<DecisionInputs>,
    run: Run,
    durable_seq: u64,
    fence: u64,
    caller: Option<CallerTerms>,
    now: Timestamp,
) -> Machine {
    let append_header =
        AppendHeader { priority: Priority::Real, worker: WorkerId(Uuid::from_u128(2)), fence: Fence(fence) };
    Machine::new(MachineParts {
        run,
        plan: plan.clone(),
        decision_inputs: decision_inputs.clone(),
        durable_seq: Seq(durable_seq),
        append_header: Some(append_header),
        claim: None,
        is_store_shared: false,
        caller,
        has_starter: false,
        seed: fence,
        now,
    })
}
