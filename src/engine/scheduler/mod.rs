//! Decides which runs have a task: mailboxes, timers, acquired runs, leases.
//!
//! Always true: a run has at most one task in this process, and a message to a run without a task starts one
//! (`mailbox`, `deliver`, `acquire`). A suspended run is an entry in `timers`; the `supervisor` wakes it. Runs that the
//! last process left are resumed by `recover` and `outbox`. Commands reach a run whichever process executes it
//! (`commands`). The code that executes and starts runs (`driver`, `api`) is known only as
//! [`super::context::RunTasks`].

pub(super) mod acquire;
pub(super) mod acquired_run;
pub(super) mod children;
pub(super) mod command_error;
pub(super) mod commands;
pub(super) mod copied_runs;
pub(super) mod deliver;
pub(super) mod end_children;
pub(super) mod gauges;
pub(super) mod hand_over;
pub(super) mod heartbeat;
pub(super) mod lease;
pub(super) mod load;
pub(super) mod load_permits;
pub(super) mod mailbox;
pub(super) mod outbox;
pub(super) mod recover;
pub(super) mod registry;
pub(super) mod run_snapshots;
pub(super) mod snapshot_writer;
pub(super) mod spawn_policy_cell;
pub(super) mod stored_run;
pub(super) mod stuck;
pub(super) mod subscriptions;
pub(super) mod successors;
pub(super) mod supervisor;
pub(super) mod timers;
pub(super) mod unreadable;
pub(super) mod watchdog;
pub(super) mod why_unresumed;
