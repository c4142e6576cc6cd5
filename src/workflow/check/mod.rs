//! Checks a definition: a [`Plan`], or everything that is wrong with it.
//!
//! The question it answers: "can this workflow be run?" Always true: a plan results only without errors; then its steps
//! form a DAG, every expression reads only names that exist in its context, every step that it reads is among its
//! needs, and every service and secret is declared. All problems are reported at once, each with its location and,
//! where possible, a hint. The same code builds a plan from the definition that is stored with a run, without checking
//! it against the current files.

mod adoption;
mod call;
mod checked_step;
mod context;
mod failure;
mod headers;
mod inject;
mod names;
mod notify;
mod order;
mod people;
mod respond;
mod safeguards;
mod sensitive;
mod step;
mod stream;
mod values;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use self::context::{Check, compiled};
use super::definition::{StepDraft, WorkflowDraft};
use super::plan::Plan;
use super::respond::ANSWER;
use super::schema::Schema;
use crate::expression::Bounds;
use crate::limits::Limits;
use crate::names::{PlanId, ServiceName, WorkflowName};
use crate::problem::{Problems, Site};

pub use self::context::DeclaredNames;

impl Plan {
    /// Checks a definition (the JSON of a workflow file). Every problem is noted; errors leave no plan.
    pub fn check(source: &Value, site: &Site, known: &DeclaredNames<'_>, problems: &mut Problems) -> Option<Plan> {
        let mut found = Problems::default();
        let plan = check(source, site, known, false, &mut found);
        let good = !found.has_errors();
        problems.extend(found);
        plan.filter(|_| good)
    }

    /// Builds a plan again from the definition that is stored with a run. It was checked when the run began, and is not
    /// checked against the current files and limits: what they lack is detected when a step needs it.
    ///
    /// # Errors
    /// This version cannot read the definition.
    pub fn from_stored(
        source: &Value,
        services: &BTreeMap<ServiceName, bool>,
        limits: &Limits,
    ) -> Result<Plan, Problems> {
        let known = DeclaredNames { services, secrets: &BTreeSet::new(), has_store_key: true, limits };
        let mut problems = Problems::default();
        let plan = check(source, &Site::file("the stored workflow"), &known, true, &mut problems);
        plan.filter(|_| !problems.has_errors()).ok_or(problems)
    }

    /// A checked plan, for tests.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cfg(test)]
    pub fn from_source(source: &Value, known: &DeclaredNames<'_>) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        Self::check(source, &Site::file("the stored workflow"), known, &mut problems).ok_or(problems)
    }
}

fn check(
    source: &Value,
    site: &Site,
    known: &DeclaredNames<'_>,
    is_stored_definition: bool,
    problems: &mut Problems,
) -> Option<Plan> {
    let draft: WorkflowDraft = context::draft(source, site, problems)?;
    if !values::is_name(&draft.workflow) {
        problems.error(&site.key("workflow"), values::bad_name("workflow", &draft.workflow));
    }
    let input = input(&draft, site, problems);
    let all = site.key("steps");
    if draft.steps.is_empty() {
        problems.error(&all, "a workflow has at least one step");
    }
    if draft.steps.len() as u64 > known.limits.steps_max && !is_stored_definition {
        let message =
            format!("{} steps are more than the limit steps_max ({})", draft.steps.len(), known.limits.steps_max);
        problems.error(&all, message);
    }
    let mut steps = Vec::with_capacity(draft.steps.len());
    for (name, value) in &draft.steps {
        let at = all.key(name.as_str());
        if !values::is_name(name) {
            problems.error(&at.clone().at_key(), values::bad_name("step", name));
        }
        if name == ANSWER {
            let problem = problems.error(
                &at.clone().at_key(),
                "no step can be named `respond`: conflicts over the answer have that name",
            );
            problem.hint("give the step another name");
        }
        let step = context::draft::<StepDraft>(value, &at, problems).unwrap_or_default();
        steps.push((name.as_str(), at, step));
    }
    let bounds = if is_stored_definition { Bounds::LARGEST } else { Bounds::of(known.limits) };
    let drafts = steps.clone();
    let risk_rules = draft.risks.len();
    let (item_fallbacks, reads) = Default::default();
    let streams = context::Streams::default();
    let mut check =
        Check { known, is_stored_definition, bounds, steps, item_fallbacks, risk_rules, streams, problems, reads };
    check.find_item_fallbacks();
    let checked: Vec<_> = drafts.iter().map(|(name, site, step)| check.step(name, site, step)).collect();
    check.fallbacks(&checked);
    let deadline = draft.deadline.as_ref().and_then(|text| check.span(text, &site.key("deadline")));
    let risks = check.risk_rules(&draft.risks, site);
    let sensitive = check.sensitive(&draft, site);
    let notify = draft.notify.as_ref().and_then(|text| check.notify(text, &site.key("notify")));
    let inject = draft.inject.as_ref().map(|inject| check.inject(inject, &site.key("inject")));
    let order = check.order(&checked);
    let (respond, pending) = check.respond(draft.respond.as_ref(), site, &checked);
    check.unanswered_streams();
    let adoption = check.adoption(&draft, site, &checked);
    let reads: Vec<_> = std::mem::take(&mut check.reads).into_iter().collect();
    let order = order?;
    let (steps, indexes) = order::arrange(checked, &order)?;
    stream::warn_of_held_calls(&steps, &all, check.problems);
    let respond = respond.into_iter().map(|entry| entry.with_indexes(&indexes)).collect::<Option<_>>()?;
    let plan = Plan {
        reply_headers: headers::recorded(&steps, &reads, &sensitive),
        id: id(source),
        workflow: WorkflowName::new(draft.workflow.as_str()),
        source: Arc::new(source.clone()),
        input_schema: input.as_ref().map(|(schema, _)| schema.clone()),
        dependents: order::dependents(&steps),
        steps,
        respond,
        risks,
        pending,
        reads,
        notify,
        deadline,
        inject,
        adoption,
        sensitive,
        input: input.map(|(_, input)| input),
    };
    Some(plan)
}

fn input(draft: &WorkflowDraft, site: &Site, problems: &mut Problems) -> Option<(Arc<Value>, Schema)> {
    let schema = draft.input.as_ref()?.schema.as_ref()?;
    let input = compiled(schema, &site.key("input").key("schema"), problems)?;
    Some((Arc::new(schema.clone()), input))
}

/// `plan_` and a hash of the content. The order of the steps is content (events and listings follow it); the order of
/// other keys is not.
fn id(source: &Value) -> PlanId {
    let mut text = String::new();
    match source.as_object() {
        Some(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            for (key, value) in keys {
                text.push_str(&format!("{key:?}:"));
                match (key.as_str(), value) {
                    ("steps", Value::Object(steps)) => {
                        for (name, step) in steps {
                            text.push_str(&format!("{name:?}:"));
                            canonical(step, &mut text);
                        }
                    }
                    (_, value) => canonical(value, &mut text),
                }
            }
        }
        None => canonical(source, &mut text),
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    PlanId::new(format!("plan_{}", &hash.as_str()[..20]))
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in keys {
                text.push_str(&format!("{key:?}:"));
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for value in list {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}
