//! Which runs to list.

use crate::names::{JobId, RouteId, RunId};
use crate::workflow::{Mode, RunStatus};

/// Which runs to list.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only these statuses; all if empty.
    pub statuses: Vec<RunStatus>,
    /// Only runs of this workflow.
    pub workflow: Option<String>,
    /// Only runs of this route.
    pub route: Option<RouteId>,
    /// Only runs of this mode.
    pub mode: Option<Mode>,
    /// Only runs of this job.
    pub job: Option<JobId>,
    /// Only runs that this one began.
    pub parent: Option<RunId>,
    /// Only runs older than this one (the cursor of a page).
    pub before: Option<RunId>,
    /// At most this many.
    pub limit: usize,
}

impl RunFilter {
    /// The real runs that have not ended; the limit is still to be set.
    pub fn open_real_runs() -> Self {
        Self { statuses: RunStatus::OPEN.to_vec(), mode: Some(Mode::Real), ..Self::default() }
    }
}
