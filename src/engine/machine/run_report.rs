//! What a run reports besides its answer, for comparison and metrics: its intents, its status and, where it cannot be
//! compared, why.

use std::sync::Arc;

use bytes::Bytes;

use crate::compare::Intent;
use crate::exchange::{Branch, IntentsBelow, RehearsedEvents, RunReport};
use crate::expression::MediaType;
use crate::flag::{PinKey, SkipReason};
use crate::names::StepId;
use crate::workflow::{
    CallRecord, Failure, FailureKind, MissingForRehearsal, Mode, Payload, Plan, Redaction, Run, RunStatus, ShownTexts,
    Step, StepKind, StepPart, optional_steps, sends,
};

/// What a run did apart from its answer, for comparison and for metrics.
pub(super) fn report(run: &Run, plan: Option<&Plan>) -> RunReport {
    let redaction = plan.and_then(|plan| Redaction::of(plan, run)).map(Arc::new);
    let texts = plan.map(|plan| ShownTexts::of(plan, run));
    let shown = |failure: &Failure| match &texts {
        Some(texts) => texts.failure(failure).into_owned(),
        // Without the run's plan it is not known which texts may be shown.
        None if run.holds_sensitive() => String::new(),
        None => failure.message.clone(),
    };
    let failed = run.failure().and_then(|failure| Some((skip_reason(failure.kind)?, shown(failure))));
    let is_paused = run.status() == RunStatus::Paused && run.mode() != Mode::Real;
    let unbuilt_undo = || {
        let (step, why) = run.unbuilt_undo().filter(|_| run.mode() != Mode::Real)?;
        let why = shown(&Failure::of_run(FailureKind::WouldPause, why));
        Some((SkipReason::WouldPause, format!("the `undo` of `{step}`: {why}")))
    };
    let unresolved = failed
        .or_else(|| is_paused.then(|| (SkipReason::WouldPause, shown_note(run, plan).unwrap_or_default())))
        .or_else(unbuilt_undo);
    let volatile = |step: &crate::workflow::Step| match &step.kind {
        StepKind::Call(call) => call.volatile && sends(run.mode(), call) && run.has_performed(&step.id),
        _ => false,
    };
    let compared = plan.filter(|_| run.mode() != Mode::Real);
    RunReport {
        run: Some(run.id()),
        plan: Some(run.started().plan.clone()),
        status: Some(run.status()),
        // Not masked: an assertion about masked values would be evaluated on asterisks.
        intents: intents(run, plan),
        steps_without_items: compared.map(|plan| without_items(run, plan)).unwrap_or_default(),
        open_steps: compared.filter(|_| !run.is_final()).map(|plan| open_steps(run, plan)),
        unresolved,
        outlived_deadline: false,
        pending_in_conflict: run.answer().is_none() && run.is_pending_in_conflict(),
        pinned: run.pinned().map(|pin| PinKey { family: pin.family.clone(), id: pin.id.as_str().into() }),
        pin_is_taken: false,
        instance: None,
        stale_reads: run.mode() != Mode::Real && plan.is_some_and(|plan| plan.steps.iter().any(volatile)),
        branch: compared.map(|plan| branch(run, plan)).unwrap_or_default(),
        refused_by_schema: false,
        ended_on_purpose: run.ended_on_purpose(),
        of_earlier_try: false,
        redaction,
        redactions_below: Vec::new(),
        lacks_intents: false,
        events: RehearsedEvents::default(),
    }
}

/// The intents of a run, in the order of its plan: first those of its steps, then those of their undos.
fn intents(run: &Run, plan: Option<&Plan>) -> Vec<Intent> {
    let mut found: Vec<_> = run.intents().collect();
    found.sort_by_key(|(step, item, part, _)| (*part, position(plan, step), *item));
    let to_intent = |(step, item, part, record): (&StepId, Option<u32>, StepPart, &CallRecord)| Intent {
        taken_from: run.assigned_call(step, item).filter(|_| part == StepPart::Do),
        ..intent(plan, step, item, part, record)
    };
    found.into_iter().map(to_intent).collect()
}

