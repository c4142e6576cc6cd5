//! What is told of a cohort that moves to another rung, and to whom.

use std::sync::Arc;

use crate::flag::State;
use crate::names::RouteId;

/// A cohort that is on another rung than before, whose rule is another one, or that the files added or removed.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortMove {
    /// The route.
    pub route: RouteId,
    /// The name of the cohort.
    pub cohort: String,
    /// The rung before; `None` if the cohort is new.
    pub from: Option<State>,
    /// The rung now, which is the same if only the rule is another one; `None` if the files do not have the cohort any
    /// more.
    pub to: Option<State>,
    /// The condition of its rule before, without literals; `None` if the cohort is new, or that is not known.
    pub when_before: Option<String>,
    /// The condition of its rule now, without literals; `None` if the files do not have the cohort any more.
    pub when: Option<String>,
    /// The hash of what decided before who is in it: its condition and those of the cohorts before it. `None` as of
    /// `when_before`.
    pub rule_before: Option<String>,
    /// The hash of what decides now who is in it. `None` as of `when`.
    pub rule: Option<String>,
    /// Why.
    pub cause: CohortMoveCause,
    /// The reason that the cohort's `force` gives.
    pub forced: Option<String>,
    /// The source of its entry in the record, if that reason is new or is told again: no second entry is made. `None`
    /// where each such move gets an entry.
    pub source: Option<String>,
    /// Whether earlier files had the same reason, so that this was told before, unless the process ended in between.
    pub is_repeated: bool,
    /// The evidence of the route at that moment.
    pub evidence: serde_json::Value,
}

/// Why a cohort moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CohortMoveCause {
    /// Its rule in the files is another one.
    File,
    /// The evidence of its own requests, or of all requests of the route: it passed a gate, or has no evidence any
    /// more.
    Evidence,
    /// The ladder has to hold it below `live`, or does not have to any more.
    Hold,
}

impl CohortMoveCause {
    /// Its name in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Evidence => "evidence",
            Self::Hold => "hold",
        }
    }
}

/// A cohort that is on a higher rung than its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CohortAhead {
    /// Its name.
    pub name: String,
    /// Its rung.
    pub rung: State,
    /// The reason that its `force` gives.
    pub forced: Option<String>,
}

/// What is told of the moves of cohorts.
pub(super) struct CohortListeners {
    /// Those that are told of moves from now on.
    pub connected: Vec<Arc<dyn CohortListener>>,
    /// The moves that the start found, until there is a listener.
    pub at_start: Vec<CohortMove>,
}

impl CohortListeners {
    /// None yet, and the moves that the start found.
    pub fn of_start(at_start: Vec<CohortMove>) -> Self {
        Self { connected: Vec::new(), at_start }
    }
}

/// Is told of each move of a cohort. Does not wait.
pub trait CohortListener: Send + Sync {
    /// A cohort has moved.
    fn moved(&self, cohort_move: CohortMove);
}
