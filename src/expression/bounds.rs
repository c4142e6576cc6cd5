//! How large an expression may be.

use crate::limits::Limits;

/// The bounds of one expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of its source.
    pub bytes_max: usize,
    /// Levels of nested brackets.
    pub depth_max: usize,
}

impl Bounds {
    /// The largest bounds that any setting allows.
    pub const LARGEST: Self = Self { bytes_max: BYTES_CAP, depth_max: DEPTH_CAP };

    /// The bounds that `limits:` sets, capped: deeper nesting could overflow the stack of the recursive parser.
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

/// The most that `expression_bytes_max` can allow.
const BYTES_CAP: usize = 64 << 10;
/// The most that `expression_depth_max` can allow.
const DEPTH_CAP: usize = 32;
/// Names, literals and operators of one expression.
pub(super) const TOKENS_MAX: usize = 512;
/// Unary operators in a row: `!!!x`, `--x`.
pub(super) const UNARY_RUN_MAX: usize = 8;
/// Conditionals (`? :`) in one expression.
pub(super) const TERNARIES_MAX: usize = 32;
/// Nested macros (`map` within `map`); each level multiplies the work.
pub(super) const MACRO_DEPTH_MAX: usize = 4;
/// The budget of one evaluation, in units: a node visited, a value copied, or 32 bytes of text.
pub(super) const WORK_MAX: u64 = 2_000_000;
