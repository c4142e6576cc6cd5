//! Commits one batch and answers each of its appends.
//!
//! Always true: an append is acknowledged only after the commit that contains it; an invalid append fails alone. If the
//! outcome of a commit is unknown, the appends are looked up once the session that wrote them has certainly ended, and
//! written again if they are missing. The answer is `Unavailable` only if the outcome is still unknown after that.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::address::BEGIN;
use super::batch_statement::BatchStatement;
use super::columns::column;
use super::lease_term::{LeaseTerm, begins_run};
use super::notifier::Notifier;
use super::session::Session;
use super::stored_state::read_stored_state;
use super::summary_cache::SummaryCache;
use crate::store::encoded::EncodedAppend;
use crate::store::validate::{AppendDecision, validate_batch};
use crate::store::write_error::WriteError;
use crate::store::{AppendError, NewPin, RepeatedFailures};

/// The most attempts to commit a batch, while the connection is lost each time.
const ATTEMPTS_MAX: u32 = 4;
/// How long a new connection may take in a store that was healthy until then.
const RECONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The most validations of a batch, while another process writes a conflicting row each time.
const VALIDATIONS_MAX: u32 = 4;

/// Why a run is not begun.
const LEASE_OVER: &str = "the lease of this process was over, and the process has not caught up with the other ones since, \
                          or the request was decided before that";

/// The writer's connection and statement, with a cache of what was written.
pub(super) struct Committer {
    pub(super) session: Session,
    pub(super) notifier: Notifier,
    statement: BatchStatement,
    summaries: SummaryCache,
    retry_window_ns: i64,
    lease_term: Arc<LeaseTerm>,
    /// The last error, to show to people.
    pub(super) write_failure: Arc<Mutex<Option<String>>>,
    logged_failures: RepeatedFailures,
}

/// The result of one attempt to write a batch.
struct BatchResult {
    error: Option<WriteError>,
    /// The outcome of each append, if the batch was validated or written.
    outcomes: Option<Vec<AppendDecision>>,
}

impl From<WriteError> for BatchResult {
    fn from(error: WriteError) -> Self {
        BatchResult { error: Some(error), outcomes: None }
    }
}

impl Committer {
    pub(super) fn new(session: Session, notifier: Notifier, retry_window_ns: i64, lease_term: Arc<LeaseTerm>) -> Self {
        let statement = BatchStatement::new(&notifier.origin, retry_window_ns);
        Self {
            session,
            notifier,
            statement,
            summaries: SummaryCache::default(),
            retry_window_ns,
            lease_term,
            write_failure: Arc::default(),
            logged_failures: RepeatedFailures::default(),
        }
    }

    /// Commits the valid appends and answers all.
    pub(super) async fn commit(&mut self, appends: Vec<EncodedAppend>, healthy: &AtomicBool) {
        let address = &self.session.address;
        let deadline = Instant::now() + address.statement + address.connect;
        // Set while it is unknown whether the batch was written: the error after which it is unknown.
        let mut unknown: Option<String> = None;
        let mut attempts = 1;
        let outcome = loop {
            let outcome = match &unknown {
                None => self.try_commit(&appends).await,
                Some(_) => self.try_validated(&appends).await,
            };
            // The validation has read what is stored, so the outcome of the earlier attempts is known.
            if outcome.outcomes.is_some() {
                unknown = None;
            }
            match &outcome.error {
                None => {
                    healthy.store(true, Ordering::Release);
                    break outcome;
                }
                Some(error) => {
                    self.summaries.clear();
                    if let WriteError::Unknown(text) = error {
                        unknown = Some(text.clone());
                    }
                    if !matches!(error, WriteError::Constraint(_)) {
                        self.note_failure(error.text());
                        let was_healthy = healthy.swap(false, Ordering::AcqRel);
                        if let Some(unlogged) = self.logged_failures.count(error.text()) {
                            tracing::warn!(error = error.text(), attempts, unlogged, "the store did not commit");
                        }
                        let may_retry =
                            unknown.is_some() && was_healthy && attempts < ATTEMPTS_MAX && Instant::now() < deadline;
                        if may_retry && self.session.get_within(RECONNECT_WITHIN).await.is_ok() {
                            healthy.store(true, Ordering::Release);
                            attempts += 1;
                            continue;
                        }
                    }
                    break outcome;
                }
            }
        };
        if let BatchResult { error: None, outcomes: Some(outcomes) } = &outcome {
            for (append, outcome) in appends.iter().zip(outcomes) {
                if let AppendDecision::Write(_) = outcome {
                    self.summaries.insert(append);
                }
            }
        }
        answer(appends, outcome, unknown);
    }

