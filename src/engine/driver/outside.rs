//! What a run has outside itself: places in locks' queues, runs that it began, what is asked of it through the store.
//!
//! Always true: a lock is looked at, and a child is born, only after this run's own event is on disk; before a run looks
//! at anything it has said that it wants to hear of changes, so that nothing is missed in between; and what changes
//! while it looks is looked at once more. What was seen of a place in a queue that it has left is dropped.

use uuid::Uuid;

use super::Driver;
use super::watch::Watch;
use crate::engine::children::{self, Begun, Goes, Heard, Looked};
use crate::engine::locks;
use crate::engine::mail::ChildEnd;
use crate::engine::orders;
use crate::names::{RunId, Seq, StepId};
use crate::store::OrderRecord;
use crate::workflow::{Command, Event, LockSeen, Order, StepIndex};

/// What was seen outside.
pub(super) enum Found {
    /// A lock's queue, for the place that was taken in it there; `None`: it does not stand in it.
    Lock { id: StepId, item: Option<u32>, queued: Seq, seen: Option<LockSeen> },
    /// A run that this one began.
    Child(RunId, Looked),
    /// What is asked through the store; `None`: it did not say.
    Orders(Option<Vec<OrderRecord>>),
    /// Something was said to a run that this one began.
    Said { child: RunId, heard: Heard },
    /// Something was written.
    Written,
}

/// A step that stands in a lock's queue, behind others as far as is known.
#[derive(Debug)]
pub(super) struct InLine {
    step: StepIndex,
    name: String,
    /// Where its event stands: it is looked for once that is on disk.
    queued: Seq,
    due: bool,
    watch: Watch,
}

impl InLine {
    /// The run knows that it has to wait.
    pub fn is_known(&self) -> bool {
        !self.due && self.watch.is_idle()
    }
}

/// A run that this one began.
pub(super) struct Minded {
    /// It is looked for once this place is on disk.
    seq: Seq,
    begun: Begun,
    pub due: bool,
    watch: Watch,
}

impl Driver {
    /// These steps stand in line, and no others.
    pub(super) fn stands_in_line(&mut self, all: Vec<(StepIndex, Option<u32>, String, Seq)>) {
        if all.is_empty() && self.locks.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.locks);
        for (step, item, name, queued) in all {
            let Some(id) = self.plan.steps.get(step.0).map(|step| step.id.clone()) else { continue };
            let known = before.remove(&(id.clone(), item)).filter(|known| known.queued == queued);
            let fresh = InLine { step, name, queued, due: true, watch: Watch::Idle };
            self.locks.insert((id, item), known.unwrap_or(fresh));
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
                let minded = Minded { seq: self.run.seq(), begun, due: true, watch: Watch::Idle };
                self.children.insert(*child, minded);
            }
            Event::ChildEnded { child, .. } => {
                self.children.remove(child);
                return;
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
        // What was held back while somebody had paused the run is begun now, or never.
        if let (Goes::On | Goes::ToItsEnd, Goes::Held) = self.mood.of(&self.run) {
            self.look_after_children();
        }
        for ((id, item), line) in self.locks.iter_mut().filter(|(_, line)| line.due) {
            self.need = self.need.max(line.queued);
            if line.queued > durable {
                continue;
            }
            line.due = false;
            if !line.watch.begins() {
                continue;
            }
            self.core.alarm.mind_lock(run, &line.name);
            let (id, item, queued) = (id.clone(), *item, line.queued);
            let parent = self.run.started().parent.clone();
            let look = locks::look(self.core.clone(), line.name.clone(), run, parent, id.clone(), item);
            self.looks.push(Box::pin(async move { Found::Lock { id, item, queued, seen: look.await } }));
        }
        for (child, minded) in self.children.iter_mut().filter(|(_, minded)| minded.due) {
            self.need = self.need.max(minded.seq);
            if minded.seq > durable {
                continue;
            }
            minded.due = false;
            if !minded.watch.begins() {
                continue;
            }
            if self.journal.keeps() {
                self.core.alarm.mind_child(run, *child);
            }
            let (child, begun, parent) = (*child, minded.begun.clone(), self.run.started().clone());
            let look = children::look_after(self.core.clone(), parent, self.mood.clone(), begun, self.depth);
            self.looks.push(Box::pin(async move { Found::Child(child, look.await) }));
        }
    }

