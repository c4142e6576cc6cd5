//! The evidence of one route as the store has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::basis::BasisParts;
use super::counters::Counters;
use super::fingerprints::PairsByKind;
use super::noise::NoiseOfLegacy;
use super::process_share::{EndedShare, ProcessShare};
use super::rejudging::Rejudging;
use super::route::{KeptEvidence, RouteEvidence};
use crate::flag::SkipReason;
use crate::names::{RouteId, WorkerId};

/// The evidence of one route as the store has it.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredEvidence {
    pub(super) basis: Option<String>,
    #[serde(flatten)]
    pub(super) parts: BasisParts,
    /// The version of the binary whose answers to callers are counted.
    #[serde(default)]
    pub(super) answers_by: Option<String>,
    pub(super) evidence: RouteEvidence,
    #[serde(default)]
    pub(super) kept: Vec<KeptEvidence>,
    #[serde(default)]
    pub(super) noise: NoiseOfLegacy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier_matches: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) rules: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rejudging: Option<Rejudging>,
    #[serde(default, rename = "checks_under_way")] // answers of the engine that were not judged yet
    pub(super) checks_in_flight: u64,
    #[serde(default, rename = "under_way", skip_serializing_if = "PairsByKind::is_empty")] // not settled yet
    pub(super) in_flight: PairsByKind,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) processes: BTreeMap<WorkerId, ProcessShare>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ended_shares: BTreeMap<WorkerId, EndedShare>,
    /// The id of the route, if it is not that of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) written_under: Option<RouteId>,
}

/// The version of this binary.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Counters {
    /// Restores the counters from the store.
    pub(super) fn restored(stored: StoredEvidence) -> Self {
        let (mut evidence, mut kept) = (stored.evidence.restored(), stored.kept);
        // The gate to `only` asks what the present binary answers.
        if stored.answers_by.as_deref() != Some(VERSION) {
            evidence.restart_answers();
            kept.iter_mut().for_each(|kept| kept.evidence.restart_answers());
        }
        // The process that worked on these requests has ended, so nobody settles them any more.
        evidence.count_lost(&stored.in_flight, SkipReason::ShuttingDown);
        let (basis, parts, noise, rules) = (stored.basis, stored.parts.restored(), stored.noise, stored.rules);
        let (rejudging, checks_lost, earlier_matches) =
            (stored.rejudging, stored.checks_in_flight, stored.earlier_matches);
        let (processes, ended_shares) = (stored.processes, stored.ended_shares);
        let own = Self { earlier_matches, rejudging, checks_lost, processes, ended_shares, ..Self::default() };
        Self { basis, parts, evidence, noise, kept, rules, ..own }
    }

    /// The evidence as the store has it.
    pub(super) fn to_stored(&self) -> StoredEvidence {
        StoredEvidence {
            basis: self.basis.clone(),
            parts: self.parts.clone(),
            answers_by: Some(VERSION.to_owned()),
            evidence: self.evidence.clone(),
            kept: self.kept.clone(),
            noise: self.noise.clone(),
            earlier_matches: self.earlier_matches.clone(),
            rules: self.rules.clone(),
            rejudging: self.rejudging.clone(),
            in_flight: self.in_flight.clone(),
            checks_in_flight: self.checks_in_flight + self.checks_lost,
            processes: self.processes.clone(),
            ended_shares: self.ended_shares.clone(),
            written_under: None,
        }
    }
}
