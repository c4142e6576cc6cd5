//! The calls that legacy makes, and to which requests they were attributed.

use axum::Json;

use super::extract::PathParams;
use super::route_lookup::find;
use super::state::{Admin, JsonResult};
use super::types::{AttributedCalls, EgressCalls, EgressView, UnattributedCall};
use crate::egress::{EgressReport, ListedCall, RouteCalls, TotalCalls};
use crate::names::RouteId;

pub(super) async fn egress(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<EgressView> {
    let set = admin.parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    let report = admin.parts.attribution.as_ref().map(|attribution| attribution.report(&route));
    Ok(Json(view(route, report)))
}

fn view(route: RouteId, report: Option<EgressReport>) -> EgressView {
    let is_watched = report.is_some();
    let EgressReport { correlate, window, route: calls, total, listed } = report.unwrap_or_default();
    let RouteCalls { requests, closed, without_call, by_traceparent, by_header, by_value } = calls;
    let TotalCalls {
        attributed,
        not_compared,
        ambiguous,
        unattributed,
        not_kept,
        requests_left_out,
        bystanders_left_out,
    } = total;
    let all = attributed.saturating_add(ambiguous).saturating_add(unattributed);
    EgressView {
        route,
        is_watched,
        correlate,
        window_s: is_watched.then_some(window.as_secs_f64()),
        requests,
        closed,
        without_call,
        calls: AttributedCalls { traceparent: by_traceparent, header: by_header, value: by_value },
        all: EgressCalls {
            attributed,
            not_compared,
            ambiguous,
            unattributed,
            attributed_share: (all > 0).then(|| attributed as f64 / all as f64),
            not_kept,
            requests_left_out,
            bystanders_left_out,
        },
        unattributed: listed.into_iter().map(row).collect(),
    }
}

fn row(call: ListedCall) -> UnattributedCall {
    let ListedCall { at, service, method, url, outcome } = call;
    UnattributedCall { at, service, method, url, outcome: outcome.as_str().to_owned() }
}
