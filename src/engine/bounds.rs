//! Conversion of `limits`.

/// A limit as a `usize`; saturates.
pub(super) fn usize_of(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}
