//! The results of pending requests, with injected faults; crashes and recovery of a run; and the invariants at its end.
//!
//! The codes in violations: I1, no acknowledged event is lost, and no effect is performed without an event; I2, a step
//! has one outcome; I3, no effect is performed twice; I4, the stored events fold to a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Crash, Pending, Rig, machine};
use crate::engine::machine::{
    CallRequest, ChildEnd, ChildState, CommandDelivery, CommandId, DriverEnd, Input, RecoveryPause,
};
use crate::names::{RunId, Seq};
use crate::store::{Append, AppendError};
use crate::workflow::{
    AttemptResult, CheckpointAnswer, ControlCommand, EffectClass, Event, LockPosition, RunStatus, StepPart, fold,
};

impl Rig {
    /// Ends a pending request: the input with its result.
    pub fn resolve(&mut self, pending: Pending) -> Input {
        let fault = self.faults.as_mut().and_then(|faults| {
            let is_faulty = faults.random.u8(0..100) < faults.percent;
            is_faulty.then(|| faults.random.u8(0..4))
        });
        match pending {
            Pending::Append(append) => match fault {
                Some(0) => Input::AppendFinished(Err(AppendError::Refused("injected".into()))),
                Some(1) => Input::AppendFinished(Err(AppendError::Unavailable("injected".into()))),
                Some(_) => {
                    self.write(&append);
                    Input::AppendFinished(Err(AppendError::Unavailable("stored, injected".into())))
                }
                None => {
                    self.write(&append);
                    self.acknowledged = self.stored.len();
                    drop(append);
                    Input::AppendFinished(Ok(()))
                }
            },
            Pending::Call(call) => {
                let result = match fault {
                    Some(0) => AttemptResult::NotSent("injected".into()),
                    Some(1) => AttemptResult::TimedOut("injected".into()),
                    Some(2) => {
                        self.record_arrival(&call);
                        AttemptResult::CutOff("done, injected".into())
                    }
                    Some(_) => reply(429, json!({})),
                    None => {
                        self.record_arrival(&call);
                        reply(200, json!({ "id": 1, "found": true }))
                    }
                };
                Input::CallFinished { call: call.id, result }
            }
            Pending::Lock(query) => {
                let seen = match fault {
                    Some(0) => None,
                    Some(1) => Some(LockPosition::Behind { holder: RunId(Uuid::from_u128(9)) }),
                    _ => Some(LockPosition::First),
                };
                Input::Lock { query, seen }
            }
            Pending::Child(spec) => {
                let state = match fault {
                    Some(0) => ChildState::Running,
                    _ => ChildState::Ended(Box::new(child_end(spec.child))),
                };
                Input::Child { child: spec.child, state }
            }
            Pending::ChildCommand(child) => Input::ChildCommandDelivered { child, delivery: CommandDelivery::Done },
            Pending::Commands => Input::StoreCommands { commands: Some(Vec::new()), owned: true },
            Pending::CommandAnswer => Input::CommandAnswerStored,
        }
    }

    /// Stores an append; a batch is stored only once. Checks that sequence numbers are contiguous.
    fn write(&mut self, append: &Append) {
        if !self.batches.insert(append.batch) {
            return;
        }
        if append.first != Seq(self.stored.len() as u64 + 1) {
            self.report(format!("an append begins at {} and the store has {}", append.first, self.stored.len()));
        }
        self.stored.extend(append.events.iter().cloned());
        if append.summary.status.is_final()
            && let Ok(run) = fold(self.stored.iter().map(|(_, event)| event))
            && run.children().next().is_some()
        {
            self.report(format!("the run is {} while a child that it started is open", append.summary.status.as_str()));
        }
    }

    fn record_arrival(&mut self, call: &CallRequest) {
        if call.attempt.effect == EffectClass::Read {
            return;
        }
        if self.told_nothing_done {
            let step = call.attempt.step.clone();
            self.report(format!("`{step}` is done after the caller was told that nothing was done"));
        }
        let key = call.attempt.key.clone().unwrap_or_default();
        let is_keyed = call.attempt.repeatable;
        let times = self.arrivals.entry(key).or_default();
        *times += 1;
        if *times > 1 && !is_keyed {
            let step = call.attempt.step.clone();
            self.report(format!("I3: `{step}` was done twice"));
        }
    }

