//! For the tests: a shadow executor, requests to offer to it, and engines that it asks.

mod followups;
mod load;
mod references;
mod runs;
mod sample_time;
mod samples;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use arc_swap::ArcSwap;

use super::*;
use crate::compare::{CompareContext, Observation, Rules, RulesDraft};
use crate::evidence::{Captures, RouteEvidence, testing};
use crate::exchange::{
    ArmAnswer, ArmReply, ArmRequest, EngineArm, KeysOfLegacy, OfferedRequest, ProblemDocument, RequestCopy,
    RequestEffects, RunReport, Source, TicketCounter, Twins,
};
use crate::flag::{FlagSet, Freeze, Instance, InstanceKey, Route, RouteFlag, RouteMatch, Service, State};
use crate::limits::Limits;
use crate::names::{RouteId, RunId};
use crate::problem::{Problems, Site};
use crate::secret::RedactionKey;
use crate::workflow::RunStatus;

pub const WAIT_MAX: Duration = Duration::from_secs(20);

pub fn id() -> RouteId {
    RouteId::new("orders.create")
}

fn flags(replay_reads: bool) -> (Arc<FlagSet>, Arc<RouteFlag>) {
    let shop = Arc::new(Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9")]));
    let route = Route {
        workflow: Some("create-order".into()),
        declared: State::Shadow,
        replay_reads,
        instance: Some(Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap().into() }),
        ..Route::without_workflow(
            id(),
            RouteMatch { method: Method::POST, path: "/orders".into(), host: None },
            shop.clone(),
        )
    };
    let none = BTreeMap::new();
    let set = FlagSet::new(1, vec![Arc::new(route)], &none, shop, BTreeMap::new(), Freeze::No, [7; 32]);
    let flag = set.route(&id()).unwrap().clone();
    (Arc::new(set), flag)
}

fn headers() -> HeaderMap {
    [(http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect()
}

pub fn answered(mode: Mode, reply: &Value, padding: usize) -> Answered {
    answered_with(StatusCode::CREATED, mode, reply, padding)
}

pub fn answered_with(status: StatusCode, mode: Mode, reply: &Value, padding: usize) -> Answered {
    let (flags, flag) = flags(false);
    let request = json!({"items": [1], "password": "hunter2", "padding": "x".repeat(padding)});
    Answered {
        flags,
        flag,
        mode,
        request: Arc::new(RequestCopy {
            method: Method::POST,
            path: "/orders".into(),
            query: Some("dry=1&token=hunter2".into()),
            params: Vec::new(),
            headers: headers(),
            traceparent: None,
            body: Bytes::from(request.to_string()),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }),
        legacy: Arc::new(Observation::new(
            status,
            headers(),
            Body::Whole(reply.to_string().into()),
            Duration::from_millis(1),
            Vec::new(),
        )),
        instance: None,
        legacy_keys: KeysOfLegacy { keys: Vec::new(), decided_at: jiff::Timestamp::UNIX_EPOCH },
        effects: None,
        reads: None,
        repeat: None,
        candidate: None,
        at_legacy: None,
    }
}

pub fn answer(reply: &Value, report: RunReport) -> ArmReply {
    let body = Bytes::from(reply.to_string());
    ArmReply::Answer(ArmAnswer { status: StatusCode::CREATED, headers: headers(), body: body.into(), report })
}

pub fn engine<F, A>(ask: F) -> EngineArm
where
    F: Fn(ArmRequest) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = ArmReply> + Send + 'static,
{
    BoxCloneSyncService::new(service_fn(move |request| {
        let reply = ask(request);
        async move { Ok(reply.await) }
    }))
}

/// Dark runs end when the test says so; marks are kept.
#[derive(Default)]
pub struct TestTwins {
    pub ended: Arc<Notify>,
    /// The instances whose marks were to be stored.
    pub marked: Mutex<Vec<String>>,
    /// Whether the store takes no marks.
    pub refuses: std::sync::atomic::AtomicBool,
}

impl Twins for TestTwins {
    fn wait_until_ended(&self, _: RunId) -> BoxFuture<'static, Option<RunStatus>> {
        let ended = self.ended.clone();
        Box::pin(async move {
            ended.notified().await;
            Some(RunStatus::Completed)
        })
    }
    fn mark_incomplete<'a>(&'a self, instance: &'a InstanceKey) -> BoxFuture<'a, bool> {
        self.marked.lock().unwrap().push(instance.id.to_string());
        let is_stored = !self.refuses.load(std::sync::atomic::Ordering::SeqCst);
        Box::pin(std::future::ready(is_stored))
    }
}

pub struct TestShadow {
    pub shadow: Arc<Shadow>,
    pub evidence: Arc<Evidence>,
    pub store: Arc<crate::evidence::testing::Memory>,
}

impl TestShadow {
    pub async fn new(engine: EngineArm, limits: Limits, rules: Value) -> Self {
        Self::with_twins(engine, Arc::default(), limits, rules).await
    }
    pub async fn with_twins(engine: EngineArm, twins: Arc<TestTwins>, limits: Limits, rules: Value) -> Self {
        let (evidence, store) = testing::evidence().await;
        let draft: RulesDraft = serde_json::from_value(rules).unwrap();
        let mut problems = Problems::default();
        let rules = Rules::check(
            &draft,
            &Site::file("r"),
            &CompareContext { intents: &["accept", "mail"], ..CompareContext::default() },
            &mut problems,
        )
        .unwrap();
        let rules = Arc::new(ArcSwap::from_pointee(BTreeMap::from([(id(), Arc::new(rules))])));
        let captures = Captures::new(store.clone(), RedactionKey::derived_from(&[7; 32]));
        let parts = ShadowParts {
            engine,
            legacy: None,
            twins,
            evidence: evidence.clone(),
            captures,
            rules,
            limits: Arc::new(limits),
        };
        Self { shadow: Shadow::start(parts).unwrap(), evidence, store }
    }
    pub fn offer(&self, answered: Answered) {
        self.shadow.offer(self.shadow.open(OfferedRequest::new(id(), 0)), answered);
    }
    pub async fn settled(&self, count: u64) -> RouteEvidence {
        let all = async {
            while testing::sums(&self.evidence, &id()).0 < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, all).await.expect("every ticket is settled in time");
        assert_eq!(testing::sums(&self.evidence, &id()), (count, count));
        self.evidence.of(&id())
    }
}

pub fn limits() -> Limits {
    Limits::default()
}

/// An engine that answers only after the returned `Notify` is notified.
pub fn gated() -> (EngineArm, Arc<Notify>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let open = Arc::new(Notify::new());
    let (waits, opener) = (gate.clone(), open.clone());
    let arm = engine(move |_| {
        let gate = waits.clone();
        async move {
            let _open = gate.acquire().await;
            answer(&json!({"ok": true}), RunReport::default())
        }
    });
    tokio::spawn(async move {
        opener.notified().await;
        gate.add_permits(1 << 20);
    });
    (arm, open)
}
