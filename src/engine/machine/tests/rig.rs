//! A world for one machine: a store, services, locks and children that answer when the test says so.
//!
//! It checks every output as it comes: nothing leaves and nobody is answered before the append was acknowledged, and one
//! append is under way at a time. What is wrong is collected, so that a search can name all of it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::machine::{
    CallerAnswer, CallerTerms, ChildSpec, Departure, End, Input, LockLook, Machine, MachineParts, OrderAnswer, Output,
    RestCause, StartAnswer, Writes,
};
use crate::exchange::ArmReply;
use crate::limits::Limits;
use crate::names::{Fence, PlanId, RunId, Seq, ServiceName, WorkerId};
use crate::store::{Append, Priority};
use crate::workflow::{
    ChildEvent, EffectClass, Event, Known, Mode, Plan, Run, RunStarted, RunStatus, World, evolve, fold,
};

/// Something that is under way and will be answered.
pub(super) enum Pending {
    Append(Arc<Append>),
    Call(Departure),
    Lock(LockLook),
    Child(ChildSpec),
    Told(RunId),
    Orders,
    Settled,
}

/// Which of the things under way happened though the process ended before it heard so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    pub appends_written: bool,
    pub calls_arrived: bool,
}

/// What may go wrong, drawn from a seed.
pub(super) struct Luck {
    pub random: fastrand::Rng,
    /// Of a hundred.
    pub percent: u8,
}

pub(super) struct Rig {
    pub plan: Arc<Plan>,
    pub world: Arc<World>,
    pub machine: Machine,
    pub now: Timestamp,
    pub frozen: bool,
    /// What the store holds, and how many of these events were acknowledged.
    pub kept: Vec<(Timestamp, Event)>,
    pub acknowledged: usize,
    pub batches: HashSet<Uuid>,
    pub pending: VecDeque<Pending>,
    /// Messages in the run's mailbox.
    pub mailbox: VecDeque<Input>,
    pub timer: Option<Timestamp>,
    pub end: Option<End>,
    /// Arrivals of private and shared calls, by key.
    pub arrivals: BTreeMap<String, usize>,
    pub caller: Vec<CallerAnswer>,
    /// The caller was told that nothing was done and nothing will be.
    pub not_done: bool,
    pub fence: u64,
    pub tickets: u64,
    pub luck: Option<Luck>,
    pub wrong: Vec<String>,
    /// The pauses that appends were handed in after.
    pub pauses: Vec<std::time::Duration>,
    /// How many steps were taken, and with how many outputs the next crash comes.
    pub steps: usize,
}

pub(super) fn plan(definition: &Value) -> Arc<Plan> {
    let services = BTreeMap::from([(ServiceName::from("stock"), true), (ServiceName::from("bank"), false)]);
    let known =
        Known { services: &services, secrets: &BTreeSet::new(), has_store_key: false, limits: &Limits::default() };
    Arc::new(Plan::from_source(definition, &known).unwrap_or_else(|problems| panic!("{problems:#?}")))
}

fn world() -> Arc<World> {
    let (stock, bank) = (ServiceName::from("stock"), ServiceName::from("bank"));
    let services = [(&stock, "http://stock".to_owned()), (&bank, "http://bank".to_owned())];
    Arc::new(World::new(services, [], [7; 32], 100, 100))
}

fn first(plan: &Plan, mode: Mode, now: Timestamp) -> Run {
    let started = RunStarted {
        run: RunId(Uuid::from_u128(1)),
        workflow: plan.workflow.clone(),
        plan: PlanId::clone(&plan.id),
        mode,
        route: None,
        started: now,
        request: Arc::new(json!({ "body": { "items": [1, 2] } })),
        credentials: Vec::new(),
        sealed: None,
        legacy: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        rerun_of: None,
        by: None,
        bytes_marked: true,
        sensitive: false,
        until: None,
    };
    evolve(None, &Event::RunStarted(Arc::new(started))).unwrap()
}

impl Rig {
    /// A new run with a caller who may be given back to legacy, and waits for 20 s.
    pub fn new(plan: &Arc<Plan>) -> Self {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let caller = CallerTerms { may_fall_back: true, until: now + SignedDuration::from_secs(20) };
        let mut rig = Self {
            plan: plan.clone(),
            world: world(),
            machine: machine(plan, &world(), first(plan, Mode::Real, now), 0, 1, Some(caller), now),
            now,
            frozen: false,
            kept: Vec::new(),
            acknowledged: 0,
            batches: HashSet::new(),
            pending: VecDeque::new(),
            mailbox: VecDeque::new(),
            timer: None,
            end: None,
            arrivals: BTreeMap::new(),
            caller: Vec::new(),
            not_done: false,
            fence: 1,
            tickets: 0,
            luck: None,
            wrong: Vec::new(),
            pauses: Vec::new(),
            steps: 0,
        };
        rig.machine.born();
        rig
    }

    pub fn begin(&mut self) {
        self.step(Input::Begin { frozen: self.frozen, draining: false });
    }

    /// Feeds an input and performs every output.
    pub fn step(&mut self, input: Input) {
        self.step_until(input, usize::MAX);
    }

