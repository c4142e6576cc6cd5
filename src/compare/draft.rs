//! The `compare:` part of a route, as a person writes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::effects::{CallTemplate, EffectRulesDraft};
use super::number::NumberForm;
use super::rule_drafts::{AssertDraft, IdDraft, IgnoreDraft, ToleranceDraft, UnorderedDraft};
use super::text_rules::TextRulesDraft;
use crate::secret::RedactRules;

/// How a route's pairs are compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RulesDraft {
    /// The only headers that are compared. By default `content-type` and `location`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Whether statuses are equal only if they are the same, or also if they are of the same class (2xx).
    pub status: StatusDraft,
    /// Values that may differ: JSONPath (`$.created_at`) or `header.NAME`.
    pub ignore: Vec<IgnoreDraft>,
    /// Values that are ids (JSONPath), keys that are ids (`keys`), ids in headers (`header.location: /orders/{id}`):
    /// they are equal if legacy's ids correspond one-to-one to the engine's.
    pub ids: Vec<IdDraft>,
    /// Arrays whose order does not matter. Each JSONPath has the value `set`, or the name of the field that is the key
    /// of the elements.
    pub unordered: BTreeMap<String, UnorderedDraft>,
    /// Values that may differ by a tolerance. Each JSONPath has as its value a number (an absolute tolerance), a
    /// duration such as `2s` for times, or `{ times: 2s }` for the times within a text.
    pub tolerance: BTreeMap<String, ToleranceDraft>,
    /// How numbers are compared, in replies and in calls.
    #[serde(skip_serializing_if = "is_default")]
    pub numbers: NumbersDraft,
    /// How bodies without a structure are compared, line by line. With it, differences show the lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextRulesDraft>,
    /// Conditions over `request`, `legacy`, `engine` and `intents`:
    /// `${intents.charge.body.amount == legacy.body.total}`. Where legacy answered 4xx or 5xx, only those with a `when`
    /// are evaluated.
    pub assert: Vec<AssertDraft>,
    /// How legacy's calls to other services are compared with those that the engine would make, by step: `STEP`, or
    /// `STEP.undo` for the call that undoes the step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, EffectRulesDraft>,
    /// Calls of legacy that no step makes, and that do not count as differences: `SERVICE`, `SERVICE/PATH` or
    /// `METHOD SERVICE/PATH`, where `*` is any one segment of the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_calls: Vec<String>,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NumbersDraft {
    /// Whether `1.10` equals `1.1`. A `tolerance:` that covers two numbers holds whatever their form.
    pub form: NumberForm,
}

/// Whether a part of a draft says nothing. It is then left out of the text of which the rules' hash is made, so that
/// a key that a new version knows does not start the evidence of other rules anew.
fn is_default<T: Default + PartialEq>(part: &T) -> bool {
    *part == T::default()
}

/// When statuses are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusDraft {
    /// If they are the same.
    #[default]
    Exact,
    /// If they are of the same class (2xx).
    Class,
}

/// The names and calls that rules may refer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompareContext<'a> {
    /// Whether the route has a workflow.
    pub has_workflow: bool,
    /// The names under which the workflow may record intents; empty if the route has no workflow.
    pub intents: &'a [&'a str],
    /// The steps that run other workflows, whose calls are not compared: rules may only say why
    /// (`effects.STEP.unseen`).
    pub runs: &'a [&'a str],
    /// The calls that the workflow and its child workflows may make.
    pub calls: &'a [CallTemplate],
    /// The services that are declared.
    pub services: &'a [&'a str],
    /// What the route declares as secret.
    pub redact: Option<&'a RedactRules>,
}
