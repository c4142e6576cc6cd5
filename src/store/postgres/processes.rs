//! The processes that share a database.

use std::time::Duration;

use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::columns::{Result, column, json, time, unescape, uuid};
use crate::names::WorkerId;
use crate::store::{GoneProcess, LivingProcess, LivingProcesses, ProcessRecord, StoreError};

/// Stores the caller's record, notifies the other processes if it has changed, and returns the living processes. The
/// caller's own row is returned as it was before: the caller knows its own record. Times are those of the server.
const EXCHANGE: &str = "WITH mine AS (UPDATE workers SET record = $2 WHERE worker = $1 AND record IS DISTINCT FROM $2 \
                                  RETURNING worker), \
          told AS (SELECT tell($4, ARRAY['process']) AS nothing FROM mine) \
     SELECT now_ns(), worker, name, record, (extract(epoch FROM alive_until - statement_timestamp()) * 1000)::bigint, \
            term, (SELECT coalesce(max(number), 0) FROM flips), (SELECT count(*) FROM told) \
     FROM (SELECT) AS one LEFT JOIN workers ON alive_until > statement_timestamp() ORDER BY worker LIMIT $3";

/// The most processes that are read; further ones are not shown.
const PROCESSES_MAX: i64 = 1_024;

/// The row of a worker is removed when its lease has been over for this long, or for a retry window, if that is longer.
const WORKER_ROW_KEPT_S: i64 = 86_400;

const GONE: &str = "SELECT name, record, (extract(epoch FROM statement_timestamp() - alive_until) * 1000)::bigint, \
            term \
     FROM workers WHERE alive_until <= statement_timestamp() ORDER BY alive_until DESC LIMIT $1";

impl PostgresStore {
    /// How long the row of a worker is kept whose lease is over, in seconds.
    pub(super) fn worker_row_kept_s(&self) -> f64 {
        WORKER_ROW_KEPT_S.max(self.retry_window_ns / 1_000_000_000) as f64
    }

    pub(super) async fn read_gone_processes(&self) -> Result<Vec<GoneProcess>> {
        let rows = self.leases.query(|| sqlx::query(GONE).bind(PROCESSES_MAX)).await?;
        let process = |row: &PgRow| {
            let record: Option<&[u8]> = column(row, 1)?;
            Ok(GoneProcess {
                name: unescape(column(row, 0)?),
                gone_for: Duration::from_millis(u64::try_from(column::<i64>(row, 2)?).unwrap_or(0)),
                term: column(row, 3)?,
                record: record.and_then(|bytes| serde_json::from_slice(bytes).ok()),
            })
        };
        rows.iter().map(process).collect()
    }

    /// Waits for the transactions that hold a lock on the row of a process whose lease is over (`lease_term`).
    pub(super) async fn lock_ended_leases(&self) -> Result<()> {
        let text = "SELECT worker FROM workers WHERE alive_until <= clock_timestamp() ORDER BY worker FOR UPDATE";
        self.pool.query(|| sqlx::query(text)).await.map(drop)
    }

    pub(super) async fn exchange(&self, worker: WorkerId, record: ProcessRecord) -> Result<LivingProcesses> {
        let bytes = json(&record)?;
        let id = worker.0.as_bytes().as_slice();
        let make = || sqlx::query(EXCHANGE).bind(id).bind(&bytes[..]).bind(PROCESSES_MAX).bind(&*self.notifier.origin);
        let rows = self.leases.query(make).await?;
        let first = rows.first().ok_or_else(|| StoreError("the database did not return its time".to_owned()))?;
        let process = |row: &PgRow| {
            let Some(id) = column(row, 1)? else { return Ok(None) };
            let of = WorkerId(uuid(id)?);
            let stored: Option<&[u8]> = column(row, 3)?;
            Ok(Some(LivingProcess {
                worker: of,
                name: unescape(column(row, 2)?),
                lease_left: Duration::from_millis(u64::try_from(column::<i64>(row, 4)?).unwrap_or(0)),
                term: column(row, 5)?,
                record: match of == worker {
                    true => Some(record.clone()),
                    // What cannot be read counts as not said: such a process is shown by its name.
                    false => stored.and_then(|bytes| serde_json::from_slice(bytes).ok()),
                },
            }))
        };
        let processes = rows.iter().filter_map(|row| process(row).transpose()).collect::<Result<Vec<_>>>()?;
        let newest_flip = column::<i64>(first, 6)?.cast_unsigned();
        Ok(LivingProcesses { at: time(column(first, 0)?)?, newest_flip, processes })
    }
}