    /// Writes all appends in one round trip; validates them first only after a constraint violation.
    async fn try_commit(&mut self, appends: &[EncodedAppend]) -> BatchResult {
        let all: Vec<(&EncodedAppend, &[NewPin])> =
            appends.iter().map(|append| (append, append.original.pins.as_slice())).collect();
        let required = self.lease_term.required_by(appends.iter());
        let has_refused =
            required.is_some_and(|required| appends.iter().any(|append| required.is_too_late_for(append)));
        let query = self.statement.write(&all, &self.summaries, false, required.map(|required| required.term));
        if let Some(query) = query.filter(|_| !has_refused) {
            match self.session.query(query).await {
                Ok(rows) => {
                    self.publish(&rows);
                    let outcomes = appends.iter().map(|_| AppendDecision::Write(Vec::new())).collect();
                    return BatchResult { error: None, outcomes: Some(outcomes) };
                }
                Err(WriteError::Constraint(_)) => {}
                Err(error) => return error.into(),
            }
        }
        self.try_validated(appends).await
    }

    /// Reads what is stored, and writes the appends that are valid and not stored.
    async fn try_validated(&mut self, appends: &[EncodedAppend]) -> BatchResult {
        let mut last = BatchResult { error: None, outcomes: None };
        for _ in 0..VALIDATIONS_MAX {
            last = self.validate_and_write(appends).await;
            match &last.error {
                // Another process wrote a conflicting row between the read and the write.
                Some(WriteError::Constraint(_)) => {}
                Some(_) | None => break,
            }
        }
        last
    }

    async fn validate_and_write(&mut self, appends: &[EncodedAppend]) -> BatchResult {
        // Before COMMIT an error of any kind means that nothing was written.
        let not_written = |error: WriteError| match error {
            WriteError::Unknown(text) => WriteError::NotWritten(text),
            error => error,
        };
        let stored = match self.session.execute(BEGIN).await {
            Ok(()) => read_stored_state(&mut self.session, appends, self.retry_window_ns).await,
            Err(error) => Err(error),
        };
        let required = self.lease_term.required_by(appends.iter());
        let is_in_term = match (&stored, required) {
            (Ok(_), Some(required)) => self.session.is_in_term(required.term).await,
            (Ok(_), None) | (Err(_), _) => Ok(true),
        };
        let outcomes = match stored.and_then(|stored| is_in_term.map(|is_in_term| (stored, is_in_term))) {
            Ok((stored, is_in_term)) => {
                let is_refused = |append: &EncodedAppend| {
                    !is_in_term || required.is_some_and(|required| required.is_too_late_for(append))
                };
                refuse_runs(appends, validate_batch(appends, stored), is_refused)
            }
            Err(error) => {
                self.session.roll_back().await;
                return not_written(error).into();
            }
        };
        let valid = appends.iter().zip(&outcomes).filter_map(|(append, outcome)| match outcome {
            AppendDecision::Write(pins) => Some((append, pins.as_slice())),
            AppendDecision::AlreadyStored | AppendDecision::Reject(_) => None,
        });
        let written: Vec<(&EncodedAppend, &[NewPin])> = valid.collect();
        if written.is_empty() {
            self.session.roll_back().await;
            return BatchResult { error: None, outcomes: Some(outcomes) };
        }
        // The term is checked, and cannot end before this transaction.
        let done = match self.statement.write(&written, &self.summaries, true, None) {
            Some(query) => self.session.query(query).await.map_err(not_written),
            None => Err(WriteError::NotWritten("valid appends cannot be written together".into())),
        };
        let done = match done {
            Ok(rows) => self.session.execute("COMMIT").await.map(|()| rows),
            Err(error) => Err(error),
        };
        match done {
            Ok(rows) => {
                self.publish(&rows);
                BatchResult { error: None, outcomes: Some(outcomes) }
            }
            Err(error) => {
                self.session.roll_back().await;
                BatchResult { error: Some(error), outcomes: Some(outcomes) }
            }
        }
    }

    pub(super) fn publish(&self, rows: &[sqlx::postgres::PgRow]) {
        if let Some(Ok(notifications)) = rows.first().map(|row| column::<Vec<String>>(row, 0)) {
            self.notifier.publish(&notifications);
        }
    }

