//! The overview: every route on the ladder, the freeze and what is wrong above them, the newest moves below.

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::admin::types::{FlipRow, RouteRow, State, Status};
use crate::page::client::segment;
use crate::page::duration::duration_text;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::{count, respond, time};
use crate::page::request::Visit;
use crate::page::routes::evidence_words;
use crate::page::routes::freeze_state;
use crate::page::routes::gate;
use crate::page::routes::moves;
use crate::page::routes::route_notes::{self, notes};
use crate::page::routes::rungs::percent;
use crate::page::routes::track;
use crate::page::routes::trouble;

/// How many moves are shown below the routes.
const MOVES_SHOWN: usize = 20;
/// The columns of the table of routes, without that of the route's name.
const COLUMNS: usize = 10;

pub(in crate::page) async fn show(visit: Visit) -> Result<Response, Failure> {
    let visit = visit.part("routes");
    let newest = format!("/api/v2/flips?limit={MOVES_SHOWN}");
    // `status` has the rows of the routes too.
    let (status, newest) =
        tokio::join!(visit.client.get::<Status>("/api/v2/status"), visit.client.get::<Vec<FlipRow>>(&newest));
    let status = status.map_err(|problem| visit.failed(problem))?;
    let now = Timestamp::now();
    let content = html! {
        h1 { "Routes" }
        (freeze_state::shown(&status, true))
        (trouble::list(&status))
        (summary(&status.routes))
        @if status.routes.is_empty() {
            p {
                "No route is declared yet. Routes are files in " code { "flags/routes" } "; see "
                a href="/docs/files" { "files" } "."
            }
        } @else {
            (table(&status.routes, visit.may("flip"), now))
            (legend())
            @if !visit.may("flip") {
                p.hint { "To move a route, a token with the scope " code { "flip" } " is needed." }
            }
        }
        h2 { "Newest moves" }
        @match &newest {
            Ok(rows) => {
                (moves::table("newest-moves", "Newest moves", rows, false))
                p { a href="/record" { "The whole record" } }
            }
            Err(problem) => { (problem_box(problem)) }
        }
    };
    Ok(respond(StatusCode::OK, &visit.frame, "Routes", content))
}

/// How many routes are where, in one line.
fn summary(routes: &[RouteRow]) -> Markup {
    let on = |rung: State| routes.iter().filter(|route| route.effective.state == rung).count() as u64;
    let lowered = routes.iter().filter(|route| route.effective.state < route.requested).count() as u64;
    html! {
        p #routes-summary .summary data-live {
            @for rung in State::ALL { span { strong { (count(on(rung))) } " " (rung) } " " }
            @if lowered > 0 {
                span.wait {
                    span aria-hidden="true" { "◆ " }
                    (count(lowered)) @if lowered == 1 { " is" } @else { " are" } " below the requested state"
                }
            }
        }
    }
}

/// What the markers mean.
fn legend() -> Markup {
    html! {
        p.hint.legend {
            svg width="12" height="12" viewBox="0 0 16 16" aria-hidden="true" {
                circle cx="8" cy="8" r="7" fill="currentColor" {}
            }
            " requested and in force. "
            svg width="12" height="12" viewBox="0 0 16 16" aria-hidden="true" {
                rect x="2" y="2" width="12" height="12" fill="currentColor" {}
            }
            " in force, where another state is requested. "
            svg width="12" height="12" viewBox="0 0 16 16" aria-hidden="true" {
                circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2.5" {}
            }
            " requested. "
            svg width="10" height="10" viewBox="0 0 10 10" aria-hidden="true" {
                path d="M5 1 9 9H1Z" fill="currentColor" {}
            }
            " a cohort ahead of its route. For sure: with 95 % confidence, however often you look."
        }
    }
}

/// The routes by family: those that follow another stand under it.
fn families(routes: &[RouteRow]) -> Vec<(&RouteRow, bool)> {
    let is_listed = |route: &RouteRow| routes.iter().any(|other| Some(&other.id) == route.follows.as_ref());
    let mut ordered = Vec::with_capacity(routes.len());
    for route in routes.iter().filter(|route| !is_listed(route)) {
        ordered.push((route, false));
        ordered
            .extend(routes.iter().filter(|other| other.follows.as_ref() == Some(&route.id)).map(|other| (other, true)));
    }
    ordered
}

/// The table of routes, a group of rows for each.
fn table(routes: &[RouteRow], may_flip: bool, now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Routes" {
            table #routes .ladder data-live {
                thead {
                    tr {
                        th scope="col" { "Route" }
                        (track::heads())
                        th scope="col" { "Share" }
                        th scope="col" { "Compared" }
                        th scope="col" { "Next rung" }
                        th scope="col" { "Requests" }
                        th scope="col" { "Since" }
                    }
                }
                @for (route, is_follower) in families(routes) {
                    (row(route, is_follower, may_flip, now))
                }
            }
        }
    }
}

