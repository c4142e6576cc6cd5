//! Sets the basis of each route's evidence, and says in which evidence a request counts.

use std::collections::BTreeMap;

use super::Evidence;
use super::basis::{BasisParts, EvidenceBasis};
use super::basis_change::{BasisChange, NextEvidence};
use super::counters::Counters;
use super::generation::{EngineGeneration, EvidenceGeneration};
use super::part_names::MATCH;
use super::route::DroppedEvidence;
use crate::clock;
use crate::flag::RouteMatch;
use crate::names::RouteId;
use crate::store::route_of_candidate;

/// The last matches of a route that are kept beside its present one.
const EARLIER_MATCHES_MAX: usize = 16;

/// A hash of which requests the route matches; `None` if an earlier version stored the evidence.
fn match_of(parts: &BasisParts) -> Option<&str> {
    parts.hashes.get(MATCH).map(String::as_str)
}

/// Which requests the route matches; `None` as for [`match_of`].
fn match_in(parts: &BasisParts) -> Option<RouteMatch> {
    parts.values.get(MATCH).and_then(|text| text.parse().ok())
}

/// Whether any request can match both.
fn overlap(one: &BasisParts, other: &BasisParts) -> bool {
    match (match_in(one), match_in(other)) {
        (Some(one), Some(other)) => one.overlaps(&other),
        _ => match_of(one).is_some_and(|one| match_of(other) == Some(one)),
    }
}

impl Counters {
    /// Keeps the match that the route had, if it has another one from now on.
    pub(super) fn keep_match(&mut self, before: &BasisParts) {
        if std::mem::take(&mut self.is_match_handed_over) {
            return;
        }
        let Some(text) = before.values.get(MATCH).filter(|text| self.parts.values.get(MATCH) != Some(*text)) else {
            return;
        };
        self.earlier_matches.retain(|earlier| earlier != text);
        self.earlier_matches.push(text.clone());
        let surplus = self.earlier_matches.len().saturating_sub(EARLIER_MATCHES_MAX);
        self.earlier_matches.drain(..surplus);
    }

    /// Whether the route matches, or once matched, a request that a route with these parts matches. An earlier match is
    /// forgotten then, because what it says is handed over.
    fn leaves_requests_to(&mut self, parts: &BasisParts) -> bool {
        let mut is_left = overlap(&self.parts, parts);
        self.is_match_handed_over |= is_left;
        if let Some(matches) = match_in(parts) {
            let before = self.earlier_matches.len();
            let is_left_too =
                |earlier: &String| earlier.parse::<RouteMatch>().is_ok_and(|earlier| earlier.overlaps(&matches));
            self.earlier_matches.retain(|earlier| !is_left_too(earlier));
            is_left |= self.earlier_matches.len() < before;
        }
        self.dirty |= is_left;
        is_left
    }
}

impl Evidence {
    /// Sets each route's basis. If it changed, the evidence starts from zero: requests that were decided by an earlier
    /// version of the files do not count. Call it once the new plans and rules are in force. Returns what changed.
    pub fn set_basis(&self, files_version: u64, bases: &[(RouteId, EvidenceBasis)]) -> Vec<(RouteId, BasisChange)> {
        let mut changes = Vec::new();
        self.set_basis_and_tell(files_version, bases, &mut |route, change| {
            changes.push((route.clone(), change.clone()));
        });
        changes
    }

    /// As [`Evidence::set_basis`]; tells of each change before anything that follows from it can happen, such as the
    /// end of judging pairs again. `tell` is called while the evidence of the route is locked.
    pub fn set_basis_and_tell(
        &self,
        files_version: u64,
        bases: &[(RouteId, EvidenceBasis)],
        tell: &mut dyn FnMut(&RouteId, &BasisChange),
    ) {
        let taken_over = self.taken_over(bases);
        for (route, basis) in bases {
            let shared = self.counters(route);
            let mut counters = shared.lock();
            let (basis, now) = (basis.clone(), clock::now());
            let change = counters.change(move |counters| counters.set_basis(files_version, &basis, now));
            let Some(change) = change else { continue };
            if let Some(shared) = counters.shared.as_mut().filter(|_| change.next != NextEvidence::GoesOn) {
                shared.clears_samples = true;
            }
            tell(route, &change);
            drop(counters);
            tracing::info!(
                %route, changed = change.changed,
                "the basis of the route's evidence changed: the evidence {}", change.next.as_str()
            );
            match change.next {
                NextEvidence::FromZero | NextEvidence::Earlier => self.pending().clear(route),
                NextEvidence::GoesOn => self.rejudging_signal.notify_one(),
            }
            self.restart_guard(route);
        }
        for (route, before) in taken_over {
            let shared = self.counters(&route);
            let mut counters = shared.lock();
            counters.change(move |counters| counters.evidence.dropped = counters.evidence.dropped.max(before));
            counters.dirty = true;
        }
    }

