//! A scriptable world, an engine over it, and requests to its arm.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::affinity::StoreAffinity;
use crate::clock;
use crate::compare::{Body, Observation};
use crate::engine::Engine;
use crate::engine::EngineParts;
use crate::exchange::{ArmAnswer, ArmReply, ArmRequest, Problem, RequestCopy, RunReport};
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::{RouteId, RunId, Seq, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::store::{MemoryStore, SharedStore};
use crate::workflow::{Event, Known, Mode, Plan, RunView, view};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// One call that the world saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What the world does with a call.
#[derive(Clone, Debug)]
pub(super) enum React {
    Json(u16, Value),
    /// Answers when the gate opens.
    Gated(u16, Value),
    /// Never answers.
    Hang,
    Retry(u16, &'static str),
}

type Script = Box<dyn Fn(&Seen, usize) -> React + Send + Sync>;

/// The world outside: counts what it sees and answers by a script.
pub(super) struct World {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

impl World {
    /// The script gets each call and how many with the same path came before.
    pub async fn new(script: impl Fn(&Seen, usize) -> React + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            count: watch::Sender::new(0),
            gate: watch::Sender::new(false),
        });
        let (serving, script): (_, Arc<Script>) = (world.clone(), Arc::new(Box::new(script)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (world, script) = (serving.clone(), script.clone());
                let service = service_fn(move |request| serve(world.clone(), script.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        world
    }
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
        paths.sort();
        paths
    }
    pub async fn has_seen(&self, count: usize) {
        let mut seen = self.count.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= count)).await;
        assert!(waited.is_ok(), "the world saw only {:?}", self.paths());
    }
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

async fn serve(
    world: Arc<World>,
    script: Arc<Script>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen { method: head.method, path, headers: head.headers, body };
    let before = {
        let mut all = world.seen.lock().unwrap();
        let before = all.iter().filter(|known| known.path == seen.path && known.method == seen.method).count();
        all.push(seen.clone());
        before
    };
    world.count.send_modify(|count| *count += 1);
    let json = |status, value: &Value| {
        let reply = Response::builder().status(status).header("content-type", "application/json");
        Ok(reply.body(Full::new(Bytes::from(value.to_string()))).unwrap())
    };
    match script(&seen, before) {
        React::Json(status, value) => json(status, &value),
        React::Gated(status, value) => {
            let _ = world.gate.subscribe().wait_for(|open| *open).await;
            json(status, &value)
        }
        React::Hang => std::future::pending().await,
        React::Retry(status, after) => {
            Ok(Response::builder().status(status).header("retry-after", after).body(Full::default()).unwrap())
        }
    }
}

/// An engine with one plan, whose service `world` is a [`World`].
pub(super) struct Bench {
    pub engine: Engine,
    pub store: SharedStore,
    pub world: Arc<World>,
    pub plan: Arc<Plan>,
    pub limits: Limits,
    pub key: Option<Secret>,
}

impl Bench {
    pub async fn new(world: &Arc<World>, plan: Arc<Plan>) -> Self {
        Self::over(world, plan, Arc::new(MemoryStore::new()), Limits::default(), None).await
    }
    pub async fn over(
        world: &Arc<World>,
        plan: Arc<Plan>,
        store: SharedStore,
        limits: Limits,
        key: Option<Secret>,
    ) -> Self {
        let engine = engine(world, &plan, &store, &limits, &key).await;
        Self { engine, store, world: world.clone(), plan, limits, key }
    }
    /// Ends the process and starts the next one on the same store.
    pub async fn crash(&mut self) {
        let next = engine(&self.world, &self.plan, &self.store, &self.limits, &self.key).await;
        let last = std::mem::replace(&mut self.engine, next);
        let core = last.core.clone();
        drop(last);
        core.process.tasks.close();
        tokio::time::timeout(PATIENCE, core.process.tasks.wait()).await.unwrap();
    }
    pub async fn recover(&self) -> crate::engine::Recovered {
        self.engine.recover().await.unwrap()
    }
    pub async fn ask(&self, request: ArmRequest) -> ArmReply {
        tokio::time::timeout(PATIENCE, self.engine.arm().oneshot(request)).await.unwrap().unwrap()
    }
    pub async fn events(&self, run: RunId) -> Vec<Event> {
        self.store.events(run, Seq::FIRST).await.unwrap().into_iter().map(|stored| stored.event).collect()
    }
    pub async fn view(&self, run: RunId) -> RunView {
        let events = self.store.events(run, Seq::FIRST).await.unwrap();
        view(events.iter().map(|stored| (stored.at, &stored.event))).unwrap()
    }
    pub async fn runs(&self) -> Vec<crate::workflow::RunSummary> {
        let filter = crate::store::RunFilter { limit: 1_000, ..Default::default() };
        self.store.runs(filter).await.unwrap()
    }
    /// Waits until the run in the store is as wanted.
    pub async fn until(&self, run: RunId, wanted: impl Fn(&RunView) -> bool) -> RunView {
        let look = async {
            loop {
                let view = self.view(run).await;
                if wanted(&view) {
                    return view;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("the run does not come there")
    }
}

fn services(world: &World) -> BTreeMap<ServiceName, Arc<Service>> {
    let name = ServiceName::from("world");
    let service = Service {
        name: name.clone(),
        urls: vec![format!("http://{}", world.address).parse().unwrap()],
        keyed: false,
        connect: None,
        first_byte: None,
        calls_max: None,
        breaker: None,
        rate: None,
    };
    BTreeMap::from([(name, Arc::new(service))])
}

impl Bench {
    /// These plans are in force too.
    pub fn with(&self, others: &[&Arc<Plan>]) {
        let plans = std::iter::once(&self.plan).chain(others.iter().copied());
        let plans = plans.map(|plan| (plan.workflow.clone(), plan.clone())).collect();
        let secrets = BTreeMap::from([("bank".to_owned(), Secret::new("s3cret"))]);
        self.engine.reload(0, &plans, &services(&self.world), &secrets);
    }
    /// Only so many calls are under way at the world.
    pub fn calls_max(&self, calls: u64) {
        let mut services = services(&self.world);
        services.values_mut().for_each(|service| Arc::make_mut(service).calls_max = Some(calls));
        let plans = BTreeMap::from([(self.plan.workflow.clone(), self.plan.clone())]);
        self.engine.reload(0, &plans, &services, &BTreeMap::new());
    }
    /// Waits until the run has no task.
    pub async fn rests(&self, run: RunId) {
        let look = async {
            while self.engine.core.schedule.mailboxes.has_task(run) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.expect("the run does not come to rest");
    }
    /// Waits until the run has ended, or waits for a person or a signal.
    pub async fn ended(&self, run: RunId) -> crate::workflow::RunSummary {
        self.engine.rest(run, PATIENCE).await.expect("there is such a run")
    }
}

async fn engine(world: &World, plan: &Arc<Plan>, store: &SharedStore, limits: &Limits, key: &Option<Secret>) -> Engine {
    Engine::new(EngineParts {
        store: store.clone(),
        plans: BTreeMap::from([(plan.workflow.clone(), plan.clone())]),
        services: services(world),
        secrets: BTreeMap::from([("bank".to_owned(), Secret::new("s3cret"))]),
        store_key: key.clone(),
        key_secret: [1; 32],
        limits: Arc::new(limits.clone()),
        pins: StoreAffinity::load(store.clone(), limits).await.unwrap(),
        clock: clock::process().clone(),
    })
}

/// A plan as the files' check makes it; whether service `world` honours keys.
pub(super) fn checked(definition: &Value, keyed: bool) -> Arc<Plan> {
    let services = BTreeMap::from([(ServiceName::from("world"), keyed)]);
    let known = Known {
        services: &services,
        secrets: &["bank".to_owned()].into(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    Arc::new(Plan::from_source(definition, &known).unwrap_or_else(|problems| panic!("{problems:?}")))
}

/// A request with a JSON body.
pub(super) fn copy(body: &Value, headers: &[(&'static str, &'static str)]) -> Arc<RequestCopy> {
    let mut all = HeaderMap::new();
    all.insert("content-type", "application/json".parse().unwrap());
    for (name, value) in headers {
        all.insert(*name, value.parse().unwrap());
    }
    Arc::new(RequestCopy {
        method: Method::POST,
        path: "/orders".into(),
        query: Some("a=1".into()),
        params: vec![("id".into(), "7".into())],
        headers: all,
        body: Bytes::from(body.to_string()),
        peer: [127, 0, 0, 1].into(),
    })
}

pub(super) fn request(workflow: &str, mode: Mode, body: &Value) -> ArmRequest {
    ArmRequest {
        route: RouteId::from("orders.create"),
        edition: Some(0),
        workflow: WorkflowName::from(workflow),
        mode,
        request: copy(body, &[]),
        legacy: None,
        instance: None,
        creates: None,
        retry_key: None,
        new_instance: false,
        any_caller: None,
        any_caller_before: Vec::new(),
        keep: true,
        may_fall_back: false,
        deadline: Duration::from_secs(8),
    }
}

pub(super) fn legacy(status: u16, body: &Value) -> Arc<Observation> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let body = Body::Whole(Bytes::from(body.to_string()));
    Arc::new(Observation::new(StatusCode::from_u16(status).unwrap(), headers, body, Duration::ZERO, Vec::new()))
}

pub(super) fn answer(reply: ArmReply) -> (u16, Value, RunReport) {
    match reply {
        ArmReply::Answer(ArmAnswer { status, body, report, .. }) => {
            (status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null), report)
        }
        other => panic!("no answer: {other:?}"),
    }
}

pub(super) fn refused(reply: ArmReply) -> (Problem, RunReport) {
    match reply {
        ArmReply::Refused(problem, report) => (problem, report),
        other => panic!("not refused: {other:?}"),
    }
}

pub(super) fn abandoned(reply: ArmReply) -> crate::exchange::Abandoned {
    match reply {
        ArmReply::Abandoned(abandoned) => abandoned,
        other => panic!("not abandoned: {other:?}"),
    }
}

/// Starts a run as a program does.
pub(super) async fn start(bench: &Bench, input: Value) -> crate::engine::Started {
    let start = crate::engine::Start { workflow: bench.plan.workflow.clone(), input, by: "test".into(), key: None };
    tokio::time::timeout(PATIENCE, bench.engine.start(start)).await.unwrap().unwrap()
}
