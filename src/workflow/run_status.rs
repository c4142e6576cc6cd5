//! The statuses of a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say what they are
pub enum RunStatus {
    Queued,
    Running,
    WaitingCheckpoint,
    WaitingSignal,
    Paused,
    Compensating,
    Completed,
    Failed,
    Cancelled,
    Abandoned,
}

impl RunStatus {
    /// The statuses of runs that have not ended.
    pub const OPEN: [RunStatus; 6] = [
        RunStatus::Queued,
        RunStatus::Running,
        RunStatus::WaitingCheckpoint,
        RunStatus::WaitingSignal,
        RunStatus::Paused,
        RunStatus::Compensating,
    ];
    /// The statuses of runs that have ended.
    pub const ENDED: [RunStatus; 4] =
        [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Abandoned];
    /// Its name in the API, the store and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Queued => "queued",
            RunStatus::Running => "running",
            RunStatus::WaitingCheckpoint => "waiting_checkpoint",
            RunStatus::WaitingSignal => "waiting_signal",
            RunStatus::Paused => "paused",
            RunStatus::Compensating => "compensating",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
            RunStatus::Abandoned => "abandoned",
        }
    }
    /// Whether the run has ended, or waits for people, for a signal, or for the end of a pause.
    pub fn has_ended_or_awaits_input(self) -> bool {
        self.is_final() || matches!(self, RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal | RunStatus::Paused)
    }
    /// Whether the run has ended.
    pub fn is_final(self) -> bool {
        matches!(self, RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled | RunStatus::Abandoned)
    }
}
