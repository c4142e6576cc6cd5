//! What to tell whoever listens, and who asked for work last.
//!
//! Always true: news are hints: one too many does no harm, and one that is lost is found by whoever looks for itself.
//! What is remembered here is as large as the tables of locks and open orders.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::fault::Fault;
use super::job::Job;
use super::look::run_id;
use crate::names::{RunId, WorkerId};
use crate::store::News;

pub(super) struct Hints {
    news: broadcast::Sender<News>,
    /// Locks that a run may have a place in.
    locks: HashMap<RunId, HashSet<String>>,
    /// What may be asked of a run still.
    orders: HashMap<RunId, HashSet<Uuid>>,
    /// Who took what was due last; everybody else is dead.
    taker: Option<WorkerId>,
    /// Whether others than that one may own runs.
    strangers: bool,
}

impl Hints {
    pub(super) fn load(conn: &Connection, news: broadcast::Sender<News>) -> Result<Self, Fault> {
        let mut hints = Self { news, locks: HashMap::new(), orders: HashMap::new(), taker: None, strangers: true };
        let mut locks = conn.prepare("SELECT DISTINCT run_id, name FROM locks")?;
        for row in locks.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (run, name): (Vec<u8>, String) = row?;
            hints.locks.entry(run_id(run).unwrap_or(RunId(Uuid::nil()))).or_default().insert(name);
        }
        let mut orders = conn.prepare("SELECT run_id, id FROM orders WHERE answer IS NULL")?;
        for row in orders.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (run, id): (Vec<u8>, Vec<u8>) = row?;
            if let (Some(run), Ok(id)) = (run_id(run), Uuid::from_slice(&id)) {
                hints.orders.entry(run).or_default().insert(id);
            }
        }
        Ok(hints)
    }

    /// An append was written.
    pub(super) fn written(&mut self, job: &Job, now_ns: i64) {
        self.strangers |= job.run.owner.is_some_and(|owner| Some(owner) != self.taker);
        for step in job.locks.iter().filter(|step| step.queue) {
            self.locks.entry(job.run_id).or_default().insert(step.place.name.clone());
        }
        for (id, _) in &job.settled {
            self.settled(job.run_id, *id);
        }
        self.tell(job.news(now_ns));
        if job.run.ended {
            let locks = self.locks.remove(&job.run_id).unwrap_or_default();
            self.tell(locks.into_iter().map(News::Lock));
            let orders = self.orders.remove(&job.run_id).unwrap_or_default();
            self.tell(orders.into_iter().map(News::Order));
        }
    }

    /// Something is asked of a run that can still do it.
    pub(super) fn asked(&mut self, run: RunId, id: Uuid) {
        self.orders.entry(run).or_default().insert(id);
    }

    pub(super) fn settled(&mut self, run: RunId, id: Uuid) {
        if let Some(open) = self.orders.get_mut(&run) {
            open.remove(&id);
            if open.is_empty() {
                self.orders.remove(&run);
            }
        }
    }

    /// Whether others than this worker may own runs.
    pub(super) fn strangers_to(&self, worker: WorkerId) -> bool {
        self.strangers || self.taker != Some(worker)
    }

    /// This worker owns what is owned.
    pub(super) fn alone(&mut self, worker: WorkerId) {
        self.taker = Some(worker);
        self.strangers = false;
    }

    /// This worker owns one more.
    pub(super) fn took(&mut self, worker: WorkerId) {
        self.strangers |= self.taker != Some(worker);
    }

    pub(super) fn tell(&self, news: impl IntoIterator<Item = News>) {
        for one in news {
            // Nobody may be listening.
            let _ = self.news.send(one);
        }
    }
}
