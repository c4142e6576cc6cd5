//! Evidence that several processes add to, where tests take the store for one that they share.

use futures_util::future::BoxFuture;

use super::MemoryStore;
use crate::names::RouteId;
use crate::store::{EvidenceRecord, EvidenceReplacement, EvidenceVersion, SharedEvidence, StoreError};

fn version(record: &EvidenceRecord) -> EvidenceVersion {
    let text = serde_json::to_vec(record).unwrap_or_default();
    EvidenceVersion(blake3::hash(&text).as_bytes().to_vec())
}

impl SharedEvidence for MemoryStore {
    fn changed_evidence(
        &self,
        known: Vec<(RouteId, EvidenceVersion)>,
    ) -> BoxFuture<'_, Result<Vec<(EvidenceRecord, EvidenceVersion)>, StoreError>> {
        self.with(move |tables| {
            let rows = tables.evidence.values().map(|record| (record.clone(), version(record)));
            rows.filter(|(record, version)| !known.contains(&(record.route.clone(), version.clone()))).collect()
        })
    }

    fn replace_evidence(
        &self,
        rows: Vec<EvidenceReplacement>,
    ) -> BoxFuture<'_, Result<Vec<(RouteId, EvidenceVersion)>, StoreError>> {
        self.with(move |tables| {
            let mut stored = Vec::new();
            for EvidenceReplacement { record, instead_of } in rows {
                if tables.evidence.get(&record.route).map(version) == instead_of {
                    stored.push((record.route.clone(), version(&record)));
                    tables.evidence.insert(record.route.clone(), record);
                }
            }
            stored
        })
    }
}
