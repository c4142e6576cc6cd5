//! Flags as metrics: `pointsman_flag_state`, `pointsman_flag_reason`, `pointsman_flag_share`, `pointsman_freeze`,
//! `pointsman_gate_verdict`, `pointsman_flag_flips_total`, and those of guards.

use metrics::{counter, gauge};

use super::types::FlipSource;
use crate::evidence::GateVerdict;
use crate::flag::{EffectiveReason, FlagSet, Freeze};
use crate::names::{PlanSet, RouteId};
use crate::store::{CandidateAction, CandidateRecord, FlipRecord, GuardAction, GuardRecord};

/// The value of the label `route` for the kill switch; no route can have this id.
const KILL_SWITCH: &str = "*";

/// Sets the metrics of every route of a set, and resets those of removed routes.
pub(super) fn set_states(set: &FlagSet, removed: &[RouteId]) {
    for flag in &set.routes {
        let route = flag.route.id.as_str();
        show(route, "requested", flag.requested.rank());
        show(route, "effective", flag.effective.state.rank());
        show_reason(route, Some(flag.effective.why));
        show_share(route, flag.shares.of(flag.effective.state).as_f64() / 100.0);
    }
    gauge!("pointsman_freeze").set(match set.freeze {
        Freeze::No => 0.0,
        Freeze::Instances => 1.0,
        Freeze::Effects => 2.0,
    });
    for route in removed {
        show(route.as_str(), "requested", 0);
        show(route.as_str(), "effective", 0);
        show_reason(route.as_str(), None);
        show_share(route.as_str(), 0.0);
        show_verdict(route, None);
        show_plan_trouble(route, false);
        show_candidate_share(route, 0.0);
        show_guard(route, false);
    }
}

fn show_share(route: &str, share: f64) {
    gauge!("pointsman_flag_share", "route" => route.to_owned()).set(share);
}

/// Shows the verdict of the gate to a route's next state; `None` if no state is above its own.
pub(super) fn show_verdict(route: &RouteId, found: Option<GateVerdict>) {
    for verdict in GateVerdict::ALL {
        let applies = found == Some(verdict);
        gauge!("pointsman_gate_verdict", "route" => route.as_str().to_owned(), "verdict" => verdict.as_str())
            .set(f64::from(applies));
    }
}

/// Shows the share of new requests that the candidate of a route answers, from 0 to 1.
pub(super) fn show_candidate_share(route: &RouteId, share: f64) {
    gauge!("pointsman_candidate_share", "route" => route.as_str().to_owned()).set(share);
}

/// Shows whether something other than time and requests blocks the next share of a route (`auto`).
pub(super) fn show_auto_held(route: &RouteId, is_held: bool) {
    gauge!("pointsman_auto_held", "route" => route.as_str().to_owned()).set(f64::from(u8::from(is_held)));
}

/// Shows whether the plan in force of a route cannot be run with the files in force.
pub(super) fn show_plan_trouble(route: &RouteId, is_unrunnable: bool) {
    gauge!("pointsman_plan_unrunnable", "route" => route.as_str().to_owned()).set(f64::from(is_unrunnable));
}

fn show(route: &str, kind: &'static str, rank: u8) {
    gauge!("pointsman_flag_state", "route" => route.to_owned(), "kind" => kind).set(f64::from(rank));
}

fn show_reason(route: &str, reason: Option<EffectiveReason>) {
    for why in EffectiveReason::ALL {
        let applies = reason == Some(why);
        gauge!("pointsman_flag_reason", "route" => route.to_owned(), "why" => why.as_str()).set(f64::from(applies));
    }
}

/// Counts one flip.
pub(super) fn count_flip(flip: &FlipRecord, by: FlipSource) {
    let route = flip.route.as_ref().map_or(KILL_SWITCH, |route| route.as_str());
    let (route, from, to) = (route.to_owned(), flip.from.clone(), flip.to.clone());
    counter!("pointsman_flag_flips_total", "route" => route, "from" => from, "to" => to, "by" => by.as_str())
        .increment(1);
}

/// Counts and logs a recorded flip.
pub(super) fn log(flip: &FlipRecord, source: FlipSource) {
    count_flip(flip, source);
    let FlipRecord {
        number,
        route,
        from,
        to,
        shares: _,
        by,
        at: _,
        reason,
        forced,
        overridden: _,
        evidence: _,
        gates: _,
        guard: _,
        candidate: _,
    } = flip;
    let route = route.as_ref().map_or("(kill switch)", RouteId::as_str);
    tracing::info!(number, route, %from, %to, %by, reason = reason.as_deref(), forced, "flipped");
}

