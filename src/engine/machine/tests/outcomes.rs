//! What the world does with what is under way, and what becomes of a run when its process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Crash, Pending, Rig, machine};
use crate::engine::machine::{ChildEnd, ChildSeen, Delivery, Departure, End, Input, Ticket};
use crate::names::{RunId, Seq};
use crate::store::{Append, AppendError};
use crate::workflow::{EffectClass, Event, Heard, LockSeen, Order, Part, RunStatus, Said, fold};

impl Rig {
    /// Something under way comes to its end: the input that tells so.
    pub fn resolve(&mut self, pending: Pending) -> Input {
        let lot = self.luck.as_mut().and_then(|luck| {
            let is_bad = luck.random.u8(0..100) < luck.percent;
            is_bad.then(|| luck.random.u8(0..4))
        });
        match pending {
            Pending::Append(append) => match lot {
                Some(0) => Input::Appended(Err(AppendError::Refused("by lot".into()))),
                Some(1) => Input::Appended(Err(AppendError::Unavailable("by lot".into()))),
                Some(_) => {
                    self.write(&append);
                    Input::Appended(Err(AppendError::Unavailable("written, by lot".into())))
                }
                None => {
                    self.write(&append);
                    self.acknowledged = self.kept.len();
                    drop(append);
                    Input::Appended(Ok(()))
                }
            },
            Pending::Call(departure) => {
                let heard = match lot {
                    Some(0) => Heard::NotSent("by lot".into()),
                    Some(1) => Heard::TimedOut("by lot".into()),
                    Some(2) => {
                        self.arrives(&departure);
                        Heard::CutOff("done, by lot".into())
                    }
                    Some(_) => reply(429, json!({})),
                    None => {
                        self.arrives(&departure);
                        reply(200, json!({ "id": 1, "found": true }))
                    }
                };
                Input::Called { call: departure.id, heard }
            }
            Pending::Lock(look) => {
                let seen = match lot {
                    Some(0) => None,
                    Some(1) => Some(LockSeen::Behind { holder: RunId(Uuid::from_u128(9)) }),
                    _ => Some(LockSeen::First),
                };
                Input::Lock { look, seen }
            }
            Pending::Child(spec) => {
                let seen = match lot {
                    Some(0) => ChildSeen::Alive,
                    _ => ChildSeen::Ended(Box::new(child_end(spec.child))),
                };
                Input::Child { child: spec.child, seen }
            }
            Pending::Told(child) => Input::ChildTold { child, delivery: Delivery::Done },
            Pending::Orders => Input::StoreOrders { orders: Some(Vec::new()), owned: true },
            Pending::Settled => Input::OrderSettled,
        }
    }

    /// The store takes an append: once, at its place.
    fn write(&mut self, append: &Append) {
        if !self.batches.insert(append.batch) {
            return;
        }
        if append.first != Seq(self.kept.len() as u64 + 1) {
            self.say(format!("an append begins at {} and the store has {}", append.first, self.kept.len()));
        }
        self.kept.extend(append.events.iter().cloned());
    }

    fn arrives(&mut self, departure: &Departure) {
        if departure.attempt.effect == EffectClass::Read {
            return;
        }
        if self.not_done {
            let step = departure.attempt.step.clone();
            self.say(format!("`{step}` is done after the caller was told that nothing will be"));
        }
        let key = departure.attempt.key.clone().unwrap_or_default();
        let is_keyed = departure.attempt.repeatable;
        let times = self.arrivals.entry(key).or_default();
        *times += 1;
        if *times > 1 && !is_keyed {
            let step = departure.attempt.step.clone();
            self.say(format!("I3: `{step}` was done twice"));
        }
    }

