//! The rules of a route's cohorts, as the store keeps them and the record shows them.
//!
//! Always true: what is shown of a condition has no literal of it. A condition may compare with a credential, and its
//! name need not say so; what is in the record stays there. The hash of the rule shows that another literal stands
//! there.

use std::collections::BTreeMap;

use crate::expression::without_literals;
use crate::flag::{Cohort, Route};
use crate::secret::{LengthMax, masked_and_cut, redact_line};
use crate::store::CohortRule;

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

/// What is shown of a condition, also of one that an earlier version stored with its literals.
pub(super) fn shown(when: &str) -> String {
    masked_and_cut(when, |when| redact_line(&without_literals(when)), LengthMax::Bytes(WHEN_BYTES_MAX))
}
