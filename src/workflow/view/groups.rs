//! Changes the view of steps by each group of events.

use jiff::Timestamp;

use super::{Steps, signal_note};
use crate::workflow::respond::ANSWER;
use crate::workflow::{
    CheckpointEvent, ChildEvent, Choice, ConflictEvent, ConflictKind, LockEvent, Run, RunStatus, Skipped, StepEvent,
    StepPart, StepStatus, WaitEvent,
};

impl Steps {
    pub(super) fn apply_step(&mut self, at: Timestamp, event: &StepEvent, run: &Run) {
        match event {
            StepEvent::Computed { step, .. } => self.set_status(step, at, StepStatus::Done, None),
            StepEvent::Skipped { step, item: Some(item), reason } => {
                self.item_skipped((step, *item), *reason, at, run);
            }
            StepEvent::Skipped { step, item: None, reason } => {
                let why = match reason {
                    Skipped::Condition => "its `if` is false",
                    Skipped::Needs => "something that it needs was skipped",
                    Skipped::ByHand => "a person skipped it",
                    Skipped::Rejected => "it was rejected at a checkpoint",
                    Skipped::Busy => "its lock is held, here or at the service, and it does not wait",
                    Skipped::NotNeeded => "nothing needs this fallback",
                };
                self.set_status(step, at, StepStatus::Skipped, Some(why.into()));
            }
            StepEvent::FanOutOpened { step, items, .. } => {
                let step = self.step(step, at);
                step.items = u32::try_from(items.len()).ok();
                step.items_ended = Some(0);
                step.status = if items.is_empty() { StepStatus::Done } else { StepStatus::Running };
            }
            StepEvent::FailReached { step, answer } => {
                let note = format!("the run ends with {}", answer.status);
                self.set_status(step, at, StepStatus::Done, Some(note));
            }
            StepEvent::ResultTaken(taken) => {
                let status = if taken.skipped { StepStatus::Skipped } else { StepStatus::Done };
                self.set_status(&taken.step, at, status, Some(format!("taken over from {}", taken.origin)));
            }
            StepEvent::FallbackTaken { step, item: Some(item), by, failure } => {
                self.item_replaced((step, *item), by, &failure.message, at);
            }
            StepEvent::FallbackTaken { step, item: None, by, failure } => {
                let step = self.step(step, at);
                step.status = StepStatus::Replaced;
                step.note = Some(format!("`{by}` takes its place: {}", failure.message));
            }
            StepEvent::Probed { step, done, .. } => {
                let step = self.step(step, at);
                step.note = Some(
                    match done {
                        Some(true) => "its probe says that it was done",
                        Some(false) => "its probe says that nothing was done",
                        None => "its probe could not say what was done",
                    }
                    .into(),
                );
            }
        }
    }

    pub(super) fn apply_wait(&mut self, at: Timestamp, event: &WaitEvent, run: &Run) {
        match event {
            WaitEvent::Began { step, signal, until } => {
                let (status, note) = match (signal, until) {
                    (Some(signal), _) => (StepStatus::WaitingSignal, signal_note(signal, run)),
                    (None, Some(until)) => (StepStatus::WaitingTime, format!("it waits until {until:.0}")),
                    (None, None) => (StepStatus::WaitingTime, "it waits".to_owned()),
                };
                self.set_status(step, at, status, Some(note));
            }
            WaitEvent::SignalReceived { name, .. } => self.note_refused_signal(name, at, run),
            WaitEvent::Ended { step, .. } => self.clear(step, at, StepStatus::Done),
        }
    }

    pub(super) fn apply_lock(&mut self, at: Timestamp, event: &LockEvent) {
        match event {
            LockEvent::Queued { step, name, .. } => {
                self.set_status(step, at, StepStatus::WaitingLock, Some(format!("it waits for the lock `{name}`")));
            }
            LockEvent::Taken { step, .. } => self.clear(step, at, StepStatus::Running),
            LockEvent::Left { .. } => {}
        }
    }

    pub(super) fn apply_child(&mut self, at: Timestamp, event: &ChildEvent, run: &Run) {
        match event {
            ChildEvent::Started { step, child, workflow, .. } => {
                self.set_status(step, at, StepStatus::WaitingChild, Some(format!("{child} runs `{workflow}`")));
            }
            ChildEvent::Ended { step: id, item, child, status: RunStatus::Completed, unfit, .. } => {
                let step = self.step(id, at);
                step.note = Some(format!("{child} has completed"));
                if let (Some(ended), false) = (&mut step.items_ended, unfit) {
                    *ended += 1;
                    self.replaced_item_ended(id, *item, at, run);
                }
            }
            // The next event says how the step goes on.
            ChildEvent::Ended { step, .. } => drop(self.step(step, at)),
        }
    }

    pub(super) fn apply_checkpoint(&mut self, at: Timestamp, event: &CheckpointEvent, run: &Run) {
        match event {
            CheckpointEvent::Opened(asked) => {
                self.set_status(&asked.step, at, StepStatus::WaitingCheckpoint, Some(asked.question.clone()));
            }
            CheckpointEvent::Answered { checkpoint, answer: said, by } => {
                if let Some(question) = run.interactions.questions.get(checkpoint) {
                    let note = format!("{by} said {}", if said.approve { "yes" } else { "no" });
                    self.set_status(&question.checkpoint.step, at, StepStatus::Running, Some(note));
                }
            }
            CheckpointEvent::Escalated { .. } => {}
        }
    }

    pub(super) fn apply_conflict(&mut self, at: Timestamp, event: &ConflictEvent) {
        match event {
            ConflictEvent::Paused { conflict, .. } if conflict.kind == ConflictKind::Answer => {}
            ConflictEvent::Paused { conflict, .. } => {
                let step = self.step(&conflict.step, at);
                step.status = match conflict.kind {
                    ConflictKind::OutcomeUnknown => StepStatus::Unknown,
                    _ => StepStatus::Conflict,
                };
                step.note = Some(conflict.message.clone());
            }
            ConflictEvent::Resolved { step, .. } if step.as_str() == ANSWER => {}
            ConflictEvent::Resolved { step, part, choice, by, .. } => {
                let step = self.step(step, at);
                step.status = match (part, choice) {
                    (StepPart::Undo, Choice::Take { .. }) => StepStatus::Undone,
                    (StepPart::Undo, Choice::Skip) => StepStatus::Done,
                    (StepPart::Undo, _) => StepStatus::Undoing,
                    (StepPart::Do | StepPart::Probe, _) => StepStatus::Running,
                };
                step.note = Some(format!("{by} chose `{}`", choice.name()));
            }
        }
    }
}
