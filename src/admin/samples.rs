//! The samples that are kept of a route's differing pairs, in groups.

use std::collections::HashMap;

use jiff::Timestamp;

use super::error::ApiError;
use super::route_lookup::find;
use super::state::ApiState;
use crate::evidence::RouteEvidence;
use crate::names::{RouteId, RunId};
use crate::store::{RehearsedEvent, SampleRecord, candidate_key};

/// The samples of a route, and its evidence.
pub(super) struct SamplesOfRoute {
    pub(super) route: RouteId,
    pub(super) evidence: RouteEvidence,
    /// Newest first.
    samples: Vec<SampleRecord>,
}

/// The samples with one fingerprint.
pub(super) struct SampleGroup<'a> {
    pub(super) fingerprint: &'a str,
    /// How many pairs differed in this way; only some of them are kept as samples.
    pub(super) pairs: u64,
    pub(super) first_seen: Timestamp,
    pub(super) last_seen: Timestamp,
    pub(super) newest: &'a SampleRecord,
    /// All of them, newest first.
    pub(super) samples: Vec<&'a SampleRecord>,
}

impl SamplesOfRoute {
    pub(super) async fn load(admin: &ApiState, id: &str) -> Result<Self, ApiError> {
        let route = find(&admin.parts.ladder.flags(), id)?.route.id.clone();
        Self::load_under(admin, route.clone(), &route).await
    }

    /// Those of the candidate of a route.
    pub(super) async fn load_of_candidate(admin: &ApiState, id: &str) -> Result<Self, ApiError> {
        let route = find(&admin.parts.ladder.flags(), id)?.route.id.clone();
        let key = candidate_key(&route);
        Self::load_under(admin, route, &key).await
    }

    async fn load_under(admin: &ApiState, route: RouteId, key: &RouteId) -> Result<Self, ApiError> {
        let parts = &admin.parts;
        // Samples are written in the background; flushed here, so that the newest are shown too.
        if let Err(error) = parts.evidence.flush().await {
            tracing::warn!(%error, "the newest samples could not be written to the store and are not shown");
        }
        let limits = &parts.limits;
        let samples_max = limits.samples_per_fingerprint_max.saturating_mul(limits.fingerprints_per_route_max);
        let samples = parts.store.samples(key.clone(), usize::try_from(samples_max).unwrap_or(usize::MAX)).await?;
        Ok(Self { evidence: parts.evidence.of(key), route, samples })
    }

    /// The events of this run, if it is a rehearsal of which a sample is kept.
    pub(super) fn events_of(&self, run: RunId) -> Option<impl Iterator<Item = RehearsedEvent> + '_> {
        let sample = self.samples.iter().find(|sample| sample.run == Some(run) && !sample.events.is_empty())?;
        Some(sample.events.iter().cloned())
    }

    /// The samples by fingerprint. The most frequent group is first; among equally frequent groups, the most recent.
    pub(super) fn groups(&self) -> impl Iterator<Item = SampleGroup<'_>> {
        let mut groups: Vec<SampleGroup<'_>> = Vec::new();
        let mut group_of: HashMap<&str, usize> = HashMap::new();
        for sample in &self.samples {
            let (fingerprint, at) = (sample.fingerprint.as_str(), sample.at);
            if let Some(group) = group_of.get(fingerprint).and_then(|index| groups.get_mut(*index)) {
                group.pairs += 1;
                group.first_seen = group.first_seen.min(at);
                group.last_seen = group.last_seen.max(at);
                group.samples.push(sample);
                continue;
            }
            group_of.insert(fingerprint, groups.len());
            let samples = vec![sample];
            groups.push(SampleGroup { fingerprint, pairs: 1, first_seen: at, last_seen: at, newest: sample, samples });
        }
        // Only some of the differing pairs are kept as samples; the evidence counted all of them.
        for group in &mut groups {
            if let Some(seen) = self.evidence.seen.get(group.fingerprint) {
                group.pairs = group.pairs.max(seen.count);
                group.first_seen = group.first_seen.min(seen.first);
                group.last_seen = group.last_seen.max(seen.last);
            }
        }
        groups.sort_by(|a, b| b.pairs.cmp(&a.pairs).then(b.last_seen.cmp(&a.last_seen)));
        groups.into_iter()
    }
}