    /// Records the error that is shown while the store accepts no commits.
    pub(super) fn note_failure(&self, why: &str) {
        *self.write_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Tests whether the store accepts commits again.
    pub(super) async fn probe(&mut self, healthy: &AtomicBool) {
        if self.session.probe().await.is_ok() {
            tracing::info!("the store accepts commits again");
            healthy.store(true, Ordering::Release);
        }
    }
}

/// Refuses those of the appends that begin a real run and for which `is_refused` holds.
fn refuse_runs(
    appends: &[EncodedAppend],
    outcomes: Vec<AppendDecision>,
    is_refused: impl Fn(&EncodedAppend) -> bool,
) -> Vec<AppendDecision> {
    let refuse = |(append, outcome): (&EncodedAppend, AppendDecision)| match outcome {
        AppendDecision::Write(_) if begins_run(append) && is_refused(append) => {
            AppendDecision::Reject(AppendError::LeaseOver(LEASE_OVER.to_owned()))
        }
        outcome => outcome,
    };
    appends.iter().zip(outcomes).map(refuse).collect()
}

/// Sends each append's reply. `unknown` is the error after which it is unknown whether the batch was written.
fn answer(appends: Vec<EncodedAppend>, result: BatchResult, unknown: Option<String>) {
    let results = results(&appends, result, unknown);
    for (append, done) in appends.into_iter().zip(results) {
        // The receiver may be dropped: what is written stays written.
        let _ = append.reply.send(done);
    }
}

fn results(appends: &[EncodedAppend], result: BatchResult, unknown: Option<String>) -> Vec<Result<(), AppendError>> {
    let BatchResult { error, outcomes } = result;
    let outcomes = outcomes.unwrap_or_else(|| appends.iter().map(|_| AppendDecision::Write(Vec::new())).collect());
    // What became of all appends that were to be written: they are in one transaction.
    let written = match (&error, unknown) {
        (None, _) => Ok(()),
        (Some(_), Some(unknown)) => Err(AppendError::Unavailable(unknown)),
        (Some(error), None) => Err(AppendError::Refused(error.text().to_owned())),
    };
    let id = |append: &EncodedAppend| (append.run_id, append.first, append.batch);
    let mut in_batch = HashSet::new();
    let results = appends.iter().zip(outcomes).map(|(append, outcome)| match outcome {
        AppendDecision::Reject(error) => Err(error),
        AppendDecision::Write(_) => {
            in_batch.insert(id(append));
            written.clone()
        }
        AppendDecision::AlreadyStored if in_batch.contains(&id(append)) => written.clone(),
        // An earlier transaction stored it, whatever became of this one.
        AppendDecision::AlreadyStored => Ok(()),
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Append;
    use crate::store::tests::{at, completed_run, run_id};

    #[test]
    fn an_append_that_is_stored_already_is_acknowledged_although_the_batch_fails() {
        let append = |run, batch| {
            let append = Append { batch: uuid::Uuid::from_u128(batch), ..completed_run(run_id(run), at(0)) };
            EncodedAppend::new(append.into(), 4_096, tokio::sync::oneshot::channel().0).unwrap()
        };
        // The third is a repetition of the second, which is in the same batch.
        let appends = [append(1, 1), append(2, 2), append(2, 2)];
        let decisions =
            || vec![AppendDecision::AlreadyStored, AppendDecision::Write(Vec::new()), AppendDecision::AlreadyStored];
        let of = |error: Option<WriteError>, unknown: Option<&str>| {
            let result = BatchResult { error, outcomes: Some(decisions()) };
            let results = results(&appends, result, unknown.map(str::to_owned));
            let word = |result: &Result<(), AppendError>| match result {
                Ok(()) => "stored",
                Err(AppendError::Refused(_)) => "refused",
                Err(AppendError::Unavailable(_)) => "unknown",
                Err(AppendError::Conflict(_) | AppendError::Fenced(_) | AppendError::LeaseOver(_)) => "rejected",
            };
            results.iter().map(word).collect::<Vec<_>>()
        };
        assert_eq!(of(None, None), ["stored", "stored", "stored"]);
        let full = || Some(WriteError::NotWritten("disk full".into()));
        assert_eq!(of(full(), None), ["stored", "refused", "refused"]);
        let lost = || Some(WriteError::Unknown("connection lost".into()));
        assert_eq!(of(lost(), Some("connection lost")), ["stored", "unknown", "unknown"]);
    }
}
