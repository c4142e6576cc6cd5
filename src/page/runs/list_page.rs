//! The list of runs: what waits for a person first, then all, by page, with filters and a form for searching.

use std::collections::HashSet;

use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use crate::admin::types::{ApiProblem, RunList, RunRow, Status};
use crate::page::client::problem;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::respond;
use crate::page::request::{Visit, see_other};
use crate::page::runs::run_filters::{RunFilters, WAITS_FOR_PERSON, search_form, status_links};
use crate::page::runs::run_list::{bulk_form, table};

pub(in crate::page) async fn show(
    Query(query): Query<Vec<(String, String)>>,
    visit: Visit,
) -> Result<Response, Failure> {
    let visit = visit.part("runs");
    let filters = RunFilters::of(&query);
    let unknown_id = match filters.path_of_id() {
        Some(Ok(path)) => return Ok(see_other(&path)),
        Some(Err(id)) => Some(no_id(id)),
        None => None,
    };
    let api_path = filters.api_path();
    let waiting_path = RunFilters::default().with_status(Some(WAITS_FOR_PERSON)).api_path();
    let waiting = async {
        match filters.is_unfiltered() {
            true => visit.client.get::<RunList>(&waiting_path).await.map(Some),
            false => Ok(None),
        }
    };
    let (listed, waiting, status) = tokio::join!(
        visit.client.get::<RunList>(&api_path),
        waiting,
        // The counts are an aid: the list is shown without them.
        visit.client.get::<Status>("/api/v2/status"),
    );
    let refused = unknown_id.or_else(|| listed.as_ref().err().cloned()).or_else(|| waiting.as_ref().err().cloned());
    let counts = status.ok().and_then(|status| status.runs);
    let lists = Lists { listed: listed.ok(), waiting: waiting.ok().flatten() };
    let may_decide = visit.may("decide");
    let content = html! {
        h1 { "Runs" }
        @if let Some(problem) = &refused { (problem_box(problem)) }
        (status_links(&filters, counts.as_ref()))
        (search_form(&filters))
        (lists.shown(&filters, may_decide))
        (bulk_form(&visit.frame, may_decide))
    };
    let status = refused.and_then(|problem| StatusCode::from_u16(problem.status).ok()).unwrap_or(StatusCode::OK);
    Ok(respond(status, &visit.frame, "Runs", content))
}

/// The problem of a text that is no id.
fn no_id(id: &str) -> Box<ApiProblem> {
    let mut problem = problem(StatusCode::BAD_REQUEST, &format!("`{id}` is not the id of a run or of a job."));
    problem.title = "This is no id".into();
    problem.hint =
        Some("Ids look like run_0190… and job_0190…, with 32 digits. Search by route or workflow instead.".into());
    Box::new(problem)
}

/// The runs of the page; `None` for what the API refused, or what the page does not show.
struct Lists {
    listed: Option<RunList>,
    /// On the unfiltered page: the runs that wait for a person.
    waiting: Option<RunList>,
}

impl Lists {
    fn shown(&self, filters: &RunFilters, may_decide: bool) -> Markup {
        html! {
            @if let Some(waiting) = &self.waiting {
                h2 { "Waits for a person" }
                @if waiting.runs.is_empty() {
                    p #runs-waiting data-live { "No run waits for a person." }
                } @else {
                    (table("runs-waiting", "Runs that wait for a person", &waiting.runs, may_decide))
                    @if waiting.next.is_some() {
                        p {
                            a href=(filters.with_status(Some(WAITS_FOR_PERSON)).path()) {
                                "All runs that wait for a person"
                            }
                        }
                    }
                }
            }
            @if let Some(listed) = &self.listed {
                @if self.waiting.is_some() { h2 { "Other runs, newest first" } } @else { h2 { "Newest first" } }
                @let others = self.others(listed);
                @if others.is_empty() { p #runs data-live { "No run is listed here." } }
                @else { (table("runs", "Runs", &others, may_decide)) }
                (pages(filters, listed))
            }
        }
    }

    /// The listed runs without those that stand above.
    fn others(&self, listed: &RunList) -> Vec<RunRow> {
        let above: HashSet<&str> =
            self.waiting.iter().flat_map(|waiting| &waiting.runs).map(|run| run.run_id.as_str()).collect();
        listed.runs.iter().filter(|run| !above.contains(run.run_id.as_str())).cloned().collect()
    }
}

fn pages(filters: &RunFilters, listed: &RunList) -> Markup {
    html! {
        @if filters.before.is_some() || listed.next.is_some() {
            nav.pages aria-label="Pages of runs" {
                @if filters.before.is_some() { a href=(filters.page_before(None).path()) { "Newest runs" } }
                @if let Some(next) = &listed.next { a href=(filters.page_before(Some(next)).path()) { "Older runs" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::runs::run_list::tests::run;

    fn list(ids: &[&str], next: Option<&str>) -> RunList {
        RunList { runs: ids.iter().map(|id| run(id, json!({}))).collect(), next: next.map(str::to_owned) }
    }

    #[test]
    fn what_waits_for_a_person_stands_first_and_only_once() {
        let lists = Lists {
            listed: Some(list(&["run_3", "run_2", "run_1"], Some("run_1"))),
            waiting: Some(list(&["run_2"], None)),
        };
        let shown = lists.shown(&RunFilters::default(), true).into_string();
        assert!(shown.find("Waits for a person").unwrap() < shown.find("Other runs").unwrap());
        assert_eq!(shown.matches("value=\"run_2\"").count(), 1, "{shown}");
        assert!(shown.find("value=\"run_2\"").unwrap() < shown.find("value=\"run_3\"").unwrap());
        assert!(shown.contains("href=\"/runs?before=run%5F1\"") && !shown.contains("Newest runs"));
    }

    #[test]
    fn an_empty_list_says_so_and_a_refused_one_is_left_out() {
        let empty = Lists { listed: Some(list(&[], None)), waiting: Some(list(&[], None)) };
        let shown = empty.shown(&RunFilters::default(), true).into_string();
        assert!(shown.contains("No run waits for a person.") && shown.contains("No run is listed here."), "{shown}");
        let refused = Lists { listed: None, waiting: None };
        assert_eq!(refused.shown(&RunFilters::default(), true).into_string(), "");
    }

    #[test]
    fn what_is_no_id_is_said() {
        let refused = no_id("order 7");
        assert_eq!((refused.status, refused.detail.as_str()), (400, "`order 7` is not the id of a run or of a job."));
    }
}