    /// Crashes the process; another driver continues from the stored events.
    pub fn crash(&mut self, crash: Crash) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Append(append) if crash.appends_written => self.write(&append),
                Pending::Call(call) if crash.calls_arrived => self.record_arrival(&call),
                _ => {}
            }
        }
        self.recover();
    }

    /// Loads the run from the stored events into another driver, unless it has ended or was never stored.
    pub fn recover(&mut self) {
        self.load(None);
    }

    /// Like [`Rig::recover`], on a store that is a copy: the run is to be paused.
    pub fn recover_copy(&mut self) {
        self.load(Some(RecoveryPause { by: "pointsman".into(), reason: "the store is a copy".into() }));
    }

    fn load(&mut self, pause: Option<RecoveryPause>) {
        self.pending.clear();
        (self.end, self.timer) = (None, None);
        self.acknowledged = self.stored.len();
        let Some(run) = self.acknowledged_run() else {
            self.end = Some(DriverEnd::Discarded);
            return;
        };
        if run.is_final() {
            self.end = Some(DriverEnd::Ended);
            return;
        }
        self.fence += 1;
        self.machine =
            machine(&self.plan, &self.decision_inputs, run, self.stored.len() as u64, self.fence, None, self.now);
        self.machine.recover(false, pause);
        self.mailbox = self.next_human_action().into_iter().collect();
        self.begin();
    }

    fn command_input(&mut self, command: ControlCommand) -> Input {
        self.commands_sent += 1;
        Input::Command { command_id: CommandId(self.commands_sent), command, by: "ann".into(), owned: true }
    }

    pub fn cancel(&mut self, compensate: bool) -> Input {
        self.command_input(ControlCommand::Cancel { compensate, reason: None, automatic: false })
    }
    pub fn pause(&mut self) -> Input {
        self.command_input(ControlCommand::Pause { reason: None })
    }
    pub fn resume(&mut self) -> Input {
        self.command_input(ControlCommand::Resume { reason: None })
    }

    /// The command of a person that lets the run go on, or cancels it if it is paused over a conflict; `None` if it
    /// waits for no command, answer or signal.
    fn next_human_action(&mut self) -> Option<Input> {
        let run = self.machine.run();
        let asked = run.open_checkpoints().next().cloned();
        let command = match run.status() {
            RunStatus::Paused if run.conflicts().is_empty() => ControlCommand::Resume { reason: None },
            RunStatus::Paused => ControlCommand::Cancel { compensate: false, reason: None, automatic: false },
            RunStatus::WaitingCheckpoint => {
                let approved = asked.as_ref()?.items.iter().map(|item| item.index).collect();
                let said = CheckpointAnswer { approve: true, values: None, approved, struck: Vec::new(), note: None };
                ControlCommand::Answer { checkpoint: asked?.checkpoint, answer: said }
            }
            RunStatus::WaitingSignal => ControlCommand::Signal { name: "go".into(), payload: Arc::default(), id: None },
            _ => return None,
        };
        Some(self.command_input(command))
    }

    /// Moves the run to its end: answers pending requests in order, lets time pass, lifts the freeze, acts for people,
    /// and wakes the run where it is suspended.
    pub fn finish(&mut self) {
        for _ in 0..400 {
            match self.end {
                Some(DriverEnd::Ended | DriverEnd::Discarded) => return self.check(),
                Some(DriverEnd::Lost | DriverEnd::Contradicted | DriverEnd::OwnershipUncertain) => {
                    self.report("the driver gave up the run, though no other process exists");
                    return;
                }
                Some(DriverEnd::Suspended { .. } | DriverEnd::Draining) => {
                    if let Some(DriverEnd::Suspended { wake: Some(wake), .. }) = self.end {
                        self.now = self.now.max(wake);
                    }
                    self.frozen = false;
                    self.recover();
                    continue;
                }
                None => {}
            }
            if let Some(message) = self.mailbox.pop_front() {
                self.step(message);
                continue;
            }
            let input = match (self.pending.pop_front(), self.timer) {
                (Some(pending), _) => self.resolve(pending),
                (None, Some(at)) => {
                    self.now = self.now.max(at);
                    Input::Time
                }
                (None, None) if self.frozen => {
                    self.frozen = false;
                    Input::Freeze(false)
                }
                (None, None) => match self.next_human_action() {
                    Some(action) => action,
                    None => {
                        let status = self.machine.run().status();
                        self.report(format!("the run is {status:?}, and nothing is pending"));
                        return;
                    }
                },
            };
            self.step(input);
        }
        let kinds: Vec<_> = self.stored.iter().map(|(_, event)| event.kind()).collect();
        self.report(format!("the run does not end: {kinds:?}"));
    }

    /// Checks the invariants of a run that has ended.
    fn check(&mut self) {
        let events: Vec<_> = self.stored.iter().map(|(_, event)| event.clone()).collect();
        if events.is_empty() {
            if !self.arrivals.is_empty() {
                self.report("I1: an effect was performed, and no event records it");
            }
            return;
        }
        match fold(&events) {
            Err(misfit) => self.report(format!("I4: the events do not fold: {misfit}")),
            Ok(run) if !run.is_final() => self.report(format!("the run is still {:?}", run.status())),
            Ok(_) => {}
        }
        let (mut outcomes, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for event in &events {
            match event {
                Event::StepFinished(done)
                    if done.part == StepPart::Do && !outcomes.insert((done.step.clone(), done.item)) =>
                {
                    self.report(format!("I2: `{}` has two outcomes", done.step));
                }
                Event::StepStarted(started) => keys.extend(started.key.clone()),
                _ => {}
            }
        }
        let unrecorded: Vec<_> = self.arrivals.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        if !unrecorded.is_empty() {
            self.report(format!("I1: {unrecorded:?} were performed, and no event records them"));
        }
        if self.stored.windows(2).any(|pair| pair[0].0 > pair[1].0) {
            self.report("time goes back");
        }
    }
}

pub(super) fn child_end(child: RunId) -> ChildEnd {
    ChildEnd {
        child,
        status: RunStatus::Completed,
        output: Arc::new(json!({})),
        note: None,
        failure: None,
        tree: None,
        sensitive: Vec::new(),
    }
}

pub(super) fn reply(status: u16, output: Value) -> AttemptResult {
    AttemptResult::Reply { status, headers: BTreeMap::new(), output: Arc::new(output), retry_after_ms: None }
}
