//! The moves of cohorts to other rungs, and the listeners that are told of them.

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
    /// The rung now: the same as before if only the rule changed; `None` if the files do not have the cohort any more.
    pub to: Option<State>,
    /// The condition of its rule before, without literals; `None` if the cohort is new, or if the condition is not
    /// known.
    pub when_before: Option<String>,
    /// The condition of its rule now, without literals; `None` if the files do not have the cohort any more.
    pub when: Option<String>,
    /// A hash of all that decided before which callers are in the cohort: its condition, and those of the cohorts that
    /// are listed before it. `None` where `when_before` is.
    pub rule_before: Option<String>,
    /// The same hash now. `None` where `when` is.
    pub rule: Option<String>,
    /// Why.
    pub cause: CohortMoveCause,
    /// The reason that the cohort's `force` gives.
    pub forced: Option<String>,
    /// If the reason for `force` is new, or this move is repeated: the source of the entry in the record. No two
    /// entries have the same source, so a repeated move makes no second entry. `None`: the move gets an entry of its
    /// own in any case.
    pub source: Option<String>,
    /// Whether earlier files had the same reason. Listeners were told of the move then, unless the process ended
    /// before.
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
    /// The ladder holds it below `live`, or has released it.
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

/// The listeners for moves of cohorts.
pub(super) struct CohortListeners {
    /// Each is told of every move from now on.
    pub connected: Vec<Arc<dyn CohortListener>>,
    /// The moves that the start of the process found: kept until the first listener is connected.
    pub at_start: Vec<CohortMove>,
}

impl CohortListeners {
    /// No listener yet. `at_start`: the moves that the start found.
    pub fn of_start(at_start: Vec<CohortMove>) -> Self {
        Self { connected: Vec::new(), at_start }
    }
}

/// Is told of each move of a cohort. Does not wait.
pub trait CohortListener: Send + Sync {
    /// A cohort has moved.
    fn moved(&self, cohort_move: CohortMove);
}
