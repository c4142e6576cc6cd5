//! Why a command was not carried out.

use crate::workflow::{CommandRefusal, RunSummary};

/// Why a command was not carried out, or why it is unknown whether it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The run refuses the command in its present state.
    #[error("{refusal}")]
    Refused {
        /// The run.
        run: Box<RunSummary>,
        /// Why it is refused.
        refusal: CommandRefusal,
    },
    /// This process cannot execute the run: its plan or events cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store refused an operation, or did not answer.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// True if it is unknown whether the command was carried out: the run's state shows whether it was.
        unknown: bool,
    },
}
