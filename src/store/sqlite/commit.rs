//! Commits one batch and says of each of its appends what became of it.
//!
//! Always true: an append is acknowledged only after a commit that holds it; one that breaks a rule fails alone; one
//! whose commit is in doubt is looked for on a fresh connection, and is said to be unavailable only where that does
//! not answer either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::connection::Connection;
use super::fault::Fault;
use super::going::Going;
use super::hints::Hints;
use super::job::{Job, nanos};
use super::judge::{Fate, judge};
use super::look::look;
use super::statements::{LARGEST, Statements};
use crate::clock;
use crate::store::{AppendError, NewPin};

/// How often a store that was healthy until now is asked about a commit in doubt, and the first pause between.
const ASKS: u32 = 3;
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Holds the connection and the statements.
pub(super) struct Committer {
    pub(super) conn: Connection,
    pub(super) hints: Hints,
    statements: Statements,
    going: Going,
    window_ns: i64,
    /// What went wrong last, for people.
    pub(super) trouble: Arc<Mutex<Option<String>>>,
}

impl Committer {
    pub(super) fn new(conn: Connection, hints: Hints, window_ns: i64) -> Self {
        let (statements, going) = (Statements::new(window_ns), Going::default());
        Self { conn, hints, statements, going, window_ns, trouble: Arc::default() }
    }

    /// Retry keys from this time or before have run out.
    pub(super) fn since(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.window_ns)
    }

    /// Commits what may be committed and answers every append.
    pub(super) async fn commit(&mut self, jobs: Vec<Job>, healthy: &AtomicBool) {
        let now_ns = nanos(clock::now());
        let fates = match self.attempt(&jobs, now_ns).await {
            Ok(fates) => {
                healthy.store(true, Ordering::Release);
                fates
            }
            Err(fault) => {
                self.going.forget();
                self.conn.roll_back().await;
                self.after(&jobs, fault, healthy).await
            }
        };
        for (job, fate) in jobs.into_iter().zip(fates) {
            if let Fate::Write(_) = fate {
                self.going.written(&job);
            }
            let done = match fate {
                Fate::Write(_) | Fate::Rides => Ok(()),
                Fate::Reject(error) => Err(error),
            };
            if done.is_ok() {
                self.hints.written(&job, now_ns);
            }
            // Whoever asked may have gone: what is written stays written.
            let _ = job.reply.send(done);
        }
    }

    async fn attempt(&mut self, jobs: &[Job], now_ns: i64) -> Result<Vec<Fate>, Fault> {
        let since = self.since(now_ns);
        let mut fates: Vec<Fate> = jobs.iter().map(|_| Fate::Write(Vec::new())).collect();
        // Runs hold their own order in the schema, so only what asks for more is looked up.
        if jobs.iter().any(|job| job.claim.is_some() || !job.append.pins.is_empty()) {
            let known = look(self.conn.get().await?, jobs, false, since).await?;
            fates = judge(jobs, known);
        }
        if fates.iter().all(|fate| matches!(fate, Fate::Write(_))) {
            match self.write(jobs, &fates, now_ns).await {
                Ok(()) => return Ok(fates),
                Err(Fault::Constraint(_)) => self.conn.roll_back().await,
                Err(fault) => return Err(fault),
            }
        }
        // Somebody breaks a rule, or repeats what is stored: look at everything, and leave those out.
        self.going.forget();
        let known = look(self.conn.get().await?, jobs, true, since).await?;
        let fates = judge(jobs, known);
        self.write(jobs, &fates, now_ns).await?;
        Ok(fates)
    }

    async fn write(&mut self, jobs: &[Job], fates: &[Fate], now_ns: i64) -> Result<(), Fault> {
        let written = jobs.iter().zip(fates).filter_map(|(job, fate)| match fate {
            Fate::Write(pins) => Some((job, pins.as_slice())),
            Fate::Rides | Fate::Reject(_) => None,
        });
        let written: Vec<(&Job, &[NewPin])> = written.collect();
        if written.is_empty() {
            return Ok(());
        }
        let runs = self.going.split(&written, LARGEST);
        let (text, values, kept) = self.statements.write(&written, &runs, now_ns);
        let conn = self.conn.get().await?;
        sqlx::query_with(text, values).persistent(kept).execute(conn).await?;
        Ok(())
    }

    /// What people are told while the store takes nothing.
    pub(super) fn told(&self, fault: &Fault) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.text().to_owned());
    }

    /// The batch was not committed, or nobody knows.
    async fn after(&mut self, jobs: &[Job], fault: Fault, healthy: &AtomicBool) -> Vec<Fate> {
        let was_healthy = healthy.swap(false, Ordering::AcqRel);
        self.told(&fault);
        tracing::error!(error = fault.text(), appends = jobs.len(), "the store did not commit");
        match &fault {
            Fault::Constraint(text) => {
                // The disk answered: only this batch is refused.
                healthy.store(true, Ordering::Release);
                refuse(jobs, text)
            }
            Fault::Sure(text) => refuse(jobs, text),
            Fault::Unclear(text) => match self.ask(jobs, was_healthy).await {
                Ok(fates) => {
                    healthy.store(true, Ordering::Release);
                    let lost = || AppendError::Refused(format!("{text}; looked up since: nothing of it was kept"));
                    let settle = |fate| if let Fate::Write(_) = fate { Fate::Reject(lost()) } else { fate };
                    fates.into_iter().map(settle).collect()
                }
                Err(asked) => {
                    let text = format!("{text}; asking what was kept failed too: {}", asked.text());
                    jobs.iter().map(|_| Fate::Reject(AppendError::Unavailable(text.clone()))).collect()
                }
            },
        }
    }

    /// Looks on a fresh connection which appends are stored. What is judged fit to be written is not.
    async fn ask(&mut self, jobs: &[Job], was_healthy: bool) -> Result<Vec<Fate>, Fault> {
        let mut pause = ASK_PAUSE;
        let mut asks = if was_healthy { ASKS } else { 1 };
        loop {
            self.conn.drop_it();
            asks -= 1;
            let now_ns = nanos(clock::now());
            let since = self.since(now_ns);
            let known = match self.conn.probe(now_ns).await {
                Ok(()) => match self.conn.get().await {
                    Ok(conn) => look(conn, jobs, true, since).await,
                    Err(fault) => Err(fault),
                },
                Err(fault) => Err(fault),
            };
            match known {
                Ok(known) => return Ok(judge(jobs, known)),
                Err(fault) if asks == 0 => return Err(fault),
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }

    /// Tries whether the store takes commits again.
    pub(super) async fn probe(&mut self, healthy: &AtomicBool) {
        self.conn.roll_back().await;
        if self.conn.probe(nanos(clock::now())).await.is_ok() {
            tracing::info!("the store takes commits again");
            healthy.store(true, Ordering::Release);
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&mut self) {
        self.conn.roll_back().await;
        self.conn.close().await;
    }
}

fn refuse(jobs: &[Job], text: &str) -> Vec<Fate> {
    jobs.iter().map(|_| Fate::Reject(AppendError::Refused(text.to_owned()))).collect()
}
