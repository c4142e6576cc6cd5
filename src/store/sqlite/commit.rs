//! Commits one batch and answers each of its appends.
//!
//! Always true: an append is acknowledged only after the commit that contains it; an invalid append fails alone. If the
//! outcome of a commit is unknown, the appends are looked up on a new connection; only if that fails too is the answer
//! `Unavailable`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection as Sqlite;

use super::connection::Connection;
use super::encoded::{EncodedAppend, nanos, newest_expired};
use super::notifier::Notifier;
use super::validate::AppendDecision;
use super::write_append::{RunningCache, UsualStatements, WriteTime, validate, write_append};
use crate::clock;
use crate::store::write_error::WriteError;
use crate::store::{AppendError, RepeatedFailures};

/// The most attempts to look up a commit with an unknown outcome, in a store that was healthy until then.
const LOOKUPS_MAX: u32 = 3;
/// The pause after the first attempt; doubled after each further one.
const LOOKUP_PAUSE: Duration = Duration::from_millis(50);

/// The writer's connection, with caches of what was written through it.
pub(super) struct Committer {
    pub(super) conn: Connection,
    pub(super) notifier: Notifier,
    cache: RunningCache,
    retry_window: Duration,
    /// The last error, to show to people.
    pub(super) write_failure: Arc<Mutex<Option<String>>>,
    logged_failures: RepeatedFailures,
}

impl Committer {
    pub(super) fn new(conn: Connection, notifier: Notifier, retry_window: Duration) -> Self {
        let (cache, write_failure, logged_failures) = Default::default();
        Self { conn, notifier, cache, retry_window, write_failure, logged_failures }
    }

    /// The current time, and the time before which retry keys have expired.
    pub(super) fn now(&self) -> WriteTime {
        WriteTime { ns: nanos(clock::now()), retry_keys_since: newest_expired(self.retry_window) }
    }

    /// Commits the valid appends and answers all.
    pub(super) fn commit(&mut self, appends: Vec<EncodedAppend>, healthy: &AtomicBool) {
        let now = self.now();
        match self.try_commit(&appends, now) {
            Ok(outcomes) => {
                healthy.store(true, Ordering::Release);
                self.answer(appends, outcomes, now);
            }
            // A row violates a constraint that is not validated: commit each append by itself, so that it fails alone.
            Err(WriteError::Constraint(_)) if appends.len() > 1 => {
                for append in appends {
                    self.commit(vec![append], healthy);
                }
            }
            Err(error) => {
                let outcomes = self.resolve_failure(&appends, error, healthy);
                self.answer(appends, outcomes, now);
            }
        }
    }

    fn answer(&mut self, appends: Vec<EncodedAppend>, outcomes: Vec<AppendDecision>, now: WriteTime) {
        for (append, outcome) in appends.into_iter().zip(outcomes) {
            let done = match outcome {
                AppendDecision::Write(_) | AppendDecision::AlreadyStored => Ok(()),
                AppendDecision::Reject(error) => Err(error),
            };
            if done.is_ok() {
                self.notifier.append_committed(&append, now.ns);
            }
            // The receiver may be dropped: what is written stays written.
            let _ = append.reply.send(done);
        }
    }

    /// Writes the valid appends in one transaction, which is rolled back after an error.
    fn try_commit(&mut self, appends: &[EncodedAppend], now: WriteTime) -> Result<Vec<AppendDecision>, WriteError> {
        let done = match self.conn.get() {
            Ok(conn) => transact(conn, appends, &mut self.cache, now),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.cache.clear();
            self.conn.roll_back();
        }
        done
    }

    /// Like [`Committer::note_failure`], for a commit that failed. The failure is logged too, once a minute while it
    /// goes on.
    pub(super) fn note_failed_commit(&self, error: &WriteError) {
        self.note_failure(error);
        if let Some(unlogged) = self.logged_failures.count(error.text()) {
            tracing::error!(
                error = error.text(),
                unlogged,
                "the store did not commit: nothing of this commit was acknowledged"
            );
        }
    }

