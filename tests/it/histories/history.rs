//! What the clients of a run did, each operation with its interval on one monotonic clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::checker::Timed;
use super::models::{InForce, KeyOperation};

/// A try of a keyed order, or a read of it.
pub type OrderOperation = Timed<KeyOperation>;

/// What a flip did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flipped {
    /// It moved the route, and all processes that are not out have it in force.
    Moved { from: usize, number: u64 },
    /// It moved the route down, and is not recorded yet.
    Unrecorded,
    /// It may have moved the route, or may do so.
    Unknown,
}

/// A flip that may have had an effect.
#[derive(Clone, Debug)]
pub struct Flip {
    pub route: usize,
    pub to: usize,
    /// Its own, so that it is found among those that the store has.
    pub reason: String,
    pub invoked: u64,
    /// When its outcome was there.
    pub returned: u64,
    pub outcome: Flipped,
}

/// A read of a flag.
#[derive(Clone, Debug)]
pub struct FlagRead {
    pub route: usize,
    pub process: usize,
    pub invoked: u64,
    pub returned: u64,
    pub value: InForce,
}

/// A time in which a process could not follow the others: it was stopped, or without its database. It ends once it has
/// a lease again and has followed them.
#[derive(Clone, Debug)]
pub struct Absence {
    pub process: usize,
    pub from: u64,
    pub to: u64,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By the number of the order.
    pub orders: BTreeMap<u64, Vec<OrderOperation>>,
    pub flips: Vec<Flip>,
    pub reads: Vec<FlagRead>,
    pub absences: Vec<Absence>,
    /// How often each outcome was seen.
    pub outcomes: BTreeMap<String, u64>,
    /// How often each fault was injected.
    pub faults: BTreeMap<&'static str, u64>,
}

/// Records a history.
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Recorder {
    pub fn new() -> Self {
        Self { start: Instant::now(), history: Mutex::default() }
    }
    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn count(&self, outcome: impl Into<String>) {
        *self.history().outcomes.entry(outcome.into()).or_default() += 1;
    }
}