/// The intents of a run and the branch that it took, with those of the runs below it.
pub(in crate::engine) struct IntentsOfRun {
    /// In the order of the run's plan.
    pub intents: Vec<Intent>,
    /// Replace the sensitive values of the runs below it.
    pub redactions_below: Vec<Arc<Redaction>>,
    pub branch: Branch,
}

impl IntentsOfRun {
    pub fn of(run: &Run, plan: &Plan, mut below: IntentsBelow) -> Self {
        let branch = Branch { below: below.take_branches_below(), ..branch(run, plan) };
        let mut intents = intents(run, Some(plan));
        let redactions_below = below.merge_into(&mut intents, |step| position(Some(plan), step));
        Self { intents, redactions_below, branch }
    }
}

/// Adds the intents and the branches of the runs below a run to its own.
pub(in crate::engine) fn add_intents_below(report: &mut RunReport, mut below: IntentsBelow, plan: &Plan) {
    report.branch.below = below.take_branches_below();
    report.redactions_below = below.merge_into(&mut report.intents, |step| position(Some(plan), step));
}

fn position(plan: Option<&Plan>, step: &StepId) -> usize {
    plan.and_then(|plan| plan.step(step)).map_or(usize::MAX, |(index, _)| index.0)
}

/// A call of a step as an intent.
pub(in crate::engine) fn intent(
    plan: Option<&Plan>,
    step: &StepId,
    item: Option<u32>,
    part: StepPart,
    record: &CallRecord,
) -> Intent {
    let declared = plan.and_then(|plan| plan.step(step)).and_then(|(_, step)| step.call(part));
    Intent {
        // The intent of an `undo` gets a name of its own, so that it is not compared with the intent of the step.
        step: if part == StepPart::Undo { format!("{step}.undo").as_str().into() } else { step.clone() },
        item,
        method: record.method.parse().unwrap_or_default(),
        url: record.url.clone(),
        headers: record.headers.clone(),
        body: record.body.value(),
        service: declared.map(|call| call.service.clone()),
        bytes: bytes_beside_value(record),
        taken_from: None,
    }
}

/// The exact bytes of a body; `None` where the body's JSON value represents it completely.
fn bytes_beside_value(record: &CallRecord) -> Option<Bytes> {
    let is_json =
        |(name, value): &(String, String)| name.eq_ignore_ascii_case("content-type") && MediaType::of(value).is_json();
    let has_full_value = match &record.body {
        Payload::Empty => true,
        Payload::Text(text) => text.starts_with(['{', '[']) && record.headers.iter().any(is_json),
        Payload::Base64(_) => false,
    };
    (!has_full_value).then(|| record.body.bytes().into())
}

fn branch(run: &Run, plan: &Plan) -> Branch {
    let (taken, not_taken) = optional_steps(run, plan);
    Branch { taken, not_taken, below: Vec::new() }
}

fn open_steps(run: &Run, plan: &Plan) -> Vec<StepId> {
    let may_record = |step: &&Step| matches!(step.kind, StepKind::Call(_) | StepKind::Run(_));
    plan.steps.iter().filter(may_record).map(|step| step.id.clone()).filter(|step| !run.has_ended(step)).collect()
}

fn without_items(run: &Run, plan: &Plan) -> Vec<StepId> {
    let is_empty = |step: &&Step| {
        let is_fan_out = step.for_each.is_some() && matches!(step.kind, StepKind::Call(_));
        is_fan_out && run.has_empty_output(step.id.as_str())
    };
    plan.steps.iter().filter(is_empty).map(|step| step.id.clone()).collect()
}

/// Why a run that ended with a failure of this kind is not compared; `None` where it is.
fn skip_reason(kind: FailureKind) -> Option<SkipReason> {
    Some(match kind.missing_for_rehearsal()? {
        MissingForRehearsal::Output => SkipReason::UnresolvedEffect,
        MissingForRehearsal::Person => SkipReason::NeedsPerson,
        MissingForRehearsal::Signal => SkipReason::NeedsSignal,
        MissingForRehearsal::Decision => SkipReason::WouldPause,
    })
}

/// Why the run is paused or ended early. Without the run's plan it is not known which texts may be shown.
pub(super) fn shown_note(run: &Run, plan: Option<&Plan>) -> Option<String> {
    match plan {
        Some(plan) => run.shown_note(plan),
        None if run.holds_sensitive() => None,
        None => run.note(),
    }
}
