//! What a run has outside itself: places in locks' queues, runs that it began, what is asked of it through the store.
//!
//! Always true: a lock is looked at, and a child is born, only after this run's own event is on disk; before a run looks
//! at anything it has said that it wants to hear of changes, so that nothing is missed in between.

use uuid::Uuid;

use super::Driver;
use super::advance::InLine;
use crate::engine::children::{self, Begun};
use crate::engine::locks;
use crate::engine::mail::ChildEnd;
use crate::engine::orders;
use crate::names::{RunId, Seq, StepId};
use crate::store::OrderRecord;
use crate::workflow::{Command, Event, LockSeen, Order, StepIndex};

/// What was seen outside.
pub(super) enum Found {
    /// A lock's queue.
    Lock { step: StepIndex, id: StepId, item: Option<u32>, seen: LockSeen },
    /// A run that this one began has ended; `None`: it goes on.
    Child(Option<Box<ChildEnd>>),
    /// What is asked through the store; `None`: it did not say.
    Orders(Option<Vec<OrderRecord>>),
    /// Something was said to a run that this one began; whether it heard.
    Said { child: RunId, heard: bool },
    /// Something was written.
    Written,
}

/// What is known of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// It is looked at once this place is on disk.
    Due(Seq, StepIndex, String),
    /// It is being looked at; whether that has to be done again, because something changed in between.
    UnderWay(StepIndex, String, bool),
    /// Others stand before.
    Behind(StepIndex, String),
}

impl Looked {
    /// The run knows that it has to wait.
    pub fn is_known(&self) -> bool {
        matches!(self, Looked::Behind(..))
    }
    fn is_behind(&mut self) {
        if let Looked::UnderWay(step, name, again) = self {
            let (step, name) = (*step, std::mem::take(name));
            *self = if *again { Looked::Due(Seq(0), step, name) } else { Looked::Behind(step, name) };
        }
    }
}

impl Driver {
    /// These steps stand in line, and no others.
    pub(super) fn stands_in_line(&mut self, all: Vec<InLine>) {
        if all.is_empty() && self.locks.is_empty() {
            return;
        }
        let plan = &self.plan;
        self.locks.retain(|(id, item), _| {
            all.iter().any(|(step, of, _)| of == item && plan.steps.get(step.0).is_some_and(|step| step.id == *id))
        });
        for (step, item, name) in all {
            let Some(id) = self.plan.steps.get(step.0).map(|step| step.id.clone()) else { continue };
            self.locks.entry((id, item)).or_insert(Looked::Due(self.run.seq(), step, name));
        }
    }

    /// What an event brings about outside the run, and what must be on disk at once.
    pub(super) fn begins_elsewhere(&mut self, event: &Event) {
        match event {
            Event::ChildStarted { step, item, child, workflow, input } => {
                let begun = Begun {
                    child: *child,
                    step: step.clone(),
                    item: *item,
                    workflow: workflow.clone(),
                    input: input.clone(),
                };
                self.children.push((self.run.seq(), begun));
            }
            Event::CheckpointOpened(_)
            | Event::CheckpointEscalated { .. }
            | Event::WaitBegan { .. }
            | Event::LockQueued { .. }
            | Event::LockLeft { .. } => {}
            _ => return,
        }
        // Others see it only there.
        self.need = self.need.max(self.run.seq());
    }

    /// Looks at all that is on disk and was not looked at.
    pub(super) fn look_outside(&mut self) {
        let durable = self.journal.durable();
        let run = self.run.id();
        for ((id, item), looked) in &mut self.locks {
            let Looked::Due(seq, step, name) = looked else { continue };
            self.need = self.need.max(*seq);
            if *seq > durable {
                continue;
            }
            let (step, name) = (*step, name.clone());
            self.core.alarm.mind_lock(run, &name);
            let parent = self.run.started().parent.as_ref().map(|parent| parent.run);
            let look = locks::look(self.core.clone(), name.clone(), run, parent, id.clone(), *item);
            let (id, item) = (id.clone(), *item);
            self.looks.push(Box::pin(async move { Found::Lock { step, id, item, seen: look.await } }));
            *looked = Looked::UnderWay(step, name, false);
        }
        for (seq, begun) in std::mem::take(&mut self.children) {
            self.need = self.need.max(seq);
            if seq > durable {
                self.children.push((seq, begun));
                continue;
            }
            if self.journal.keeps() {
                self.core.alarm.mind_child(run, begun.child);
            }
            let look = children::look_after(self.core.clone(), self.run.started().clone(), begun, self.depth);
            self.looks.push(Box::pin(async move { Found::Child(look.await.map(Box::new)) }));
        }
    }

