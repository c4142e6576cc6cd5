//! The synchronous state machine of one run: [`Machine::step`] takes what happened and returns what to do.
//!
//! The question it answers: "given what has happened to this run so far, what has to be done now, and what must wait?"
//! It wraps the pure core of `workflow`: it asks what is due, lets the core decide, records the events, and returns the
//! appends, calls, answers, queries and timers that follow. It has no async, no clock, no random source and no store:
//! the time comes with every input, identifiers and jitter come from a seed, and the same inputs give the same outputs.
//!
//! Always true: a private or shared call is returned only after the append with its `StepStarted` was acknowledged; the
//! caller, the starter and the senders of commands are answered only with acknowledged events; between two `read` calls
//! nothing waits for the store; one append is in flight at a time; an append whose outcome is unknown is retried
//! unchanged before any other; a run that is suspended names what will wake it.
//!
//! What it leaves to others: `driver` performs the outputs and feeds back their results; `scheduler` decides which run
//! has a driver; `workflow` decides what a run does next.

mod advance;
mod answers;
mod caller;
pub(super) mod command_record;
mod external;
mod ids;
mod inputs_outputs;
mod log;
mod measure;
mod pending_run_record;
mod query_state;
pub(super) mod refused_input;
pub(super) mod replies;
pub(super) mod run_report;
mod state;
mod step;
mod suspend;
#[cfg(test)]
mod tests;
mod webhook_messages;

#[cfg(test)]
pub(super) use self::external::open_children;
pub(super) use self::ids::Ids;
pub(super) use self::inputs_outputs::{
    Announcement, CallId, CallRequest, CallerAnswer, ChildEnd, ChildSpec, ChildState, CommandAnswer, CommandDelivery,
    CommandId, DriverEnd, Input, LockQuery, Output, RehearsedChild, RehearsedRun, SpawnPolicy, StartAnswer, WakeCause,
};
pub(super) use self::log::{AppendHeader, new_pins};
pub(super) use self::measure::{Attempt, Measure};
pub(super) use self::pending_run_record::PendingRunRecord;
pub(super) use self::run_report::{IntentsOfRun, add_intents_below, intent};
pub(super) use self::state::{CallerTerms, Machine, MachineParts, RecoveryPause};
