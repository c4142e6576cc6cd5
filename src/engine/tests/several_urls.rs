//! Calls to a service with several addresses, of which some accept no connection or give no answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::harness::{ServiceReply, StepService, TIMEOUT};
use crate::engine::kill_switch::KillSwitch;
use crate::engine::ports::client::{Executor, Outgoing, RehearsingClient, SendingClient};
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::service::ServiceLimits;
use crate::flag::{BaseUrl, BreakerSettings, Eject, HealthCheck, Service};
use crate::limits::Limits;
use crate::names::RunId;
use crate::transport::{AddressRegistry, TrafficClass};
use crate::workflow::{AttemptResult, EffectClass, Mode, RecordedHeaders};

/// A service with these URLs.
fn service(urls: &[&Uri]) -> Service {
    let breaker = Some(BreakerSettings { min: 99, ..BreakerSettings::default() });
    Service { breaker, ..Service::at("bank", urls.iter().map(|uri| (*uri).clone())) }
}

fn limits_of(service: &Service) -> Arc<ServiceLimits> {
    ServiceLimits::of(service, &Limits::default(), &AddressRegistry::new()).or_existing(None)
}

/// A call of a run in this mode. A real run must not repeat the call.
fn outgoing(service_limits: &Arc<ServiceLimits>, mode: Mode, headers: HeaderMap) -> Outgoing {
    Outgoing {
        method: Method::POST,
        uris: service_limits.urls().iter().map(|url| format!("{url}/pay").parse().unwrap()).collect(),
        headers,
        body: Bytes::from_static(b"{}"),
        timeout: TIMEOUT,
        left: None,
        reserved: TIMEOUT,
        repeatable: false,
        mode,
        run: RunId(uuid::Uuid::from_u128(7)),
        caller: "step a.pay".into(),
        service_limits: service_limits.clone(),
        lease_proof: None,
        withdrawal: CancellationToken::new(),
        recorded_headers: Arc::new(RecordedHeaders::All),
        secrets: EchoedSecrets::default(),
        streaming: None,
        read: None,
        whole: None,
    }
}

fn client() -> SendingClient {
    SendingClient::new(&Limits::default(), &[7; 32], Mode::Real, KillSwitch::new())
}

async fn call(client: &SendingClient, service_limits: &Arc<ServiceLimits>, headers: HeaderMap) -> AttemptResult {
    client.perform(EffectClass::Shared, outgoing(service_limits, Mode::Real, headers)).await
}

async fn alive() -> Arc<StepService> {
    StepService::new(|_, _| ServiceReply::Json(201, json!({}))).await
}

fn url(service: &StepService) -> Uri {
    format!("http://{}", service.address).parse().unwrap()
}

/// A bound port on which nothing listens, so that connections are refused; the socket keeps the port.
fn refusing() -> (TcpSocket, Uri) {
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/old", closed.local_addr().unwrap()).parse().unwrap();
    (closed, url)
}

/// An address whose accept queue is full: a connection attempt gets no answer.
fn blackhole() -> (Uri, Vec<std::net::TcpStream>, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let streams = std::iter::from_fn(|| connect().ok()).take(10).collect();
    (format!("http://{address}").parse().unwrap(), streams, listener)
}

fn is_reply(result: &AttemptResult) -> bool {
    matches!(result, AttemptResult::Reply { status: 201, .. })
}

#[tokio::test]
async fn a_call_goes_to_another_address_only_where_nothing_was_sent() {
    let alive = alive().await;
    let failing = StepService::new(|_, _| ServiceReply::Json(503, json!({}))).await;
    let (_closed, refusing) = refusing();
    let alive_url: Uri = format!("http://{}/new", alive.address).parse().unwrap();
    let client = client();
    let failed = |service_limits: &ServiceLimits| service_limits.view("bank".into()).breaker.unwrap().failed;

    let service_limits = limits_of(&service(&[&refusing, &alive_url]));
    let named = HeaderMap::from_iter([(HOST, HeaderValue::from_static("bank.internal"))]);
    for headers in [HeaderMap::new(), HeaderMap::new(), named.clone(), named] {
        let result = call(&client, &service_limits, headers).await;
        assert!(is_reply(&result), "{result:?}");
    }
    let own = alive.address.to_string();
    let seen = alive.seen();
    let hosts: Vec<_> = seen.iter().map(|seen| (&*seen.path, seen.header("host").unwrap())).collect();
    let (own, named) = (("/new/pay", &*own), ("/new/pay", "bank.internal"));
    assert_eq!(hosts, [own, own, named, named], "each URL has its own base path and host");
    assert_eq!(failed(&service_limits), 0);

    let service_limits = limits_of(&service(&[&url(&failing), &alive_url]));
    for _ in 0..20 {
        call(&client, &service_limits, HeaderMap::new()).await;
    }
    assert_eq!(failing.seen().len() + alive.seen().len(), 24, "a call that was answered is not sent again");
    assert!(!failing.seen().is_empty() && alive.seen().len() > 4);

    let service_limits = limits_of(&service(&[&refusing, &refusing]));
    let result = call(&client, &service_limits, HeaderMap::new()).await;
    assert!(matches!(&result, AttemptResult::NotSent(why) if why.contains("refused")), "{result:?}");
    assert_eq!(failed(&service_limits), 1, "one call");
}

