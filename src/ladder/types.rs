//! What a ladder is made from, requests to it, its results and its errors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::task::JoinError;

use super::command::FlipCommand;
use super::declared_plans::DeclaredPlans;
use super::gate_condition::GateCondition;
use super::other_processes::OtherProcesses;
use crate::evidence::{Condition, Evidence, GateVerdict, overall};
use crate::flag::{Effective, Freeze, Percent, Route, Service, Shares, State};
use crate::names::{RouteId, ServiceName, StepId};
use crate::store::{FlipRecord, JudgedGate, Overridden, StoreError, StoreHandle};

/// The checked content of the files.
#[derive(Clone)]
pub struct DeclaredFiles {
    /// Identifies this reading of the files: a request that is decided by it is run with its workflows.
    pub files_version: u64,
    /// The routes.
    pub routes: Vec<Arc<Route>>,
    /// The service that gets requests without a matching route.
    pub default_legacy: Arc<Service>,
    /// All services.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Whether replies name the arm that answered, unless the route says otherwise.
    pub exposes_arm: bool,
    /// The basis of each route's evidence under these files: evidence of another basis does not count. A route without
    /// an entry is judged by all evidence.
    pub bases: BTreeMap<RouteId, String>,
    /// Routes whose workflow only reads: performing a request twice does no harm.
    pub read_only: BTreeSet<RouteId>,
    /// The shared steps of each route's workflow that are to be compared before the route goes to `live`.
    pub shared_steps: BTreeMap<RouteId, Vec<StepId>>,
    /// The private steps of each route's workflow: the gate stays shut if legacy makes the same calls.
    pub private_steps: BTreeMap<RouteId, Vec<StepId>>,
    /// The steps of each route's workflow that read with an unsafe method (such as POST). The gate stays shut if legacy
    /// makes the same call.
    pub sent_reads: BTreeMap<RouteId, Vec<StepId>>,
    /// How long a gate waits at most for pairs that are under way.
    pub pairs_within: Duration,
    /// How long the gate of a candidate waits at most for its pairs that are under way.
    pub candidate_pairs_within: Duration,
    /// The plans of the routes' workflows.
    pub plans: DeclaredPlans,
}

/// What a ladder is made from.
pub struct LadderParts {
    /// Where flips and declarations are kept.
    pub store: StoreHandle,
    /// The evidence by which gates judge.
    pub evidence: Arc<Evidence>,
    /// The other conditions of the gates.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// Conditions that are only asked when a route, a cohort or a candidate goes up: one that has passed the gate stays
    /// where it is.
    pub conditions_of_moves: Vec<Arc<dyn GateCondition>>,
    /// How long after a first try a client's retry may come (`retry_window_s`).
    pub retry_window: Duration,
    /// See [`crate::affinity::StoreAffinity::copy_started`].
    pub copy_started: Option<Timestamp>,
    /// How long a move waits for the store before the caller is told that its outcome is not known yet.
    pub answer_within: Duration,
    /// The other processes that share the store; `None` in a store of one process.
    pub others: Option<Arc<dyn OtherProcesses>>,
}

/// The number of a check of the engine's health. It is assigned before the check is made: of two checks, the one that
/// began later counts, whichever ends first.
#[derive(Clone, Copy, Debug)]
pub struct CheckNumber(pub(super) u64);

/// A request to move a route.
#[derive(Clone, Debug)]
pub struct MoveRequest {
    /// The new state.
    pub to: State,
    /// The share from now on; `None` keeps the one that the rung has.
    pub percent: Option<Percent>,
    /// Why.
    pub reason: Option<String>,
    /// Override the gate; requires a reason.
    pub force: bool,
    /// The person has read which instances the engine owns that legacy does not know (the *horizon*,
    /// [`Flipped::horizon`]); required for the way down from `only`.
    pub acknowledge: bool,
    /// Who requests it.
    pub by: String,
}

