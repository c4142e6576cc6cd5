//! Whether the shadow executor goes on.

/// Whether the executor goes on, and how it is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Go on.
    No,
    /// Take no more entries, skip those that wait for calls by legacy, and finish the others.
    Finish,
    /// Abort the entries that are there.
    Now,
}
