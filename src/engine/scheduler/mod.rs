//! Which run has a task: mailboxes, timers, claims, leases.
//!
//! Always true: a run has at most one task in this process, and what is sent to one that has none begins it
//! (`mailbox`, `deliver`, `claim`). A run that only waits is an entry in `timers`; the `supervisor` wakes it, and begins
//! what the last process left (`recover`, `outbox`). Those who move runs are known only as
//! [`super::context::RunTasks`].

pub(super) mod claim;
pub(super) mod deliver;
pub(super) mod gauges;
pub(super) mod heartbeat;
pub(super) mod lease;
pub(super) mod load;
pub(super) mod mailbox;
pub(super) mod outbox;
pub(super) mod reads;
pub(super) mod recover;
pub(super) mod registry;
pub(super) mod run_snapshots;
pub(super) mod snapshot_writer;
pub(super) mod spawn_gate;
pub(super) mod stored_run;
pub(super) mod stuck;
pub(super) mod supervisor;
pub(super) mod timers;
pub(super) mod watchdog;
pub(super) mod watchers;