/// What the share of a route still needs before it grows to the next one (`auto:`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoStatus {
    /// The next share.
    pub next: Percent,
    /// How long it is until the present share has lasted as long as `auto:` requires.
    pub due_in: Duration,
    /// The requests with the present share. In `live`: answers of the engine in a row without an error; below: pairs.
    pub requests: u64,
    /// How many of these requests `auto:` requires.
    pub requests_wanted: u64,
    /// What blocks the next share besides time and requests, as sentences.
    pub blocked_by: Vec<String>,
}

/// The result of a flip that was not refused.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Flipped {
    /// The record. Its number is 0 if nothing was recorded: the route had the state already, or the store does not have
    /// it yet. If a larger share followed a flip down, it is the record of the share, with the `from` of the flip down.
    pub flip: FlipRecord,
    /// Whether anything changed. A flip to the present state changes nothing.
    pub changed: bool,
    /// Whether the store has all that was asked for. If false with `share_is_pending`, the store has the flip down, and
    /// perhaps the larger share. If false without it, a flip down is in force that a restart would lose.
    pub recorded: bool,
    /// The number of the newest flip that the store was known to have when this result was made. A process that has
    /// that flip in force has this one in force too, also if this one has no record of its own: nothing changed, or a
    /// later or lower flip took its place.
    pub newest_flip: u64,
    /// Whether the flip down is recorded, and it is not known whether the larger share that was asked for together with
    /// it is recorded too. That share comes into force once it is known to be recorded.
    pub share_is_pending: bool,
    /// The state in force now, and why if it is not the requested one.
    pub effective: Effective,
    /// On the way down: what the caller should know, as sentences. Examples: the engine owns instances that legacy does
    /// not know; list routes will not show them; the larger share that was asked for is not in force.
    pub horizon: Vec<String>,
    /// What the gates that the flip overrode by force still require, and which processes have not acknowledged the
    /// flip, as sentences.
    pub still_required: Vec<String>,
}

/// Why files were not put in force, or are not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FilesError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files would do harm: a sentence for each case. Examples: they leave instances of the engine without a route,
    /// lower a route from `only` without acknowledgement, or change the callers in a share. See `files_check.rs`.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// A route has gone to `live` since the files were read, or its candidate has changed: read them again.
    #[error("a route was flipped while the files were read; they are read again")]
    FlippedMeanwhile,
    /// The task that puts the files in force ended without a result: it panicked, or the process is ending.
    #[error(
        "the task that puts the files in force ended without a result, so it is not known whether anything changed or \
         was recorded. `pointsman flips` and `status` show it"
    )]
    TaskEnded,
}

/// Why a move was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlipError {
    /// There is no such route; the second field is the most similar id.
    #[error("no route `{0}`")]
    UnknownRoute(RouteId, Option<String>),
    /// The gate is shut.
    #[error("the gate is shut: {}", .reasons.join("; "))]
    GateShut {
        /// Each condition that does not hold.
        reasons: Vec<String>,
        /// The commands that would pass, one after the other.
        commands: Vec<FlipCommand>,
    },
    /// Not possible, not even with `force`:
    ///
    /// - a share below 100 % without a key, or a share of `off` or `only`;
    /// - a creator above its followers, or a route without a workflow;
    /// - a flip to `only` during a freeze, or down from `only` without acknowledgement;
    /// - force without a reason;
    /// - a flip that came too late: the route was lowered, a freeze came into force, or the process is stopping;
    /// - a flip above the limit of the guard, or one that another process has not acknowledged (`force` allows these).
    #[error("{why}")]
    Refused {
        /// Why, with the horizon if that has to be read.
        why: String,
        /// The commands that would pass, one after the other; none if no command can.
        commands: Vec<FlipCommand>,
    },
    /// The store did not record the move, so nothing changed. A flip down never has this error: it is put in force
    /// before it is recorded.
    #[error("the store did not record the flip, nothing changed: {0}")]
    Store(#[from] StoreError),
    /// See [`Unconfirmed`].
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
}

/// The result of setting the kill switch: of a freeze, or of the end of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// The record. Its number is 0 while the store does not have it.
    pub flip: FlipRecord,
    /// Whether the store has it. If not, the freeze is in force all the same, but a restart would lose it. Always true
    /// of the end of a freeze.
    pub recorded: bool,
}

