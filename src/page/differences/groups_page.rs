//! The differences of a route: groups, samples side by side, and rules that would hide them.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use crate::admin::types::{ApiProblem, DiffGroup, Diffs, RouteDetail, RouteRow, SuggestedRules, TriedRules, TryRules};
use crate::page::client::{problem, segment};
use crate::page::differences::difference_groups::groups;
use crate::page::differences::difference_summary::{empty, summary};
use crate::page::differences::difference_view::{Order, Parameters, View};
use crate::page::differences::difference_words::PairPart;
use crate::page::differences::rule_suggestions::{RulesOf, form, suggestions};
use crate::page::differences::rule_trial;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::{count, respond};
use crate::page::request::{Submitted, Visit};

/// How many of the most frequent groups are asked for.
const FREQUENT_GROUPS: usize = 50;
/// How many where one of them, or the newest, is looked for: all that there are.
const ALL_GROUPS: usize = 1_000;

pub(in crate::page) async fn show(
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
    visit: Visit,
) -> Result<Response, Failure> {
    let (visit, view) = (visit.part("routes"), View::of(&parameters));
    let path = format!("/api/v2/routes/{}", segment(&id));
    let of = if view.candidate { "candidate=true" } else { "candidate=false" };
    let limit = if view.order == Order::Newest || view.group.is_some() { ALL_GROUPS } else { FREQUENT_GROUPS };
    let route: RouteDetail = visit.client.get(&path).await.map_err(|problem| visit.failed(problem))?;
    let diffs: Diffs =
        visit.client.get(&format!("{path}/diffs?limit={limit}&{of}")).await.map_err(|problem| visit.failed(problem))?;
    let suggested: Option<Result<SuggestedRules, Box<ApiProblem>>> = match view.suggests {
        true => Some(visit.client.get(&format!("{path}/diffs/suggestions?{of}")).await),
        false => None,
    };
    let rules = rules(&visit, &id, &view, suggested.as_ref());
    // Aligning long texts takes time, in which this thread would serve nobody.
    let shown = tokio::task::spawn_blocking(move || {
        let content = content(&route.row, &diffs, &view, limit);
        html! { (content) (rules) }
    });
    let content = shown
        .await
        .map_err(|error| visit.failed(Box::new(problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))))?;
    Ok(respond(StatusCode::OK, &visit.frame, &format!("Differences of {id}"), content))
}

/// All of the page but the rules.
fn content(row: &RouteRow, diffs: &Diffs, view: &View, limit: usize) -> Markup {
    let route = row.id.as_str();
    html! {
        h1 { "Differences of " (route) }
        p.sub { (row.matches) " · " a href=(format!("/routes/{}", segment(route))) { "The route" } }
        (of_candidate(row, view))
        (summary(diffs, view.arms(), diffs.groups.len() >= limit))
        @if diffs.groups.is_empty() {
            (empty(row, diffs))
        } @else {
            (choices(route, diffs, view))
            (groups(route, diffs, view))
        }
    }
}

/// Whether the differences are those of the candidate, and where the others are.
fn of_candidate(row: &RouteRow, view: &View) -> Markup {
    let of = |candidate: bool| View { candidate, ..View::default() }.path(row.id.as_str());
    html! {
        @if view.candidate {
            p.notice {
                "These are the differences of the route's candidate, which is its changed workflow, from the plan in "
                "force. " a href=(of(false)) { "Differences from legacy" }
            }
        } @else if row.candidate.is_some() {
            p.notice {
                "The changed workflow of this route is a candidate, whose differences are apart. "
                a href=(of(true)) { "Differences of the candidate" }
            }
        }
    }
}

/// Links for the order and for the part of the pairs.
fn choices(route: &str, diffs: &Diffs, view: &View) -> Markup {
    let anew = || View { group: None, sample: 0, from: 0, suggests: false, ..view.clone() };
    let link = |text: &str, to: View| {
        let is_current = view.group.is_none() && (to.order, to.part) == (view.order, view.part);
        html! { a href=(to.path(route)) aria-current=[is_current.then_some("true")] { (text) } }
    };
    let of_part = |part: PairPart| {
        let is_of = |group: &&DiffGroup| group.differences.iter().any(|found| PairPart::of(found) == part);
        diffs.groups.iter().filter(is_of).count()
    };
    html! {
        nav.choices aria-label="Order" {
            span { "Order:" }
            (link("most frequent first", View { order: Order::Frequent, ..anew() }))
            (link("newest first", View { order: Order::Newest, ..anew() }))
        }
        nav.choices aria-label="What differs" {
            span { "What differs:" }
            (link(&format!("all ({})", count(diffs.groups.len() as u64)), View { part: None, ..anew() }))
            @for part in PairPart::ALL {
                @let number = of_part(part);
                @if number > 0 || view.part == Some(part) {
                    (link(
                        &format!("{} ({})", part.title().to_lowercase(), count(number as u64)),
                        View { part: Some(part), ..anew() },
                    ))
                }
            }
        }
    }
}

/// The part about rules: what is proposed, and the form to try some.
fn rules(
    visit: &Visit,
    route: &str,
    view: &View,
    suggested: Option<&Result<SuggestedRules, Box<ApiProblem>>>,
) -> Markup {
    let of = RulesOf { route, candidate: view.candidate, arms: view.arms() };
    let text = suggested.and_then(|suggested| suggested.as_ref().ok()).map_or("", |suggested| &suggested.rules);
    html! {
        section #rules aria-labelledby="rules-title" {
            h2 #rules-title { "Rules" }
            p {
                "A rule of the route says which differences do not matter: an id that each side gives, a time, an "
                "order. Every other difference is to be mended in the workflow."
            }
            @match suggested {
                None => {
                    p {
                        a href=(format!("{}#rules", View { suggests: true, ..view.clone() }.path(route))) {
                            "Propose rules for the samples that are kept"
                        }
                    }
                }
                Some(Ok(suggested)) => { (suggestions(suggested, of.arms)) }
                Some(Err(problem)) => { (problem_box(problem)) }
            }
            h3 { "Try rules before anybody writes them" }
            (form(&visit.frame, of, text, None))
        }
    }
}

/// Compares the samples again with the rules of the form, and shows what would become of them.
pub(in crate::page) async fn try_rules(Path(id): Path<String>, submitted: Submitted) -> Result<Response, Failure> {
    let Submitted { visit, fields } = submitted;
    let visit = visit.part("routes");
    let view = View { candidate: fields.get("candidate").is_some(), ..View::default() };
    let of = RulesOf { route: &id, candidate: view.candidate, arms: view.arms() };
    // Browsers send a text with CR LF.
    let asked = TryRules { rules: fields.all("rules").next().unwrap_or_default().replace("\r\n", "\n") };
    let path = format!("/api/v2/routes/{}/diffs/try?candidate={}", segment(&id), view.candidate);
    let tried: Result<TriedRules, Box<ApiProblem>> = visit.client.post(&path, &asked).await;
    let (status, refused) = match &tried {
        Ok(_) => (StatusCode::OK, None),
        Err(problem) if problem.status == StatusCode::NOT_FOUND => return Err(visit.failed(problem.clone())),
        Err(problem) => {
            (StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(&**problem))
        }
    };
    let content = html! {
        h1 { "Rules tried on " (id) }
        p { a href=(of.page("")) { "Back to the differences" } }
        @if let Ok(tried) = &tried { (rule_trial::result(tried, of)) }
        h2 { "The rules that were tried" }
        (form(&visit.frame, of, &asked.rules, refused))
    };
    Ok(respond(status, &visit.frame, &format!("Rules tried on {id}"), content))
}
