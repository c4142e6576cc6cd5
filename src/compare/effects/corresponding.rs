//! Finds the call by legacy that corresponds to one call of the engine, while the engine's run goes on.
//!
//! A call corresponds by service, method and path template, and of several by how much it has in common with the
//! engine's call, as in a comparison. That the values are equal is not required: a wrong amount is to show as a
//! difference, and not to be replaced by legacy's. Ids that the two arms gave out are not known yet, and count as
//! equal.
//!
//! A call that equals what another item of the step would send is that item's, whichever of them asks first. Equal
//! items have equal calls in turn, if legacy made these one after the other: the first item the first call.
//!
//! Always true: one call is chosen only if no other fits as well, with three exceptions:
//! - equal calls have equal replies;
//! - equal calls belong to equal items, in turn;
//! - the step makes one call only: then legacy made it more than once, which the comparison reports.

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
    /// This many fit equally; or one fits that another step of the workflow may make too.
    Ambiguous(usize),
    /// None.
    None {
        /// The method and the URL, without values, of the call that has the most in common.
        nearest: Option<String>,
    },
}

/// Finds the call that corresponds to an intent, among those whose numbers are not in `assigned`. `siblings` returns
/// the intents of those other items of the step that have no call yet, and is only called where they matter. `expired`
/// is called now and then and says whether the time is used up.
///
/// # Errors
/// The calls cannot be compared within the bounds.
pub fn corresponding_call(
    rules: &Rules,
    effects: &[Arc<Effect>],
    (intent, siblings): (&Intent, &dyn Fn() -> Vec<Intent>),
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
    let template = rules.effects.template_of(&intent.step);
    let engine = [EngineCall::of(intent, template, bounds)];
    let (mut ids, [call]) = (IdMap::default(), &engine);
    let reads = ReadsByLegacy::none();
    let steps = pairing::by_step(&legacy, &engine, &rules.effects, &reads, &ids, &mut findings)?;
    let step = steps.first().filter(|step| !step.legacy.is_empty());
    let Some(step) = step else { return Ok(CorrespondingCall::None { nearest: nearest(&all, call, &findings) }) };
    let is_contested = step.legacy.iter().any(|n| {
        let (templates, legacy) = (rules.effects.templates.iter(), &legacy[*n]);
        let mut others = templates.filter(|template| template.step.as_ref() != Some(&intent.step));
        others.any(|other| legacy.service == Some(&other.service) && other.matches(legacy.method, &legacy.path))
    });
    let calls = FreeCalls { free: &free, legacy: &legacy, is_contested, makes_one_call: intent.item.is_none() };
    let mut search = Search { calls, step, candidates: step.legacy.clone(), ids: &mut ids, findings: &mut findings };
    let equal = search.equal(call)?;
    let is_in_turn = intent.item.is_some() && search.are_in_turn(&equal)?;
    if !is_in_turn && (!equal.is_empty() || step.legacy.len() == 1) {
        return search.chosen(call, equal);
    }
    let siblings = siblings();
    if siblings.is_empty() {
        return search.chosen(call, equal);
    }
    let is_earlier: Vec<bool> = siblings.iter().map(|sibling| sibling.item < intent.item).collect();
    // The rules of the step are looked up for the bodies of the siblings too.
    let engine = std::iter::once(intent).chain(&siblings).map(|intent| EngineCall::of(intent, template, bounds));
    let engine: Vec<EngineCall<'_>> = engine.collect();
    let mut ids = IdMap::default();
    let steps = pairing::by_step(&legacy, &engine, &rules.effects, &reads, &ids, &mut findings)?;
    let (Some(step), [call, siblings @ ..]) = (steps.first(), &engine[..]) else {
        return Ok(CorrespondingCall::Ambiguous(step.legacy.len()));
    };
    let mut search = Search { calls, step, candidates: step.legacy.clone(), ids: &mut ids, findings: &mut findings };
    if is_in_turn {
        let (earlier, all) = search.equal_siblings(call, siblings.iter().zip(is_earlier))?;
        // With fewer calls than items it is not known which item has none; with more, which call belongs to no item.
        let chosen = equal.get(earlier).filter(|_| all + 1 == equal.len());
        return Ok(chosen.map_or(CorrespondingCall::Ambiguous(equal.len()), |n| search.one(*n)));
    }
    search.remove_calls_of(siblings)?;
    if search.candidates.is_empty() {
        return Ok(CorrespondingCall::None { nearest: nearest(&all, call, search.findings) });
    }
    search.chosen(call, Vec::new())
}

/// The calls by legacy that are not assigned, and how one of them is chosen.
#[derive(Clone, Copy)]
struct FreeCalls<'s, 'a> {
    free: &'s [&'a Effect],
    legacy: &'s [Call<'a>],
    /// Whether another step of the workflow may make one of the calls that fit.
    is_contested: bool,
    /// Whether the step makes only one call.
    makes_one_call: bool,
}

/// The search among the calls that go where the engine's call goes.
struct Search<'s, 'f, 'a> {
    calls: FreeCalls<'s, 'a>,
    step: &'s StepCalls<'a>,
    /// The indexes of the calls that may be chosen.
    candidates: Vec<usize>,
    ids: &'s mut IdMap,
    findings: &'s mut ComparisonFindings<'f>,
}

