//! The calls of one step on both sides, and when two of them are equal by its rules.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use http::Method;

use super::call::{Call, EngineCall};
use super::call_template::CallRole;
use super::rules::{EffectRules, StepRules};
use crate::compare::bounds::BoundExceeded;
use crate::compare::context::WalkContext;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::parsed_body::ParsedBody;
use crate::compare::rules_by_node::RulesByNode;
use crate::compare::value_hash::{Precision, Side, hash_of};
use crate::names::StepId;

/// The intents of one step, and the calls by legacy that may belong to them.
pub(super) struct StepCalls<'a> {
    pub(super) step: &'a StepId,
    pub(super) rules: &'a StepRules,
    /// Indexes of the step's intents, in the order in which they were recorded.
    pub(super) engine: Vec<usize>,
    /// Indexes of legacy's calls, in order.
    pub(super) legacy: Vec<usize>,
    /// Which of the step's rules cover which nodes of the bodies of these calls and intents.
    pub(super) nodes: RulesByNode,
    /// Whether the path of an intent holds asterisks in place of a secret. The path then does not tell which calls are
    /// equal.
    pub(super) masked_path: bool,
    /// The query parameters whose values hold asterisks in an intent. They do not tell either which calls are equal.
    pub(super) masked_query: BTreeSet<String>,
}

/// How equal two calls must be to be paired.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Equality {
    precision: Precision,
    /// Whether path and query count.
    address: bool,
}

impl Equality {
    /// Equal except for ignored parts.
    pub(super) const EXACT: Self = Self { precision: Precision::Exact, address: true };
    /// Equal except for ignored parts, tolerated values and ids that are not bound.
    pub(super) const COARSE: Self = Self { precision: Precision::Coarse, address: true };
    /// The same for the bodies alone.
    pub(super) const COARSE_BODY: Self = Self { precision: Precision::Coarse, address: false };
}

impl<'a> StepCalls<'a> {
    /// A step without calls.
    pub(super) fn of(step: &'a StepId, rules: &'a EffectRules) -> Self {
        Self {
            step,
            rules: rules.of(step),
            engine: Vec::new(),
            legacy: Vec::new(),
            nodes: RulesByNode::default(),
            masked_path: false,
            masked_query: BTreeSet::new(),
        }
    }
}

impl StepCalls<'_> {
    /// How the paths of the parts of a call begin, as differences show them.
    pub(super) fn call_prefix(&self) -> String {
        format!("effects.{}.", self.step)
    }

    /// How the paths of values in the bodies begin, as differences show them.
    pub(super) fn body_prefix(&self) -> String {
        format!("effects.{}.body", self.step)
    }

    /// Whether a call is shared and has a body, and the rules leave nothing of it to compare but its address.
    pub(super) fn ignores_all_of(&self, EngineCall { call, template, .. }: &EngineCall<'_>) -> bool {
        let is_shared = template.is_some_and(|template| template.role == CallRole::Shared);
        let has_body = is_shared && !call.method.is_safe() && *call.method != Method::DELETE;
        has_body && self.rules.ignored_body.is_some() && self.rules.headers.is_empty()
    }

    /// Returns the context for a walk over two bodies of the step.
    pub(super) fn context<'w, 'f>(
        &'w self,
        ids: &'w mut IdMap,
        findings: &'w mut ComparisonFindings<'f>,
    ) -> WalkContext<'w, 'f> {
        WalkContext { rules: &self.rules.body, rules_by_node: &self.nodes, ids, findings }
    }

    /// Returns a hash that is the same for calls that are equal by the step's rules. Headers do not count.
    pub(super) fn hash(
        &self,
        call: &Call<'_>,
        side: Side,
        equality: Equality,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<u64, BoundExceeded> {
        findings.count_work()?;
        let mut hasher = DefaultHasher::new();
        if equality.address {
            let text = |text: &str| match side {
                Side::Legacy => text.to_owned(),
                Side::Engine => ids.with_legacy_ids(text).into_owned(),
            };
            if self.rules.ignored_path.is_none() && !self.masked_path {
                text(&call.path).hash(&mut hasher);
            }
            for (name, values) in call.query.iter().filter(|(name, _)| self.counts_query(name)) {
                values.iter().for_each(|value| text(&format!("{name}={value}")).hash(&mut hasher));
            }
        }
        if self.rules.ignored_body.is_some() {
            return Ok(hasher.finish());
        }
        match call.body.as_ref().map(|body| (&body.parsed, body.form)) {
            Ok((ParsedBody::Json(value, _), form)) => {
                let value = hash_of(&mut self.context(ids, findings), value.into(), side, equality.precision)?;
                (1u8, form, value).hash(&mut hasher);
            }
            Ok((ParsedBody::Text(text) | ParsedBody::NotJson(text), _)) => match side {
                Side::Legacy => (2u8, text).hash(&mut hasher),
                Side::Engine => (2u8, ids.with_legacy_ids(text)).hash(&mut hasher),
            },
            Ok((ParsedBody::Bytes(bytes), _)) => (3u8, bytes).hash(&mut hasher),
            Ok((ParsedBody::Empty, _)) => 4u8.hash(&mut hasher),
            Err(_) => 5u8.hash(&mut hasher),
        }
        Ok(hasher.finish())
    }

    /// Whether a query parameter counts when calls are compared for equality.
    fn counts_query(&self, name: &str) -> bool {
        !self.masked_query.contains(name) && !self.rules.ignored_query.iter().any(|(ignored, _)| ignored == name)
    }
}
