//! Commits one batch and says of each of its appends what became of it.
//!
//! Always true: an append is acknowledged only after a commit that holds it; one that breaks a rule fails alone; one
//! whose commit is in doubt is looked for on a fresh connection, and is said to be unavailable only where that does
//! not answer either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection as Sqlite;

use super::connection::Connection;
use super::fault::Fault;
use super::hints::Hints;
use super::job::{Job, nanos};
use super::judge::Fate;
use super::put::{Now, Running, judged, put};
use crate::clock;
use crate::store::AppendError;

/// How often a store that was healthy until now is asked about a commit in doubt, and the first pause between.
const ASKS: u32 = 3;
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// Holds the connection, and what is remembered of what was written through it.
pub(super) struct Committer {
    pub(super) conn: Connection,
    pub(super) hints: Hints,
    running: Running,
    window_ns: i64,
    /// What went wrong last, for people.
    pub(super) trouble: Arc<Mutex<Option<String>>>,
}

impl Committer {
    pub(super) fn new(conn: Connection, hints: Hints, window_ns: i64) -> Self {
        Self { conn, hints, running: Running::default(), window_ns, trouble: Arc::default() }
    }

    /// What time it is, and up to when retry keys have run out.
    pub(super) fn now(&self) -> Now {
        let ns = nanos(clock::now());
        Now { ns, since: ns.saturating_sub(self.window_ns) }
    }

    /// Commits what may be committed and answers every append.
    pub(super) fn commit(&mut self, jobs: Vec<Job>, healthy: &AtomicBool) {
        let now = self.now();
        match self.attempt(&jobs, now) {
            Ok(fates) => {
                healthy.store(true, Ordering::Release);
                self.answer(jobs, fates, now);
            }
            // A row breaks a rule of the schema that was not judged: whoever brought it fails alone.
            Err(Fault::Constraint(_)) if jobs.len() > 1 => {
                for job in jobs {
                    self.commit(vec![job], healthy);
                }
            }
            Err(fault) => {
                let fates = self.after(&jobs, fault, healthy);
                self.answer(jobs, fates, now);
            }
        }
    }

    fn answer(&mut self, jobs: Vec<Job>, fates: Vec<Fate>, now: Now) {
        for (job, fate) in jobs.into_iter().zip(fates) {
            let done = match fate {
                Fate::Write(_) | Fate::Rides => Ok(()),
                Fate::Reject(error) => Err(error),
            };
            if done.is_ok() {
                self.hints.written(&job, now.ns);
            }
            // Whoever asked may have gone: what is written stays written.
            let _ = job.reply.send(done);
        }
    }

    /// One transaction; what fails is taken back whole.
    fn attempt(&mut self, jobs: &[Job], now: Now) -> Result<Vec<Fate>, Fault> {
        let done = match self.conn.get() {
            Ok(conn) => transact(conn, jobs, &mut self.running, now),
            Err(fault) => Err(fault),
        };
        if done.is_err() {
            self.running.forget();
            self.conn.roll_back();
        }
        done
    }

    /// What people are told while the store takes nothing.
    pub(super) fn told(&self, fault: &Fault) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.text().to_owned());
    }

    /// The batch was not committed, or nobody knows.
    fn after(&mut self, jobs: &[Job], fault: Fault, healthy: &AtomicBool) -> Vec<Fate> {
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
            Fault::Unclear(text) => match self.ask(jobs, was_healthy) {
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
    fn ask(&mut self, jobs: &[Job], was_healthy: bool) -> Result<Vec<Fate>, Fault> {
        let mut pause = ASK_PAUSE;
        let mut asks = if was_healthy { ASKS } else { 1 };
        loop {
            self.conn.drop_it();
            asks -= 1;
            let now = self.now();
            let known = match self.conn.probe(now.ns) {
                Ok(()) => match self.conn.get() {
                    Ok(conn) => jobs.iter().map(|job| judged(conn, job, now)).collect(),
                    Err(fault) => Err(fault),
                },
                Err(fault) => Err(fault),
            };
            match known {
                Ok(known) => return Ok(known),
                Err(fault) if asks == 0 => return Err(fault),
                Err(_) => {
                    // The writer's own thread: nobody else has work for it, and waking early does no harm.
                    std::thread::park_timeout(pause);
                    pause *= 2;
                }
            }
        }
    }

    /// Tries whether the store takes commits again.
    pub(super) fn probe(&mut self, healthy: &AtomicBool) {
        self.conn.roll_back();
        if self.conn.probe(nanos(clock::now())).is_ok() {
            tracing::info!("the store takes commits again");
            healthy.store(true, Ordering::Release);
        }
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.conn.roll_back();
        self.conn.close();
    }
}

fn transact(conn: &Sqlite, jobs: &[Job], running: &mut Running, now: Now) -> Result<Vec<Fate>, Fault> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let fates: Vec<Fate> = jobs.iter().map(|job| put(conn, job, running, now)).collect::<Result<_, _>>()?;
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(fates)
}

fn refuse(jobs: &[Job], text: &str) -> Vec<Fate> {
    jobs.iter().map(|_| Fate::Reject(AppendError::Refused(text.to_owned()))).collect()
}
