//! Hashes that are much faster than those of the standard library, for what no one gains by choosing.
//!
//! They have no key, so texts with equal hashes can be made: they are used only where equal hashes cost no more time
//! than others, or for addresses in memory.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, FoldHasher};

/// A map by addresses in memory.
pub(super) type ByAddress<T, V> = HashMap<*const T, V, FixedState>;

/// Hashes one value.
pub(super) type FastHasher = FoldHasher<'static>;

/// A hasher that has seen nothing. All of them give equal values equal hashes.
pub(super) fn fast_hasher() -> FastHasher {
    FixedState::default().build_hasher()
}
