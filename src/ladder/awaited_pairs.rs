//! That the move of a route by its file waits for pairs that are under way.

use std::time::Instant;

use crate::store::FileState;

/// A move by a file for which pairs are waited for.
#[derive(Clone, Copy)]
pub(super) struct AwaitedPairs {
    /// What the file declares.
    pub asked: FileState,
    /// From then on the move is judged although pairs are under way.
    pub until: Instant,
    /// Whether the move waits now.
    pub holds: bool,
}

impl AwaitedPairs {
    /// What is left of it when the file is judged again: the time until which the same move waits.
    pub fn judged_again(self, asked: FileState) -> Option<Self> {
        (self.holds && self.asked == asked).then_some(Self { holds: false, ..self })
    }
}
