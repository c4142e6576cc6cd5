//! What others see of guards: releases, actions, and who is told of them.

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
    /// Also if the route was changed since its evidence, or its followers are still lowered.
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
    /// What the gates up to the requested state would still require, as sentences. A release does not ask them.
    pub still_shut: Vec<String>,
}

/// What the guard of a route did and nobody has released.
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
    /// Out of how many, the last ones.
    pub of: u64,
    /// The runs of some of them.
    pub runs: Vec<RunId>,
    /// When it did this.
    pub at: Timestamp,
    /// What was found, as a sentence.
    pub reason: String,
    /// Whether the store has it. If not, a restart would lose it.
    pub is_recorded: bool,
    /// How the route returns to its requested state.
    pub release: flag::GuardRelease,
    /// The pairs in a row without a difference or a failed run since then.
    pub clean_pairs: u64,
    /// How many of these `release: evidence` asks for.
    pub clean_pairs_wanted: u64,
}

/// An action of a guard, or its end, for [`GuardListener`]. An action on the candidate of a route is a record of
/// the candidate.
#[derive(Clone)]
pub struct GuardActed {
    /// The record. Its number is not the store's while the store does not have it.
    pub record: FlipRecord,
    /// The route.
    pub route: Arc<Route>,
    /// The state that was requested.
    pub requested: State,
    /// Whether it happened in an earlier process, and may have been told then.
    pub is_repeated: bool,
}

/// Is told of each action of a guard. Does not wait.
pub trait GuardListener: Send + Sync {
    /// A guard has acted, or what it did was released.
    fn acted(&self, acted: GuardActed);
}
