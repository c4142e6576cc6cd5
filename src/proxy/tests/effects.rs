//! What watches legacy's calls: which requests it is told of, with what, and until when.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;

use super::rig::{OK, Origin, Rig, Setup, engine_says, get, post};
use super::wire::bounded;
use crate::compare::{Body, Effect};
use crate::exchange::{EffectRegistry, EffectWatch, RequestEffects, RequestToWatch, SentBody};
use crate::flag::State;

/// Records what it is told of.
#[derive(Default)]
struct Registry {
    requests: Arc<Mutex<Vec<RegisteredRequest>>>,
    open: Arc<AtomicUsize>,
    settled: Arc<AtomicUsize>,
}

struct RegisteredRequest {
    /// `None`: it is not compared.
    route: Option<String>,
    sent: HeaderMap,
    body: Option<Arc<dyn SentBody>>,
    effects: RequestEffects,
}

struct Watch {
    effects: RequestEffects,
    open: Arc<AtomicUsize>,
    settled: Arc<AtomicUsize>,
}

impl EffectWatch for Watch {
    fn effects(&self) -> Option<RequestEffects> {
        Some(self.effects.clone())
    }
    fn reply_passed_on(&self) {
        self.settled.fetch_add(1, SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

impl EffectRegistry for Registry {
    fn watch(&self, request: RequestToWatch<'_>) -> Box<dyn EffectWatch> {
        let RequestToWatch { compared, request: _, sent, body } = request;
        let effects = RequestEffects::default();
        self.requests.lock().unwrap().push(RegisteredRequest {
            route: compared.map(ToString::to_string),
            sent: sent.clone(),
            body,
            effects: effects.clone(),
        });
        self.open.fetch_add(1, SeqCst);
        Box::new(Watch { effects, open: self.open.clone(), settled: self.settled.clone() })
    }
    fn body_bytes_max(&self) -> Option<usize> {
        Some(8)
    }
}

impl Registry {
    /// Waits until every request that it was told of is over.
    async fn until_over(&self) {
        bounded("the end of all requests", async {
            while self.open.load(SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn watched(state: State) -> (Setup, Arc<Registry>) {
    let registry = Arc::new(Registry::default());
    (Setup { state, effect_registry: Some(registry.clone()), ..Setup::default() }, registry)
}

fn effect() -> Effect {
    let (method, url) = (http::Method::POST, "http://bank.test/charges".to_owned());
    let (headers, body) = (HeaderMap::new(), Body::TooLarge);
    Effect { service: None, method, url, headers, body, reply: None, number: 0, replied_before: None }
}

#[tokio::test]
async fn in_shadow_and_dark_legacy_gets_the_trace_that_is_watched() {
    for (state, traceparent) in [
        (State::Shadow, ""),
        (State::Dark, ""),
        (State::Dark, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"),
        (State::Dark, "traceparent: garbage\r\n"),
    ] {
        let origin = Origin::always_answers(OK).await;
        let (setup, registry) = watched(state);
        let rig = Rig::new(&origin, setup).await;
        let body = "{\"ref\":\"A-1\"}";
        let length = body.len();
        let request = format!(
            "POST /orders HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\n{traceparent}Content-Length: {length}\r\n\r\n{body}"
        );
        assert_eq!(rig.ask(&request).await.status(), 200);
        rig.fakes.outcome().await;
        let answered = rig.fakes.offered.lock().unwrap().pop().unwrap();
        let request = registry.requests.lock().unwrap().pop().unwrap();
        let sent = request.sent.get("traceparent").unwrap().to_str().unwrap();
        assert_eq!(origin.only_request().field("traceparent"), Some(sent), "as legacy got it");
        assert!(crate::traces::TraceContext::parse(sent.as_bytes()).is_some());
        assert_eq!(
            (request.route.as_deref(), request.sent.get("x-id").unwrap().as_bytes()),
            (Some("orders.create"), &b"7"[..])
        );
        assert!(request.sent.contains_key("x-forwarded-for"), "the head is the one that legacy got");
        assert_eq!(request.body.unwrap().whole(), Some(Bytes::from(body)), "the body can be read after the end too");
        assert_eq!(answered.request.body, body);
        let effects = answered.effects.expect("it is watched");
        request.effects.add(effect(), Box::new(()));
        assert_eq!(effects.len(), 1, "calls are added after the answer too");
        // The thread that settles exchanges ends the watch after it has offered the pair.
        registry.until_over().await;
        assert_eq!(registry.settled.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn what_legacy_gets_and_is_not_compared_is_watched_as_uncompared() {
    let origin = Origin::always_answers(OK).await;
    let (setup, registry) = watched(State::Off);
    let rig = Rig::new(&origin, setup).await;
    rig.fakes.engine_owns.store(true, SeqCst);
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
    let (setup, in_shadow) = watched(State::Shadow);
    let shadow = Rig::new(&origin, setup).await;
    assert_eq!(shadow.ask(&get("/other")).await.status(), 200);
    let conditional = "GET /orders/1 HTTP/1.1\r\nHost: a\r\nIf-None-Match: x\r\n\r\n";
    assert_eq!(shadow.ask(conditional).await.status(), 200);
    let (setup, in_live) = watched(State::Live);
    let live = Rig::new(&origin, setup).await;
    live.fakes.answers.lock().unwrap().push_back(engine_says("{}"));
    assert_eq!(live.ask(&post("/orders", "{}")).await.status(), 201);
    for (registry, count) in [(&registry, 1), (&in_shadow, 2), (&in_live, 0)] {
        registry.until_over().await;
        let requests = registry.requests.lock().unwrap();
        assert_eq!(requests.len(), count);
        assert!(requests.iter().all(|request| request.route.is_none() && request.sent.contains_key("traceparent")));
    }
    let body = registry.requests.lock().unwrap()[0].body.clone().unwrap();
    assert_eq!(body.whole(), Some(Bytes::from("{}")), "its value can be read");
    assert!(in_shadow.requests.lock().unwrap().iter().all(|request| request.body.is_none()), "without a body");
}

#[tokio::test]
async fn an_uncompared_request_is_known_until_its_exchange_has_ended() {
    let (answered, mut was_answered) = tokio::sync::mpsc::channel::<()>(1);
    let (go_on, goes_on) = tokio::sync::mpsc::channel::<()>(1);
    let goes_on = Arc::new(tokio::sync::Mutex::new(goes_on));
    let origin = Origin::script(move |mut wire, _| {
        let (answered, goes_on) = (answered.clone(), goes_on.clone());
        async move {
            wire.message(true).await;
            // Streams, so in `shadow` it is not compared from its head on.
            wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\nab").await;
            answered.send(()).await.unwrap();
            goes_on.lock().await.recv().await;
            wire.send("cd").await;
        }
    })
    .await;
    for state in [State::Off, State::Shadow] {
        let (setup, registry) = watched(state);
        let rig = Rig::new(&origin, setup).await;
        let mut client = rig.connect().await;
        client.send(post("/orders", "longer than it is copied")).await;
        let head = client.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        bounded("the answer", was_answered.recv()).await;
        assert_eq!(registry.open.load(SeqCst), 1, "{state:?}");
        assert_eq!(registry.requests.lock().unwrap()[0].route.is_some(), state == State::Shadow);
        go_on.send(()).await.unwrap();
        client.until("cd").await;
        registry.until_over().await;
    }
}

#[tokio::test]
async fn without_a_registry_requests_are_not_announced() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup { state: State::Shadow, ..Setup::default() }).await;
    assert_eq!(rig.ask(&post("/orders", "{}")).await.status(), 200);
    rig.fakes.outcome().await;
    assert!(rig.fakes.offered.lock().unwrap().pop().unwrap().effects.is_none());
}

#[tokio::test]
async fn a_request_is_watched_until_its_exchange_has_ended_however_it_ends() {
    // Legacy refuses; and legacy closes without an answer.
    for reply in ["HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ""] {
        let origin = Origin::script(move |mut wire, _| async move {
            wire.message(true).await;
            wire.send(reply).await;
        })
        .await;
        let (setup, registry) = watched(State::Shadow);
        let rig = Rig::new(&origin, setup).await;
        assert!(rig.ask(&post("/orders", "{}")).await.status() >= 502);
        rig.fakes.outcome().await;
        assert_eq!(registry.requests.lock().unwrap().len(), 1);
        registry.until_over().await;
    }
}

#[tokio::test]
async fn a_body_is_not_read_while_it_is_sent() {
    let origin = Origin::always_answers(OK).await;
    let (setup, registry) = watched(State::Shadow);
    let rig = Rig::new(&origin, setup).await;
    let mut client = rig.connect().await;
    client.send("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{\"ref\":").await;
    let body = async {
        loop {
            if let Some(request) = registry.requests.lock().unwrap().last() {
                return request.body.clone().unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let body = bounded("being told of the request", body).await;
    assert_eq!(body.whole(), None);
    client.send("\"A-1\"}").await;
    rig.fakes.outcome().await;
    assert_eq!(body.whole(), Some(Bytes::from("{\"ref\":\"A-1\"}")));
}
