//! Reads, and writes that repeating does no harm: each is one statement on a small pool of its own.
//!
//! Always true: every wait is bounded; a connection that was lost is not used again, and what was asked on it is asked
//! again on another, until it is answered or its time is over; one that cannot be made is tried again after a pause
//! that grows.

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

/// Pauses between tries to connect.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Pool {
    pool: PgPool,
    address: Address,
}

/// A statement with its values.
pub(super) type BoundQuery<'q> = Query<'q, Postgres, PgArguments>;

impl Pool {
    /// Connects when somebody asks.
    pub(super) fn new(address: Address, limits: &Limits) -> Self {
        let session_settings = address.session_settings();
        let pool = PgPoolOptions::new()
            .max_connections(u32::try_from(limits.store_connections_max).unwrap_or(u32::MAX))
            .acquire_timeout(address.connect)
            // One that was lost is found by asking, and asking again costs less than a ping before each.
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                let session_settings = session_settings.clone();
                Box::pin(async move { conn.execute(session_settings).await.map(|_| ()) })
            })
            .connect_lazy_with(address.options.clone());
        Self { pool, address }
    }

    /// Asks one statement, made anew for every try.
    pub(super) async fn query<'q>(&self, make: impl Fn() -> BoundQuery<'q> + Send) -> Result<Vec<PgRow>, StoreError> {
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
            let over = matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed);
            if over || !(is_lost(&error) || may_recover(&error)) || Instant::now() >= deadline {
                return Err(StoreError(format!("the store did not answer: {error}")));
            }
            // Connections that were lost are used up at once; a database that takes no new ones is given time.
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
            // Out of the pool, and closed without a word: it may hang.
            drop(conn.detach());
        }
        done
    }

    pub(super) async fn close(&self) {
        // What is under way there has its own bound.
        let _ = tokio::time::timeout(self.address.statement, self.pool.close()).await;
    }
}
