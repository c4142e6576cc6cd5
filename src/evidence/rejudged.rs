//! Pairs that differ are judged again after a change of the rules that only allows more.
//!
//! Always true: pairs that were equal stay equal, because the earlier rules compared more. Pairs that differed stay
//! counted as differing until the samples of all differences were judged under the new rules. A difference of which no
//! sample could be judged is never counted as equal: the evidence then starts from zero.
//!
//! The samples are judged by `app`, in the background. Until then, and as long as the store does not answer, the gates
//! see the differences.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::counters::Counters;
use super::fingerprints::{self, FingerprintCount};
use super::kept_on_restart::KeptOnRestart;
use super::part_names::RULES;
use super::rejudging::{PairsToRejudge, RejudgedOutcome, RejudgedPairs, Rejudging};
use super::route::{EarlierEvidence, EvidenceRestart, RouteEvidence};
use super::route_counters::RouteCounters;
use super::{Evidence, Sample, rule_changes};
use crate::clock;
use crate::names::RouteId;

impl Evidence {
    /// The routes with pairs that wait to be judged again.
    pub fn to_rejudge(&self) -> Vec<(RouteId, PairsToRejudge)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let of_route = |(route, shared): (&RouteId, &Arc<RouteCounters>)| {
            let counters = shared.lock();
            let Rejudging { rules, since, seen, .. } = counters.rejudging.as_ref()?;
            let fingerprints = seen.iter().map(|(fingerprint, seen)| (fingerprint.clone(), seen.count)).collect();
            Some((route.clone(), PairsToRejudge { rules: rules.clone(), since: *since, fingerprints }))
        };
        routes.iter().filter_map(of_route).collect()
    }

    /// Waits until there are pairs to be judged again.
    pub async fn rejudging_wanted(&self) {
        self.rejudging_signal.notified().await;
    }

    /// Defers the writing of new samples of a route until the returned value is dropped: otherwise they would be
    /// deleted together with the samples that are judged again.
    pub fn defer_sample_writes(&self, route: &RouteId) -> DeferredSampleWrites<'_> {
        let route = self.current_id(route);
        self.pending().set_held(&route, true);
        DeferredSampleWrites { evidence: self, route }
    }

    /// Counts pairs as what they were judged to be. `judged`: the results, by fingerprint; pairs with a fingerprint
    /// that is missing could not be judged. `read`: the samples that were judged. `kept`: the samples that take their
    /// place. Returns `None` if the pairs that wait since the change of the rules at `since` are not waiting any more.
    pub fn set_rejudged(
        &self,
        route: &RouteId,
        since: Timestamp,
        judged: &BTreeMap<String, RejudgedPairs>,
        (read, kept): (Vec<Sample>, Vec<Sample>),
    ) -> Option<RejudgedOutcome> {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        let (judged, now) = (judged.clone(), clock::now());
        let outcome = counters.edit(move |counters| {
            let rejudging = counters.rejudging.take_if(|rejudging| rejudging.since == since)?;
            counters.dirty = true;
            Some(counters.count_rejudged(&rejudging, &judged, now))
        })?;
        // The counters stay locked, so that no sample is added meanwhile.
        let route = self.current_id(route);
        match outcome {
            RejudgedOutcome::FromZero => {
                self.pending().clear(&route);
                drop(counters);
                self.restart_guard(&route);
            }
            RejudgedOutcome::Judged { .. } => self.pending().replace(&route, read, kept),
        }
        Some(outcome)
    }
}

/// While this exists, new samples of the route are not written; see [`Evidence::defer_sample_writes`].
pub struct DeferredSampleWrites<'a> {
    evidence: &'a Evidence,
    route: RouteId,
}

impl Drop for DeferredSampleWrites<'_> {
    fn drop(&mut self) {
        let route = self.evidence.current_id(&self.route);
        self.evidence.pending().set_held(&route, false);
    }
}

impl Counters {
    fn count_rejudged(
        &mut self,
        Rejudging { differing, pairs, seen, .. }: &Rejudging,
        judged: &BTreeMap<String, RejudgedPairs>,
        now: Timestamp,
    ) -> RejudgedOutcome {
        let is_known = |(fingerprint, seen): (&String, &FingerprintCount)| {
            let is_counted_by_kind = seen.kinds.pairs() == seen.count;
            let is_separate = |judged: &RejudgedPairs| self.evidence.noise.is_separate(&self.noise, &judged.before);
            is_counted_by_kind && judged.get(fingerprint).is_some_and(is_separate)
        };
        let counted: u64 = seen.values().map(|seen| seen.count).sum();
        if counted != *differing || !seen.iter().all(is_known) {
            let RouteEvidence { mut earlier, mut dropped, legacy, stopped_by_guard, .. } = self.evidence.clone();
            let changed = vec![RULES.to_owned()];
            // Pairs that differed after the rules were changed; those that differed before are in `earlier` already.
            let differ = (self.evidence.mismatched + self.evidence.noise.ignored).saturating_sub(*differing);
            if differ > 0 {
                let pairs = self.evidence.pairs().saturating_sub(*pairs);
                let basis = self.basis.clone().unwrap_or_default();
                let (changed, mismatched, outweighed, clean_pairs) = (changed.clone(), differ, false, None);
                let entry = EarlierEvidence { until: now, changed, pairs, mismatched, basis, outweighed, clean_pairs };
                rule_changes::add_earlier(&mut earlier, &mut dropped, entry);
            }
            let restarted = Some(EvidenceRestart { at: now, changed, pairs_before: *pairs });
            // Only the rules were changed, so how legacy answers, and that the guard has stopped a candidate, stay.
            let kept = KeptOnRestart { restarted, earlier, dropped, legacy, stopped_by_guard };
            self.evidence = kept.into_evidence();
            return RejudgedOutcome::FromZero;
        }
        let mut equal = 0;
        for (fingerprint, seen) in seen {
            let Some(RejudgedPairs { before, after, rules }) = judged.get(fingerprint) else { continue };
            let evidence = &mut self.evidence;
            if evidence.noise.remove_pairs(&self.noise, before, &seen.kinds) {
                evidence.noise.ignored = evidence.noise.ignored.saturating_sub(seen.count);
                evidence.remove_noise_hits(seen.count);
            } else {
                evidence.move_pairs(&seen.kinds, true);
            }
            rules.iter().for_each(|rule| evidence.count_hits(rule, seen.count, clock::now()));
            let Some((fingerprint, places)) = after else {
                equal += seen.count;
                continue;
            };
            fingerprints::add(&mut evidence.seen, fingerprint, seen);
            match evidence.noise.count_pairs(&self.noise, places, &seen.kinds) {
                true => evidence.count_noise_hits(seen.count, clock::now()),
                false => evidence.move_pairs(&seen.kinds, false),
            }
        }
        self.evidence.judge_groups(&self.noise);
        RejudgedOutcome::Judged { equal, differing: differing - equal }
    }
}
