//! The calls that legacy makes, and to which requests they were attributed.

use axum::Json;

use super::extract::PathParams;
use super::route_lookup::find;
use super::state::{Admin, ApiState, JsonResult};
use super::types::{AttributedCalls, EgressCalls, EgressView, TunnelRow, UnattributedCall};
use crate::egress::{EgressReport, ListedCall, RouteCalls, TotalCalls, TunnelCounts, TunnelTarget};
use crate::evidence::{UncomparedCallCounts, UncomparedTarget};
use crate::names::RouteId;

pub(super) async fn egress(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<EgressView> {
    let set = admin.parts.ladder.flags();
    let route = find(&set, &id)?.route.id.clone();
    let report = admin.parts.attribution.as_ref().map(|attribution| attribution.report(&route));
    let uncompared = admin.parts.evidence.uncompared_calls(&route);
    Ok(Json(view(route, report, &uncompared)))
}

/// Why a route with `replay_reads` seems to find no read of legacy: no call was attributed to any of its requests, and
/// there are calls whose request is not known.
pub(super) fn reads_not_found(admin: &ApiState, route: &RouteId) -> Option<String> {
    let EgressReport { route: calls, total, .. } = admin.parts.attribution.as_ref()?.report(route);
    let RouteCalls { requests: _, closed, without_call: _, by_traceparent, by_header, by_value } = calls;
    let unknown = total.unattributed.saturating_add(total.ambiguous);
    (closed > 0 && by_traceparent + by_header + by_value == 0 && unknown > 0).then(|| {
        format!(
            "`replay_reads` finds no read of legacy: no call was attributed to a request of the route (requests whose \
             `egress.window` is over: {closed}), and calls are of no known request, or of one of several: {unknown}. If \
             legacy's reads are among these, the engine's reads are sent, after legacy has acted. Have legacy hand on `traceparent`, or set \
             `egress.correlate`; `pointsman egress {route}` lists such calls"
        )
    })
}

fn view(route: RouteId, report: Option<EgressReport>, uncompared: &UncomparedCallCounts) -> EgressView {
    let is_watched = report.is_some();
    let EgressReport { correlate, window, route: calls, total, listed, tunnels } = report.unwrap_or_default();
    let UncomparedCallCounts { late, of_no_request } = uncompared;
    let RouteCalls { requests, closed, without_call, by_traceparent, by_header, by_value } = calls;
    let TotalCalls {
        attributed,
        not_compared,
        ambiguous,
        unattributed,
        not_kept,
        requests_left_out,
        uncompared_requests_left_out,
    } = total;
    let TunnelCounts { targets, to_others: tunnels_to_others } = tunnels;
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
            uncompared_requests_left_out,
        },
        late: late.calls(),
        late_to: late.listed.iter().map(UncomparedTarget::pattern).collect(),
        of_no_request: of_no_request.calls(),
        of_no_request_to: of_no_request.listed.iter().map(UncomparedTarget::pattern).collect(),
        unattributed: listed.into_iter().map(row).collect(),
        tunnels: targets.into_iter().map(tunnel_row).collect(),
        tunnels_to_others,
    }
}

fn tunnel_row(target: TunnelTarget) -> TunnelRow {
    let TunnelTarget { service, authority, opened, open, last_opened } = target;
    TunnelRow { to: authority, service, opened, open, last_opened }
}

fn row(call: ListedCall) -> UnattributedCall {
    let ListedCall { at, service, method, url, outcome } = call;
    UnattributedCall { at, service, method, url, outcome: outcome.as_str().to_owned() }
}
