//! The processes that share a store: each keeps a row about itself beside its lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{RouteId, ServiceName, WorkerId};

/// What a process says about itself to the others. A field that a newer version adds is ignored, and one that an older
/// version lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    /// The name of its machine or container.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// When it started.
    pub started: Timestamp,
    /// The addresses of its proxy.
    pub listen: Vec<String>,
    /// The address of its API and metrics.
    pub admin: String,
    /// The edition of the flag files that it has in force: equal for files that say the same.
    pub edition: String,
    /// How far its machine's clock is ahead of the store's, in milliseconds; `None` as long as that is not measured.
    pub clock_ahead_ms: Option<i64>,
    /// The number of the newest flip in the store that it has in force, with all flips before it; `None`: its version
    /// does not follow the flips of other processes.
    pub flips: Option<u64>,
    /// What it is going to put in force once all others have acknowledged it.
    pub announced: Option<Announcement>,
    /// The newest announcement of each other process that it has acknowledged.
    pub acknowledged: BTreeMap<WorkerId, u64>,
    /// The present announcements that it cannot acknowledge: it claims no retry keys of a route that they name, because
    /// its files do not have the route, or have no workflow for it.
    pub refused: BTreeMap<WorkerId, u64>,
    /// All ids of the routes that its engine answers, or may answer without another flip.
    pub answers: BTreeSet<RouteId>,
    /// The id of its file of retry keys; `None`: it has none, or its version does not say so.
    pub key_file: Option<Uuid>,
    /// How many changes of pin collisions by it the store has: a process that sees this number change reads the
    /// collisions again.
    pub collision_changes: u64,
    /// Requests that legacy served there and whose retry keys it does not know.
    pub unknown_retries: Vec<ToldUnknownRetries>,
    /// Whether it begins real runs only in a term of its lease in which it has caught up with the others.
    pub obeys_terms: bool,
    /// The services whose circuit breaker is open there.
    pub open_breakers: BTreeSet<ServiceName>,
    /// Since when it has compared requests that are not in the evidence in the store; `None` also if that is a moment
    /// ago.
    pub unwritten_since: Option<Timestamp>,
}

/// Requests that legacy served and whose retry keys a process does not know: they count for the gates of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldUnknownRetries {
    /// All ids of the routes; empty: of any route.
    pub routes: BTreeSet<RouteId>,
    /// When the last of them was served.
    pub cause_at: Timestamp,
    /// When no retry of them may come any more.
    pub until: Timestamp,
    /// Which they are, as the end of a sentence.
    pub why: String,
}

/// Routes that a process is going to raise to where the engine answers. A process that has acknowledged this gives
/// legacy a request of them that has a retry key only after the store has the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// Increases with each announcement of the process.
    pub number: u64,
    /// All ids of the routes.
    pub routes: Vec<RouteId>,
    /// The ids of each route. An earlier version gives none: then each id in `routes` is that of a route of its own.
    #[serde(default)]
    pub ids: Vec<Vec<RouteId>>,
    /// The numbers of the announcements of the process that are still in force: the routes are those of all of them.
    /// `number` is the newest one that it ever gave, also if that announcement has ended.
    #[serde(default)]
    pub standing: Vec<u64>,
}

impl Announcement {
    /// An announcement of routes with these ids.
    #[must_use]
    pub fn new(number: u64, ids: Vec<Vec<RouteId>>) -> Self {
        Self { number, routes: ids.iter().flatten().cloned().collect(), ids, standing: vec![number] }
    }

    /// The ids of each route.
    pub fn each(&self) -> impl Iterator<Item = &[RouteId]> {
        let single = self.routes.iter().filter(|_| self.ids.is_empty()).map(std::slice::from_ref);
        self.ids.iter().map(Vec::as_slice).chain(single)
    }
}

/// A process whose lease is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct LivingProcess {
    /// Identifies it in the store.
    pub worker: WorkerId,
    /// Its name, for people.
    pub name: String,
    /// How long its lease lasts unless it renews it, by the store's clock.
    pub lease_left: Duration,
    /// The term of its lease: another one begins each time that it renews a lease that was over. 0 of a version whose
    /// leases have no terms.
    pub term: i64,
    /// What it says about itself; `None` if it is of a version that says nothing, or has said nothing yet.
    pub record: Option<ProcessRecord>,
}

/// A process that has not deregistered, and whose lease is over.
#[derive(Clone, Debug, PartialEq)]
pub struct GoneProcess {
    /// Its name, for people.
    pub name: String,
    /// How long its lease has been over, by the store's clock.
    pub gone_for: Duration,
    /// The term of that lease; 0 of a version whose leases have no terms.
    pub term: i64,
    /// What it had said about itself last.
    pub record: Option<ProcessRecord>,
}

/// The processes that share a store at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LivingProcesses {
    /// The store's time.
    pub at: Timestamp,
    /// The number of the newest flip that the store has; 0: it has none.
    pub newest_flip: u64,
    /// The processes, in the order of their starts.
    pub processes: Vec<LivingProcess>,
}

impl ProcessRecord {
    /// The name of this process, as people see it.
    #[must_use]
    pub fn name(&self) -> String {
        process_name(self.pid, &self.host)
    }
}

/// The name of a process: in containers many have the same process id.
#[must_use]
pub fn process_name(pid: u32, host: &str) -> String {
    format!("process {pid} on {host}")
}
