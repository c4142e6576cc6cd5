//! Calls that legacy makes: passed on unchanged, and reported to the observer once each.

mod tunnels;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::rig::{OK, Origin, Rig, Setup};
use super::wire::{Wire, bounded};
use crate::compare::{Body, Effect};
use crate::exchange::{CallTarget, EffectObserver, SentBody};
use crate::flag::{BaseUrl, SentHost, Service};
use crate::limits::Limits;
use crate::listener::{Destination, EgressListener};
use crate::proxy::settler::WAITING_MAX;
use crate::proxy::{EgressParts, OwnSockets};

/// Records the effects that it is told of.
#[derive(Default)]
struct Observer {
    is_watching: AtomicBool,
    effects: Mutex<Vec<Effect>>,
    told: Notify,
    /// The numbers of calls that have begun, and of those that were lost.
    begun: Mutex<Vec<u64>>,
    lost: Mutex<Vec<u64>>,
    tunnels: Mutex<Vec<CallTarget>>,
    /// Threads on which it was told that a call had ended.
    threads: Mutex<Vec<Option<String>>>,
    /// Observing waits until the other end is dropped.
    gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl EffectObserver for Observer {
    fn is_watching(&self) -> bool {
        self.is_watching.load(SeqCst)
    }
    fn begin(&self, head: &Effect, _: Option<Arc<dyn SentBody>>) {
        self.begun.lock().unwrap().push(head.number);
    }
    fn tunnel(&self, to: CallTarget) -> Box<dyn Send> {
        self.tunnels.lock().unwrap().push(to);
        Box::new(())
    }
    fn lose(&self, number: u64) {
        self.lost.lock().unwrap().push(number);
    }
    fn observe(&self, effect: Effect) {
        if let Some(gate) = &*self.gate.lock().unwrap() {
            let _ = gate.recv();
        }
        self.threads.lock().unwrap().push(std::thread::current().name().map(str::to_owned));
        self.effects.lock().unwrap().push(effect);
        self.told.notify_one();
    }
}

impl Observer {
    fn watching() -> Arc<Self> {
        Arc::new(Self { is_watching: true.into(), ..Self::default() })
    }
    /// All effects, once at least `count` were reported.
    async fn effects(&self, count: usize) -> Vec<Effect> {
        bounded("the effects", async {
            loop {
                let told = self.told.notified();
                let effects = self.effects.lock().unwrap().clone();
                if effects.len() >= count {
                    return effects;
                }
                told.await;
            }
        })
        .await
    }
}

fn setup(observer: &Arc<Observer>, to: &[&str], own: &[SocketAddr]) -> Setup {
    let to = to.iter().map(|text| Destination::parse(text).unwrap()).collect();
    let listener = EgressListener { address: "127.0.0.1:0".parse().unwrap(), allow: Vec::new(), to };
    let egress = EgressParts { listener, own: OwnSockets::new(own.to_vec()), observer: observer.clone() };
    Setup { egress: Some(egress), ..Setup::default() }
}

fn whole(body: &Body) -> &[u8] {
    match body {
        Body::Whole(bytes) => bytes,
        Body::TooLarge => panic!("not copied"),
    }
}

const CALL: &str = "POST /shop/charges//x;y?a=%2F&b HTTP/1.1\r\nHost: egress.test:8090\r\nX-First: 1\r\n\
                    Authorization: Bearer abc\r\nX-Forwarded-For: 10.9.8.7\r\nVia: 1.1 other\r\n\
                    Connection: keep-alive, X-Hop\r\nX-Hop: gone\r\nX-first: 2\r\nContent-Length: 4\r\n\r\nbody";

#[tokio::test]
async fn a_call_is_forwarded_unchanged_without_the_service_name_and_hop_by_hop_fields() {
    let origin =
        Origin::always_answers("HTTP/1.1 201 Done\r\nX-Reply: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok").await;
    let rig = Rig::new(&origin, setup(&Arc::default(), &[], &[])).await;
    let reply = rig.ask(CALL).await;
    let host = origin.address;
    let expected = format!(
        "POST /charges//x;y?a=%2F&b HTTP/1.1\r\nHost: {host}\r\nX-First: 1\r\nX-first: 2\r\nAuthorization: Bearer abc\r\n\
         X-Forwarded-For: 10.9.8.7\r\nVia: 1.1 other\r\nContent-Length: 4\r\n\r\n"
    );
    let seen = origin.only_request();
    assert_eq!((seen.head.as_str(), seen.text().as_str()), (expected.as_str(), "body"));
    assert_eq!(reply.head.lines().next(), Some("HTTP/1.1 201 Done"));
    assert_eq!((reply.field("x-reply"), reply.field("keep-alive"), reply.field("via")), (Some("1"), None, None));
    assert_eq!(reply.field("date"), None, "nothing is added");
    assert_eq!(reply.text(), "ok");
}

#[tokio::test]
async fn a_call_in_absolute_form_goes_to_the_service_with_the_longest_base_url() {
    let origin = Origin::always_answers(OK).await;
    let base: http::Uri = format!("http://{}/api/v1", origin.address).parse().unwrap();
    let service = Service { urls: vec![BaseUrl::from(base)], ..Service::at("shop", []) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..setup(&Arc::default(), &[], &[]) }).await;
    let host = origin.address;
    let ask =
        async |path: &str| rig.ask(&format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.status();
    assert_eq!(ask("/api/v1/a%20b?c").await, 200);
    assert_eq!(ask("/api/v1").await, 200);
    assert_eq!(ask("/api/v1?q").await, 200);
    assert_eq!(ask("/api/v12/x").await, 403, "below no base URL");
    assert_eq!(ask("/").await, 403);
    let targets: Vec<_> = origin.requests().iter().map(|request| request.line().to_owned()).collect();
    assert_eq!(targets, ["GET /api/v1/a%20b?c HTTP/1.1", "GET /api/v1/ HTTP/1.1", "GET /api/v1/?q HTTP/1.1"]);
}

#[tokio::test]
async fn only_services_and_listed_destinations_are_reached() {
    let (origin, listed) = (Origin::always_answers(OK).await, Origin::always_answers(OK).await);
    let other = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(&Arc::default(), &[&listed.address.to_string()], &[])).await;
    let ask = async |target: &str, host: &str| rig.ask(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let by_url = async |address: SocketAddr| ask(&format!("http://{address}/x?y"), &address.to_string()).await.status();
    assert_eq!(by_url(listed.address).await, 200);
    assert_eq!(listed.only_request().line(), "GET /x?y HTTP/1.1");
    assert_eq!(by_url(other.address).await, 403);
    for target in ["/", "/x", "/shopping/x", "//shop/x", "/%73hop/x", "/Shop/x", "/other/x"] {
        let reply = ask(target, "egress.test").await;
        assert!(reply.status() == 404 && reply.text().contains("egress-no-service"), "{target}: {}", reply.text());
    }
    let reply = ask(&format!("https://{}/x", listed.address), &listed.address.to_string()).await;
    assert!(reply.status() == 403 && reply.text().contains("CONNECT"), "{}", reply.text());
    assert!(other.requests().is_empty() && origin.requests().is_empty());
}

#[tokio::test]
async fn a_call_that_leads_back_to_this_process_is_refused() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(&Arc::default(), &[], &[origin.address])).await;
    for request in [
        "GET /shop/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.address),
    ] {
        let reply = rig.ask(&request).await;
        assert!(reply.status() == 508 && reply.text().contains("problem:loop"), "{request}: {}", reply.text());
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn the_host_of_a_service_that_has_one_is_sent() {
    let origin = Origin::always_answers(OK).await;
    let url = format!("http://{}", origin.address).parse().unwrap();
    let host = SentHost::Fixed("bank.test".parse().unwrap());
    let service = Service { host, ..Service::at("shop", [url]) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..setup(&Arc::default(), &[], &[]) }).await;
    assert_eq!(rig.ask("GET /shop/x HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    assert_eq!(origin.only_request().field("host"), Some("bank.test"));
}

#[tokio::test]
async fn the_observer_is_told_of_each_call_once_with_its_reply() {
    let origin = Origin::always_answers(OK).await;
    let observer = Observer::watching();
    let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
    let mut legacy = rig.connect().await;
    legacy.ask(CALL).await;
    // A repetition of the same call is another call.
    legacy.ask(CALL).await;
    let effects = observer.effects(2).await;
    assert_eq!(effects.len(), 2);
    assert!(effects[0].number < effects[1].number);
    let effect = &effects[0];
    assert_eq!(effect.service, Some("shop".into()));
    assert_eq!(effect.method, http::Method::POST);
    assert_eq!(effect.url, format!("http://{}/charges//x;y?a=%2F&b", origin.address));
    assert_eq!(whole(&effect.body), b"body");
    assert!(effect.headers.contains_key("x-first") && !effect.headers.contains_key("x-hop"));
    let reply = effect.reply.as_ref().expect("a reply");
    assert_eq!((reply.status.as_u16(), whole(&reply.body)), (200, &b"{\"id\":\"o-17\"}"[..]));
}

#[tokio::test]
async fn calls_are_not_reported_while_nothing_observes() {
    let origin = Origin::always_answers(OK).await;
    let observer = Arc::<Observer>::default();
    let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
    let mut legacy = rig.connect().await;
    legacy.ask(CALL).await;
    observer.is_watching.store(true, SeqCst);
    legacy.ask(CALL).await;
    assert_eq!(observer.effects(1).await.len(), 1, "the second");
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    assert_eq!(observer.effects.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn bodies_beyond_the_limit_of_copies_are_passed_on_and_not_kept() {
    const REPLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    let origin = Origin::always_answers(REPLY).await;
    let observer = Observer::watching();
    let limits = Limits { body_capture_bytes_max: 10, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { limits, ..setup(&observer, &[], &[]) }).await;
    let body = "x".repeat(30);
    let head = "POST /shop/x HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n";
    let reply = rig.ask(&(head.to_owned() + &body)).await;
    assert_eq!(reply.body.len(), 20);
    assert_eq!(origin.only_request().text(), body);
    let effect = observer.effects(1).await.remove(0);
    assert_eq!((effect.body, effect.reply.map(|reply| reply.body)), (Body::TooLarge, Some(Body::TooLarge)));
}

/// An origin that sends these bytes and closes the connection.
async fn cuts_after(bytes: &'static str) -> Origin {
    Origin::script(move |mut wire, seen| async move {
        if let Some(request) = wire.message(true).await {
            seen.lock().unwrap().push(request);
        }
        wire.send(bytes).await;
    })
    .await
}

#[tokio::test]
async fn a_call_that_is_cut_is_cut_for_legacy_too_and_reported_with_what_came() {
    for reply in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"] {
        let origin = cuts_after(reply).await;
        let observer = Observer::watching();
        let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
        let mut legacy = rig.connect().await;
        legacy.send(CALL).await;
        let head = legacy.head().await.expect("a head");
        match reply {
            "" => assert!(head.starts_with("HTTP/1.1 502"), "{head}"),
            _ => assert!(head.starts_with("HTTP/1.1 200") && legacy.body_of(head).await.is_none(), "never completed"),
        }
        let effect = observer.effects(1).await.remove(0);
        assert_eq!(*observer.begun.lock().unwrap(), [effect.number]);
        assert_eq!(*observer.threads.lock().unwrap(), [Some("settler".to_owned())], "not the one that serves legacy");
        let replied = effect.reply.map(|reply| (reply.status.as_u16(), reply.body));
        assert_eq!(replied, (!reply.is_empty()).then_some((200, Body::TooLarge)));
        assert_eq!(whole(&effect.body), b"body");
        assert_eq!(origin.requests().len(), 1, "a POST is not sent again");
    }
}

/// By a value in its body a call may be attributed to its request.
#[tokio::test]
async fn a_call_to_a_service_that_cannot_be_reached_is_reported_with_its_body_and_without_a_reply() {
    let origin = Origin::always_answers(OK).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::at("shop", [format!("http://{closed}").parse().unwrap()]);
    let observer = Observer::watching();
    let rig = Rig::new(&origin, Setup { service: Some(service), ..setup(&observer, &[], &[]) }).await;
    assert_eq!(rig.ask(CALL).await.status(), 502);
    let effect = observer.effects(1).await.remove(0);
    assert_eq!((whole(&effect.body), effect.reply.is_none()), (&b"body"[..], true));
    // The rest comes behind the answer, which does not wait for it.
    let mut late = rig.connect().await;
    late.send(CALL.strip_suffix("dy").unwrap()).await;
    assert!(late.head().await.expect("a head").starts_with("HTTP/1.1 502"));
    late.send("dy").await;
    assert_eq!(whole(&observer.effects(2).await[1].body), b"body");
    // It never comes.
    let mut cut = rig.connect().await;
    cut.send(CALL.strip_suffix("dy").unwrap()).await;
    assert!(bounded("the answer", cut.head()).await.expect("a head").starts_with("HTTP/1.1 502"));
    assert_eq!(observer.effects(3).await[2].body, Body::TooLarge);
}

/// An origin that says when it has a call (the first `Notify`), and answers it when it is told to (the second).
async fn waits_before_its_reply() -> (Origin, [Arc<Notify>; 2]) {
    let [asked, go] = [(); 2].map(|()| Arc::<Notify>::default());
    let at_origin = [asked.clone(), go.clone()];
    let origin = Origin::script(move |mut wire: Wire, _| {
        let [asked, go] = at_origin.clone();
        async move {
            wire.message(true).await;
            asked.notify_one();
            go.notified().await;
            wire.send(OK).await;
        }
    });
    (origin.await, [asked, go])
}

#[tokio::test]
async fn a_call_that_legacy_gives_up_is_reported_without_a_reply() {
    let (origin, [asked, _]) = waits_before_its_reply().await;
    let observer = Observer::watching();
    let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
    let mut legacy = rig.connect().await;
    legacy.send(CALL).await;
    bounded("the call", asked.notified()).await;
    drop(legacy);
    assert!(observer.effects(1).await[0].reply.is_none());
}

/// Its client may have a deadline: it closes its side, and reads no reply that comes later.
#[tokio::test]
async fn a_reply_after_legacy_has_closed_its_side_may_be_unread() {
    for closes in [false, true] {
        let (origin, [asked, go]) = waits_before_its_reply().await;
        let observer = Observer::watching();
        let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
        let mut legacy = rig.connect().await;
        legacy.send(CALL).await;
        bounded("the call", asked.notified()).await;
        if closes {
            legacy.fin().await;
        }
        go.notify_one();
        let reply = observer.effects(1).await.remove(0).reply.expect("a reply");
        assert_eq!((reply.status.as_u16(), reply.may_be_unread), (200, closes));
    }
}

#[tokio::test]
async fn callers_outside_the_networks_are_closed_without_an_answer() {
    let origin = Origin::always_answers(OK).await;
    let listener = EgressListener {
        address: "127.0.0.1:0".parse().unwrap(),
        allow: vec![crate::listener::Network::parse("10.0.0.0/8").unwrap()],
        to: Vec::new(),
    };
    let egress = EgressParts { listener, own: OwnSockets::default(), observer: Arc::new(Observer::default()) };
    let rig = Rig::new(&origin, Setup { egress: Some(egress), ..Setup::default() }).await;
    rig.connect().await.ends().await;
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_call_that_finds_no_room_is_lost_and_delays_nobody() {
    let origin = cuts_after("").await;
    let observer = Observer::watching();
    let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
    let calls = WAITING_MAX + 20;
    let (held, gate) = std::sync::mpsc::channel();
    *observer.gate.lock().unwrap() = Some(gate);
    for _ in 0..calls {
        assert_eq!(rig.ask(CALL).await.status(), 502);
    }
    // One is being observed, and the others wait.
    let (begun, lost) = (observer.begun.lock().unwrap().len(), observer.lost.lock().unwrap().len());
    drop(held);
    assert_eq!(begun, calls);
    assert!((18..=20).contains(&lost), "{lost}");
    observer.effects(calls - lost).await;
}
