//! The samples that are kept of a route's differing pairs, in groups.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::route_lookup::find;
use super::state::ApiState;
use super::types::EventRow;
use crate::compare::largest_distance;
use crate::evidence::RouteEvidence;
use crate::exchange::{REHEARSED_CHILDREN_MAX, REHEARSED_EVENTS_MAX};
use crate::names::{RouteId, RunId};
use crate::store::{RehearsedEvent, SampleRecord, candidate_key};

/// Samples are written in the background; flushed, so that the newest are shown too.
async fn flush(admin: &ApiState) {
    if let Err(error) = admin.parts.evidence.flush().await {
        tracing::warn!(%error, "the newest samples could not be written to the store and are not shown");
    }
}

/// The events of this run, if it is a rehearsal of which a sample is kept, or a run below one. If the run had more, a
/// last row says how many.
pub(super) async fn rehearsed_events(admin: &ApiState, run: RunId) -> Result<Option<Vec<EventRow>>, ApiError> {
    flush(admin).await;
    let Some(sample) = admin.parts.store.sample_of_run(run).await? else { return Ok(None) };
    Ok(events_in(sample, run))
}

fn events_in(sample: SampleRecord, run: RunId) -> Option<Vec<EventRow>> {
    let SampleRecord { at, run: own, events, events_not_kept, children, children_not_kept, .. } = sample;
    let (events, not_kept, runs_not_kept) = match own == Some(run) {
        true => (events, events_not_kept, children_not_kept),
        false => {
            let child = children.into_iter().find(|child| child.run == run)?;
            (child.events, child.events_not_kept, 0)
        }
    };
    let next = events.last().map_or((1, at), |last| (last.seq + 1, last.at));
    let mut rows: Vec<EventRow> =
        events.into_iter().map(|RehearsedEvent { seq, at, kind, event }| EventRow { seq, at, kind, event }).collect();
    if not_kept > 0 || runs_not_kept > 0 {
        let why = format!(
            "of a rehearsal and the runs below it, a sample keeps {REHEARSED_EVENTS_MAX} events, and those of \
             {REHEARSED_CHILDREN_MAX} runs below it"
        );
        let event = json!({ (EventRow::NOT_KEPT): { "events": not_kept, "child_runs": runs_not_kept, "why": why } });
        rows.push(EventRow { seq: next.0, at: next.1, kind: EventRow::NOT_KEPT.to_owned(), event });
    }
    Some(rows)
}

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
    /// The one whose numbers are furthest apart; the newest, if it is the same for all.
    pub(super) shown: &'a SampleRecord,
    /// All of them, newest first.
    pub(super) samples: Vec<&'a SampleRecord>,
}

/// Whether the candidate of a route is meant.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CandidateQuery {
    /// What is known of the route's candidate: `legacy` is then what the plan in force did.
    #[serde(default)]
    pub(super) candidate: bool,
}

impl SamplesOfRoute {
    /// Those of a route, or of its candidate.
    pub(super) async fn load(admin: &ApiState, id: &str, of_candidate: bool) -> Result<Self, ApiError> {
        let parts = &admin.parts;
        let route = find(&parts.ladder.flags(), id)?.route.id.clone();
        let key = if of_candidate { candidate_key(&route) } else { route.clone() };
        flush(admin).await;
        let samples = parts.store.samples(key.clone(), parts.limits.samples_per_route_max()).await?;
        Ok(Self { evidence: parts.evidence.of(&key), route, samples })
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
            groups.push(SampleGroup { fingerprint, pairs: 1, first_seen: at, last_seen: at, shown: sample, samples });
        }
        for group in &mut groups {
            let distance = |sample: &SampleRecord| largest_distance(&sample.differences);
            let furthest = group.samples.iter().rev().max_by(|a, b| distance(a).total_cmp(&distance(b)));
            group.shown = furthest.copied().unwrap_or(group.shown);
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
