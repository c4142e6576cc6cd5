//! What a rehearsal of captures found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::compare::Difference;
use crate::evidence::{RouteEvidence, Sample};
use crate::names::RouteId;
use crate::secret::{REDACTED, STARS};

/// What a rehearsal found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RehearsalReport {
    /// How many captures were read.
    pub captures: u64,
    /// What was found of each route that has captures, even if all of them were left out.
    pub routes: BTreeMap<RouteId, RehearsedRoute>,
    /// How many captures were left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// What a rehearsal found of one route.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RehearsedRoute {
    /// Pairs that were compared.
    pub pairs: u64,
    /// Of these, those that are equal without the help of a rule.
    pub matched: u64,
    /// Of these, those that are equal only by a rule.
    pub ignored: u64,
    /// Of these, those that differ.
    pub mismatched: u64,
    /// Captures that were left out, by reason: no run began.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Captures whose run could not be compared, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Captures whose run failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Why runs were skipped as `unresolved_effect`, and how often.
    pub unresolved: BTreeMap<String, u64>,
    /// By place, the number of pairs of which it is not known whether they differ there: the captured value is
    /// redacted, and the one of the workflow does not come from the capture.
    pub not_known: BTreeMap<String, u64>,
    /// By place, how many of these pairs must differ, as a lower bound: one side has the same value in all of them, and
    /// the other side has different ones. They are not among the mismatched pairs.
    pub contradicted: BTreeMap<String, u64>,
    /// The pairs that differ, by the places where they differ; the most frequent first.
    pub groups: Vec<RehearsedGroup>,
}

/// Pairs that differ in the same places.
#[derive(Clone, Debug, Serialize)]
pub struct RehearsedGroup {
    /// Identifies the places and kinds.
    pub fingerprint: String,
    /// How many pairs.
    pub pairs: u64,
    /// Whether a redacted value is among those that differ: what the workflow makes of the real value may be equal.
    pub has_redacted: bool,
    /// Where one of these pairs differs.
    pub differences: Vec<Difference>,
    /// Its request.
    pub request: String,
    /// Legacy's reply to it.
    pub legacy: String,
    /// What the workflow answered.
    pub engine: String,
}

impl RehearsalReport {
    /// How many pairs were compared.
    pub fn pairs(&self) -> u64 {
        self.routes.values().map(|route| route.pairs).sum()
    }
    /// How many pairs differ.
    pub fn mismatched(&self) -> u64 {
        self.routes.values().map(|route| route.mismatched).sum()
    }
    /// How many pairs with redacted captured values must differ, as a lower bound: see
    /// [`RehearsedRoute::contradicted`].
    pub fn contradicted(&self) -> u64 {
        let of_route = |route: &RehearsedRoute| route.contradicted.values().max().copied().unwrap_or_default();
        self.routes.values().map(of_route).sum()
    }
    /// At how many places it is not known whether pairs differ.
    pub fn places_not_known(&self) -> u64 {
        self.routes.values().map(|route| route.not_known.len() as u64).sum()
    }
    /// The routes that have captures of which not one could be compared.
    pub fn not_compared(&self) -> impl Iterator<Item = &RouteId> {
        self.routes.iter().filter(|(_, route)| route.pairs == 0).map(|(id, _)| id)
    }
    /// How many captures could not be compared.
    pub fn without_comparison(&self) -> u64 {
        self.routes.values().map(RehearsedRoute::without_comparison).sum()
    }
    /// The routes whose coverage is below `at_least`, each with its coverage, in percent.
    pub fn below_coverage(&self, at_least: f64) -> impl Iterator<Item = (&RouteId, f64)> {
        let covered = self.routes.iter().map(|(id, route)| (id, route.coverage()));
        covered.filter(move |(_, coverage)| *coverage < at_least)
    }
    /// Whether something of each route was compared, and nothing differs or failed.
    pub fn is_passed(&self) -> bool {
        let is_compared = !self.routes.is_empty() && self.not_compared().next().is_none();
        let is_clean = |route: &RehearsedRoute| route.failed.is_empty() && route.contradicted.is_empty();
        is_compared && self.mismatched() == 0 && self.routes.values().all(is_clean)
    }
}

impl RehearsedRoute {
    /// How many of its captures could not be compared.
    pub fn without_comparison(&self) -> u64 {
        let skipped = self.skipped.values().chain(self.failed.values()).sum::<u64>();
        skipped + self.left_out.values().sum::<u64>()
    }
    /// The share of its captures that were compared, in percent.
    pub fn coverage(&self) -> f64 {
        let all = self.pairs + self.without_comparison();
        if all == 0 { 0.0 } else { self.pairs as f64 * 100.0 / all as f64 }
    }
}

impl RehearsedGroup {
    /// The group of this sample.
    pub(super) fn of(sample: Sample, evidence: &RouteEvidence) -> Self {
        let shows_redacted =
            |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(REDACTED) || text.contains(STARS));
        let has_redacted =
            sample.differences.iter().any(|found| shows_redacted(&found.legacy) || shows_redacted(&found.engine));
        let Sample { fingerprint, differences, request, legacy, engine, .. } = sample;
        let pairs = evidence.seen.get(&fingerprint).map_or(1, |seen| seen.count);
        Self { fingerprint, pairs, has_redacted, differences, request, legacy, engine }
    }
}
