//! Where legacy and engine differ, and the evidence that comparisons add up to.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use serde::Deserialize;

use super::extract::{PathParams, QueryParams};
use super::guard;
use super::route_lookup::{find, ladder_status, next_rung};
use super::state::{Admin, JsonResult};
use super::types::{DiffGroup, Diffs, EvidenceView, Sample};

use crate::evidence::FingerprintCount;
use crate::store::SampleRecord;

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffsQuery {
    limit: Option<std::num::NonZeroU32>,
}

pub(super) async fn diffs(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(filter): QueryParams<DiffsQuery>,
) -> JsonResult<Diffs> {
    let parts = &admin.parts;
    let set = parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    // Samples are written in the background; flushed here, so that the newest are shown too.
    if let Err(error) = parts.evidence.flush().await {
        tracing::warn!(%error, "the newest samples could not be written to the store and are not shown");
    }
    let limits = &parts.limits;
    let samples_max = limits.samples_per_fingerprint_max.saturating_mul(limits.fingerprints_per_route_max);
    let samples = parts.store.samples(route.clone(), usize::try_from(samples_max).unwrap_or(usize::MAX)).await?;
    let evidence = parts.evidence.of(&route);
    let mut groups = group(samples, &evidence.seen);
    groups.truncate(admin.rows(filter.limit, 50));
    Ok(Json(Diffs { route, pairs: evidence.pairs(), mismatched: evidence.mismatched, groups }))
}

/// Groups samples, which come newest first, by fingerprint. The most frequent group is first; among equally frequent
/// groups, the most recent.
fn group(samples: Vec<SampleRecord>, seen: &BTreeMap<String, FingerprintCount>) -> Vec<DiffGroup> {
    let mut groups: Vec<DiffGroup> = Vec::new();
    let mut group_of: HashMap<String, usize> = HashMap::new();
    for sample in samples {
        let SampleRecord { route: _, fingerprint, at, run, differences, legacy, engine, request } = sample;
        if let Some(group) = group_of.get(&fingerprint).and_then(|index| groups.get_mut(*index)) {
            group.count += 1;
            group.first_seen = group.first_seen.min(at);
            group.last_seen = group.last_seen.max(at);
            continue;
        }
        group_of.insert(fingerprint.clone(), groups.len());
        let run = run.map(|run| run.to_string());
        let sample = Sample { at, run, request, legacy, engine };
        groups.push(DiffGroup { fingerprint, count: 1, first_seen: at, last_seen: at, differences, sample });
    }
    // Only some of the differing pairs are kept as samples; the evidence counted all of them.
    for group in &mut groups {
        if let Some(seen) = seen.get(&group.fingerprint) {
            group.count = group.count.max(seen.count);
            group.first_seen = group.first_seen.min(seen.first);
            group.last_seen = group.last_seen.max(seen.last);
        }
    }
    groups.sort_by(|a, b| b.count.cmp(&a.count).then(b.last_seen.cmp(&a.last_seen)));
    groups
}

pub(super) async fn evidence(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<EvidenceView> {
    let set = admin.parts.ladder.flags();
    let flag = find(&set, &id)?;
    let route = flag.route.id.clone();
    let status = ladder_status(&admin, &route);
    let next = status.as_ref().and_then(next_rung);
    let guard = status.as_ref().and_then(|status| status.guard.clone()).map(guard::row);
    let uncompared_steps = status.map(|status| status.uncompared_steps).unwrap_or_default();
    let evidence = admin.parts.evidence.of(&route);
    let dead_rules = evidence.dead_rules((admin.parts.rules)(&route).iter().map(String::as_str));
    let guard_windows = admin.parts.evidence.guard_windows(&route);
    Ok(Json(EvidenceView { evidence, route, next, uncompared_steps, dead_rules, guard, guard_windows }))
}
