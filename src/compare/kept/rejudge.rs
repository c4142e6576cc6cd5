//! Compares what is kept of a pair under other rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::mask::{holds_masked, is_masked};
use super::record::{KeptCall, KeptPair};
use crate::compare::assert;
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::comparison::compare_in_instance;
use crate::compare::earlier_ids::EarlierIds;
use crate::compare::effect::Effect;
use crate::compare::observation::Observation;
use crate::compare::pair::{InstanceIds, Pair};
use crate::compare::parsed_body::ParsedBody;
use crate::compare::rules::{Assert, Rules};
use crate::compare::verdict::{Comparison, Difference, DifferenceKind};
use crate::expression::{EFFECTS, Expression, ReadPath, parse_json};

/// The most paths that an error names.
const PATHS_NAMED_MAX: usize = 4;

/// What a pair looks like under other rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejudged {
    /// The whole comparison under the other rules.
    pub comparison: Comparison,
    /// The differences that it had under the rules in force too.
    pub still: Vec<Difference>,
    /// The differences that it has only under the other rules.
    pub new: Vec<Difference>,
    /// Whether the list of the differences that it had under the rules in force was cut.
    pub was_cut: bool,
}

/// Why a pair is not judged again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJudged {
    /// Of a part only the digest is kept.
    #[error(
        "of a text only its digest is kept (under `text:` rules, its lines are), or a call's body was not captured whole"
    )]
    Digest,
    /// It depends on values that were redacted.
    #[error("it depends on what was redacted: {0}")]
    Redacted(String),
    /// What is kept does not show the same differences.
    #[error("what is kept does not show the differences that were found: a part that matters was redacted or cut")]
    NotReproduced,
    /// The comparison exceeded a bound.
    #[error("{0}")]
    Bound(BoundExceeded),
}

/// What is kept of a pair, as it is compared.
pub(in crate::compare) struct ReadPair {
    pub(in crate::compare) legacy: Observation,
    pub(in crate::compare) engine: Observation,
    effects: Option<Vec<Arc<Effect>>>,
    pub(in crate::compare) request: Value,
    instance: Option<InstanceIds>,
    earlier_ids: Vec<EarlierIds>,
    stale_reads: bool,
    /// Whether a `content-encoding` was not kept.
    was_encoded: bool,
}

impl ReadPair {
    /// # Errors
    /// Nothing but the digest of a body is kept.
    pub(in crate::compare) fn of(kept: &KeptPair) -> Result<Self, NotJudged> {
        let engine = kept.engine.observation().ok_or(NotJudged::Digest)?;
        let engine = engine.with_intents(kept.intents.clone());
        let engine = engine.with_sent_reads(kept.sent_reads.clone());
        let engine = engine.with_unattributed_steps(kept.unattributed_steps.clone());
        let engine = if kept.has_stopped { engine.of_stopped_run() } else { engine };
        let calls = |calls: &Vec<KeptCall>| calls.iter().map(|call| call.effect().map(Arc::new)).collect();
        let effects: Option<Option<Vec<Arc<Effect>>>> = kept.effects.as_ref().map(calls);
        Ok(Self {
            legacy: kept.legacy.observation().ok_or(NotJudged::Digest)?,
            engine: engine.with_steps_without_items(kept.steps_without_items.clone()),
            effects: effects.map(|calls| calls.ok_or(NotJudged::Digest)).transpose()?,
            request: parse_json(kept.request.as_bytes()).map_err(|_| NotJudged::NotReproduced)?,
            instance: kept.instance.clone(),
            earlier_ids: kept.earlier_ids.clone(),
            stale_reads: kept.stale_reads,
            was_encoded: kept.legacy.was_encoded || kept.engine.was_encoded,
        })
    }

    fn pair(&self) -> Pair<'_> {
        Pair {
            legacy: &self.legacy,
            engine: &self.engine,
            effects: self.effects.as_deref(),
            request: &self.request,
            instance: self.instance.as_ref(),
            stale_reads: self.stale_reads,
            sensitive: None,
        }
    }

    /// Compares the pair.
    ///
    /// # Errors
    /// It exceeds a bound.
    pub(super) fn compared(
        &self,
        rules: &Rules,
        bounds: &CompareBounds,
        expired: &dyn Fn() -> bool,
    ) -> Result<Comparison, NotJudged> {
        let pair = self.pair();
        let compared = compare_in_instance(&pair, &self.earlier_ids, rules, bounds, expired);
        compared.map(|(comparison, _)| comparison).map_err(NotJudged::Bound)
    }

    /// Checks that the pair shows the differences that were found under the rules by which it was compared.
    ///
    /// # Errors
    /// It does not, or it cannot be compared.
    pub(in crate::compare) fn check_reproduces(
        &self,
        found: &[Difference],
        in_force: &Rules,
        bounds: &CompareBounds,
        expired: &dyn Fn() -> bool,
    ) -> Result<Comparison, NotJudged> {
        let again = self.compared(in_force, bounds, expired)?;
        if places(&again.differences) == places(found) { Ok(again) } else { Err(NotJudged::NotReproduced) }
    }

    /// Judges a pair for which [`ReadPair::check_reproduces`] succeeded. `was_cut`: whether that comparison is
    /// truncated.
    ///
    /// # Errors
    /// Why it cannot be judged.
    pub(in crate::compare) fn judge(
        &self,
        (found, was_cut): (&[Difference], bool),
        in_force: &Rules,
        rules: &Rules,
        bounds: &CompareBounds,
        expired: &dyn Fn() -> bool,
    ) -> Result<Rejudged, NotJudged> {
        let comparison = self.compared(rules, bounds, expired)?;
        let before = places(found);
        let (still, new): (Vec<_>, Vec<_>) =
            comparison.differences.iter().cloned().partition(|difference| before.contains(&place(difference)));
        let masked = masked_reads(self, in_force, rules, bounds);
        // Whether masked values are equal is known, but not whether they are within a tolerance or fit a pattern, nor
        // whether a condition on them holds.
        let is_by_masked = |difference: &Difference| {
            difference.kind == DifferenceKind::Assert && masked.iter().any(|read| read.place == difference.path)
        };
        let is_seen = |difference: &Difference| !shows_masked(difference) && !is_by_masked(difference);
        if !comparison.differences.iter().any(is_seen) {
            let shown = comparison.differences.iter().filter(|difference| !is_by_masked(difference));
            let unknown =
                shown.map(|difference| difference.path.clone()).chain(masked.iter().map(|read| read.path.clone()));
            let unknown: Vec<String> = unknown.collect();
            if !unknown.is_empty() {
                return Err(NotJudged::Redacted(named(unknown)));
            }
        }
        // The values of `content-encoding` were not kept, so it is not known whether they were equal.
        if self.was_encoded && rules.headers.contains(&http::header::CONTENT_ENCODING) {
            return Err(NotJudged::Redacted("headers.content-encoding".to_owned()));
        }
        Ok(Rejudged { comparison, still, new, was_cut })
    }
}

