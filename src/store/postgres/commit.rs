//! Commits one batch and says of each of its appends what became of it.
//!
//! Always true: an append is acknowledged only after a commit that holds it; one that breaks a rule fails alone; one
//! whose commit is in doubt is looked for when the session that wrote it is over for sure, and written again where it
//! is not there. It is said to be unavailable only where the database does not answer that either, in a bounded time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use super::known::Known;
use super::look::look;
use super::news::Crier;
use super::session::Session;
use super::statement::Statement;
use super::text::column;
use crate::store::job::Job;
use crate::store::judge::{Fate, judge};
use crate::store::{AppendError, NewPin};

/// How often a batch is tried at all, where the connection is lost again and again.
const TRIES: u32 = 4;
/// How long a store that was healthy until now is waited for.
const COME_BACK: Duration = Duration::from_secs(2);
/// How often what another process was faster with is looked at anew.
const ROUNDS: u32 = 4;

/// Holds the connection and the statement.
pub(super) struct Committer {
    pub(super) session: Session,
    pub(super) crier: Crier,
    statement: Statement,
    known: Known,
    window_ns: i64,
    /// What went wrong last, for people.
    pub(super) trouble: Arc<Mutex<Option<String>>>,
}

/// What became of a batch.
struct Outcome {
    fault: Option<Fault>,
    /// Of each append, where somebody looked.
    fates: Option<Vec<Fate>>,
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Outcome { fault: Some(fault), fates: None }
    }
}

impl Committer {
    pub(super) fn new(session: Session, crier: Crier, window_ns: i64) -> Self {
        let statement = Statement::new(&crier.origin, window_ns);
        Self { session, crier, statement, known: Known::default(), window_ns, trouble: Arc::default() }
    }

    /// Commits what may be committed and answers every append.
    pub(super) async fn commit(&mut self, jobs: Vec<Job>, healthy: &AtomicBool) {
        let address = &self.session.address;
        let deadline = Instant::now() + address.statement + address.connect;
        // Since when it is unknown whether something of the batch is there.
        let mut doubt: Option<String> = None;
        let mut tries = 1;
        let outcome = loop {
            let outcome = match &doubt {
                None => self.attempt(&jobs).await,
                Some(_) => self.attempt_with_a_look(&jobs).await,
            };
            // Whoever has looked knows; until then what was in doubt stays in doubt.
            if outcome.fates.is_some() {
                doubt = None;
            }
            match &outcome.fault {
                None => {
                    healthy.store(true, Ordering::Release);
                    break outcome;
                }
                Some(fault) => {
                    self.known.forget();
                    if let Fault::Unclear(text) = fault {
                        doubt = Some(text.clone());
                    }
                    if !matches!(fault, Fault::Constraint(_)) {
                        self.told(fault.text());
                        let was_healthy = healthy.swap(false, Ordering::AcqRel);
                        tracing::warn!(error = fault.text(), appends = jobs.len(), tries, "the store did not commit");
                        let again = doubt.is_some() && was_healthy && tries < TRIES && Instant::now() < deadline;
                        if again && self.session.get_within(COME_BACK).await.is_ok() {
                            healthy.store(true, Ordering::Release);
                            tries += 1;
                            continue;
                        }
                    }
                    break outcome;
                }
            }
        };
        if let Outcome { fault: None, fates: Some(fates) } = &outcome {
            for (job, fate) in jobs.iter().zip(fates) {
                if let Fate::Write(_) = fate {
                    self.known.written(job);
                }
            }
        }
        answer(jobs, outcome, doubt);
    }

    /// In one round trip, where nobody breaks a rule.
    async fn attempt(&mut self, jobs: &[Job]) -> Outcome {
        let all: Vec<(&Job, &[NewPin])> = jobs.iter().map(|job| (job, job.append.pins.as_slice())).collect();
        if let Some(query) = self.statement.write(&all, &self.known) {
            match self.session.ask(query).await {
                Ok(rows) => {
                    self.tell(&rows);
                    let fates = jobs.iter().map(|_| Fate::Write(Vec::new())).collect();
                    return Outcome { fault: None, fates: Some(fates) };
                }
                Err(Fault::Constraint(_)) => {}
                Err(fault) => return fault.into(),
            }
        }
        self.attempt_with_a_look(jobs).await
    }

