//! A run as it is shown to people: its steps with status, attempts and times.

mod groups;
mod items;
mod settled;
mod step;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use step::StepView;

use super::{
    Conflict, Event, EventMisfit, Mode, OpenCheckpoint, Outcome, Run, RunStatus, StepPart, StepStatus, UndoStatus,
    evolve,
};
use crate::names::{PlanId, RouteId, RunId, Seq, StepId, WorkflowName};

/// A run and its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
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
    /// From its start to its last event, in milliseconds.
    pub duration_ms: u64,
    /// Why it is paused or ended early, in a sentence.
    pub note: Option<String>,
    /// The status of the caller's answer, once it is fixed.
    pub answered: Option<u16>,
    /// Steps that have begun or were skipped, in the order of their first events.
    pub steps: Vec<StepView>,
    /// What people are asked, the oldest first.
    pub checkpoints: Vec<OpenCheckpoint>,
    /// What people have to decide, the oldest first.
    pub conflicts: Vec<Conflict>,
    /// Of a run that ends early or has no answer: the steps that were done or may have been, and whether they were
    /// undone.
    pub undone: Vec<UndoneView>,
}

/// A step (an item) that was done or may have been, and whether it was undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoneView {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Whether it was undone.
    pub undone: bool,
    /// Why it was not undone, or not yet.
    pub why: Option<String>,
}

/// Folds events into a view of their run.
///
/// # Errors
/// There are no events, or one does not fit.
pub fn view<'a>(events: impl IntoIterator<Item = (Timestamp, &'a Event)>) -> Result<RunView, EventMisfit> {
    view_and_run(events).map(|(view, _)| view)
}

/// As [`view`], together with the run itself.
///
/// # Errors
/// As [`view`].
pub fn view_and_run<'a>(
    events: impl IntoIterator<Item = (Timestamp, &'a Event)>,
) -> Result<(RunView, Run), EventMisfit> {
    let mut run: Option<Run> = None;
    let mut steps = Steps::default();
    let mut updated = None;
    for (at, event) in events {
        let after = evolve(run, event)?;
        steps.apply(at, event, &after);
        run = Some(after);
        updated = Some(at);
    }
    let (Some(run), Some(updated)) = (run, updated) else {
        return Err(EventMisfit { seq: Seq(0), kind: "none", why: "there are no events".into() });
    };
    let started = run.started();
    settled::correct_statuses(&mut steps.list, &run);
    let mut checkpoints: Vec<OpenCheckpoint> = run.open_checkpoints().cloned().collect();
    checkpoints.sort_by_key(|asked| asked.at);
    let undone = run.undone().into_iter().map(|(step, item, undone)| {
        let (undone, why) = match undone {
            UndoStatus::Undone => (true, None),
            UndoStatus::NotYet => (false, Some("it is being undone".to_owned())),
            UndoStatus::Rehearsed => (false, Some("nothing was sent".to_owned())),
            UndoStatus::Left(why) => (false, Some(why)),
        };
        UndoneView { step: step.clone(), item, undone, why }
    });
    let view = RunView {
        run_id: started.run,
        workflow: started.workflow.clone(),
        plan_id: started.plan.clone(),
        route: started.route.clone(),
        mode: started.mode,
        status: run.status(),
        seq: run.seq(),
        started: started.started,
        updated,
        duration_ms: millis_between(started.started, updated),
        note: run.note(),
        answered: run.answer().map(|answer| answer.status),
        steps: steps.list,
        checkpoints,
        conflicts: run.conflicts().to_vec(),
        undone: undone.collect(),
    };
    Ok((view, run))
}

#[derive(Default)]
struct Steps {
    list: Vec<StepView>,
    /// The index of each step in the list.
    indexes: BTreeMap<StepId, usize>,
}

