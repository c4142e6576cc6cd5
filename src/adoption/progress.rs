//! How far a bulk move is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::move_outcome::MoveOutcome;

/// The most instances whose reason for not being adopted is kept.
const REASONS_MAX: usize = 100;

/// A bulk move of instances, and how far it is.
pub struct Bulk {
    /// When it was asked for.
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    progress: Mutex<BulkProgress>,
    is_running: AtomicBool,
}

/// How far a bulk move is.
#[derive(Clone, Debug, Default)]
pub struct BulkProgress {
    /// How many instances it has read so far.
    pub found: u64,
    /// How many are the engine's now.
    pub adopted: u64,
    /// How many the engine had made itself.
    pub engine_owned: u64,
    /// How many stayed legacy's.
    pub at_legacy: u64,
    /// How many have an unknown outcome: a person decides which arm owns them.
    pub unknown: u64,
    /// How many are still being moved.
    pub moving: u64,
    /// Why instances were not adopted, by the instance's id; not of all, if there are many.
    pub reasons: BTreeMap<String, String>,
    /// Why the bulk ended before it had read all instances.
    pub ended_early: Option<String>,
}

impl Bulk {
    pub(super) fn new(since: Timestamp, by: String) -> Self {
        Self { since, by, progress: Mutex::default(), is_running: AtomicBool::new(true) }
    }

    pub(super) fn end(&self) {
        self.is_running.store(false, Ordering::Release);
    }

    /// How far it is.
    pub fn progress(&self) -> BulkProgress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the bulk has not ended yet.
    pub fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut BulkProgress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn note(&self, id: &str, moved: MoveOutcome) {
        self.change(|progress| {
            let (counter, reason) = match moved {
                MoveOutcome::Adopted => (&mut progress.adopted, None),
                MoveOutcome::EngineOwns => (&mut progress.engine_owned, None),
                MoveOutcome::GivenBack(why) | MoveOutcome::NotTried(why) => (&mut progress.at_legacy, Some(why)),
                MoveOutcome::Unknown(why) => (&mut progress.unknown, Some(why)),
                MoveOutcome::Moving => (&mut progress.moving, None),
            };
            *counter += 1;
            if let Some(why) = reason.filter(|_| progress.reasons.len() < REASONS_MAX) {
                progress.reasons.insert(id.to_owned(), why);
            }
        });
    }
}
