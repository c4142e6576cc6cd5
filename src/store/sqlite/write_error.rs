//! What an error of the database means for what was being written.

/// Three kinds, because the writer does three different things.
#[derive(Debug)]
pub(super) enum WriteError {
    /// A row broke a rule of the schema: nothing of the transaction stays, look which append it was.
    Constraint(String),
    /// Nothing was written, for sure.
    NotWritten(String),
    /// It may be on disk or not: ask a fresh connection.
    Unknown(String),
}

impl WriteError {
    pub(super) fn text(&self) -> &str {
        match self {
            WriteError::Constraint(text) | WriteError::NotWritten(text) | WriteError::Unknown(text) => text,
        }
    }
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let Some(code) = error.sqlite_error().map(|error| error.extended_code) else {
            // A value that was read is not what its column should hold: nothing is written after it.
            return WriteError::NotWritten(text);
        };
        match code & 0xff {
            19 => WriteError::Constraint(text),
            // SQL logic, busy, locked, read-only, too big. And full: SQLite says so where writing failed, and the mark
            // that makes a transaction whole in the log is the last thing written; what `fsync` says is another code.
            1 | 5 | 6 | 8 | 13 | 18 => WriteError::NotWritten(text),
            // The same, where files may not grow further: SQLite has no word of its own for it.
            10 if code == WRITE_FAILED && is_limited() => {
                WriteError::NotWritten(format!("{text}: the limit on file sizes (`ulimit -f`) is reached"))
            }
            _ => WriteError::Unknown(text),
        }
    }
}

/// An error as people are told: with what to do, where the file is not what it should be.
pub(super) fn describe(error: &sqlx::Error) -> String {
    match primary_code(error) {
        // Corrupt, and not a database.
        Some(11 | 26) => format!(
            "{error}: the file is damaged, or another program's; restore a backup (`pointsman store backup` makes \
             them), or give another file with --store; nothing was changed"
        ),
        Some(_) | None => error.to_string(),
    }
}

/// `SQLITE_IOERR_WRITE`.
const WRITE_FAILED: i32 = 778;

/// Whether this process may write files of some size only.
fn is_limited() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some()
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    // The extended result code of SQLite, where it is SQLite's.
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
