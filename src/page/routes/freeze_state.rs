//! The kill switch as a box that stands on top: whether it is set, and what it stops or would stop.

use maud::{Markup, html};

use crate::admin::types::{Freeze, RouteRow, State, Status};
use crate::page::client::segment;
use crate::page::html::count;
use crate::page::routes::rungs::about_freeze;

/// Routes that are named in the box; the rest is counted.
const NAMED: usize = 8;

/// The box. `has_link`: whether it leads to the page where the kill switch is set.
pub(in crate::page) fn shown(status: &Status, has_link: bool) -> Markup {
    let is_frozen = status.freeze != Freeze::No;
    let held = held(&status.routes, status.freeze);
    html! {
        div #freeze-state .freeze.frozen[is_frozen] data-live {
            p {
                @if is_frozen {
                    strong { span aria-hidden="true" { "■ " } "Frozen." } " " (about_freeze(status.freeze))
                } @else {
                    strong { span aria-hidden="true" { "▷ " } "No freeze." }
                    @if held.is_empty() {
                        " No route is above shadow except those in only: a freeze would change no route's state."
                    } @else {
                        " A freeze would hold at shadow: " (names(&held)) "."
                    }
                }
                @if has_link {
                    " " a href="/freeze" { @if is_frozen { "End or change the freeze" } @else { "Freeze" } }
                }
            }
            @if is_frozen {
                @if !held.is_empty() { p { "Held at shadow: " (names(&held)) "." } }
                @if status.freeze_unrecorded {
                    p.bad { "The store has not recorded the freeze yet: a restart would end it." }
                }
            }
        }
    }
}

/// The routes that a freeze holds at `shadow`: of each the state that it is kept from.
pub(in crate::page) fn held(routes: &[RouteRow], freeze: Freeze) -> Vec<&RouteRow> {
    // While a freeze is in force, the state in force is what the freeze leaves.
    let rung = |route: &RouteRow| if freeze == Freeze::No { route.effective.state } else { route.requested };
    let is_above = |rung: State| rung > State::Shadow && rung < State::Only;
    let is_held = |route: &&RouteRow| {
        let has_cohort = route.cohorts_ahead.iter().any(|cohort| cohort.rung > State::Shadow);
        route.requested != State::Only && (is_above(rung(route)) || has_cohort)
    };
    routes.iter().filter(is_held).collect()
}

/// Routes as links with their states.
fn names(routes: &[&RouteRow]) -> Markup {
    html! {
        @for (at, route) in routes.iter().take(NAMED).enumerate() {
            @if at > 0 { ", " }
            a href=(format!("/routes/{}", segment(route.id.as_str()))) { (route.id) } " (" (route.requested) ")"
        }
        @if routes.len() > NAMED { " and " (count((routes.len() - NAMED) as u64)) " more" }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(freeze: &str, routes: &[(&str, &str, &str)]) -> Status {
        let row = |(id, requested, effective): &(&str, &str, &str)| -> Value {
            json!({
                "id": id, "matches": "GET /", "legacy": "shop", "workflow": "w", "follows": null,
                "requested": requested, "effective": { "state": effective, "why": "requested" },
                "shares": { "shadow": 100.0, "dark": 100.0, "live": 100.0 },
                "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
            })
        };
        let status = json!({
            "build": { "version": "1", "started": "2026-12-01T12:00:00Z" }, "listen": "", "freeze": freeze,
            "flags": { "generation": 1, "age_s": 1.0, "last_error": null, "warnings": [] },
            "engine_healthy": true, "runs_in_flight": 0, "runs": null,
            "shadow": { "queue_depth": 0, "in_flight": 0 }, "routes": routes.iter().map(row).collect::<Vec<_>>(),
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn it_says_what_a_freeze_would_hold() {
        let routes = [("a", "shadow", "shadow"), ("b", "live", "live"), ("c", "only", "only"), ("d", "live", "shadow")];
        let shown = shown(&status("no", &routes), true).into_string();
        assert!(shown.contains("No freeze") && shown.contains("/routes/b") && shown.contains("/freeze"), "{shown}");
        for id in ["a", "c", "d"] {
            assert!(!shown.contains(&format!("/routes/{id}\"")), "{id}: {shown}");
        }
    }

    #[test]
    fn a_freeze_in_force_says_what_it_stops() {
        let shown = shown(&status("effects", &[("b", "live", "shadow"), ("c", "only", "only")]), false).into_string();
        assert!(shown.contains("Frozen.") && shown.contains("no private or shared step begins"), "{shown}");
        assert!(shown.contains("Held at shadow: <a href=\"/routes/b\">b</a> (live)."), "{shown}");
        assert!(!shown.contains("href=\"/freeze\""), "{shown}");
    }
}