impl Search<'_, '_, '_> {
    /// The call that is chosen: of those that are equal to the engine's, or of those that have the most in common.
    fn chosen(mut self, engine: &EngineCall<'_>, equal: Vec<usize>) -> Result<CorrespondingCall, BoundExceeded> {
        let best = if equal.is_empty() { self.most_alike(engine)? } else { equal };
        let makes_one_call = self.calls.makes_one_call && !self.calls.is_contested;
        Ok(match best[..] {
            [] => CorrespondingCall::Ambiguous(self.candidates.len()),
            [first, ref others @ ..] if others.is_empty() || self.are_interchangeable(&best, makes_one_call)? => {
                self.one(first)
            }
            _ => CorrespondingCall::Ambiguous(best.len()),
        })
    }

    fn one(&self, index: usize) -> CorrespondingCall {
        let found = self.calls.free[index];
        CorrespondingCall::One { number: found.number, reply: found.reply.clone() }
    }

    /// Whether these are several equal calls with different replies, each of which began after the reply to the one
    /// before it had come.
    fn are_in_turn(&mut self, calls: &[usize]) -> Result<bool, BoundExceeded> {
        let is_after = |pair: &[usize]| {
            let (earlier, later) = (self.calls.free[pair[0]], self.calls.free[pair[1]]);
            earlier.replied_before.is_some_and(|replied| replied <= later.number)
        };
        Ok(calls.len() > 1
            && calls.windows(2).all(is_after)
            && !self.are_interchangeable(calls, false)?
            && self.are_equal(calls)?)
    }

    /// Counts the siblings that would send the same call as the engine's: those flagged as earlier, and all.
    fn equal_siblings<'c, 'd: 'c>(
        &mut self,
        engine: &EngineCall<'d>,
        siblings: impl Iterator<Item = (&'c EngineCall<'d>, bool)>,
    ) -> Result<(usize, usize), BoundExceeded> {
        let mut hash =
            |call: &EngineCall<'_>| self.step.hash(&call.call, Side::Engine, Equality::EXACT, self.ids, self.findings);
        let (wanted, mut earlier, mut all) = (hash(engine)?, 0, 0);
        for (sibling, is_earlier) in siblings {
            if hash(sibling)? == wanted {
                all += 1;
                earlier += usize::from(is_earlier);
            }
        }
        Ok((earlier, all))
    }

    /// The candidates that are equal to the engine's call by the strictest [`Equality`] by which any is.
    fn equal(&mut self, engine: &EngineCall<'_>) -> Result<Vec<usize>, BoundExceeded> {
        for equality in [Equality::EXACT, Equality::COARSE, Equality::COARSE_BODY] {
            let equal = self.equal_by(engine, equality)?;
            if !equal.is_empty() {
                return Ok(equal);
            }
        }
        Ok(Vec::new())
    }

    fn equal_by(&mut self, engine: &EngineCall<'_>, equality: Equality) -> Result<Vec<usize>, BoundExceeded> {
        let wanted = self.step.hash(&engine.call, Side::Engine, equality, self.ids, self.findings)?;
        let mut equal = Vec::new();
        for n in &self.candidates {
            let hash = self.step.hash(&self.calls.legacy[*n], Side::Legacy, equality, self.ids, self.findings)?;
            equal.extend((hash == wanted).then_some(*n));
        }
        Ok(equal)
    }

    /// For each sibling, removes one call that is equal to the sibling's from the candidates.
    fn remove_calls_of(&mut self, siblings: &[EngineCall<'_>]) -> Result<(), BoundExceeded> {
        let mut without_call: Vec<&EngineCall<'_>> = siblings.iter().collect();
        for equality in [Equality::EXACT, Equality::COARSE, Equality::COARSE_BODY] {
            let mut still_without = Vec::new();
            for sibling in without_call {
                match self.equal_by(sibling, equality)?.first() {
                    Some(taken) => self.candidates.retain(|n| n != taken),
                    None => still_without.push(sibling),
                }
            }
            without_call = still_without;
        }
        Ok(())
    }

    /// The candidates that have the most in common with the engine's call. Empty if there is only one candidate and
    /// another step may have made it.
    fn most_alike(&mut self, engine: &EngineCall<'_>) -> Result<Vec<usize>, BoundExceeded> {
        if self.candidates.len() == 1 {
            return Ok(if self.calls.is_contested { Vec::new() } else { self.candidates.clone() });
        }
        let wanted = self.step.values(&engine.call, Side::Engine, self.ids, self.findings)?;
        let mut scores = Vec::new();
        for n in &self.candidates {
            let values = self.step.values(&self.calls.legacy[*n], Side::Legacy, self.ids, self.findings)?;
            scores.push((in_common(&values, &wanted), *n));
        }
        let highest = scores.iter().map(|(score, _)| *score).max();
        Ok(scores.into_iter().filter(|(score, _)| Some(*score) == highest).map(|(_, n)| n).collect())
    }

    /// Whether it makes no difference which of these is chosen: they are equal calls, and either their replies are
    /// equal too, or the step makes only one of them.
    fn are_interchangeable(&mut self, calls: &[usize], makes_one_call: bool) -> Result<bool, BoundExceeded> {
        let reply = |n: &usize| self.calls.free[*n].reply.as_ref().map(|reply| (reply.status, &reply.body));
        let has_same_replies = calls.windows(2).all(|pair| reply(&pair[0]) == reply(&pair[1]));
        Ok((makes_one_call || has_same_replies) && self.are_equal(calls)?)
    }

    fn are_equal(&mut self, calls: &[usize]) -> Result<bool, BoundExceeded> {
        let mut hashes = BTreeSet::new();
        for n in calls {
            let call = &self.calls.legacy[*n];
            hashes.insert(self.step.hash(call, Side::Legacy, Equality::EXACT, self.ids, self.findings)?);
        }
        Ok(hashes.len() == 1)
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
