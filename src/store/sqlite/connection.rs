//! The writer's only connection. It is opened again after an error that leaves its state unknown. Its calls block the
//! writer's thread.
//!
//! Always true: nothing is written while a file of the database is not at its path, or while the log is shorter than
//! what SQLite has written to it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection as Sqlite;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;

use super::index_room::IndexRoom;
use super::open_files::{MovedFile, OpenFiles};
use crate::store::write_error::WriteError;

/// Statements that stay prepared: more than the writer has.
const STATEMENTS_MAX: usize = 64;
/// How long a statement waits for a lock on the file, such as a backup takes for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The header of the write-ahead log, and that of each page in it.
const LOG_HEADER_BYTES: u64 = 32;
const LOG_PAGE_HEADER_BYTES: u64 = 24;

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

/// The state of the log after a checkpoint.
#[derive(Clone, Copy)]
struct LogPages {
    /// The pages in the log; negative if another connection makes a checkpoint at this moment.
    all: i64,
    /// How many of these pages the database has.
    copied: i64,
}

impl LogPages {
    fn is_copied(self) -> bool {
        self.all >= 0 && self.all == self.copied
    }
}

/// Says how much of a removed log is not in the database yet, and to wait for it.
fn uncopied(pages: Option<LogPages>) -> String {
    let why = match pages {
        Some(LogPages { all, copied }) if all >= 0 => {
            format!("{} of the log's {all} pages are not, because something still reads an older state", all - copied)
        }
        Some(_) | None => "the log could not be copied".to_owned(),
    };
    format!(
        "but wait until all that was acknowledged is in the database, which is tried each second; a kill before that \
         loses events and may damage the database: {why}"
    )
}

/// The size of a page of the database; SQLite's smallest one if it cannot be read.
fn page_bytes(open: &Sqlite) -> u64 {
    open.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)).map_or(512, i64::unsigned_abs)
}

/// The open connection, if any, and the options to open the next one.
pub(super) struct Connection {
    options: Options,
    open: Option<Sqlite>,
    files: Arc<OpenFiles>,
    /// The room for the index of the log; `None` unless the file system has small blocks.
    room: Option<IndexRoom>,
    /// What was wrong with the files at the last check, and what to do. Nothing is written meanwhile.
    problem: Option<String>,
    /// Whether the database has all that is in a log which was removed.
    is_log_copied: bool,
    /// The size of a page.
    page_bytes: u64,
    /// The number of pages in the log at the last checkpoint. SQLite starts to write the log from its beginning again
    /// once all pages are in the database and nobody reads them; the log then has fewer pages than this.
    pages_at_checkpoint: u32,
}

impl Connection {
    pub(super) fn new(options: Options, open: Sqlite, files: Arc<OpenFiles>, room: Option<IndexRoom>) -> Self {
        let page_bytes = page_bytes(&open);
        let (open, problem) = (Some(open), None);
        Self { options, open, files, room, problem, is_log_copied: false, page_bytes, pages_at_checkpoint: 0 }
    }

