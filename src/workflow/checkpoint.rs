//! Questions to people, and the events that an answer leads to.
//!
//! Always true: a question is answered once, by somebody who is allowed to answer it, with values that fit its schema.
//! The first answer counts; a second one is refused, and the refusal shows the first. A run that only rehearses asks
//! nobody: the declared answer is taken, or the run fails. A question stays open until it is answered, or withdrawn
//! because what it asked about has changed or will not happen. A repeated question gets another id.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::calls::RunningStep;
use super::conflict::conflict;
use super::decision_inputs::deeper_than;
use super::interactions::{QuestionState, RunQuestion};
use super::rules::{Asking, CheckpointStep, OnReject};
use super::sensitive::answer_for_others;
use super::step_events::{failed, finished, skipped};
use super::{
    CheckpointAnswer, CheckpointEvent, CheckpointKind, CommandRefusal, ConflictEvent, ConflictKind, DecisionInputs,
    Event, Failure, FailureKind, Mode, OnTimeout, OpenCheckpoint, Outcome, Plan, ReviewItem, Risk, Run, Skipped, Step,
    StepEvent, StepKind, StepPart, UNVERIFIED, wire,
};
use crate::names::{CheckpointId, StepId};

/// The name under which a time-out answers.
pub(super) const TIME_OUT: &str = "time-out";
/// The name under which the declared answer of a rehearsal is recorded.
const REHEARSAL: &str = "rehearse";
/// The greatest length of a question, in characters.
const QUESTION_CHARS_MAX: usize = 2_000;

/// The parts from which a checkpoint's question is made.
pub(super) struct QuestionParts {
    pub item: Option<u32>,
    pub kind: CheckpointKind,
    pub risk: Risk,
    /// The question's text, where the step declares none.
    pub question: String,
    pub items: Vec<ReviewItem>,
}

/// The id of a question: it differs each time the same step (item) is asked about.
fn id(run: &Run, step: &StepId, item: Option<u32>) -> CheckpointId {
    let times = run.interactions.times_asked.get(&(step.clone(), item)).copied().unwrap_or(0);
    let text = format!("{}\n{step}\n{}\n{times}", run.id(), item.map_or_else(String::new, |item| item.to_string()));
    let hash = blake3::hash(text.as_bytes()).to_hex();
    CheckpointId::new(format!("chk_{}", hash.as_str().get(..24).unwrap_or_default()))
}

fn deadline_after(now: Timestamp, span: Option<Duration>) -> Option<Timestamp> {
    now.checked_add(span?).ok()
}

/// The checkpoint that asks this question.
pub(super) fn ask(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    asking: &Asking,
    parts: QuestionParts,
    now: Timestamp,
) -> Result<OpenCheckpoint, Box<Event>> {
    let QuestionParts { item, kind, risk, question, items } = parts;
    let question = match &asking.question {
        None => question,
        Some(template) => match template.evaluate_text(&inputs.plain(run)) {
            Ok(text) => text,
            Err(error) => return Err(Box::new(failed(run, inputs, step, item, template.reads(), &error))),
        },
    };
    Ok(OpenCheckpoint {
        checkpoint: id(run, &step.id, item),
        step: step.id.clone(),
        item,
        kind,
        risk,
        question: question.chars().take(QUESTION_CHARS_MAX).collect(),
        schema: None,
        who: asking.who.clone(),
        items,
        at: now,
        until: deadline_after(now, asking.timeout),
        on_timeout: asking.on_timeout.unwrap_or(OnTimeout::Reject),
        default: None,
        base_url: step.call(StepPart::Do).map(|call| wire::base_of(call, inputs).to_owned()),
    })
}