/// Judges a pair again. `found` are the differences that it had under `in_force`, by which it was compared.
///
/// # Errors
/// Why it cannot be judged.
pub fn rejudge(
    kept: &KeptPair,
    found: &[Difference],
    in_force: &Rules,
    rules: &Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<Rejudged, NotJudged> {
    let read = ReadPair::of(kept)?;
    let was_cut = read.check_reproduces(found, in_force, bounds, expired)?.truncated;
    read.judge((found, was_cut), in_force, rules, bounds, expired)
}

fn named(mut paths: Vec<String>) -> String {
    paths.truncate(PATHS_NAMED_MAX);
    paths.join(", ")
}

/// Where differences are, and of which kind: what a group of samples has in common.
fn places(differences: &[Difference]) -> BTreeSet<(&str, DifferenceKind)> {
    differences.iter().map(place).collect()
}

fn place(difference: &Difference) -> (&str, DifferenceKind) {
    (&difference.path, difference.kind)
}

/// Whether a difference is one of values of which only their equality is known.
fn shows_masked(difference: &Difference) -> bool {
    [&difference.legacy, &difference.engine].into_iter().flatten().any(|value| is_masked(value))
}

/// Something masked that an expression reads.
struct MaskedRead {
    /// The place of the difference that its assert makes; empty for a condition of another rule.
    place: String,
    /// What is read.
    path: String,
}

/// The masked values that asserts and conditions read, except asserts and conditions that the rules in force have too.
fn masked_reads(read: &ReadPair, in_force: &Rules, rules: &Rules, bounds: &CompareBounds) -> Vec<MaskedRead> {
    let known: BTreeSet<&str> = expressions(in_force).map(|(_, expression)| expression.source()).collect();
    let mut scope = None;
    let mut found = Vec::new();
    for (assert, expression) in expressions(rules).filter(|(_, expression)| !known.contains(expression.source())) {
        let scope = scope.get_or_insert_with(|| values(read, bounds));
        let masked = expression.reads().iter().filter(|read| reads_masked(read, scope));
        let place = || assert.map(|assert| assert::path(&assert.source)).unwrap_or_default();
        found.extend(masked.map(|read| MaskedRead { place: place(), path: read.0.join(".") }));
    }
    found
}

/// The conditions of rules, with the assert that each belongs to.
fn expressions(rules: &Rules) -> impl Iterator<Item = (Option<&Assert>, &Expression)> {
    let asserts = rules.asserts.iter().flat_map(|assert| {
        let expressions = [Some(&assert.expression), assert.when.as_ref()];
        expressions.into_iter().flatten().map(move |expression| (Some(assert), expression))
    });
    asserts.chain(rules.texts.conditions().map(|(_, condition)| (None, condition)))
}

/// The values that expressions read.
fn values(read: &ReadPair, bounds: &CompareBounds) -> Value {
    let body = |reply: &Observation| ParsedBody::of_parts(reply.headers(), reply.body(), bounds).ok();
    let reply = |reply: &Observation| body(reply).map_or(Value::Null, |body| assert::reply(reply, body.value()));
    json!({
        "request": read.request,
        "legacy": reply(&read.legacy),
        "engine": reply(&read.engine),
        "intents": assert::intents(&read.engine),
        EFFECTS: assert::effects(&read.engine),
    })
}

/// Whether something masked is at a path that an expression reads, or within it.
fn reads_masked(path: &ReadPath, scope: &Value) -> bool {
    let mut value = scope;
    for part in &path.0 {
        let inner = match value {
            // Names of headers are matched without regard to case.
            Value::Object(members) => match members.get(&**part) {
                None => members.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)).map(|(_, value)| value),
                found => found,
            },
            // In a list any element may be meant; the content of a value that was masked as a whole is unknown.
            _ => break,
        };
        // Redaction removes no members, so the original did not have this one either.
        let Some(inner) = inner else { return false };
        value = inner;
    }
    holds_masked(value)
}
