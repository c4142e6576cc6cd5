//! Pairs the calls of both arms for one request, and reports the differences between them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::call::{Call, EngineCall};
use super::coverage::EffectCoverage;
use super::pairing::{self, Pairs};
use super::rules::EffectRules;
use super::sent_reads::{ReadsByLegacy, SentReads};
use super::step_calls::StepCalls;
use super::unpaired::{RunExtent, Unpaired};
use super::{order, report};
use crate::compare::bounds::{BoundExceeded, CompareBounds};
use crate::compare::effect::Effect;
use crate::compare::findings::{ComparisonFindings, ReportAs};
use crate::compare::id_map::IdMap;
use crate::compare::observation::{Body, Observation};
use crate::compare::verdict::ComparedCall;
use crate::compare::walk::{SetIdBinding, Walk};
use crate::names::StepId;

/// The calls that legacy made, the intents of the engine, and which of them belong together.
pub(in crate::compare) struct PairedCalls<'a> {
    legacy: Vec<Call<'a>>,
    engine: Vec<EngineCall<'a>>,
    steps: Vec<StepCalls<'a>>,
    pairs: Pairs,
    rules: &'a EffectRules,
    sent_reads: SentReads<'a>,
    reads: ReadsByLegacy,
    unattributed: &'a [StepId],
}

impl<'a> PairedCalls<'a> {
    /// Pairs calls with intents, and binds the ids in their bodies, except those in unordered arrays without a key.
    pub(in crate::compare) fn of(
        effects: &'a [Arc<Effect>],
        run: &'a Observation,
        rules: &'a EffectRules,
        bounds: &CompareBounds,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<Self, BoundExceeded> {
        let intents = run.intents();
        if effects.len().max(intents.len()) > bounds.effects {
            return Err(BoundExceeded::Effects);
        }
        let mut legacy = Vec::new();
        for effect in without_repeated_attempts(effects) {
            findings.check_time()?;
            legacy.push(Call::of_legacy(effect, bounds));
        }
        let mut engine = Vec::new();
        for intent in intents {
            findings.check_time()?;
            engine.push(EngineCall::of(intent, rules.template_of(&intent.step), bounds));
        }
        let sent_reads = SentReads::of(run, rules, bounds);
        let reads = ReadsByLegacy::before_pairing(&sent_reads, &legacy, &engine, rules, ids, findings)?;
        let steps = pairing::by_step(&legacy, &engine, rules, &reads, ids, findings)?;
        let pairs = pairing::pair(&legacy, &engine, &steps, ids, findings)?;
        let unattributed = run.unattributed_steps();
        Ok(Self { legacy, engine, steps, pairs, rules, sent_reads, reads, unattributed })
    }

    /// Binds the ids in the unordered arrays of the bodies. Returns whether ids may be left that it has not bound.
    pub(in crate::compare) fn bind_ids_in_sets(
        &self,
        which: SetIdBinding,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<bool, BoundExceeded> {
        let mut are_left = false;
        for step in &self.steps {
            for n in &step.engine {
                let call = self.pairs.legacy_of[*n].and_then(|call| self.legacy[call].json());
                if let (Some(legacy), Some(engine)) = (call, self.engine[*n].call.json()) {
                    findings.set_prefix(step.body_prefix());
                    are_left |= Walk::bind_ids_in_sets(step.context(ids, findings), which, legacy, engine)?;
                    findings.set_prefix(String::new());
                }
            }
        }
        Ok(are_left)
    }

    /// Reports the differences between the calls and the intents.
    pub(in crate::compare) fn report(
        &self,
        run_extent: RunExtent,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<(), BoundExceeded> {
        let mut coverage = EffectCoverage::default();
        findings.report_as(ReportAs::Effect);
        for step in &self.steps {
            let counts = coverage.steps.entry(step.step.clone()).or_default();
            for n in &step.engine {
                let call = self.pairs.legacy_of[*n];
                let legacy = call.and_then(|call| self.legacy.get(call)?.number);
                findings.add_compared_call(ComparedCall { intent: *n, legacy });
                let Some(call) = call else {
                    counts.unmatched += 1;
                    continue;
                };
                // A stopped run has no reply, so ids that are bound only in replies are unknown: values cannot be
                // compared.
                if run_extent == RunExtent::StoppedRun {
                    continue;
                }
                // A call whose body is ignored does not count as compared: it may do something else.
                counts.compared += u32::from(!step.ignores_all_of(&self.engine[*n]));
                findings.set_prefix(step.call_prefix());
                report::report(step, &self.legacy[call], &self.engine[*n].call, ids, findings)?;
            }
        }
        let Self { legacy, engine, steps, pairs, rules, sent_reads, reads, unattributed } = self;
        let unpaired = Unpaired { legacy, engine, steps, pairs, rules, sent_reads, reads, unattributed, run_extent };
        coverage.calls_not_judged = unpaired.report(ids, findings)?;
        if run_extent == RunExtent::WholeRun {
            order::report(&self.steps, &self.engine, &self.legacy, &self.pairs, findings);
        }
        findings.set_prefix(String::new());
        findings.report_as(ReportAs::Found);
        findings.set_effect_coverage(coverage);
        Ok(())
    }
}

/// Returns legacy's calls in order. A call that was cut off or given up, or was answered with 401, 407, 429 or 5xx, is
/// left out if an equal call follows with the same `Idempotency-Key` (or both have none): the later call is another
/// attempt, and the engine records one intent for all attempts.
pub(super) fn without_repeated_attempts(effects: &[Arc<Effect>]) -> Vec<&Effect> {
    let mut effects: Vec<&Effect> = effects.iter().map(|effect| &**effect).collect();
    effects.sort_by_key(|effect| effect.number);
    let mut later = HashSet::<(&str, &str, &Bytes, Option<&[u8]>)>::new();
    let mut kept = Vec::with_capacity(effects.len());
    for effect in effects.into_iter().rev() {
        let Body::Whole(body) = &effect.body else {
            kept.push(effect);
            continue;
        };
        let key = effect.headers.get("idempotency-key").map(|key| key.as_bytes());
        let is_new = later.insert((effect.method.as_str(), &effect.url, body, key));
        if is_new || !has_failed(effect) {
            kept.push(effect);
        }
    }
    kept.reverse();
    kept
}

fn has_failed(effect: &Effect) -> bool {
    let is_refused = |status| {
        // 401 and 407 ask for the same call with other credentials.
        [StatusCode::UNAUTHORIZED, StatusCode::PROXY_AUTHENTICATION_REQUIRED, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status)
    };
    let has_failed = |status: StatusCode| is_refused(status) || status.is_server_error();
    effect.reply.as_ref().is_none_or(|reply| reply.may_be_unread || has_failed(reply.status))
}
