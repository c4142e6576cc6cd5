//! The runs that have changed since an earlier look, whichever process changed them.
//!
//! A change becomes visible when its transaction is committed, which is after the time of its events. So each look also
//! returns what happened up to [`COMMITTED_WITHIN_NS`] before the last one. A change that takes longer than that to be
//! committed is returned with the next change of its run.

use super::columns::{Result, column};
use super::pool::Pool;
use super::read;
use crate::store::summary::decoded_or_logged;
use crate::store::{ChangedRuns, RunCursor, StoreError};
use crate::workflow::RunStatus;

/// How long a transaction may take from the time of its events to its commit.
const COMMITTED_WITHIN_NS: i64 = 5_000_000_000;

/// Reads the rows of open runs by their index, and those of ended runs by the index of their ends.
const CHANGED: &str = "WITH open AS (SELECT summary, seq, last_at, run_id, coalesce(last_at, updated) AS at FROM runs \
                           WHERE NOT ended AND coalesce(last_at, updated) >= $1 ORDER BY at DESC LIMIT $3), \
                       ended AS (SELECT summary, seq, last_at, run_id, updated AS at FROM runs \
                           WHERE ended AND NOT purged AND status = ANY ($2) AND updated >= $1 \
                           ORDER BY at DESC LIMIT $3) \
                       SELECT c.summary, c.seq, c.last_at, c.run_id, c.at, c.ended, n.now \
                       FROM (SELECT now_ns() AS now) AS n \
                       LEFT JOIN (SELECT *, false AS ended FROM open UNION ALL SELECT *, true FROM ended) AS c ON true \
                       ORDER BY c.at DESC NULLS LAST";

pub(super) async fn changed_runs(pool: &Pool, since: Option<RunCursor>, limit: usize) -> Result<ChangedRuns> {
    // Without a cursor nothing is read but the time.
    let from = since.map_or(i64::MAX, |RunCursor(at)| at.saturating_sub(COMMITTED_WITHIN_NS));
    let final_statuses = RunStatus::ENDED.map(RunStatus::as_str);
    let row_limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let make = || sqlx::query(CHANGED).bind(from).bind(final_statuses.as_slice()).bind(row_limit);
    let rows = pool.query(make).await?;
    let now = rows.first().map(|row| column::<i64>(row, 6)).transpose()?;
    let now = now.ok_or_else(|| StoreError("the database did not return its time".into()))?;
    let (mut runs, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for row in &rows {
        let Some(run_id) = column::<Option<Vec<u8>>>(row, 3)? else { continue };
        times[usize::from(column::<bool>(row, 5)?)].push(column::<i64>(row, 4)?);
        runs.extend(decoded_or_logged(&run_id, read::summary(row, 0)));
    }
    // A full page that reaches back to before the cursor has all that changed since.
    let reaches_back = |times: &Vec<i64>| {
        times.len() < limit || since.is_some_and(|since| times.last().is_some_and(|oldest| *oldest < since.0))
    };
    Ok(ChangedRuns { runs, are_all: times.iter().all(reaches_back), next: RunCursor(now) })
}
