//! Every path of the API: one table, of which the router, `/openapi.json` and `/` are made.
//!
//! Always true: a path that is served stands here with what it takes, what it gives and which scope it wants, so none
//! can be forgotten in the description.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use super::guard::Scope;
use super::types::{
    AdjustAsk, AnswerAsk, CancelAsk, Diffs, EventRow, EvidenceView, ExplanationView, FlipAsk, FlipDone, FlipRow,
    FreezeAsk, FreezeDone, Orchestration, PlainAsk, RerunAsk, ResolveAsk, RetryAsk, RouteDetail, RouteRow, RunAsk,
    RunList, ServiceRow, SignalAsk, SkipAsk, Status,
};
use super::{Shared, differences, moves, orchestrate as runs, plain, reference, routes, services};

/// Makes the schema of a type.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Everybody: probes and scrapers.
    Open,
    /// Who may do this.
    Wants(Scope),
    /// Callers on this machine, and who may start runs.
    Older,
}

/// What an answer holds.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Json(Shape),
    Text,
    /// Text, or a page for a browser.
    Page,
    Events,
    Nothing,
}

/// A header that a call may bring.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub name: &'static str,
    pub about: &'static str,
    /// Of its value, where it has one.
    pub pattern: Option<&'static str>,
}

/// One path and method.
pub(super) struct Row {
    pub method: Method,
    pub path: &'static str,
    pub door: Door,
    /// Also on the listener for applications.
    pub apps: bool,
    pub id: &'static str,
    pub about: &'static str,
    pub query: Option<Shape>,
    pub body: Option<Shape>,
    pub headers: Vec<Header>,
    pub answers: Vec<(u16, Content)>,
    /// The envelope that it gives leads to the paths of that run.
    pub leads: bool,
    /// Refusals of its own, beside those that its kind has.
    pub refusals: &'static [u16],
    pub handler: MethodRouter<Arc<Shared>>,
}

const KEY: Header = Header {
    name: "Idempotency-Key",
    about: "Names the wish: asked again with it, the same run answers.",
    pattern: Some("^[!#-~]{1,255}$"),
};
const PREFER: Header = Header {
    name: "Prefer",
    about: "`wait=N`: answer after so many seconds at the latest; `respond-async`: at once (RFC 7240).",
    // A preference that nobody knows is passed over.
    pattern: None,
};
const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    about: "The place of the last event that the client has: the stream goes on behind it.",
    pattern: Some("^[0-9]{1,9}$"),
};

impl Row {
    fn new(
        method: Method,
        path: &'static str,
        door: Door,
        handler: MethodRouter<Arc<Shared>>,
        id: &'static str,
        about: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            door,
            apps: false,
            id,
            about,
            query: None,
            body: None,
            headers: Vec::new(),
            answers: Vec::new(),
            leads: false,
            refusals: &[],
            handler,
        }
    }
    fn gives<T: JsonSchema>(self) -> Self {
        self.answers(200, Content::Json(|generator| generator.subschema_for::<T>()))
    }
    fn answers(mut self, status: u16, content: Content) -> Self {
        self.answers.push((status, content));
        self
    }
    fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }
    /// The members of `T`, each of them a parameter.
    fn asks<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }
    fn brings(mut self, header: Header) -> Self {
        self.headers.push(header);
        self
    }
    fn refuses(mut self, refusals: &'static [u16]) -> Self {
        self.refusals = refusals;
        self
    }
    fn leads(mut self) -> Self {
        self.leads = true;
        self
    }
    fn apps(mut self) -> Self {
        self.apps = true;
        self
    }
}

/// Every path, in the order in which people read them.
pub(super) fn table() -> Vec<Row> {
    let mut rows = plain_rows();
    rows.extend(flag_rows());
    rows.extend(run_rows());
    rows.extend(order_rows());
    rows
}

fn plain_rows() -> Vec<Row> {
    let row = |path, handler, id, about| Row::new(Method::GET, path, Door::Open, handler, id, about);
    vec![
        row("/", get(plain::index), "index", "What is here, for a person").answers(200, Content::Text).apps(),
        row("/metrics", get(plain::metrics), "metrics", "For Prometheus").answers(200, Content::Text),
        row("/healthz", get(plain::healthz), "healthz", "The process runs").answers(200, Content::Text),
        row("/readyz", get(plain::readyz), "readyz", "Traffic may be sent here")
            .answers(200, Content::Text)
            .answers(503, Content::Text),
        row("/openapi.json", get(plain::openapi), "openapi", "This description").gives::<Value>().apps(),
        row("/docs", get(reference::index), "docs", "The reference: its topics").answers(200, Content::Page).apps(),
        row("/docs/{topic}", get(reference::topic), "topic", "One topic of the reference")
            .answers(200, Content::Page)
            .refuses(&[404])
            .apps(),
    ]
}

