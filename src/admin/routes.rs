//! Where routes stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;

use super::extract::Named;
use super::problem::Refusal;
use super::types::{Build, Flags, NextRung, RouteDetail, RouteRow, Status};
use super::{Admin, Answer, Shared, moves};
use crate::flag::{FlagSet, RouteFlag};
use crate::ladder::RouteStatus;
use crate::names::RouteId;

pub(super) async fn status(admin: Admin) -> Answer<Status> {
    let parts = &admin.parts;
    let vitals = (parts.vitals)();
    let set = parts.ladder.flags();
    Ok(Json(Status {
        build: Build { version: env!("CARGO_PKG_VERSION").to_owned(), started: parts.started },
        listen: parts.proxy.to_string(),
        freeze: set.freeze,
        flags: Flags {
            generation: set.generation,
            age_s: vitals.flags_age.as_secs_f64(),
            last_error: vitals.flags_error,
            warnings: vitals.warnings,
        },
        engine_healthy: vitals.engine_healthy,
        store_trouble: vitals.store_trouble,
        clock_trouble: vitals.clock_trouble,
        runs_in_flight: vitals.runs_in_flight,
        runs: parts.store.open_runs().await?.into_iter().collect(),
        stuck: vitals.stuck,
        shadow: vitals.shadow,
        routes: rows(&admin, &set),
    }))
}

pub(super) async fn list(admin: Admin) -> Answer<Vec<RouteRow>> {
    Ok(Json(rows(&admin, &admin.parts.ladder.flags())))
}

pub(super) async fn show(admin: Admin, Named(id): Named<String>) -> Answer<RouteDetail> {
    let set = admin.parts.ladder.flags();
    let flag = find(&set, &id)?;
    let route = &flag.route;
    let standing = standing(&admin, &route.id);
    let ids = set.routes.iter().map(|flag| &flag.route.id);
    let horizon = admin.parts.ladder.horizon(route.id.clone()).await;
    let horizon = horizon.map_err(|error| Refusal::flip(error, ids))?;
    let counts = admin.parts.store.pin_counts().await?;
    let pins: BTreeMap<String, u64> = counts
        .into_iter()
        .filter(|(family, _, _)| *family == flag.family)
        .map(|(_, arm, count)| (arm.as_str().to_owned(), count))
        .collect();
    Ok(Json(RouteDetail {
        row: row(&admin, flag, standing.as_ref()),
        declared: route.declared,
        next: standing.as_ref().and_then(next),
        refused: standing.as_ref().map(|standing| standing.refused.clone()).unwrap_or_default(),
        flip: standing.and_then(|standing| standing.last).map(moves::row),
        horizon,
        pins,
        evidence: admin.parts.evidence.of(&route.id),
    }))
}

/// A route by its id, or the names there are.
pub(super) fn find<'a>(set: &'a FlagSet, id: &str) -> Result<&'a Arc<RouteFlag>, Refusal> {
    set.route(&RouteId::from(id))
        .ok_or_else(|| Refusal::unknown("route", id, set.routes.iter().map(|flag| flag.route.id.as_str())))
}

fn rows(shared: &Shared, set: &FlagSet) -> Vec<RouteRow> {
    let mut standings: BTreeMap<RouteId, RouteStatus> =
        shared.parts.ladder.status().into_iter().map(|status| (status.route.clone(), status)).collect();
    set.routes.iter().map(|flag| row(shared, flag, standings.remove(&flag.route.id).as_ref())).collect()
}

fn row(shared: &Shared, flag: &RouteFlag, standing: Option<&RouteStatus>) -> RouteRow {
    let route = &flag.route;
    let evidence = shared.parts.evidence.of(&route.id);
    let traffic = (shared.parts.traffic)(&route.id);
    let host = route.matches.host.as_deref().unwrap_or_default();
    RouteRow {
        id: route.id.clone(),
        matches: format!("{} {host}{}", route.matches.method, route.matches.path),
        legacy: route.legacy.name.to_string(),
        workflow: route.workflow.clone(),
        requested: flag.requested,
        effective: flag.effective,
        forced: standing.and_then(|standing| standing.forced.clone()),
        shares: flag.shares,
        pairs: evidence.pairs(),
        mismatched: evidence.mismatched,
        requests: traffic.requests,
        overhead_p50_us: traffic.overhead_p50_us,
    }
}

/// Where a route stands, with what the next rung takes.
pub(super) fn standing(shared: &Shared, id: &RouteId) -> Option<RouteStatus> {
    shared.parts.ladder.status().into_iter().find(|status| status.route == *id)
}

/// What the next rung takes, as it is shown.
pub(super) fn next(status: &RouteStatus) -> Option<NextRung> {
    status.next.as_ref().map(|next| NextRung { to: next.to, missing: next.missing.clone() })
}