impl Steps {
    fn apply(&mut self, at: Timestamp, event: &Event, run: &Run) {
        match event {
            Event::StepStarted(started) => {
                let step = self.step(&started.step, at);
                match started.part {
                    StepPart::Do => {
                        step.status = StepStatus::Running;
                        step.attempts += 1;
                    }
                    StepPart::Probe => step.status = StepStatus::Unknown,
                    StepPart::Undo => step.status = StepStatus::Undoing,
                }
            }
            Event::RetryScheduled(retry) => {
                let step = self.step(&retry.step, at);
                step.status = match retry.part {
                    StepPart::Do if retry.probe => StepStatus::Unknown,
                    StepPart::Do => StepStatus::Retrying,
                    StepPart::Probe => StepStatus::Unknown,
                    StepPart::Undo => StepStatus::Undoing,
                };
                step.note = Some(retry.why.clone());
            }
            Event::StepFinished(finished) if finished.part == StepPart::Undo => {
                let step = self.step(&finished.step, at);
                (step.status, step.note) = match &finished.outcome {
                    Outcome::Done { .. } | Outcome::Rehearsed { .. } => (StepStatus::Undone, None),
                    Outcome::NotDone { failure }
                    | Outcome::Unknown { failure }
                    | Outcome::Failed { failure }
                    | Outcome::Unfit { failure, .. } => (StepStatus::Done, Some(failure.message.clone())),
                };
            }
            Event::StepFinished(finished) => {
                let step = self.step(&finished.step, at);
                let (status, http_status, note) = match &finished.outcome {
                    Outcome::Done { status, .. } => (StepStatus::Done, Some(*status), None),
                    Outcome::Rehearsed { note, .. } => (StepStatus::Rehearsed, None, note.clone()),
                    Outcome::NotDone { failure } | Outcome::Failed { failure } | Outcome::Unfit { failure, .. } => {
                        (StepStatus::Failed, failure.status, Some(failure.message.clone()))
                    }
                    Outcome::Unknown { failure } => {
                        (StepStatus::Unknown, failure.status, Some(failure.message.clone()))
                    }
                };
                if finished.part != StepPart::Do {
                    step.note = note.or(step.note.take());
                    return;
                }
                if let Some(ended) = &mut step.items_ended {
                    *ended += 1;
                }
                let has_open_items =
                    step.items_ended < step.items && matches!(status, StepStatus::Done | StepStatus::Rehearsed);
                step.status = if has_open_items { StepStatus::Running } else { status };
                step.http_status = http_status.or(step.http_status);
                // The end of another item does not remove the note of one that failed.
                step.note = if step.items.is_some() { note.or(step.note.take()) } else { note };
                self.replaced_item_ended(&finished.step, finished.item, at, run);
            }
            Event::Step(event) => self.apply_step(at, event, run),
            Event::Wait(event) => self.apply_wait(at, event, run),
            Event::Lock(event) => self.apply_lock(at, event),
            Event::Child(event) => self.apply_child(at, event, run),
            Event::Checkpoint(event) => self.apply_checkpoint(at, event, run),
            Event::Conflict(event) => self.apply_conflict(at, event),
            Event::RunStarted(_) | Event::Control(_) | Event::Answer(_) | Event::Ending(_) => {}
        }
    }

    /// Sets the status, and the note where there is a new one.
    fn set_status(&mut self, step: &StepId, at: Timestamp, status: StepStatus, note: Option<String>) {
        let step = self.step(step, at);
        step.status = status;
        step.note = note.or(step.note.take());
    }

    /// Notes at the steps that wait for a signal of this name how many of them came and were not taken. If a step takes
    /// the latest one, the next event replaces the note.
    fn note_refused_signal(&mut self, name: &str, at: Timestamp, run: &Run) {
        let waiting = run.interactions.waits.iter().filter(|(_, wait)| wait.signal.as_deref() == Some(name));
        for (step, _) in waiting {
            self.step(step, at).note = Some(signal_note(name, run));
        }
    }

    /// Sets the status and removes the note, because what the step waited for is over.
    fn clear(&mut self, step: &StepId, at: Timestamp, status: StepStatus) {
        let step = self.step(step, at);
        step.status = status;
        step.note = None;
    }

    fn step(&mut self, id: &StepId, at: Timestamp) -> &mut StepView {
        let index = *self.indexes.entry(id.clone()).or_insert_with(|| {
            self.list.push(StepView {
                step: id.clone(),
                status: StepStatus::Running,
                attempts: 0,
                items: None,
                items_ended: None,
                started: at,
                duration_ms: 0,
                http_status: None,
                note: None,
            });
            self.list.len() - 1
        });
        let step = &mut self.list[index];
        step.duration_ms = millis_between(step.started, at);
        step
    }
}

/// The signal that a step waits for, and how many came that it did not take.
fn signal_note(signal: &str, run: &Run) -> String {
    match run.interactions.signals.iter().filter(|received| received.name == signal).count() {
        0 => format!("it waits for `{signal}`"),
        came => format!("it waits for `{signal}`; {came} came that its `where` refuses"),
    }
}

/// The milliseconds from one time to the other; zero where the clock went backwards.
fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}
