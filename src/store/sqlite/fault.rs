//! What an error of the database means for what was being written.

/// Three kinds, because the writer does three different things.
#[derive(Debug)]
pub(super) enum Fault {
    /// A row broke a rule of the schema: nothing of the transaction stays, look which append it was.
    Constraint(String),
    /// Nothing was written, for sure.
    Sure(String),
    /// It may be on disk or not: ask a fresh connection.
    Unclear(String),
}

impl Fault {
    pub(super) fn text(&self) -> &str {
        match self {
            Fault::Constraint(text) | Fault::Sure(text) | Fault::Unclear(text) => text,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match primary_code(&error) {
            Some(19) => Fault::Constraint(text),
            // SQL logic, busy, locked, read-only, too big. And full: SQLite says so where writing failed, and the mark
            // that makes a transaction whole in the log is the last thing written; what `fsync` says is another code.
            Some(1 | 5 | 6 | 8 | 13 | 18) => Fault::Sure(text),
            // The same, where files may not grow further: SQLite has no word of its own for it.
            Some(10) if code(&error) == Some(WRITE_FAILED) && is_limited() => {
                Fault::Sure(format!("{text}: the limit on file sizes (`ulimit -f`) is reached"))
            }
            Some(_) | None => Fault::Unclear(text),
        }
    }
}

/// An error as people are told: with what to do, where the file is not what it should be.
pub(super) fn told(error: &sqlx::Error) -> String {
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

/// The extended result code of SQLite, where it is SQLite's.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    code(error).map(|code| code & 0xff)
}
