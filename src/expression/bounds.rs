//! How large an expression may be.

use crate::limits::Limits;

/// The bounds of one expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Its source.
    pub bytes_max: usize,
    /// Its brackets within brackets.
    pub depth_max: usize,
}

impl Bounds {
    /// The largest that any setting allows.
    pub const LARGEST: Self = Self { bytes_max: BYTES_CAP, depth_max: DEPTH_CAP };

    /// The bounds that `limits:` sets. The depth is capped: beyond it a parser that recurses would be at risk.
    pub fn of(limits: &Limits) -> Self {
        let bytes = usize::try_from(limits.expression_bytes_max).unwrap_or(BYTES_CAP);
        let depth = usize::try_from(limits.expression_depth_max).unwrap_or(DEPTH_CAP);
        Self { bytes_max: bytes.min(BYTES_CAP), depth_max: depth.min(DEPTH_CAP) }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

/// No setting allows more source than this.
const BYTES_CAP: usize = 64 << 10;
/// No setting allows deeper brackets than this.
const DEPTH_CAP: usize = 32;
/// Names, literals and operators of one expression.
pub(super) const TOKENS_MAX: usize = 512;
/// `!!!x`, `--x`.
pub(super) const UNARY_RUN_MAX: usize = 8;
/// `a ? b : c ? d : …`.
pub(super) const TERNARIES_MAX: usize = 32;
/// `map` within `map`: each multiplies the work.
pub(super) const MACRO_DEPTH_MAX: usize = 4;
/// What one evaluation may do: nodes visited, values copied, 32 bytes of text each.
pub(super) const WORK_MAX: u64 = 2_000_000;
