//! The risk of a step, and the approval that has to come before it.
//!
//! Always true: the risk is evaluated when the step is about to begin, with its items and its body. Medium risk asks
//! one yes or no; at high risk each item of its `for_each`, or of the list in its body, is approved or struck out. Only
//! what was approved is performed, exactly as it was shown: a changed input is asked about again, and so is a call
//! whose service has another address by then, at no lower risk than before ([`super::least_approval`]); `now` stays the
//! time of the question.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::checkpoint::{QuestionParts, ask, is_renewed, needs_person};
use super::child_input::child_input;
use super::conflict::shorten_value;
use super::decision_inputs::{call_scope, item_scope};
use super::interactions::RunQuestion;
use super::least_approval::{LeastApproval, has_given_input};
use super::may_begin::sends;
use super::plan::Step;
use super::rules::RiskSource;
use super::step_events::{fail_before_call, failed, failed_for_good};
use super::{
    Call, CallBody, CheckpointEvent, CheckpointKind, ConflictKind, DecisionInputs, EffectClass, Event, Failure,
    FailureKind, Mode, Plan, ReviewItem, Risk, Run, StepKind, StepPart, fallback, wire,
};
use crate::expression::{ExpressionError, ReadPath, Scope};

/// What has to happen before the first attempt of a step (an item).
pub(super) enum BeforeFirstAttempt {
    /// Nothing: it may begin.
    Ready,
    /// The step is rehearsed although the mode would send it: performing it would need an approval, and this run asks
    /// nobody.
    Rehearse,
    /// An open question has to be answered.
    AwaitsAnswer,
    /// These events have to be appended first.
    Needs(Vec<Event>),
}

/// The risk that a value names.
pub(super) fn parse_risk(value: &Value) -> Option<Risk> {
    match value.as_str()? {
        "low" => Some(Risk::Low),
        "medium" => Some(Risk::Medium),
        "high" => Some(Risk::High),
        _ => None,
    }
}

/// What has to happen before the first attempt of this step (item) because of its risk.
pub(super) fn before_first_attempt(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    now: Timestamp,
) -> BeforeFirstAttempt {
    if step.safeguards.risk.is_none() && plan.risks.is_empty() && run.started.approval_above.is_none() {
        return BeforeFirstAttempt::Ready;
    }
    if run.mode() != Mode::Real {
        return without_people(run, plan, inputs, step, item);
    }
    // People are asked about an item alone if its input has changed. The same holds for the fallback of an item,
    // because it becomes known one by one which items need a fallback.
    let alone = run.interactions.changed.contains(&(step.id.clone(), item))
        || is_renewed(run, step, item)
        || fallback::is_of_items(run, step);
    let has_moved = |question: Option<&RunQuestion>| {
        question.is_some_and(|question| question.approved().is_some() && is_elsewhere(question, inputs, step))
    };
    let before_of = |question: &RunQuestion| match (question.is_open(), question.approved()) {
        (true, _) => Some(BeforeFirstAttempt::AwaitsAnswer),
        (false, Some(_)) if is_elsewhere(question, inputs, step) => None,
        (false, Some(_)) => Some(BeforeFirstAttempt::Ready),
        (false, None) => None,
    };
    let mut asked = run.interactions.question(&step.id, item);
    if let Some(before) = asked.and_then(before_of) {
        return before;
    }
    if item.is_some() && !alone {
        asked = run.interactions.question(&step.id, None);
        if let Some(before) = asked.and_then(before_of) {
            return before;
        }
        // The risk of all items was evaluated when the first was about to begin.
        let unevaluated = run.interactions.decided_when_missing.get(&step.id).copied().unwrap_or(0);
        let has_begun = run.open_step(&step.id).is_some_and(|open| open.begun_or_ended() > unevaluated);
        if has_begun && !has_moved(asked) {
            return BeforeFirstAttempt::Ready;
        }
        // The question is about all items that have not ended. If people skip or reject them, the step ends, and with
        // it the fallbacks of its items. So nothing is asked until the calls and fallbacks under way have ended.
        if run.open_step(&step.id).is_some_and(|open| open.has_calls() || !open.replaced.is_empty()) {
            return BeforeFirstAttempt::AwaitsAnswer;
        }
    }
    let check = RiskCheck { run, plan, inputs, step, item: item.filter(|_| alone) };
    let least = LeastApproval::of(run, plan, step, item, alone, has_moved(asked));
    let own = match check.risk() {
        Ok(own) if own.max(least.risk) == Risk::Low => return BeforeFirstAttempt::Ready,
        Ok(own) => own,
        Err(event) => return BeforeFirstAttempt::Needs(vec![*event]),
    };
    let parts = check.question_parts(own.max(least.risk));
    let asked = parts.and_then(|parts| ask(run, inputs, step, &step.safeguards.asking, parts, now));
    BeforeFirstAttempt::Needs(vec![match asked.map(|asked| least.apply(own, asked)) {
        Ok(asked) => Event::Checkpoint(CheckpointEvent::Opened(Box::new(asked))),
        Err(event) => *event,
    }])
}

