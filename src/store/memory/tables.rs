//! The content of a store as plain maps, and the checks of appends.
//!
//! Always true: a change is checked completely before the first field is written.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::caller_table::Callers;
use super::capture_table::StoredCaptures;
use super::coordination_tables::CoordinationTables;
use super::instance_tables::InstanceTables;
use super::pin_table::PinTable;
use super::retry_keys::RetryKeyTable;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{Fence, PlanId, RouteId, RunId, Seq, WorkerId};
use crate::store::bound_keys::{OldKey, page_of};
use crate::store::coordination::due_at_of;
use crate::store::{
    Adoption, Append, AppendConflict, AppendError, DeclaredState, EvidenceRecord, FlipRecord, KeyFileRecord, OutboxRow,
    PinCount, PinRecord, PlacedPin, RecordEntry, RetryKeyPage, RetryKeyPosition, RunBodies, RunFilter, RunSnapshot,
    SampleRecord, StoreError, StoreNotification, StoredEvent, StoredFirstTry, WatchedTime,
};
use crate::workflow::{RunStatus, RunSummary};

pub(super) struct StoredRun {
    pub(super) summary: RunSummary,
    /// Each with the batch id of its append, in the order of seqs.
    pub(super) events: Vec<(Uuid, StoredEvent)>,
    pub(super) owner: Option<WorkerId>,
    pub(super) fence: Fence,
    /// When a run without an owner is due.
    pub(super) due_at: Option<Timestamp>,
    /// Whether its summary and bodies are kept when it is purged ([`Append::is_pinned`]).
    pub(super) pinned: bool,
    /// Set when a pinned run is purged.
    pub(super) bodies: Option<RunBodies>,
    pub(super) purged: bool,
    pub(super) snapshot: Option<RunSnapshot>,
}

pub(super) struct Tables {
    pub(super) window: SignedDuration,
    pub(super) runs: BTreeMap<RunId, StoredRun>,
    pub(super) plans: HashMap<PlanId, serde_json::Value>,
    pub(super) run_keys: HashMap<RunId, Vec<u8>>,
    pins: PinTable,
    pub(super) adoptions: BTreeMap<PinKey, Adoption>,
    pub(super) instances: InstanceTables,
    pub(super) retry_keys: RetryKeyTable,
    /// A flip's number is its index plus one.
    flips: Vec<FlipRecord>,
    pub(super) record: Vec<RecordEntry>,
    pub(super) service_callers: Callers,
    pub(super) watched: Vec<WatchedTime>,
    pub(super) declared: BTreeMap<RouteId, DeclaredState>,
    /// Oldest first.
    pub(super) samples: Vec<SampleRecord>,
    pub(super) captures: StoredCaptures,
    pub(super) evidence: BTreeMap<RouteId, EvidenceRecord>,
    secret: Option<[u8; 32]>,
    pub(super) key_files: BTreeMap<Uuid, KeyFileRecord>,
    pub(super) coordination: CoordinationTables,
    /// Runs that are to begin, oldest row first.
    pub(super) pending_runs: Vec<OutboxRow>,
}

impl Tables {
    pub(super) fn new(retry_window_s: u64) -> Self {
        Self {
            window: SignedDuration::from_secs(i64::try_from(retry_window_s).unwrap_or(i64::MAX)),
            runs: BTreeMap::new(),
            plans: HashMap::new(),
            run_keys: HashMap::new(),
            pins: PinTable::default(),
            adoptions: BTreeMap::new(),
            instances: InstanceTables::default(),
            retry_keys: RetryKeyTable::default(),
            flips: Vec::new(),
            record: Vec::new(),
            service_callers: Callers::new(),
            watched: Vec::new(),
            declared: BTreeMap::new(),
            samples: Vec::new(),
            captures: StoredCaptures::default(),
            evidence: BTreeMap::new(),
            secret: None,
            key_files: BTreeMap::new(),
            coordination: CoordinationTables::default(),
            pending_runs: Vec::new(),
        }
    }