    /// Feeds an input and performs only so many of its outputs; how many there were.
    pub fn step_until(&mut self, input: Input, outputs_max: usize) -> usize {
        self.steps += 1;
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

    pub fn say(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub fn stored_run(&self) -> Option<Run> {
        fold(self.kept[..self.acknowledged].iter().map(|(_, event)| event)).ok()
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        if self.end.is_some() {
            self.say(format!("an output after the end: {output:?}"));
        }
        match output {
            Output::Append(append, pause) => {
                self.pauses.push(pause);
                if self.pending.iter().any(|pending| matches!(pending, Pending::Append(_))) {
                    self.say("two appends are under way");
                }
                self.pending.push_back(Pending::Append(append));
            }
            Output::Call(departure) => self.departs(departure),
            Output::Stored(seq) if seq != Seq(self.acknowledged as u64) => {
                self.say(format!("{seq} counts as stored, and {} are acknowledged", self.acknowledged));
            }
            Output::LookAtLock(look, _) => self.pending.push_back(Pending::Lock(look)),
            Output::LookAfterChild(spec) => {
                let begun = |(_, event): &(_, Event)| matches!(event, Event::Child(ChildEvent::Started { child, .. }) if *child == spec.child);
                if !self.kept[..self.acknowledged].iter().any(begun) {
                    self.say("a child is looked after whose parent's event is not in the store");
                }
                self.pending.push_back(Pending::Child(spec));
            }
            Output::TellChild(child, _) => self.pending.push_back(Pending::Told(child)),
            Output::ReadOrders => self.pending.push_back(Pending::Orders),
            Output::SettleOrder(..) => self.pending.push_back(Pending::Settled),
            Output::AnswerOrder(_, OrderAnswer::Done(run)) if run.seq > Seq(self.acknowledged as u64) => {
                self.say(format!("an order is answered with {}, which is not in the store", run.seq));
            }
            Output::AnswerStarter(StartAnswer::Stored) if self.acknowledged == 0 => {
                self.say("the starter is answered before the birth is in the store");
            }
            Output::AnswerCaller(answer) => self.caller_answered(answer),
            Output::Timer(at) => self.timer = at,
            Output::CloseMailbox { .. } => {
                if self.luck.as_mut().is_some_and(|luck| luck.random.u8(0..4) == 0) {
                    self.mailbox.push_back(Input::Changed { taken_again: None });
                }
                return Some(Input::MailboxClosed(self.mailbox.is_empty()));
            }
            Output::End(end) => {
                if let End::Resting { cause: RestCause::Nothing, .. } = end {
                    self.say("it rests, and nothing would wake it");
                }
                self.end = Some(end);
            }
            Output::Stored(_)
            | Output::AnswerOrder(..)
            | Output::AnswerStarter(_)
            | Output::MessagesStored
            | Output::PinCollision(_)
            | Output::Spawn(_)
            | Output::KeepKey
            | Output::Born
            | Output::GiveKeyBack
            | Output::Announce(_)
            | Output::Retract
            | Output::Measure(_) => {}
        }
        None
    }

    /// A private or shared call leaves only after its event was acknowledged.
    fn departs(&mut self, departure: Departure) {
        let attempt = &departure.attempt;
        let begun = |(_, event): &(_, Event)| {
            matches!(event, Event::StepStarted(started)
                if started.step == attempt.step && started.item == attempt.item && started.part == attempt.part
                    && started.attempt == attempt.attempt)
        };
        if attempt.effect != EffectClass::Read && !self.kept[..self.acknowledged].iter().any(begun) {
            let (step, number) = (attempt.step.clone(), attempt.attempt);
            self.say(format!("attempt {number} of `{step}` leaves before its event is in the store"));
        }
        self.pending.push_back(Pending::Call(departure));
    }

    /// A caller is answered only with what the store holds.
    fn caller_answered(&mut self, answer: CallerAnswer) {
        let stored = self.stored_run();
        let is_stored = match &answer {
            CallerAnswer::OtherRun { .. } => true,
            CallerAnswer::Reply(reply) => match (&**reply, &stored) {
                (ArmReply::Answer(_), run) => {
                    run.as_ref().is_some_and(|run| run.answer().is_some() || run.pending().is_some())
                }
                (ArmReply::Abandoned(abandoned), None) => abandoned.run.is_none(),
                (ArmReply::Abandoned(_), Some(run)) => run.status() == RunStatus::Abandoned,
                (ArmReply::Refused(problem, _), Some(run)) => match problem.kind.as_str() {
                    "run-paused" => matches!(run.status(), RunStatus::Paused | RunStatus::WaitingCheckpoint),
                    "outcome-unknown" | "run-goes-on" => true,
                    _ => run.failure().is_some(),
                },
                (ArmReply::Refused(problem, _), None) => problem.kind == "outcome-unknown",
            },
        };
        if !is_stored {
            let stored = stored.map(|run| run.status());
            self.say(format!("the caller is answered {answer:?}, and the store has {stored:?}"));
        }
        if !self.caller.is_empty() {
            self.say("the caller is answered twice");
        }
        if let CallerAnswer::Reply(reply) = &answer {
            self.not_done |= match &**reply {
                ArmReply::Abandoned(_) => true,
                ArmReply::Refused(problem, _) => problem.detail.contains("Nothing was done"),
                ArmReply::Answer(_) => false,
            };
        }
        if self.not_done && !self.arrivals.is_empty() {
            self.say("the caller is told that nothing was done, and something was");
        }
        self.caller.push(answer);
    }

    /// The run as the store has it.
    pub fn status(&self) -> Option<RunStatus> {
        fold(self.kept.iter().map(|(_, event)| event)).ok().map(|run| run.status())
    }
}

pub(super) fn machine(
    plan: &Arc<Plan>,
    world: &Arc<World>,
    run: Run,
    stored: u64,
    fence: u64,
    caller: Option<CallerTerms>,
    now: Timestamp,
) -> Machine {
    let writes = Writes { priority: Priority::Live, worker: WorkerId(Uuid::from_u128(2)), fence: Fence(fence) };
    Machine::new(MachineParts {
        run,
        plan: plan.clone(),
        world: world.clone(),
        stored: Seq(stored),
        writes: Some(writes),
        claim: None,
        caller,
        has_starter: false,
        seed: fence,
        now,
    })
}
