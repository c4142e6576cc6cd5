//! What an error of the database means for what was being written.

use std::time::Duration;

/// Three kinds, because the writer does three different things.
#[derive(Debug)]
pub(super) enum WriteError {
    /// A rule of the schema was broken: nothing of the transaction stays, look which append it was.
    Constraint(String),
    /// Nothing was written, for sure.
    NotWritten(String),
    /// It may be on disk or not: ask when the session is over for sure.
    Unknown(String),
}

impl WriteError {
    pub(super) fn text(&self) -> &str {
        match self {
            WriteError::Constraint(text) | WriteError::NotWritten(text) | WriteError::Unknown(text) => text,
        }
    }
}

/// What our own function says where a batch breaks a rule.
const RULE_BROKEN: &str = "PM001";
/// Read-only: a primary that was made a standby, which answers every ping.
const READ_ONLY: &str = "25006";

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match ended_session(&error) {
            // The server said so of the statement and took it back: deadlock, time-out, full disk, read-only, ….
            Some(false) => match code(&error) {
                Some(code) if code == RULE_BROKEN || code.starts_with("23") => WriteError::Constraint(text),
                _ => WriteError::NotWritten(text),
            },
            // It ended the session, maybe between the commit and the reply; or the connection is gone.
            Some(true) | None => WriteError::Unknown(text),
        }
    }
}

/// Whether a connection is of no more use after an error.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    ended_session(error) != Some(false) || code(error).is_some_and(|code| code == READ_ONLY)
}

/// Whether a server may still come: it starts, recovers, shuts down, has no place left, or nobody listens yet.
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

/// What the other side did not do in time.
pub(super) fn timed_out(what: &str, waited: Duration) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{what} for {} ms", waited.as_millis())))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Of what the server said: whether it ended the session with it.
fn ended_session(error: &sqlx::Error) -> Option<bool> {
    use sqlx::postgres::{PgDatabaseError, PgSeverity};
    let said = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    Some(matches!(said.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
