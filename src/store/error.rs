//! Why a store did not do what was asked.

use crate::flag::{Arm, PinKey};
use crate::names::{RunId, Seq};

/// Why events were not appended. Each variant asks for a different reaction of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The append contradicts what is stored: read the run again.
    #[error("conflict: {0}")]
    Conflict(AppendConflict),
    /// The fencing token is outdated, because another process took the run over: stop executing it.
    #[error("fenced: run {0} has a newer owner")]
    Fenced(RunId),
    /// Certainly nothing was written (disk full before the commit, queue full, store closed).
    #[error("refused, nothing was written: {0}")]
    Refused(String),
    /// This process may begin no run: its lease is over, or it has not caught up with the other processes since, or the
    /// request was decided before that. Nothing of the run is stored, also not by an earlier try of this append.
    #[error("refused, nothing of the run is stored: {0}")]
    LeaseOver(String),
    /// It is unknown whether the events were written: read the run back before anything else.
    #[error("unavailable, the outcome is unknown: {0}")]
    Unavailable(String),
}

/// How the request of the run that has a retry key compares with the request that wants the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedRequest {
    /// It is the same request.
    Same,
    /// It is the same request under another credential, so that its answer is for somebody else.
    UnderAnotherCredential,
    /// It is another request.
    Other,
}

/// What an append contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendConflict {
    /// The run already has events of another append with these numbers, or the events before them are missing.
    Seq {
        /// The last seq that is stored.
        stored: Seq,
    },
    /// The retry key is legacy's, which took the first try.
    LegacyClaim,
    /// The retry key belongs to another run.
    Claim {
        /// The run that claimed the key.
        run: RunId,
        /// How that run's request compares with the refused one.
        request: ClaimedRequest,
    },
    /// The instance is pinned to another run or to the other arm.
    Pin {
        /// The instance.
        key: PinKey,
        /// The arm that owns the instance.
        owner: Arm,
        /// The arm that gave out its id: legacy, also if the engine has adopted the instance since.
        made_by: Arm,
    },
}

impl std::fmt::Display for AppendConflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AppendConflict::Seq { stored } => write!(f, "the last stored event of the run is {stored}"),
            AppendConflict::LegacyClaim => write!(f, "legacy took the first try of the retry key"),
            AppendConflict::Claim { run, .. } => write!(f, "the retry key belongs to {run}"),
            AppendConflict::Pin { key, owner, made_by: _ } => {
                write!(f, "`{}` of {} is {}'s already", key.id, key.family, owner.as_str())
            }
        }
    }
}

/// Why the events of a run were not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EventsError {
    /// The events are damaged, or a newer version wrote them: reading them again gives the same error.
    Unreadable(StoreError),
    /// The store did not answer.
    NoAnswer(StoreError),
}

impl From<EventsError> for StoreError {
    fn from(error: EventsError) -> Self {
        match error {
            EventsError::Unreadable(error) | EventsError::NoAnswer(error) => error,
        }
    }
}

/// The store did not answer, or holds something that this binary cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);
