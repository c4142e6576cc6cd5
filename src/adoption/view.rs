//! Reads adoptions from the store: that of an instance, and those of a family as people are shown them.

use super::Adoptions;
use crate::flag::{Family, InstanceKey};
use crate::store::{Adoption, AdoptionState, StoreError};

/// How many adoptions of a family are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdoptionCounts {
    /// Being moved.
    pub moving: u64,
    /// With an unknown outcome: a person decides which arm owns the instance.
    pub unknown: u64,
    /// The engine's.
    pub adopted: u64,
    /// Given back: a move was tried, and the instance is legacy's.
    pub given_back: u64,
}

/// The adoptions of a family.
#[derive(Clone, Debug)]
pub struct AdoptionList {
    /// How many there are.
    pub counts: AdoptionCounts,
    /// Those that are not the engine's, unknown ones first.
    pub open: Vec<Adoption>,
}

impl Adoptions {
    /// The adoption of an instance; `None` if the instance was never claimed. An adoption keeps the key of its first
    /// claim, which has the oldest id that the creator had then. If several are found, because creators were joined
    /// (`was:`), the one with the highest `rank`.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn adoption_of(&self, key: &InstanceKey) -> Result<Option<Adoption>, StoreError> {
        let mut found: Option<Adoption> = None;
        for key in key.stored_keys() {
            let adoption = self.store.adoption(key).await?;
            let precedence = |of: &Option<Adoption>| of.as_ref().map(|of| (rank(of.state), of.at));
            if precedence(&adoption) > precedence(&found) {
                found = adoption;
            }
        }
        Ok(found)
    }

    /// The adoptions of a family; of those that are not the engine's at most `limit` in each state.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn listed(&self, family: &Family, limit: usize) -> Result<AdoptionList, StoreError> {
        let mut counts = AdoptionCounts::default();
        for (of, state, count) in self.store.adoption_counts().await? {
            let counter = match state {
                AdoptionState::Moving => &mut counts.moving,
                AdoptionState::Unknown => &mut counts.unknown,
                AdoptionState::Adopted => &mut counts.adopted,
                AdoptionState::GivenBack => &mut counts.given_back,
            };
            *counter += if family.ids().any(|id| *id == of) { count } else { 0 };
        }
        let mut open = Vec::new();
        for state in [AdoptionState::Unknown, AdoptionState::Moving, AdoptionState::GivenBack] {
            let until = open.len() + limit;
            for id in family.ids() {
                open.extend(self.store.adoptions(Some(id.clone()), vec![state], None, limit).await?);
            }
            open.truncate(until);
        }
        Ok(AdoptionList { counts, open })
    }
}

/// If one instance has several adoptions, the one with the highest rank counts: the state about which most is to be
/// done, `Unknown` first.
fn rank(state: AdoptionState) -> u8 {
    match state {
        AdoptionState::Unknown => 3,
        AdoptionState::Moving => 2,
        AdoptionState::Adopted => 1,
        AdoptionState::GivenBack => 0,
    }
}
