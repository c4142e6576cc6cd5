//! The page of a route: its rungs, its gate, its evidence, and where it may move.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use crate::admin::types::{EgressView, EvidenceView, FlipRow, ProcessRow, RouteDetail, RouteRow};
use crate::page::client::segment;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::{count, respond};
use crate::page::request::Visit;
use crate::page::routes::evidence_parts;
use crate::page::routes::evidence_words;
use crate::page::routes::freeze_state;
use crate::page::routes::gate;
use crate::page::routes::move_notice::{Done, NewestMove, notice};
use crate::page::routes::moves;
use crate::page::routes::route_data::{RouteData, load, within};
use crate::page::routes::route_notes::{self, notes};
use crate::page::routes::rungs;
use crate::page::routes::track;

/// How many moves of the route are shown.
const MOVES_SHOWN: usize = 10;

#[derive(Deserialize)]
pub(in crate::page) struct RouteQuery {
    done: Option<String>,
}

pub(in crate::page) async fn show(
    Path(id): Path<String>,
    Query(query): Query<RouteQuery>,
    visit: Visit,
) -> Result<Response, Failure> {
    let visit = visit.part("routes");
    let data = load(&visit, &id).await?;
    let done = Done::read(query.done.as_deref());
    let path = format!("/api/v2/routes/{}/egress", segment(&id));
    let flips = format!("/api/v2/flips?route={}&limit={MOVES_SHOWN}", segment(&id));
    let (egress, newest, processes) = tokio::join!(
        visit.client.get::<EgressView>(&path),
        within(visit.client.get::<Vec<FlipRow>>(&flips)),
        processes(&visit, done),
    );
    let RouteData { status, row, detail, evidence } = &data;
    let newest_move = NewestMove {
        row: detail.as_ref().ok().and_then(|detail| detail.flip.as_ref()),
        is_unrecorded: row.flip_unrecorded,
        in_force: in_force(row),
        processes: processes.as_deref(),
    };
    let content = html! {
        (freeze_state::shown(status, true))
        h1 { (row.id) }
        p.sub {
            bdi { (row.matches) } ", legacy " (row.legacy)
            @if let Some(workflow) = &row.workflow { ", workflow " (workflow) }
        }
        (notice(done, &newest_move))
        (links(row, visit.may("flip")))
        (ladder(row, Timestamp::now()))
        @match detail {
            Ok(detail) => { (declared(detail)) }
            Err(problem) => { (problem_box(problem)) }
        }
        @match evidence {
            Ok(evidence) => { (evidence_sections(evidence, egress.as_ref().ok())) }
            Err(problem) => { (problem_box(problem)) }
        }
        h2 { "Moves of this route" }
        @match &newest {
            Ok(rows) => { (moves::table("moves", "Moves of this route", rows, true)) }
            Err(problem) => { (problem_box(problem)) }
        }
        p { a href=(format!("/record?route={}", segment(&id))) { "All moves of this route" } }
    };
    Ok(respond(StatusCode::OK, &visit.frame, &id, content))
}

/// The processes on the same store, where the page says who has not acknowledged a move.
async fn processes(visit: &Visit, done: Option<Done>) -> Option<Vec<ProcessRow>> {
    done?;
    within(visit.client.get("/api/v2/processes")).await.ok()
}

/// Which state is in force, as a sentence.
fn in_force(row: &RouteRow) -> Markup {
    let state = row.effective.state;
    html! {
        "In force: " strong { (state) }
        @if let Some(percent) = rungs::share(&row.shares, state) { " at " (percent) " %" }
        @if state == row.requested {
            "."
        } @else {
            " (" (row.requested) " is requested; " (rungs::why(row.effective.why)) ")."
        }
    }
}

fn links(row: &RouteRow, may_flip: bool) -> Markup {
    let path = format!("/routes/{}", segment(row.id.as_str()));
    html! {
        ul.links {
            li {
                a href=(format!("{path}/differences")) { "Differences" }
                @if row.mismatched > 0 { " (" (count(row.mismatched)) ")" }
            }
            li { a href=(format!("/runs?route={}", segment(row.id.as_str()))) { "Its runs" } }
            @if may_flip {
                li { a href=(format!("{path}/flip")) { "Move to another rung" } }
            } @else {
                li.hint { "To move it, a token with the scope " code { "flip" } " is needed." }
            }
            @if let Some(creator) = &row.follows {
                li { "Follows " a href=(format!("/routes/{}", segment(creator.as_str()))) { (creator) } }
            }
        }
    }
}

/// The rungs of the route, as in the overview, and what is to be known of it.
fn ladder(row: &RouteRow, now: Timestamp) -> Markup {
    html! {
        section #ladder data-live aria-labelledby="ladder-title" {
            h2 #ladder-title.unseen { "Where it stands" }
            div.scroll tabindex="0" role="region" aria-label="The rungs" {
                table.ladder.large {
                    thead { tr { (track::heads()) th scope="col" { "Share" } th scope="col" { "Requests" } } }
                    tbody { tr { (track::cells(row)) td { (track::share_bar(row)) } td { (count(row.requests)) } } }
                }
            }
            p { (in_force(row)) " " (rungs::about(row.effective.state)) }
            (route_notes::list(&notes(row, now)))
        }
    }
}

