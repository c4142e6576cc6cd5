//! The kill switch: whether it is set, what it would stop, and the form that sets it.

use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use crate::admin::types::{ApiProblem, FlipRow, Freeze, FreezeRequest, FreezeResponse, ProcessRow, Status};
use crate::page::client::problem;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::{Frame, count, form_key, respond};
use crate::page::request::{Submitted, Visit, see_other};
use crate::page::routes::freeze_state;
use crate::page::routes::move_notice::{Done, NewestMove, notice};
use crate::page::routes::moves;
use crate::page::routes::route_data::within;
use crate::page::routes::rungs;

/// Of how many of the newest moves those of the kill switch are shown.
const MOVES_READ: usize = 100;

#[derive(Deserialize)]
pub(in crate::page) struct FreezeQuery {
    done: Option<String>,
}

pub(in crate::page) async fn show(Query(query): Query<FreezeQuery>, visit: Visit) -> Result<Response, Failure> {
    page(StatusCode::OK, &visit.part("routes"), "", None, Done::read(query.done.as_deref())).await
}

pub(in crate::page) async fn set(submitted: Submitted) -> Result<Response, Failure> {
    let Submitted { visit, fields } = submitted;
    let visit = visit.part("routes");
    let reason = fields.get("reason").unwrap_or_default();
    let given = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
    let wanted = match fields.get("to") {
        Some("instances") => Some((true, false)),
        Some("effects") => Some((true, true)),
        Some("no") => Some((false, false)),
        _ => None,
    };
    let set = match wanted {
        Some((on, effects)) => {
            let request = FreezeRequest { on, effects, reason: given, by: None };
            visit.client.post::<FreezeResponse>("/api/v2/freeze", &request).await
        }
        None => {
            Err(Box::new(problem(StatusCode::UNPROCESSABLE_ENTITY, "Choose what is to be frozen. Nothing was done.")))
        }
    };
    match set {
        Ok(done) => Ok(see_other(&format!("/freeze?done={}", Done::Moved(done.flip.number).text()))),
        Err(refused) => {
            let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            page(status, &visit, reason, Some(&refused), None).await
        }
    }
}

/// The page, with the reason that was typed and why it was refused.
async fn page(
    status: StatusCode,
    visit: &Visit,
    reason: &str,
    refused: Option<&ApiProblem>,
    done: Option<Done>,
) -> Result<Response, Failure> {
    let newest = format!("/api/v2/flips?limit={MOVES_READ}");
    let (process, newest, processes) = tokio::join!(
        visit.client.get::<Status>("/api/v2/status"),
        within(visit.client.get::<Vec<FlipRow>>(&newest)),
        within(visit.client.get::<Vec<ProcessRow>>("/api/v2/processes")),
    );
    let process = process.map_err(|problem| visit.failed(problem))?;
    let newest = newest.map(|rows| rows.into_iter().filter(|row| row.route.is_none()).collect::<Vec<_>>());
    let newest_move = NewestMove {
        row: newest.as_ref().ok().and_then(|rows| rows.first()),
        is_unrecorded: process.freeze_unrecorded,
        in_force: html! { (rungs::about_freeze(process.freeze)) },
        processes: processes.as_deref().ok(),
    };
    let content = html! {
        h1 { "Freeze" }
        (notice(done, &newest_move))
        (freeze_state::shown(&process, false))
        (in_flight(&process))
        @if let Some(refused) = refused { (problem_box(refused)) }
        @if visit.may("flip") {
            (form(&visit.frame, process.freeze, reason))
        } @else {
            p { strong { "You cannot set it: a token with the scope " code { "flip" } " is needed." } }
            (kinds())
        }
        h2 { "Earlier freezes" }
        @match &newest {
            Ok(rows) => {
                (moves::table("freezes", "Earlier freezes", rows, false))
                p.hint { "Among the newest " (MOVES_READ) " moves." }
            }
            Err(problem) => { (problem_box(problem)) }
        }
    };
    Ok(respond(status, &visit.frame, "Freeze", content))
}

/// How many runs are under way.
fn in_flight(status: &Status) -> Markup {
    let open = status.runs.as_ref().map(|runs| runs.values().sum::<u64>());
    html! {
        p #runs-in-flight data-live {
            (count(status.runs_in_flight)) " runs are executed at this moment; "
            @match open {
                Some(open) => { (count(open)) " have not ended, those that wait included." }
                None => "how many have not ended is not known.",
            }
        }
    }
}

/// What each kind of freeze stops.
fn kinds() -> Markup {
    html! {
        dl.kinds {
            dt { "Freeze new instances" }
            dd {
                "Every route above shadow goes to shadow, so that legacy answers; routes in only stay. No route goes \
                 to only, not even by force. Runs in progress go on, and so do runs that the API starts. Instances \
                 that the engine owns stay with the engine."
            }
            dt { "Freeze effects too" }
            dd {
                "In addition, in every run, also of routes in only, no private or shared step is sent that has not \
                 been sent: no further attempts, no undoing. Such runs wait until the freeze ends."
            }
        }
    }
}

fn form(frame: &Frame, freeze: Freeze, reason: &str) -> Markup {
    html! {
        h2 { @if freeze == Freeze::No { "Freeze now" } @else { "Change it" } }
        (kinds())
        form.move method="post" action="/freeze" {
            (form_key(frame))
            div.field {
                label for="reason" { "Reason" }
                textarea #reason name="reason" rows="2" aria-describedby="about-reason" { (reason) }
                p.hint #about-reason { "It stands in the record with your name. No secrets." }
            }
            div.buttons {
                @if freeze == Freeze::No {
                    button.danger type="submit" name="to" value="instances" { "Freeze new instances" }
                }
                @if freeze < Freeze::Effects {
                    button.danger type="submit" name="to" value="effects" { "Freeze effects too" }
                }
                @if freeze > Freeze::No {
                    button.primary type="submit" name="to" value="no" { "End the freeze" }
                }
            }
            p.hint {
                @if freeze == Freeze::Effects {
                    "A weaker freeze would release all held steps at once: it is refused. End this one first."
                } @else {
                    "It is in force as soon as the page answers, also while the store does not."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(freeze: Freeze) -> String {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/freeze".into(), part: "routes" };
        form(&frame, freeze, "<b>").into_string()
    }

    #[test]
    fn only_what_the_api_takes_has_a_button() {
        let buttons = |freeze| {
            let page = shown(freeze);
            ["instances", "effects", "no"].map(|to| page.contains(&format!("value=\"{to}\"")))
        };
        assert_eq!(buttons(Freeze::No), [true, true, false]);
        assert_eq!(buttons(Freeze::Instances), [false, true, true]);
        assert_eq!(buttons(Freeze::Effects), [false, false, true]);
    }

    #[test]
    fn what_each_kind_stops_stands_before_the_button() {
        let page = shown(Freeze::No);
        assert!(page.find("Every route above shadow").unwrap() < page.find("<button").unwrap());
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "{page}");
    }
}
