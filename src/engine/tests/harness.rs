//! A step service that answers by a script, an engine whose steps call it, and requests to the engine's arm.

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
use crate::compare::{AwaitedIntents, Body, Observation};
use crate::engine::Engine;
use crate::engine::EngineParts;
use crate::exchange::{
    ArmAnswer, ArmReply, ArmRequest, EarlierKeys, MayBegin, ProblemDocument, RequestCopy, RunReport,
};
use crate::flag::{Service, UnknownInstance};
use crate::limits::Limits;
use crate::names::{RouteId, RunId, Seq, ServiceName, WorkflowName};
use crate::secret::Secret;
use crate::store::{MemoryStore, StoreHandle};
use crate::transport::AddressRegistry;
use crate::workflow::{DeclaredNames, Event, Mode, Plan, RunView, view};

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// One call that the step service received.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReceivedCall {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ReceivedCall {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// How the step service answers a call.
#[derive(Clone, Debug)]
pub(super) enum ServiceReply {
    Json(u16, Value),
    /// A body of this content type.
    Bytes(&'static str, &'static [u8]),
    /// Answers when the gate opens.
    Gated(u16, Value),
    /// Never answers.
    Hang,
    /// A status with `Retry-After`.
    RetryAfter(u16, &'static str),
}

type Script = Box<dyn Fn(&ReceivedCall, usize) -> ServiceReply + Send + Sync>;

/// The service that steps call: records the calls and answers by a script.
pub(super) struct StepService {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<ReceivedCall>>>,
    count: watch::Sender<usize>,
    gate: watch::Sender<bool>,
}

impl StepService {
    /// Starts the service. `script` decides the reply to a call; its second argument is the number of earlier calls
    /// with the same method and path.
    pub async fn new(script: impl Fn(&ReceivedCall, usize) -> ServiceReply + Send + Sync + 'static) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let step_service = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            count: watch::Sender::new(0),
            gate: watch::Sender::new(false),
        });
        let (serving, script): (_, Arc<Script>) = (step_service.clone(), Arc::new(Box::new(script)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (step_service, script) = (serving.clone(), script.clone());
                let service = service_fn(move |request| serve(step_service.clone(), script.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        step_service
    }
    pub fn seen(&self) -> Vec<ReceivedCall> {
        self.seen.lock().unwrap().clone()
    }
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<_> = self.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
        paths.sort();
        paths
    }
    pub async fn wait_for_calls(&self, count: usize) {
        let mut seen = self.count.subscribe();
        let waited = tokio::time::timeout(TIMEOUT, seen.wait_for(|seen| *seen >= count)).await;
        assert!(waited.is_ok(), "the step service received only {:?}", self.paths());
    }
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }
}

async fn serve(
    step_service: Arc<StepService>,
    script: Arc<Script>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = ReceivedCall { method: head.method, path, headers: head.headers, body };
    let before = {
        let mut all = step_service.seen.lock().unwrap();
        let before = all.iter().filter(|known| known.path == seen.path && known.method == seen.method).count();
        all.push(seen.clone());
        before
    };
    step_service.count.send_modify(|count| *count += 1);
    let json = |status, value: &Value| {
        let reply = Response::builder().status(status).header("content-type", "application/json");
        Ok(reply.body(Full::new(Bytes::from(value.to_string()))).unwrap())
    };
    match script(&seen, before) {
        ServiceReply::Json(status, value) => json(status, &value),
        ServiceReply::Bytes(content_type, bytes) => {
            let reply = Response::builder().header("content-type", content_type);
            Ok(reply.body(Full::new(Bytes::from_static(bytes))).unwrap())
        }
        ServiceReply::Gated(status, value) => {
            let _ = step_service.gate.subscribe().wait_for(|open| *open).await;
            json(status, &value)
        }
        ServiceReply::Hang => std::future::pending().await,
        ServiceReply::RetryAfter(status, after) => {
            Ok(Response::builder().status(status).header("retry-after", after).body(Full::default()).unwrap())
        }
    }
}

/// An engine with one plan, whose service `world` is a [`StepService`].
pub(super) struct Harness {
    pub engine: Engine,
    pub store: StoreHandle,
    pub step_service: Arc<StepService>,
    pub plan: Arc<Plan>,
    pub limits: Limits,
    pub key: Option<Secret>,
}

impl Harness {
    pub async fn new(step_service: &Arc<StepService>, plan: Arc<Plan>) -> Self {
        Self::with_store(step_service, plan, Arc::new(MemoryStore::new()), Limits::default(), None).await
    }
    pub async fn with_store(
        step_service: &Arc<StepService>,
        plan: Arc<Plan>,
        store: StoreHandle,
        limits: Limits,
        key: Option<Secret>,
    ) -> Self {
        let engine = engine(step_service, &plan, &store, &limits, &key).await;
        Self { engine, store, step_service: step_service.clone(), plan, limits, key }
    }
    /// Ends the process without a drain and starts the next one on the same store.
    pub async fn crash(&mut self) {
        let next = engine(&self.step_service, &self.plan, &self.store, &self.limits, &self.key).await;
        let last = std::mem::replace(&mut self.engine, next);
        let core = last.core.clone();
        drop(last);
        core.process.tasks.close();
        tokio::time::timeout(TIMEOUT, core.process.tasks.wait()).await.unwrap();
    }
    pub async fn recover(&self) -> crate::engine::Recovered {
        self.engine.recover().await.unwrap()
    }
    pub async fn send(&self, request: ArmRequest) -> ArmReply {
        tokio::time::timeout(TIMEOUT, self.engine.arm().oneshot(request)).await.unwrap().unwrap()
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
    /// Waits until the stored run fulfils a condition.
    pub async fn wait_until(&self, run: RunId, condition: impl Fn(&RunView) -> bool) -> RunView {
        let poll = async {
            loop {
                let view = self.view(run).await;
                if condition(&view) {
                    return view;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("the run does not fulfil the condition in time")
    }
}

fn services(step_service: &StepService) -> BTreeMap<ServiceName, Arc<Service>> {
    let name = ServiceName::from("world");
    let service = Service::at(name.clone(), [format!("http://{}", step_service.address).parse().unwrap()]);
    BTreeMap::from([(name, Arc::new(service))])
}

impl Harness {
    /// Puts these plans in force, beside the harness's own.
    pub fn load_plans(&self, others: &[&Arc<Plan>]) {
        let plans = std::iter::once(&self.plan).chain(others.iter().copied());
        let plans = plans.map(|plan| (plan.workflow.clone(), plan.clone())).collect();
        let secrets = BTreeMap::from([("bank".to_owned(), Secret::new("s3cret"))]);
        self.engine.reload(0, &plans, &services(&self.step_service), &secrets);
    }
    /// Puts files in force in which the secret `bank` has another value.
    pub fn rotate_secret(&self, value: &str) {
        let plans = BTreeMap::from([(self.plan.workflow.clone(), self.plan.clone())]);
        let secrets = BTreeMap::from([("bank".to_owned(), Secret::new(value))]);
        self.engine.reload(0, &plans, &services(&self.step_service), &secrets);
    }
    /// Limits the calls in flight to the step service.
    pub fn set_calls_max(&self, calls: u64) {
        let mut services = services(&self.step_service);
        services.values_mut().for_each(|service| Arc::make_mut(service).calls_max = Some(calls));
        let plans = BTreeMap::from([(self.plan.workflow.clone(), self.plan.clone())]);
        self.engine.reload(0, &plans, &services, &BTreeMap::new());
    }
    /// Waits until no task executes the run.
    pub async fn wait_until_idle(&self, run: RunId) {
        let poll = async {
            while self.engine.core.schedule.mailboxes.has_task(run) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("a task still executes the run");
    }
    /// Waits until the run has ended, or waits for a person or a signal.
    pub async fn wait_until_ended_or_awaits_input(&self, run: RunId) -> crate::workflow::RunSummary {
        self.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.expect("there is such a run")
    }
}

async fn engine(
    step_service: &StepService,
    plan: &Arc<Plan>,
    store: &StoreHandle,
    limits: &Limits,
    key: &Option<Secret>,
) -> Engine {
    Engine::new(EngineParts {
        store: store.clone(),
        plans: BTreeMap::from([(plan.workflow.clone(), plan.clone())]),
        services: services(step_service),
        secrets: BTreeMap::from([("bank".to_owned(), Secret::new("s3cret"))]),
        store_key: key.clone(),
        key_secret: [1; 32],
        limits: Arc::new(limits.clone()),
        addresses: AddressRegistry::new(),
        affinity: StoreAffinity::load(store.clone(), limits).await.unwrap(),
        clock: clock::process().clone(),
        late_failures: Arc::new(()),
    })
}

/// The plan of a workflow definition; `keyed`: whether the service `world` honours idempotency keys.
pub(super) fn checked_plan(definition: &Value, keyed: bool) -> Arc<Plan> {
    let services = BTreeMap::from([(ServiceName::from("world"), keyed)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &["bank".to_owned()].into(),
        has_store_key: false,
        limits: &Limits::default(),
    };
    Arc::new(Plan::from_source(definition, &known).unwrap_or_else(|problems| panic!("{problems:?}")))
}

/// A request with a JSON body.
pub(super) fn request_copy(body: &Value, headers: &[(&'static str, &'static str)]) -> Arc<RequestCopy> {
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
        traceparent: None,
        body: Bytes::from(body.to_string()),
        peer: [127, 0, 0, 1].into(),
    })
}

pub(super) fn request(workflow: &str, mode: Mode, body: &Value) -> ArmRequest {
    ArmRequest {
        route: RouteId::from("orders.create"),
        files_version: 0,
        workflow: Some(WorkflowName::from(workflow)),
        plans: None,
        mode,
        request: request_copy(body, &[]),
        legacy: None,
        instance: None,
        unknown_instance: UnknownInstance::NotDeclared,
        creates: None,
        retry_keys: None,
        may_begin: MayBegin::Always,
        earlier: EarlierKeys::none(),
        legacy_keys: None,
        keep: true,
        may_fall_back: false,
        deadline: Duration::from_secs(8),
        awaited_intents: AwaitedIntents::None,
        set_in_use: None,
        legacy_calls: None,
        reads: None,
        instance_ids: None,
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
            (status.as_u16(), serde_json::from_slice(body.whole().unwrap()).unwrap_or(Value::Null), report)
        }
        other => panic!("no answer: {other:?}"),
    }
}

pub(super) fn refused(reply: ArmReply) -> (ProblemDocument, RunReport) {
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

/// Starts a run as a program does, without a route.
pub(super) async fn start(harness: &Harness, input: Value) -> crate::engine::Started {
    let start = crate::engine::Start { workflow: harness.plan.workflow.clone(), input, by: "test".into(), key: None };
    tokio::time::timeout(TIMEOUT, harness.engine.start(start)).await.unwrap().unwrap()
}
