//! The operations that callers, people and programs use: answer a request, start a run, send it an order, inspect it,
//! wait for it, rerun it.
//!
//! Always true: an order becomes an event or is refused with a reason, and the answer is given only after the event is
//! durable. It makes no difference to the caller whether a task of this process moves the run, one of another process,
//! or none.

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
