//! The gauges of adoptions, as the store counts them.

use std::collections::BTreeMap;

use super::Adoptions;
use crate::names::RouteId;
use crate::store::AdoptionState;

impl Adoptions {
    /// Sets the gauges to the store's counts. Returns whether an adoption is moving or unknown; also true if the store
    /// does not answer.
    pub(super) async fn publish(&self) -> bool {
        let Ok(counts) = self.store.adoption_counts().await else { return true };
        let flags = self.flags.load_full();
        let mut unknown = BTreeMap::new();
        for flag in flags.routes.iter().filter(|flag| flag.route.id == *flag.family.id()) {
            let is_its_own = |stored: &RouteId| flag.family.ids().any(|id| id == stored);
            // A family whose `adopt:` was removed has gauges as long as the store has adoptions of it.
            if flag.route.lifetime.adopt.is_none() && !counts.iter().any(|(family, ..)| is_its_own(family)) {
                continue;
            }
            for state in [AdoptionState::Moving, AdoptionState::Unknown, AdoptionState::GivenBack] {
                let of_state = counts.iter().filter(|(family, counted, _)| is_its_own(family) && *counted == state);
                let gauge = metrics::gauge!(
                    "pointsman_instances_adoption", "route" => flag.route.id.to_string(), "state" => state.as_str()
                );
                let count: u64 = of_state.map(|(_, _, count)| *count).sum();
                gauge.set(count as f64);
                if state == AdoptionState::Unknown && count > 0 {
                    unknown.insert(flag.route.id.clone(), count);
                }
            }
        }
        self.state().unknown = unknown;
        let is_open = |state: &AdoptionState| matches!(state, AdoptionState::Moving | AdoptionState::Unknown);
        counts.iter().any(|(_, state, count)| is_open(state) && *count > 0)
    }
}
