//! Unkeyed hashes, which are much faster than those of the standard library.
//!
//! Whoever sends texts can make collisions, so these hashes are used only where a collision costs no extra time, or for
//! addresses in memory.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, FoldHasher};

/// A map by addresses in memory.
pub(super) type ByAddress<T, V> = HashMap<*const T, V, FixedState>;

/// Hashes one value.
pub(super) type FastHasher = FoldHasher<'static>;

/// A hasher in its initial state: equal values have equal hashes in all such hashers.
pub(super) fn fast_hasher() -> FastHasher {
    FixedState::default().build_hasher()
}
