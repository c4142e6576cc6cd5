//! The pool for reads and idempotent writes. Each is one statement.
//!
//! Always true: every wait is bounded; a lost connection is not used again, and its statement is repeated on another
//! one until it is answered or the statement timeout has passed; attempts to connect back off. On connections to the
//! server a statement is one round trip, once it is prepared. Behind a pooler in transaction mode a session keeps
//! neither settings nor prepared statements, so a statement is a transaction of four round trips: begin with the
//! settings, prepare, execute, commit.
//!
//! Nobody waits for a thread of lower priority, which may be suspended for seconds on a busy machine: all connections
//! belong to the runtime on which the pool was made, whoever opens them, so that its threads are told of the server's
//! replies; and threads of lower priority get at most half of the connections.
//!
//! When a caller stops waiting, the connection stays in use until its statement has ended on the server, so that the
//! server never executes more statements than the pool has connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{Connection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::address::Address;
use super::write_error::{is_lost, is_of_pooler, may_recover};
use crate::limits::Limits;
use crate::priority;
use crate::store::StoreError;

/// The pauses between attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// A connection that was not used for this long is closed.
const UNUSED_MAX: Duration = Duration::from_secs(600);
/// A connection is closed at this age, which frees what its server process has gathered in memory.
const AGE_MAX: Duration = Duration::from_secs(1_800);

pub(super) fn no_answer(error: sqlx::Error) -> StoreError {
    let hint = match is_of_pooler(&error) {
        true => " (behind a pooler in transaction mode, name the server itself as `store_direct`)",
        false => "",
    };
    StoreError(format!("the store did not answer: {error}{hint}"))
}

/// The pool of connections.
pub(super) struct Pool {
    address: Address,
    /// Behind a pooler in transaction mode: the statements that begin a transaction.
    begin: Option<SqlStr>,
    connections: Arc<Connections>,
}

/// The open connections.
struct Connections {
    /// The runtime to which all connections belong: its threads are woken when the server sends something.
    runtime: Handle,
    /// One for each connection that may be in use.
    permits: Arc<Semaphore>,
    /// One for each connection that threads of lower priority may use.
    low_priority_permits: Arc<Semaphore>,
    max: u32,
    /// Those that are not in use; the one that was used last is at the end.
    unused: Mutex<Vec<PooledConnection>>,
}

struct PooledConnection {
    connection: PgConnection,
    opened: Instant,
    used: Instant,
}

/// A connection in use. Dropping it while its statement is under way waits in the background for the statement's end.
struct ConnectionInUse {
    connections: Arc<Connections>,
    permits: Option<Permits>,
    pooled: Option<PooledConnection>,
    statement: Duration,
}

/// Permits to use one connection.
struct Permits {
    _any: OwnedSemaphorePermit,
    _low_priority: Option<OwnedSemaphorePermit>,
}

/// A statement with bound values.
pub(super) type BoundQuery<'q> = Query<'q, Postgres, PgArguments>;

impl Pool {
    /// A pool that opens its first connection when the first statement is executed.
    pub(super) fn new(address: Address, limits: &Limits) -> Self {
        Self::with_connections(address, u32::try_from(limits.store_connections_max).unwrap_or(u32::MAX))
    }

    /// Like [`Pool::new`], at the address of a pooler in transaction mode.
    pub(super) fn behind_pooler(address: Address, limits: &Limits) -> Self {
        let begin = Some(address.begin());
        Self { begin, ..Self::new(address, limits) }
    }

    /// A pool of at most `max` connections, which belong to the current runtime.
    pub(super) fn with_connections(address: Address, max: u32) -> Self {
        let max = max.clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let connections = Connections {
            runtime: Handle::current(),
            permits: Arc::new(Semaphore::new(max as usize)),
            low_priority_permits: Arc::new(Semaphore::new((max / 2).max(1) as usize)),
            max,
            unused: Mutex::default(),
        };
        Self { address, begin: None, connections: Arc::new(connections) }
    }

