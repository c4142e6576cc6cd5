//! The operations that callers, people and programs use: answer a request, start a run, send it a command, inspect it,
//! wait for it, rerun it. A *command* is a command to a run, such as pause, resume, skip a step, cancel, or answer a
//! checkpoint.
//!
//! Always true: a command becomes an event or is refused with a reason, and its sender is answered only after the event
//! is durable. It makes no difference to the sender whether a task of this process, a task of another process or no
//! task executes the run.

pub(super) mod adopt;
mod arm;
mod arm_span;
mod attach;
pub(super) mod child;
mod claim;
pub(super) mod explain;
pub(super) mod follow;
mod instance_facts;
pub(super) mod large_bodies;
mod methods;
pub(super) mod performed;
mod prepare;
pub(super) mod prepared;
pub(super) mod repeat;
pub(super) mod rerun;
mod run_tree;
mod sent_calls;
pub(super) mod start;
pub(super) mod types;
mod unknown_instance;
