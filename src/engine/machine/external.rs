//! What a run waits for outside itself: locks, children, and commands that come through the store.
//!
//! Always true: a lock is queried, and a child is created, only after the run's own event about it is durable; a change
//! during a query causes one more query; the state of a queue that the step has left is ignored.

use jiff::Timestamp;
use uuid::Uuid;

use super::inputs_outputs::{ChildEnd, ChildSpec, ChildState, CommandDelivery, LockQuery, Output, SpawnPolicy};
use super::query_state::QueryState;
use super::state::{ChildUnderWay, LockWait, Machine};
use crate::engine::machine::command_record;
use crate::names::{Fence, RunId, Seq};
use crate::store::CommandRecord;
use crate::workflow::{
    CheckpointEvent, ChildEvent, Command, ControlCommand, Event, LockEvent, LockPosition, Plan, Run, StepIndex,
    WaitEvent, approval_above_child, child_paths, route_above_child,
};

/// The children that a run has begun and whose end it has not recorded.
pub(in crate::engine) fn open_children<'a>(
    run: &'a Run,
    plan: &'a Plan,
    caller_until: Option<Timestamp>,
) -> impl Iterator<Item = ChildSpec> + 'a {
    run.children().map(move |open| ChildSpec {
        route_above: route_above_child(plan, run, &open.step, caller_until),
        approval_above: approval_above_child(run, &open.step, open.item),
        sensitive_paths: child_paths(plan, run, &open.step, &open.input),
        child: open.run,
        step: open.step,
        item: open.item,
        workflow: open.workflow,
        input: open.input,
    })
}

