//! The writer's only connection. It is opened again after an error that leaves its state unknown.
//!
//! Always true: a store has one such session at a time. Each session takes an advisory lock, which is only free once
//! the previous session has ended. So on a new session a transaction of an earlier one is either visible or will never
//! be committed. A session that hangs on the server is terminated there.
//!
//! When the database is gone, attempts to connect back off with jitter, so that many processes do not return at once.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Executor, Postgres, Row, SqlSafeStr};
use tokio::time::Instant;

use super::address::Address;
use super::write_error::is_lost;
use crate::store::write_error::WriteError;

/// The pauses between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The first key of the advisory locks of all writers; the second key is random for each store.
const LOCK_CLASS: i32 = 0x706d;

/// The open connection, if any, and what is needed to open the next one.
pub(super) struct Session {
    pub(super) address: Address,
    lock: i32,
    open: Option<PgConnection>,
    pause: Duration,
    retry_at: Option<Instant>,
    last_error: String,
}

impl Session {
    pub(super) fn new(address: Address) -> Self {
        let lock = fastrand::i32(0..i32::MAX);
        Self { address, lock, open: None, pause: PAUSE_MIN, retry_at: None, last_error: String::new() }
    }

    /// The open connection, or a new one. If this fails, no transaction was begun.
    pub(super) async fn get(&mut self) -> Result<&mut PgConnection, WriteError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let is_waiting = self.retry_at.is_some_and(|then| Instant::now() < then);
                let connected = if is_waiting { None } else { Some(self.connect().await) };
                match connected {
                    Some(Ok(open)) => open,
                    Some(Err(error)) => {
                        self.last_error = error.to_string();
                        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
                        self.retry_at = Some(Instant::now() + pause);
                        self.pause = (self.pause * 2).min(PAUSE_MAX);
                        return Err(WriteError::NotWritten(format!(
                            "the database cannot be reached: {}",
                            self.last_error
                        )));
                    }
                    None => {
                        return Err(WriteError::NotWritten(format!(
                            "the database cannot be reached: {}",
                            self.last_error
                        )));
                    }
                }
            }
        };
        self.pause = PAUSE_MIN;
        self.retry_at = None;
        Ok(self.open.insert(open))
    }

    /// Waits for an open connection, with further attempts to connect, at most for this time.
    pub(super) async fn get_within(&mut self, time: Duration) -> Result<(), WriteError> {
        let deadline = Instant::now() + time;
        loop {
            let Err(error) = self.get().await else { return Ok(()) };
            let next = self.retry_at.unwrap_or_else(Instant::now);
            if next >= deadline {
                return Err(error);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Whether the last attempt to connect failed.
    pub(super) fn is_disconnected(&self) -> bool {
        self.open.is_none() && self.retry_at.is_some()
    }

    /// Why the last attempt to connect failed.
    pub(super) fn last_error(&self) -> &str {
        &self.last_error
    }

    /// How long until the next attempt to connect is allowed.
    pub(super) fn retry_in(&self) -> Duration {
        self.retry_at.map_or(PAUSE_MIN, |then| then.saturating_duration_since(Instant::now()))
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut conn = self.address.connect().await?;
        let (class, key) = (LOCK_CLASS, self.lock);
        let try_lock = sqlx::query("SELECT pg_try_advisory_lock($1, $2)").bind(class).bind(key);
        let held: bool = self.address.within(try_lock.fetch_one(&mut conn)).await?.try_get(0)?;
        if !held {
            // The server has not noticed that our previous session is gone: terminate it and wait for its end.
            let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
                       AND classid::bigint = $1 AND objid::bigint = $2 AND granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let end = sqlx::query(end).bind(i64::from(class)).bind(i64::from(key));
            self.address.within(end.fetch_all(&mut conn)).await?;
            let wait = sqlx::query("SELECT pg_advisory_lock($1, $2)").bind(class).bind(key);
            self.address.within(wait.fetch_all(&mut conn)).await?;
        }
        Ok(conn)
    }

    /// Executes one statement to its end, with its commit, and returns its rows.
    pub(super) async fn query(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, WriteError> {
        let address = self.address.clone();
        let conn = self.get().await?;
        // `fetch_all` also reads the end of the statement: an error of the commit comes after the rows.
        let done = address.within(query.fetch_all(conn)).await;
        done.map_err(|error| self.discard_if_lost(error))
    }

    /// Executes a statement that begins or ends a transaction.
    pub(super) async fn execute(&mut self, text: &'static str) -> Result<(), WriteError> {
        let address = self.address.clone();
        let conn = self.get().await?;
        let done = address.within(conn.execute(text.into_sql_str())).await;
        done.map(|_| ()).map_err(|error| self.discard_if_lost(error))
    }

    fn discard_if_lost(&mut self, error: sqlx::Error) -> WriteError {
        if is_lost(&error) {
            self.discard();
        }
        error.into()
    }

    /// Rolls back a transaction that an error left open; a connection that cannot do so is discarded.
    pub(super) async fn roll_back(&mut self) {
        let Some(open) = &mut self.open else { return };
        if self.address.within(open.execute("ROLLBACK".into_sql_str())).await.is_err() {
            self.discard();
        }
    }

    /// Drops the connection; the next use opens a new one. Does not wait for a clean close, which may hang.
    pub(super) fn discard(&mut self) {
        self.open = None;
    }

    /// Tests whether the database accepts commits.
    pub(super) async fn probe(&mut self) -> Result<(), WriteError> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', '') \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.query(sqlx::query(text)).await.map(|_| ())
    }

    /// Closes the connection; waits for a bounded time.
    pub(super) async fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = self.address.within(open.close()).await
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}