    /// The routes that are new, or get another `match:`, and take over requests of a route that is gone or leaves them,
    /// or has left them before, without `was:`: what the evidence of that route says of differences, which another id
    /// does not undo. It is handed over once.
    fn taken_over(&self, bases: &[(RouteId, EvidenceBasis)]) -> Vec<(RouteId, DroppedEvidence)> {
        let next: BTreeMap<&RouteId, &BasisParts> = bases.iter().map(|(id, basis)| (id, &basis.parts)).collect();
        let mut found = Vec::new();
        for (route, basis) in bases.iter().filter(|(route, _)| route_of_candidate(route).is_none()) {
            let Some(matches) = match_of(&basis.parts) else { continue };
            if match_of(&self.counters(route).lock().parts) == Some(matches) {
                continue;
            }
            let mut before = DroppedEvidence::default();
            let others = self.all().into_iter().filter(|(other, _)| route_of_candidate(other).is_none());
            for (other, shared) in others.filter(|(other, _)| other != route) {
                let mut counters = shared.lock();
                let has_any = match_of(&counters.parts).is_some() || !counters.earlier_matches.is_empty();
                // It still gets such requests.
                let stays = || next.get(&other).is_some_and(|parts| overlap(parts, &basis.parts));
                let parts = basis.parts.clone();
                if has_any && !stays() && counters.change(move |counters| counters.leaves_requests_to(&parts)) {
                    before = before.max(counters.evidence.taken_over(clock::now(), basis.wanted));
                    if !next.contains_key(&other) && overlap(&counters.parts, &basis.parts) {
                        counters.change(|counters| {
                            counters.parts.hashes.remove(MATCH);
                            counters.parts.values.remove(MATCH);
                        });
                    }
                }
            }
            if before.mismatched > 0 {
                found.push((route.clone(), before));
            }
        }
        found
    }

    /// Returns the generation of evidence in which a request counts that was decided by this version of the files and
    /// is offered now.
    pub fn generation(&self, route: &RouteId, files_version: u64) -> EvidenceGeneration {
        let shared = self.counters(route);
        let counters = shared.lock();
        EvidenceGeneration(counters.has_basis_of(files_version).then_some(counters.generation))
    }

    /// Returns the generation of the engine's behaviour that answers a request of the route which was decided by this
    /// version of the files.
    pub fn engine_generation(&self, route: &RouteId, files_version: u64) -> EngineGeneration {
        let shared = self.counters(route);
        let counters = shared.lock();
        EngineGeneration(counters.has_basis_of(files_version).then_some(counters.engine_generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::testing::evidence;
    use crate::evidence::{RULES, WantedPairs};

    fn basis(matches: &str, rules: &str) -> EvidenceBasis {
        let parts = [(MATCH, matches), (RULES, rules)].map(|(name, hash)| (name.to_owned(), hash.to_owned()));
        let wanted = WantedPairs { pairs: 20, mismatch_below: 0.2 };
        let mut parts = BasisParts::from(parts);
        parts.values.insert(MATCH.to_owned(), format!("POST {matches}"));
        EvidenceBasis { hash: format!("{matches} {rules}"), parts, wanted, ..EvidenceBasis::default() }
    }

    #[tokio::test]
    async fn a_new_id_for_the_same_requests_does_not_undo_the_differences_before_it() {
        let (evidence, _store) = evidence().await;
        let set = |bases: &[(&str, EvidenceBasis)]| {
            let bases: Vec<_> = bases.iter().map(|(route, basis)| (RouteId::from(*route), basis.clone())).collect();
            evidence.set_basis(0, &bases);
        };
        let count = |route: &str, pairs: u64, mismatched: u64| {
            let shared = evidence.counters(&route.into());
            let mut counters = shared.lock();
            counters.evidence.shadow_pairs += pairs;
            counters.evidence.mismatched += mismatched;
        };
        let of = |route: &str| {
            let of_route = evidence.of(&route.into());
            (of_route.rule_changes_after_differences(), of_route.dropped.mismatched, of_route.rank())
        };
        set(&[("a", basis("/orders", "1")), ("other", basis("/other", "1"))]);
        count("a", 8, 3);
        set(&[("b", basis("/orders", "1")), ("other", basis("/other", "1"))]);
        assert_eq!((of("b"), of("other")), ((1, 3, 0), (0, 0, 0)));
        count("b", 8, 1);
        // `b` is removed, and later comes back with other requests; `other` gets those that it had.
        set(&[("other", basis("/other", "1"))]);
        set(&[("b", basis("/elsewhere", "1")), ("other", basis("/orders", "1"))]);
        assert_eq!(of("other"), (2, 4, 0));
        count("other", 100, 0);
        set(&[("c", basis("/orders", "1"))]);
        assert_eq!(of("c"), (0, 4, 0), "100 equal pairs have outweighed them");
        set(&[("d", basis("/new", "1"))]);
        assert_eq!(of("d"), (0, 0, 0));
    }

    /// The requests leave the first route one step before another one gets them, or only some of them are taken over.
    #[tokio::test]
    async fn neither_a_step_between_nor_another_host_undoes_the_differences_before() {
        let (evidence, _store) = evidence().await;
        let set = |bases: &[(&str, EvidenceBasis)]| {
            let bases: Vec<_> = bases.iter().map(|(route, basis)| (RouteId::from(*route), basis.clone())).collect();
            evidence.set_basis(0, &bases);
        };
        let of = |route: &str| {
            let of_route = evidence.of(&route.into());
            (of_route.rule_changes_after_differences(), of_route.dropped.mismatched)
        };
        set(&[("a", basis("/orders", "1")), ("general", basis("/things/{}", "1"))]);
        for route in ["a", "general"] {
            let shared = evidence.counters(&route.into());
            let mut counters = shared.lock();
            (counters.evidence.shadow_pairs, counters.evidence.mismatched) = (8, 3);
        }
        set(&[("a", basis("/elsewhere", "1")), ("general", basis("/things/{}", "1"))]);
        set(&[
            ("a", basis("/elsewhere", "1")),
            ("b", basis("shop.test/orders", "1")),
            ("general", basis("/things/{}", "1")),
            ("special", basis("/things/export", "1")),
        ]);
        assert_eq!(of("b").1, 3);
        assert!(of("b").0 >= 1, "{:?}", of("b"));
        assert_eq!(of("special"), (0, 0), "the general route stays");
        set(&[("c", basis("host.test/things/7", "1"))]);
        assert_eq!(of("c").1, 3, "now it is gone");
    }
}