/// Whether an approved question showed another address of the step's service than the files in force have. The approved
/// call is not sent to the new address: people are asked again.
fn is_elsewhere(question: &RunQuestion, inputs: &DecisionInputs, step: &Step) -> bool {
    let shown = question.checkpoint.base_url.as_deref();
    shown.zip(step.call(StepPart::Do)).is_some_and(|(shown, call)| shown != wire::base_of(call, inputs))
}

/// As [`before_first_attempt`], for runs that ask nobody (in shadow and dark): a step that needs an approval is
/// rehearsed, or the run fails.
fn without_people(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
) -> BeforeFirstAttempt {
    // An expression is evaluated for each item alone here; a fixed risk holds for all items.
    let alone = item
        .filter(|_| matches!(step.safeguards.risk, Some(RiskSource::Computed(_))) || fallback::is_of_items(run, step));
    match (RiskCheck { run, plan, inputs, step, item: alone }).risk() {
        Ok(Risk::Low) => return BeforeFirstAttempt::Ready,
        Ok(Risk::Medium | Risk::High) => {}
        Err(event) => return BeforeFirstAttempt::Needs(vec![*event]),
    }
    let (sent, declared) = match &step.kind {
        StepKind::Call(call) => (sends(run.mode(), call), call.rehearse.is_some()),
        StepKind::Run(child) => (true, child.rehearse.is_some()),
        _ => (false, true),
    };
    match (sent, declared) {
        // With an earlier input the call needed no approval and its first attempt was sent, so it cannot be rehearsed
        // any more.
        (true, _) if run.call_state(&step.id, item, StepPart::Do).is_some() => {
            let mode = run.mode().as_str();
            let message = format!("with this input `{}` needs an approval, and a {mode} run asks nobody", step.id);
            let failure = Failure::of_step(FailureKind::NeedsPerson, &step.id, item, message);
            BeforeFirstAttempt::Needs(vec![fail_before_call(run, step, item, ConflictKind::Expression, failure)])
        }
        (true, true) => BeforeFirstAttempt::Rehearse,
        (false, true) => BeforeFirstAttempt::Ready,
        (_, false) => BeforeFirstAttempt::Needs(vec![needs_person(step, item)]),
    }
}

/// The inputs with the time of the approved question as `now`, so that the call is the one that people saw.
pub(super) fn as_asked(run: &Run, inputs: &DecisionInputs, step: &Step, item: Option<u32>) -> DecisionInputs {
    let question = run.interactions.question(&step.id, item).or_else(|| run.interactions.question(&step.id, None));
    match question.filter(|question| question.approved().is_some()) {
        Some(question) => inputs.at(question.checkpoint.at),
        None => inputs.clone(),
    }
}

/// The body of a call without the struck-out items; `None` where no item was struck out.
pub(super) fn without_struck(
    run: &Run,
    call: &Call,
    step: &Step,
    item: Option<u32>,
    scope: &Scope,
) -> Result<Option<Value>, (Vec<ReadPath>, ExpressionError)> {
    let review = run.interactions.question(&step.id, item);
    let review = review.filter(|question| question.checkpoint.kind == CheckpointKind::Review);
    let Some(answer) = review.and_then(RunQuestion::approved).filter(|answer| !answer.struck.is_empty()) else {
        return Ok(None);
    };
    if step.for_each.is_some() && item.is_none() {
        return Ok(None);
    }
    let mut body = body_of(run, call, step, item, scope)?;
    let mut index = 0;
    if let Some(list) = body_list_mut(&mut body) {
        list.retain(|_| {
            index += 1;
            !answer.struck.contains(&(index - 1))
        });
    }
    Ok(Some(body))
}

