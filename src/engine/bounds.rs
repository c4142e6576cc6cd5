//! Bounds of `limits` as lengths.

/// A bound as a length; saturates.
pub(super) fn usize_of(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}
