//! The status of a step, as people see it.

use serde::{Deserialize, Serialize};

/// The status of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// A call is under way.
    Running,
    /// Another attempt is to come.
    Retrying,
    /// It has a result.
    Done,
    /// Its call was recorded and not sent.
    Rehearsed,
    /// It did not run, or a person skipped it.
    Skipped,
    /// It ended without a result.
    Failed,
    /// It is unknown what it did.
    Unknown,
    /// A person decides how it goes on.
    Conflict,
    /// Its fallback runs in its place.
    Replaced,
    /// What it did is being undone.
    Undoing,
    /// What it did was undone.
    Undone,
    /// People are asked.
    WaitingCheckpoint,
    /// It waits for a signal.
    WaitingSignal,
    /// It waits for a time.
    WaitingTime,
    /// It waits in a lock's queue.
    WaitingLock,
    /// It waits for its child run.
    WaitingChild,
}
