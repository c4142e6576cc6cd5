//! Reads and writes the rows of evidence that several processes share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Evidence;
use super::counters::Counters;
use super::process_share::CountsOfOther;
use super::route_counters::RouteCounters;
use super::sharing::SharingProcesses;
use super::stored::StoredEvidence;
use crate::clock;
use crate::names::{RouteId, WorkerId};
use crate::store::{EvidenceRecord, EvidenceReplacement, EvidenceVersion, SharedEvidence, StoreError};

/// How often one flush reads and writes rows at most; it does so again if other processes have replaced them meanwhile.
const ROUNDS_MAX: u32 = 8;
/// For how long a process has to be missing among the living ones until its share is settled: a process that has just
/// started may not be listed yet.
const GONE_FOR: Duration = Duration::from_secs(3);
/// How long a move up waits, at most, for what the other processes have counted.
const REFRESH_WAIT: Duration = Duration::from_secs(2);

impl Evidence {
    /// Sets the id and the name under which this process has its share of the evidence. Call it before the first flush.
    pub fn set_process(&self, own: WorkerId, name: String) {
        *self.sharing() = SharingProcesses::of(own, name);
    }

    /// Sets which processes are alive. For each process that is gone, the requests that it had under way count as not
    /// compared, and a gap is noted, because the process did not write what it had counted last.
    pub fn set_living(&self, living: &BTreeSet<WorkerId>) {
        let gone: Vec<WorkerId> = {
            let mut sharing = self.sharing();
            let own = sharing.own;
            sharing.is_alone = living.iter().all(|process| *process == own);
            let of_routes = self.all();
            let shares =
                of_routes.iter().flat_map(|(_, shared)| shared.lock().processes.keys().copied().collect::<Vec<_>>());
            let missing: BTreeSet<WorkerId> = shares.filter(|id| *id != own && !living.contains(id)).collect();
            sharing.missing.retain(|process, _| missing.contains(process));
            for process in missing {
                sharing.missing.entry(process).or_insert_with(Instant::now);
            }
            sharing.missing.iter().filter(|(_, since)| since.elapsed() >= GONE_FOR).map(|(id, _)| *id).collect()
        };
        for process in gone {
            self.settle_shares(process);
        }
    }

    fn settle_shares(&self, process: WorkerId) {
        for (route, shared) in self.all() {
            let mut counters = shared.lock();
            let Some(share) = counters.processes.get(&process) else { continue };
            tracing::warn!(
                %route, process = share.name, last_written = %share.at,
                "a process that shares the store ended without writing what it had counted last: that is missing in \
                 the evidence, and what it was comparing counts as not compared"
            );
            let (checked, write, now) = (counters.invariants_of_runs.clone(), share.write, clock::now());
            counters.edit(move |counters| counters.settle_share((process, write), &checked, now));
        }
    }

