//! How long the move of a route by its file waits for pairs that are under way.

use std::time::Instant;

use crate::store::FileState;

/// A move by a file that waits for pairs under way.
#[derive(Clone, Copy)]
pub(super) struct AwaitedPairs {
    /// What the file declares.
    pub asked: FileState,
    /// From this time on, pairs under way do not stop the move any more.
    pub until: Instant,
    /// Whether the last judgement refused the move because of pairs under way. While a file is being judged: `false`.
    pub is_waiting: bool,
}

impl AwaitedPairs {
    /// For the next judgement of the file: the same move goes on waiting until the same time. `None` if the file asks
    /// for another move now, or if this one did not wait.
    pub fn for_next_judgement(self, asked: FileState) -> Option<Self> {
        (self.is_waiting && self.asked == asked).then_some(Self { is_waiting: false, ..self })
    }
}
