//! What a listing shows of a run: a projection of its events that can be rebuilt.
//!
//! Always true: a run counts as waiting for a person or a signal only if nothing else of it is under way: no call, no
//! attempt to come, no child run. Its `wake` is its earliest deadline or next attempt.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::calls::{Phase, StepState};
use super::run::End;
use super::run_status::RunStatus;
use super::{Mode, OpenCheckpoint, Plan, Risk, Run, ShownTexts};
use crate::names::{CheckpointId, JobId, PlanId, RouteId, RunId, Seq, WorkflowName};

/// One row about a run: always equal to what folding its events gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run_id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The plan it keeps.
    pub plan_id: PlanId,
    /// The route that started it, if one did.
    pub route: Option<RouteId>,
    /// What it may send.
    pub mode: Mode,
    /// Its status.
    pub status: RunStatus,
    /// The sequence number of the last event that is folded in.
    pub seq: Seq,
    /// When it started.
    pub started: Timestamp,
    /// When its last event happened.
    pub updated: Timestamp,
    /// Why it is paused or ended early, or what people are asked, in a sentence.
    pub note: Option<String>,
    /// The job that it belongs to; `None` where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Its parent run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// When the engine has to look at it again, if nothing else wakes it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Timestamp>,
    /// The first open checkpoint, with its risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<(CheckpointId, Risk)>,
}

impl RunSummary {
    /// The message for a run whose events were purged by retention, from what this row still knows.
    pub fn purged_message(&self) -> String {
        let Self { run_id, status, started, updated, note, .. } = self;
        let note = note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
        format!(
            "the events of {run_id} were purged; it started at {started:.0} and ended as {} at {updated:.0}{note}",
            status.as_str()
        )
    }
}

impl Run {
    /// Its status.
    pub fn status(&self) -> RunStatus {
        match &self.end {
            Some(End::Completed) => RunStatus::Completed,
            Some(End::Failed(_)) => RunStatus::Failed,
            Some(End::Cancelled(_) | End::CancelledUnread(_) | End::Superseded(_)) => RunStatus::Cancelled,
            Some(End::Abandoned(_)) => RunStatus::Abandoned,
            None if self.is_paused() => RunStatus::Paused,
            None if self.undoing.is_some() => RunStatus::Compensating,
            None if self.is_ending() || self.is_active() => RunStatus::Running,
            None if self.interactions.open_questions().next().is_some() => RunStatus::WaitingCheckpoint,
            None if self.interactions.waits.values().any(|wait| wait.signal.is_some()) => RunStatus::WaitingSignal,
            None => RunStatus::Running,
        }
    }
    /// Whether a call or a child run is under way, or an attempt is to come.
    fn is_active(&self) -> bool {
        let has_attempts = |state: &StepState| match state {
            StepState::Open(open) => open.calls.values().any(|call| {
                let awaits_approval = call.renew && matches!(call.phase, Phase::Waiting(_));
                !awaits_approval && call.phase != Phase::AwaitsDecision
            }),
            _ => false,
        };
        self.in_flight > 0 || !self.interactions.children.is_empty() || self.steps.values().any(has_attempts)
    }
    /// Its next deadline or attempt. Of a paused run only its own deadline counts.
    pub fn wake(&self) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        let run_deadline = self.started.until.filter(|_| self.failing.is_none());
        if self.is_paused() {
            return run_deadline;
        }
        let calls = self.steps.values().flat_map(|state| match state {
            StepState::Open(open) => Some(&open.calls),
            _ => None,
        });
        let calls = calls.flat_map(|calls| calls.values()).chain(self.side_calls.values());
        // A call to which a person gave another input has no time of its own while that input waits for approval.
        let has_questions = self.interactions.open_questions().next().is_some();
        let calls = calls.filter_map(|call| match call.phase {
            Phase::Waiting(_) if call.renew && has_questions => None,
            Phase::Waiting(at) | Phase::ToProbe(at) => Some(at),
            Phase::InFlight | Phase::Probing | Phase::AwaitsDecision => None,
        });
        let questions = self.interactions.open_questions().filter_map(|question| question.checkpoint.until);
        let waits = self.interactions.waits.values().filter_map(|wait| wait.until);
        let interactions = questions.chain(waits).filter(|_| self.failing.is_none());
        run_deadline.into_iter().chain(calls).chain(interactions).min()
    }
    /// Open questions to people, in the order of their ids; none where the run is ending or has ended.
    pub fn open_checkpoints(&self) -> impl Iterator<Item = &OpenCheckpoint> {
        self.interactions
            .open_questions()
            .map(|question| &*question.checkpoint)
            .filter(|_| self.end.is_none() && self.failing.is_none())
    }
    /// Its summary, in clear. `updated` is when its last event happened.
    pub fn summary(&self, updated: Timestamp) -> RunSummary {
        self.summary_in(updated, &ShownTexts::in_clear())
    }
    /// As [`Run::summary`], with stars in place of what was made from sensitive values: as it is shown and stored.
    pub fn shown_summary(&self, updated: Timestamp, plan: &Plan) -> RunSummary {
        let in_clear = self.summary(updated);
        match in_clear.note.is_some() && self.is_sensitive(plan) {
            true => self.summary_in(updated, &ShownTexts::of(plan, self)),
            false => in_clear,
        }
    }
    fn summary_in(&self, updated: Timestamp, texts: &ShownTexts) -> RunSummary {
        let first = self.open_checkpoints().min_by_key(|asked| asked.at);
        RunSummary {
            run_id: self.started.run,
            workflow: self.started.workflow.clone(),
            plan_id: self.started.plan.clone(),
            route: self.started.route.clone(),
            mode: self.started.mode,
            status: self.status(),
            seq: self.seq,
            started: self.started.started,
            updated,
            note: self.note_in(texts).or_else(|| first.map(|asked| texts.question_of_step(asked).into_owned())),
            job: self.started.job,
            parent: self.started.parent.as_ref().map(|parent| parent.run),
            wake: self.wake(),
            checkpoint: first.map(|asked| (asked.checkpoint.clone(), asked.risk)),
        }
    }
}