    /// The open connection, or a new one. An error if something was wrong with the files at the last check.
    pub(super) fn get(&mut self) -> Result<&Sqlite, WriteError> {
        if let Some(why) = &self.problem {
            return Err(WriteError::NotWritten(why.clone()));
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                // Certain: without a connection no transaction was begun.
                let open = self
                    .options
                    .open()
                    .map_err(|error| WriteError::NotWritten(WriteError::from(error).text().to_owned()))?;
                self.files.note_log();
                // The pages of the last connection's log, which SQLite may have removed.
                WAL_PAGES.set(0);
                open
            }
        };
        Ok(self.open.insert(open))
    }

    /// Checks that the files are still at their paths, and that the log is complete. If something is wrong that was not
    /// wrong at the last check, returns what is wrong and what to do.
    pub(super) fn check_files(&mut self) -> Option<WriteError> {
        let before = self.problem.take();
        self.problem = match self.files.find() {
            Ok(log_bytes) => log_bytes.and_then(|bytes| self.lost_pages(bytes)),
            Err(missing) => {
                // What was acknowledged is in the log, which this connection still reads. It tries again at each check,
                // since a reader may keep it from copying all.
                let pages = (!self.is_log_copied).then(|| self.checkpoint_pragma("PASSIVE")).flatten();
                self.is_log_copied |= pages.is_some_and(LogPages::is_copied);
                Some(match missing {
                    MovedFile::Database(text) => text,
                    MovedFile::Log(text) if self.is_log_copied => {
                        format!("{text}; all that was acknowledged is in the database")
                    }
                    MovedFile::Log(text) => format!("{text}; {}", uncopied(pages)),
                })
            }
        };
        let Some(why) = &self.problem else {
            self.is_log_copied = false;
            return None;
        };
        (before.as_ref() != Some(why)).then(|| WriteError::NotWritten(why.clone()))
    }

    /// Says that the log is too short for the pages that SQLite has written to it, because somebody has truncated it.
    fn lost_pages(&self, log_bytes: u64) -> Option<String> {
        if log_bytes >= self.log_bytes_min(WAL_PAGES.get()) {
            return None;
        }
        // Another program may have emptied it by a checkpoint: SQLite knows of no pages in it then.
        let LogPages { all, copied } = self.checkpoint_pragma("NOOP")?;
        let pages = u32::try_from(all).unwrap_or(0);
        if log_bytes >= self.log_bytes_min(pages) {
            WAL_PAGES.set(pages);
            return None;
        }
        let log = self.files.log().display();
        let remedy = match all == copied {
            true => "all that was acknowledged is in the database: stop this process (SIGTERM) and start it again"
                .to_owned(),
            false => format!(
                "{} of its {all} pages were not in the database yet, so that acknowledged events are lost: stop this \
                 process, restore a backup and start again",
                all - copied
            ),
        };
        Some(format!("the file {log} was truncated while it is open: {remedy}"))
    }

    /// The least size of a log with this many pages.
    fn log_bytes_min(&self, pages: u32) -> u64 {
        match pages {
            0 => 0,
            pages => LOG_HEADER_BYTES + u64::from(pages) * (LOG_PAGE_HEADER_BYTES + self.page_bytes),
        }
    }

    /// Copies the log to the database (checkpoint) if it has grown by at least this many pages. Only the next commit
    /// waits for it. After an error nothing is lost, because the log keeps what the database lacks; a later call tries
    /// again. Also reserves room for what the log's index may need for the next commits.
    pub(super) fn checkpoint(&mut self, pages: u32) {
        let wal_pages = WAL_PAGES.get();
        if let Some(room) = &mut self.room {
            room.reserve(wal_pages.into());
        }
        let before = if wal_pages < self.pages_at_checkpoint { 0 } else { self.pages_at_checkpoint };
        if self.open.is_some() && self.problem.is_none() && wal_pages - before >= pages {
            self.pages_at_checkpoint = wal_pages;
            self.checkpoint_pragma("PASSIVE");
        }
    }

    /// Makes a checkpoint in this mode; `NOOP` only reads the state of the log. `None` without a connection, or after
    /// an error.
    fn checkpoint_pragma(&self, mode: &str) -> Option<LogPages> {
        let row = |row: &rusqlite::Row<'_>| Ok(LogPages { all: row.get(1)?, copied: row.get(2)? });
        let done = self.open.as_ref()?.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], row);
        done.inspect_err(|error| tracing::debug!(%error, mode, "the checkpoint failed")).ok()
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
            self.files.forget_log();
            // If no thread can be started, it is closed here.
            let _ = std::thread::Builder::new().name("store-closes".into()).spawn(move || drop(open));
        }
    }

    /// Commits a harmless row. Once it succeeds on a new connection, a transaction with an unknown outcome is either
    /// visible to reads or never will be, because its frames in the WAL are overwritten.
    pub(super) fn probe(&mut self, now_ns: i64) -> Result<(), WriteError> {
        let text = "INSERT INTO meta (key, value) VALUES ('probe', ?) \
                    ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let done = self.get()?.execute(text, [now_ns]);
        if done.is_err() {
            self.discard();
        }
        done.map(drop).map_err(WriteError::from)
    }

    /// Copies the whole log to the database, empties it, and has SQLite leave both files beside the database when the
    /// connection is closed. Opening a database needs 32 KiB for the index of the log (`-shm`): if SQLite removed it,
    /// the next start could fail on a disk that has become full.
    ///
    /// If the log cannot be emptied, or is not the file that this connection wrote, SQLite does what it always does: it
    /// removes both files once the database has everything.
    fn keep_files(&mut self) {
        let _ = self.check_files();
        let Some(open) = self.open.as_ref().filter(|_| self.problem.is_none()) else { return };
        // The end of the process does not wait for another program that reads the database.
        let _ = open.busy_timeout(Duration::ZERO);
        self.checkpoint_pragma("TRUNCATE");
        if matches!(self.files.find(), Ok(Some(0)))
            && let Err(error) = open.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::debug!(%error, "the files beside the database are not kept");
        }
    }

    /// Closes the connection and waits for it.
    pub(super) fn close(&mut self) {
        self.keep_files();
        if let Some(open) = self.open.take()
            && let Err((_, error)) = open.close()
        {
            tracing::warn!(%error, "the store's connection did not close cleanly; nothing acknowledged is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// An open connection in this directory.
    fn connection(dir: &Path, room: Option<IndexRoom>) -> Connection {
        let path = dir.join("test.db");
        let options = Options::new(&path);
        let open = options.open().unwrap();
        open.execute_batch("CREATE TABLE t (x)").unwrap();
        // Not closed: that would release SQLite's locks on it.
        let file: &'static File = Box::leak(Box::new(File::open(&path).unwrap()));
        Connection::new(options, open, Arc::new(OpenFiles::new(&path, file).unwrap()), room)
    }

    #[test]
    fn room_for_the_index_is_reserved_as_the_log_grows() {
        let dir = tempfile::tempdir().unwrap();
        let index = tempfile::tempfile().unwrap();
        let mut connection = connection(dir.path(), Some(IndexRoom::of(index)));
        WAL_PAGES.set(9_000);
        connection.checkpoint(u32::MAX);
        assert_eq!(connection.room.as_ref().map(IndexRoom::bytes), Some(4 * 32_768));
        WAL_PAGES.set(0);
        connection.close();
    }

    /// Takes 5 s: so long SQLite waits for the lock.
    #[test]
    fn a_connection_that_cannot_be_opened_again_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connection(dir.path(), None);
        connection.close();
        let other = connection.options.clone().pragma("locking_mode", "EXCLUSIVE").open().unwrap();
        other.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1); COMMIT").unwrap();
        let error = connection.get().expect_err("another connection holds the database");
        assert!(matches!(error, WriteError::NotWritten(_)), "{error:?}");
        assert!(error.text().contains("`fuser`"), "{error:?}");
    }
}