    /// Something outside may have changed.
    pub(super) fn look_again(&mut self) {
        for looked in self.locks.values_mut() {
            match looked {
                Looked::Behind(step, name) => *looked = Looked::Due(Seq(0), *step, std::mem::take(name)),
                Looked::UnderWay(_, _, again) => *again = true,
                Looked::Due(..) => {}
            }
        }
        self.look_after_children();
        self.read_orders();
    }

    /// Looks at the runs that it began and that have not ended for it.
    pub(super) fn look_after_children(&mut self) {
        let known = self.children.iter().map(|(_, begun)| begun.child).collect::<Vec<RunId>>();
        let open = children::open_of(&self.run).into_iter().filter(|begun| !known.contains(&begun.child));
        self.children.extend(open.map(|begun| (Seq(0), begun)));
    }

    /// Whether it waits for a run that it began.
    pub(super) fn has_children(&self) -> bool {
        !children::open_of(&self.run).is_empty()
    }

    /// Says something to a run that it began, unless that was the last thing said to it here. A rehearsal's are part of
    /// this task.
    pub(super) fn say_to_child(&mut self, child: RunId, order: Order) {
        if self.journal.keeps() && self.told.insert(child, order.name()) != Some(order.name()) {
            let said = children::say(self.core.clone(), child, order, self.run.id());
            self.looks.push(Box::pin(async move { Found::Said { child, heard: said.await } }));
        }
    }

    /// Reads what is asked through the store.
    pub(super) fn read_orders(&mut self) {
        if self.journal.keeps() && !self.reads_orders {
            self.reads_orders = true;
            let (store, run) = (self.core.store.clone(), self.run.id());
            self.looks.push(Box::pin(async move { Found::Orders(store.orders(run).await.ok()) }));
        }
    }

    /// Takes in what was seen.
    pub(super) fn found(&mut self, found: Found) {
        match found {
            Found::Lock { step, id, item, seen } => {
                let name = (id, item);
                match (&seen, self.locks.get_mut(&name)) {
                    (LockSeen::First, _) => drop(self.locks.remove(&name)),
                    (_, Some(looked @ Looked::UnderWay(..))) => looked.is_behind(),
                    (_, _) => {}
                }
                self.ask(Command::LockSeen { step, item, seen });
            }
            Found::Child(Some(end)) => self.child_ended(*end),
            Found::Said { child, heard: false } => drop(self.told.remove(&child)), // and it is said again
            Found::Said { heard: true, .. } | Found::Child(None) | Found::Written => {}
            Found::Orders(orders) => {
                self.reads_orders = false;
                for order in orders.unwrap_or_default() {
                    self.take_order(order);
                }
            }
        }
    }

    pub(super) fn child_ended(&mut self, end: ChildEnd) {
        let ChildEnd { child, status, output, note } = end;
        self.ask(Command::ChildEnded { child, status, output, note });
    }

    /// What is asked through the store is done once: what came of it goes in with the events.
    fn take_order(&mut self, record: OrderRecord) {
        let OrderRecord { id, order, by, .. } = record;
        if !self.taken_up.insert(id) {
            return;
        }
        let answer = match serde_json::from_value::<Order>(order) {
            Err(error) => orders::unreadable(&error),
            Ok(order) => match self.put(Command::Order { order, by }) {
                Err(refusal) => orders::refused(&refusal),
                Ok(0) => orders::done(),
                Ok(_) => {
                    self.goes_on();
                    self.need = self.need.max(self.run.seq());
                    return self.journal.answer(id, orders::done());
                }
            },
        };
        self.settle_order(id, answer);
    }

    fn settle_order(&mut self, id: Uuid, answer: serde_json::Value) {
        let store = self.core.store.clone();
        self.looks.push(Box::pin(async move {
            if let Err(error) = store.settle_order(id, answer).await {
                tracing::debug!(order = %id, %error, "whoever asked is not told"); // and looks at the run
            }
            Found::Written
        }));
    }
}
