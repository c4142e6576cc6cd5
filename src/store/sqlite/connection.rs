//! The writer's one connection: held, never pooled, opened again after an error that leaves it in doubt. Its calls block:
//! they are made on the writer's own thread.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection as Sqlite;
use rusqlite::hooks::Wal;

use super::write_error::WriteError;

/// Statements that are kept prepared: more than the writer has.
const STATEMENTS_MAX: usize = 64;
/// How long a statement waits for another process that holds the file for a moment, such as a backup.
const BUSY: Duration = Duration::from_secs(5);

thread_local! {
    /// Pages in the log after the last commit of this thread.
    static LOGGED: Cell<u32> = const { Cell::new(0) };
}

/// Called by SQLite after each commit, instead of its own checkpoint: that would come before the commit returns.
fn note_logged(_: &Wal, pages: i32) -> rusqlite::Result<()> {
    LOGGED.set(pages.try_into().unwrap_or(0));
    Ok(())
}

/// How the writer opens the database.
#[derive(Clone)]
pub(in crate::store) struct Options {
    path: PathBuf,
    /// Pragmas beyond ours, each with its value.
    more: Vec<(&'static str, String)>,
}

impl Options {
    /// A commit is on disk when it returns. Checkpoints are made through the same connection (any other way was measured
    /// to be worse), after the commit has been acknowledged ([`Connection::checkpoint`]).
    pub(in crate::store) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), more: Vec::new() }
    }

    /// The same with one more pragma.
    #[cfg(test)]
    pub(in crate::store) fn pragma(mut self, name: &'static str, value: &str) -> Self {
        self.more.push((name, value.to_owned()));
        self
    }

    /// Opens the database, which is made where it is not there.
    pub(in crate::store) fn open(&self) -> rusqlite::Result<Sqlite> {
        let conn = Sqlite::open(&self.path)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        conn.busy_timeout(BUSY)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", synchronous())?;
        // What is deleted is overwritten: a run's key must not linger in a free page.
        conn.pragma_update(None, "secure_delete", "ON")?;
        conn.wal_hook(Some(note_logged));
        for (name, value) in &self.more {
            conn.pragma_update(None, name, value)?;
        }
        Ok(conn)
    }
}

/// Every commit is synced before it is acknowledged.
fn synchronous() -> &'static str {
    #[cfg(test)]
    if std::env::var(SYNCHRONOUS).is_ok_and(|said| said == "normal") {
        return "NORMAL";
    }
    "FULL"
}

/// What a test sets to see that it can fail.
#[cfg(test)]
pub(in crate::store) const SYNCHRONOUS: &str = "POINTSMAN_TEST_SYNCHRONOUS";

/// The connection, or what opens the next one.
pub(super) struct Connection {
    options: Options,
    open: Option<Sqlite>,
    /// Pages of the log that the last checkpoint found. It starts anew from none once all of them are in the database and
    /// nobody reads them.
    checkpointed: u32,
}

impl Connection {
    pub(super) fn new(options: Options, open: Sqlite) -> Self {
        Self { options, open: Some(open), checkpointed: 0 }
    }

    /// The open connection, or a new one.
    pub(super) fn get(&mut self) -> Result<&Sqlite, WriteError> {
        let open = match self.open.take() {
            Some(open) => open,
            // Nothing was begun on a connection that does not exist.
            None => self.options.open().map_err(|error| WriteError::NotWritten(error.to_string()))?,
        };
        Ok(self.open.insert(open))
    }

    /// Copies the log to the database once so many pages have come to it since the last time. Nothing waits for that but
    /// the next commit. What fails is tried again with later pages: the log has what the database lacks.
    pub(super) fn checkpoint(&mut self, pages: u32) {
        let logged = LOGGED.get();
        let before = if logged < self.checkpointed { 0 } else { self.checkpointed };
        let Some(open) = self.open.as_ref().filter(|_| logged - before >= pages) else { return };
        self.checkpointed = logged;
        if let Err(error) = open.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log was not copied to the database");
        }
    }

    /// Ends whatever transaction an error left open: plain statements after it would be lost with it. A connection
    /// that cannot end it is not used again.
    pub(super) fn roll_back(&mut self) {
        let Some(open) = &self.open else { return };
        if !open.is_autocommit() && open.execute_batch("ROLLBACK").is_err() {
            self.discard();
        }
    }

    /// Leaves the connection to itself; the next use opens a new one. Closing it is not waited for: it may hang on the
    /// disk.
    pub(super) fn discard(&mut self) {
        if let Some(open) = self.open.take() {
            // Where no thread is to be had it is closed here.
            let _ = std::thread::Builder::new().name("store-closes".into()).spawn(move || drop(open));
        }
    }

    /// Commits something harmless on a fresh connection. Once that has succeeded, a transaction that was in doubt is
    /// either seen by reads or will never be: its rest in the log has been written over.
    pub(super) fn probe(&mut self, now_ns: i64) -> Result<(), WriteError> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', ?) \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let done = self.get()?.execute(text, [now_ns]);
        if done.is_err() {
            self.discard();
        }
        done.map(drop).map_err(WriteError::from)
    }

    /// Closes it and waits for that.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err((_, error)) = open.close()
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}
