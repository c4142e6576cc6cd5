//! The public types for guards: requests to release, the status, and the listeners of actions.

use std::sync::Arc;

use jiff::Timestamp;

use crate::flag::{self, Effective, GuardCondition, Route, State};
use crate::names::RunId;
use crate::store::{FlipRecord, GuardAction};

/// A request to release what the guard of a route did.
#[derive(Clone, Debug)]
pub struct GuardRelease {
    /// Why.
    pub reason: String,
    /// Release also if the route was changed since its evidence, or the guards of its followers still limit them.
    pub force: bool,
    /// Who requests it.
    pub by: String,
}

/// The result of a release of what the guard of a route did.
#[derive(Clone, Debug)]
pub struct GuardReleased {
    /// The record.
    pub record: FlipRecord,
    /// The state in force now.
    pub effective: Effective,
    /// What the gates up to the requested state would still require, as sentences. They do not stop a release.
    pub still_shut: Vec<String>,
}

/// The latch of a route's guard: the action that is not released.
#[derive(Clone, Debug)]
pub struct GuardStatus {
    /// What the guard did.
    pub action: GuardAction,
    /// The highest state that it allows; `None` for an alarm in `only`.
    pub limit: Option<State>,
    /// The condition of the guard that was exceeded.
    pub condition: Option<GuardCondition>,
    /// How many requests or pairs were bad.
    pub bad: u64,
    /// Of how many requests or pairs: the last ones before the action.
    pub of: u64,
    /// The runs of some of the bad ones.
    pub runs: Vec<RunId>,
    /// When the guard acted.
    pub at: Timestamp,
    /// What was found, as a sentence.
    pub reason: String,
    /// Whether the store has it. If not, a restart would lose it.
    pub is_recorded: bool,
    /// How the route returns to its requested state.
    pub release: flag::GuardRelease,
    /// The number of pairs in a row, up to now, without a difference or a failed run.
    pub clean_pairs: u64,
    /// How many of these `release: evidence` requires.
    pub clean_pairs_wanted: u64,
}

/// An action of a guard, or its release, for [`GuardListener`]. If the guard acted on the candidate of a route,
/// `record` is a record of the candidate.
#[derive(Clone)]
pub struct GuardActed {
    /// The record. While the store does not have it, its number is not final.
    pub record: FlipRecord,
    /// The route.
    pub route: Arc<Route>,
    /// The state that was requested.
    pub requested: State,
    /// Whether the action was made in an earlier process, whose listeners may have been told of it.
    pub is_repeated: bool,
}

/// Is told of each action of a guard. Does not wait.
pub trait GuardListener: Send + Sync {
    /// A guard has acted, or what it did was released.
    fn acted(&self, acted: GuardActed);
}
