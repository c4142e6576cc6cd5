//! What people are shown of adoptions.

use super::Adoptions;
use crate::flag::Family;
use crate::store::{Adoption, AdoptionState, StoreError};

/// How many adoptions of a family are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being moved.
    pub moving: u64,
    /// Unknown.
    pub unknown: u64,
    /// The engine's.
    pub adopted: u64,
    /// Tried, and legacy's.
    pub given_back: u64,
}

/// The adoptions of a family.
#[derive(Clone, Debug)]
pub struct Listed {
    /// How many there are.
    pub counts: Counts,
    /// Those that are not the engine's, unknown ones first.
    pub open: Vec<Adoption>,
}

impl Adoptions {
    /// The adoptions of a family; of those that are not the engine's at most `limit` in each state.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn listed(&self, family: &Family, limit: usize) -> Result<Listed, StoreError> {
        let stored = family.first_id();
        let mut counts = Counts::default();
        for (of, state, count) in self.store.adoption_counts().await? {
            let counter = match state {
                AdoptionState::Moving => &mut counts.moving,
                AdoptionState::Unknown => &mut counts.unknown,
                AdoptionState::Adopted => &mut counts.adopted,
                AdoptionState::GivenBack => &mut counts.given_back,
            };
            *counter += if of == *stored { count } else { 0 };
        }
        let mut open = Vec::new();
        for state in [AdoptionState::Unknown, AdoptionState::Moving, AdoptionState::GivenBack] {
            open.extend(self.store.adoptions(Some(stored.clone()), vec![state], None, limit).await?);
        }
        Ok(Listed { counts, open })
    }
}
