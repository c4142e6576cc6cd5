//! The bounds of one comparison, and the bound that ended a comparison without a verdict.

/// The bounds of one comparison.
#[derive(Clone, Copy, Debug)]
pub struct CompareBounds {
    /// The most differences that are listed.
    pub differences: usize,
    /// The deepest nesting of a body.
    pub depth: usize,
    /// The most bytes of a body, after decompression.
    pub bytes: usize,
    /// The most calls of each side.
    pub effects: usize,
}

impl CompareBounds {
    /// Takes the bounds from the limits in force.
    pub fn of(limits: &crate::limits::Limits) -> Self {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            differences: size(limits.compare_differences_max),
            depth: size(limits.compare_depth_max),
            bytes: size(limits.compare_bytes_max),
            effects: size(limits.compare_effects_max),
        }
    }
}

/// Why two observations could not be compared. This is not a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BoundExceeded {
    /// A body is larger than the bound, as it was received or after decompression.
    #[error("a body is too large to compare")]
    Size,
    /// A body is nested deeper than the bound.
    #[error("a body is nested too deeply to compare")]
    Depth,
    /// Legacy made more calls than the bound, or the engine would make more.
    #[error("there are too many calls to compare")]
    Effects,
    /// The time was used up, and no difference had been found by then.
    #[error("the time for the comparison is used up")]
    Time,
}