    /// The process ends here; the next one goes on from what the store holds.
    pub fn crash(&mut self, crash: Crash) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Append(append) if crash.appends_written => self.write(&append),
                Pending::Call(departure) if crash.calls_arrived => self.arrives(&departure),
                _ => {}
            }
        }
        self.revive();
    }

    /// Another driver takes the run up, where there is one.
    pub fn revive(&mut self) {
        self.pending.clear();
        (self.end, self.timer) = (None, None);
        self.acknowledged = self.kept.len();
        let Some(run) = self.stored_run() else {
            self.end = Some(End::Discarded);
            return;
        };
        if run.is_final() {
            self.end = Some(End::Settled);
            return;
        }
        self.fence += 1;
        self.machine = machine(&self.plan, &self.world, run, self.kept.len() as u64, self.fence, None, self.now);
        self.machine.take_up(false);
        self.mailbox = self.help().into_iter().collect();
        self.begin();
    }

    fn ordered(&mut self, order: Order) -> Input {
        self.tickets += 1;
        Input::Order { ticket: Ticket(self.tickets), order, by: "ann".into(), owned: true }
    }

    pub fn cancel(&mut self, compensate: bool) -> Input {
        self.ordered(Order::Cancel { compensate, reason: None })
    }
    pub fn pause(&mut self) -> Input {
        self.ordered(Order::Pause { reason: None })
    }
    pub fn resume(&mut self) -> Input {
        self.ordered(Order::Resume { reason: None })
    }

    /// What a person does about a run that waits.
    fn help(&mut self) -> Option<Input> {
        let run = self.machine.run();
        let asked = run.asked().next().cloned();
        let order = match run.status() {
            RunStatus::Paused if run.conflicts().is_empty() => Order::Resume { reason: None },
            RunStatus::Paused => Order::Cancel { compensate: false, reason: None },
            RunStatus::WaitingCheckpoint => {
                let approved = asked.as_ref()?.items.iter().map(|item| item.index).collect();
                let said = Said { approve: true, values: None, approved, struck: Vec::new(), note: None };
                Order::Answer { checkpoint: asked?.checkpoint, said }
            }
            RunStatus::WaitingSignal => Order::Signal { name: "go".into(), payload: Arc::default(), id: None },
            _ => return None,
        };
        Some(self.ordered(order))
    }

    /// Lets everything under way come to its end in its order, until the run has ended; with all that a world does for a
    /// run that rests.
    pub fn finish(&mut self) {
        for _ in 0..400 {
            match self.end {
                Some(End::Settled | End::Discarded) => return self.check(),
                Some(End::Lost | End::Doubtful) => {
                    self.say("the run was lost, and nobody else was there");
                    return;
                }
                Some(End::Resting { .. } | End::Draining) => {
                    if let Some(End::Resting { wake: Some(wake), .. }) = self.end {
                        self.now = self.now.max(wake);
                    }
                    self.frozen = false;
                    self.revive();
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
                (None, None) => match self.help() {
                    Some(help) => help,
                    None => {
                        let status = self.machine.run().status();
                        self.say(format!("it is {status:?}, and nothing is under way"));
                        return;
                    }
                },
            };
            self.step(input);
        }
        let kinds: Vec<_> = self.kept.iter().map(|(_, event)| event.kind()).collect();
        self.say(format!("it does not come to an end: {kinds:?}"));
    }

    /// What must hold when all is over.
    fn check(&mut self) {
        let events: Vec<_> = self.kept.iter().map(|(_, event)| event.clone()).collect();
        if events.is_empty() {
            if !self.arrivals.is_empty() {
                self.say("I1: something was done, and no event tells of it");
            }
            return;
        }
        match fold(&events) {
            Err(misfit) => self.say(format!("I4: the events do not fold: {misfit}")),
            Ok(run) if !run.is_final() => self.say(format!("the run is left {:?}", run.status())),
            Ok(_) => {}
        }
        let (mut outcomes, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for event in &events {
            match event {
                Event::StepFinished(done)
                    if done.part == Part::Do && !outcomes.insert((done.step.clone(), done.item)) =>
                {
                    self.say(format!("I2: `{}` has two outcomes", done.step));
                }
                Event::StepStarted(started) => keys.extend(started.key.clone()),
                _ => {}
            }
        }
        let untold: Vec<_> = self.arrivals.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        if !untold.is_empty() {
            self.say(format!("I1: {untold:?} was done, and no event tells of it"));
        }
        if self.kept.windows(2).any(|pair| pair[0].0 > pair[1].0) {
            self.say("time goes back");
        }
    }
}

pub(super) fn child_end(child: RunId) -> ChildEnd {
    ChildEnd { child, status: RunStatus::Completed, output: Arc::new(json!({})), note: None, effects: true }
}

fn reply(status: u16, output: Value) -> Heard {
    Heard::Reply { status, headers: BTreeMap::new(), output: Arc::new(output), retry_after_ms: None }
}