/// Why the kill switch was not set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FreezeError {
    /// A stronger freeze is in force, and this one would release the steps that it holds.
    #[error("private and shared steps are held, and this weaker freeze would release all of them at once")]
    Weaker,
    /// Another freeze was set after the end of the freeze was requested, and supersedes that request.
    #[error("another freeze was set before the end of the earlier one could be recorded; it stays in force")]
    Superseded,
    /// The store did not record the end of a freeze: nothing changed.
    #[error("the store did not record that the freeze ends, so it stays in force: {0}")]
    Store(#[from] StoreError),
    /// See [`Unconfirmed`].
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
}

/// The move was not begun, or its outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// The move was not begun, because an earlier one waits for the store.
    #[error("an earlier move still waits for the store; this one was not begun, nothing changed")]
    Busy,
    /// The move waits for the store, which has not replied. What is in force changes only once the outcome is known,
    /// and a route that is lowered before that stays where it was lowered to.
    #[error(
        "the store has not answered, so it is not known whether the move was recorded. If it was, it comes into force as \
         soon as the store says so; if not, nothing changes. `pointsman flips` and `status` show the outcome"
    )]
    Pending,
    /// The task of the move ended without a result: it panicked, or the process is ending.
    #[error(
        "the task of this move ended without a result, so it is not known whether anything changed or was recorded. \
         `pointsman flips` and `status` show it"
    )]
    TaskEnded,
}

impl FilesError {
    pub(super) fn task_ended(error: &JoinError) -> Self {
        tracing::error!(%error, "the task that puts files in force ended without a result");
        Self::TaskEnded
    }
}

impl Unconfirmed {
    pub(super) fn task_ended(error: &JoinError) -> Self {
        tracing::error!(%error, "the task of a move ended without a result");
        Self::TaskEnded
    }
}

/// One move, before it is recorded.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub route: RouteId,
    pub from: State,
    pub to: State,
    pub shares: Shares,
    pub reason: Option<String>,
    pub overridden: Option<Overridden>,
    /// The gates on its way, as they were judged.
    pub gates: Vec<JudgedGate>,
}

/// Where a flip comes from, as a label of the metric: a closed set, never a person's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlipSource {
    Api,
    File,
}

impl FlipSource {
    pub fn as_str(self) -> &'static str {
        match self {
            FlipSource::Api => "api",
            FlipSource::File => "file",
        }
    }
}

/// Something that the kill switch stops.
pub trait KillSwitchListener: Send + Sync {
    /// Applies a change of the kill switch, unless a newer version was applied before. Once this has returned, nothing
    /// begins that the kill switch forbids.
    fn apply_freeze(&self, version: u64, freeze: Freeze) -> BoxFuture<'_, ()>;
}

/// The next rung up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextRung {
    /// The rung.
    pub to: State,
    /// All that does not hold, as sentences; empty if the gate is open.
    pub missing: Vec<String>,
    /// The conditions on the route's evidence, whether they hold or not.
    pub conditions: Vec<Condition>,
}

impl NextRung {
    /// The verdict of its gate: that of the evidence, or `fail` if only something else shuts the gate.
    pub fn verdict(&self) -> GateVerdict {
        match overall(&self.conditions) {
            GateVerdict::Pass if !self.missing.is_empty() => GateVerdict::Fail,
            verdict => verdict,
        }
    }
}

/// The kind of a reading of the files.
#[derive(Clone, Copy)]
pub(super) enum ReadKind {
    /// The first reading of a process. `has_served`: requests may have come before these files.
    Start {
        has_served: bool,
    },
    Reload,
    /// The files in force are read once more, so that only plans change. Nothing is refused but the move of a
    /// candidate: these files already passed a start or a reload, and a refusal would keep the share of a failing
    /// candidate.
    AppliedAgain,
}

impl ReadKind {
    pub fn has_served(self) -> bool {
        !matches!(self, Self::Start { has_served: false })
    }
}
