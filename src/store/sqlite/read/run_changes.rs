//! The runs that have changed since an earlier look.
//!
//! Always true: one thread writes, so the positions of appends ascend in the order of commits, and no append is
//! committed behind a position that was read. A purge may remove the last append, whose position is then given to a
//! later one: the position of the cursor is read again for that reason.

use super::super::readers::Readers;
use super::{Result, read_error, sql_limit};
use crate::store::summary::{decode_summary, decoded_or_logged};
use crate::store::{ChangedRuns, RunCursor};

/// The most appends that one look reads.
const APPENDS_READ_MAX: i64 = 10_000;

/// The newest position, how many appends were read, and a run with its summary, seq and time; without a run if none has
/// changed.
type Row = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Option<i64>);

pub(in crate::store::sqlite) async fn changed_runs(
    readers: &Readers,
    since: Option<RunCursor>,
    limit: usize,
) -> Result<ChangedRuns> {
    let text = "WITH newest AS (SELECT coalesce(max(pos), 0) AS pos FROM appends), \
                added AS MATERIALIZED (SELECT run_id, pos FROM appends \
                    WHERE ?1 IS NOT NULL AND pos >= min(?1, (SELECT pos FROM newest)) ORDER BY pos DESC LIMIT ?2), \
                changed AS (SELECT run_id, max(pos) AS pos FROM added GROUP BY run_id ORDER BY 2 DESC LIMIT ?3) \
                SELECT newest.pos, (SELECT count(*) FROM added), runs.run_id, runs.summary, runs.seq, runs.updated \
                FROM newest LEFT JOIN changed ON true LEFT JOIN runs ON runs.run_id = changed.run_id \
                ORDER BY changed.pos DESC";
    let query = sqlx::query_as(text).bind(since.map(|RunCursor(pos)| pos)).bind(APPENDS_READ_MAX);
    let rows: Vec<Row> = query.bind(sql_limit(limit)).fetch_all(readers.pool()?).await.map_err(read_error)?;
    let newest = rows.first().map_or(0, |(newest, ..)| *newest);
    let was_cut = rows.first().is_some_and(|(_, read, ..)| *read >= APPENDS_READ_MAX) || rows.len() >= limit;
    let readable = rows.into_iter().filter_map(|row| {
        // Without a row of the run: it was purged.
        let (_, _, Some(run_id), Some(summary), Some(seq), updated) = row else { return None };
        decoded_or_logged(&run_id, decode_summary(&summary, seq, updated))
    });
    Ok(ChangedRuns { runs: readable.collect(), are_all: !was_cut, next: RunCursor(newest) })
}
