//! What one call of [`Store::put_flips`](super::Store::put_flips) records.

use super::{DeclaredState, FlipRecord};
use crate::names::WorkerId;

/// Flips that are recorded together, and what the files declare from then on.
///
/// The server of a database may perform a write long after its caller was told that it timed out. `after` makes such a
/// late write harmless: it records nothing if a newer flip was recorded meanwhile, so that the newest flip in the store
/// is the one that was made last.
#[derive(Clone, Debug, Default)]
pub struct PutFlips {
    /// In order; the store gives them their numbers.
    pub flips: Vec<FlipRecord>,
    /// Replaces all declarations; `None` keeps the stored ones.
    pub declared: Option<Vec<DeclaredState>>,
    /// The number that the newest flip in the store must have, of whatever route or of the kill switch; 0: there must
    /// be none. Otherwise nothing is recorded.
    pub after: u64,
    /// What has to stand in the store when it records this; otherwise nothing is recorded.
    pub announced: Option<StandingAnnouncement>,
}

/// An announcement of a process ([`ProcessRecord::announced`](super::ProcessRecord::announced)), while it has its lease
/// in this term. The other processes claim the retry keys of the routes that it names for as long as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandingAnnouncement {
    /// The process.
    pub worker: WorkerId,
    /// The term of its lease in which the others have acknowledged it.
    pub term: i64,
    /// Its number.
    pub number: u64,
}
