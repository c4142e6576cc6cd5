//! The rules of a route's cohorts, as the store keeps them and the record shows them.

use std::collections::BTreeMap;

use crate::flag::{Cohort, Route};
use crate::secret::{LengthMax, masked_and_cut, redact_line};
use crate::store::CohortRule;

/// The longest condition that is kept.
const WHEN_BYTES_MAX: usize = 1_024;

/// The rule of each cohort, by its name.
pub(super) fn of(route: &Route) -> BTreeMap<String, CohortRule> {
    let mut hashes = route.cohort_rules();
    let rule = |cohort: &Cohort| {
        let when = masked_and_cut(cohort.when.source(), redact_line, LengthMax::Bytes(WHEN_BYTES_MAX));
        let hash = hashes.remove(&cohort.name)?;
        Some((cohort.name.clone(), CohortRule { hash, when, state: cohort.state }))
    };
    route.cohorts.iter().filter_map(rule).collect()
}
