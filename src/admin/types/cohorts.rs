//! Cohorts as the API shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flag::State;
use crate::ladder::{CohortAhead, CohortBelow};

/// A cohort that is below the state of its rule, because the evidence of its requests does not suffice yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CohortRow {
    /// Its name.
    pub name: String,
    /// The state of its rule.
    pub rule: State,
    /// The highest state that its callers may be in.
    pub reached: State,
    /// What the next gate still requires; empty if it is open: the cohort goes there with the next flip or reload.
    pub missing: Vec<String>,
}

impl From<CohortBelow> for CohortRow {
    fn from(CohortBelow { name, rule, reached, missing }: CohortBelow) -> Self {
        Self { name, rule, reached, missing }
    }
}

/// A cohort that is on a higher rung than its route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CohortAheadRow {
    /// Its name.
    pub name: String,
    /// Its rung, unless the route's guard, the health of the engine or a freeze lowers it.
    pub rung: State,
    /// The reason that its `force` gives; `null` if its evidence put it there.
    pub forced: Option<String>,
}

impl From<CohortAhead> for CohortAheadRow {
    fn from(CohortAhead { name, rung, forced }: CohortAhead) -> Self {
        Self { name, rung, forced }
    }
}
