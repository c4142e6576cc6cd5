//! An API with a store in memory and a fake engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::fake_engine::FakeEngine;
use crate::admin::serve::PeerAddress;
use crate::admin::types::AdoptionsView;
use crate::admin::{
    AdminParts, AdoptionControl, AdoptionRefused, CallersOfService, LocalApi, ProcessStatus, Reloaded, RouteTraffic,
    api, applications,
};
use crate::compare::Rules;
use crate::config::{RouteRules, Token};
use crate::egress::Attribution;
use crate::evidence::{Captures, Evidence};
use crate::exchange::{ComparisonOutcome, OfferedRequest, TicketCounter as _};
use crate::flag::{Arm, Route, RouteMatch, Service, SkipReason};
use crate::ladder::{DeclaredFiles, Ladder, LadderParts};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::record::RecordWriter;
use crate::secret::RedactionKey;
use crate::store::tests::at;
use crate::store::{MemoryStore, SqliteStore, Store as _, StoreHandle};

fn service() -> Arc<Service> {
    Arc::new(Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]))
}

fn route(id: &str, method: Method, path: &str) -> Arc<Route> {
    Arc::new(Route {
        workflow: Some("create-order".into()),
        ..Route::without_workflow(id.into(), RouteMatch { method, path: path.into(), host: None }, service())
    })
}

/// Instances of legacy that nobody adopts.
struct NoAdoptions;

impl AdoptionControl for NoAdoptions {
    fn view<'a>(&'a self, route: &'a RouteId) -> BoxFuture<'a, Result<AdoptionsView, AdoptionRefused>> {
        let (workflow, bulk, instances) = (None, None, Vec::new());
        let (adopted, moving, unknown, given_back) = (0, 0, 0, 0);
        let route = route.clone();
        let view = AdoptionsView { route, workflow, adopted, moving, unknown, given_back, bulk, instances };
        Box::pin(std::future::ready(Ok(view)))
    }
    fn start<'a>(
        &'a self,
        _: &'a RouteId,
        _: Option<Vec<String>>,
        _: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>> {
        Box::pin(std::future::ready(Err(AdoptionRefused::Refused("nobody adopts".into()))))
    }
    fn decide<'a>(
        &'a self,
        _: &'a RouteId,
        _: &'a str,
        _: Arm,
        _: String,
        _: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>> {
        Box::pin(std::future::ready(Err(AdoptionRefused::Refused("nobody adopts".into()))))
    }
}

/// The parts of the API, which a test may change before it sends a request.
pub struct TestApi {
    pub store: StoreHandle,
    pub process: ProcessStatus,
    pub listen: SocketAddr,
    pub tokens: Vec<Token>,
    pub engine: Arc<FakeEngine>,
    pub limits: Limits,
    pub deprecated_start: bool,
    /// The outcome of a requested reading of the files; `None`: the process stops before it reads them.
    pub reloaded: Option<Reloaded>,
    /// The other processes, which have no flip in force.
    pub behind: Vec<String>,
    /// Attributes the calls by legacy; `None` without an egress listener.
    pub attribution: Option<Attribution>,
    /// Cancelled when the listener stops.
    pub stopping: tokio_util::sync::CancellationToken,
    /// The rules of all routes.
    pub rules: Arc<Rules>,
    ladder: Arc<Ladder>,
    evidence: Arc<Evidence>,
}

impl TestApi {
    pub async fn new() -> Self {
        let store: StoreHandle = Arc::new(MemoryStore::new());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let create = route("orders.create", Method::POST, "/orders");
        let show = route("orders.show", Method::GET, "/orders/{id}");
        let services = BTreeMap::from([("shop".into(), service())]);
        let files = DeclaredFiles {
            files_version: 0,
            routes: vec![create, show],
            default_legacy: service(),
            services,
            exposes_arm: false,
            bases: BTreeMap::new(),
            read_only: Default::default(),
            shared_steps: Default::default(),
            sent_reads: Default::default(),
            pairs_within: Duration::ZERO,
            candidate_pairs_within: Duration::ZERO,
            private_steps: Default::default(),
            plans: Default::default(),
        };
        let parts = LadderParts {
            store: store.clone(),
            evidence: evidence.clone(),
            conditions: Vec::new(),
            conditions_of_moves: Vec::new(),
            retry_window: Duration::from_secs(86_400),
            copy_started: None,
            answer_within: Duration::from_secs(5),
            others: None,
        };
        let ladder = Ladder::open(files, parts).await.unwrap();
        let process = ProcessStatus { engine_healthy: true, runs_in_flight: 3, ..ProcessStatus::default() };
        let listen = "127.0.0.1:8081".parse().unwrap();
        let engine = Arc::new(FakeEngine::new(store.clone()));
        let limits = Limits { api_wait_ms: 50, ..Limits::default() };
        let (tokens, deprecated_start, reloaded, attribution) = (Vec::new(), true, None, None);
        Self {
            store,
            process,
            listen,
            tokens,
            engine,
            limits,
            deprecated_start,
            reloaded,
            behind: Vec::new(),
            attribution,
            stopping: tokio_util::sync::CancellationToken::new(),
            rules: Arc::default(),
            ladder,
            evidence,
        }
    }

