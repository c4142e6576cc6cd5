//! Lists of runs.
//!
//! Always true: unless it is of a job or a parent, which have few runs, a listing scans the narrow rows of an index in
//! the order of ids; and it reads summaries only of the runs that it returns. So one that finds nothing is quick too.

use sqlx::{QueryBuilder, Sqlite};

use super::super::readers::Readers;
use super::{Result, read_error, sql_limit};
use crate::store::summary::{add_readable, decode_summary};
use crate::store::{RunFilter, StoreError};
use crate::workflow::{RunStatus, RunSummary};

pub(in crate::store::sqlite) async fn runs(readers: &Readers, filter: RunFilter) -> Result<Vec<RunSummary>> {
    let mut page = Vec::new();
    let mut rest = Some(filter);
    while let Some(filter) = rest {
        let found: Vec<(Vec<u8>, i64, i64, Vec<u8>)> =
            statement(filter.clone()).build_query_as().fetch_all(readers.pool()?).await.map_err(read_error)?;
        let decode = |(summary, seq, updated, run_id): (Vec<u8>, i64, i64, Vec<u8>)| {
            (run_id, decode_summary(&summary, seq, Some(updated)))
        };
        rest = add_readable(found.into_iter().map(decode).collect(), filter, &mut page);
    }
    Ok(page)
}

/// The rows to scan, with the condition of the partial index that contains them.
fn scanned_rows(filter: &RunFilter) -> &'static str {
    let RunFilter { statuses, workflow, route, mode, job, parent, before: _, limit: _ } = filter;
    let is_rare = |status: &RunStatus| !matches!(status, RunStatus::Running | RunStatus::Completed);
    let only_status = workflow.is_none() && route.is_none() && mode.is_none();
    match statuses.as_slice() {
        // A job and a parent have few runs; the planner chooses their own indexes.
        _ if job.is_some() || parent.is_some() => "runs WHERE true",
        [] if only_status => "runs WHERE true",
        [one] if only_status && is_rare(one) => {
            "runs INDEXED BY runs_seldom WHERE status NOT IN ('running', 'completed')"
        }
        [_, ..] if statuses.iter().all(|status| !status.is_final()) => "runs INDEXED BY runs_open WHERE ended = 0",
        _ => "runs INDEXED BY runs_listed WHERE true",
    }
}

fn statement(filter: RunFilter) -> QueryBuilder<Sqlite> {
    let mut query =
        QueryBuilder::new("SELECT runs.summary, runs.seq, runs.updated, runs.run_id FROM (SELECT pos, run_id FROM ");
    query.push(scanned_rows(&filter));
    let RunFilter { statuses, workflow, route, mode, job, parent, before, limit } = filter;
    if !statuses.is_empty() {
        query.push(" AND status IN (");
        let mut list = query.separated(", ");
        for status in statuses {
            list.push_bind(status.as_str());
        }
        query.push(")");
    }
    if let Some(workflow) = workflow {
        query.push(" AND workflow = ").push_bind(workflow);
    }
    if let Some(route) = route {
        query.push(" AND route = ").push_bind(route.as_str().to_owned());
    }
    if let Some(mode) = mode {
        query.push(" AND mode = ").push_bind(mode.as_str());
    }
    if let Some(job) = job {
        query.push(" AND (job = ").push_bind(job.0.as_bytes().to_vec());
        query.push(" OR run_id = ").push_bind(job.0.as_bytes().to_vec()).push(")");
    }
    if let Some(parent) = parent {
        query.push(" AND parent = ").push_bind(parent.0.as_bytes().to_vec());
    }
    if let Some(before) = before {
        query.push(" AND run_id < ").push_bind(before.0.as_bytes().to_vec());
    }
    query.push(" ORDER BY run_id DESC LIMIT ").push_bind(sql_limit(limit));
    query.push(") AS found CROSS JOIN runs ON runs.pos = found.pos ORDER BY found.run_id DESC");
    query
}

/// The number of runs that have not ended, by status.
pub(in crate::store::sqlite) async fn open_runs(readers: &Readers) -> Result<Vec<(RunStatus, u64)>> {
    let text = "SELECT status, count(*) FROM runs INDEXED BY runs_open WHERE ended = 0 GROUP BY status";
    let found: Vec<(String, i64)> = sqlx::query_as(text).fetch_all(readers.pool()?).await.map_err(read_error)?;
    let count = |(status, count): (String, i64)| {
        let known = RunStatus::OPEN.into_iter().find(|known| known.as_str() == status);
        let known = known.ok_or_else(|| {
            StoreError(format!("a run that has not ended has the status `{status}`, which this version does not know"))
        })?;
        Ok((known, count.cast_unsigned()))
    };
    let mut counts = found.into_iter().map(count).collect::<Result<Vec<_>>>()?;
    counts.sort();
    Ok(counts)
}
