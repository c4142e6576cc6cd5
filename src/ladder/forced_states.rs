//! Shows the states that files put in force without a flip, with the evidence at this moment.

use super::Ladder;
use super::forced_files::ForcedFileState;
use crate::names::RouteId;
use crate::store::ForcedState;

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
}