fn flag_rows() -> Vec<Row> {
    let read = |path, handler, id, about| Row::new(Method::GET, path, Door::Wants(Scope::Read), handler, id, about);
    let flip = |path, handler, id, about| Row::new(Method::POST, path, Door::Wants(Scope::Flip), handler, id, about);
    vec![
        read("/api/v2/status", get(routes::status), "status", "Everything at a glance").gives::<Status>(),
        read("/api/v2/routes", get(routes::list), "routes", "Where each route stands").gives::<Vec<RouteRow>>(),
        read("/api/v2/routes/{id}", get(routes::show), "route", "One route in full")
            .gives::<RouteDetail>()
            .refuses(&[404, 409]),
        flip("/api/v2/routes/{id}/flip", post(moves::flip), "flip", "Move a route to another state")
            .takes::<FlipAsk>()
            .gives::<FlipDone>()
            .refuses(&[404, 409, 422]),
        read("/api/v2/routes/{id}/diffs", get(differences::diffs), "diffs", "Where legacy and engine differ")
            .asks::<differences::Filter>()
            .gives::<Diffs>()
            .refuses(&[404]),
        read("/api/v2/routes/{id}/evidence", get(differences::evidence), "evidence", "What comparisons add up to")
            .gives::<EvidenceView>()
            .refuses(&[404]),
        flip("/api/v2/freeze", post(moves::freeze), "freeze", "The kill switch")
            .takes::<FreezeAsk>()
            .gives::<FreezeDone>()
            .refuses(&[409, 422]),
        read("/api/v2/flips", get(moves::flips), "flips", "Who moved what, when and why")
            .asks::<moves::Filter>()
            .gives::<Vec<FlipRow>>(),
        read("/api/v2/services", get(services::list), "services", "Breakers, calls under way, rates")
            .gives::<Vec<ServiceRow>>(),
    ]
}

fn run_rows() -> Vec<Row> {
    let read =
        |path, handler, id, about| Row::new(Method::GET, path, Door::Wants(Scope::Read), handler, id, about).apps();
    let start = |path, door, handler, id, about| {
        Row::new(Method::POST, path, door, handler, id, about)
            .takes::<RunAsk>()
            .gives::<Orchestration>()
            .answers(202, Content::Json(|generator| generator.subschema_for::<Orchestration>()))
            .answers(200, Content::Events)
            .brings(KEY)
            .brings(PREFER)
            .refuses(&[404, 422, 429, 501])
            .leads()
            .apps()
    };
    vec![
        start(
            "/api/v2/orchestrate/run",
            Door::Wants(Scope::Run),
            post(runs::start),
            "startRun",
            "Run a workflow: {\"workflow\": \"...\", \"input\": ...}",
        ),
        start(
            "/api/maestro/produce",
            Door::Older,
            post(runs::produce),
            "produce",
            "The older entrance for starts; deprecated",
        ),
        read("/api/v2/orchestrate/runs", get(runs::list), "runs", "Runs, newest first")
            .asks::<runs::Filter>()
            .gives::<RunList>(),
        read("/api/v2/orchestrate/run/{id}", get(runs::show), "run", "One run, or the newest of a job")
            .gives::<Orchestration>()
            .refuses(&[404, 410, 500]),
        read(
            "/api/v2/orchestrate/run/{id}/stream",
            get(runs::stream),
            "streamRun",
            "What happens to it, as it happens",
        )
        .answers(200, Content::Events)
        .answers(204, Content::Nothing)
        .brings(LAST_EVENT_ID)
        .refuses(&[404, 410, 429, 500]),
        read("/api/v2/orchestrate/run/{id}/events", get(runs::events), "runEvents", "Its audit trail")
            .asks::<runs::Page>()
            .gives::<Vec<EventRow>>()
            .refuses(&[404, 500]),
        read("/api/v2/orchestrate/run/{id}/explain", get(runs::explain), "explainRun", "What it waits for")
            .gives::<ExplanationView>()
            .refuses(&[404, 409, 500]),
        read("/api/v2/orchestrate/run/{id}/steps/{step}/output", get(runs::output), "stepOutput", "A step's output")
            .gives::<Value>()
            .refuses(&[404, 410, 500]),
    ]
}

fn order_rows() -> Vec<Row> {
    const REFUSALS: &[u16] = &[404, 409, 410, 422, 500];
    let order = |path, scope, handler, id, about| {
        Row::new(Method::POST, path, Door::Wants(scope), handler, id, about)
            .gives::<Orchestration>()
            .refuses(REFUSALS)
            .apps()
    };
    let decide = |path, handler, id, about| order(path, Scope::Decide, handler, id, about);
    vec![
        decide("/api/v2/orchestrate/run/{id}/pause", post(runs::pause), "pauseRun", "Begin nothing more")
            .takes::<PlainAsk>(),
        decide("/api/v2/orchestrate/run/{id}/resume", post(runs::resume), "resumeRun", "Go on").takes::<PlainAsk>(),
        decide("/api/v2/orchestrate/run/{id}/cancel", post(runs::cancel), "cancelRun", "End it").takes::<CancelAsk>(),
        decide("/api/v2/orchestrate/run/{id}/skip", post(runs::skip), "skipStep", "Skip a step").takes::<SkipAsk>(),
        decide("/api/v2/orchestrate/run/{id}/adjust", post(runs::adjust), "adjustStep", "Give a step another input")
            .takes::<AdjustAsk>(),
        decide("/api/v2/orchestrate/run/{id}/retry", post(runs::retry), "retryRun", "Start the next attempt now")
            .takes::<RetryAsk>(),
        decide("/api/v2/orchestrate/run/{id}/resolve", post(runs::resolve), "resolveConflict", "Decide a conflict")
            .takes::<ResolveAsk>(),
        Row::new(
            Method::POST,
            "/api/v2/orchestrate/run/{id}/rerun",
            Door::Wants(Scope::Decide),
            post(runs::rerun),
            "rerun",
            "Run again from a step",
        )
        .takes::<RerunAsk>()
        .answers(202, Content::Json(|generator| generator.subschema_for::<Orchestration>()))
        .refuses(REFUSALS)
        .apps(),
        decide(
            "/api/v2/orchestrate/run/{id}/checkpoints/{checkpoint}",
            post(runs::answer),
            "answerCheckpoint",
            "Answer what a run asks",
        )
        .takes::<AnswerAsk>(),
        order(
            "/api/v2/orchestrate/run/{id}/signals/{name}",
            Scope::Run,
            post(runs::signal),
            "signalRun",
            "Deliver a signal",
        )
        .takes::<SignalAsk>(),
    ]
}