    /// Adds the notifications of the append to `notifications`.
    pub(super) fn append(
        &mut self,
        append: Append,
        now: Timestamp,
        notifications: &mut Vec<StoreNotification>,
    ) -> Result<(), AppendError> {
        let Some((last_at, _)) = append.events.last() else {
            return Err(AppendError::Refused("an append carries at least one event".into()));
        };
        let last_at = *last_at;
        let run = self.runs.get(&append.run_id);
        let stored = run.map_or(&[][..], |run| &run.events);
        let found = stored.binary_search_by_key(&append.first, |(_, event)| event.seq);
        if found.is_ok_and(|index| stored[index].0 == append.batch) {
            return Ok(());
        }
        if run.is_some_and(|run| run.fence != append.fence) {
            return Err(AppendError::Fenced(append.run_id));
        }
        let head = run.map_or(0, |run| run.summary.seq.0);
        if append.first.0 != head + 1 {
            return Err(AppendError::Conflict(AppendConflict::Seq { stored: Seq(head) }));
        }
        for (claim, key) in append.claim.iter().flat_map(|claim| claim.keys().map(move |key| (claim, key))) {
            match self.first_try(&key, now) {
                Some(StoredFirstTry { run: Some(run), request, .. }) if run != append.run_id => {
                    let request = claim.compare(key, request);
                    return Err(AppendError::Conflict(AppendConflict::Claim { run, request }));
                }
                Some(StoredFirstTry { run: None, .. }) => {
                    return Err(AppendError::Conflict(AppendConflict::LegacyClaim));
                }
                Some(StoredFirstTry { run: Some(_), .. }) | None => {}
            }
        }
        let legacy_keys = append.claim.iter().flat_map(|claim| claim.legacy_keys).flatten();
        if legacy_keys.into_iter().any(|key| self.first_try(&key, now).is_some_and(|first| first.run.is_none())) {
            return Err(AppendError::Conflict(AppendConflict::LegacyClaim));
        }
        for (index, pin) in append.pins.iter().enumerate() {
            let taken = self.pin(&pin.key).filter(|p| p.arm != pin.arm || p.run != Some(append.run_id));
            let taken = taken.map(|p| (p.arm, p.adoption.map_or(p.arm, |_| Arm::Legacy)));
            let twice = || append.pins[..index].iter().find(|p| p.key == pin.key && p.arm != pin.arm);
            if let Some((owner, made_by)) = taken.or_else(|| twice().map(|p| (p.arm, p.arm))) {
                return Err(AppendError::Conflict(AppendConflict::Pin { key: pin.key.clone(), owner, made_by }));
            }
        }

        let pinned = append.is_pinned();
        for pin in append.pins {
            let (key, run) = (pin.key, Some(append.run_id));
            self.pins.add(PinRecord { key, arm: pin.arm, run, at: last_at, adoption: None });
        }
        if let Some(claim) = append.claim {
            let first =
                StoredFirstTry { arm: Arm::Engine, run: Some(append.run_id), request: Some(claim.request), at: now };
            // A run that claims its key again keeps the time of the first claim.
            for key in claim.keys() {
                if self.first_try(&key, now).is_none() {
                    self.retry_keys.insert(key, first.clone());
                }
            }
        }
        for pending in append.pending_runs {
            if !self.runs.contains_key(&pending.run)
                && self.pending_runs.iter().all(|waiting| waiting.run != pending.run)
            {
                self.pending_runs.push(pending);
                notifications.push(StoreNotification::PendingRun);
            }
        }
        self.pending_runs.retain(|pending| pending.run != append.run_id);
        let run = self.runs.entry(append.run_id).or_insert_with(|| StoredRun {
            summary: append.summary.clone(),
            events: Vec::new(),
            owner: None,
            fence: append.fence,
            due_at: None,
            pinned: false,
            bodies: None,
            purged: false,
            snapshot: None,
        });
        for ((at, event), seq) in append.events.into_iter().zip(append.first.0..) {
            run.events.push((append.batch, StoredEvent { seq: Seq(seq), at, event }));
        }
        let ended = append.summary.status.is_final();
        run.pinned |= pinned;
        run.owner = (!append.release && !ended).then_some(append.worker);
        run.due_at = append.release.then(|| due_at_of(&append.summary)).flatten();
        if run.due_at.is_some_and(|due_at| due_at <= now) {
            notifications.push(StoreNotification::Run(append.run_id));
        }
        run.summary = append.summary;
        self.coordination.run_changed(append.run_id);
        self.coordination.change_locks(append.run_id, append.locks, last_at, notifications);
        self.coordination.add_webhook_messages(append.webhook_messages, notifications);
        for (id, answer) in append.answered_commands {
            self.coordination.answer_command(id, answer, notifications);
        }
        if ended {
            self.run_keys.remove(&append.run_id);
            self.coordination.end_run(append.run_id, notifications);
            notifications.push(StoreNotification::Ended { run: append.run_id, by_this_process: true });
        }
        Ok(())
    }

