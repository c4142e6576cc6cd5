//! The rules of a route's cohorts, as the store keeps them and the record shows them.
//!
//! Always true: a condition is shown without its literals. A literal may be a credential, even if the header that it is
//! compared with has a harmless name, and nothing is ever removed from the record. If only a literal changes, the hash
//! of the rule shows that it did.

use std::collections::BTreeMap;

use crate::expression::without_literals;
use crate::flag::{Cohort, Route};
use crate::secret::{LengthMax, masked_and_cut, redact_line};
use crate::store::{CohortRule, ForcedCohort};

/// The longest condition that is kept.
const WHEN_BYTES_MAX: usize = 1_024;

/// The rule of each cohort, by its name.
pub(super) fn of(route: &Route) -> BTreeMap<String, CohortRule> {
    let mut hashes = route.cohort_rules();
    let rule = |cohort: &Cohort| {
        let when = shown(cohort.when.source());
        let hash = hashes.remove(&cohort.name)?;
        Some((cohort.name.clone(), CohortRule { hash, when, state: cohort.state }))
    };
    route.cohorts.iter().filter_map(rule).collect()
}

/// Whether the stored rule of a cohort is its present one (`now`). Compares also with hashes of the present rule as
/// earlier versions made them: without a key, or without the `store_key`.
pub(super) fn is_of(stored: &ForcedCohort, route: &Route, cohort: &str, now: Option<&CohortRule>) -> bool {
    let hashes = || route.earlier_cohort_rules().into_iter().filter_map(|mut hashes| hashes.remove(cohort));
    let had = |now: &CohortRule| hashes().any(|hash| stored.has_rule(Some(&CohortRule { hash, ..now.clone() })));
    stored.has_rule(now) || now.is_some_and(had)
}

/// A condition as it is shown: without literals, also if an earlier version stored it with them.
pub(super) fn shown(when: &str) -> String {
    masked_and_cut(when, |when| redact_line(&without_literals(when)), LengthMax::Bytes(WHEN_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::expression::Expression;
    use crate::flag::{RouteMatch, Service, State};
    use crate::secret::TextHash;

    fn route(text_hash: &TextHash, literal: &str) -> Route {
        let matches = RouteMatch { method: http::Method::GET, path: "/a".into(), host: None };
        let when = Expression::parse(&format!("request.headers[\"x-pin\"] == \"{literal}\"")).unwrap();
        let service = Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]);
        let staff = Cohort { name: "staff".into(), when, state: State::Live, force: None };
        let route = Route { cohorts: vec![staff], ..Route::without_workflow("a".into(), matches, service.into()) };
        route.with_text_hash(text_hash)
    }

    #[test]
    fn a_rule_is_recognised_by_the_hash_that_an_earlier_version_stored() {
        let of_store = TextHash::derived_from(None, &[1; 32]);
        let of_store_key = TextHash::derived_from(Some(b"a store key"), &[1; 32]);
        let stored = |text_hash: &TextHash| ForcedCohort {
            reason: "r".into(),
            since: Timestamp::UNIX_EPOCH,
            source: None,
            rule: of(&route(text_hash, "1234")).remove("staff"),
        };
        let is_of = |stored: &ForcedCohort, literal: &str, now: &TextHash| {
            let route = route(now, literal);
            super::is_of(stored, &route, "staff", of(&route).get("staff"))
        };
        for (before, now) in [
            (&TextHash::Unkeyed, &of_store),
            (&of_store, &of_store),
            (&of_store, &of_store_key),
            (&TextHash::Unkeyed, &of_store_key),
        ] {
            assert!(is_of(&stored(before), "1234", now), "{before:?} {now:?}");
            assert!(!is_of(&stored(before), "1235", now), "{before:?} {now:?}");
        }
        let hash = |text_hash: &TextHash| of(&route(text_hash, "1234")).remove("staff").unwrap().hash;
        assert!(hash(&of_store) != hash(&TextHash::Unkeyed) && hash(&of_store) != hash(&of_store_key));
    }
}
