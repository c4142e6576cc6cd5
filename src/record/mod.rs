//! The record: a chain of all moves of routes, also of those that were refused, of states that files force without a
//! flip, of freezes, of changes of the basis of evidence and of what gates require, and of what persons decided about
//! instances.
//!
//! The question it answers: "who moved what, when, why, with what evidence, and was anything of it altered later?"
//!
//! Always true: entries are numbered without a gap, and each carries the hash of the one before ([`chain`]). Every flip
//! in the store gets exactly one entry, also if the process ends in between: the next one adds it. The transaction of
//! an entry notes it as the head of the chain outside the table of entries, so that the removal of the newest entries
//! can be detected.
//!
//! Entries are written in the background, as soon as there is something to write: no move waits for them. While the
//! store accepts no writes, they wait. If the process ends before the store takes them, the next one makes those of
//! flips, of states and cohorts that files force, and of changes of what gates require; the others are lost.

use std::time::Duration;

mod basis_entry;
mod chain;
mod chain_end;
mod pending_entry;
mod record_writer;

/// A flip gets its entry within about a minute, if a process runs and the store accepts writes. A flip that is older
/// than this without an entry, or whose entry came later than this, is reported as late.
pub const LATE_ENTRY_AFTER: Duration = Duration::from_secs(300);

pub use chain::{BrokenChain, ChainCheck, hash_of};
pub use record_writer::{BY_FILE, RecordWriter, RefusedMove};
