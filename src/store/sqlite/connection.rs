//! The writer's one connection: held, never pooled, opened again after an error that leaves it in doubt.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, Executor, SqlSafeStr};

use super::fault::Fault;
use super::statements::TEXTS_MAX;

/// How the writer opens the database. A commit is on disk when it returns; checkpoints are left to it (any other way
/// was measured to be worse).
pub(in crate::store) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous())
        // What is deleted is overwritten: a run's key must not linger in a free page.
        .pragma("secure_delete", "ON")
        .statement_cache_capacity(TEXTS_MAX)
        .thread_name(|_| "store-writer".to_owned())
        .disable_statement_logging()
}

/// Every commit is synced before it is acknowledged.
fn synchronous() -> SqliteSynchronous {
    #[cfg(test)]
    if std::env::var(SYNCHRONOUS).is_ok_and(|said| said == "normal") {
        return SqliteSynchronous::Normal;
    }
    SqliteSynchronous::Full
}

/// What a test sets to see that it can fail.
#[cfg(test)]
pub(in crate::store) const SYNCHRONOUS: &str = "POINTSMAN_TEST_SYNCHRONOUS";

/// The connection, or what opens the next one.
pub(super) struct Connection {
    options: SqliteConnectOptions,
    open: Option<SqliteConnection>,
}

impl Connection {
    pub(super) fn new(options: SqliteConnectOptions, open: SqliteConnection) -> Self {
        Self { options, open: Some(open) }
    }

    /// The open connection, or a new one.
    pub(super) async fn get(&mut self) -> Result<&mut SqliteConnection, Fault> {
        let open = match self.open.take() {
            Some(open) => open,
            // Nothing was begun on a connection that does not exist.
            None => {
                SqliteConnection::connect_with(&self.options).await.map_err(|error| Fault::Sure(error.to_string()))?
            }
        };
        Ok(self.open.insert(open))
    }

    /// Ends whatever transaction an error left open: plain statements after it would be lost with it. A connection
    /// that cannot say that it has none is not used again.
    pub(super) async fn roll_back(&mut self) {
        let Some(open) = &mut self.open else { return };
        match open.execute("ROLLBACK".into_sql_str()).await {
            Ok(_) => {}
            Err(error) if error.to_string().contains("no transaction is active") => {}
            Err(_) => self.drop_it(),
        }
    }

    /// Leaves the connection to itself; the next use opens a new one. It is not waited for: it may hang on the disk.
    pub(super) fn drop_it(&mut self) {
        self.open = None;
    }

    /// Commits something harmless on a fresh connection. Once that has succeeded, a transaction that was in doubt is
    /// either seen by reads or will never be: its rest in the log has been written over.
    pub(super) async fn probe(&mut self, now_ns: i64) -> Result<(), Fault> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', ?) \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let open = self.get().await?;
        let done = sqlx::query(text).bind(now_ns).execute(open).await;
        if done.is_err() {
            self.drop_it();
        }
        done.map(|_| ()).map_err(Fault::from)
    }

    /// Closes it and waits for that.
    pub(super) async fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.close().await
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}