    pub(super) fn events(&self, run: RunId, from: Seq) -> Vec<StoredEvent> {
        let events = self.runs.get(&run).map_or(&[][..], |run| &run.events);
        let skip = events.partition_point(|(_, event)| event.seq < from);
        events[skip..].iter().map(|(_, event)| event.clone()).collect()
    }

    pub(super) fn run(&self, run: RunId) -> Option<RunSummary> {
        self.runs.get(&run).map(|run| run.summary.clone())
    }

    pub(super) fn runs(&self, filter: &RunFilter) -> Vec<RunSummary> {
        let RunFilter { statuses, workflow, route, mode, job, parent, before, limit } = filter;
        let newest_first = self.runs.iter().rev().map(|(_, run)| &run.summary);
        newest_first
            .filter(|run| before.is_none_or(|before| run.run_id < before))
            .filter(|run| statuses.is_empty() || statuses.contains(&run.status))
            .filter(|run| workflow.as_ref().is_none_or(|workflow| run.workflow.as_str() == workflow))
            .filter(|run| route.is_none() || run.route == *route)
            .filter(|run| mode.is_none_or(|mode| run.mode == mode))
            .filter(|run| job.is_none_or(|job| run.job == Some(job) || run.run_id.0 == job.0))
            .filter(|run| parent.is_none() || run.parent == *parent)
            .take(*limit)
            .cloned()
            .collect()
    }