/// Logs what became of the candidate of a route.
pub(super) fn log_candidate(flip: &FlipRecord) {
    let FlipRecord { number, from, to, by, reason, forced, candidate: Some(record), .. } = flip else { return };
    let CandidateRecord { route, action, in_force, candidate, share: _ } = record;
    let (in_force, candidate) = (in_force.as_ref().map(PlanSet::label), candidate.as_ref().map(PlanSet::label));
    let (in_force, candidate) = (in_force.as_deref(), candidate.as_deref());
    let what = match action {
        CandidateAction::Appeared => "its changed workflow is a candidate: the plan in force stays in force",
        CandidateAction::Dropped => "its candidate is dropped",
        CandidateAction::Moved => "its candidate has another share of new requests",
        CandidateAction::Promoted => "its candidate is in force",
    };
    let reason = reason.as_deref();
    tracing::info!(number, %route, in_force, candidate, %from, %to, %by, reason, forced, "{what}");
    let route = route.as_str().to_owned();
    counter!("pointsman_candidate_changes_total", "route" => route, "action" => action.as_str()).increment(1);
}

/// Counts that the guard of a route set the share of its candidate to 0.
pub(super) fn count_stopped_candidate(route: &RouteId) {
    counter!("pointsman_candidate_guard_actions_total", "route" => route.as_str().to_owned()).increment(1);
}

/// Shows whether an action of the guard of a route still has an effect: it is not released yet.
pub(super) fn show_guard(route: &RouteId, is_latched: bool) {
    gauge!("pointsman_guard_latched", "route" => route.as_str().to_owned()).set(f64::from(is_latched));
}

/// Counts and logs an action of a guard, or its release.
pub(super) fn log_guard(record: &FlipRecord) {
    let FlipRecord { from, to, by, reason, guard, .. } = record;
    let Some(GuardRecord { route, action, limit: _, condition, bad, of, runs }) = guard else { return };
    let reason = reason.as_deref().unwrap_or_default();
    let runs: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let runs = runs.join(", ");
    let condition = condition.map_or("", |condition| condition.as_str());
    match action {
        GuardAction::Lowered => {
            tracing::error!(%route, %from, %to, condition, bad, of, runs, reason, "the guard has lowered this route");
        }
        GuardAction::Alerted => tracing::error!(
            %route, condition, bad, of, runs, reason,
            "the guard raises an alarm: this route is in `only`, where it is not lowered"
        ),
        GuardAction::Released => tracing::warn!(%route, %from, %to, %by, reason, "what the guard did is released"),
    }
    if *action != GuardAction::Released {
        let route = route.as_str().to_owned();
        counter!("pointsman_guard_actions_total", "route" => route, "condition" => condition).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use http::{Method, Uri};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::flag::{Freeze, Route, RouteMatch, Service, State};

    #[test]
    fn the_reason_of_each_state_is_a_metric() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let shop = Arc::new(Service::at("shop", [Uri::from_static("http://127.0.0.1:9000")]));
        let matches = RouteMatch { method: Method::GET, path: "/a".into(), host: None };
        let route = Route { declared: State::Live, ..Route::without_workflow("a".into(), matches, Arc::clone(&shop)) };
        let set = |freeze| {
            let routes = vec![Arc::new(route.clone())];
            FlagSet::new(1, routes, &BTreeMap::new(), Arc::clone(&shop), BTreeMap::new(), freeze, [0; 32])
        };
        let reasons = || {
            let text = handle.render();
            let lines = text.lines().filter(|line| line.starts_with("pointsman_flag_reason") && line.ends_with(" 1"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let value =
            |series: &str| handle.render().lines().find_map(|line| line.strip_prefix(series).map(str::to_owned));
        metrics::with_local_recorder(&recorder, || {
            set_states(&set(Freeze::No), &[]);
            assert_eq!(value(r#"pointsman_flag_share{route="a"} "#).as_deref(), Some("1"));
            assert_eq!(value("pointsman_freeze ").as_deref(), Some("0"));
            assert_eq!(reasons(), [r#"pointsman_flag_reason{route="a",why="unproven"} 1"#]);
            set_states(&set(Freeze::Instances), &[]);
            assert_eq!(reasons(), [r#"pointsman_flag_reason{route="a",why="freeze"} 1"#]);
            assert_eq!(value("pointsman_freeze ").as_deref(), Some("1"));
            show_verdict(&"a".into(), Some(GateVerdict::Stale));
            assert_eq!(value(r#"pointsman_gate_verdict{route="a",verdict="stale"} "#).as_deref(), Some("1"));
            assert_eq!(value(r#"pointsman_gate_verdict{route="a",verdict="pass"} "#).as_deref(), Some("0"));
            set_states(&set(Freeze::No), &["a".into()]);
            assert_eq!(reasons(), Vec::<String>::new());
            assert_eq!(value(r#"pointsman_flag_share{route="a"} "#).as_deref(), Some("0"));
            assert_eq!(value(r#"pointsman_gate_verdict{route="a",verdict="stale"} "#).as_deref(), Some("0"));
        });
    }
}