    /// Makes the API read from a store that does not answer. The engine keeps its store.
    pub async fn close_store(&mut self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("closed.db"), &self.limits).await.unwrap();
        store.close().await;
        self.store = Arc::new(store);
        dir
    }

    fn parts(&self) -> AdminParts {
        let (process, reloaded) = (self.process.clone(), self.reloaded.clone());
        AdminParts {
            engine: self.engine.clone(),
            deprecated_start: self.deprecated_start,
            rules: {
                let rules = self.rules.clone();
                Arc::new(move |_| Some(RouteRules::of_intents(rules.clone(), &["charge"])))
            },
            workflows: Arc::new(|| vec!["create-order".into(), "get-order".into()]),
            stopping: self.stopping.clone(),
            ladder: self.ladder.clone(),
            evidence: self.evidence.clone(),
            captures: Captures::new(self.store.clone(), RedactionKey::derived_from(&[7; 32])),
            attribution: self.attribution.clone(),
            recorder: Arc::new(RecordWriter::new(self.store.clone())),
            store: self.store.clone(),
            render_metrics: Arc::new(|| "up 1\n".to_owned()),
            tokens: self.tokens.clone(),
            listen: self.listen,
            proxy_listen: vec!["127.0.0.1:8080".parse().unwrap()],
            started: at(0),
            limits: Arc::new(self.limits.clone()),
            process_status: Arc::new(move || process.clone()),
            callers: Arc::new(|service| {
                let flush = Box::pin(std::future::ready(Ok(())));
                let may_call = Box::pin(std::future::ready(Ok(vec!["route orders (dark)".to_owned()])));
                (service.as_str() == "shop").then_some(CallersOfService {
                    may_call,
                    now: at(100),
                    process: uuid::Uuid::nil(),
                    flush,
                })
            }),
            instances: Arc::new(|_| Vec::new()),
            adoptions: Arc::new(NoAdoptions),
            traffic: Arc::new(|_| RouteTraffic { requests: 12, overhead_p50_us: Some(40.0) }),
            services: Arc::new(Vec::new),
            processes: Arc::new(Vec::new),
            wait_followed: {
                let behind = self.behind.clone();
                Arc::new(move |_| Box::pin(std::future::ready(behind.clone())))
            },
            move_candidate: Arc::new(|_| Box::pin(std::future::ready(Ok(())))),
            reload: Arc::new(move || {
                let (answer, outcome) = tokio::sync::oneshot::channel();
                if let Some(reloaded) = reloaded.clone() {
                    answer.send(reloaded).expect("it waits");
                }
                outcome
            }),
        }
    }

    /// Counts a request of this route that was not compared.
    pub fn settle_request(&self, route: &str) {
        let skipped = ComparisonOutcome::Skipped(SkipReason::QueueFull);
        self.evidence.settle(&OfferedRequest::new(route, 0), skipped);
    }

    pub fn router(&self) -> Router {
        self.local().router()
    }

    /// The API for callers in this process.
    pub fn local(&self) -> LocalApi {
        api(self.parts())
    }

    /// Sends a request to the listener for applications.
    pub async fn application(&self, request: Request<Body>) -> TestResponse {
        answer(applications(self.parts()), request).await
    }

    pub async fn call(&self, request: Request<Body>) -> TestResponse {
        answer(self.router(), request).await
    }

    pub async fn move_to(&self, route: &str, state: &str) {
        let request = serde_json::json!({ "to": state, "as": "ada" });
        let answer = self.call(post(&format!("/api/v2/routes/{route}/flip"), &request)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
}

async fn answer(router: Router, mut request: Request<Body>) -> TestResponse {
    if request.extensions().get::<PeerAddress>().is_none() {
        request.extensions_mut().insert(PeerAddress("127.0.0.1:40000".parse().unwrap()));
    }
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let kind = head.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    TestResponse { status: head.status, kind: kind.unwrap_or_default(), headers: head.headers, text }
}

pub struct TestResponse {
    pub status: StatusCode,
    pub kind: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl TestResponse {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {} {}", self.status, self.text))
    }
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).header(header::HOST, "localhost:8081").body(Body::empty()).unwrap()
}

pub fn post(path: &str, body: &Value) -> Request<Body> {
    post_text(path, body.to_string())
}

pub fn post_text(path: &str, body: String) -> Request<Body> {
    let request = Request::post(path).header(header::HOST, "127.0.0.1:8081");
    request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
}
