//! What callers, people and programs ask for: answer a request, start, order, look, follow, run again.
//!
//! Always true: what is asked of a run becomes an event or is refused with a reason; an answer is given only after that is
//! on disk. Whether a run moves in this process, in another one or in none makes no difference to who asks.

pub(super) mod arm;
pub(super) mod child;
pub(super) mod children;
pub(super) mod explain;
pub(super) mod follow;
mod methods;
pub(super) mod orders;
mod prepare;
pub(super) mod prepared;
pub(super) mod rerun;
pub(super) mod start;
pub(super) mod types;
