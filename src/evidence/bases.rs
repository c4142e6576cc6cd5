//! Sets the basis of each route's evidence, and says in which evidence a request counts.

use std::collections::BTreeMap;

use super::Evidence;
use super::basis::{BasisParts, EvidenceBasis};
use super::basis_change::{BasisChange, NextEvidence};
use super::counters::Counters;
use super::generation::{EngineGeneration, EvidenceGeneration};
use super::left_requests::{LeftRequests, SuccessorRoute};
use super::matched_requests::MatchedRequests;
use super::part_names::MATCH;
use super::route::DroppedEvidence;
use crate::clock;
use crate::names::RouteId;
use crate::store::route_of_candidate;

/// How many earlier `match:` of a route are kept; the oldest is dropped first.
const EARLIER_MATCHES_MAX: usize = 16;

impl Counters {
    /// Records which requests the route has matched until now, if it matches other ones from now on.
    pub(super) fn keep_match(&mut self, before: &BasisParts) {
        if std::mem::take(&mut self.is_match_handed_over) {
            return;
        }
        let Some(text) =
            MatchedRequests::text_of(before).filter(|_| before.values.get(MATCH) != self.parts.values.get(MATCH))
        else {
            return;
        };
        self.earlier_matches.retain(|earlier| *earlier != text);
        self.earlier_matches.push(text);
        let surplus = self.earlier_matches.len().saturating_sub(EARLIER_MATCHES_MAX);
        self.earlier_matches.drain(..surplus);
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

    /// As [`Evidence::set_basis`], but calls `tell` with each change. The evidence of the route is still locked then,
    /// so nothing that follows from the change can happen before that, such as the end of judging pairs again.
    pub fn set_basis_and_tell(
        &self,
        files_version: u64,
        bases: &[(RouteId, EvidenceBasis)],
        tell: &mut dyn FnMut(&RouteId, &BasisChange),
    ) {
        let taken_over = self.differences_taken_over(bases);
        for (route, basis) in bases {
            let shared = self.counters(route);
            let mut counters = shared.lock();
            let (basis, now) = (basis.clone(), clock::now());
            let change = counters.edit(move |counters| counters.set_basis(files_version, &basis, now));
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
            let is_new = counters.edit(move |counters| counters.evidence.take_over_differences(before));
            counters.dirty |= is_new;
        }
    }

    /// Finds the routes that take over requests of another route without `was:`, and returns for each of them what the
    /// evidence of the other route says of differences: a request that gets another route's id differs as before. The
    /// other route may be gone, may give up these requests now, or may have given them up earlier. Its differences are
    /// handed over to each route that gets some of the requests, until one route gets exactly these requests.
    fn differences_taken_over(&self, bases: &[(RouteId, EvidenceBasis)]) -> BTreeMap<RouteId, DroppedEvidence> {
        let of_routes = || bases.iter().filter(|(route, _)| route_of_candidate(route).is_none());
        let next: BTreeMap<&RouteId, &EvidenceBasis> = of_routes().map(|(id, basis)| (id, basis)).collect();
        let successors = of_routes().filter_map(|(route, basis)| {
            let requests = MatchedRequests::of(&basis.parts)?;
            let before = MatchedRequests::of(&self.counters(route).lock().parts);
            let has_others_than_before = before.as_ref() != Some(&requests);
            Some(SuccessorRoute { route, requests, has_others_than_before, wanted: basis.wanted })
        });
        let successors: Vec<SuccessorRoute<'_>> = successors.collect();
        let mut found: BTreeMap<RouteId, DroppedEvidence> = BTreeMap::new();
        for (other, shared) in self.all().into_iter().filter(|(other, _)| route_of_candidate(other).is_none()) {
            let mut counters = shared.lock();
            // Most routes have nothing to hand over, and there may be many.
            if !counters.evidence.has_ever_differed() {
                continue;
            }
            let leaving = LeftRequests::of(&counters, next.get(&other).copied());
            for successor in
                successors.iter().filter(|successor| *successor.route != other && leaving.are_taken_by(successor))
            {
                let before = counters.evidence.differences_to_hand_over(clock::now(), successor.wanted);
                if before.mismatched > 0 {
                    let so_far = found.entry(successor.route.clone()).or_default();
                    *so_far = so_far.max(before);
                }
            }
            let taken = leaving.taken_unchanged(&other, &successors);
            if !taken.is_empty() {
                counters.edit(move |counters| counters.forget_requests(&taken));
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
    use crate::flag::{PathConventions, SpellingRule};

    fn basis(matches: &str, rules: &str) -> EvidenceBasis {
        let parts = [(MATCH, matches), (RULES, rules)].map(|(name, hash)| (name.to_owned(), hash.to_owned()));
        let wanted = WantedPairs { pairs: 20, mismatch_below: 0.2 };
        let mut parts = BasisParts::from(parts);
        parts.values.insert(MATCH.to_owned(), format!("POST {matches}"));
        let plan = Some("plan_1".into());
        EvidenceBasis { hash: format!("{matches} {rules}"), parts, wanted, plan, ..EvidenceBasis::default() }
    }

    /// As [`basis`], of a route without `workflow:`.
    fn without_workflow(matches: &str) -> EvidenceBasis {
        EvidenceBasis { hash: format!("{matches} without"), plan: None, ..basis(matches, "1") }
    }

    /// As [`basis`], of a service to which `/ORDERS` is `/orders`.
    fn ignoring_case(matches: &str) -> EvidenceBasis {
        let mut basis = basis(matches, "1");
        basis.parts.set_paths(&PathConventions { case: Some(SpellingRule::Same), ..PathConventions::default() });
        basis
    }

    /// Each step is an edit; the last one gives requests of `a`, some of whose pairs differ, to `c`.
    #[tokio::test]
    async fn no_edits_give_the_requests_to_a_route_that_knows_nothing_of_the_differences() {
        type Files<'f> = &'f [(&'f str, EvidenceBasis)];
        let one = |matches: &str| basis(matches, "1");
        let cases: [(&str, &[Files<'_>]); 9] = [
            ("another one comes first", &[&[("b", one("decoy.test/orders")), ("c", one("/orders"))]]),
            ("split by host", &[&[("b", one("b.test/orders")), ("c", one("c.test/orders"))]]),
            (
                "another one takes a part before",
                &[
                    &[("a", one("/elsewhere")), ("b", one("decoy.test/orders"))],
                    &[("a", one("/elsewhere")), ("b", one("decoy.test/orders")), ("c", one("/orders"))],
                ],
            ),
            (
                "it is there before",
                &[&[("a", one("/orders")), ("c", one("c.test/orders"))], &[("c", one("c.test/orders"))]],
            ),
            ("no workflow", &[&[("a", without_workflow("/orders")), ("c", one("c.test/orders"))]]),
            (
                "no workflow, and then the other one",
                &[
                    &[("a", without_workflow("/orders"))],
                    &[("a", without_workflow("/orders")), ("c", one("c.test/orders"))],
                ],
            ),
            (
                "the other one, and then no workflow",
                &[
                    &[("a", one("/orders")), ("c", one("c.test/orders"))],
                    &[("a", without_workflow("/orders")), ("c", one("c.test/orders"))],
                ],
            ),
            ("it keeps a part", &[&[("a", one("decoy.test/orders")), ("c", one("/orders"))]]),
            ("it had others", &[&[("a", one("/orders")), ("c", one("/cheap"))], &[("c", one("/orders"))]]),
        ];
        for (case, edits) in cases {
            assert_eq!(taken_over_by_c(one("/orders"), edits).await, (5, true), "{case}");
        }
        let of_case: Files<'_> = &[("c", ignoring_case("/ORDERS"))];
        assert_eq!(taken_over_by_c(ignoring_case("/orders"), &[of_case]).await, (5, true));
        let other_case: Files<'_> = &[("c", one("/ORDERS"))];
        assert_eq!(taken_over_by_c(one("/orders"), &[other_case]).await, (0, false), "another path");
    }

    /// What `c` takes over: the pairs that differed, and whether that is a change of the rules after a difference.
    async fn taken_over_by_c(a: EvidenceBasis, edits: &[&[(&str, EvidenceBasis)]]) -> (u64, bool) {
        let (evidence, _store) = evidence().await;
        let count = |route: &str, pairs: u64, mismatched: u64| {
            let shared = evidence.counters(&route.into());
            let mut counters = shared.lock();
            (counters.evidence.shadow_pairs, counters.evidence.mismatched) = (pairs, mismatched);
        };
        evidence.set_basis(0, &[("a".into(), a)]);
        count("a", 10, 5);
        let found = || {
            let of_route = evidence.of(&"c".into());
            (of_route.dropped.mismatched, of_route.rule_changes_after_differences() > 0)
        };
        for (files, version) in edits.iter().zip(1..) {
            let bases: Vec<_> = files.iter().map(|(route, basis)| (RouteId::from(*route), basis.clone())).collect();
            evidence.set_basis(version, &bases);
            // The same files again say nothing new.
            let once = found();
            evidence.set_basis(version, &bases);
            assert_eq!(found(), once);
            if files.iter().any(|(route, _)| *route == "c") && version < edits.len() as u64 {
                count("c", 100, 0);
            }
        }
        found()
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