/// The JSON body that a call is about to send; null where its body is empty or not JSON.
fn body_of(
    run: &Run,
    call: &Call,
    step: &Step,
    item: Option<u32>,
    scope: &Scope,
) -> Result<Value, (Vec<ReadPath>, ExpressionError)> {
    match (run.inputs.get(&(step.id.clone(), item)), &call.body) {
        (Some(given), _) => Ok((**given).clone()),
        (None, CallBody::Json(template)) => {
            template.evaluate(scope).map_err(|error| (template.reads().to_vec(), error))
        }
        (None, _) => Ok(Value::Null),
    }
}

/// The body itself where it is a list, or the only list among its members.
fn body_list(body: &Value) -> Option<&Vec<Value>> {
    match body {
        Value::Array(list) => Some(list),
        Value::Object(members) => {
            let mut lists = members.values().filter_map(Value::as_array);
            lists.next().filter(|_| lists.next().is_none())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn body_list_mut(body: &mut Value) -> Option<&mut Vec<Value>> {
    body_list(body)?;
    match body {
        Value::Array(list) => Some(list),
        Value::Object(members) => members.values_mut().find_map(Value::as_array_mut),
        _ => None,
    }
}

/// A value as people see it.
fn shown(value: &Value) -> Arc<Value> {
    shorten_value(value).unwrap_or_default()
}

struct RiskCheck<'a> {
    run: &'a Run,
    plan: &'a Plan,
    inputs: &'a DecisionInputs,
    step: &'a Step,
    /// The one item whose risk is evaluated; `None` means the whole step.
    item: Option<u32>,
}

impl RiskCheck<'_> {
    /// The items whose risk is evaluated: all of a fan-out, or one of them; `None` where the step has no items.
    fn items(&self) -> Option<Vec<(u32, Arc<Value>)>> {
        let items = self.run.open_step(&self.step.id)?.items.as_ref()?;
        let all = (0u32..).zip(items.iter().cloned());
        Some(all.filter(|(item_index, _)| self.item.is_none_or(|item| item == *item_index)).collect())
    }

    fn risk(&self) -> Result<Risk, Box<Event>> {
        match &self.step.safeguards.risk {
            Some(RiskSource::Fixed(risk)) => return Ok(*risk),
            None => return self.by_policy(),
            Some(RiskSource::Computed(_)) => {}
        }
        let Some(RiskSource::Computed(template)) = &self.step.safeguards.risk else { return Ok(Risk::Low) };
        let plain = self.inputs.plain(self.run);
        let scopes = match self.items() {
            Some(items) => items.into_iter().map(|item| item_scope(&plain, Some(item))).collect(),
            None => vec![plain],
        };
        // An expression does not see an input that a person gave, so its value may be too low for that input.
        let is_given = has_given_input(self.run, &self.step.id, self.item);
        let mut highest = if is_given { Risk::Medium } else { Risk::Low };
        for scope in scopes {
            let value = template.evaluate(&scope);
            let value = value.map_err(|error| {
                Box::new(failed(self.run, self.inputs, self.step, self.item, template.reads(), &error))
            })?;
            let Some(risk) = parse_risk(&value) else {
                let message = format!("`{}`: its `risk` gives {value}, which is not a risk level", self.step.id);
                let failure = Failure::of_step(FailureKind::Expression, &self.step.id, self.item, message);
                let event = fail_before_call(self.run, self.step, self.item, ConflictKind::Expression, failure);
                return Err(Box::new(event));
            };
            highest = highest.max(risk);
            if highest == Risk::High {
                break;
            }
        }
        Ok(highest)
    }

    /// The risk that the workflow's `risks` give: that of the first line whose conditions all hold, else low.
    fn by_policy(&self) -> Result<Risk, Box<Event>> {
        let StepKind::Call(call) = &self.step.kind else { return Ok(Risk::Low) };
        let needs_count = self.plan.risks.iter().any(|policy| policy.items_over.is_some());
        let count = if needs_count { self.count(call)? } else { 0 };
        let policy = self.plan.risks.iter().find(|policy| {
            policy.effect.is_none_or(|effect| effect == call.effect)
                && policy.method.as_ref().is_none_or(|method| *method == call.method)
                && policy.items_over.is_none_or(|over| count > over)
                && policy.reversible.is_none_or(|reversible| reversible != self.step.safeguards.irreversible)
        });
        Ok(policy.map_or(Risk::Low, |policy| policy.risk))
    }

    /// How many items the call touches: those of the `for_each`, or of the list in its body.
    fn count(&self, call: &Call) -> Result<u64, Box<Event>> {
        if let (Some(items), None) = (self.items(), self.item) {
            return Ok(items.len() as u64);
        }
        let scope = call_scope(&self.inputs.plain(self.run), self.run, &self.step.id, self.item, StepPart::Do);
        let body = body_of(self.run, call, self.step, self.item, &scope);
        let body = body
            .map_err(|(reads, error)| Box::new(failed(self.run, self.inputs, self.step, self.item, &reads, &error)))?;
        Ok(body_list(&body).map_or(1, |list| list.len() as u64))
    }

    /// The question, and the items that a review shows.
    fn question_parts(&self, risk: Risk) -> Result<QuestionParts, Box<Event>> {
        let step = &self.step.id;
        let open = self.run.open_step(step);
        // Items that have ended, or in whose place the fallback runs, are not performed.
        let to_come = |item: u32| open.is_none_or(|open| !open.has_ended(item) && !open.replaced.contains_key(&item));
        let many = self.items().filter(|_| self.item.is_none());
        let many = many.map(|items| items.into_iter().filter(|(item, _)| to_come(*item)).collect::<Vec<_>>());
        if risk != Risk::High {
            let what = match (&many, self.item) {
                (Some(items), _) => format!("for {} items", items.len()),
                (None, Some(item)) => format!("for item {item}"),
                (None, None) => String::new(),
            };
            let first =
                self.describe_call(many.as_ref().and_then(|items| items.first()).map(|(item, _)| *item).or(self.item))?;
            let question =
                format!("May `{step}` be performed{}{what}? ({})", if what.is_empty() { "" } else { " " }, first.0);
            let kind = CheckpointKind::Approval;
            return Ok(QuestionParts { item: self.item, kind, risk, question, items: Vec::new() });
        }
        let mut items = Vec::new();
        match many {
            Some(all) => {
                for (index, _) in all {
                    let (what, value) = self.describe_call(Some(index))?;
                    items.push(ReviewItem { index, what, value: shown(&value) });
                }
            }
            None => {
                let (what, value) = self.describe_call(self.item)?;
                match body_list(&value).filter(|list| !list.is_empty()) {
                    Some(list) => {
                        let indexed = (0u32..).zip(list);
                        items.extend(indexed.map(|(index, part)| ReviewItem {
                            index,
                            what: what.clone(),
                            value: shown(part),
                        }));
                    }
                    None => items.push(ReviewItem { index: 0, what, value: shown(&value) }),
                }
            }
        }
        let question = match items.len() {
            1 => format!("May `{step}` be performed?"),
            many => format!("Which of the {many} items of `{step}` may be performed?"),
        };
        Ok(QuestionParts { item: self.item, kind: CheckpointKind::Review, risk, question, items })
    }

    /// The call that would be made, as `POST https://bank/charges`, and its body or input.
    fn describe_call(&self, item: Option<u32>) -> Result<(String, Value), Box<Event>> {
        let (run, step, inputs) = (self.run, self.step, self.inputs);
        let cannot_show = |(reads, error): (Vec<ReadPath>, ExpressionError)| {
            Box::new(match item {
                // The question about all items cannot be shown, so it is about the step as a whole.
                Some(_) if self.item.is_none() => failed_for_good(run, inputs, step, item, &reads, &error),
                _ => failed(run, inputs, step, item, &reads, &error),
            })
        };
        let scope = call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do);
        match &step.kind {
            StepKind::Call(call) => {
                let masked = call_scope(&inputs.masked(run), run, &step.id, item, StepPart::Do);
                let body = body_of(run, call, step, item, &scope).map_err(cannot_show)?;
                let record = wire::call_record(call, inputs, run, &scope, &masked, Some(&body));
                let record = record.map_err(cannot_show)?;
                let note = if call.effect == EffectClass::Read { ", reads only" } else { "" };
                let reviewed = item.filter(|_| body.is_null() && !matches!(call.body, CallBody::Json(_)));
                let value = reviewed.and_then(|item| run.item(&step.id, item)).map_or(body, |item| (*item).clone());
                Ok((format!("{} {}{note}", record.method, record.url), value))
            }
            StepKind::Run(child) => {
                let input = child_input(run, step, child, item, &scope).map_err(cannot_show)?;
                Ok((format!("run {}", child.workflow), input))
            }
            _ => Ok((String::new(), Value::Null)),
        }
    }
}
