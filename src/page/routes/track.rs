//! The five rungs of a route as a track: a line from `off` to the rung in force, with a marker for the requested state
//! and, where it is another one, for the state in force.

use maud::{Markup, html};

use crate::admin::types::{CohortAheadRow, RouteRow, State};
use crate::page::routes::rungs::share;

/// What a rung is to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    /// Requested and in force.
    Both,
    /// In force, though another one is requested.
    InForce,
    /// Requested and not in force.
    Requested,
}

/// The heads of the columns of the track.
pub(in crate::page) fn heads() -> Markup {
    html! { @for rung in State::ALL { th.rung scope="col" { (rung) } } }
}

/// A cell for each rung.
pub(in crate::page) fn cells(route: &RouteRow) -> Markup {
    html! {
        @for rung in State::ALL {
            td.rung.passed[rung < route.effective.state].last[rung == State::Only] {
                @if let Some(marker) = marker(route, rung) { (marked(marker)) }
                @for cohort in route.cohorts_ahead.iter().filter(|cohort| cohort.rung == rung) { (ahead(cohort)) }
            }
        }
    }
}

fn marker(route: &RouteRow, rung: State) -> Option<Marker> {
    match (route.requested == rung, route.effective.state == rung) {
        (true, true) => Some(Marker::Both),
        (false, true) => Some(Marker::InForce),
        (true, false) => Some(Marker::Requested),
        (false, false) => None,
    }
}

/// A marker: a disc where requested and in force are one, else a square for the state in force and a ring for the
/// requested one, each with its word.
fn marked(marker: Marker) -> Markup {
    html! {
        span.marker.both[marker == Marker::Both].now[marker == Marker::InForce].asked[marker == Marker::Requested] {
            svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true" {
                @match marker {
                    Marker::Both => circle cx="8" cy="8" r="7" fill="currentColor" {},
                    Marker::InForce => rect x="2" y="2" width="12" height="12" fill="currentColor" {},
                    Marker::Requested => {
                        circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2.5" {}
                    }
                }
            }
            @match marker {
                Marker::Both => span.unseen { "requested and in force" },
                Marker::InForce => span.word { "in force" },
                Marker::Requested => span.word { "requested" },
            }
        }
    }
}

/// A cohort on this rung.
fn ahead(cohort: &CohortAheadRow) -> Markup {
    html! {
        span.cohort {
            svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true" {
                path d="M5 1 9 9H1Z" fill="currentColor" {}
            }
            span.unseen { "cohort " } (cohort.name)
            @if cohort.forced.is_some() { " (forced)" }
        }
    }
}

/// The share of callers on the rung in force, as a bar and a number; a dash where the rung has none.
pub(in crate::page) fn share_bar(route: &RouteRow) -> Markup {
    let rung = route.effective.state;
    html! {
        @match share(&route.shares, rung) {
            Some(percent) => {
                span.share {
                    svg.bar width="56" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                        rect x="0" y="0" width=(percent) height="10" fill="currentColor" {}
                        rect x="0" y="0" width="100" height="10" fill="none" stroke="currentColor" stroke-width="2" {}
                    }
                    " " (percent) " %"
                }
            }
            None if rung == State::Only => { "all" }
            None => { span.sub { "–" } }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(requested: &str, effective: &str, cohorts: &serde_json::Value) -> RouteRow {
        let row = json!({
            "id": "a", "matches": "GET /", "legacy": "shop", "workflow": "w", "follows": null,
            "requested": requested, "effective": { "state": effective, "why": "freeze" }, "cohorts_ahead": cohorts,
            "shares": { "shadow": 12.5, "dark": 100.0, "live": 100.0 },
            "pairs": 0, "mismatched": 0, "requests": 0, "overhead_p50_us": null,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn the_markers_say_in_words_what_is_requested_and_what_is_in_force() {
        let shown = cells(&route("live", "shadow", &json!([]))).into_string();
        let cells: Vec<&str> = shown.split("<td").skip(1).collect();
        assert_eq!(cells.len(), 5);
        assert!(cells[1].contains("in force") && cells[1].contains("<rect"), "{}", cells[1]);
        assert!(cells[3].contains("requested") && !cells[3].contains("in force"), "{}", cells[3]);
        assert!(cells[0].contains("passed") && !cells[1].contains("passed"), "{shown}");
        let same = self::cells(&route("dark", "dark", &json!([]))).into_string();
        assert_eq!(same.matches("requested and in force").count(), 1, "{same}");
    }

    #[test]
    fn a_cohort_ahead_stands_on_its_rung_and_its_name_is_escaped() {
        let cohorts = json!([{ "name": "<script>x</script>", "rung": "live", "forced": "trusted" }]);
        let shown = cells(&route("shadow", "shadow", &cohorts)).into_string();
        let live = shown.split("<td").nth(4).unwrap();
        assert!(live.contains("&lt;script&gt;") && live.contains("(forced)"), "{live}");
        assert!(!shown.contains("<script"), "{shown}");
    }

    #[test]
    fn the_share_has_its_number_beside_the_bar() {
        let shown = share_bar(&route("shadow", "shadow", &json!([]))).into_string();
        assert!(shown.contains("width=\"12.5\"") && shown.contains("12.5 %"), "{shown}");
        assert!(share_bar(&route("off", "off", &json!([]))).into_string().contains('–'));
    }
}
