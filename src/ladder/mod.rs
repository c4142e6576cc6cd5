//! Where each route stands, and how it moves: the only place that swaps the flag set.
//!
//! The question it answers: "may this route go there, and what is in force now?" Always true: a flip is in the store
//! before it is in force, and so is the end of a freeze; a freeze is in force at once, whatever the store does, and is
//! recorded behind (`kill_switch`); the set in force was checked whole; moves happen one after the other; what limits a route
//! beside its moves (guard, health, kill switch) comes in by version, and late news changes nothing (`in_force`). What
//! a request gets from the set is `flag`'s business, whether evidence suffices is `evidence`'s.
//!
//! When the store is slow, moves wait for each other and requests for none of them: they read the set that is in force.
//! When it refuses, a move fails and nothing changes, except that a freeze is in force, and a restart loses it. When its answer was lost, the outcome is looked up until it is
//! known (`record`); whoever asked is told within a bound that it is not known yet. A caller that goes away in the
//! middle of a move does not stop it.

mod command;
mod export;
mod family;
mod files;
mod gate;
mod horizon;
mod in_force;
mod kill_switch;
mod mover;
mod orphans;
mod positions;
mod record;
mod scopes;
mod status;
mod types;
mod versioned;
mod way;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout, timeout_at};

pub use command::FlipCommand;
pub use status::{NextRung, RouteStatus};
pub use types::{Declared, FlipError, FlipRequest, Flipped, FreezeError, Frozen, GateCondition, NotKnown, Obey};

use self::gate::Gate;
use self::mover::Mover;
use crate::evidence::Evidence;
use crate::flag::{FlagSet, Freeze, State};
use crate::names::RouteId;
use crate::store::{SharedStore, StoreError};

/// How long whoever sets the kill switch waits to hear that it is recorded. It is in force before.
const FREEZE_RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// Holds the flag set in force and moves routes.
pub struct Ladder {
    mover: Arc<Mover>,
    looks: AtomicU64,
    answer_within: Duration,
}

/// What a ladder works with.
pub struct LadderParts {
    /// Where flips and declarations are kept.
    pub store: SharedStore,
    /// What gates look at.
    pub evidence: Arc<Evidence>,
    /// What they look at beside it.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// How long a client's retry may come (`retry_window_s`).
    pub retry_window: Duration,
    /// How long a move waits for the store before whoever asked is told that its outcome is not known yet.
    pub answer_within: Duration,
}

/// A look at something that limits routes, taken before it is looked at: of two looks the later one counts, whichever
/// comes back first.
#[derive(Clone, Copy, Debug)]
pub struct Look(u64);

