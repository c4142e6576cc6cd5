//! The processes that share the store, as this process last saw them.
//!
//! Always true: a process counts for as long as its lease is not over, by the store's clock. The gates to `dark` and
//! above are shut while one of them has other flag files than this process, or does not say which files it has: each
//! would judge and answer the requests of a route in its own way. They are shut too while one of them has compared
//! requests that it cannot write to the store, or this process cannot read what the others have written: some of these
//! pairs may differ. The gate to `live` is shut while a process has ended, or hangs, whose retry keys the store may
//! lack (`lost_keys`). If the store does not answer, what was seen last stays; nothing can be flipped up meanwhile,
//! since the store has to record it.

mod announcing;
mod breakers;
mod followed;
mod lost_keys;
mod moves;
mod rows;
mod unwritten;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::key_claims::KeyClaims;

use crate::admin::types::FilesComparison;
use crate::affinity::host_name;
use crate::clock::{self, Moment};
use crate::config::Setup;
use crate::evidence::Evidence;
use crate::flag::{Route, State};
use crate::ladder::{GateCondition, UnknownRetries, Unmet};
use crate::limits::Limits;
use crate::names::{RouteId, WorkerId};
use crate::store::{LivingProcess, LivingProcesses, ProcessRecord, StoreError, StoreHandle, ToldUnknownRetries};

/// How often this process tells the others about itself, and finds out which of them are alive. A change of its files
/// is told at once.
const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
/// How long a start waits for the store to say which other processes live.
const FIRST_EXCHANGE_WAIT: Duration = Duration::from_secs(2);
/// The smallest change of the clock's offset that is told to the others, in milliseconds.
const CLOCK_CHANGE_TOLD_MS: u64 = 100;
/// How many processes a sentence names; the number of the others is given.
const NAMED_MAX: usize = 5;

/// What this process says about itself, and what it knows of the others.
pub(super) struct Membership {
    store: StoreHandle,
    evidence: Arc<Evidence>,
    own: ArcSwap<ProcessRecord>,
    /// The id of this process in the store, once it has one.
    worker: OnceLock<WorkerId>,
    seen: Mutex<Seen>,
    /// Notified when the files in force have changed.
    changed: Notify,
    /// Whether a reason for shut gates is gone: no process has other files any more, or all have written what they
    /// compared. Cleared by [`Self::take_may_open_gates`].
    may_open_gates: AtomicBool,
    /// Whether this process may announce moves.
    has_joined: AtomicBool,
    lease: Duration,
    retry_window: Duration,
    /// The announcements of this process that have not ended.
    announcing: Mutex<Announcing>,
    claims: OnceLock<Arc<KeyClaims>>,
    /// Changes with each exchange.
    exchanges: watch::Sender<u64>,
}

/// What this process has announced and not ended. To the others it is one announcement, with the newest number.
#[derive(Default)]
struct Announcing {
    newest: u64,
    /// The ids of the routes, by the number of the announcement.
    routes: BTreeMap<u64, Vec<Vec<RouteId>>>,
}

#[derive(Default)]
struct Seen {
    others: Vec<LivingProcess>,
    /// The number of the newest flip in the store.
    newest_flip: u64,
    /// The announcement that this process had told when the others were seen.
    told: Option<u64>,
    /// The announcement that the store had before the others were seen. A process that gets its lease at the moment of
    /// an exchange may be missing in it, and may have looked before the store had what that exchange told.
    told_before: Option<u64>,
    /// When the lease of this process is over unless it is renewed; `None` while it has none.
    lease_ends: Option<Moment>,
    /// The term of that lease.
    term: Option<i64>,
    /// How many times the lease may have been over before it was renewed.
    leases_ended: u64,
    /// How many changes of pin collisions by each of the others this process has read.
    collision_changes: BTreeMap<WorkerId, u64>,
    /// Whether the pin collisions were read, and no process has gone since.
    knows_collisions: bool,
    /// Which processes may have ended without leaving the store all retry keys, when that was last looked up.
    lost_keys: Option<String>,
    /// Whether `lost_keys` was looked up, and no process has gone since.
    knows_lost_keys: bool,
    /// Whether a process has ended, or hangs, without deregistering, that may begin runs without a lease.
    has_lost_process_that_needs_no_lease: bool,
    /// Of each process that has, or may have, other files: since when this is seen.
    differing: BTreeMap<WorkerId, Timestamp>,
}

