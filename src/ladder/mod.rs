//! Where each route stands, and how it moves: the only place that swaps the flag set.
//!
//! The question it answers: "may this route go there, and what is in force now?" Always true: a flip is in the store
//! before it is in force; the set in force was checked whole; moves happen one after the other. What a request gets
//! from the set is `flag`'s business, whether evidence suffices is `evidence`'s.
//!
//! When the store is slow, moves wait for each other and requests for none of them: they read the set that is in force.
//! When it is gone, a move fails and nothing changes. When it recorded a flip and its answer was lost, the flip is
//! found by reading back. A caller that goes away in the middle of a move does not stop it.

mod board;
mod export;
mod files;
mod horizon;
mod judge;
mod mover;
mod orphans;
mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use status::{NextRung, RouteStatus};

use self::mover::Mover;
use crate::evidence::Evidence;
use crate::flag::{FlagSet, Freeze, Percent, Route, Service, Shares, State};
use crate::names::{RouteId, ServiceName};
use crate::store::{FlipRecord, SharedStore, StoreError};

/// Holds the flag set in force and moves routes.
pub struct Ladder {
    mover: Arc<Mover>,
}

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
}

/// A wish to move.
#[derive(Clone, Debug)]
pub struct Ask {
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
    /// It makes no sense: a share below 100 without a key, above its followers, no workflow, force without reason,
    /// from `only` without acknowledgement (with the horizon).
    #[error("{0}")]
    Refused(String),
    /// The store did not take it: nothing changed.
    #[error("the store did not record the flip, nothing changed: {0}")]
    Store(#[from] StoreError),
}

/// One move, before it is recorded.
#[derive(Clone, Debug)]
struct Move {
    route: RouteId,
    from: State,
    to: State,
    shares: Shares,
    reason: Option<String>,
    forced: bool,
}

/// Who moves, as the metric tells it: a closed set, never a person's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Api,
    File,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            By::Api => "api",
            By::File => "file",
        }
    }
}

impl Ladder {
    /// Takes the files' declarations and the store's flips, and puts the first set in force. The last flip of a route
    /// wins over what its file declares, unless the file declares something else than when it was last read: that is a
    /// flip by `file`, through the gate. A route without any flip stands as its file declares, unproven.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(
        declared: Declared,
        store: SharedStore,
        evidence: Arc<Evidence>,
    ) -> Result<Arc<Self>, StoreError> {
        let mover = Arc::new(Mover::open(declared, store, evidence).await?);
        Ok(Arc::new(Self { mover }))
    }

    /// The set in force; readers load it once for each request.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        self.mover.flags()
    }

    /// What the engine owns and nobody would follow up any more under these files: as sentences, none where all is well.
    /// Such files must not be put in force.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn orphans(&self, declared: &Declared) -> Result<Vec<String>, StoreError> {
        let pins = self.mover.pin_counts().await?;
        Ok(orphans::sentences(&pins, Some(&self.flags().load()), &declared.routes))
    }

    /// A newly checked set of files: swapped in whole. Changed declarations are flips by `file`, through the gate;
    /// evidence that rests on older plans or rules must have been started anew before, or the gate looks at that.
    ///
    /// # Errors
    /// The store does not answer: nothing changed.
    pub async fn reload(&self, declared: Declared) -> Result<(), StoreError> {
        let mover = Arc::clone(&self.mover);
        let work = tokio::spawn(async move { mover.reload(declared).await });
        work.await.unwrap_or_else(|error| Err(StoreError(format!("the reload did not end: {error}"))))
    }

    /// Moves a route. A move to where it stands already changes nothing and says so.
    ///
    /// # Errors
    /// See [`FlipError`]; nothing changed.
    pub async fn flip(&self, route: &RouteId, ask: Ask) -> Result<Flipped, FlipError> {
        let (mover, route) = (Arc::clone(&self.mover), route.clone());
        let work = tokio::spawn(async move { mover.flip(&route, ask).await });
        work.await.unwrap_or_else(|error| Err(StoreError(format!("the flip did not end: {error}")).into()))
    }

    /// Sets the kill switch.
    ///
    /// # Errors
    /// The store does not answer: nothing changed.
    pub async fn freeze(&self, freeze: Freeze, reason: Option<String>, by: String) -> Result<FlipRecord, StoreError> {
        let mover = Arc::clone(&self.mover);
        let work = tokio::spawn(async move { mover.freeze(freeze, reason, by).await });
        work.await.unwrap_or_else(|error| Err(StoreError(format!("the freeze did not end: {error}"))))
    }

    /// The engine's health: while false, no new instances below `only`.
    pub fn set_health(&self, healthy: bool) {
        self.mover.set_health(healthy);
    }

    /// Where every route stands and what the next rung takes, in file order.
    pub fn status(&self) -> Vec<RouteStatus> {
        self.mover.status()
    }

    /// What a person should know before the engine stops answering a route; empty where the engine owns nothing of its
    /// family.
    ///
    /// # Errors
    /// No such route, or the store does not answer.
    pub async fn horizon(&self, route: &RouteId) -> Result<Vec<String>, FlipError> {
        self.mover.horizon(route).await
    }
}
