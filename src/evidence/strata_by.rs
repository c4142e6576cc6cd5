//! The values of the key by which a route tells kinds of requests apart (`promote.strata_by`), as far as they are
//! counted separately.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;

/// Values that are counted separately; the rest is counted together
/// ([`OTHER_VALUES`](super::stratum_names::OTHER_VALUES)).
pub(super) const VALUES_MAX: usize = 32;

/// By what kinds of requests are told apart beyond method, status and cohort.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StrataBy {
    /// `promote.strata_by` of the files; empty if the route has none.
    pub key: String,
    /// The first 32 values, escaped and in quotation marks, as the names of kinds show them; the others are counted
    /// together as `(other values)`.
    pub values: BTreeSet<String>,
}

add_change!(StrataBy { kept key, union values });

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, StatusCode};

    use super::*;
    use crate::evidence::{Evidence, StratumCounts, testing};
    use crate::exchange::{ComparisonOutcome, ComparisonTicket, OfferedRequest};
    use crate::flag::{SkipReason, State, StratumValue};
    use crate::names::RouteId;

    const KEY: &str = "${request.headers[\"x-channel\"]}";

    fn settle(evidence: &Arc<Evidence>, route: &RouteId, key: &str, value: &str, outcome: ComparisonOutcome) {
        let declared = Some(StratumValue { key: key.into(), shown: format!("{value:?}").into() });
        let (rung, method) = (State::Dark, Method::POST);
        let request = OfferedRequest { rung, method, declared, ..OfferedRequest::new(route.clone(), 0) };
        let mut ticket = ComparisonTicket::new(request, evidence.clone());
        ticket.set_legacy_status(StatusCode::OK);
        ticket.settle(outcome);
    }

    fn served(evidence: &Evidence, route: &RouteId) -> Vec<(String, u64)> {
        evidence.of(route).dark.strata.into_iter().map(|(name, StratumCounts { served, .. })| (name, served)).collect()
    }

    #[tokio::test]
    async fn values_are_kinds_of_their_own_up_to_a_bound_and_over_a_restart() {
        let (evidence, store) = testing::evidence().await;
        let route = RouteId::from("orders");
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        evidence.set_strata_by(&route, KEY);
        settle(&evidence, &route, KEY, "web", ComparisonOutcome::Matched);
        settle(&evidence, &route, KEY, "shop", ComparisonOutcome::Skipped(SkipReason::NotSampled));
        settle(&evidence, &route, "another key", "late", ComparisonOutcome::Matched);
        let named = |of: &[(&str, u64)]| of.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
        let expected = named(&[("POST 2xx", 1), ("POST 2xx \"shop\"", 1), ("POST 2xx \"web\"", 1)]);
        assert_eq!(served(&evidence, &route), expected);
        evidence.flush().await.unwrap();

        let evidence = Evidence::load(store).await.unwrap();
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        evidence.set_strata_by(&route, KEY);
        (0..VALUES_MAX).for_each(|n| settle(&evidence, &route, KEY, &n.to_string(), ComparisonOutcome::Matched));
        settle(&evidence, &route, KEY, "web", ComparisonOutcome::Matched);
        let found = evidence.of(&route);
        assert_eq!(found.strata_by.values.len(), VALUES_MAX);
        assert_eq!(found.dark.strata["POST 2xx (other values)"].served, 2);
        assert_eq!(found.dark.strata["POST 2xx \"web\""].served, 2);
    }

    #[tokio::test]
    async fn counts_by_another_key_are_counted_without_a_value() {
        let (evidence, _store) = testing::evidence().await;
        let route = RouteId::from("orders");
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        evidence.set_strata_by(&route, KEY);
        ["a", "b"].into_iter().for_each(|value| settle(&evidence, &route, KEY, value, ComparisonOutcome::Matched));
        evidence.set_strata_by(&route, "");
        assert_eq!(served(&evidence, &route), [("POST 2xx".to_owned(), 2)]);
        assert!(evidence.of(&route).strata_by.values.is_empty());
        // Evidence that starts from zero is counted by the key in force.
        evidence.set_strata_by(&route, KEY);
        evidence.set_basis(0, &[(route.clone(), "two".into())]);
        settle(&evidence, &route, KEY, "a", ComparisonOutcome::Matched);
        assert_eq!(served(&evidence, &route), [("POST 2xx \"a\"".to_owned(), 1)]);
    }
}