    /// Looks at everything, and leaves out who breaks a rule or repeats what is stored.
    async fn attempt_with_a_look(&mut self, jobs: &[Job]) -> Outcome {
        let mut last = Outcome { fault: None, fates: None };
        for _ in 0..ROUNDS {
            last = self.round(jobs).await;
            match &last.fault {
                // Between look and write another process took a place that nobody held.
                Some(Fault::Constraint(_)) => {}
                Some(_) | None => break,
            }
        }
        last
    }

    async fn round(&mut self, jobs: &[Job]) -> Outcome {
        // Up to the last statement nothing is written, whatever happens.
        let surely = |fault: Fault| match fault {
            Fault::Unclear(text) => Fault::Sure(text),
            fault => fault,
        };
        let known = match self.session.say("BEGIN").await {
            Ok(()) => look(&mut self.session, jobs, self.window_ns).await,
            Err(fault) => Err(fault),
        };
        let fates = match known {
            Ok(known) => judge(jobs, known),
            Err(fault) => {
                self.session.roll_back().await;
                return surely(fault).into();
            }
        };
        let fits = jobs.iter().zip(&fates).filter_map(|(job, fate)| match fate {
            Fate::Write(pins) => Some((job, pins.as_slice())),
            Fate::Rides | Fate::Reject(_) => None,
        });
        let written: Vec<(&Job, &[NewPin])> = fits.collect();
        if written.is_empty() {
            self.session.roll_back().await;
            return Outcome { fault: None, fates: Some(fates) };
        }
        let done = match self.statement.write(&written, &self.known) {
            Some(query) => self.session.ask(query).await.map_err(surely),
            None => Err(Fault::Sure("appends that were judged to fit do not fit".into())),
        };
        let done = match done {
            Ok(rows) => self.session.say("COMMIT").await.map(|()| rows),
            Err(fault) => Err(fault),
        };
        match done {
            Ok(rows) => {
                self.tell(&rows);
                Outcome { fault: None, fates: Some(fates) }
            }
            Err(fault) => {
                self.session.roll_back().await;
                Outcome { fault: Some(fault), fates: Some(fates) }
            }
        }
    }

    pub(super) fn tell(&self, rows: &[sqlx::postgres::PgRow]) {
        if let Some(Ok(news)) = rows.first().map(|row| column::<Vec<String>>(row, 0)) {
            self.crier.tell(&news);
        }
    }

    /// What people are told while the store takes nothing.
    pub(super) fn told(&self, why: &str) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// Tries whether the store takes commits again.
    pub(super) async fn probe(&mut self, healthy: &AtomicBool) {
        if self.session.probe().await.is_ok() {
            tracing::info!("the store takes commits again");
            healthy.store(true, Ordering::Release);
        }
    }
}

/// Tells everybody what became of theirs.
fn answer(jobs: Vec<Job>, outcome: Outcome, doubt: Option<String>) {
    let Outcome { fault, fates } = outcome;
    let fates = fates.unwrap_or_else(|| jobs.iter().map(|_| Fate::Write(Vec::new())).collect());
    for (job, fate) in jobs.into_iter().zip(fates) {
        let done = match (&fault, fate) {
            (_, Fate::Reject(error)) => Err(error),
            (None, Fate::Write(_) | Fate::Rides) => Ok(()),
            (Some(_), _) if doubt.is_some() => Err(AppendError::Unavailable(doubt.clone().unwrap_or_default())),
            (Some(fault), Fate::Write(_)) => Err(AppendError::Refused(fault.text().to_owned())),
            // It was there already, or an equal one of this batch was to bring it.
            (Some(fault), Fate::Rides) => Err(AppendError::Unavailable(fault.text().to_owned())),
        };
        // Whoever asked may have gone: what is written stays written.
        let _ = job.reply.send(done);
    }
}
