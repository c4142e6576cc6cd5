//! The routes and their states, and the status of the whole process.

use std::collections::BTreeMap;

use axum::Json;

use super::error::ApiError;
use super::extract::PathParams;
use super::flips::flip_row;
use super::route_lookup::{find, ladder_status, next_rung};
use super::state::{Admin, ApiState, JsonResult, STORE_WAIT};
use super::types::{AutoRow, Build, CohortAheadRow, Flags, GateRow, RouteDetail, RouteRow, Status};
use super::{candidates, guard};
use crate::flag::{FlagSet, Instance, RouteFlag, State};
use crate::ladder::{AutoStatus, FlipError, RouteStatus};
use crate::names::RouteId;

pub(super) async fn status(admin: Admin) -> JsonResult<Status> {
    let parts = &admin.parts;
    let process = (parts.process_status)();
    let addresses: Vec<_> = parts.proxy_listen.iter().map(ToString::to_string).collect();
    let set = parts.ladder.flags();
    let runs = match tokio::time::timeout(STORE_WAIT, parts.store.open_runs()).await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} ms", STORE_WAIT.as_millis())),
    };
    Ok(Json(Status {
        build: Build { version: env!("CARGO_PKG_VERSION").to_owned(), started: parts.started },
        listen: addresses.join(", "),
        egress: process.egress,
        freeze: set.freeze,
        freeze_unrecorded: parts.ladder.freeze_is_unrecorded(),
        flips_unrecorded: parts.ladder.unrecorded_flips(),
        flags: Flags {
            generation: set.set_number,
            age_s: process.flags_age.as_secs_f64(),
            last_error: process.flags_error,
            warnings: process.warnings,
            needs_restart: process.needs_restart.into_iter().map(str::to_owned).collect(),
        },
        engine_healthy: process.engine_healthy,
        store_trouble: process.store_trouble.or_else(|| runs.as_ref().err().cloned()),
        recovery_trouble: process.recovery_trouble,
        clock_trouble: process.clock_trouble,
        services_trouble: process.services_trouble,
        retry_keys_trouble: process.retry_keys_trouble,
        adoption_trouble: process.adoption_trouble,
        instances_trouble: process.instances_trouble,
        processes_trouble: process.processes_trouble,
        stopping: process.stopping,
        runs_in_flight: process.runs_in_flight,
        runs: runs.ok().map(|runs| runs.into_iter().collect()),
        stuck: process.stuck,
        succession: process.succession,
        stuck_more: process.stuck_more,
        shadow: process.shadow,
        routes: route_rows(&admin, &set),
    }))
}

pub(super) async fn list(admin: Admin) -> JsonResult<Vec<RouteRow>> {
    Ok(Json(route_rows(&admin, &admin.parts.ladder.flags())))
}