/// Begins a step of kind `checkpoint`.
pub(super) fn open(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    question: &CheckpointStep,
    now: Timestamp,
) -> Vec<Event> {
    let parts = QuestionParts {
        item: None,
        kind: CheckpointKind::Question,
        risk: Risk::Medium,
        question: format!("May `{}` go on?", step.id),
        items: Vec::new(),
    };
    let mut asked = match ask(run, inputs, step, &question.asking, parts, now) {
        Ok(asked) => asked,
        Err(event) => return vec![*event],
    };
    asked.schema = question.schema.clone();
    match question.default.as_ref().map(|default| default.evaluate(&inputs.plain(run))) {
        None => {}
        Some(Ok(values)) => asked.default = Some(Arc::new(values)),
        Some(Err(error)) => {
            let reads = question.default.as_ref().map_or(&[][..], |default| default.reads());
            return vec![failed(run, inputs, step, None, reads, &error)];
        }
    }
    if run.mode() == Mode::Real {
        return vec![Event::Checkpoint(CheckpointEvent::Opened(Box::new(asked)))];
    }
    let Some(rehearse) = &question.rehearse else { return vec![needs_person(step, None)] };
    let values = match rehearse.evaluate(&inputs.plain(run)) {
        Ok(values) => values,
        Err(error) => return vec![failed(run, inputs, step, None, rehearse.reads(), &error)],
    };
    if let Some(wrong) = question.complaints(&values).first() {
        let message = format!("`{}`: its schema does not take what `rehearse` gives: {wrong}", step.id);
        let failure = Failure::of_step(FailureKind::Schema, &step.id, None, message);
        return vec![finished(step, None, 0, Outcome::Failed { failure })];
    }
    let checkpoint = asked.checkpoint.clone();
    let said = CheckpointAnswer { values: Some(Arc::new(values)), ..yes() };
    vec![
        Event::Checkpoint(CheckpointEvent::Opened(Box::new(asked))),
        Event::Checkpoint(CheckpointEvent::Answered { checkpoint, answer: said, by: REHEARSAL.into() }),
    ]
}

/// Whether the values of `default` are such as a person could give.
fn does_default_fit(step: &Step, asked: &OpenCheckpoint) -> bool {
    match (&step.kind, asked.default.as_deref()) {
        (StepKind::Checkpoint(question), Some(values)) => question.complaints(values).is_empty(),
        _ => true,
    }
}

/// The failure of a rehearsing run that would have to ask a person.
pub(super) fn needs_person(step: &Step, item: Option<u32>) -> Event {
    let message = format!("`{}` asks a person, and has no `rehearse:`", step.id);
    let failure = Failure::of_step(FailureKind::NeedsPerson, &step.id, item, message);
    finished(step, item, 0, Outcome::Failed { failure })
}

fn yes() -> CheckpointAnswer {
    CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None }
}

/// The refusal of a further answer to a checkpoint that has one, also after the run has ended.
pub fn answered_before(run: &Run, plan: &Plan, id: &CheckpointId) -> Option<CommandRefusal> {
    let question = run.interactions.questions.get(id)?;
    let QuestionState::Answered { said, by, seq } = &question.state else { return None };
    let said = Box::new(answer_for_others(plan, run, &question.checkpoint.step, said));
    Some(CommandRefusal::AnsweredBefore { by: by.clone(), said, seq: *seq })
}

