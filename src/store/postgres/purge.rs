//! Removes the events of runs that ended long ago, in batches.

use jiff::Timestamp;

use super::PostgresStore;
use super::columns::{Result, column, json, run_id, sql_limit};
use super::read;
use crate::names::{RunId, Seq};
use crate::store::encoded::nanos;
use crate::store::error::EventsError;
use crate::store::{Purged, RunBodies, StoreError};
use crate::workflow::RunStatus;

impl PostgresStore {
    pub(super) async fn purge_batch(&self, status: RunStatus, ended_before: Timestamp, limit: usize) -> Result<Purged> {
        // Only runs that ended before the retry window: their retry keys, claimed even earlier, have expired. Only runs
        // whose parent has ended: a parent that has not recorded the end of its child would begin the child again. Only
        // runs without an earlier run of their job: that one could be run again if its successor were forgotten.
        let find = "SELECT run_id, pinned FROM runs WHERE ended AND status = $1 \
                    AND updated < least($2, now_ns() - $3) AND NOT purged \
                    AND NOT EXISTS (SELECT 1 FROM runs AS above WHERE above.run_id = runs.parent AND NOT above.ended) \
                    AND NOT EXISTS (SELECT FROM births WHERE births.parent = runs.run_id) \
                    AND NOT EXISTS (SELECT FROM runs AS first WHERE first.run_id = runs.job \
                        AND first.run_id < runs.run_id AND NOT first.purged) \
                    AND NOT EXISTS (SELECT FROM runs AS earlier WHERE earlier.job = runs.job \
                        AND earlier.run_id < runs.run_id AND NOT earlier.purged) \
                    ORDER BY updated, run_id LIMIT $4";
        let (mut purged, mut pinned, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        // Further pages are read while a page holds only runs that turn out to be unreadable.
        while purged.is_empty() {
            let (left_out, mut unreadable) = (self.unpurgeable.runs(), Vec::new());
            let make = || {
                let query = sqlx::query(find).bind(status.as_str()).bind(nanos(ended_before));
                query.bind(self.retry_window_ns).bind(sql_limit(limit.saturating_add(left_out.len())))
            };
            let rows = self.pool.query(make).await?;
            let found = rows.iter().map(|row| Ok((run_id(column(row, 0)?)?, column::<bool>(row, 1)?)));
            let mut found = found.collect::<Result<Vec<_>>>()?;
            found.retain(|(run, _)| !left_out.contains(run));
            found.truncate(limit);
            if found.is_empty() {
                return Ok(Purged::default());
            }
            for (run, is_pinned) in found {
                if is_pinned {
                    let events = match read::try_events(&self.pool, run, Seq::FIRST).await {
                        Ok(events) => events,
                        Err(EventsError::Unreadable(error)) => {
                            unreadable.push((run, error));
                            continue;
                        }
                        Err(EventsError::NoAnswer(error)) => return Err(error),
                    };
                    let run_bodies = RunBodies::of(events.iter().map(|stored| &stored.event));
                    bodies.push(run_bodies.as_ref().map(json).transpose()?);
                    pinned.push(run);
                }
                purged.push(run);
            }
            self.unpurgeable.add(unreadable);
        }
        let ids = |runs: &[RunId]| runs.iter().map(|run| run.0.as_bytes().to_vec()).collect::<Vec<_>>();
        let (all_ids, pinned_ids) = (ids(&purged), ids(&pinned));
        let make = || sqlx::query("SELECT * FROM purge($1, $2, $3)").bind(&all_ids).bind(&pinned_ids).bind(&bodies);
        let done = self.pool.query(make).await?;
        let row = done.first().ok_or_else(|| StoreError("the database did not return what it purged".into()))?;
        let count = |index| column::<i64>(row, index).map(i64::cast_unsigned);
        Ok(Purged { runs: count(0)?, pinned: pinned.len() as u64, payloads: count(1)? })
    }
}
