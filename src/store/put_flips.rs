//! What one call of [`Store::put_flips`](super::Store::put_flips) records.

use super::{DeclaredState, FlipRecord};

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
}
