//! Which run supersedes a run for which a rerun was requested.
//!
//! Always true: all runs of a job are a chain in which each run supersedes the one before, and their ids ascend, so
//! that the newest run of the job is the one whose result counts.

use crate::engine::context::Core;
use crate::names::{JobId, RunId};
use crate::store::{RunFilter, StoreError};

/// The newest run of the job of `run`, if that is another run. `job` is the job that the run names; a run that names
/// none is the first of its own.
pub(in crate::engine) async fn newest_after(
    core: &Core,
    run: RunId,
    job: Option<JobId>,
) -> Result<Option<RunId>, StoreError> {
    let filter = RunFilter { job: Some(job.unwrap_or(JobId(run.0))), limit: 1, ..RunFilter::default() };
    let newest = core.ports.store.runs(filter).await?.first().map(|newest| newest.run_id);
    Ok(newest.filter(|newest| *newest != run))
}
