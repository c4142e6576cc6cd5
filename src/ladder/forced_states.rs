//! Shows what files put in force without a flip: states, with the evidence at this moment, and what gates require.

use super::Ladder;
use super::forced_files::ForcedFileState;
use super::promote_changes::ChangedPromote;
use crate::names::RouteId;
use crate::store::{DeclaredPromote, ForcedState};

impl Ladder {
    /// The states that files put in force without a flip.
    pub fn forced_files(&self) -> Vec<ForcedFileState> {
        let positions = self.mover.in_force().inputs().positions;
        let of_route = |(id, forced): (&RouteId, &ForcedState)| {
            let position = positions.routes.get(id)?;
            let evidence = self.mover.gate().evidence_of(&positions, position);
            Some(ForcedFileState {
                route: id.clone(),
                forced: forced.clone(),
                rung: position.rung(),
                shares: position.inputs.shares,
                evidence: serde_json::to_value(evidence).unwrap_or_default(),
            })
        };
        positions.forced.iter().filter_map(of_route).collect()
    }

    /// The last change of what the gates of each route require.
    pub fn changed_promotes(&self) -> Vec<ChangedPromote> {
        let positions = self.mover.in_force().inputs().positions;
        let of_route = |id: &RouteId| {
            let DeclaredPromote { requires, last_change, changes: _ } = positions.promotes.get(id)?.clone();
            Some(ChangedPromote { route: id.clone(), change: last_change?, requires })
        };
        positions.routes.keys().filter_map(of_route).collect()
    }
}