impl Membership {
    /// Membership of a process with these files, which does not have a lease yet. Finds out which other processes are
    /// alive, because the states in the files may have to pass gates.
    pub(super) async fn new(
        store: StoreHandle,
        evidence: Arc<Evidence>,
        key_file: Option<Uuid>,
        setup: &Setup,
    ) -> Arc<Self> {
        let own = ProcessRecord {
            key_file,
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: clock::now(),
            edition: setup.edition.clone(),
            obeys_terms: true,
            ..ProcessRecord::default()
        };
        let membership = Self {
            store,
            evidence,
            own: ArcSwap::from_pointee(own),
            worker: OnceLock::new(),
            seen: Mutex::default(),
            changed: Notify::new(),
            may_open_gates: AtomicBool::new(false),
            has_joined: AtomicBool::new(false),
            lease: Limits::ms(setup.limits.lease_ms),
            retry_window: Duration::from_secs(setup.limits.retry_window_s),
            announcing: Mutex::default(),
            claims: OnceLock::new(),
            exchanges: watch::Sender::new(0),
        };
        let first = async {
            membership.exchange().await?;
            membership.look_for_lost_keys().await;
            Ok::<_, StoreError>(())
        };
        match tokio::time::timeout(FIRST_EXCHANGE_WAIT, first).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store did not say which other processes use it"),
            Err(_) => tracing::warn!("the store does not say in time which other processes use it"),
        }
        Arc::new(membership)
    }

    /// Sets what claims retry keys because of other processes.
    pub(super) fn set_claims(&self, claims: Arc<KeyClaims>) {
        let _ = self.claims.set(claims);
    }

    /// See [`KeyClaims::set_oldest_set_in_use`].
    pub(super) fn set_oldest_set_in_use(&self, oldest_set_in_use: impl Fn() -> u64 + Send + Sync + 'static) {
        if let Some(claims) = self.claims.get() {
            claims.set_oldest_set_in_use(oldest_set_in_use);
        }
    }

    /// Files of this edition, with these routes, come into force now.
    pub(super) fn set_files(&self, edition: &str, routes: &[Arc<Route>]) {
        if let Some(claims) = self.claims.get() {
            claims.set_newest_files(routes);
        }
        if self.own.load().edition == edition {
            return;
        }
        self.own.rcu(|own| ProcessRecord { edition: edition.to_owned(), ..(**own).clone() });
        self.note_differing(&mut self.seen(), edition);
        self.changed.notify_one();
    }

    /// Whether all processes have come to have the same files, or to have written what they compared, since this was
    /// last called: gates that were shut because of that may be open, also those to the states in files.
    pub(super) fn take_may_open_gates(&self) -> bool {
        self.may_open_gates.swap(false, Ordering::AcqRel)
    }

    /// The name of this process, for people.
    pub(super) fn name(&self) -> String {
        self.own.load().name()
    }

    /// The processes whose leases are not over, this one included; `None` before it has joined the others.
    pub(super) fn living(&self) -> Option<BTreeSet<WorkerId>> {
        let own = self.worker.get().copied().filter(|_| self.has_joined.load(Ordering::Acquire))?;
        Some(self.seen().others.iter().map(|other| other.worker).chain([own]).collect())
    }

    /// Whether this process started first: it does what only one of the processes has to do.
    pub(super) fn is_first(&self) -> bool {
        let own = self.own.load();
        let key = (own.started, self.worker.get().copied());
        let seen = self.seen();
        let others = seen.others.iter().filter_map(|other| Some((other.record.as_ref()?.started, Some(other.worker))));
        others.min().is_none_or(|first| key < first)
    }

    fn note_differing(&self, seen: &mut Seen, own_edition: &str) {
        let differed = !seen.differing.is_empty();
        seen.note_differing(own_edition, clock::now());
        if differed && seen.differing.is_empty() {
            self.may_open_gates.store(true, Ordering::Release);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self) -> Result<(), StoreError> {
        // No process has the nil id: nothing is stored before this process has its own.
        let worker = self.worker.get().copied().unwrap_or(WorkerId(Uuid::nil()));
        let (sent, sent_at) = (Moment::now(), clock::machine_now());
        let mut record = (**self.own.load()).clone();
        // Filled in after `announced` was copied. If a move is no longer announced and was made, it is in force, and
        // `answers` has its routes.
        if let Some(claims) = self.claims.get() {
            claims.fill_in(&mut record);
        }
        record.unwritten_since = self.unwritten_to_tell();
        let told = record.announced.as_ref().map(|announced| announced.number);
        let flips = record.flips.unwrap_or(0);
        let Some(LivingProcesses { at, newest_flip, processes }) =
            self.store.exchange_processes(worker, record).await?
        else {
            return Ok(());
        };
        // The store read its clock between the question and the answer. The machine's clock is compared with it, and
        // not the process's, which follows the store.
        let middle = sent_at + sent.elapsed() / 2;
        self.note_clock(i64::try_from(middle.duration_since(at).as_millis()).unwrap_or(i64::MAX));
        let mut seen = self.seen();
        if flips > newest_flip && seen.newest_flip != newest_flip {
            tracing::error!(
                newest_flip,
                in_force = flips,
                "the database has lost flips that this process has in force, as after an asynchronous standby has \
                 taken over: look at the states of all routes and at the freeze"
            );
        }
        let own_place = processes.iter().position(|process| process.worker == worker);
        let was_over = |ends: Moment| ends <= Moment::now() || own_place.is_none();
        seen.leases_ended += u64::from(seen.lease_ends.is_some_and(was_over));
        seen.told_before = seen.told;
        (seen.lease_ends, seen.term, seen.newest_flip, seen.told) = (None, None, newest_flip, told);
        let had_unwritten = seen.has_unwritten();
        let is_left = |before: &LivingProcess| processes.iter().any(|process| process.worker == before.worker);
        let has_gone = !seen.others.iter().all(is_left);
        seen.knows_lost_keys &= !has_gone;
        seen.knows_collisions &= !has_gone;
        seen.others = processes;
        if let Some(own_place) = own_place {
            let own = seen.others.remove(own_place);
            (seen.lease_ends, seen.term) = (Some(sent.later(own.lease_left)), Some(own.term));
        }
        self.note_differing(&mut seen, &self.own.load().edition);
        if had_unwritten && !seen.has_unwritten() {
            self.may_open_gates.store(true, Ordering::Release);
        }
        drop(seen);
        self.exchanges.send_modify(|exchanges| *exchanges += 1);
        Ok(())
    }

    /// Small changes are not told: each would write the row anew, once a second.
    fn note_clock(&self, ahead_ms: i64) {
        let told = self.own.load().clock_ahead_ms;
        if told.is_none_or(|told| told.abs_diff(ahead_ms) >= CLOCK_CHANGE_TOLD_MS) {
            self.own.rcu(|own| ProcessRecord { clock_ahead_ms: Some(ahead_ms), ..(**own).clone() });
        }
    }

    /// Which processes have other files than this one, or may have, as a sentence; `None` if there is none.
    pub(super) fn trouble(&self) -> Option<String> {
        self.differing().map(|(why, _)| why)
    }

    /// The sentence, and when the newest of these differences was first seen.
    fn differing(&self) -> Option<(String, Timestamp)> {
        let (own, seen) = (self.own.load(), self.seen());
        let since = *seen.differing.values().max()?;
        let differing = seen.others.iter().filter(|process| compare(process, &own.edition) != FilesComparison::Same);
        let names: Vec<String> = differing
            .map(|process| match &process.record {
                Some(record) => format!("{} (edition {})", display_name(process), record.edition),
                None => format!("{} (it does not say which: its version is older)", display_name(process)),
            })
            .collect();
        let more = match names.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = format!(
            "processes that share the store have other flag files than this one (edition {}): {named}{more}. Bring the \
             same files to all; `pointsman processes` lists them",
            own.edition
        );
        Some((why, since))
    }
}