impl Ladder {
    /// Takes the files' declarations and the store's flips, and puts the first set in force. The last flip of a route
    /// wins over what its file declares, unless the file declares something else than when it was last read: that is a
    /// flip by `file`, through the gate. A route without any flip stands as its file declares up to `shadow`, and above
    /// that by force alone, unproven.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(declared: Declared, parts: LadderParts) -> Result<Arc<Self>, StoreError> {
        let LadderParts { store, evidence, conditions, retry_window, answer_within } = parts;
        let mover = Arc::new(Mover::open(declared, store, Gate { evidence, conditions, retry_window }).await?);
        Ok(Arc::new(Self { mover, looks: AtomicU64::new(0), answer_within }))
    }

    /// The set in force; readers load it once for each request.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        self.mover.flags()
    }

    /// The kill switch stops this too; the one in force is obeyed when this returns.
    pub async fn obeyed_by(&self, other: Arc<dyn Obey>) {
        self.mover.obeyed_by(other).await;
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

    /// Puts a newly checked set of files in force as one transaction: judged whole, what it moves and declares recorded
    /// together, `recorded` called, then swapped in. `recorded` puts in force what goes with the files beside the flags;
    /// it is called once, or not at all where nothing was recorded. Returns once the outcome is known, however long the
    /// store takes.
    ///
    /// # Errors
    /// Nothing was recorded and nothing changed.
    pub async fn reload(&self, declared: Declared, recorded: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let mover = Arc::clone(&self.mover);
        let turn = mover.turn().await;
        let work = tokio::spawn(async move { mover.reload(turn, declared, recorded).await });
        work.await.unwrap_or_else(|error| Err(not_ended(&error)))
    }

    /// Moves a route. A move to where it stands already changes nothing and says so.
    ///
    /// # Errors
    /// See [`FlipError`]; nothing changed, unless it is [`NotKnown::Pending`].
    pub async fn flip(&self, route: &RouteId, request: FlipRequest) -> Result<Flipped, FlipError> {
        let until = Instant::now() + self.answer_within;
        let (mover, route) = (Arc::clone(&self.mover), route.clone());
        let turn = timeout_at(until, mover.turn()).await.map_err(|_| NotKnown::Busy)?;
        let work = tokio::spawn(async move { mover.flip(turn, &route, request).await });
        let joined = timeout_at(until, work).await.map_err(|_| NotKnown::Pending)?;
        joined.unwrap_or_else(|error| Err(not_ended(&error).into()))
    }

    /// Sets the kill switch. When this has returned, everything that obeys it does: nothing of the kind begins any more,
    /// whenever it was decided. A freeze is recorded behind, so it is in force also where the store takes nothing; the end
    /// of one is recorded first.
    ///
    /// # Errors
    /// See [`FreezeError`]; nothing changed, unless it is [`NotKnown::Pending`].
    pub async fn freeze(&self, freeze: Freeze, reason: Option<String>, by: String) -> Result<Frozen, FreezeError> {
        let mover = Arc::clone(&self.mover);
        if freeze == Freeze::No {
            let (until, version) = (Instant::now() + self.answer_within, mover.kill_switch().ask_for_end());
            let turn = timeout_at(until, mover.turn()).await.map_err(|_| NotKnown::Busy)?;
            let work = tokio::spawn(async move { mover.lift(turn, version, reason, by).await });
            let joined = timeout_at(until, work).await.map_err(|_| NotKnown::Pending)?;
            let flip = joined.unwrap_or_else(|error| Err(not_ended(&error).into()))?;
            return Ok(Frozen { flip, recorded: true });
        }
        let work = tokio::spawn(async move {
            let pending = mover.freeze(freeze, reason, by).await?;
            let recording = mover.clone();
            tokio::spawn(async move { recording.record_freezes().await });
            let recorded = mover.kill_switch().wait_recorded(pending.version);
            let recorded = timeout(FREEZE_RECORDED_WITHIN, recorded).await.ok().flatten();
            Ok(Frozen { recorded: recorded.is_some(), flip: recorded.unwrap_or(pending.flip) })
        });
        work.await.unwrap_or_else(|error| Err(not_ended(&error).into()))
    }

    /// Whether a freeze is in force that the store does not have yet: a restart would not find it.
    pub fn freeze_is_unrecorded(&self) -> bool {
        self.mover.kill_switch().is_unrecorded()
    }

    /// Announces a look at the engine's health or at what the guard judges by.
    pub fn look(&self) -> Look {
        Look(self.looks.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// The engine's health as a look found it: while false, no new instances below `only`.
    pub fn set_health(&self, Look(version): Look, healthy: bool) {
        if !self.mover.in_force().set_health(version, healthy) {
            return;
        }
        if healthy {
            tracing::info!("the engine is healthy again: routes stand where they were asked to");
        } else {
            tracing::warn!(
                "the engine is not healthy: no new instances, routes below `only` stand at `shadow` at most"
            );
        }
    }

    /// The highest state that the guard allows a route, as a look found it; `None` where it limits nothing.
    pub fn set_guard(&self, Look(version): Look, route: &RouteId, limit: Option<State>) {
        if self.mover.in_force().set_guard(route, version, limit) {
            match limit {
                Some(limit) => tracing::warn!(%route, %limit, "the guard lowers a route"),
                None => tracing::info!(%route, "the guard limits a route no more"),
            }
        }
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
        timeout(self.answer_within, self.mover.horizon(route))
            .await
            .unwrap_or_else(|_| Err(StoreError("it does not answer".into()).into()))
    }
}

fn not_ended(error: &JoinError) -> StoreError {
    StoreError(format!("the move did not end: {error}"))
}