impl Machine {
    /// Replaces the list of steps that wait for locks; a wait that continues keeps the state of its query.
    pub(super) fn set_lock_waits(&mut self, all: Vec<(StepIndex, Option<u32>, String, Seq)>) {
        if all.is_empty() && self.locks.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.locks);
        for (step, item, name, queued) in all {
            let Some(id) = self.plan.steps.get(step.0).map(|step| step.id.clone()) else { continue };
            let known = before.remove(&(id.clone(), item)).filter(|known| known.queued == queued);
            let new = LockWait { step, name, queued, needs_query: true, query: QueryState::Idle };
            self.locks.insert((id, item), known.unwrap_or(new));
        }
    }

    /// Tracks the child that an event begins or ends. Also requires that events on which others act become durable.
    pub(super) fn track_external(&mut self, event: &Event) {
        match event {
            Event::Child(ChildEvent::Started { step, item, child, workflow, input }) => {
                let spec = ChildSpec {
                    route_above: route_above_child(&self.plan, &self.run, step, self.caller_until()),
                    approval_above: approval_above_child(&self.run, step, *item),
                    sensitive_paths: child_paths(&self.plan, &self.run, step, input),
                    child: *child,
                    step: step.clone(),
                    item: *item,
                    workflow: workflow.clone(),
                    input: input.clone(),
                };
                let open = ChildUnderWay { seq: self.run.seq(), spec, needs_query: true, query: QueryState::Idle };
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
        self.require_durable(self.run.seq());
    }

    /// Sends the queries that are needed and whose events are durable.
    pub(super) fn query_external(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.update_spawn_policy();
        let durable = self.log.durable_seq();
        for ((step, item), queue) in self.locks.iter_mut().filter(|(_, queue)| queue.needs_query) {
            self.required_seq = self.required_seq.max(queue.queued);
            if queue.queued > durable {
                continue;
            }
            queue.needs_query = false;
            if queue.query.request() {
                self.requests_in_flight += 1;
                let query = LockQuery { step: step.clone(), item: *item, queued: queue.queued };
                self.out.push(Output::QueryLock(query, queue.name.clone()));
            }
        }
        for child in self.children.values_mut().filter(|child| child.needs_query) {
            self.required_seq = self.required_seq.max(child.seq);
            if child.seq > durable {
                continue;
            }
            child.needs_query = false;
            if child.query.request() {
                self.requests_in_flight += 1;
                self.out.push(Output::EnsureChild(child.spec.clone()));
            }
        }
    }

    /// Sets the spawn policy by the run's state. When a pause ends, the children that waited are created or given up.
    fn update_spawn_policy(&mut self) {
        let policy = match (self.run.is_ending(), self.run.is_pause_requested()) {
            (true, _) => SpawnPolicy::Never,
            (false, true) => SpawnPolicy::Wait,
            (false, false) => SpawnPolicy::Spawn,
        };
        let before = std::mem::replace(&mut self.spawn_policy, policy);
        if before != policy {
            self.out.push(Output::SetSpawnPolicy(policy));
        }
        if before == SpawnPolicy::Wait && policy != SpawnPolicy::Wait {
            self.query_children();
        }
    }

    /// Queries everything again; ends the driver if the run was lost and acquired again meanwhile.
    pub(super) fn handle_external_change(&mut self, reacquired: Option<Fence>) {
        if self.is_superseded(reacquired) {
            return self.lose_ownership("another process owned it in the meantime");
        }
        self.locks.values_mut().for_each(|queue| queue.needs_query = true);
        self.query_children();
        self.read_commands();
    }

    /// Whether this process acquired the run again under a newer fencing token than this driver's: the run was lost in
    /// between.
    pub fn is_superseded(&self, reacquired: Option<Fence>) -> bool {
        reacquired.zip(self.fence()).is_some_and(|(newest, own)| newest > own)
    }

    /// The fencing token of the run's appends; `None` if nothing of the run is stored.
    pub fn fence(&self) -> Option<Fence> {
        self.log.fence()
    }

    /// Until when the run's caller waits for its answer.
    fn caller_until(&self) -> Option<Timestamp> {
        self.caller.as_ref().map(|caller| caller.answer_by)
    }

    /// Queries all open children.
    pub(super) fn query_children(&mut self) {
        for spec in open_children(&self.run, &self.plan, self.caller_until()) {
            let known = ChildUnderWay { seq: Seq(0), spec, needs_query: true, query: QueryState::Idle };
            self.children.entry(known.spec.child).or_insert(known).needs_query = true;
        }
    }

    /// Sends a command to a child, unless the last command to it was the same. One command is in flight at a time, so
    /// that commands arrive in the sequence in which they were given. A rehearsal's children run in its own driver and
    /// get none.
    pub(super) fn command_child(&mut self, child: RunId, command: ControlCommand) {
        let is_new = match self.child_commands.get(&child) {
            Some((_, None)) => false,
            Some((last, Some(_))) => *last != command,
            None => true,
        };
        if is_new && self.log.is_kept() {
            self.child_commands.insert(child, (command.clone(), None));
            self.requests_in_flight += 1;
            self.out.push(Output::CommandChild(child, command));
        }
    }

    /// Reads the commands for the run that the store holds.
    pub(super) fn read_commands(&mut self) {
        if self.log.is_kept() && self.commands_query.request() {
            self.requests_in_flight += 1;
            self.out.push(Output::ReadCommands);
        }
    }

    pub(super) fn handle_lock_state(&mut self, query: LockQuery, seen: Option<LockPosition>) {
        self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
        let LockQuery { step, item, queued } = query;
        let key = (step, item);
        let Some(queue) = self.locks.get_mut(&key).filter(|queue| queue.queued == queued) else {
            return; // the step has left the queue
        };
        queue.needs_query |= queue.query.complete() || seen.is_none();
        let (step, Some(seen)) = (queue.step, seen) else { return };
        if seen == LockPosition::First {
            self.locks.remove(&key);
        }
        self.try_command(Command::LockSeen { step, item, queued, seen });
    }

    pub(super) fn handle_child_state(&mut self, child: RunId, state: ChildState) {
        self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
        if let Some(open) = self.children.get_mut(&child) {
            open.needs_query |= open.query.complete();
        }
        match (state, self.child_commands.get(&child)) {
            (ChildState::Ended(end), _) => self.handle_child_end(*end),
            (ChildState::Rehearsed(child), _) => {
                let end = child.end.clone();
                self.log.push_child(*child);
                self.handle_child_end(end);
            }
            (ChildState::NoWorkflow, _) => {
                self.descendant_waits = false;
                self.try_command(Command::ChildHasNoWorkflow { child });
            }
            (ChildState::InputRefused(why), _) => {
                self.descendant_waits = false;
                self.try_command(Command::ChildInputRefused { child, why });
            }
            // A command that was sent before the child was stored is sent again.
            (ChildState::Running, Some((_, Some(CommandDelivery::NoRun)))) => drop(self.child_commands.remove(&child)),
            (ChildState::Running | ChildState::NotCreated, _) => {}
        }
    }

    pub(super) fn handle_child_command(&mut self, child: RunId, delivery: CommandDelivery) {
        self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
        match delivery {
            CommandDelivery::Unknown => drop(self.child_commands.remove(&child)),
            CommandDelivery::Done | CommandDelivery::NoRun => {
                if let Some((_, known)) = self.child_commands.get_mut(&child) {
                    *known = Some(delivery);
                }
            }
        }
    }

    pub(super) fn handle_child_end(&mut self, end: ChildEnd) {
        self.descendant_waits = false; // another descendant that waits reports it again
        let ChildEnd { child, status, output, note, failure, tree, sensitive } = end;
        self.try_command(Command::ChildEnded { child, status, output, note, failure, tree, sensitive });
    }

    pub(super) fn handle_store_commands(&mut self, commands: Option<Vec<CommandRecord>>, owned: bool) {
        self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
        for command in commands.unwrap_or_default() {
            self.handle_store_command(command, owned);
        }
        if self.commands_query.complete() {
            self.read_commands();
        }
    }

    /// Applies a command that came through the store, once: its answer is stored together with its events. If another
    /// process may own the run, a command that is refused or changes nothing stays in the store, because only the owner
    /// may answer it.
    fn handle_store_command(&mut self, record: CommandRecord, owned: bool) {
        let CommandRecord { id, command, by, .. } = record;
        if !self.handled_commands.insert(id) {
            return;
        }
        let answer = match serde_json::from_value::<ControlCommand>(command) {
            Err(error) => command_record::unreadable(&error),
            Ok(command) => match self.apply_command(Command::Control { command, by }) {
                Ok(0) | Err(_) if !owned => {
                    self.handled_commands.remove(&id);
                    self.has_deferred_commands = true;
                    return;
                }
                Err(refusal) => command_record::refused(&refusal),
                Ok(0) => command_record::done(),
                Ok(_) => {
                    self.invalidate_reply();
                    self.require_durable(self.run.seq());
                    return self.log.push_command_answer(id, command_record::done());
                }
            },
        };
        self.store_command_answer(id, answer);
    }

    fn store_command_answer(&mut self, id: Uuid, answer: serde_json::Value) {
        self.requests_in_flight += 1;
        self.out.push(Output::StoreCommandAnswer(id, answer));
    }
}
