//! Classifies database errors by what they say about the write that failed.

use crate::store::write_error::WriteError;

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(code) = error.sqlite_error().map(|error| error.extended_code) else {
            // A value that was read has the wrong type. The transaction was not committed.
            return WriteError::NotWritten(text);
        };
        match code & 0xff {
            19 => WriteError::Constraint(text),
            BUSY => WriteError::NotWritten(format!("{text}: {HELD}")),
            // SQL logic, locked, read-only, full, too big. `SQLITE_FULL` comes from a failed write: the commit
            // frame is the last one written to the WAL, so it is missing. A failed `fsync` has another code.
            1 | 6 | 8 | 13 | 18 => WriteError::NotWritten(text),
            // Also a failed write, at the limit on file sizes; SQLite has no code of its own for it.
            10 if code == WRITE_FAILED && has_file_size_limit() => {
                WriteError::NotWritten(format!("{text}: the limit on file sizes (`ulimit -f`) is reached"))
            }
            _ => WriteError::Unknown(text),
        }
    }
}

/// The text of an error for people; for a damaged file, a full disk and a locked file it says what to do.
pub(super) fn describe(error: &sqlx::Error) -> String {
    if extended_code(error) == Some(INDEX_NOT_EXTENDED) {
        return format!(
            "{error}: the disk is full (or a quota or limit on file sizes is reached): the file `-shm` beside the \
             database needs 32 KiB; make room and start again; nothing was changed"
        );
    }
    match primary_code(error) {
        Some(FULL) => format!("{error}: the disk is full; make room and start again"),
        Some(BUSY) => format!("{error}: {HELD}"),
        // The second code: not a database.
        Some(CORRUPT | 26) => format!(
            "{error}: the file is damaged, or another program's, or a copy beside which `-wal` of the earlier file was \
             left; move the files `-wal` and `-shm` beside it elsewhere and restore a backup (`pointsman store backup` \
             makes them), or give another file with --store; nothing was changed"
        ),
        Some(_) | None => error.to_string(),
    }
}

/// Whether an error of reading says that the file or a value in it is damaged.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) || primary_code(error) == Some(CORRUPT)
}

/// What [`BUSY`] means: it comes after a wait of 5 s.
const HELD: &str = "another program holds the database (a long write, or `locking_mode=exclusive`); end that program \
                    (`fuser` with the path of the database finds it) and try again";

/// `SQLITE_BUSY`.
const BUSY: i32 = 5;

/// `SQLITE_CORRUPT`.
const CORRUPT: i32 = 11;

/// `SQLITE_FULL`.
const FULL: i32 = 13;

/// `SQLITE_IOERR_SHMSIZE`: the index of the log has no room on the disk.
const INDEX_NOT_EXTENDED: i32 = 4_874;

/// `SQLITE_IOERR_WRITE`.
const WRITE_FAILED: i32 = 778;

/// Whether this process has a limit on file sizes.
fn has_file_size_limit() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some()
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