    /// The runtime to which the connections belong.
    pub(super) fn runtime(&self) -> &Handle {
        &self.connections.runtime
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
        loop {
            let (mut in_use, pooled) = self.acquire().await?;
            let connection = &mut in_use.pooled.insert(pooled).connection;
            let error = match self.query_on(connection, make()).await {
                Ok(rows) => {
                    in_use.release();
                    return Ok(rows);
                }
                Err(error) => error,
            };
            match is_lost(&error) {
                // Dropped without closing it cleanly, which may hang.
                true => in_use.pooled = None,
                false => in_use.release(),
            }
            if !(is_lost(&error) || may_recover(&error)) || Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    /// A connection, within the connect timeout.
    async fn acquire(&self) -> Result<(ConnectionInUse, PooledConnection), sqlx::Error> {
        let deadline = Instant::now() + self.address.connect;
        let permits = timeout_at(deadline, self.connections.permits()).await;
        let permits = Some(permits.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?);
        let connections = self.connections.clone();
        let in_use = ConnectionInUse { connections, permits, pooled: None, statement: self.address.statement };
        let unused = self.connections.unused().pop();
        // Closed, if it is too old, without the lock.
        if let Some(pooled) = unused.filter(PooledConnection::is_fresh) {
            return Ok((in_use, pooled));
        }
        let mut pause = PAUSE_MIN;
        loop {
            let error = match timeout_at(deadline, self.connect()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(connection) => {
                    let now = Instant::now();
                    return Ok((in_use, PooledConnection { connection, opened: now, used: now }));
                }
                Err(error) => error,
            };
            let wait = pause.mul_f64(0.5 + fastrand::f64());
            if !may_recover(&error) || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A new connection, which belongs to the pool's runtime because a task there opens it.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let (address, keeps_settings) = (self.address.clone(), self.begin.is_none());
        let opening = self.connections.runtime.spawn(async move {
            match keeps_settings {
                true => address.connect().await,
                false => address.connect_without_settings().await,
            }
        });
        AbortOnDropHandle::new(opening).await.unwrap_or(Err(sqlx::Error::PoolClosed))
    }

    /// For a task that works for threads of lower priority: one of their connections. `None` once the pool is closed.
    pub(super) async fn low_priority_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.low_priority_permits.clone().acquire_owned().await.ok()
    }

    async fn query_on(&self, connection: &mut PgConnection, query: BoundQuery<'_>) -> Result<Vec<PgRow>, sqlx::Error> {
        let Some(begin) = &self.begin else { return self.address.within(query.fetch_all(connection)).await };
        let executed = async {
            let mut transaction = connection.begin_with(begin.clone()).await?;
            // An unnamed prepared statement. Until the transaction ends, the pooler gives the server's session to no
            // other client, whose unnamed statement would replace this one.
            match query.persistent(false).fetch_all(&mut *transaction).await {
                Ok(rows) => transaction.commit().await.map(|()| rows),
                Err(error) if is_lost(&error) => Err(error),
                Err(error) => transaction.rollback().await.and(Err(error)),
            }
        };
        self.address.within(executed).await
    }

    pub(super) async fn close(&self) {
        let Connections { permits, max, .. } = &*self.connections;
        // Statements in progress have a bound of their own.
        let _ = timeout(self.address.statement, permits.acquire_many(*max)).await;
        permits.close();
        self.connections.low_priority_permits.close();
        let unused = std::mem::take(&mut *self.connections.unused());
        let closing = futures_util::future::join_all(unused.into_iter().map(|pooled| pooled.connection.close()));
        let _ = timeout(self.address.statement, closing).await;
    }
}

impl PooledConnection {
    fn is_fresh(&self) -> bool {
        self.opened.elapsed() < AGE_MAX && self.used.elapsed() < UNUSED_MAX
    }
}

impl Connections {
    async fn permits(&self) -> Result<Permits, AcquireError> {
        let low_priority = match priority::is_lowered() {
            true => Some(self.low_priority_permits.clone().acquire_owned().await?),
            false => None,
        };
        Ok(Permits { _any: self.permits.clone().acquire_owned().await?, _low_priority: low_priority })
    }

    fn unused(&self) -> MutexGuard<'_, Vec<PooledConnection>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_back(&self, pooled: PooledConnection) {
        if self.permits.is_closed() {
            return;
        }
        let mut unused = self.unused();
        // The first was not used for the longest time.
        let is_old = unused.first().is_some_and(|first| !first.is_fresh());
        let old = is_old.then(|| unused.remove(0));
        unused.push(PooledConnection { used: Instant::now(), ..pooled });
        // Closed without the lock.
        drop(unused);
        drop(old);
    }
}

impl ConnectionInUse {
    /// Makes the connection available to others. Its statement has ended.
    fn release(mut self) {
        if let Some(pooled) = self.pooled.take() {
            self.connections.put_back(pooled);
        }
    }
}

impl Drop for ConnectionInUse {
    fn drop(&mut self) {
        let (Some(mut pooled), permits) = (self.pooled.take(), self.permits.take()) else { return };
        let (connections, statement) = (self.connections.clone(), self.statement);
        self.connections.runtime.spawn(async move {
            // Reads what is left of the statement's reply, and rolls back a transaction.
            if let Ok(Ok(())) = timeout(statement, pooled.connection.ping()).await {
                connections.put_back(pooled);
            }
            drop(permits);
        });
    }
}
