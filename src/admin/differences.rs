//! Where legacy and engine differ, and the evidence that comparisons add up to.

use std::time::{Duration, Instant};

use axum::Json;
use serde::Deserialize;

use super::egress::reads_not_found;
use super::extract::{PathParams, QueryParams};
use super::route_lookup::{find, ladder_status, next_rung};
use super::samples::{CandidateQuery, SampleGroup, SamplesOfRoute};
use super::state::{Admin, ApiState, JsonResult};
use super::types::{CohortRow, DiffGroup, Diffs, EvidenceView, Sample, SampleCall};
use super::{candidates, guard};
use crate::compare::{CallPair, CompareBounds, KeptPair, PairRecord};
use crate::evidence::RouteEvidence;
use crate::ladder::RouteStatus;
use crate::names::RouteId;
use crate::store::{SampleRecord, StoreError, candidate_key};

/// How long the pairs of all samples that are shown may be compared.
const SHOW_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffsQuery {
    limit: Option<std::num::NonZeroU32>,
    /// Those of the route's candidate: `legacy` is then what the plan in force did.
    #[serde(default)]
    candidate: bool,
}

pub(super) async fn diffs(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(filter): QueryParams<DiffsQuery>,
) -> JsonResult<Diffs> {
    let of_route = SamplesOfRoute::load(&admin, &id, filter.candidate).await?;
    let rules = (admin.parts.rules)(&of_route.route).map(|rules| rules.rules).unwrap_or_default();
    let (limits, groups_max) = (admin.parts.limits.clone(), admin.rows(filter.limit, 50));
    // Which calls belong together is found by comparing the pairs again.
    let show = move || {
        let (bounds, end) = (CompareBounds::of(&limits), Instant::now() + SHOW_TIME_MAX);
        let calls = |kept: &KeptPair| kept.calls(&rules, &bounds, &|| Instant::now() >= end);
        let (noise, second_runs) = (&of_route.evidence.noise, &of_route.evidence.second_runs);
        let listed: Vec<SampleGroup<'_>> = of_route.groups().take(groups_max).collect();
        let mut groups: Vec<DiffGroup> = listed
            .iter()
            .map(|group| DiffGroup {
                is_noise: noise.ignores(&group.shown.differences),
                differed_from_itself: second_runs.at(&group.shown.differences),
                ..shown(group, calls)
            })
            .collect();
        // Last, so that the time lasts for one sample of each group.
        for (shown, group) in groups.iter_mut().zip(&listed) {
            let others = group.samples.iter().filter(|sample| !std::ptr::eq(**sample, group.shown));
            shown.other_samples = others.map(|other| shown_sample(other, calls)).collect();
        }
        (of_route, groups)
    };
    let shown = tokio::task::spawn_blocking(show).await;
    let (of_route, groups) = shown.map_err(|error| StoreError(format!("the samples could not be read: {error}")))?;
    let SamplesOfRoute { route, evidence, .. } = of_route;
    Ok(Json(Diffs {
        route,
        pairs: evidence.pairs(),
        mismatched: evidence.mismatched,
        noise: evidence.noise.ignored,
        second_runs: evidence.second_runs.runs,
        groups,
    }))
}

/// A group with one of its samples, as the API shows it.
fn shown(group: &SampleGroup<'_>, calls: impl Fn(&KeptPair) -> Vec<CallPair>) -> DiffGroup {
    let sample = shown_sample(group.shown, calls);
    DiffGroup {
        fingerprint: group.fingerprint.to_owned(),
        count: group.pairs,
        first_seen: group.first_seen,
        last_seen: group.last_seen,
        differences: sample.differences.clone(),
        is_noise: false,
        differed_from_itself: 0,
        sample,
        other_samples: Vec::new(),
    }
}

fn shown_sample(sample: &SampleRecord, calls: impl Fn(&KeptPair) -> Vec<CallPair>) -> Sample {
    let SampleRecord { at, run, legacy, engine, request, differences, kept, children, .. } = sample.clone();
    let child_runs = children.iter().map(|child| child.run.to_string()).collect();
    let calls = match &kept {
        Some(PairRecord::Pair(kept)) if kept.has_calls() => calls(kept).into_iter().map(SampleCall::from).collect(),
        Some(PairRecord::Pair(_) | PairRecord::Not(_)) | None => Vec::new(),
    };
    Sample { at, run: run.map(|run| run.to_string()), child_runs, differences, request, legacy, engine, calls }
}

pub(super) async fn evidence(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(filter): QueryParams<CandidateQuery>,
) -> JsonResult<EvidenceView> {
    let set = admin.parts.ladder.flags();
    let flag = find(&set, &id)?;
    let route = flag.route.id.clone();
    let status = ladder_status(&admin, &route);
    if filter.candidate {
        return Ok(Json(of_candidate(&admin, route, status)));
    }
    let evidence = admin.parts.evidence.of(&route);
    let rules = (admin.parts.rules)(&route).map(|rules| rules.rules).unwrap_or_default();
    Ok(Json(EvidenceView {
        noise: admin.parts.evidence.noise(&route),
        next: status.as_ref().and_then(next_rung),
        dead_rules: evidence.dead_rules(rules.names()),
        reads_not_found: flag.route.replay_reads.then(|| reads_not_found(&admin, &route)).flatten(),
        guard: status.as_ref().and_then(|status| status.guard.clone()).map(guard::row),
        guard_windows: admin.parts.evidence.guard_windows(&route),
        cohorts_below: status.iter().flat_map(|status| status.cohorts_below.clone()).map(CohortRow::from).collect(),
        uncompared_steps: status.map(|status| status.uncompared_steps).unwrap_or_default(),
        ..counted(route, evidence)
    }))
}

/// What follows from the counts alone.
fn counted(route: RouteId, evidence: RouteEvidence) -> EvidenceView {
    let statistics = evidence.statistics();
    let (noise, next, uncompared_steps, dead_rules, guard, guard_windows, candidate) = Default::default();
    let (reads_not_found, cohorts_below) = Default::default();
    EvidenceView {
        evidence,
        statistics,
        noise,
        route,
        next,
        cohorts_below,
        uncompared_steps,
        dead_rules,
        reads_not_found,
        guard,
        guard_windows,
        candidate,
    }
}

/// The evidence of the candidate of a route; empty if it has none.
fn of_candidate(admin: &ApiState, route: RouteId, status: Option<RouteStatus>) -> EvidenceView {
    let candidate = status.as_ref().and_then(|status| candidates::row(admin, status));
    let evidence = match candidate {
        Some(_) => admin.parts.evidence.of(&candidate_key(&route)),
        None => RouteEvidence::default(),
    };
    EvidenceView { candidate, ..counted(route, evidence) }
}
