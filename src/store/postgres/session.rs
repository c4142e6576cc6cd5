//! The writer's one connection: held, never pooled, opened again after an error that leaves it in doubt.
//!
//! Always true: a store has one such session at a time. Each takes a lock of the server that only the end of the
//! session before it gives back; so on a new one, whatever was begun on an old one is either to be seen or will never
//! be. A session that hangs on the server is ended there.
//!
//! When the database is gone, tries to reach it keep a pause that grows, with a part of it at random: many processes
//! that lost it together do not come back together.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Executor, Postgres, Row, SqlSafeStr};
use tokio::time::Instant;

use super::address::Address;
use super::fault::{Fault, is_lost};

/// Pauses between tries to reach the database.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The first half of every writer's lock; the second is its store's own.
const LOCKS: i32 = 0x706d;

/// The connection, or what opens the next one.
pub(super) struct Session {
    pub(super) address: Address,
    lock: i32,
    open: Option<PgConnection>,
    pause: Duration,
    not_before: Option<Instant>,
    why: String,
}

impl Session {
    pub(super) fn new(address: Address) -> Self {
        let lock = fastrand::i32(0..i32::MAX);
        Self { address, lock, open: None, pause: PAUSE_MIN, not_before: None, why: String::new() }
    }

    /// The open connection, or a new one. Nothing was begun where this fails.
    pub(super) async fn get(&mut self) -> Result<&mut PgConnection, Fault> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let resting = self.not_before.is_some_and(|then| Instant::now() < then);
                let begun = if resting { None } else { Some(self.begin().await) };
                match begun {
                    Some(Ok(open)) => open,
                    Some(Err(error)) => {
                        self.why = error.to_string();
                        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
                        self.not_before = Some(Instant::now() + pause);
                        self.pause = (self.pause * 2).min(PAUSE_MAX);
                        return Err(Fault::Sure(format!("the database is away: {}", self.why)));
                    }
                    None => return Err(Fault::Sure(format!("the database is away: {}", self.why))),
                }
            }
        };
        self.pause = PAUSE_MIN;
        self.not_before = None;
        Ok(self.open.insert(open))
    }

    /// The same, trying again while the time lasts.
    pub(super) async fn get_within(&mut self, time: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + time;
        loop {
            let Err(fault) = self.get().await else { return Ok(()) };
            let next = self.not_before.unwrap_or_else(Instant::now);
            if next >= deadline {
                return Err(fault);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Whether the last try to open it failed.
    pub(super) fn is_away(&self) -> bool {
        self.open.is_none() && self.not_before.is_some()
    }

    /// Why the last try to open it failed.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// How long until it is worth trying again.
    pub(super) fn next_try(&self) -> Duration {
        self.not_before.map_or(PAUSE_MIN, |then| then.saturating_duration_since(Instant::now()))
    }

    async fn begin(&self) -> Result<PgConnection, sqlx::Error> {
        let mut conn = self.address.connect().await?;
        let (class, own) = (LOCKS, self.lock);
        let ask = sqlx::query("SELECT pg_try_advisory_lock($1, $2)").bind(class).bind(own);
        let held: bool = self.address.within(ask.fetch_one(&mut conn)).await?.try_get(0)?;
        if !held {
            // Ours of before, which does not know yet that nobody is there: it is ended, and its end is waited for.
            let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
                       AND classid::bigint = $1 AND objid::bigint = $2 AND granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let end = sqlx::query(end).bind(i64::from(class)).bind(i64::from(own));
            self.address.within(end.fetch_all(&mut conn)).await?;
            let wait = sqlx::query("SELECT pg_advisory_lock($1, $2)").bind(class).bind(own);
            self.address.within(wait.fetch_all(&mut conn)).await?;
        }
        Ok(conn)
    }

    /// One statement, whole, and its commit.
    pub(super) async fn ask(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Fault> {
        let statement = self.address.clone();
        let conn = self.get().await?;
        // Every row and the end of the statement: an error may come with the commit, after the rows.
        let done = statement.within(query.fetch_all(conn)).await;
        done.map_err(|error| self.lost_by(error))
    }

    /// A statement that begins or ends a transaction.
    pub(super) async fn say(&mut self, text: &'static str) -> Result<(), Fault> {
        let statement = self.address.clone();
        let conn = self.get().await?;
        let done = statement.within(conn.execute(text.into_sql_str())).await;
        done.map(|_| ()).map_err(|error| self.lost_by(error))
    }

    fn lost_by(&mut self, error: sqlx::Error) -> Fault {
        if is_lost(&error) {
            self.drop_it();
        }
        error.into()
    }

    /// Ends whatever transaction an error left open; a connection that cannot say that it has none is not used again.
    pub(super) async fn roll_back(&mut self) {
        let Some(open) = &mut self.open else { return };
        if self.address.within(open.execute("ROLLBACK".into_sql_str())).await.is_err() {
            self.drop_it();
        }
    }

    /// Leaves the connection to itself; the next use opens a new one. It is not waited for: it may hang.
    pub(super) fn drop_it(&mut self) {
        self.open = None;
    }

    /// Whether the database takes commits.
    pub(super) async fn probe(&mut self) -> Result<(), Fault> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', '') \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.ask(sqlx::query(text)).await.map(|_| ())
    }

    /// Closes it and waits for that, a little.
    pub(super) async fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = self.address.within(open.close()).await
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}
