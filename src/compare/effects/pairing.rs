//! Finds out which call by legacy belongs to which of the engine's intents.
//!
//! An intent whose step took the reply to a call by legacy (`rehearse: legacy`) belongs to that call. Otherwise:
//! a call can belong to an intent if it goes to the same service, with the method and the path template of the intent's
//! step. First, a step's only intent is paired with its only candidate if no other step may claim that call. Among the
//! other candidates, equal calls are paired first, then calls that differ only in tolerated values and ids that are not
//! bound, then calls whose bodies alone are equal in this sense, and the rest by how much the calls have in common. If
//! several pairs are equally good, each side's order decides. The ids of a pair are bound as soon as the pair is made,
//! so that they help to make the next pairs.

use std::collections::{HashMap, VecDeque};

use super::call::{Call, EngineCall};
use super::call_template::path_matches;
use super::likeness::in_common;
use super::path_text::derived_template;
use super::rules::EffectRules;
use super::sent_reads::ReadsByLegacy;
use super::step_calls::{Equality, StepCalls};
use crate::compare::body_rules::IdKind;
use crate::compare::bounds::BoundExceeded;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::rules_by_node::RulesByNode;
use crate::compare::text;
use crate::compare::value_hash::Side;
use crate::compare::walk::Walk;
use crate::names::StepId;
use crate::secret::STARS;

/// The most combinations of a call and an intent that are scored by how much the two have in common; beyond that, the
/// order decides.
const SCORED_MAX: usize = 4_096;

/// Which calls belong together, by their indexes.
pub(super) struct Pairs {
    pub(super) engine_of: Vec<Option<usize>>,
    pub(super) legacy_of: Vec<Option<usize>>,
}

/// Groups the calls of both sides by step, in the order of the intents, without steps whose intents are not judged, and
/// without those of legacy's calls that are `reads`.
pub(super) fn by_step<'a>(
    legacy: &[Call<'a>],
    engine: &[EngineCall<'a>],
    rules: &'a EffectRules,
    reads: &ReadsByLegacy,
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
            steps.push(StepCalls::of(intent.step, rules));
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
        let derived = || derived_template(&first.call.path, |segment| ids.legacy_of(IdKind::ANY, segment).is_some());
        let template = first.template.map_or_else(derived, |template| template.path.clone());
        for (n, call) in legacy.iter().enumerate() {
            findings.count_work()?;
            if !reads.contains(n)
                && call.method == first.call.method
                && call.is_to_service_of(&first.call)
                && path_matches(&template, &call.path)
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
                    self.findings.count_work()?;
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
