//! What the simulated store knows of the processes that share it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Omission, SimStore, unknown_result};
use crate::clock;
use crate::names::WorkerId;
use crate::store::{
    Append, GoneProcess, KeyFileRecord, LivingProcess, LivingProcesses, ProcessRecord, StandingAnnouncement,
    Store as _, StoreError, StoreNotification,
};

/// The rows of processes and of their files of retry keys.
#[derive(Default)]
pub(super) struct Processes {
    rows: BTreeMap<WorkerId, Row>,
    key_files: BTreeMap<Uuid, KeyFileRecord>,
    /// The term of its lease in which each process begins real runs (`None` in no term), and the oldest flag set that
    /// may have decided their requests.
    begins_runs_under: BTreeMap<WorkerId, (Option<i64>, u64)>,
}

struct Row {
    name: String,
    alive_until: Instant,
    /// How often its lease was over before it was renewed.
    interruptions: u64,
    record: Option<ProcessRecord>,
}

impl Row {
    /// The term of its lease.
    fn term(&self) -> i64 {
        self.interruptions.cast_signed() + 1
    }
}

impl Processes {
    pub(super) fn renew(&mut self, worker: WorkerId, name: String, lease: Duration) {
        let alive_until = Instant::now() + lease;
        let row = self.rows.entry(worker).or_insert(Row { name, alive_until, interruptions: 0, record: None });
        row.interruptions += u64::from(row.alive_until <= Instant::now());
        row.alive_until = alive_until;
    }
    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.rows.remove(&worker);
    }
    pub(super) fn is_alive(&self, worker: WorkerId) -> bool {
        self.rows.get(&worker).is_some_and(|row| row.alive_until > Instant::now())
    }
    pub(super) fn gone(&self) -> Vec<GoneProcess> {
        let gone = self.rows.values().filter(|row| row.alive_until <= Instant::now());
        let process = |row: &Row| GoneProcess {
            name: row.name.clone(),
            gone_for: row.alive_until.elapsed(),
            term: row.term(),
            record: row.record.clone(),
        };
        gone.map(process).collect()
    }
    pub(super) fn key_files(&self) -> Vec<KeyFileRecord> {
        self.key_files.values().cloned().collect()
    }
    pub(super) fn put_key_files(&mut self, put: Vec<KeyFileRecord>, remove: &[Uuid]) {
        self.key_files.retain(|id, _| !remove.contains(id));
        self.key_files.extend(put.into_iter().map(|record| (record.id, record)));
    }

    /// See [`RunCoordination::begin_runs_under`](crate::store::RunCoordination::begin_runs_under).
    pub(super) fn begin_runs_under(&mut self, worker: WorkerId, term: Option<i64>, newest_set: u64) {
        let known = self.begins_runs_under.entry(worker).or_insert((term, newest_set));
        if known.0 != term {
            *known = (term, newest_set);
        }
    }
    /// Whether the store takes the first append of a real run, which this is, from its process now.
    pub(super) fn may_begin_run(&self, append: &Append) -> bool {
        let oldest_set = self.begins_runs_under.get(&append.worker).map_or(0, |(_, oldest_set)| *oldest_set);
        let decided_in = append.claim.and_then(|claim| claim.decided_in);
        self.is_in_term(append.worker) && decided_in.is_none_or(|set| set >= oldest_set)
    }
    /// Whether a process has its lease, in the term that it named last; also if it has named none.
    fn is_in_term(&self, worker: WorkerId) -> bool {
        let Some((term, _)) = self.begins_runs_under.get(&worker) else { return true };
        let row = self.rows.get(&worker).filter(|row| row.alive_until > Instant::now());
        row.is_some_and(|row| *term == Some(row.term()))
    }

    /// Stores a record, if the process has a lease. Returns whether it is new.
    fn put_record(&mut self, worker: WorkerId, record: &ProcessRecord) -> bool {
        let row = self.rows.get_mut(&worker).filter(|row| row.record.as_ref() != Some(record));
        row.map(|row| row.record = Some(record.clone())).is_some()
    }

    fn living(&self) -> Vec<LivingProcess> {
        let alive = self.rows.iter().filter(|(_, row)| row.alive_until > Instant::now());
        let process = |(worker, row): (&WorkerId, &Row)| LivingProcess {
            worker: *worker,
            name: row.name.clone(),
            lease_left: row.alive_until.duration_since(Instant::now()),
            term: row.term(),
            record: row.record.clone(),
        };
        alive.map(process).collect()
    }
}

impl SimStore {
    pub(super) async fn exchange(
        &self,
        worker: WorkerId,
        record: ProcessRecord,
    ) -> Result<Option<LivingProcesses>, StoreError> {
        let Some(at) = clock::simulated::time().filter(|_| self.shared) else { return Ok(None) };
        let newest_flip = self.inner.flips(None, 1).await?.first().map_or(0, |flip| flip.number);
        let (is_new, mut processes) = {
            let mut state = self.state.lock().unwrap();
            if state.blocked.contains(&worker) {
                return Err(unknown_result());
            }
            (state.processes.put_record(worker, &record), state.processes.living())
        };
        if is_new {
            self.notify(StoreNotification::Process);
        }
        if self.omission == Omission::Acknowledgements {
            let of_others = processes.iter_mut().filter(|process| process.worker != worker);
            of_others.filter_map(|other| other.record.as_mut()).for_each(|record| {
                record.acknowledged.insert(worker, u64::MAX);
                record.announced = None;
            });
        }
        Ok(Some(LivingProcesses { at, newest_flip, processes }))
    }

    /// Whether a process has its lease in the term of an announcement that it still makes.
    pub(super) fn stands(&self, announced: &StandingAnnouncement) -> bool {
        let state = self.state.lock().unwrap();
        let living = state.processes.rows.get(&announced.worker).filter(|row| row.alive_until > Instant::now());
        let in_term = living.filter(|row| row.term() == announced.term);
        let stands = in_term.and_then(|row| row.record.as_ref()?.announced.as_ref());
        stands.is_some_and(|stands| stands.standing.contains(&announced.number))
    }

    /// Whether a process begins real runs: not before it has caught up with the others since its lease was over.
    pub(crate) fn begins_runs(&self, worker: WorkerId) -> bool {
        self.state.lock().unwrap().processes.is_in_term(worker)
    }

    /// The lease of a process: the same number for as long as it was never over; `None` if it has none now.
    pub(crate) fn lease(&self, worker: WorkerId) -> Option<u64> {
        let state = self.state.lock().unwrap();
        let row = state.processes.rows.get(&worker).filter(|row| row.alive_until > Instant::now());
        row.map(|row| row.interruptions)
    }
}
