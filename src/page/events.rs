//! What the page's script asks for beside the pages: the stream that says what has changed, and the runs that wait for
//! the person who looks.

use axum::extract::RawQuery;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};

use crate::admin::types::{RunList, RunRow};
use crate::page::failure::Failure;
use crate::page::html::count;
use crate::page::request::Visit;

/// The most waiting runs that are counted.
const WAITING_MAX: usize = 100;
/// The statuses of runs that wait for a person.
const WAITING: &str = "waiting_checkpoint,paused";

/// The API's stream, as this person. Without a session 401, not the login page: nobody reads it.
pub(super) async fn stream(
    visit: Result<Visit, Failure>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Ok(visit) = visit else { return Ok(StatusCode::UNAUTHORIZED.into_response()) };
    let path = format!("/api/v2/events?{}", query.unwrap_or_default());
    let streamed = visit.client.stream(&path, headers.get("last-event-id")).await;
    streamed.map_err(|problem| visit.failed(problem))
}

/// The element `#waiting` of every page.
pub(super) async fn waiting(visit: Visit) -> Result<Response, Failure> {
    let path = format!("/api/v2/orchestrate/runs?status={WAITING}&limit={WAITING_MAX}");
    let list: RunList = visit.client.get(&path).await.map_err(|problem| visit.failed(problem))?;
    Ok(Html(waiting_element(&list, visit.may("decide")).into_string()).into_response())
}

/// How many runs wait, and which: the script shows the number in the browser's title, and notifies of new ones. For
/// somebody who may not decide none counts, since none waits for that person.
fn waiting_element(list: &RunList, may_decide: bool) -> Markup {
    let number = count(list.runs.len() as u64) + if list.next.is_some() { "+" } else { "" };
    let (verb, whom) =
        (if list.runs.len() == 1 { "waits" } else { "wait" }, if may_decide { "you" } else { "a person" });
    html! {
        div #waiting.waiting data-count=(if may_decide { number.as_str() } else { "0" }) {
            @if !list.runs.is_empty() {
                a href=(format!("/runs?status={WAITING}")) { (number) " " (verb) " for " (whom) }
            }
            @if may_decide && !list.runs.is_empty() {
                ul hidden { @for run in &list.runs { li data-run=(run.run_id) { (asks(run)) } } }
            }
        }
    }
}

/// What a run waits for, in a few words.
fn asks(run: &RunRow) -> String {
    match &run.note {
        Some(note) => format!("{}: {note}", run.workflow),
        None => format!("{}: {}", run.workflow, if run.checkpoint.is_some() { "a checkpoint" } else { "paused" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::RunStatus;

    fn run(note: Option<&str>) -> RunRow {
        let row = serde_json::json!({
            "run_id": "run_0190", "job_id": "job_0190", "workflow": "refund", "plan_id": "plan_1", "route": null,
            "parent": null, "mode": "real", "status": RunStatus::Paused, "checkpoint": null,
            "started": "2026-12-01T12:00:00Z", "updated": "2026-12-01T12:00:00Z", "wake": null, "note": note,
        });
        serde_json::from_value(row).unwrap()
    }

    fn rendered(runs: Vec<RunRow>, next: Option<&str>, may_decide: bool) -> String {
        waiting_element(&RunList { runs, next: next.map(str::to_owned) }, may_decide).into_string()
    }

    #[test]
    fn the_runs_that_wait_are_counted_and_named() {
        let html = rendered(vec![run(Some("Refund 20?")), run(None)], None, true);
        assert!(html.contains(r#"id="waiting""#) && html.contains(r#"data-count="2""#), "{html}");
        assert!(html.contains(">2 wait for you</a>"), "{html}");
        assert!(html.contains(r#"<li data-run="run_0190">refund: Refund 20?</li>"#), "{html}");
        assert!(html.contains("refund: paused"), "{html}");
        assert!(rendered(vec![run(None)], None, true).contains(">1 waits for you</a>"));
        assert!(rendered(vec![run(None)], Some("run_1"), true).contains(r#"data-count="1+""#));
        let none = rendered(Vec::new(), None, true);
        assert!(none.contains(r#"data-count="0""#) && !none.contains("<a"), "the element is there: {none}");
    }

    #[test]
    fn none_waits_for_somebody_who_may_not_decide() {
        let html = rendered(vec![run(Some("Refund 20?"))], None, false);
        assert!(html.contains(r#"data-count="0""#) && html.contains(">1 waits for a person</a>"), "{html}");
        assert!(!html.contains("Refund 20?"), "{html}");
    }

    #[test]
    fn the_script_is_small() {
        let bytes = include_str!("assets/page.js").len();
        assert!(bytes < 12 << 10, "{bytes} bytes");
    }

    #[test]
    fn recorded_text_is_escaped() {
        let html = rendered(vec![run(Some("<script>alert('1')</script>\" onload=\"x"))], None, true);
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
    }
}
