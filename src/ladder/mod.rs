//! Where each route stands, and how it moves: the only place that swaps the flag set.
//!
//! The question it answers: "may this route go there, and what is in force now?" Always true: a flip is in the store
//! before it is in force; the set in force was checked whole. What a request gets from the set is `flag`'s business,
//! whether evidence suffices is `evidence`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::evidence::Evidence;
use crate::flag::{FlagSet, Freeze, Percent, Route, Service, State};
use crate::names::{RouteId, ServiceName};
use crate::store::{FlipRecord, SharedStore, StoreError};

/// Holds the flag set in force and moves routes.
pub struct Ladder {}

/// What the files say, checked.
#[derive(Clone)]
pub struct Declared {
    /// The routes.
    pub routes: Vec<Arc<Route>>,
    /// Where unmatched requests go.
    pub default_legacy: Arc<Service>,
    /// All services.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
}

/// A wish to move.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Where to.
    pub to: State,
    /// The share from now on.
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
    /// The record.
    pub flip: FlipRecord,
    /// What is in force now, and why if it is not what was asked.
    pub effective: crate::flag::Effective,
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
    /// The gate is shut: each condition that does not hold.
    #[error("the gate is shut: {}", .0.join("; "))]
    GateShut(Vec<String>),
    /// It makes no sense: more than one rung up, a share below 100 without a key, above its followers, no workflow,
    /// force without reason, from `only` without acknowledgement (with the horizon).
    #[error("{0}")]
    Refused(String),
    /// The store did not take it: nothing changed.
    #[error("the store did not record the flip, nothing changed: {0}")]
    Store(#[from] StoreError),
}

impl Ladder {
    /// Takes the files' declarations and the store's flips, by the precedence of DESIGN 3, and puts the first set in
    /// force.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(
        _declared: Declared,
        _store: SharedStore,
        _evidence: Arc<Evidence>,
    ) -> Result<Arc<Self>, StoreError> {
        todo!()
    }
    /// The set in force; readers load it once for each request.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        todo!()
    }
    /// A newly checked set of files: swapped in whole. Changed declarations are flips by `file`, through the gate.
    ///
    /// # Errors
    /// The store does not answer: nothing changed.
    pub async fn reload(&self, _declared: Declared) -> Result<(), StoreError> {
        todo!()
    }
    /// Moves a route.
    ///
    /// # Errors
    /// See [`FlipError`]; nothing changed.
    pub async fn flip(&self, _route: &RouteId, _ask: Ask) -> Result<Flipped, FlipError> {
        todo!()
    }
    /// Sets the kill switch.
    ///
    /// # Errors
    /// The store does not answer: nothing changed.
    pub async fn freeze(
        &self,
        _freeze: Freeze,
        _reason: Option<String>,
        _by: String,
    ) -> Result<FlipRecord, StoreError> {
        todo!()
    }
    /// The engine's health: while false, no new instances below `only`.
    pub fn set_health(&self, _healthy: bool) {
        todo!()
    }
}
