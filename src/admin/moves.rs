//! Flips and the kill switch.

use axum::Json;
use serde::Deserialize;

use super::extract::{Ask, Asked, Named};
use super::problem::Refusal;
use super::types::{FlipAsk, FlipDone, FlipRow, FreezeAsk, FreezeDone};
use super::{Admin, Answer, routes};
use crate::flag::{Freeze, Percent};
use crate::ladder;
use crate::names::RouteId;
use crate::store::{FlipRecord, RunFilter, StoreError};
use crate::workflow::RunStatus;

pub(super) async fn flip(admin: Admin, Named(id): Named<String>, Ask(ask, who): Ask<FlipAsk>) -> Answer<FlipDone> {
    let FlipAsk { to, percent, reason, force, acknowledge, by } = ask;
    let by = who.name(by.as_deref())?;
    let set = admin.parts.ladder.flags();
    let route = routes::find(&set, &id)?.route.id.clone();
    let percent = percent
        .map(|percent| {
            Percent::new(percent).ok_or_else(|| Refusal::bad(format!("percent: {percent} is not between 0 and 100")))
        })
        .transpose()?;
    let ask = ladder::Ask { to, percent, reason, force, acknowledge, by };
    let flipped = admin.parts.ladder.flip(route.clone(), ask).await;
    let ids = set.routes.iter().map(|flag| &flag.route.id);
    let ladder::Flipped { flip, changed, effective, horizon } = flipped.map_err(|error| Refusal::flip(error, ids))?;
    let shares = admin.parts.ladder.flags().route(&route).map(|flag| flag.shares).or(flip.shares).unwrap_or_default();
    let runs_in_flight = in_flight(&admin, &route).await.unwrap_or_else(|error| {
        // The route has moved: that this cannot be counted must not look as if it had not.
        tracing::warn!(%error, %route, "runs in flight cannot be counted");
        0
    });
    Ok(Json(FlipDone { flip: row(flip), changed, effective, shares, horizon, runs_in_flight }))
}

/// Runs of a route that have not ended, counted up to the bound on rows.
async fn in_flight(admin: &Admin, route: &RouteId) -> Result<u64, StoreError> {
    let filter = RunFilter {
        statuses: RunStatus::OPEN.to_vec(),
        route: Some(route.clone()),
        limit: admin.rows(None, usize::MAX),
        ..RunFilter::default()
    };
    Ok(admin.parts.store.runs(filter).await?.len() as u64)
}

pub(super) async fn freeze(admin: Admin, Ask(ask, who): Ask<FreezeAsk>) -> Answer<FreezeDone> {
    let FreezeAsk { on, effects, reason, by } = ask;
    let by = who.name(by.as_deref())?;
    let to = match (on, effects) {
        (true, false) => Freeze::Instances,
        (true, true) => Freeze::Effects,
        (false, false) => Freeze::No,
        (false, true) => return Err(Refusal::unfit("`effects` goes with `on: true`")),
    };
    if to == Freeze::Instances && admin.parts.ladder.flags().freeze == Freeze::Effects {
        return Err(Refusal::frozen());
    }
    let flip = admin.parts.ladder.freeze(to, reason, by).await?;
    let freeze = admin.parts.ladder.flags().freeze;
    let runs_in_flight = (admin.parts.vitals)().runs_in_flight;
    Ok(Json(FreezeDone { freeze, flip: row(flip), runs_in_flight }))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    route: Option<String>,
    limit: Option<std::num::NonZeroU32>,
}

pub(super) async fn flips(admin: Admin, Asked(filter): Asked<Filter>) -> Answer<Vec<FlipRow>> {
    let Filter { route, limit } = filter;
    // A route that has left the files keeps its history, so its name need not be known.
    let flips = admin.parts.store.flips(route.as_deref().map(RouteId::from), admin.rows(limit, 100)).await?;
    Ok(Json(flips.into_iter().map(row).collect()))
}

/// A flip as it is shown.
pub(super) fn row(flip: FlipRecord) -> FlipRow {
    let FlipRecord { number, route, from, to, shares, by, at, reason, forced, evidence: _ } = flip;
    FlipRow { number, route, from, to, shares, by, at, reason, forced }
}
