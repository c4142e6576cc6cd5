//! Instances that move, or have moved, from legacy to the engine.

use std::collections::BTreeMap;
use std::ops::Bound;

use futures_util::future::BoxFuture;

use super::MemoryStore;
use super::tables::Tables;
use crate::flag::{Arm, PinKey};
use crate::names::RouteId;
use crate::store::adoptions::claimed;
use crate::store::{
    Adoption, AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, InstanceChange, NewAdoption, PinAdoption,
    PinRecord, StoreError,
};

impl Tables {
    fn claim_adoption(&mut self, new: NewAdoption) -> AdoptionClaim {
        let NewAdoption { key, id, pins, twins, run, workflow, by, at, worker: _, settles_s: _ } = new;
        let is_engines = |pin: &PinRecord| pin.arm == Arm::Engine && (pin.adoption.is_none() || pin.run != Some(run));
        let all = || pins.iter().chain(&twins);
        let held = self.adoptions.get(&key);
        let may_claim = held.is_none_or(|held| held.state == AdoptionState::GivenBack && held.run != run);
        if may_claim && !all().any(|pin| self.pin(pin).is_some_and(is_engines)) {
            let keys: Vec<PinKey> = all().cloned().collect();
            self.remove_pins(|pin| pin.arm == Arm::Legacy && keys.contains(&pin.key));
            for key in pins {
                let adoption = Some(PinAdoption::Moving);
                self.add_pin(PinRecord { key, arm: Arm::Engine, run: Some(run), at, adoption });
            }
            let (state, reason, claimed) = (AdoptionState::Moving, None, at);
            let adoption = Adoption { key: key.clone(), id, run, workflow, state, reason, by, claimed, at };
            self.adoptions.insert(key.clone(), adoption);
        }
        claimed(run, self.adoptions.get(&key).cloned())
    }

    fn record_adoption_outcome(&mut self, outcome: AdoptionOutcome) -> bool {
        let AdoptionOutcome { key, run, state, reason, by, at } = outcome;
        let Some(adoption) = self.adoptions.get_mut(&key).filter(|adoption| adoption.run == run) else { return false };
        if !matches!(adoption.state, AdoptionState::Moving | AdoptionState::Unknown) {
            return adoption.state == state;
        }
        (adoption.state, adoption.reason, adoption.at) = (state, reason, at);
        if let Some(by) = by {
            adoption.by = by;
        }
        let of_pins = match state {
            AdoptionState::GivenBack => None,
            AdoptionState::Moving => Some(PinAdoption::Moving),
            AdoptionState::Unknown => Some(PinAdoption::Unknown),
            AdoptionState::Adopted => Some(PinAdoption::Adopted),
        };
        let is_of_run = |pin: &PinRecord| pin.run == Some(run) && pin.adoption.is_some();
        match of_pins {
            None => self.remove_pins(is_of_run),
            Some(_) => self.change_pins(|pin| {
                if is_of_run(pin) {
                    pin.adoption = of_pins;
                }
            }),
        }
        if let Some(stored) = self.runs.get_mut(&run).filter(|_| of_pins.is_some()) {
            stored.pinned = true;
        }
        if state == AdoptionState::Adopted {
            self.change_instance(InstanceChange::LegacyEnded(key, at));
        }
        true
    }
}

impl AdoptionStore for MemoryStore {
    fn claim_adoption(&self, new: NewAdoption) -> BoxFuture<'_, Result<AdoptionClaim, StoreError>> {
        self.with(|tables| tables.claim_adoption(new))
    }

    fn record_adoption_outcome(&self, outcome: AdoptionOutcome) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.with(|tables| tables.record_adoption_outcome(outcome))
    }

    fn adoption(&self, key: PinKey) -> BoxFuture<'_, Result<Option<Adoption>, StoreError>> {
        self.with(|tables| tables.adoptions.get(&key).cloned())
    }

    fn adoptions(
        &self,
        family: Option<RouteId>,
        states: Vec<AdoptionState>,
        after: Option<PinKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Adoption>, StoreError>> {
        self.with(|tables| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rest = tables.adoptions.range((from, Bound::Unbounded)).map(|(_, adoption)| adoption);
            let of_family = rest.filter(|adoption| family.as_ref().is_none_or(|family| adoption.key.family == *family));
            of_family.filter(|adoption| states.contains(&adoption.state)).take(limit).cloned().collect()
        })
    }

    fn adoption_counts(&self) -> BoxFuture<'_, Result<Vec<(RouteId, AdoptionState, u64)>, StoreError>> {
        self.with(|tables| {
            let mut counts: BTreeMap<(RouteId, AdoptionState), u64> = BTreeMap::new();
            for adoption in tables.adoptions.values() {
                *counts.entry((adoption.key.family.clone(), adoption.state)).or_default() += 1;
            }
            counts.into_iter().map(|((family, state), count)| (family, state, count)).collect()
        })
    }
}
