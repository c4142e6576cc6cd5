//! Finds out which call by legacy belongs to which of the engine's intents.
//!
//! An intent whose step took the reply to a call by legacy (`rehearse: legacy`) belongs to that call. Otherwise:
//! a call can belong to an intent if it goes to the same service, with the method and the path template of the intent's
//! step. First, a step's only intent is paired with its only candidate if no other step may claim that call. Among the
//! other candidates, equal calls are paired first, then calls that differ only in tolerated values and ids that are not
//! bound, then calls whose bodies alone are equal in this sense, and the rest by how much the calls have in common. If
//! several pairs are equally good, each side's order decides. The ids of a pair are bound as soon as the pair is made,
//! so that they help to make the next pairs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::call::{Call, EngineCall};
use super::call_template::path_matches;
use super::path_text::derived_template;
use super::rules::{EffectRules, StepRules};
use crate::compare::body_rules::IdKind;
use crate::compare::bounds::BoundExceeded;
use crate::compare::context::WalkContext;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::parsed_body::ParsedBody;
use crate::compare::rules_by_node::RulesByNode;
use crate::compare::text;
use crate::compare::value_hash::{Precision, Side, hash_of};
use crate::compare::walk::Walk;
use crate::names::StepId;
use crate::secret::STARS;

/// The most combinations of a call and an intent that are scored by how much the two have in common; beyond that, the
/// order decides.
const SCORED_MAX: usize = 4_096;
/// The most segments of a call's path that count for such a score. Path and body together count up to twice as many.
const SCORED_VALUES_MAX: usize = 64;

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
    masked_path: bool,
    /// The query parameters whose values hold asterisks in an intent: neither do they tell which calls are equal.
    masked_query: BTreeSet<String>,
}

/// Which calls belong together, by their indexes.
pub(super) struct Pairs {
    pub(super) engine_of: Vec<Option<usize>>,
    pub(super) legacy_of: Vec<Option<usize>>,
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
    pub(super) const COARSE: Self = Self { precision: Precision::Coarse, address: true };
    pub(super) const COARSE_BODY: Self = Self { precision: Precision::Coarse, address: false };
}