/// What the file declares, why it is not so, and what lowering would mean.
fn declared(detail: &RouteDetail) -> Markup {
    html! {
        section #declared data-live aria-labelledby="declared-title" {
            h2 #declared-title { "Requested" }
            p {
                "Its file declares " strong { (detail.declared) } "."
                @match &detail.flip {
                    Some(flip) => {
                        " Its last flip: " (moves::what(flip)) ", by " bdi { (flip.by) } ", "
                        (crate::page::html::time(flip.at))
                        @if let Some(reason) = &flip.reason { ", because: " bdi { (reason) } }
                        @if let Some(forced) = moves::forced(flip) { " (" (forced) ")" }
                        "."
                    }
                    None => " It was never flipped.",
                }
            }
            @if !detail.refused.is_empty() {
                p.wait { span aria-hidden="true" { "◆ " } "It is not in the state that was asked for, because:" }
                ul { @for why in &detail.refused { li { (why) } } }
            }
            @if !detail.pins.is_empty() {
                p {
                    "Instances of the family: "
                    @for (at, (arm, number)) in detail.pins.iter().enumerate() {
                        @if at > 0 { ", " } (arm) " owns " (count(*number))
                    }
                    "."
                }
            }
            (horizon(&detail.horizon))
        }
    }
}

/// The consequences of lowering a route.
pub(in crate::page) fn horizon(horizon: &[String]) -> Markup {
    html! {
        @if !horizon.is_empty() {
            h3 { "The horizon: what lowering it would mean" }
            ul.horizon { @for line in horizon { li { (line) } } }
        }
    }
}

/// The gate and the evidence.
fn evidence_sections(view: &EvidenceView, egress: Option<&EgressView>) -> Markup {
    html! {
        section #gate data-live aria-labelledby="gate-title" {
            h2 #gate-title { "The next rung" }
            @match &view.next {
                Some(next) => { (gate::conditions(next)) }
                None => { p { "The route is on the highest rung." } }
            }
            @if let Some(candidate) = &view.candidate { h3 { "Its candidate" } (gate::table(&candidate.conditions)) }
        }
        section #evidence data-live aria-labelledby="evidence-title" {
            h2 #evidence-title { "Evidence" }
            (evidence_words::sentences(&view.evidence))
            (evidence_parts::counts(view))
            (evidence_parts::strata(view))
            (evidence_parts::effects(view, egress))
            (evidence_parts::rules_and_noise(view))
            (evidence_parts::guard_windows(&view.guard_windows))
            (evidence_parts::others(view))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::types::RouteEvidence;

    fn row(effective: &str) -> Value {
        json!({
            "id": "orders.create", "matches": "POST /orders", "legacy": "shop", "workflow": "w", "follows": null,
            "requested": "live", "effective": { "state": effective, "why": "guard" },
            "shares": { "shadow": 100.0, "dark": 100.0, "live": 10.0 },
            "pairs": 4512, "mismatched": 2, "requests": 1234, "overhead_p50_us": null,
        })
    }

    fn detail(refused: &[&str], horizon: &[&str]) -> RouteDetail {
        let detail = json!({
            "row": row("live"), "declared": "shadow", "flip": null, "refused": refused, "next": null, "horizon":
            horizon,
            "pins": { "engine": 12 }, "evidence": RouteEvidence::default(),
        });
        serde_json::from_value(detail).unwrap()
    }

    #[test]
    fn what_is_refused_and_the_horizon_are_said() {
        let shown = declared(&detail(&["the gate is <shut>"], &["the engine owns 12 instances"])).into_string();
        for text in [
            "declares <strong>shadow",
            "the gate is &lt;shut&gt;",
            "the engine owns 12",
            "engine owns 12",
            "never flipped",
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(!declared(&detail(&[], &[])).into_string().contains("horizon"));
    }

    #[test]
    fn the_state_in_force_is_a_sentence_with_its_share() {
        let of = |effective: &str| in_force(&serde_json::from_value(row(effective)).unwrap()).into_string();
        assert_eq!(of("live"), "In force: <strong>live</strong> at 10 %.");
        assert!(of("dark").contains("(live is requested; the guard lowered it)"));
    }

    #[test]
    fn only_who_may_flip_gets_the_link() {
        let row: RouteRow = serde_json::from_value(row("live")).unwrap();
        assert!(links(&row, true).into_string().contains("/routes/orders%2Ecreate/flip"));
        let without = links(&row, false).into_string();
        assert!(!without.contains("/flip\"") && without.contains("<code>flip</code>"), "{without}");
    }
}
