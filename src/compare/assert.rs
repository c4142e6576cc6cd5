//! Evaluates a route's own conditions (asserts) over a pair.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bounds::BoundExceeded;
use super::findings::ComparisonFindings;
use super::id_map::IdMap;
use super::observation::{Intent, Observation};
use super::pair::Pair;
use super::redact;
use super::rule_conditions;
use super::rules::{Assert, Rules};
use super::verdict::{CANNOT_BE_EVALUATED, DifferenceKind};
use crate::expression::{EFFECTS, EFFECTS_OF_ALL_STEPS, Scope};
use crate::names::StepId;

/// Evaluates every assert. An assert that does not hold, or cannot be evaluated, is a difference: an error is never a
/// pass.
pub(super) fn evaluate(
    pair: &Pair<'_>,
    legacy: Value,
    engine: Value,
    rules: &Rules,
    ids: &IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    let legacy = Arc::new(reply(pair.legacy, legacy));
    let (engine, intents, effects) = (reply(pair.engine, engine), intents(pair.engine), effects(pair.engine));
    let request = Arc::new(pair.request.clone());
    let scope = |engine: Value, intents: Value, effects: Value| {
        let mut scope = Scope::new();
        scope.set("request", request.clone()).set("legacy", legacy.clone());
        scope.set("engine", Arc::new(engine)).set("intents", Arc::new(intents)).set(EFFECTS, Arc::new(effects));
        scope
    };
    // The asserts are also evaluated with the engine's ids replaced by legacy's, because an intent may name an id that
    // the engine gave out.
    let with_legacy_ids = (!ids.is_empty()).then(|| {
        let body = engine.get("body").map(|body| ids.value_with_legacy_ids(body)).unwrap_or_default();
        let mut engine = engine.clone();
        engine["body"] = body;
        scope(engine, ids.value_with_legacy_ids(&intents), ids.value_with_legacy_ids(&effects))
    });
    let as_is = scope(engine, intents, effects);
    for assert in &rules.asserts {
        findings.check_time()?;
        let Assert { source, expression, when, skipped } = assert;
        if !applies(assert, pair) {
            match when {
                None => findings.count_use(*skipped),
                // Counted: an assert whose `when` cannot be evaluated may have been skipped wrongly. One whose `when`
                // does not hold is skipped as written.
                Some(when) if rule_conditions::holds(when, pair).is_err() => findings.count_note(*skipped),
                Some(_) => {}
            }
            continue;
        }
        match expression.holds(&as_is) {
            Ok(true) => {}
            Ok(false) if with_legacy_ids.as_ref().is_some_and(|scope| expression.holds(scope) == Ok(true)) => {
                if let Some(rule) = rules.body.renaming {
                    findings.count_use(rule);
                }
            }
            Ok(false) => findings.add_text(&path(source), DifferenceKind::Assert, Some("holds"), Some("does not hold")),
            Err(e) => {
                let engine = format!("{CANNOT_BE_EVALUATED}{}", e.message);
                findings.add_text(&path(source), DifferenceKind::Assert, Some("holds"), Some(&engine));
            }
        }
    }
    Ok(())
}

/// Whether an assert is evaluated for a pair: where its condition holds, or, without one, where legacy did not refuse
/// the request. Most asserts read what a refusal does not have.
pub(super) fn applies(assert: &Assert, pair: &Pair<'_>) -> bool {
    let status = pair.legacy.status();
    match &assert.when {
        Some(when) => rule_conditions::holds(when, pair) == Ok(true),
        None => !(status.is_client_error() || status.is_server_error()),
    }
}

/// The place of a difference that this assert makes.
pub(super) fn path(source: &str) -> String {
    format!("assert {}", redact::shorten(source, 200))
}

pub(super) fn reply(observation: &Observation, body: Value) -> Value {
    let mut headers = Map::new();
    for name in observation.headers().keys() {
        let values: Vec<_> = observation.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
        headers.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    json!({ "status": observation.status().as_u16(), "headers": headers, "body": body })
}

fn call(intent: &Intent) -> Value {
    let headers: Map<String, Value> =
        intent.headers.iter().map(|(k, v)| (k.to_ascii_lowercase(), Value::String(v.clone()))).collect();
    json!({ "method": intent.method.as_str(), "url": intent.url, "headers": headers, "body": intent.body })
}

/// The intents in the order in which the run recorded them: a list by step, and the list of all, each with its step.
pub(super) fn effects(observation: &Observation) -> Value {
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::from([(EFFECTS_OF_ALL_STEPS, Vec::new())]);
    for intent in observation.intents() {
        let mut value = call(intent);
        value["step"] = intent.step.as_str().into();
        value["item"] = intent.item.into();
        lists.entry(intent.step.as_str()).or_default().push(value.clone());
        lists.entry(EFFECTS_OF_ALL_STEPS).or_default().push(value);
    }
    lists.into_iter().map(|(step, list)| (step.to_owned(), Value::Array(list))).collect()
}

/// Returns the intents by step; a list of intents for a step with items.
pub(super) fn intents(observation: &Observation) -> Value {
    let empty = |step: &StepId| (step.as_str().to_owned(), Value::Array(Vec::new()));
    let mut by_step: Map<String, Value> = observation.steps_without_items().iter().map(empty).collect();
    for intent in observation.intents() {
        let value = call(intent);
        match (intent.item, by_step.get_mut(intent.step.as_str())) {
            (Some(_), Some(Value::Array(items))) => items.push(value),
            (Some(_), _) => {
                by_step.insert(intent.step.as_str().to_owned(), Value::Array(vec![value]));
            }
            (None, _) => {
                by_step.insert(intent.step.as_str().to_owned(), value);
            }
        }
    }
    Value::Object(by_step)
}
