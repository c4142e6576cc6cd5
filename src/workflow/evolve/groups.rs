//! Passes the events of each group to the functions that apply them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ending::cancelled_by;
use super::interactions::RecordedChildEnd;
use crate::workflow::calls::{RunningStep, StepState};
use crate::workflow::run::End;
use crate::workflow::{
    AnswerEvent, CheckpointEvent, ChildEvent, ConflictEvent, ControlEvent, EndingEvent, Failure, FailureKind,
    LockEvent, Run, Skipped, StepEvent, WaitEvent,
};

impl Run {
    pub(super) fn step_event(&mut self, event: &StepEvent) -> Result<(), String> {
        match event {
            StepEvent::Computed { step, output } => {
                // If the risk of a fan-out has no value, a person may give the outputs of all items before any begins.
                let opened = self.open_step(step).filter(|open| open.items.is_some());
                if opened.is_none_or(|open| open.has_calls() || !open.replaced.is_empty()) {
                    self.check_not_begun(step)?;
                }
                self.end_complete_item_fallback(step);
                self.end_as_done(step, None, Some(output.clone()), Vec::new());
                Ok(())
            }
            StepEvent::Skipped { step, item, reason } => {
                self.decided_against |= *reason == Skipped::ByHand;
                self.step_skipped(step, *item, *reason)
            }
            StepEvent::FanOutOpened { step, items, collect, fallback } => {
                self.check_not_begun(step)?;
                let fallbacks_by_item = fallback.then(BTreeMap::new);
                let open = RunningStep {
                    items: Some(Arc::new(items.clone())),
                    collect: *collect,
                    fallbacks_by_item,
                    ..RunningStep::default()
                };
                self.steps.insert(step.clone(), StepState::Open(open));
                self.end_step_if_complete(step);
                Ok(())
            }
            StepEvent::FailReached { step, answer } => {
                self.check_not_begun(step)?;
                self.end_step(step, StepState::Failed, None, Vec::new());
                if self.failing.is_none() {
                    let message = format!("`{step}` ended the run with {}", answer.status);
                    self.fail(Failure::of_step(FailureKind::Declared, step, None, message));
                    self.declared = Some(answer.clone());
                }
                Ok(())
            }
            StepEvent::FallbackTaken { step, item: None, by, failure } => self.fallback_taken(step, by, failure),
            StepEvent::FallbackTaken { step, item: Some(item), by, failure } => {
                self.item_replaced(step, *item, by, failure)
            }
            StepEvent::Probed { step, item, attempt, done, .. } => self.probed(step, *item, *attempt, *done),
            StepEvent::ResultTaken(taken) => self.result_taken(taken),
        }
    }

    pub(super) fn wait_event(&mut self, event: &WaitEvent) -> Result<(), String> {
        match event {
            WaitEvent::Began { step, until, signal } => self.wait_began(step, *until, signal.as_ref()),
            WaitEvent::SignalReceived { name, payload, id, .. } => {
                self.signal_received(name, payload, id.as_ref());
                Ok(())
            }
            WaitEvent::Ended { step, signal, output } => self.wait_ended(step, *signal, output),
        }
    }

    pub(super) fn lock_event(&mut self, event: &LockEvent) -> Result<(), String> {
        match event {
            LockEvent::Queued { step, item, name } => self.lock_queued(step, *item, name),
            LockEvent::Taken { step, item, name } => self.lock_taken(step, *item, name),
            LockEvent::Left { step, item, .. } => self.lock_left(step, *item),
        }
    }

    pub(super) fn child_event(&mut self, event: &ChildEvent) -> Result<(), String> {
        match event {
            ChildEvent::Started { step, item, child, workflow, input } => {
                self.child_started(step, *item, *child, workflow, input)
            }
            ChildEvent::Ended { step, item, child, status, output, note: _, effects, tree, unfit, sensitive: _ } => {
                let (effects, tree) = (*effects, tree.as_ref());
                let ended = RecordedChildEnd { child: *child, status: *status, effects, tree, unfit: *unfit };
                self.child_ended(step, *item, &ended, output)
            }
        }
    }

