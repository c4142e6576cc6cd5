//! What the ladder is asked, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::command::FlipCommand;
use crate::flag::{Effective, Freeze, Percent, Route, Service, Shares, State};
use crate::names::{RouteId, ServiceName};
use crate::store::{FlipRecord, StoreError};

/// What the files say, checked.
#[derive(Clone)]
pub struct Declared {
    /// Tells these files from those before: what is decided by them is run by them.
    pub edition: u64,
    /// The routes.
    pub routes: Vec<Arc<Route>>,
    /// Where unmatched requests go.
    pub default_legacy: Arc<Service>,
    /// All services.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// What each route's evidence rests on under these files: evidence of another basis proves nothing. A route that is
    /// not in it is judged by the evidence there is.
    pub bases: BTreeMap<RouteId, String>,
    /// Routes whose workflow only reads: performing a request twice does no harm.
    pub read_only: BTreeSet<RouteId>,
}

/// A request to move a route.
#[derive(Clone, Debug)]
pub struct FlipRequest {
    /// Where to.
    pub to: State,
    /// The share from now on; `None` keeps the one that the rung has.
    pub percent: Option<Percent>,
    /// Why.
    pub reason: Option<String>,
    /// Pass the gate by hand; wants a reason.
    pub force: bool,
    /// The horizon was read: wanted from `only` downwards.
    pub acknowledge: bool,
    /// Who.
    pub by: String,
}

/// A move that happened.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Flipped {
    /// The record. Its number is 0 where nothing was recorded, because the route stood there already.
    pub flip: FlipRecord,
    /// Whether anything changed: a flip to where the route stands already is none.
    pub changed: bool,
    /// What is in force now, and why if it is not what was asked.
    pub effective: Effective,
    /// On the way down: what the caller should know (instances the engine owns that legacy does not know, list routes
    /// that will not show them), as sentences.
    pub horizon: Vec<String>,
}

/// Why a move was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlipError {
    /// No such route; the nearest name.
    #[error("no route `{0}`")]
    UnknownRoute(RouteId, Option<String>),
    /// The gate is shut.
    #[error("the gate is shut: {}", .reasons.join("; "))]
    GateShut {
        /// Each condition that does not hold.
        reasons: Vec<String>,
        /// What would pass, one after the other.
        commands: Vec<FlipCommand>,
    },
    /// It makes no sense: a share below 100 without a key, above its followers, no workflow, force without reason,
    /// from `only` without acknowledgement (with the horizon).
    #[error("{why}")]
    Refused {
        /// Why, and what to know.
        why: String,
        /// What would pass, one after the other; none where nothing does.
        commands: Vec<FlipCommand>,
    },
    /// The store did not take it: nothing changed.
    #[error("the store did not record the flip, nothing changed: {0}")]
    Store(#[from] StoreError),
    /// See [`NotKnown`].
    #[error(transparent)]
    NotKnown(#[from] NotKnown),
}

/// The kill switch is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Frozen {
    /// The record. Its number is 0 while the store does not have it.
    pub flip: FlipRecord,
    /// Whether the store has it: else it is in force, and a restart would not find it.
    pub recorded: bool,
}

/// Why the kill switch was not set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FreezeError {
    /// A stronger freeze is in force, and this one would let go what it holds.
    #[error("private and shared steps are held, and this would let all of them go at once")]
    Weaker,
    /// A freeze was set after its end was asked for.
    #[error("somebody froze again before the end of the freeze could be recorded")]
    Overtaken,
    /// The store did not take the end of a freeze: nothing changed.
    #[error("the store did not record that the freeze ends, so it stays in force: {0}")]
    Store(#[from] StoreError),
    /// See [`NotKnown`].
    #[error(transparent)]
    NotKnown(#[from] NotKnown),
}

/// The store did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    /// Nothing was begun: an earlier move waits for the store.
    #[error("an earlier move still waits for the store; this one was not begun, nothing changed")]
    Busy,
    /// It was handed to the store. What is in force does not change before the store says what it did.
    #[error(
        "the store has not answered, so it is not known whether this is recorded; it comes in force as soon as the \
         store says that it is, and else nothing changes: `pointsman flips` and `status` show which"
    )]
    Pending,
}

/// One move, before it is recorded.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub route: RouteId,
    pub from: State,
    pub to: State,
    pub shares: Shares,
    pub reason: Option<String>,
    pub forced: bool,
}

/// Where a flip comes from, as the metric tells it: a closed set, never a person's name.
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
pub trait Obey: Send + Sync {
    /// Takes over the kill switch of this version, unless it has a newer one. Once this has returned, nothing begins any
    /// more that the kill switch forbids.
    fn obey(&self, version: u64, freeze: Freeze) -> BoxFuture<'_, ()>;
}

/// One more condition of the gates, beside evidence.
pub trait GateCondition: Send + Sync {
    /// What is in the way of this move upwards, as sentences; none where nothing is. `--force` with a reason passes it.
    fn missing(&self, route: &Route, from: State, to: State) -> Vec<String>;
}
