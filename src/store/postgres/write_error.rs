//! Classifies database errors by what they say about the write that failed.

use std::time::Duration;

use crate::store::write_error::WriteError;

/// The SQLSTATE that `append_runs` and `refuse_legacy_keys` raise for an invalid batch.
const INVALID_BATCH: &str = "PM001";
/// Read-only transaction: the server is a former primary. It still answers pings.
const READ_ONLY: &str = "25006";

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match ended_session(&error) {
            // The server rolled the statement back and kept the session: deadlock, timeout, full disk or the like.
            Some(false) => match code(&error) {
                Some(code) if code == INVALID_BATCH || code.starts_with("23") => WriteError::Constraint(text),
                _ => WriteError::NotWritten(text),
            },
            // The session or the connection ended, perhaps between the commit and its reply.
            Some(true) | None => WriteError::Unknown(text),
        }
    }
}

/// Whether a connection is unusable after an error.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    ended_session(error) != Some(false) || code(error).is_some_and(|code| code == READ_ONLY)
}

/// Whether a later attempt to connect may succeed: the server starts, recovers, shuts down, is full, or does not
/// listen.
pub(super) fn may_recover(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::NotFound
        ),
        error => code(error).is_some_and(|code| code.starts_with("57P") || code == "53300"),
    }
}

/// Whether an error of reading says that a page or a value is damaged.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    // Corrupt data, and a corrupt index.
    code(error).is_some_and(|code| code == "XX001" || code == "XX002")
}

/// Whether an error says that a prepared statement was lost, or is another client's: behind a pooler in transaction
/// mode a connection is not one session of the server.
pub(super) fn is_of_pooler(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code == "26000" || code == "42P05")
}

/// The error for a wait that exceeded its bound.
pub(super) fn timed_out(what: &str, waited: Duration) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{what} for {} ms", waited.as_millis())))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Whether the server ended the session with this error; `None` if the error is not the server's.
fn ended_session(error: &sqlx::Error) -> Option<bool> {
    use sqlx::postgres::{PgDatabaseError, PgSeverity};
    let server_error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some(matches!(server_error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