impl Seen {
    /// The ids of the routes that the engines of the others answer.
    fn answers(&self) -> BTreeSet<RouteId> {
        let records = self.others.iter().filter_map(|other| other.record.as_ref());
        records.flat_map(|record| record.answers.iter().cloned()).collect()
    }

    /// The changes of pin collisions that the others have told.
    fn told_collision_changes(&self) -> BTreeMap<WorkerId, u64> {
        let of = |other: &LivingProcess| Some((other.worker, other.record.as_ref()?.collision_changes));
        self.others.iter().filter_map(of).filter(|(_, changes)| *changes > 0).collect()
    }

    fn note_differing(&mut self, own_edition: &str, now: Timestamp) {
        let differing = self.others.iter().filter(|process| compare(process, own_edition) != FilesComparison::Same);
        let since = |worker: WorkerId| (worker, self.differing.get(&worker).copied().unwrap_or(now));
        self.differing = differing.map(|process| since(process.worker)).collect();
    }
}

impl GateCondition for Membership {
    fn files_differ(&self) -> bool {
        !self.seen().differing.is_empty()
    }

    fn unknown_retries(&self, routes: &[&RouteId]) -> Vec<UnknownRetries> {
        let (seen, now) = (self.seen(), clock::now());
        let of_route = |told: &&ToldUnknownRetries| {
            told.until > now && (told.routes.is_empty() || routes.iter().any(|id| told.routes.contains(*id)))
        };
        let in_process = |other: &LivingProcess| {
            let told = other.record.iter().flat_map(|record| &record.unknown_retries).filter(of_route);
            let of = |ToldUnknownRetries { cause_at, until, why, .. }: &ToldUnknownRetries| UnknownRetries {
                cause_at: *cause_at,
                until: *until,
                why: format!("in {}, {why}", display_name(other)),
            };
            told.map(of).collect::<Vec<_>>()
        };
        seen.others.iter().flat_map(in_process).collect()
    }

    fn unmet(&self, _route: &Route, from: State, to: State) -> Vec<Unmet> {
        if to <= State::Shadow {
            return Vec::new();
        }
        if !self.has_joined.load(Ordering::Acquire) && to >= State::Live && !self.seen().others.is_empty() {
            let why = "other processes share the store, and this one has not joined them yet: it is judged in a moment";
            return vec![Unmet { why: why.to_owned(), since: None }];
        }
        let differing = self.differing().map(|(why, since)| Unmet { why, since: Some(since) });
        let lost_keys = self.seen().lost_keys.clone().filter(|_| from < State::Live && to >= State::Live);
        let lost_keys = lost_keys.map(|why| Unmet { why, since: None });
        differing.into_iter().chain(self.unmet_of_evidence()).chain(lost_keys).collect()
    }
}

fn compare(process: &LivingProcess, own_edition: &str) -> FilesComparison {
    match &process.record {
        None => FilesComparison::Unknown,
        Some(record) if record.edition == own_edition => FilesComparison::Same,
        Some(_) => FilesComparison::Other,
    }
}

fn display_name(process: &LivingProcess) -> String {
    process.record.as_ref().map_or_else(|| process.name.clone(), ProcessRecord::name)
}
