//! What a run has outside itself: places in locks' queues, children, and orders that come through the store.
//!
//! Always true: a lock is looked at, and a child is born, only after this run's own event is in the store; what changes
//! while it is looked at is looked at once more; and what was seen of a queue that a step has left is dropped.

use uuid::Uuid;

use super::exchange::{ChildEnd, ChildSeen, ChildSpec, Delivery, LockLook, Output, SpawnPolicy};
use super::looks::Looks;
use super::state::{InQueue, Machine, OpenChild};
use crate::engine::machine::order_record;
use crate::names::{Fence, RunId, Seq};
use crate::store::OrderRecord;
use crate::workflow::{
    CheckpointEvent, ChildEvent, Command, Event, LockEvent, LockSeen, Order, Run, StepIndex, WaitEvent,
};

/// The children that a run has begun and that have not ended for it.
pub(in crate::engine) fn open_children(run: &Run) -> impl Iterator<Item = ChildSpec> + '_ {
    run.children().map(|open| ChildSpec {
        child: open.run,
        step: open.step,
        item: open.item,
        workflow: open.workflow,
        input: open.input,
    })
}

impl Machine {
    /// These steps wait for locks, and no others.
    pub(super) fn waits_for_locks(&mut self, all: Vec<(StepIndex, Option<u32>, String, Seq)>) {
        if all.is_empty() && self.locks.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.locks);
        for (step, item, name, queued) in all {
            let Some(id) = self.plan.steps.get(step.0).map(|step| step.id.clone()) else { continue };
            let known = before.remove(&(id.clone(), item)).filter(|known| known.queued == queued);
            let fresh = InQueue { step, name, queued, due: true, looks: Looks::Idle };
            self.locks.insert((id, item), known.unwrap_or(fresh));
        }
    }

    /// What an event brings about outside the run, and what others can see only once it is in the store.
    pub(super) fn begins_outside(&mut self, event: &Event) {
        match event {
            Event::Child(ChildEvent::Started { step, item, child, workflow, input }) => {
                let spec = ChildSpec {
                    child: *child,
                    step: step.clone(),
                    item: *item,
                    workflow: workflow.clone(),
                    input: input.clone(),
                };
                let open = OpenChild { seq: self.run.seq(), spec, due: true, looks: Looks::Idle };
                self.children.insert(*child, open);
            }
            Event::Child(ChildEvent::Ended { child, .. }) => {
                self.children.remove(child);
                return;
            }
            Event::Checkpoint(CheckpointEvent::Opened(_) | CheckpointEvent::Escalated { .. })
            | Event::Wait(WaitEvent::Began { .. })
            | Event::Lock(LockEvent::Queued { .. } | LockEvent::Left { .. }) => {}
            _ => return,
        }
        self.wants_stored(self.run.seq());
    }

    /// Looks at all that is in the store and was not looked at.
    pub(super) fn look_outside(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.spawn_policy();
        let stored = self.log.stored();
        for ((step, item), queue) in self.locks.iter_mut().filter(|(_, queue)| queue.due) {
            self.need = self.need.max(queue.queued);
            if queue.queued > stored {
                continue;
            }
            queue.due = false;
            if queue.looks.begin() {
                self.looks += 1;
                let look = LockLook { step: step.clone(), item: *item, queued: queue.queued };
                self.out.push(Output::LookAtLock(look, queue.name.clone()));
            }
        }
        for child in self.children.values_mut().filter(|child| child.due) {
            self.need = self.need.max(child.seq);
            if child.seq > stored {
                continue;
            }
            child.due = false;
            if child.looks.begin() {
                self.looks += 1;
                self.out.push(Output::LookAfterChild(child.spec.clone()));
            }
        }
    }

    /// What was held back while the run was paused is begun when it goes on, or never.
    fn spawn_policy(&mut self) {
        let policy = match (self.run.is_ending(), self.run.is_held()) {
            (true, _) => SpawnPolicy::Never,
            (false, true) => SpawnPolicy::Wait,
            (false, false) => SpawnPolicy::Spawn,
        };
        let before = std::mem::replace(&mut self.spawn, policy);
        if before != policy {
            self.out.push(Output::Spawn(policy));
        }
        if before == SpawnPolicy::Wait && policy != SpawnPolicy::Wait {
            self.look_after_children();
        }
    }

    /// Something outside may have changed, or the run was lost and taken again meanwhile.
    pub(super) fn changed(&mut self, taken_again: Option<Fence>) {
        if self.is_outdated(taken_again) {
            return self.lost("it was another process's meanwhile");
        }
        self.locks.values_mut().for_each(|queue| queue.due = true);
        self.look_after_children();
        self.read_orders();
    }

    /// Whether this process took the run again, under a higher number than this driver's: it was lost in between.
    pub fn is_outdated(&self, taken_again: Option<Fence>) -> bool {
        taken_again.zip(self.log.fence()).is_some_and(|(taken, own)| taken > own)
    }

    /// Looks at the children that have not ended for it.
    pub(super) fn look_after_children(&mut self) {
        for spec in open_children(&self.run) {
            let known = OpenChild { seq: Seq(0), spec, due: true, looks: Looks::Idle };
            self.children.entry(known.spec.child).or_insert(known).due = true;
        }
    }

    /// Orders something of a child, unless it was the last thing that was ordered of it here; one order after the other,
    /// so that the last arrives last. A rehearsal's children are part of its own driver.
    pub(super) fn tell_child(&mut self, child: RunId, order: Order) {
        let due = match self.told.get(&child) {
            Some((_, None)) => false,
            Some((name, Some(_))) => *name != order.name(),
            None => true,
        };
        if due && self.log.is_durable() {
            self.told.insert(child, (order.name(), None));
            self.looks += 1;
            self.out.push(Output::TellChild(child, order));
        }
    }

    /// Reads what is ordered through the store.
    pub(super) fn read_orders(&mut self) {
        if self.log.is_durable() && self.store_orders.begin() {
            self.looks += 1;
            self.out.push(Output::ReadOrders);
        }
    }

    pub(super) fn lock_seen(&mut self, look: LockLook, seen: Option<LockSeen>) {
        self.looks = self.looks.saturating_sub(1);
        let LockLook { step, item, queued } = look;
        let key = (step, item);
        let Some(queue) = self.locks.get_mut(&key).filter(|queue| queue.queued == queued) else {
            return; // the step does not wait there any more
        };
        queue.due |= queue.looks.end() || seen.is_none();
        let (step, Some(seen)) = (queue.step, seen) else { return };
        if seen == LockSeen::First {
            self.locks.remove(&key);
        }
        self.ask(Command::LockSeen { step, item, queued, seen });
    }

    pub(super) fn child_seen(&mut self, child: RunId, seen: ChildSeen) {
        self.looks = self.looks.saturating_sub(1);
        if let Some(open) = self.children.get_mut(&child) {
            open.due |= open.looks.end();
        }
        match (seen, self.told.get(&child)) {
            (ChildSeen::Ended(end), _) => self.child_ended(*end),
            // What could not be delivered before it was there is ordered again.
            (ChildSeen::Alive, Some((_, Some(Delivery::NoRun)))) => drop(self.told.remove(&child)),
            (ChildSeen::Alive | ChildSeen::Unborn, _) => {}
        }
    }

    pub(super) fn child_told(&mut self, child: RunId, delivery: Delivery) {
        self.looks = self.looks.saturating_sub(1);
        match delivery {
            Delivery::Unknown => drop(self.told.remove(&child)),
            Delivery::Done | Delivery::NoRun => {
                if let Some((_, known)) = self.told.get_mut(&child) {
                    *known = Some(delivery);
                }
            }
        }
    }

    pub(super) fn child_ended(&mut self, end: ChildEnd) {
        self.waits_below = false; // or it is said again
        let ChildEnd { child, status, output, note, effects } = end;
        self.ask(Command::ChildEnded { child, status, output, note, effects });
    }

    pub(super) fn orders_read(&mut self, orders: Option<Vec<OrderRecord>>, owned: bool) {
        self.looks = self.looks.saturating_sub(1);
        for order in orders.unwrap_or_default() {
            self.take_order(order, owned);
        }
        if self.store_orders.end() {
            self.read_orders();
        }
    }

    /// What is ordered through the store is done once: its answer goes in with the events. What changes nothing is left
    /// where another process may have taken the run: only its owner answers.
    fn take_order(&mut self, record: OrderRecord, owned: bool) {
        let OrderRecord { id, order, by, .. } = record;
        if !self.taken_up.insert(id) {
            return;
        }
        let answer = match serde_json::from_value::<Order>(order) {
            Err(error) => order_record::unreadable(&error),
            Ok(order) => match self.put(Command::Order { order, by }) {
                Ok(0) | Err(_) if !owned => {
                    self.taken_up.remove(&id);
                    self.left_orders = true;
                    return;
                }
                Err(refusal) => order_record::refused(&refusal),
                Ok(0) => order_record::done(),
                Ok(_) => {
                    self.goes_on();
                    self.wants_stored(self.run.seq());
                    return self.log.answer(id, order_record::done());
                }
            },
        };
        self.settle_order(id, answer);
    }

    fn settle_order(&mut self, id: Uuid, answer: serde_json::Value) {
        self.looks += 1;
        self.out.push(Output::SettleOrder(id, answer));
    }
}