pub(super) async fn show(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<RouteDetail> {
    let set = admin.parts.ladder.flags();
    let flag = find(&set, &id)?;
    let route = &flag.route;
    let status = ladder_status(&admin, &route.id);
    let ids = set.routes.iter().map(|flag| &flag.route.id);
    let horizon = admin.parts.ladder.horizon(route.id.clone()).await;
    let horizon = horizon.map_err(|error| match error {
        // The route is only read here, so the error must not say whether a flip was made.
        FlipError::Store(error) => error.into(),
        error => ApiError::flip(error, ids),
    })?;
    let counts = admin.parts.store.pin_counts().await?;
    let mut pins: BTreeMap<String, u64> = BTreeMap::new();
    for (_, arm, count) in counts.iter().filter(|(family, ..)| flag.family.ids().any(|id| id == family)) {
        *pins.entry(arm.as_str().to_owned()).or_default() += count;
    }
    Ok(Json(RouteDetail {
        row: route_row(&admin, flag, status.as_ref()),
        declared: route.declared,
        next: status.as_ref().and_then(next_rung),
        refused: status.as_ref().map(|status| status.refused.clone()).unwrap_or_default(),
        flip: status.and_then(|status| status.last).map(flip_row),
        horizon,
        pins,
        evidence: admin.parts.evidence.of(&route.id),
    }))
}

fn route_rows(state: &ApiState, set: &FlagSet) -> Vec<RouteRow> {
    let mut statuses: BTreeMap<RouteId, RouteStatus> =
        state.parts.ladder.status().into_iter().map(|status| (status.route.clone(), status)).collect();
    set.routes.iter().map(|flag| route_row(state, flag, statuses.remove(&flag.route.id).as_ref())).collect()
}

fn route_row(state: &ApiState, flag: &RouteFlag, status: Option<&RouteStatus>) -> RouteRow {
    let route = &flag.route;
    let evidence = state.parts.evidence.of(&route.id);
    let traffic = (state.parts.traffic)(&route.id);
    let host = route.matches.host.as_deref().unwrap_or_default();
    RouteRow {
        id: route.id.clone(),
        matches: format!("{} {host}{}", route.matches.method, route.matches.path),
        legacy: route.legacy.name.to_string(),
        workflow: route.workflow.clone(),
        follows: match &route.instance {
            Some(Instance::Follows { creator, .. }) => Some(creator.clone()),
            Some(Instance::Creates { .. }) | None => None,
        },
        instances: match &route.instance {
            Some(Instance::Creates { .. }) => (state.parts.instances)(&flag.family),
            Some(Instance::Follows { .. }) | None => Vec::new(),
        },
        requested: flag.requested,
        effective: flag.effective,
        forced: status.and_then(|status| status.forced.clone()),
        cohorts_ahead: status
            .iter()
            .flat_map(|status| status.cohorts_ahead.clone())
            .map(CohortAheadRow::from)
            .collect(),
        to_accept: status.and_then(|status| status.to_accept.clone()),
        changed_since_evidence: status.and_then(|status| status.changed.clone()),
        flip_unrecorded: status.is_some_and(|status| status.is_unrecorded),
        guard: status.and_then(|status| status.guard.clone()).map(guard::row),
        not_guarded: guard::not_guarded(state, flag),
        plan: status.and_then(|status| Some(status.plans.as_ref()?.label())),
        plan_trouble: status.and_then(|status| status.plan_trouble.clone()),
        candidate: status.and_then(|status| candidates::row(state, status)),
        auto: status.and_then(|status| status.auto.clone()).map(auto_row),
        gate: status.filter(|_| route.workflow.is_some()).and_then(gate_row),
        shares: flag.shares,
        pairs: evidence.pairs(),
        mismatched: evidence.mismatched,
        mismatch_at_most: (evidence.pairs() > 0).then(|| evidence.mismatch_upper_bound()),
        coverage: (evidence.pairs() > 0).then(|| evidence.coverage()),
        uncompared_steps: status.map_or(0, |status| status.uncompared_steps.len() as u64),
        since: status.and_then(|status| status.last.as_ref()).map(|flip| flip.at),
        evidence_restarted: evidence.restarted,
        requests: traffic.requests,
        overhead_p50_us: traffic.overhead_p50_us,
    }
}

fn gate_row(status: &RouteStatus) -> Option<GateRow> {
    // The gate to `shadow` has no conditions.
    let next = status.next.as_ref().filter(|next| next.to > State::Shadow)?;
    let more = next.missing.len().saturating_sub(1) as u64;
    Some(GateRow { to: next.to, verdict: next.verdict(), needs: next.missing.first().cloned(), more })
}

fn auto_row(auto: AutoStatus) -> AutoRow {
    let AutoStatus { next, due_in, requests, requests_wanted, blocked_by } = auto;
    // Rounded up: zero means that the time is over.
    let due_in_s = due_in.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
    AutoRow { next: next.as_f64(), due_in_s, requests, requests_wanted, held: blocked_by }
}