    pub(super) fn open_runs(&self) -> Vec<(RunStatus, u64)> {
        let mut counts: BTreeMap<RunStatus, u64> = BTreeMap::new();
        for run in self.runs.values().filter(|run| !run.summary.status.is_final()) {
            *counts.entry(run.summary.status).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    pub(super) fn pin(&self, key: &PinKey) -> Option<&PinRecord> {
        self.pins.get(key)
    }

    /// In the order in which they were made.
    pub(super) fn pins(&self) -> &PinTable {
        &self.pins
    }

    pub(super) fn add_pin(&mut self, pin: PinRecord) {
        self.pins.add(pin);
    }

    pub(super) fn change_pins(&mut self, change: impl FnMut(&mut PinRecord)) {
        self.pins.change(change);
    }

    pub(super) fn remove_pins(&mut self, is_removed: impl Fn(&PinRecord) -> bool) {
        self.pins.remove(is_removed);
    }

    pub(super) fn pin_counts(&self) -> Vec<PinCount> {
        self.pins.counts()
    }

    pub(super) fn detach_twin(&mut self, key: &PinKey) {
        self.pins.detach_twin(key);
    }

    pub(super) fn pins_of(&self, family: &RouteId, arm: Arm, limit: usize) -> Vec<PinRecord> {
        let newest_first = self.pins.iter().rev();
        newest_first.filter(|pin| pin.key.family == *family && pin.arm == arm).take(limit).cloned().collect()
    }

    pub(super) fn first_try(&self, key: &RetryKey, now: Timestamp) -> Option<StoredFirstTry> {
        let first = self.retry_keys.get(key)?;
        let is_bound = now.duration_since(first.at) < self.window || self.has_run_since(first, now, self.window);
        is_bound.then(|| first.clone())
    }

    /// Whether a run of the job of the key's run is open, or ended less than `ago` ago.
    fn has_run_since(&self, first: &StoredFirstTry, now: Timestamp, ago: SignedDuration) -> bool {
        let Some(of) = first.run else { return false };
        let of_job = |run: &&StoredRun| run.summary.run_id == of || run.summary.job.is_some_and(|job| job.0 == of.0);
        let is_recent =
            |run: &StoredRun| !run.summary.status.is_final() || now.duration_since(run.summary.updated) < ago;
        self.runs.values().filter(of_job).any(is_recent)
    }

    /// Keys whose window after the first try is over, or will be over within `ahead`. Each with whether its run keeps
    /// it bound.
    fn old_keys(
        &self,
        ahead: SignedDuration,
        after: Option<RetryKeyPosition>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<OldKey> {
        let soon = self.window.saturating_sub(ahead);
        let Ok(until) = now.checked_sub(soon) else { return Vec::new() };
        let old_key = |(position, first): (RetryKeyPosition, &StoredFirstTry)| {
            let is_over = now.duration_since(first.at) >= self.window;
            let is_bound = self.has_run_since(first, now, if is_over { self.window } else { soon });
            OldKey { position, is_bound }
        };
        self.retry_keys.old(until, after, limit).map(old_key).collect()
    }

    pub(super) fn long_bound_keys(
        &self,
        ahead: SignedDuration,
        after: Option<RetryKeyPosition>,
        limit: usize,
        now: Timestamp,
    ) -> RetryKeyPage<Vec<RetryKey>> {
        page_of(&self.old_keys(ahead, after, limit, now), limit, true)
    }

    pub(super) fn is_abandoned(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|stored| stored.summary.status == RunStatus::Abandoned)
    }

    pub(super) fn engine_took_any(&self, range: &RangeInclusive<RetryKey>, now: Timestamp) -> bool {
        let is_claimed = |first: &StoredFirstTry| first.run.is_some_and(|run| !self.is_abandoned(&run));
        let mut claimed = self.retry_keys.iter().filter(|(key, first)| range.contains(*key) && is_claimed(first));
        claimed.any(|(key, _)| self.first_try(key, now).is_some())
    }

    pub(super) fn engine_tries(
        &self,
        after: Option<RetryKey>,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(RetryKey, Timestamp)> {
        let is_valid = |first: &StoredFirstTry| first.run.is_some() && now.duration_since(first.at) < self.window;
        let valid = self.retry_keys.iter().filter(|(_, first)| is_valid(first));
        let mut all: Vec<_> =
            valid.map(|(key, first)| (*key, first.at)).filter(|(key, _)| Some(*key) > after).collect();
        all.sort();
        all.truncate(limit);
        all
    }

    pub(super) fn pinned(&self, after: u64, limit: usize) -> Vec<PlacedPin> {
        self.pins.placed_after(after, limit)
    }

    pub(super) fn prune_retry_keys(
        &mut self,
        after: Option<RetryKeyPosition>,
        limit: usize,
        now: Timestamp,
    ) -> RetryKeyPage<u64> {
        let old = self.old_keys(SignedDuration::ZERO, after, limit, now);
        let RetryKeyPage { result: expired, next } = page_of(&old, limit, false);
        for key in &expired {
            self.retry_keys.remove(key);
        }
        RetryKeyPage { result: expired.len() as u64, next }
    }

    pub(super) fn put_flip(&mut self, mut flip: FlipRecord) -> u64 {
        flip.number = self.flips.len() as u64 + 1;
        self.flips.push(flip);
        self.flips.len() as u64
    }

    pub(super) fn newest_flip(&self) -> u64 {
        self.flips.len() as u64
    }

    pub(super) fn flips(&self, route: Option<&RouteId>, limit: usize) -> Vec<FlipRecord> {
        let newest_first = self.flips.iter().rev();
        newest_first.filter(|flip| route.is_none() || flip.route.as_ref() == route).take(limit).cloned().collect()
    }

    pub(super) fn last_flips(&self) -> Vec<FlipRecord> {
        let last: BTreeMap<_, _> = self.flips.iter().map(|flip| (flip.route.clone(), flip)).collect();
        last.into_values().cloned().collect()
    }

    pub(super) fn put_declared(&mut self, declared: Vec<DeclaredState>) {
        self.declared = declared.into_iter().map(|state| (state.route.clone(), state)).collect();
    }

    pub(super) fn secret(&mut self) -> Result<[u8; 32], StoreError> {
        if let Some(secret) = self.secret {
            return Ok(secret);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| StoreError(format!("the system gives no random bytes for the store's secret: {error}")))?;
        self.secret = Some(secret);
        Ok(secret)
    }
}
