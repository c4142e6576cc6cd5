//! Instances that move, or have moved, from legacy to the engine.
//!
//! Always true: a claim, the pins of its instance and what is known of the instance at legacy change in one
//! transaction; of all claims of an instance at most one holds. While an instance moves its pins are the engine's and
//! say so ([`PinAdoption`]), so that no process takes the instance for legacy's. A change that is repeated changes
//! nothing.

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::flag::PinKey;
use crate::names::{RouteId, RunId, WorkerId, WorkflowName};

/// How far the adoption of a pinned instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinAdoption {
    /// It is being moved.
    Moving,
    /// Whether legacy released it is not known.
    Unknown,
    /// It is the engine's.
    Adopted,
}

/// How far the adoption of an instance has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdoptionState {
    /// It is being moved, by the run of the claim.
    Moving,
    /// Whether legacy released it is not known: a person decides.
    Unknown,
    /// It is the engine's.
    Adopted,
    /// It stayed legacy's.
    GivenBack,
}

impl AdoptionState {
    /// All states.
    pub const ALL: [AdoptionState; 4] =
        [AdoptionState::Moving, AdoptionState::Unknown, AdoptionState::Adopted, AdoptionState::GivenBack];

    /// Its name in the API, the store and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AdoptionState::Moving => "moving",
            AdoptionState::Unknown => "unknown",
            AdoptionState::Adopted => "adopted",
            AdoptionState::GivenBack => "given_back",
        }
    }
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StoreError(format!("a stored adoption has the unknown state `{text}`")))
    }
}

impl PinAdoption {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            PinAdoption::Moving => AdoptionState::Moving.as_str(),
            PinAdoption::Unknown => AdoptionState::Unknown.as_str(),
            PinAdoption::Adopted => AdoptionState::Adopted.as_str(),
        }
    }
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        let found = [PinAdoption::Moving, PinAdoption::Unknown, PinAdoption::Adopted];
        let found = found.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StoreError(format!("a stored pin has the unknown adoption `{text}`")))
    }
}

/// The adoption of an instance: the newest claim of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The instance, under the id of its family under which it was claimed first, one of
    /// [`crate::flag::InstanceKey::stored_keys`].
    pub key: PinKey,
    /// The id as legacy spells it.
    pub id: Arc<str>,
    /// The run that moves it, or moved it.
    pub run: RunId,
    /// The workflow of the run.
    pub workflow: WorkflowName,
    /// How far it has come.
    pub state: AdoptionState,
    /// Why it stayed legacy's, or is unknown; or why a person decided so.
    pub reason: Option<String>,
    /// Who asked for it, or decided it.
    pub by: String,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// When its state changed last.
    pub at: Timestamp,
}

/// A claim of an instance.
#[derive(Clone, Debug)]
pub struct NewAdoption {
    /// The key of its earlier adoption, if there is one, else [`crate::flag::InstanceKey::stored_key`].
    pub key: PinKey,
    /// The id as legacy spells it.
    pub id: Arc<str>,
    /// The keys of the instance's pins: one for each spelling of its id, in one family.
    pub pins: Vec<PinKey>,
    /// Other keys under which a pin of its twin may be: those of the family's other ids.
    pub twins: Vec<PinKey>,
    /// The run that will move it.
    pub run: RunId,
    /// The workflow of the run.
    pub workflow: WorkflowName,
    /// Who asks for it.
    pub by: String,
    /// When it is claimed.
    pub at: Timestamp,
    /// The process that claims it: the claim fails if another process uses the store, or did so less
    /// than `settles_s` ago.
    pub worker: WorkerId,
    /// For how long after the end of another process's lease legacy may go on with requests of that process, in
    /// seconds.
    pub settles_s: u64,
}

/// The result of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionClaim {
    /// The claim holds: nobody else moves the instance.
    Claimed,
    /// An earlier claim holds.
    Held(Adoption),
    /// The engine has the instance, and has not adopted it.
    EngineOwns,
    /// Another process uses the store, or did so recently: what it has sent to legacy is not known here.
    OtherProcess(String),
}

/// How an adoption ended, or that its outcome is unknown.
#[derive(Clone, Debug)]
pub struct AdoptionOutcome {
    /// The instance.
    pub key: PinKey,
    /// The run of the claim.
    pub run: RunId,
    /// The new state; not [`AdoptionState::Moving`].
    pub state: AdoptionState,
    /// Why.
    pub reason: Option<String>,
    /// Who decided; `None` leaves the name of whoever asked for it.
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// By the id of a family under which they are stored, and a state: how many adoptions are in it.
pub(crate) type AdoptionCount = (RouteId, AdoptionState, u64);

/// Keeps adoptions.
pub trait AdoptionStore: Send + Sync {
    /// Claims an instance of legacy: its pins become the engine's, and say that it moves; the pin of its twin is
    /// removed. After `Claimed`, a restart finds the claim. A repeated claim by one run is `Claimed`.
    fn claim_adoption(&self, new: NewAdoption) -> BoxFuture<'_, Result<AdoptionClaim, StoreError>> {
        let _ = new;
        Box::pin(ready(Err(unsupported())))
    }
    /// The name of another process that uses the store, or did so at most `settles_s` seconds ago; `None` in a store of
    /// one process.
    fn used_by_another(&self, this: WorkerId, settles_s: u64) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        let _ = (this, settles_s);
        Box::pin(ready(Ok(None)))
    }
    /// Ends an adoption that moves or is unknown, if its newest claim is of this run. `Adopted`: the pins are the
    /// engine's for good, and legacy's instance has ended. `GivenBack`: the pins are removed. `Unknown`: the pins say
    /// so. Returns whether the adoption has this state now. After this returns, a restart finds it so.
    fn record_adoption_outcome(&self, outcome: AdoptionOutcome) -> BoxFuture<'_, Result<bool, StoreError>> {
        let _ = outcome;
        Box::pin(ready(Err(unsupported())))
    }
    /// The adoption of an instance; `None` if nobody has claimed it.
    fn adoption(&self, key: PinKey) -> BoxFuture<'_, Result<Option<Adoption>, StoreError>> {
        let _ = key;
        Box::pin(ready(Ok(None)))
    }
    /// At most `limit` adoptions in one of these states, of a family or of all, from the one after `after`, in an order
    /// of the store's own.
    fn adoptions(
        &self,
        family: Option<RouteId>,
        states: Vec<AdoptionState>,
        after: Option<PinKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Adoption>, StoreError>> {
        let _ = (family, states, after, limit);
        Box::pin(ready(Ok(Vec::new())))
    }
    /// How many adoptions of each family are in each state; none where there are none.
    fn adoption_counts(&self) -> BoxFuture<'_, Result<Vec<AdoptionCount>, StoreError>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}

fn unsupported() -> StoreError {
    StoreError("this store keeps no adoptions".into())
}

/// The result of a claim, from the adoption of the instance that the store has afterwards.
pub(super) fn claimed(new_run: RunId, stored: Option<Adoption>) -> AdoptionClaim {
    match stored {
        Some(adoption) if adoption.run == new_run && adoption.state == AdoptionState::Moving => AdoptionClaim::Claimed,
        Some(adoption) if adoption.state != AdoptionState::GivenBack => AdoptionClaim::Held(adoption),
        Some(_) | None => AdoptionClaim::EngineOwns,
    }
}