/// Handles an answer.
pub(super) fn answer(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    id: &CheckpointId,
    mut said: CheckpointAnswer,
    by: &str,
) -> Result<Vec<Event>, CommandRefusal> {
    // An item that is listed twice counts once.
    for named in [&mut said.approved, &mut said.struck] {
        named.sort_unstable();
        named.dedup();
    }
    if let Some(refusal) = answered_before(run, plan, id) {
        return Err(refusal);
    }
    let question = run.interactions.questions.get(id).ok_or(CommandRefusal::NoSuchCheckpoint)?;
    match &question.state {
        QuestionState::Open | QuestionState::Answered { .. } => {}
        QuestionState::Withdrawn => {
            let withdrawn = &question.checkpoint;
            let message = match run.interactions.question(&withdrawn.step, withdrawn.item) {
                Some(newer) => {
                    format!("what it asked about has changed; answer {} instead", newer.checkpoint.checkpoint)
                }
                None => "what it asked about has changed, or will not happen any more".into(),
            };
            return Err(CommandRefusal::NotApplicable(message));
        }
    }
    if run.is_ending() {
        return Err(CommandRefusal::NotApplicable("the run is ending".into()));
    }
    let asked = &question.checkpoint;
    // Without tokens a client may give any name, and the answer records that nobody verified it.
    let name = by.strip_suffix(UNVERIFIED).unwrap_or(by);
    if !asked.who.is_empty() && !asked.who.iter().any(|who| who == name) {
        return Err(CommandRefusal::NotYours(format!("only {} may answer this", asked.who.join(" or "))));
    }
    let (_, step) = plan.step(&asked.step).ok_or(CommandRefusal::NoSuchStep)?;
    check_answer(step, asked, &said, inputs)?;
    Ok(answer_events(run, step, question, said, by))
}