/// One route: a row with its figures, and below it one with what else is to be known.
fn row(route: &RouteRow, is_follower: bool, may_flip: bool, now: Timestamp) -> Markup {
    let path = format!("/routes/{}", segment(route.id.as_str()));
    let notes = notes(route, now);
    html! {
        tbody.route.follower[is_follower] {
            tr {
                th scope="row" rowspan=[(!notes.is_empty()).then_some("2")] {
                    @if is_follower { span aria-hidden="true" { "└ " } }
                    a href=(path) { (route.id) }
                    div.sub { bdi { (route.matches) } }
                    @if let Some(creator) = &route.follows { div.sub.unseen { "follows " (creator) } }
                }
                (track::cells(route))
                td { (track::share_bar(route)) }
                td.compared {
                    (evidence_words::short(route.pairs, route.mismatched, route.mismatch_at_most))
                    @if let Some(coverage) = route.coverage { div.sub { (percent(coverage)) " covered" } }
                    @if route.uncompared_steps > 0 {
                        div.wait { span aria-hidden="true" { "◆ " } (count(route.uncompared_steps)) " effects not compared" }
                    }
                }
                td.next {
                    (gate::short(route))
                    @if may_flip && route.workflow.is_some() {
                        " " a.flip href=(format!("{path}/flip")) { "Move" span.unseen { " " (route.id) } }
                    }
                }
                td.requests {
                    (count(route.requests))
                    @if let Some(micros) = route.overhead_p50_us { div.sub { "adds " (duration_text(micros / 1e6)) } }
                }
                td.when { @match route.since { Some(since) => (time(since)), None => span.sub { "–" } } }
            }
            @if !notes.is_empty() { tr.about { td colspan=(COLUMNS) { (route_notes::list(&notes)) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(id: &str, follows: Option<&str>, requested: &str, effective: &str) -> RouteRow {
        let why = if requested == effective { "requested" } else { "freeze" };
        let row = json!({
            "id": id, "matches": "POST /orders", "legacy": "shop", "workflow": "w", "follows": follows,
            "requested": requested, "effective": { "state": effective, "why": why },
            "shares": { "shadow": 100.0, "dark": 20.0, "live": 10.0 },
            "pairs": 4512, "mismatched": 0, "requests": 1234, "overhead_p50_us": 120.0,
        });
        serde_json::from_value(row).unwrap()
    }

    fn now() -> Timestamp {
        "2026-12-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn followers_stand_under_their_creator() {
        let routes = [
            route("cancel", Some("create"), "off", "off"),
            route("other", None, "off", "off"),
            route("create", None, "off", "off"),
            route("orphan", Some("gone"), "off", "off"),
        ];
        let order: Vec<_> = families(&routes).into_iter().map(|(route, under)| (route.id.to_string(), under)).collect();
        let order: Vec<_> = order.iter().map(|(id, under)| (id.as_str(), *under)).collect();
        assert_eq!(order, [("other", false), ("create", false), ("cancel", true), ("orphan", false)]);
    }

    #[test]
    fn a_lowered_route_has_a_second_row_and_others_have_none() {
        let shown = |route: RouteRow| table(&[route], true, now()).into_string();
        let lowered = shown(route("a", None, "live", "shadow"));
        assert!(lowered.contains("rowspan=\"2\"") && lowered.contains("a freeze is in force"), "{lowered}");
        assert!(!shown(route("a", None, "live", "live")).contains("rowspan"));
    }

    /// The second row spans all columns but the first.
    #[test]
    fn all_rows_have_the_same_number_of_columns() {
        let shown = table(&[route("a", None, "live", "shadow")], true, now()).into_string();
        assert_eq!(shown.matches("scope=\"col\"").count(), COLUMNS + 1, "{shown}");
        assert!(shown.contains(&format!("colspan=\"{COLUMNS}\"")), "{shown}");
    }

    #[test]
    fn hostile_names_are_no_markup() {
        let long = format!("<script>alert('{}')</script>\u{202e}", "x".repeat(2_000));
        let shown = table(&[route(&long, None, "dark", "dark")], true, now()).into_string();
        assert!(!shown.contains("<script") && shown.contains("&lt;script&gt;"), "{shown}");
        assert!(!shown.contains("href=\"/routes/<"), "{shown}");
    }

    #[test]
    fn only_who_may_flip_sees_the_link() {
        let routes = [route("a", None, "dark", "dark")];
        assert!(table(&routes, true, now()).into_string().contains("/routes/a/flip"));
        assert!(!table(&routes, false, now()).into_string().contains("/flip"));
    }

    #[test]
    fn the_summary_counts_the_states_in_force() {
        let shown = summary(&[route("a", None, "live", "shadow"), route("b", None, "shadow", "shadow")]).into_string();
        assert!(shown.contains("<strong>2</strong> shadow") && shown.contains("<strong>0</strong> live"), "{shown}");
        assert!(shown.contains("1 is below the requested state"), "{shown}");
    }
}
