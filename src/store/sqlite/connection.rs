//! The writer's only connection. It is opened again after an error that leaves its state unknown. Its calls block the
//! writer's thread.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection as Sqlite;
use rusqlite::hooks::Wal;

use super::open_files::OpenFiles;
use crate::store::write_error::WriteError;

/// Statements that stay prepared: more than the writer has.
const STATEMENTS_MAX: usize = 64;
/// How long a statement waits for a lock on the file, such as a backup takes for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// The number of pages in the write-ahead log after the last commit of this thread.
    static WAL_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// SQLite calls this after each commit instead of making a checkpoint, which would run before the commit returns.
fn note_wal_pages(_: &Wal, pages: i32) -> rusqlite::Result<()> {
    WAL_PAGES.set(pages.try_into().unwrap_or(0));
    Ok(())
}

/// The options with which the writer opens the database.
#[derive(Clone)]
pub(in crate::store) struct Options {
    path: PathBuf,
    /// Additional pragmas, each with its value.
    more: Vec<(&'static str, String)>,
}

impl Options {
    /// Every commit is synced. Checkpoints run on this connection too, because all alternatives were slower; each runs
    /// after its commit was acknowledged ([`Connection::checkpoint`]).
    pub(in crate::store) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), more: Vec::new() }
    }

    /// Adds a pragma.
    #[cfg(test)]
    pub(in crate::store) fn pragma(mut self, name: &'static str, value: &str) -> Self {
        self.more.push((name, value.to_owned()));
        self
    }

    /// Opens the database; creates it if it does not exist.
    pub(in crate::store) fn open(&self) -> rusqlite::Result<Sqlite> {
        let conn = Sqlite::open(&self.path)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", synchronous())?;
        // Overwrites what is deleted: the key of an ended run must not stay in a free page.
        conn.pragma_update(None, "secure_delete", "ON")?;
        conn.wal_hook(Some(note_wal_pages));
        for (name, value) in &self.more {
            conn.pragma_update(None, name, value)?;
        }
        Ok(conn)
    }
}

/// `FULL`: every commit is synced before it is acknowledged.
fn synchronous() -> &'static str {
    #[cfg(test)]
    if std::env::var(SYNCHRONOUS).is_ok_and(|value| value == "normal") {
        return "NORMAL";
    }
    "FULL"
}

/// The environment variable by which a test turns the sync off, to prove that it detects lost commits.
#[cfg(test)]
pub(in crate::store) const SYNCHRONOUS: &str = "POINTSMAN_TEST_SYNCHRONOUS";

/// The open connection, if any, and the options to open the next one.
pub(super) struct Connection {
    options: Options,
    open: Option<Sqlite>,
    files: OpenFiles,
    /// Which file was no longer at its path at the last look, and what to do. Nothing is written meanwhile.
    missing: Option<String>,
    /// The number of pages in the log at the last checkpoint. SQLite starts to write the log from its beginning again
    /// once all pages are in the database and nobody reads them; the log then has fewer pages than this.
    pages_at_checkpoint: u32,
}

impl Connection {
    pub(super) fn new(options: Options, open: Sqlite, files: OpenFiles) -> Self {
        Self { options, open: Some(open), files, missing: None, pages_at_checkpoint: 0 }
    }

    /// The open connection, or a new one. An error if a file was not at its path at the last look.
    pub(super) fn get(&mut self) -> Result<&Sqlite, WriteError> {
        if let Some(why) = &self.missing {
            return Err(WriteError::NotWritten(why.clone()));
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                // Certain: without a connection no transaction was begun.
                let open = self.options.open().map_err(|error| WriteError::NotWritten(error.to_string()))?;
                self.files.note_log();
                open
            }
        };
        Ok(self.open.insert(open))
    }

    /// Looks whether the files are still at their paths. If one is not since this look, returns which, and what to do.
    pub(super) fn look_at_files(&mut self) -> Option<WriteError> {
        let was_missing = self.missing.is_some();
        self.missing = self.files.missing(self.open.is_some());
        let why = self.missing.clone().filter(|_| !was_missing)?;
        // If only the log was removed, this connection still reads it: what was acknowledged is not lost then.
        self.copy_log();
        Some(WriteError::NotWritten(why))
    }

    /// Copies the log to the database (checkpoint) if it has grown by at least this many pages. Only the next commit
    /// waits for it. After an error nothing is lost, because the log keeps what the database lacks; a later call tries
    /// again.
    pub(super) fn checkpoint(&mut self, pages: u32) {
        let wal_pages = WAL_PAGES.get();
        let before = if wal_pages < self.pages_at_checkpoint { 0 } else { self.pages_at_checkpoint };
        if self.open.is_some() && wal_pages - before >= pages {
            self.pages_at_checkpoint = wal_pages;
            self.copy_log();
        }
    }

    fn copy_log(&self) {
        let Some(open) = &self.open else { return };
        if let Err(error) = open.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log was not copied to the database");
        }
    }

    /// Rolls back a transaction that an error left open: later statements would otherwise be part of it and be lost. A
    /// connection that cannot roll back is discarded.
    pub(super) fn roll_back(&mut self) {
        let Some(open) = &self.open else { return };
        if !open.is_autocommit() && open.execute_batch("ROLLBACK").is_err() {
            self.discard();
        }
    }

    /// Discards the connection; the next use opens a new one. It is closed in the background, because closing may hang
    /// on the disk.
    pub(super) fn discard(&mut self) {
        if let Some(open) = self.open.take() {
            // If no thread can be started, it is closed here.
            let _ = std::thread::Builder::new().name("store-closes".into()).spawn(move || drop(open));
        }
    }

    /// Commits a harmless row. Called on a new connection. Once it succeeds, a transaction with an unknown outcome is
    /// either visible to reads or never will be, because its frames in the WAL are overwritten.
    pub(super) fn probe(&mut self, now_ns: i64) -> Result<(), WriteError> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', ?) \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let done = self.get()?.execute(text, [now_ns]);
        if done.is_err() {
            self.discard();
        }
        done.map(drop).map_err(WriteError::from)
    }

    /// Closes the connection and waits for it.
    pub(super) fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err((_, error)) = open.close()
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}