    /// Records the error that is shown while the store accepts no commits.
    fn note_failure(&self, error: &WriteError) {
        *self.write_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.text().to_owned());
    }

    /// Determines the outcome of each append after the commit failed or its outcome is unknown.
    fn resolve_failure(
        &mut self,
        appends: &[EncodedAppend],
        error: WriteError,
        healthy: &AtomicBool,
    ) -> Vec<AppendDecision> {
        let was_healthy = healthy.swap(false, Ordering::AcqRel);
        self.note_failed_commit(&error);
        match &error {
            WriteError::Constraint(text) => {
                // The database works: only this batch is refused.
                healthy.store(true, Ordering::Release);
                refuse(appends, text)
            }
            WriteError::NotWritten(text) => refuse(appends, text),
            WriteError::Unknown(text) => match self.look_up(appends, was_healthy) {
                Ok(outcomes) => {
                    healthy.store(true, Ordering::Release);
                    let lost = || AppendError::Refused(format!("{text}; a look-up shows that it was not written"));
                    let settle = |outcome| {
                        if let AppendDecision::Write(_) = outcome { AppendDecision::Reject(lost()) } else { outcome }
                    };
                    outcomes.into_iter().map(settle).collect()
                }
                Err(lookup) => {
                    let text = format!("{text}; looking up what was written failed too: {}", lookup.text());
                    appends.iter().map(|_| AppendDecision::Reject(AppendError::Unavailable(text.clone()))).collect()
                }
            },
        }
    }

    /// Finds out on a new connection which appends are stored. Those with the outcome `Write` are not.
    fn look_up(&mut self, appends: &[EncodedAppend], was_healthy: bool) -> Result<Vec<AppendDecision>, WriteError> {
        let mut pause = LOOKUP_PAUSE;
        let mut lookups = if was_healthy { LOOKUPS_MAX } else { 1 };
        loop {
            self.conn.discard();
            lookups -= 1;
            let now = self.now();
            let outcomes = match self.conn.probe(now.ns) {
                Ok(()) => match self.conn.get() {
                    Ok(conn) => appends.iter().map(|append| validate(conn, append, now)).collect(),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match outcomes {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) if lookups == 0 => return Err(error),
                Err(_) => {
                    // Only blocks the writer's thread; waking early is harmless.
                    std::thread::park_timeout(pause);
                    pause *= 2;
                }
            }
        }
    }

    /// Checks that the files are still at their paths and that the log is complete. If not, writes are refused until a
    /// later check finds nothing wrong.
    pub(super) fn check_files(&mut self, healthy: &AtomicBool) {
        if let Some(error) = self.conn.check_files() {
            healthy.store(false, Ordering::Release);
            self.note_failure(&error);
            tracing::error!(
                error = error.text(),
                "the store accepts no writes until its files are whole again; nothing that was acknowledged is lost"
            );
        }
    }

    /// Tests whether the store accepts commits again.
    pub(super) fn probe(&mut self, healthy: &AtomicBool) {
        self.conn.roll_back();
        if self.conn.probe(nanos(clock::now())).is_ok() {
            tracing::info!("the store accepts commits again");
            healthy.store(true, Ordering::Release);
        }
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.conn.roll_back();
        self.conn.close();
    }
}

fn transact(
    conn: &Sqlite,
    appends: &[EncodedAppend],
    cache: &mut RunningCache,
    now: WriteTime,
) -> Result<Vec<AppendDecision>, WriteError> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut usual = UsualStatements::of(conn)?;
    let outcomes: Vec<AppendDecision> =
        appends.iter().map(|append| write_append(conn, &mut usual, append, cache, now)).collect::<Result<_, _>>()?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(outcomes)
}

fn refuse(appends: &[EncodedAppend], text: &str) -> Vec<AppendDecision> {
    appends.iter().map(|_| AppendDecision::Reject(AppendError::Refused(text.to_owned()))).collect()
}