    /// Something outside may have changed.
    pub(super) fn look_again(&mut self) {
        self.locks.values_mut().for_each(|line| line.due = true);
        self.look_after_children();
        self.read_orders();
    }

    /// Looks at the runs that it began and that have not ended for it.
    pub(super) fn look_after_children(&mut self) {
        for begun in children::open_of(&self.run) {
            let on_disk = Minded { seq: Seq(0), begun, due: true, watch: Watch::Idle };
            self.children.entry(on_disk.begun.child).or_insert(on_disk).due = true;
        }
    }

    /// Whether it waits for a run that it began.
    pub(super) fn has_children(&self) -> bool {
        !children::open_of(&self.run).is_empty()
    }

    /// Says something to a run that it began, unless that was the last thing said to it here; one thing after the
    /// other, so that the last is heard last. A rehearsal's are part of this task.
    pub(super) fn say_to_child(&mut self, child: RunId, order: Order) {
        let due = match self.told.get(&child) {
            Some((_, None)) => false,
            Some((name, Some(_))) => *name != order.name(),
            None => true,
        };
        if due && self.journal.keeps() {
            self.told.insert(child, (order.name(), None));
            let said = children::say(self.core.clone(), child, order, self.run.id());
            self.looks.push(Box::pin(async move { Found::Said { child, heard: said.await } }));
        }
    }

    /// Reads what is asked through the store.
    pub(super) fn read_orders(&mut self) {
        if self.journal.keeps() && self.orders.begins() {
            let (store, run) = (self.core.store.clone(), self.run.id());
            self.looks.push(Box::pin(async move { Found::Orders(store.orders(run).await.ok()) }));
        }
    }

    /// Takes in what was seen.
    pub(super) fn found(&mut self, found: Found) {
        match found {
            Found::Lock { id, item, queued, seen } => {
                let at = (id, item);
                let Some(line) = self.locks.get_mut(&at).filter(|line| line.queued == queued) else {
                    return; // it stands there no more
                };
                line.due |= line.watch.ended() || seen.is_none();
                let (step, Some(seen)) = (line.step, seen) else { return };
                if seen == LockSeen::First {
                    self.locks.remove(&at);
                }
                self.ask(Command::LockSeen { step, item: at.1, queued, seen });
            }
            Found::Child(child, looked) => {
                if let Some(minded) = self.children.get_mut(&child) {
                    minded.due |= minded.watch.ended();
                }
                match (looked, self.told.get(&child)) {
                    (Looked::Ended(end), _) => self.child_ended(*end),
                    // What it did not hear before it was there is said again.
                    (Looked::Alive, Some((_, Some(Heard::Nobody)))) => drop(self.told.remove(&child)),
                    (Looked::Alive | Looked::Unborn, _) => {}
                }
            }
            Found::Said { child, heard: Heard::No } => drop(self.told.remove(&child)), // and it is said again
            Found::Said { child, heard } => {
                if let Some((_, heard_before)) = self.told.get_mut(&child) {
                    *heard_before = Some(heard);
                }
            }
            Found::Written => {}
            Found::Orders(orders) => {
                for order in orders.unwrap_or_default() {
                    self.take_order(order);
                }
                if self.orders.ended() {
                    self.read_orders();
                }
            }
        }
    }

    pub(super) fn child_ended(&mut self, end: ChildEnd) {
        self.below = false; // or it is said again
        let ChildEnd { child, status, output, note, effects } = end;
        self.ask(Command::ChildEnded { child, status, output, note, effects });
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
