//! Sets the basis of each route's evidence, and says in which evidence a request counts.

use super::Evidence;
use super::basis::{BasisParts, EvidenceBasis};
use super::basis_change::{BasisChange, NextEvidence};
use super::generation::{EngineGeneration, EvidenceGeneration};
use super::part_names::MATCH;
use super::route::DroppedEvidence;
use crate::clock;
use crate::names::RouteId;
use crate::store::route_of_candidate;

/// A hash of which requests the route matches; `None` if an earlier version stored the evidence.
fn match_of(parts: &BasisParts) -> Option<&str> {
    parts.hashes.get(MATCH).map(String::as_str)
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
            let Some(change) = counters.set_basis(files_version, basis, clock::now()) else { continue };
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
            counters.evidence.dropped = counters.evidence.dropped.max(before);
            counters.dirty = true;
        }
    }

    /// The routes that are new, or get another `match:`, and take over the requests of a route that is gone or leaves
    /// them, without `was:`: what the evidence of that route says of differences, which another id does not undo. It is
    /// handed over once.
    fn taken_over(&self, bases: &[(RouteId, EvidenceBasis)]) -> Vec<(RouteId, DroppedEvidence)> {
        let next = |route: &RouteId| {
            let basis = bases.iter().find(|(id, _)| id == route);
            basis.and_then(|(_, basis)| match_of(&basis.parts))
        };
        let mut found = Vec::new();
        for (route, basis) in bases.iter().filter(|(route, _)| route_of_candidate(route).is_none()) {
            let Some(matches) = match_of(&basis.parts) else { continue };
            if match_of(&self.counters(route).lock().parts) == Some(matches) {
                continue;
            }
            let mut before = DroppedEvidence::default();
            let others = self.all().into_iter().filter(|(other, _)| route_of_candidate(other).is_none());
            for (other, shared) in others.filter(|(other, _)| next(other) != Some(matches)) {
                let mut counters = shared.lock();
                if match_of(&counters.parts) == Some(matches) {
                    before = before.max(counters.evidence.taken_over(clock::now(), basis.wanted));
                    if next(&other).is_none() {
                        counters.parts.hashes.remove(MATCH);
                        counters.dirty = true;
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
        EvidenceBasis { hash: format!("{matches} {rules}"), parts: parts.into(), wanted, ..EvidenceBasis::default() }
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
}