    pub(super) fn checkpoint_event(&mut self, event: &CheckpointEvent) -> Result<(), String> {
        match event {
            CheckpointEvent::Opened(asked) => self.checkpoint_opened(asked),
            CheckpointEvent::Answered { checkpoint, answer: said, by } => {
                self.checkpoint_answered(checkpoint, said, by)
            }
            CheckpointEvent::Escalated { checkpoint, who, until, on_timeout } => {
                self.checkpoint_escalated(checkpoint, who, *until, *on_timeout)
            }
        }
    }

    pub(super) fn conflict_event(&mut self, event: &ConflictEvent) -> Result<(), String> {
        match event {
            ConflictEvent::Paused { conflict, unfit_outcome: unfit } => {
                self.conflict_opened(conflict, unfit.as_deref())
            }
            ConflictEvent::Resolved { step, item, part, choice, by, .. } => {
                self.resolved(step, *item, *part, choice, by)
            }
        }
    }

    pub(super) fn control_event(&mut self, event: &ControlEvent) -> Result<(), String> {
        match event {
            ControlEvent::CancelRequested { by, compensate, reason, automatic } => {
                self.cancel_ordered(by, *compensate, reason.as_deref(), *automatic);
                Ok(())
            }
            ControlEvent::PauseRequested { by, reason, at } => self.pause_ordered(by, reason.as_deref(), *at),
            ControlEvent::Resumed { by, at, .. } => self.resumed(by, *at),
            ControlEvent::InputAdjusted { step, item, input, least_risk, .. } => {
                self.input_adjusted(step, *item, input)?;
                self.interactions.raise_least_risk(step, *least_risk);
                Ok(())
            }
            ControlEvent::RetriedNow { step, item, .. } => self.retried_now(step, *item),
        }
    }

    pub(super) fn answer_event(&mut self, event: &AnswerEvent) -> Result<(), String> {
        match event {
            AnswerEvent::Failed { failure } => {
                // Nothing is undone: the steps go on, and the run ends without an answer.
                self.unanswered = Some(failure.clone());
                Ok(())
            }
            AnswerEvent::Responded { answer, pin } => {
                if self.answer.is_some() {
                    return Err("the answer is fixed already".into());
                }
                self.answer = Some(answer.clone());
                // A caller who has got the pending answer does not get this one, so this one tells nobody of a failure.
                self.answer_tells_failure = self.failing.is_some() && self.pending.is_none();
                self.pinned = pin.clone().or(self.pinned.take());
                Ok(())
            }
            AnswerEvent::Pending { answer, pin } => {
                if self.answer.is_some() || self.pending.is_some() {
                    return Err("the caller has an answer already".into());
                }
                self.pending = Some(answer.clone());
                self.pending_in_conflict = self.is_paused_in_conflict();
                self.pinned = pin.clone().or(self.pinned.take());
                Ok(())
            }
        }
    }

    pub(super) fn ending_event(&mut self, event: &EndingEvent) -> Result<(), String> {
        match event {
            EndingEvent::DeadlinePassed {} => {
                self.fail(Failure::of_run(FailureKind::TimedOut, "the run's deadline has passed"));
                Ok(())
            }
            EndingEvent::CompensationBegan { undo } => self.compensation_began(undo),
            EndingEvent::Superseded(superseded) => {
                self.decided_against = true;
                self.ended(End::Superseded(superseded.clone()))
            }
            EndingEvent::Completed {} => self.ended(End::Completed),
            EndingEvent::Failed { failure } => {
                self.leave_conflicts();
                self.ended(End::Failed(failure.clone()))
            }
            EndingEvent::Cancelled { by, reason, unread: true } => {
                self.cancelled_although_unreadable(by, reason.as_deref());
                Ok(())
            }
            EndingEvent::Cancelled { by, reason, unread: false } => {
                self.ended(End::Cancelled(cancelled_by(by, reason.as_deref())))
            }
            EndingEvent::Abandoned { reason, .. } => {
                if self.reported_effects_begun() || self.answer.is_some() {
                    return Err("a private or shared step has begun, or the caller has an answer".into());
                }
                self.end = Some(End::Abandoned(reason.clone()));
                Ok(())
            }
        }
    }
}
