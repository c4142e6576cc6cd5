//! Actions of people, locks and child runs on a run under test. Time stands still unless a test advances it.

use super::*;
use crate::names::CheckpointId;
use crate::workflow::{
    CheckpointAnswer, ControlCommand, LockPosition, OpenCheckpoint, TreeEffects, WaitReason, WaitStartTimes, waits,
};

pub(super) fn yes() -> CheckpointAnswer {
    CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None }
}
pub(super) fn no() -> CheckpointAnswer {
    CheckpointAnswer { approve: false, ..yes() }
}
pub(super) fn yes_with(values: Value) -> CheckpointAnswer {
    CheckpointAnswer { values: Some(Arc::new(values)), ..yes() }
}
pub(super) fn review(approved: &[u32], struck: &[u32]) -> CheckpointAnswer {
    CheckpointAnswer { approved: approved.to_vec(), struck: struck.to_vec(), ..yes() }
}

impl Harness<'_> {
    /// Performs all actions that are due now, without advancing the clock. Child runs get consecutive ids.
    pub fn perform_due(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for action in self.due() {
                moved |= match action {
                    Action::Decide(command) => self.command(command).is_ok(),
                    Action::Child { step, item } => {
                        let child = RunId(uuid::Uuid::from_u128(1000 + self.events.len() as u128));
                        self.command(Command::BeginChild { step, item, child }).is_ok()
                    }
                    Action::Wait(_) | Action::Held(_) | Action::CommandChild { .. } | Action::Lock { .. } => false,
                };
            }
            if !moved {
                assert!(self.run.is_final() || !self.reasons().is_empty(), "stuck: {:?}", self.kinds());
                return;
            }
        }
        panic!("the run does not come to rest");
    }
    /// Gives a command, and performs the actions that follow.
    pub fn give_command_by(&mut self, by: &str, command: ControlCommand) -> Result<usize, CommandRefusal> {
        let command = Command::Control { command, by: by.into() };
        let done = match decide(&self.run, self.plan, &self.inputs, command.clone(), self.now) {
            Ok(events) if events.is_empty() => Ok(0),
            Ok(_) => self.command(command),
            Err(refusal) => Err(refusal),
        };
        self.perform_due();
        done
    }
    /// Answers the only open question.
    pub fn answers(&mut self, by: &str, said: CheckpointAnswer) -> Result<usize, CommandRefusal> {
        let checkpoint = self.open_checkpoint().checkpoint;
        self.give_command_by(by, ControlCommand::Answer { checkpoint, answer: said })
    }
    pub fn open_checkpoint(&self) -> OpenCheckpoint {
        let mut asked: Vec<_> = self.run.open_checkpoints().cloned().collect();
        assert_eq!(asked.len(), 1, "{:?}", self.kinds());
        asked.remove(0)
    }
    pub fn checkpoint(&self) -> CheckpointId {
        self.open_checkpoint().checkpoint
    }
    /// Records a reply, and performs the actions that follow.
    pub fn replies(&mut self, step: &str, item: Option<u32>, result: AttemptResult) {
        self.reply(step, item, result).unwrap();
        self.perform_due();
    }
    pub fn advance_seconds(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.perform_due();
    }
    /// The locks that steps wait for.
    pub fn awaited_locks(&self) -> Vec<(String, Option<u32>)> {
        let locks = self.due().into_iter().filter_map(|action| match action {
            Action::Lock { item, name, .. } => Some((name, item)),
            _ => None,
        });
        locks.collect()
    }
    /// Records what the queue of a lock shows.
    pub fn see_lock(&mut self, step: &str, item: Option<u32>, seen: LockPosition) -> Result<usize, CommandRefusal> {
        let entry = self.run.interactions.queue_entry(&step.into(), item);
        let queued = entry.map_or(crate::names::Seq(0), |entry| entry.queued);
        let step = self.plan.step(&step.into()).unwrap().0;
        let done = self.command(Command::LockSeen { step, item, queued, seen });
        self.perform_due();
        done
    }
    pub fn children(&self) -> Vec<RunId> {
        self.run.children().map(|child| child.run).collect()
    }
    pub fn child_ends(&mut self, child: RunId, status: RunStatus, output: Value) {
        self.child_ends_with(child, status, output, None);
    }
    pub fn child_ends_with(&mut self, child: RunId, status: RunStatus, output: Value, failure: Option<FailureKind>) {
        let note = (status != RunStatus::Completed).then(|| "it broke".to_owned());
        self.command(Command::ChildEnded {
            child,
            status,
            output: Arc::new(output),
            note,
            failure,
            tree: Some(TreeEffects { shared: true, ..TreeEffects::default() }),
            sensitive: Vec::new(),
        })
        .unwrap();
        self.perform_due();
    }
    pub fn commands_to_children(&self) -> Vec<&'static str> {
        let told = self.due().into_iter().filter_map(|action| match action {
            Action::CommandChild { command, .. } => Some(command.name()),
            _ => None,
        });
        told.collect()
    }
    pub fn reasons(&self) -> Vec<WaitReason> {
        let since = WaitStartTimes::of(self.events.iter().map(|event| (self.now, event)));
        waits(&self.run, self.plan, &self.inputs, self.conditions(), &since)
    }
    pub fn causes(&self) -> Vec<&'static str> {
        self.reasons().iter().map(|reason| reason.kind.as_str()).collect()
    }
    /// The bodies that were sent, in order.
    pub fn sent_bodies(&self) -> Vec<Value> {
        let bodies = self.events.iter().filter_map(|event| match event {
            Event::StepStarted(started) => Some(started.request.as_ref()?.body.value()),
            _ => None,
        });
        bodies.collect()
    }
    pub fn status(&self) -> RunStatus {
        assert_eq!(self.run.status(), self.run.summary(self.now).status);
        self.run.status()
    }
}
