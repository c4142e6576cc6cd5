//! The pool for reads and idempotent writes. Each is one statement.
//!
//! Always true: every wait is bounded; a lost connection is not used again, and its statement is repeated on another
//! one until it is answered or the statement timeout has passed; attempts to connect back off.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Executor, Postgres};
use tokio::time::Instant;

use super::address::Address;
use super::write_error::{is_lost, may_recover};
use crate::limits::Limits;
use crate::store::StoreError;

/// The pauses between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

pub(super) fn no_answer(error: sqlx::Error) -> StoreError {
    StoreError(format!("the store did not answer: {error}"))
}

/// The pool of connections.
pub(super) struct Pool {
    pool: PgPool,
    address: Address,
}

/// A statement with bound values.
pub(super) type BoundQuery<'q> = Query<'q, Postgres, PgArguments>;

impl Pool {
    /// A pool that opens its first connection when the first statement is executed.
    pub(super) fn new(address: Address, limits: &Limits) -> Self {
        let session_settings = address.session_settings();
        let pool = PgPoolOptions::new()
            .max_connections(u32::try_from(limits.store_connections_max).unwrap_or(u32::MAX))
            .acquire_timeout(address.connect)
            // Repeating a statement on a lost connection costs less than a ping before every statement.
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                let session_settings = session_settings.clone();
                Box::pin(async move { conn.execute(session_settings).await.map(|_| ()) })
            })
            .connect_lazy_with(address.options.clone());
        Self { pool, address }
    }

    /// Executes a statement. `make` builds it for each attempt.
    pub(super) async fn query<'q>(&self, make: impl Fn() -> BoundQuery<'q> + Send) -> Result<Vec<PgRow>, StoreError> {
        self.try_query(make).await.map_err(no_answer)
    }

    /// Like [`Pool::query`], but returns the database's error of the last attempt.
    pub(super) async fn try_query<'q>(
        &self,
        make: impl Fn() -> BoundQuery<'q> + Send,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let deadline = Instant::now() + self.address.statement;
        let mut pause = PAUSE_MIN;
        loop {
            let (error, connected) = match self.pool.acquire().await {
                Ok(conn) => match self.query_on(conn, make()).await {
                    Ok(rows) => return Ok(rows),
                    Err(error) => (error, true),
                },
                Err(error) => (error, false),
            };
            let is_final = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
            if is_final || !(is_lost(&error) || may_recover(&error)) || Instant::now() >= deadline {
                return Err(error);
            }
            // After a lost connection the next one is tried at once; after a failed attempt to connect there is a
            // pause.
            if !connected {
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn query_on(
        &self,
        mut conn: PoolConnection<Postgres>,
        query: BoundQuery<'_>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let done = self.address.within(query.fetch_all(&mut *conn)).await;
        if let Err(error) = &done
            && is_lost(error)
        {
            // Removed from the pool and dropped. Closing it cleanly may hang.
            drop(conn.detach());
        }
        done
    }

    pub(super) async fn close(&self) {
        // Statements in progress have a bound of their own.
        let _ = tokio::time::timeout(self.address.statement, self.pool.close()).await;
    }
}