/// Checks the answer against the question.
fn check_answer(
    step: &Step,
    asked: &OpenCheckpoint,
    said: &CheckpointAnswer,
    inputs: &DecisionInputs,
) -> Result<(), CommandRefusal> {
    let mut wrong = Vec::new();
    if asked.kind != CheckpointKind::Review && !(said.approved.is_empty() && said.struck.is_empty()) {
        wrong.push("there are no items to approve or to strike out".to_owned());
    }
    match (asked.kind, said.approve) {
        (_, false) if !said.approved.is_empty() => {
            wrong.push("`approve` is false, but items are approved".to_owned());
        }
        (_, false) => {}
        (CheckpointKind::Question, true) => {
            let values = said.values.as_deref().unwrap_or(&Value::Null);
            if deeper_than(values, inputs.output_depth_max) {
                wrong.push(format!("values are nested deeper than output_depth_max ({})", inputs.output_depth_max));
            } else if let StepKind::Checkpoint(question) = &step.kind {
                wrong.extend(question.complaints(values));
            }
        }
        (CheckpointKind::Approval, true) => {}
        (CheckpointKind::Review, true) => {
            for item in &asked.items {
                match (said.approved.contains(&item.index), said.struck.contains(&item.index)) {
                    (true, false) | (false, true) => {}
                    (true, true) => wrong.push(format!("item {} is both approved and struck out", item.index)),
                    (false, false) => wrong.push(format!("item {} is neither approved nor struck out", item.index)),
                }
                if wrong.len() >= 8 {
                    break;
                }
            }
            let named = said.approved.iter().chain(&said.struck);
            let unknown = named.filter(|index| !asked.items.iter().any(|item| item.index == **index));
            wrong.extend(unknown.take(8).map(|index| format!("there is no item {index}")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(CommandRefusal::BadValues(wrong)) }
}

/// The events of an answer.
fn answer_events(run: &Run, step: &Step, question: &RunQuestion, said: CheckpointAnswer, by: &str) -> Vec<Event> {
    let asked = &question.checkpoint;
    let all_struck = asked.kind == CheckpointKind::Review && said.approve && said.struck.len() == asked.items.len();
    let (approve, note) = (said.approve, said.note.clone());
    let mut events = vec![Event::Checkpoint(CheckpointEvent::Answered {
        checkpoint: asked.checkpoint.clone(),
        answer: said,
        by: by.to_owned(),
    })];
    let on_reject = match &step.kind {
        StepKind::Checkpoint(declared) => declared.on_reject,
        _ => step.safeguards.on_reject,
    };
    match (approve, on_reject) {
        (true, _) if all_struck => events.extend(skip(run, step, asked.item)),
        (true, _) => {}
        // The rejected question was about the other input that a person gave in a conflict: that conflict is open
        // again.
        (false, _) if is_renewed(run, step, asked.item) => events.push(reopened(run, step, asked.item, by)),
        (false, OnReject::Skip) => events.extend(skip(run, step, asked.item)),
        (false, OnReject::Fail) => {
            let note = note.map_or_else(String::new, |note| format!(": {note}"));
            let message = match by {
                TIME_OUT => format!("`{}`: nobody answered in time", step.id),
                by => format!("`{}`: {by} said no{note}", step.id),
            };
            let failure = Failure::of_step(FailureKind::Rejected, &step.id, asked.item, message);
            events.push(finished(step, asked.item, 0, Outcome::Failed { failure }));
        }
    }
    events
}

/// Skips what was asked about: an item or a step. If some of the step's items have ended, only the others are skipped,
/// and the results stay.
fn skip(run: &Run, step: &Step, item: Option<u32>) -> Vec<Event> {
    let rejected = |item| Event::Step(StepEvent::Skipped { step: step.id.clone(), item, reason: Skipped::Rejected });
    let has_results = |open: &&RunningStep| {
        let has_result = open.results.values().any(|result| result.output.is_some());
        open.items.is_some() && (has_result || !open.failures.is_empty())
    };
    match (item, run.open_step(&step.id).filter(has_results)) {
        (Some(_), _) => vec![rejected(item)],
        (None, Some(open)) => {
            let items = (0u32..).take(open.all());
            items
                .filter(|item_index| !open.has_ended(*item_index))
                .map(|item_index| rejected(Some(item_index)))
                .collect()
        }
        (None, None) => skipped(run, step, Skipped::Rejected),
    }
}

/// The events of the first question whose deadline has passed.
pub(super) fn elapse(run: &Run, plan: &Plan, now: Timestamp) -> Option<Vec<Event>> {
    let has_passed = |question: &&RunQuestion| question.checkpoint.until.is_some_and(|until| until <= now);
    let question = run.interactions.open_questions().find(has_passed)?;
    let asked = &question.checkpoint;
    let (_, step) = plan.step(&asked.step)?;
    let asking = match &step.kind {
        StepKind::Checkpoint(declared) => &declared.asking,
        _ => &step.safeguards.asking,
    };
    let approve = match (asked.on_timeout, &asking.escalate) {
        (OnTimeout::Escalate, Some(escalate)) if !question.escalated => {
            let (who, until) = (escalate.who.clone(), deadline_after(now, escalate.timeout));
            let on_timeout = Some(if escalate.approve { OnTimeout::Approve } else { OnTimeout::Reject });
            let checkpoint = asked.checkpoint.clone();
            return Some(vec![Event::Checkpoint(CheckpointEvent::Escalated { checkpoint, who, until, on_timeout })]);
        }
        (OnTimeout::Escalate, Some(escalate)) => escalate.approve,
        (OnTimeout::Approve, _) => true,
        (OnTimeout::Reject, _) | (OnTimeout::Escalate, None) => false,
    };
    // If the schema refuses the default values, the time-out rejects instead of approving.
    let approve = approve && does_default_fit(step, asked);
    let approved = if approve { asked.items.iter().map(|item| item.index).collect() } else { Vec::new() };
    let values = asked.default.clone().filter(|_| approve);
    let said = CheckpointAnswer { approve, values, approved, ..yes() };
    Some(answer_events(run, step, question, said, TIME_OUT))
}

/// Whether a person has replaced the input of a call that has begun, and no attempt has sent the new input yet.
pub(super) fn is_renewed(run: &Run, step: &Step, item: Option<u32>) -> bool {
    run.call_state(&step.id, item, StepPart::Do).is_some_and(|state| state.renew)
}

/// Opens the earlier conflict again, because the other input was rejected.
pub(super) fn reopened(run: &Run, step: &Step, item: Option<u32>, by: &str) -> Event {
    let message = format!("`{}`: {by} rejected the replacement input", step.id);
    let failure = Failure::of_step(FailureKind::Rejected, &step.id, item, message);
    let conflict = conflict(run, step, item, StepPart::Do, ConflictKind::Refused, &failure);
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}
