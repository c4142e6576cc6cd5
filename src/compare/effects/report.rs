//! Reports the differences between two calls that belong together.

use std::collections::BTreeSet;

use http::HeaderName;

use super::call::{Call, CallBody};
use super::masked::same_text;
use super::step_calls::StepCalls;
use crate::compare::body_rules::RuleId;
use crate::compare::bounds::BoundExceeded;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::other_bodies;
use crate::compare::parsed_body::ParsedBody;
use crate::compare::text::TextContext;
use crate::compare::value_path::ValuePath;
use crate::compare::verdict::DifferenceKind;
use crate::compare::walk::Walk;

/// Reports where a call by legacy differs from the engine's. Paths are relative to the call: `body.amount`.
pub(super) fn report(
    step: &StepCalls<'_>,
    legacy: &Call<'_>,
    engine: &Call<'_>,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    let renaming = step.rules.body.renaming;
    let by = ids.rules_in(&legacy.path, renaming);
    let path = CallPartText { path: "path", name: "path", ignored: step.rules.ignored_path, by };
    path.report(Some(&legacy.path), Some(&engine.path), same_text(ids, &legacy.path, &engine.path), findings);
    report_query(step, legacy, engine, ids, findings);
    for name in &step.rules.headers {
        let ignored = step.rules.ignored_headers.iter().find(|(ignored, _)| ignored == name).map(|(_, rule)| *rule);
        let (a, b) = (header(legacy, name), header(engine, name));
        let is_same = matches!((&a, &b), (Some(a), Some(b)) if same_text(ids, a, b)) || a.is_none() && b.is_none();
        let path = format!("headers.{name}");
        let by = ids.rules_in(a.as_deref().unwrap_or_default(), renaming);
        let part = CallPartText { path: &path, name: name.as_str(), ignored, by };
        part.report(a.as_deref(), b.as_deref(), is_same, findings);
    }
    match step.rules.ignored_body {
        Some(rule) => {
            if !is_same_body(legacy, engine) {
                findings.count_use(rule);
            }
            Ok(())
        }
        None => report_body(step, legacy, engine, ids, findings),
    }
}

/// A part of a call that is a text.
struct CallPartText<'a> {
    path: &'a str,
    /// The name that tells whether the value is secret.
    name: &'a str,
    ignored: Option<RuleId>,
    /// The rules by which two different texts are equal.
    by: Vec<RuleId>,
}

impl CallPartText<'_> {
    /// Reports the two texts as a difference, or counts the rule by which they are equal.
    fn report(&self, legacy: Option<&str>, engine: Option<&str>, is_same: bool, findings: &mut ComparisonFindings<'_>) {
        match self.ignored {
            _ if legacy == engine && is_same => {}
            _ if is_same => self.by.iter().for_each(|rule| findings.count_use(*rule)),
            Some(rule) => findings.count_use(rule),
            None if findings.is_not_known(self.path, legacy, engine) => {}
            None => {
                let show = |text: &str| findings.shown_header(self.name, text);
                let (legacy, engine) = (legacy.map(show), engine.map(show));
                findings.add_text(self.path, DifferenceKind::Value, legacy.as_deref(), engine.as_deref());
            }
        }
    }
}

fn report_query(
    step: &StepCalls<'_>,
    legacy: &Call<'_>,
    engine: &Call<'_>,
    ids: &IdMap,
    findings: &mut ComparisonFindings<'_>,
) {
    let names: BTreeSet<&String> = legacy.query.keys().chain(engine.query.keys()).collect();
    for name in names {
        let (a, b) = (legacy.query.get(name), engine.query.get(name));
        let is_same = match (a, b) {
            (Some(a), Some(b)) => {
                // The text includes the name of the parameter, which tells whether a short number is an id.
                let named = |value: &str| format!("{name}={value}");
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_text(ids, &named(a), &named(b)))
            }
            _ => false,
        };
        let mut path = ValuePath::of("query");
        path.enter_key(name);
        let ignored = step.rules.ignored_query.iter().find(|(ignored, _)| ignored == name).map(|(_, rule)| *rule);
        let text = |values: &Vec<String>| values.join(", ");
        // As above, with the name.
        let named = a.map(|values| format!("{name}={}", text(values))).unwrap_or_default();
        let by = ids.rules_in(&named, step.rules.body.renaming);
        let part = CallPartText { path: &path.text(), name, ignored, by };
        part.report(a.map(text).as_deref(), b.map(text).as_deref(), is_same, findings);
    }
}

fn header(call: &Call<'_>, name: &HeaderName) -> Option<String> {
    let values = call.headers.get_all(name).iter();
    // Bytes that are not text are compared in their escaped form.
    let values: Vec<String> =
        values.map(|v| v.to_str().map_or_else(|_| format!("{v:?}"), |text| text.trim().to_owned())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn report_body(
    step: &StepCalls<'_>,
    legacy: &Call<'_>,
    engine: &Call<'_>,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    let (legacy, engine) = (body(legacy)?, body(engine)?);
    match (&legacy.parsed, &engine.parsed) {
        _ if legacy.form != engine.form => {
            findings.add_text("body", DifferenceKind::Type, Some(legacy.name()), Some(engine.name()));
            Ok(())
        }
        (ParsedBody::Json(a, _), ParsedBody::Json(b, _)) => {
            Walk::report(step.context(ids, findings), "body", a.into(), b.into())
        }
        (a, b) => {
            if let (Some(a), Some(b)) = (a.text(), b.text())
                && a != b
                && ids.with_legacy_ids(b) == a
            {
                let by = ids.rules_in(a, step.rules.body.renaming);
                by.into_iter().for_each(|rule| findings.count_use(rule));
                return Ok(());
            }
            let (rules, renaming) = (step.rules.text.as_ref(), step.rules.body.renaming);
            let texts = TextContext { rules, ids, renaming, needs_compared_line: false };
            other_bodies::compare((a, a.name()), (b, b.name()), texts, findings)
        }
    }
}

fn body<'b>(call: &'b Call<'_>) -> Result<&'b CallBody, BoundExceeded> {
    call.body.as_ref().map_err(|exceeded| *exceeded)
}

/// Whether two bodies are equal without any rule; `false` if this is not known.
fn is_same_body(legacy: &Call<'_>, engine: &Call<'_>) -> bool {
    let (Ok(legacy), Ok(engine)) = (body(legacy), body(engine)) else { return false };
    legacy.form == engine.form
        && match (&legacy.parsed, &engine.parsed) {
            (ParsedBody::Json(a, repeated), ParsedBody::Json(b, also)) => a == b && repeated == also,
            (ParsedBody::Bytes(a), ParsedBody::Bytes(b)) => a == b,
            (ParsedBody::Empty, ParsedBody::Empty) => true,
            (a, b) => a.text().is_some_and(|a| b.text() == Some(a)),
        }
}