/// Groups the calls of both sides by step, in the order of the intents, without steps whose intents are not judged.
pub(super) fn by_step<'a>(
    legacy: &[Call<'a>],
    engine: &[EngineCall<'a>],
    rules: &'a EffectRules,
    ids: &IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<Vec<StepCalls<'a>>, BoundExceeded> {
    let mut positions: HashMap<&StepId, usize> = HashMap::new();
    let mut steps: Vec<StepCalls<'a>> = Vec::new();
    for (n, intent) in engine.iter().enumerate() {
        if !rules.judges_intent(intent) {
            continue;
        }
        let at = *positions.entry(intent.step).or_insert(steps.len());
        if at == steps.len() {
            steps.push(StepCalls {
                step: intent.step,
                rules: rules.of(intent.step),
                engine: Vec::new(),
                legacy: Vec::new(),
                nodes: RulesByNode::default(),
                masked_path: false,
                masked_query: BTreeSet::new(),
            });
        }
        if let Some(step) = steps.get_mut(at) {
            step.engine.push(n);
            step.masked_path |= intent.call.path.contains(STARS);
            let masked = intent.call.query.iter().filter(|(_, values)| values.iter().any(|v| v.contains(STARS)));
            step.masked_query.extend(masked.map(|(name, _)| name.clone()));
        }
    }
    for step in &mut steps {
        let Some(first) = step.engine.first().and_then(|n| engine.get(*n)) else { continue };
        let derived = || derived_template(first.call.path, |segment| ids.legacy_of(IdKind::ANY, segment).is_some());
        let template = first.template.map_or_else(derived, |template| template.path.clone());
        for (n, call) in legacy.iter().enumerate() {
            findings.step()?;
            if call.method == first.call.method
                && call.is_to_service_of(&first.call)
                && path_matches(&template, call.path)
            {
                step.legacy.push(n);
            }
        }
        let bodies = step.legacy.iter().filter_map(|n| legacy.get(*n)?.document());
        let bodies = bodies.chain(step.engine.iter().filter_map(|n| engine.get(*n)?.call.document()));
        step.nodes = RulesByNode::of(&step.rules.body, bodies, findings)?;
    }
    Ok(steps)
}

/// Pairs calls with intents, and binds the ids of each pair.
pub(super) fn pair(
    legacy: &[Call<'_>],
    engine: &[EngineCall<'_>],
    steps: &[StepCalls<'_>],
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<Pairs, BoundExceeded> {
    let pairs = Pairs { engine_of: vec![None; legacy.len()], legacy_of: vec![None; engine.len()] };
    let mut pairing = Pairing { legacy, engine, pairs, ids, findings };
    let mut claims = vec![0usize; legacy.len()];
    steps.iter().flat_map(|step| &step.legacy).for_each(|n| claims[*n] += 1);
    for step in steps {
        pairing.add_assigned(step)?;
    }
    for step in steps {
        if let ([call], [intent]) = (&step.legacy[..], &step.engine[..])
            && claims[*call] == 1
            && pairing.pairs.engine_of[*call].is_none()
        {
            pairing.add(step, *call, *intent)?;
        }
    }
    for equality in [Equality::EXACT, Equality::COARSE, Equality::COARSE_BODY] {
        for step in steps {
            pairing.pair_equal(step, equality)?;
        }
    }
    pairing.pair_similar(steps)?;
    Ok(pairing.pairs)
}

struct Pairing<'p, 'f, 'a> {
    legacy: &'p [Call<'a>],
    engine: &'p [EngineCall<'a>],
    pairs: Pairs,
    ids: &'p mut IdMap,
    findings: &'p mut ComparisonFindings<'f>,
}

impl Pairing<'_, '_, '_> {
    fn add(&mut self, step: &StepCalls<'_>, call: usize, intent: usize) -> Result<(), BoundExceeded> {
        self.pairs.engine_of[call] = Some(intent);
        self.pairs.legacy_of[intent] = Some(call);
        let (legacy, engine) = (&self.legacy[call], &self.engine[intent].call);
        if let (Some(rules), Some(legacy), Some(engine)) = (&step.rules.text, legacy.text(), engine.text()) {
            self.findings.set_prefix(step.call_prefix());
            let bound = text::bind_ids(legacy, engine, rules, self.ids, self.findings);
            self.findings.set_prefix(String::new());
            return bound;
        }
        let (Some(legacy), Some(engine)) = (legacy.json(), engine.json()) else { return Ok(()) };
        self.findings.set_prefix(step.body_prefix());
        let bound = Walk::bind_ids(step.context(self.ids, self.findings), legacy, engine);
        self.findings.set_prefix(String::new());
        bound
    }

    /// Pairs the intents whose steps took the reply to a call by legacy with that call.
    fn add_assigned(&mut self, step: &StepCalls<'_>) -> Result<(), BoundExceeded> {
        for intent in &step.engine {
            let Some(number) = self.engine[*intent].taken_from else { continue };
            let mut calls = step.legacy.iter().filter(|call| self.pairs.engine_of[**call].is_none());
            if let Some(call) = calls.find(|call| self.legacy[**call].number == Some(number)) {
                self.add(step, *call, *intent)?;
            }
        }
        Ok(())
    }

    /// Returns the calls and the intents of a step that have no partner yet.
    fn open(&self, step: &StepCalls<'_>) -> (Vec<usize>, Vec<usize>) {
        let legacy = step.legacy.iter().copied().filter(|n| self.pairs.engine_of[*n].is_none());
        let engine = step.engine.iter().copied().filter(|n| self.pairs.legacy_of[*n].is_none());
        (legacy.collect(), engine.collect())
    }

    fn pair_equal(&mut self, step: &StepCalls<'_>, equality: Equality) -> Result<(), BoundExceeded> {
        let (legacy, engine) = self.open(step);
        if legacy.is_empty() || engine.is_empty() {
            return Ok(());
        }
        let mut free: HashMap<u64, VecDeque<usize>> = HashMap::new();
        for n in legacy {
            let hash = step.hash(&self.legacy[n], Side::Legacy, equality, self.ids, self.findings)?;
            free.entry(hash).or_default().push_back(n);
        }
        let mut found = Vec::new();
        for n in engine {
            let hash = step.hash(&self.engine[n].call, Side::Engine, equality, self.ids, self.findings)?;
            if let Some(call) = free.get_mut(&hash).and_then(VecDeque::pop_front) {
                found.push((call, n));
            }
        }
        found.into_iter().try_for_each(|(call, intent)| self.add(step, call, intent))
    }

    /// Pairs the calls and intents that are left in all steps, beginning with those that have the most in common.
    fn pair_similar(&mut self, steps: &[StepCalls<'_>]) -> Result<(), BoundExceeded> {
        let mut scored: Vec<(usize, usize, usize, usize)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let (legacy, engine) = self.open(step);
            let is_bounded = scored.len() + legacy.len().saturating_mul(engine.len()) <= SCORED_MAX;
            let mut values_of = |calls: &[usize], side| -> Result<Vec<Vec<u64>>, BoundExceeded> {
                let call = |n: usize| if side == Side::Legacy { &self.legacy[n] } else { &self.engine[n].call };
                calls.iter().map(|n| step.values(call(*n), side, self.ids, self.findings)).collect()
            };
            let (of_legacy, of_engine) = match is_bounded && (legacy.len() > 1 || engine.len() > 1) {
                true => (values_of(&legacy, Side::Legacy)?, values_of(&engine, Side::Engine)?),
                false => (vec![Vec::new(); legacy.len()], vec![Vec::new(); engine.len()]),
            };
            for (i, (call, a)) in legacy.iter().zip(&of_legacy).enumerate() {
                // Beyond the bound, each call may be paired only with the intent at the same position.
                let intents = if is_bounded { 0..engine.len() } else { i.min(engine.len())..(i + 1).min(engine.len()) };
                for j in intents {
                    self.findings.step()?;
                    scored.push((in_common(a, &of_engine[j]), *call, engine[j], at));
                }
            }
        }
        // A stable sort: equally good pairs stay in the order of both sides.
        scored.sort_by_key(|(score, ..)| std::cmp::Reverse(*score));
        for (_, call, intent, at) in scored {
            if self.pairs.engine_of[call].is_none() && self.pairs.legacy_of[intent].is_none() {
                self.add(&steps[at], call, intent)?;
            }
        }
        Ok(())
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
        findings.step()?;
        let mut hasher = DefaultHasher::new();
        if equality.address {
            let text = |text: &str| match side {
                Side::Legacy => text.to_owned(),
                Side::Engine => ids.with_legacy_ids(text).into_owned(),
            };
            if self.rules.ignored_path.is_none() && !self.masked_path {
                text(call.path).hash(&mut hasher);
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
                let value = hash_of(&mut self.context(ids, findings), value, side, equality.precision)?;
                (1u8, form, value).hash(&mut hasher);
            }
            Ok((ParsedBody::Text(text), _)) => match side {
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

    /// Returns the hashes of the first values of a call, each hashed together with its place, sorted.
    pub(super) fn values(
        &self,
        call: &Call<'_>,
        side: Side,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<Vec<u64>, BoundExceeded> {
        let segments = call.path.split('/').enumerate().map(|(at, segment)| {
            let id = if side == Side::Engine { ids.legacy_of(IdKind::ANY, segment) } else { None };
            hash_at(at as u64, id.unwrap_or(segment))
        });
        let mut found: Vec<u64> = segments.take(SCORED_VALUES_MAX).collect();
        if let Some(body) = call.json() {
            self.values_within(&mut self.context(ids, findings), body, 0, side, &mut found)?;
        }
        for line in call.text().into_iter().flat_map(str::lines).take(SCORED_VALUES_MAX) {
            findings.step()?;
            let line = if side == Side::Engine { ids.with_legacy_ids(line) } else { line.into() };
            found.push(hash_at(0, line));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn values_within(
        &self,
        context: &mut WalkContext<'_, '_>,
        value: &Value,
        place: u64,
        side: Side,
        found: &mut Vec<u64>,
    ) -> Result<(), BoundExceeded> {
        if found.len() >= 2 * SCORED_VALUES_MAX || context.rules_by_node.on(value).ignore.is_some() {
            return Ok(());
        }
        match value {
            Value::Object(map) => map
                .iter()
                .try_for_each(|(key, value)| self.values_within(context, value, hash_at(place, key), side, found)),
            Value::Array(items) => {
                items.iter().try_for_each(|item| self.values_within(context, item, hash_at(place, "[*]"), side, found))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                found.push(hash_at(place, hash_of(context, value, side, Precision::Coarse)?));
                Ok(())
            }
        }
    }
}

fn hash_at(place: u64, value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (place, value).hash(&mut hasher);
    hasher.finish()
}

/// Counts the values that two sorted lists have in common.
pub(super) fn in_common(a: &[u64], b: &[u64]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, count) = (i + 1, j + 1, count + 1),
        }
    }
    count
}