    /// Called when this process is about to end: the next flush removes its share. What is still under way counts as
    /// not compared.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
        for (_, shared) in self.all() {
            shared.lock().settle_own();
        }
    }

    pub(super) fn own_process(&self) -> WorkerId {
        self.sharing().own
    }

    /// Reads what the other processes have counted, before a move up is judged. Waits for the store for a bounded time:
    /// [`Self::exchanged_until`] says how old what is known is.
    pub async fn refresh(self: &Arc<Self>) {
        if self.store.shared_evidence().is_some() {
            // Another process may have just joined, or may have been taken for gone by mistake.
            self.sharing().is_alone = false;
            let _in_time = tokio::time::timeout(REFRESH_WAIT, self.flush()).await;
        }
    }

    /// The time of the last exchange: the store has what this process had counted by then, and this process has what
    /// the store had by then.
    pub fn exchanged_until(&self) -> Timestamp {
        self.sharing().exchanged_until
    }

    /// Since when the store does not have what this process has counted; `None` if it has all of it.
    pub fn unwritten_since(&self) -> Option<Timestamp> {
        let since = self.exchanged_until();
        self.all().iter().any(|(_, shared)| shared.lock().has_unwritten()).then_some(since)
    }

    fn sharing(&self) -> MutexGuard<'_, SharingProcesses> {
        // A poisoned lock is safe to use: at worst a share is settled later.
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was counted here to the rows, and what the other processes have written to the counters here.
    pub(super) async fn write_shared(&self, store: &dyn SharedEvidence) -> Result<(), StoreError> {
        let (clearable, started) = (self.marks.clearable(), clock::now());
        for round in 0..ROUNDS_MAX {
            let is_idle = round == 0 && self.sharing().is_alone && !self.is_any_dirty();
            let cleared = if is_idle { BTreeSet::new() } else { self.read_rows(store).await? };
            if round == 0 {
                self.write_samples(&cleared).await?;
            }
            let (rows, is_any_elsewhere) = self.rows_to_write()?;
            if rows.is_empty() {
                // Evidence that is not in the store, because its row was moved to another id, must stay marked.
                if !is_any_elsewhere {
                    self.marks.clear(clearable).await;
                }
                self.sharing().exchanged_until = started;
                if is_any_elsewhere && self.is_leaving.load(Ordering::Acquire) {
                    let text = "another process has moved the evidence of a route to another id of it";
                    return Err(StoreError(text.to_owned()));
                }
                return Ok(());
            }
            let tried: Vec<RouteId> = rows.iter().map(|row| row.record.route.clone()).collect();
            let replaced = store.replace_evidence(rows).await;
            let written: BTreeMap<&RouteId, &EvidenceVersion> =
                replaced.iter().flatten().map(|(row, version)| (row, version)).collect();
            let _no_row_moves = self.renaming();
            let owners = self.owners();
            for row in &tried {
                let Some(route) = owner_of(&owners, row) else { continue };
                let shared = self.counters_of(route);
                let mut counters = shared.lock();
                match written.get(row) {
                    Some(version) => counters.confirm_write((*version).clone()),
                    None => counters.dirty = true,
                }
            }
            replaced?;
        }
        Err(StoreError("other processes write the evidence all the time: it is tried again".to_owned()))
    }

    fn is_any_dirty(&self) -> bool {
        self.all().iter().any(|(_, shared)| {
            let counters = shared.lock();
            counters.dirty || counters.shared.as_ref().is_some_and(|shared| shared.is_moved_away)
        })
    }

    /// Reads the rows that others have written. Returns the routes whose samples another process has removed already.
    async fn read_rows(&self, store: &dyn SharedEvidence) -> Result<BTreeSet<RouteId>, StoreError> {
        let known = self.all().into_iter().filter_map(|(route, shared)| {
            let counters = shared.lock();
            let version = counters.shared.as_ref()?.version()?.clone();
            Some((counters.row_id().unwrap_or(&route).clone(), version))
        });
        let (mut known, owners): (Vec<_>, _) = (known.collect(), self.owners());
        let unowned = self.sharing().unowned.clone();
        known.extend(unowned.into_iter().filter(|(row, _)| owner_of(&owners, row).is_none()));
        let own = self.own_process();
        let mut cleared = BTreeSet::new();
        let changed = store.changed_evidence(known).await?;
        let _no_row_moves = self.renaming();
        let owners = self.owners();
        for (EvidenceRecord { route: row_id, value, .. }, version) in changed {
            let Some(route) = owner_of(&owners, &row_id).cloned() else {
                self.sharing().unowned.insert(row_id, version);
                continue;
            };
            let row = match serde_json::from_value::<StoredEvidence>(value) {
                Ok(stored) => Counters::restored(stored),
                // Another version of the program wrote it: this process goes on counting by itself.
                Err(error) => {
                    tracing::warn!(%route, %error, "stored evidence cannot be read: what is counted here is not added to it");
                    Counters::default()
                }
            };
            let shared = self.counters_of(&route);
            let mut counters = shared.lock();
            if counters.merge_row(row, version, own) {
                cleared.insert(route.clone());
            }
            if counters.rejudging.is_some() {
                // What another process had counted by the earlier rules waits, too.
                self.rejudging_signal.notify_one();
            }
            drop(counters);
            self.count_guards_of_others(&route);
        }
        Ok(cleared)
    }

    /// The counters under exactly this id, also if the route has been renamed; [`Self::counters`] follows the rename.
    fn counters_of(&self, route: &RouteId) -> Arc<RouteCounters> {
        if let Some(counters) = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return counters.clone();
        }
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.clone()).or_default().clone()
    }

    /// The rows to write, and whether a process of an earlier version has moved the row of any counters to another id.
    fn rows_to_write(&self) -> Result<(Vec<EvidenceReplacement>, bool), StoreError> {
        let (own, name) = {
            let sharing = self.sharing();
            (sharing.own, sharing.name.clone())
        };
        let is_leaving = self.is_leaving.load(Ordering::Acquire);
        let (mut rows, mut is_any_elsewhere) = (Vec::new(), false);
        let _no_row_moves = self.renaming();
        let owners = self.owners();
        for (route, shared) in self.all() {
            let guard = shared.lock_guard().as_ref().map(|guard| guard.counts()).unwrap_or_default();
            let mut counters = shared.lock();
            let row = counters.row_id().unwrap_or(&route).clone();
            if owner_of(&owners, &row) != Some(&route) {
                continue;
            }
            is_any_elsewhere |= counters.shared.as_ref().is_some_and(|shared| shared.is_moved_away);
            let Some((mut stored, instead_of)) = counters.prepare_write(own, (&name, guard), is_leaving) else {
                continue;
            };
            drop(counters);
            stored.written_under = (row != route).then_some(route);
            let value = serde_json::to_value(stored).map_err(|error| StoreError(error.to_string()))?;
            let record = EvidenceRecord { route: row, at: clock::now(), value };
            rows.push(EvidenceReplacement { record, instead_of });
        }
        Ok((rows, is_any_elsewhere))
    }

    /// Counts for the guard of a route what the guards of other processes have counted.
    fn count_guards_of_others(&self, route: &RouteId) {
        let own = self.own_process();
        let shared = self.counters_of(route);
        let others = {
            let counters = shared.lock();
            let living =
                counters.processes.iter().map(|(id, share)| (*id, &share.guard, share.basis == counters.basis));
            // The last counts of a process that has ended are in its ended share.
            let ended =
                counters.ended_shares.iter().map(|(id, share)| (*id, &share.guard, share.basis == counters.basis));
            let others = living.chain(ended).filter(|(id, ..)| *id != own);
            others
                .map(|(id, counts, is_of_basis)| (id, CountsOfOther { counts: counts.clone(), is_of_basis }))
                .collect()
        };
        let crosses = shared.lock_guard().as_mut().is_some_and(|guard| guard.count_others(others));
        if crosses {
            self.guard_signal.notify_one();
        }
    }
}

/// The route that has this row; see [`Evidence::owners`].
fn owner_of<'o>(owners: &'o BTreeMap<RouteId, Option<RouteId>>, row: &'o RouteId) -> Option<&'o RouteId> {
    owners.get(row).map_or(Some(row), Option::as_ref)
}
