//! The API's errors and the responses that they become; no other file makes error responses.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::types::{ApiProblem, FileProblem};
use crate::exchange::Source;
use crate::ladder::{FlipCommand, FlipError, FreezeError, Unconfirmed};
use crate::names::RouteId;
use crate::store::{StoreError, UnreadableRow};

/// The error of a handler: the problem that is sent instead of a result.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) Box<ApiProblem>);

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(ApiProblem {
            kind: format!("urn:pointsman:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            reasons: Vec::new(),
            commands: Vec::new(),
            errors: Vec::new(),
            problems: Vec::new(),
            run_id: None,
            run_status: None,
            first: None,
            row: None,
        }))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(super) fn reasons(mut self, reasons: Vec<String>) -> Self {
        self.0.reasons = reasons;
        self
    }

    pub(super) fn problems(mut self, problems: Vec<FileProblem>) -> Self {
        self.0.problems = problems;
        self
    }

    /// Flip commands that would pass if they were given one after the other.
    fn commands(mut self, commands: Vec<FlipCommand>) -> Self {
        self.0.commands = commands.iter().map(FlipCommand::to_string).collect();
        self
    }

    /// 400: the request is malformed.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is not valid", detail)
    }

    /// 422: fields that are each valid contradict each other.
    pub(super) fn inconsistent(detail: impl Into<String>) -> Self {
        let title = "The fields of the request contradict each other";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "contradicting-fields", title, detail)
    }

    /// The response when the kill switch was not set.
    pub(super) fn freeze(error: FreezeError) -> Self {
        const TITLE: &str = "The kill switch was not changed";
        match error {
            // Freezing new instances only would silently release the effects that a stronger freeze holds.
            FreezeError::Weaker => Self::new(
                StatusCode::CONFLICT,
                "frozen-with-effects",
                "A stronger freeze is in force",
                format!(
                    "{error}; nothing was changed. Lift the freeze in force first (`pointsman freeze --off`), then freeze \
                     new instances"
                ),
            ),
            FreezeError::Superseded => Self::new(
                StatusCode::CONFLICT,
                "frozen-again",
                TITLE,
                format!("{error}; that newer freeze stays in force, nothing was changed"),
            ),
            FreezeError::Store(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", TITLE, error.to_string()),
            FreezeError::Unconfirmed(unconfirmed) => Self::unconfirmed(unconfirmed),
        }
    }

    /// 503: a flip or freeze was not confirmed.
    fn unconfirmed(why: Unconfirmed) -> Self {
        let (kind, title) = match why {
            Unconfirmed::Busy => ("move-waits", "Another move is under way"),
            Unconfirmed::Pending => ("outcome-unknown", "It is not known yet whether the change is recorded"),
            Unconfirmed::TaskEnded => ("outcome-unknown", "It is not known whether the change was made"),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, title, why.to_string())
    }

    /// 500: a row of the record or of the flips cannot be used.
    pub(super) fn unreadable(what: &str, row: UnreadableRow) -> Self {
        let UnreadableRow { number, why } = row;
        let title = format!("{what} {number} cannot be read");
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable-row", &title, why);
        error.0.row = Some(number);
        error.hint("restore a backup, or find out who changed the store; the next start refuses an unreadable flip")
    }

    /// 404: nothing has this name. `reasons` lists the names that exist, the nearest first.
    pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = known.collect();
        let nearest = crate::problem::nearest(name, known.iter().copied()).map(str::to_owned);
        known.sort_unstable();
        known.dedup();
        known.sort_by_key(|other| (Some(*other) != nearest.as_deref(), *other));
        let error = Self::new(
            StatusCode::NOT_FOUND,
            &format!("unknown-{what}"),
            &format!("There is no such {what}"),
            format!("no {what} `{name}`"),
        );
        let error = match nearest {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error,
        };
        error.reasons(known.into_iter().map(str::to_owned).collect())
    }

    /// 403: this caller may not use the deprecated start endpoint.
    pub(super) fn not_for_caller(detail: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "caller-not-allowed",
            "The deprecated endpoint does not take this caller",
            detail,
        )
        .hint("POST the same body to /api/v2/orchestrate/run with a token")
    }

    /// 404: the store has no such run.
    pub(super) fn no_run(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-run", "There is no such run", format!("no run `{id}`")).hint(
            "ended runs are deleted after `retention`, and rehearsed runs are not stored: for a rehearsed run named by \
             `diffs` use `pointsman runs events`; stored runs are in `pointsman runs list`",
        )
    }

    /// 404: the store has the run, but not its plan.
    pub(super) fn no_plan(id: &str) -> Self {
        let detail = format!("the store has the run `{id}`, but not its plan");
        Self::new(StatusCode::NOT_FOUND, "plan-missing", "The plan is missing", detail)
            .hint("`pointsman store check` lists such faults of the store")
    }

    /// The response to a flip that was refused.
    pub(super) fn flip<'a>(error: FlipError, known: impl Iterator<Item = &'a RouteId>) -> Self {
        const TITLE: &str = "The route was not moved";
        let text = error.to_string();
        match error {
            FlipError::UnknownRoute(id, _) => Self::unknown("route", id.as_str(), known.map(RouteId::as_str)),
            // `reasons` lists the conditions; the detail does not repeat them.
            FlipError::GateShut { reasons, commands } => {
                Self::new(StatusCode::CONFLICT, "gate-shut", TITLE, "the gate is shut")
                    .reasons(reasons)
                    .hint("do what each reason says, or pass the gate with `force` and a `reason`")
                    .commands(commands)
            }
            FlipError::Refused { commands, .. } => {
                Self::new(StatusCode::CONFLICT, "flip-refused", TITLE, text).commands(commands)
            }
            FlipError::Store(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", TITLE, text),
            FlipError::Unconfirmed(unconfirmed) => Self::unconfirmed(unconfirmed),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", "The store did not answer", error.0)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert("x-pointsman-source", HeaderValue::from_static(Source::Proxy.as_str()));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