#[tokio::test]
async fn an_address_without_connections_makes_one_call_slow_and_fails_none() {
    let alive = alive().await;
    let (dead, _streams, _listener) = blackhole();
    let connect = Some(Duration::from_millis(300));
    let service_limits = limits_of(&Service { connect, ..service(&[&dead, &url(&alive)]) });
    let client = SendingClient::new(
        &Limits { service_idle_connections_max: 0, ..Limits::default() },
        &[7; 32],
        Mode::Real,
        KillSwitch::new(),
    );
    let mut slow = 0;
    for _ in 0..30 {
        let began = Instant::now();
        let result = call(&client, &service_limits, HeaderMap::new()).await;
        assert!(is_reply(&result), "{result:?}");
        slow += usize::from(began.elapsed() >= Duration::from_millis(300));
    }
    assert_eq!((slow, alive.seen().len()), (1, 30), "only the first call to the dead address");
}

/// The silent address may have carried out a call that it received, so the call is not sent to the other address.
#[tokio::test]
async fn a_call_with_an_unknown_outcome_goes_to_no_other_address_and_the_address_is_ejected() {
    let alive = alive().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let cut = Arc::new(AtomicUsize::new(0));
    let counted = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await.unwrap_or(0);
            counted.fetch_add(usize::from(read > 0), Relaxed);
        }
    });
    let service_limits = limits_of(&service(&[&silent, &url(&alive)]));
    let client = client();
    let mut unknown = 0;
    for _ in 0..40 {
        match call(&client, &service_limits, HeaderMap::new()).await {
            AttemptResult::CutOff(_) => unknown += 1,
            result => assert!(is_reply(&result), "{result:?}"),
        }
    }
    assert_eq!((unknown, alive.seen().len()), (3, 37), "each went to one address, and it was ejected after three");
    assert_eq!(cut.load(Relaxed), 3);
}

#[tokio::test]
async fn the_weights_of_urls_are_their_shares_of_calls() {
    let (heavy, light) = (alive().await, alive().await);
    let mut service = service(&[&url(&heavy), &url(&light)]);
    service.urls[0] = BaseUrl { uri: url(&heavy), weight: 9 };
    let (service_limits, client) = (limits_of(&service), client());
    for _ in 0..200 {
        assert!(is_reply(&call(&client, &service_limits, HeaderMap::new()).await));
    }
    let to_light = light.seen().len();
    assert!((5..45).contains(&to_light), "about 20: {to_light}");
    assert_eq!(heavy.seen().len() + to_light, 200);
}

#[tokio::test]
async fn an_address_that_fails_its_health_checks_gets_no_calls() {
    let healthy = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let sick =
        StepService::new(|call, _| ServiceReply::Json(if call.method == "GET" { 500 } else { 200 }, json!({}))).await;
    let health = HealthCheck {
        path: "/healthz".into(),
        every: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        failures: 2,
        successes: 2,
    };
    let service_limits = limits_of(&Service { health: Some(health), ..service(&[&url(&sick), &url(&healthy)]) });
    service_limits.addresses().start();
    let list = service_limits.addresses().list();
    tokio::time::timeout(TIMEOUT, async {
        while list[0].is_available() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("two checks");
    let client = client();
    for _ in 0..20 {
        call(&client, &service_limits, HeaderMap::new()).await;
    }
    assert!(sick.seen().iter().all(|call| call.method == "GET"));
    assert_eq!(healthy.seen().iter().filter(|call| call.method == "POST").count(), 20);
}

/// Their calls go on at another address too, but what they find out about an address does not affect real calls.
#[tokio::test]
async fn rehearsals_and_dark_runs_never_eject_an_address_and_see_what_real_calls_found() {
    let alive = alive().await;
    let (_closed, refusing) = refusing();
    let eject = Some(Eject { time: Duration::from_secs(600), ..Eject::default() });
    let service_limits = limits_of(&Service { eject, ..service(&[&refusing, &url(&alive)]) });
    let list = service_limits.addresses().list();
    let dark = SendingClient::new(&Limits::default(), &[7; 32], Mode::Dark, KillSwitch::new());
    let rehearsing = RehearsingClient::new(&Limits::default(), &[7; 32]);
    for _ in 0..10 {
        let sent = dark.perform(EffectClass::Private, outgoing(&service_limits, Mode::Dark, HeaderMap::new())).await;
        let read =
            rehearsing.perform(EffectClass::Read, outgoing(&service_limits, Mode::Rehearse, HeaderMap::new())).await;
        assert!(is_reply(&sent) && is_reply(&read), "{sent:?} {read:?}");
    }
    assert!(list.iter().all(|address| address.is_available()), "20 calls, and none of them ejected an address");
    for _ in 0..100 {
        assert!(is_reply(&call(&client(), &service_limits, HeaderMap::new()).await));
    }
    assert!(!list[0].is_available());
    for _ in 0..20 {
        let chosen = service_limits.addresses().choose(&[], false, TrafficClass::Secondary);
        assert!(chosen.is_some_and(|it| it.address().target.index == 1));
    }
}
