//! How a run ends: all steps have ended, it failed, it was cancelled, or its deadline has passed.
//!
//! Always true: calls under way end first; an unknown effect is a conflict before anything is undone; the caller has
//! its answer, where one is declared, before undoing begins; a run with something to undo ends only after each call was
//! undone, or a person decided to leave it as it is. A run that fails only because no answer could be made undoes
//! nothing, unless it is a child. In dark nobody decides: a run ends at its first conflict, and what it did or may have
//! done is left, and listed. Only where the files lack something that it needs does such a run wait for them, unless it
//! is ending already.

use std::sync::Arc;

use jiff::Timestamp;

use super::calls::{CallState, UnknownReply};
use super::conflict::conflict;
use super::respond::{answer_about, pin};
use super::{
    AnswerEvent, CommandRefusal, ConflictEvent, ConflictKind, ControlEvent, DecisionInputs, EndingEvent, Event,
    Failure, FailureKind, Plan, Run, RunStatus, RunSummary, ShownTexts, StepPart, undo,
};
use crate::names::StepId;
use crate::secret::{SEALED, STARS};

/// Ends the run, or enters the next phase.
pub(super) fn conclude(run: &Run, plan: &Plan, inputs: &DecisionInputs) -> Result<Vec<Event>, CommandRefusal> {
    let ending_conflict = run.ending_conflict();
    if (run.is_paused() && ending_conflict.is_none()) || run.in_flight > 0 || !run.interactions.children.is_empty() {
        return Err(CommandRefusal::NotDue("calls or other runs are under way, or the run is paused"));
    }
    if let Some(conflict) = ending_conflict {
        let message = format!("a person would have to decide: {}", conflict.message);
        let failure = Failure::of_step(FailureKind::WouldPause, &conflict.step, conflict.item, message);
        return Ok(vec![Event::Ending(EndingEvent::Failed { failure })]);
    }
    let has_steps_to_come = run.ended_steps < plan.steps.len();
    // A child without an answer counts as failed: its parent takes it as failed and undoes only its own steps, so the
    // child has to undo what it did itself.
    let unanswered_child = run.unanswered.as_ref().filter(|_| run.started.parent.is_some() && !has_steps_to_come);
    let Some(failure) = run.failing.as_ref().or(unanswered_child) else {
        if has_steps_to_come {
            return Err(CommandRefusal::NotDue("steps are to come"));
        }
        return match &run.unanswered {
            None if run.answer.is_none() => Err(CommandRefusal::NotDue("the answer is to come")),
            None => Ok(vec![Event::Ending(EndingEvent::Completed {})]),
            // All steps have ended and only the answer is missing, which is no reason to undo anything.
            Some(failure) => {
                let early = early_answer(run, plan, inputs);
                let failure = early.with_reason(failure);
                Ok(early.event.into_iter().chain([Event::Ending(EndingEvent::Failed { failure })]).collect())
            }
        };
    };
    let compensates = run.compensates();
    if run.undoing.as_ref().is_some_and(|undoing| compensates && undoing.at < undoing.groups.len()) {
        return Err(CommandRefusal::NotDue("something is to be undone"));
    }
    if run.undoing.is_none() {
        let unknown: Vec<Event> = run
            .uncertain_calls()
            .filter_map(|(step, item, call)| pause_over_unknown(run, plan, step, item, call))
            .collect();
        if !unknown.is_empty() {
            return Ok(unknown);
        }
    }
    let early = early_answer(run, plan, inputs);
    let failure = early.with_reason(failure);
    let mut events: Vec<Event> = early.event.into_iter().filter(|_| run.undoing.is_none()).collect();
    if run.undoing.is_none() && compensates {
        let undo = undo::groups_to_undo(run, plan);
        if !undo.is_empty() {
            events.push(Event::Ending(EndingEvent::CompensationBegan { undo }));
            return Ok(events);
        }
    }
    events.push(match &run.cancel {
        Some(cancel) => {
            let (by, reason) = (cancel.by.clone(), cancel.reason.clone());
            Event::Ending(EndingEvent::Cancelled { by, reason, unread: false })
        }
        // A `fail` step with a status below 500 is an outcome that the workflow declares.
        None if run.declared.as_ref().is_some_and(|answer| answer.status < 500) => {
            Event::Ending(EndingEvent::Completed {})
        }
        None => Event::Ending(EndingEvent::Failed { failure }),
    });
    Ok(events)
}

/// The caller's answer for a run that ends early.
#[derive(Default)]
struct EarlyAnswer {
    /// `None` where the plan declares none, or where the run has an answer.
    event: Option<Event>,
    /// Why the answer that the plan declares has no value, as it may be shown.
    no_value: Option<String>,
}

impl EarlyAnswer {
    /// The failure of the run, which also says why the answer that the plan declares for it could not be given.
    fn with_reason(&self, failure: &Failure) -> Failure {
        let Some(why) = &self.no_value else { return failure.clone() };
        let message = format!("{}; the answer that `respond` declares for this has no value: {why}", failure.message);
        Failure { message, ..failure.clone() }
    }
}

