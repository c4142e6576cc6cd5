//! Pages that say why there is nothing else to show.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

use crate::admin::types::ApiProblem;
use crate::page::html::{Frame, respond};

/// Why a page is not shown.
#[derive(Debug)]
pub(super) enum Failure {
    /// The API refused a request of the page; `frame` is that of the page.
    Api(Box<Frame>, Box<ApiProblem>),
    /// Another response: a redirect, or a problem before the session was known.
    Other(Box<Response>),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Failure::Api(frame, problem) => {
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let title = problem.title.clone();
                respond(status, &frame, &title, html! { h1 { (title) } (problem_box(&problem)) })
            }
            Failure::Other(response) => *response,
        }
    }
}

/// A problem of the API: what happened, why, and what to do.
pub(super) fn problem_box(problem: &ApiProblem) -> Markup {
    html! {
        div.problem role="alert" {
            p.problem-title { strong { (problem.title) } }
            @if !problem.detail.is_empty() { p { (problem.detail) } }
            @if let Some(hint) = &problem.hint { p { (hint) } }
            @if !problem.reasons.is_empty() {
                ul { @for reason in &problem.reasons { li { (reason) } } }
            }
            @if !problem.errors.is_empty() {
                ul { @for error in &problem.errors { li { code { (error.pointer) } ": " (error.detail) } } }
            }
            @if let Some(first) = &problem.first {
                p { (first.by) " has answered before: " @if first.approve { "yes" } @else { "no" } "." }
            }
        }
    }
}
