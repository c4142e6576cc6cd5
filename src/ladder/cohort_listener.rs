//! What is told of a cohort that moves to another rung, and to whom.

use crate::flag::State;
use crate::names::RouteId;

/// A cohort that is on another rung than before, or that the files added or removed.
#[derive(Clone, Debug, PartialEq)]
pub struct CohortMove {
    /// The route.
    pub route: RouteId,
    /// The name of the cohort.
    pub cohort: String,
    /// The rung before; `None` if the cohort is new.
    pub from: Option<State>,
    /// The rung now; `None` if the files do not have the cohort any more.
    pub to: Option<State>,
    /// Why.
    pub cause: CohortMoveCause,
    /// The reason that the cohort's `force` gives.
    pub forced: Option<String>,
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

/// Is told of each move of a cohort. Does not wait.
pub trait CohortListener: Send + Sync {
    /// A cohort has moved.
    fn moved(&self, cohort_move: CohortMove);
}