/// The caller's answer for a run that ends early, where the plan declares one. An id in it is pinned like an id in any
/// answer: the caller may follow up a declined command too.
fn early_answer(run: &Run, plan: &Plan, inputs: &DecisionInputs) -> EarlyAnswer {
    if run.answer.is_some() {
        return EarlyAnswer::default();
    }
    let declared = match &run.declared {
        Some(declared) => Ok(Some(declared.clone())),
        None => answer_about(run, plan, "failed", &inputs.answering(run, None), inputs.bytes_mark(run))
            .map(|answer| answer.map(Arc::new)),
    };
    match declared {
        Err(no_value) => {
            let why = ShownTexts::of(plan, run).failure(&no_value).into_owned();
            EarlyAnswer { event: None, no_value: Some(why) }
        }
        Ok(answer) => {
            let event = answer.map(|answer| {
                let pin = pin(run, &answer);
                Event::Answer(AnswerEvent::Responded { answer, pin })
            });
            EarlyAnswer { event, no_value: None }
        }
    }
}

/// Pauses the run over an unknown effect that is not probed again: a person decides whether it has to be undone.
fn pause_over_unknown(run: &Run, plan: &Plan, step: &StepId, item: Option<u32>, call: &CallState) -> Option<Event> {
    let (_, declared) = plan.step(step)?;
    let why = call.why.clone().unwrap_or_default();
    let ends = run.failing.as_ref().map_or("", |failure| failure.message.as_str());
    let message = format!("it is unknown whether `{step}` was done ({why}), and the run ends: {ends}");
    let UnknownReply { status, response } = call.unknown_reply.clone().unwrap_or_default();
    let failure = Failure { status, ..Failure::of_step(FailureKind::Broken, step, item, message) };
    let mut conflict = conflict(run, declared, item, StepPart::Do, ConflictKind::OutcomeUnknown, &failure);
    conflict.response = response;
    Some(Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None }))
}

/// The event of the run's own deadline, where it has passed.
pub(super) fn elapse(run: &Run, now: Timestamp) -> Vec<Event> {
    let has_passed = run.started.until.is_some_and(|until| until <= now) && run.failing.is_none();
    if has_passed { vec![Event::Ending(EndingEvent::DeadlinePassed {})] } else { Vec::new() }
}

/// Handles a cancellation. A person may cancel a run again that was cancelled automatically, to close its conflicts. If
/// the run is ending already and its parent has paused it, a cancellation by the parent resumes it: after a restore
/// even a run that is ending is paused, and a parent that is ending gives its children no command but a cancellation.
/// The event names the parent as the one who resumed the run.
pub(super) fn cancel(
    run: &Run,
    compensate: bool,
    reason: Option<String>,
    automatic: bool,
    by: &str,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let is_of_parent = run.started.parent.as_ref().is_some_and(|parent| parent.run.to_string() == by);
    let is_paused_by_parent = is_of_parent && run.pause.as_ref().is_some_and(|pause| pause.by == by);
    let refuse = |why: String| match is_paused_by_parent {
        true => {
            Ok(vec![Event::Control(ControlEvent::Resumed { by: by.to_owned(), reason: reason.clone(), at: Some(now) })])
        }
        false => Err(CommandRefusal::NotApplicable(why)),
    };
    let earlier = run.cancel.as_ref().filter(|cancel| automatic || !cancel.automatic);
    match (earlier, run.undoing.is_some(), compensate) {
        (Some(cancel), _, _) if cancel.compensate == compensate || compensate => {
            refuse(format!("{} has cancelled it already", cancel.by))
        }
        (None, true, true) => refuse(
            "what was done is being undone already; to leave the rest as it is, cancel without compensation".into(),
        ),
        _ => {
            Ok(vec![Event::Control(ControlEvent::CancelRequested { by: by.to_owned(), compensate, reason, automatic })])
        }
    }
}

impl RunSummary {
    /// The summary and the last event of a run that is cancelled although its plan or its events cannot be read. The
    /// summary equals the one that folding all of the events would give.
    pub fn cancelled_although_unreadable(
        self,
        why: &str,
        reason: Option<&str>,
        by: &str,
        now: Timestamp,
    ) -> (Self, Event) {
        // This function cannot seal anything, so a sealed value that was copied into the note would be opened by a
        // process that has the key again: stars replace it.
        let shown = |text: &str| if text.contains(SEALED[0]) { STARS.to_owned() } else { text.to_owned() };
        let (by, reason) = (&*shown(by), reason.map(shown));
        let reason = match reason {
            Some(reason) => format!("{reason} ({why}: nothing was undone, and what was under way is left as it is)"),
            None => format!("{why}: nothing was undone, and what was under way is left as it is"),
        };
        let (status, seq, updated) = (RunStatus::Cancelled, self.seq.next(), now.max(self.updated));
        let note = Some(format!("{by} cancelled it: {reason}"));
        let row = Self { status, seq, updated, note, wake: None, checkpoint: None, ..self };
        (row, Event::Ending(EndingEvent::Cancelled { by: by.to_owned(), reason: Some(reason), unread: true }))
    }
}
