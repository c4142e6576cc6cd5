//! Finds the call by legacy that corresponds to one call of the engine, while the engine's run goes on.
//!
//! A call corresponds by service, method and path template, and of several by how much it has in common with the
//! engine's call, as in a comparison. That the values are equal is not required: a wrong amount is to show as a
//! difference, and not to be replaced by legacy's. Ids that the two arms gave out are not known yet, and count as
//! equal.
//!
//! Always true: one call is chosen only if no other fits as well, save where equal calls have equal replies, or where
//! the step makes one call only: then legacy made it more than once, which the comparison reports.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::call::{Call, EngineCall};
use super::likeness::in_common;
use super::paired::without_repeated_attempts;
use super::pairing;
use super::path_text::url_without_values;
use super::sent_reads::ReadsByLegacy;
use super::step_calls::{Equality, StepCalls};
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::effect::{Effect, EffectReply};
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::observation::Intent;
use crate::compare::rules::Rules;
use crate::compare::value_hash::Side;

/// Which call by legacy corresponds to a call of the engine.
#[derive(Clone, Debug)]
pub enum CorrespondingCall {
    /// This one.
    One {
        /// Its number.
        number: u64,
        /// Its reply; `None` if it got none.
        reply: Option<EffectReply>,
    },
    /// So many fit equally, or one that another step of the workflow may make too.
    Ambiguous(usize),
    /// None.
    None {
        /// The method and the URL, without values, of the call that has the most in common.
        nearest: Option<String>,
    },
}

/// Finds the call that corresponds to an intent, among those whose numbers are not in `assigned`. `expired` is called
/// now and then and says whether the time is used up.
///
/// # Errors
/// The calls cannot be compared within the bounds.
pub fn corresponding_call(
    rules: &Rules,
    effects: &[Arc<Effect>],
    intent: &Intent,
    assigned: &BTreeSet<u64>,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<CorrespondingCall, BoundExceeded> {
    if effects.len() > bounds.effects {
        return Err(BoundExceeded::Effects);
    }
    let mut findings = ComparisonFindings::new(1, expired, None);
    let all = without_repeated_attempts(effects);
    let free: Vec<&Effect> = all.iter().copied().filter(|effect| !assigned.contains(&effect.number)).collect();
    let mut legacy = Vec::new();
    for effect in &free {
        findings.check_time()?;
        legacy.push(Call::of_legacy(effect, bounds));
    }
    let engine = [EngineCall::of(intent, rules.effects.template_of(&intent.step), bounds)];
    let (mut ids, [call]) = (IdMap::default(), &engine);
    let steps = pairing::by_step(&legacy, &engine, &rules.effects, &ReadsByLegacy::none(), &ids, &mut findings)?;
    let step = steps.first().filter(|step| !step.legacy.is_empty());
    let Some(step) = step else { return Ok(CorrespondingCall::None { nearest: nearest(&all, call, &findings) }) };
    let is_contested = step.legacy.iter().any(|n| {
        let (templates, legacy) = (rules.effects.templates.iter(), &legacy[*n]);
        let mut others = templates.filter(|template| template.step.as_ref() != Some(&intent.step));
        others.any(|other| legacy.service == Some(&other.service) && other.matches(legacy.method, &legacy.path))
    });
    let mut search = Search { free: &free, legacy: &legacy, step, ids: &mut ids, findings: &mut findings };
    let best = search.best(call, is_contested)?;
    let makes_one_call = intent.item.is_none() && !is_contested;
    Ok(match best[..] {
        [] => CorrespondingCall::Ambiguous(step.legacy.len()),
        [first, ref others @ ..] if others.is_empty() || search.are_interchangeable(&best, makes_one_call)? => {
            CorrespondingCall::One { number: free[first].number, reply: free[first].reply.clone() }
        }
        _ => CorrespondingCall::Ambiguous(best.len()),
    })
}

/// The search among the calls that go where the engine's call goes.
struct Search<'s, 'f, 'a> {
    free: &'s [&'a Effect],
    legacy: &'s [Call<'a>],
    step: &'s StepCalls<'a>,
    ids: &'s mut IdMap,
    findings: &'s mut ComparisonFindings<'f>,
}

impl Search<'_, '_, '_> {
    /// The candidates that fit best. None where it is not known whether the only candidate is another step's.
    fn best(&mut self, engine: &EngineCall<'_>, is_contested: bool) -> Result<Vec<usize>, BoundExceeded> {
        let candidates = &self.step.legacy;
        if candidates.len() == 1 && !is_contested {
            return Ok(candidates.clone());
        }
        for equality in [Equality::EXACT, Equality::COARSE, Equality::COARSE_BODY] {
            let wanted = self.step.hash(&engine.call, Side::Engine, equality, self.ids, self.findings)?;
            let mut equal = Vec::new();
            for n in candidates {
                let hash = self.step.hash(&self.legacy[*n], Side::Legacy, equality, self.ids, self.findings)?;
                equal.extend((hash == wanted).then_some(*n));
            }
            if !equal.is_empty() {
                return Ok(equal);
            }
        }
        if candidates.len() == 1 {
            return Ok(Vec::new());
        }
        let wanted = self.step.values(&engine.call, Side::Engine, self.ids, self.findings)?;
        let mut scores = Vec::new();
        for n in candidates {
            let values = self.step.values(&self.legacy[*n], Side::Legacy, self.ids, self.findings)?;
            scores.push((in_common(&values, &wanted), *n));
        }
        let highest = scores.iter().map(|(score, _)| *score).max();
        Ok(scores.into_iter().filter(|(score, _)| Some(*score) == highest).map(|(_, n)| n).collect())
    }

    /// Whether it makes no difference which of these is chosen: they are equal calls, and either their replies are
    /// equal too, or the step makes only one of them.
    fn are_interchangeable(&mut self, calls: &[usize], makes_one_call: bool) -> Result<bool, BoundExceeded> {
        let mut hashes = BTreeSet::new();
        for n in calls {
            let call = &self.legacy[*n];
            hashes.insert(self.step.hash(call, Side::Legacy, Equality::EXACT, self.ids, self.findings)?);
        }
        let reply = |n: &usize| self.free[*n].reply.as_ref().map(|reply| (reply.status, &reply.body));
        let has_same_replies = calls.windows(2).all(|pair| reply(&pair[0]) == reply(&pair[1]));
        Ok(hashes.len() == 1 && (makes_one_call || has_same_replies))
    }
}

/// The call that has the most in common with the engine's: service, method, path.
fn nearest(effects: &[&Effect], engine: &EngineCall<'_>, findings: &ComparisonFindings<'_>) -> Option<String> {
    let segments = |path: &str| path.split('/').filter(|segment| !segment.is_empty()).count();
    let likeness = |effect: &&&Effect| {
        let call = super::path_text::path_of_url(&effect.url);
        let same = call.split('/').zip(engine.call.path.split('/')).filter(|(a, b)| a == b && !a.is_empty()).count();
        let is_same_service = effect.service.is_some() && effect.service.as_ref() == engine.call.service;
        let apart = segments(call).abs_diff(segments(&engine.call.path));
        (is_same_service, effect.method == *engine.call.method, same, std::cmp::Reverse(apart))
    };
    let nearest = effects.iter().max_by_key(likeness)?;
    Some(findings.shown_text(&format!("{} {}", nearest.method, url_without_values(&nearest.url))))
}
