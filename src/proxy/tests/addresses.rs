//! Services with several addresses: which address gets a request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::wire::bounded;
use crate::flag::{BaseUrl, Eject, HealthCheck, RelaySettings, Service};
use crate::limits::Limits;

/// A service for a route's legacy at these addresses.
fn at(addresses: &[SocketAddr]) -> Service {
    Service::at("shop", addresses.iter().map(|address| format!("http://{address}").parse().unwrap()))
}

fn first_byte(ms: u64) -> RelaySettings {
    RelaySettings { first_byte: Some(Duration::from_millis(ms)), ..RelaySettings::default() }
}

fn ejecting(time: Duration) -> Option<Eject> {
    Some(Eject { time, ..Eject::default() })
}

/// An address that refuses connections.
async fn refusing() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// An address whose accept queue is full: a connection to it is neither accepted nor refused.
fn blackhole() -> (SocketAddr, Vec<std::net::TcpStream>, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let streams = std::iter::from_fn(|| connect().ok()).take(10).collect();
    (address, streams, listener)
}

async fn statuses(rig: &Rig, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(rig.ask(&get("/any")).await.status());
    }
    statuses
}

#[tokio::test]
async fn an_address_that_refuses_connections_fails_no_request() {
    let origin = Origin::always_answers(OK).await;
    let service = at(&[refusing().await, origin.address]);
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    assert_eq!(statuses(&rig, 20).await, [200; 20]);
    // Not even a request that may not be repeated fails.
    for _ in 0..5 {
        assert_eq!(rig.ask(&post("/any", "{}")).await.status(), 200);
    }
}

#[tokio::test]
async fn an_address_that_accepts_no_connection_delays_only_one_request() {
    let origin = Origin::always_answers(OK).await;
    let (dead, _streams, _listener) = blackhole();
    let service = Service { connect: Some(Duration::from_millis(300)), ..at(&[dead, origin.address]) };
    let limits = Limits { service_idle_connections_max: 0, ..Limits::default() };
    let rig = Rig::new(&origin, Setup { service: Some(service), limits, ..Setup::default() }).await;
    let mut slow = 0;
    for _ in 0..30 {
        let began = Instant::now();
        assert_eq!(rig.ask(&get("/any")).await.status(), 200);
        slow += usize::from(began.elapsed() >= Duration::from_millis(300));
    }
    assert_eq!(slow, 1, "only the first request that this address got");
}

#[tokio::test]
async fn an_address_that_gives_no_answer_gets_no_more_requests() {
    let origin = Origin::always_answers(OK).await;
    let silent = Origin::script(|mut wire, seen| async move {
        while let Some(request) = wire.message(true).await {
            seen.lock().unwrap().push(request);
        }
    })
    .await;
    let service = Service { relay: first_byte(60), ..at(&[silent.address, origin.address]) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    let statuses = statuses(&rig, 40).await;
    let failed = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!((failed, silent.requests().len()), (3, 3), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 37);
}

#[tokio::test]
async fn half_of_the_addresses_stay_when_none_gives_an_answer() {
    let silent = || {
        Origin::script(|mut wire, seen| async move {
            while let Some(request) = wire.message(true).await {
                seen.lock().unwrap().push(request);
            }
        })
    };
    let (a, b) = (silent().await, silent().await);
    let service = Service { relay: first_byte(20), ..at(&[a.address, b.address]) };
    let rig = Rig::new(&a, Setup { service: Some(service), ..Setup::default() }).await;
    assert_eq!(statuses(&rig, 12).await, [504; 12]);
    let (to_a, to_b) = (a.requests().len(), b.requests().len());
    assert_eq!(to_a + to_b, 12, "each request was sent to one address");
    assert!(to_a.min(to_b) <= 5 && to_a.max(to_b) >= 7, "{to_a}, {to_b}");
}

#[tokio::test]
async fn an_address_that_accepts_connections_again_gets_requests_again() {
    let origin = Origin::always_answers(OK).await;
    let address = refusing().await;
    let service = Service { eject: ejecting(Duration::from_millis(50)), ..at(&[address, origin.address]) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    assert_eq!(statuses(&rig, 20).await, [200; 20]);
    let back = Origin::always_answers_at(address, OK).await;
    bounded("requests come back", async {
        while back.requests().is_empty() {
            assert_eq!(rig.ask(&get("/any")).await.status(), 200);
        }
    })
    .await;
}

/// A request that may have been carried out is not sent again, unless it is safe.
#[tokio::test]
async fn a_safe_request_whose_connection_ended_without_an_answer_goes_to_another_address() {
    let origin = Origin::always_answers(OK).await;
    let closing = Origin::script(|mut wire, seen| async move {
        let request = wire.message(true).await;
        seen.lock().unwrap().extend(request);
    })
    .await;
    let service = Service { eject: None, ..at(&[closing.address, origin.address]) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    assert_eq!(statuses(&rig, 20).await, [200; 20]);
    let closed = closing.requests().len();
    assert!(closed > 0);
    let mut failed = 0;
    while failed == 0 {
        let status = rig.ask(&post("/any", "{}")).await.status();
        assert!(status == 200 || status == 502);
        failed += usize::from(status == 502);
    }
    let posts = |origin: &Origin| origin.requests().iter().filter(|request| request.line().starts_with("POST")).count();
    assert_eq!(posts(&closing), 1, "and the POST was not sent to the other address");
}

#[tokio::test]
async fn the_weights_of_urls_are_their_shares() {
    let (heavy, light) = (Origin::always_answers(OK).await, Origin::always_answers(OK).await);
    let mut service = at(&[heavy.address, light.address]);
    service.urls[0].weight = 9;
    let rig = Rig::new(&heavy, Setup { service: Some(service), ..Setup::default() }).await;
    let mut client = rig.connect().await;
    for _ in 0..200 {
        assert_eq!(client.ask(&get("/any")).await.status(), 200);
    }
    let to_light = light.requests().len();
    assert!((5..45).contains(&to_light), "about 20: {to_light}");
    assert_eq!(heavy.requests().len() + to_light, 200);
}

#[tokio::test]
async fn an_address_that_fails_its_health_checks_gets_no_requests() {
    let origin = Origin::always_answers(OK).await;
    let sick = Origin::script(|mut wire, seen| async move {
        while let Some(request) = wire.message(true).await {
            let is_check = request.line().starts_with("GET /base/healthz ");
            seen.lock().unwrap().push(request);
            wire.send(if is_check { "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" } else { OK }).await;
        }
    })
    .await;
    let health = HealthCheck {
        path: "/healthz".into(),
        every: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        failures: 2,
        successes: 2,
    };
    let mut service = Service { health: Some(health), ..at(&[sick.address, origin.address]) };
    service.urls[0] = BaseUrl::from(format!("http://{}/base", sick.address).parse::<http::Uri>().unwrap());
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    bounded("two checks", async {
        while sick.requests().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let is_request = |message: &&super::wire::Message| !message.line().starts_with("GET /base/healthz ");
    let before = sick.requests().iter().filter(is_request).count();
    assert_eq!(statuses(&rig, 20).await, [200; 20]);
    assert_eq!(sick.requests().iter().filter(is_request).count(), before);
}

#[tokio::test]
async fn each_request_to_a_name_without_an_address_gets_502() {
    let origin = Origin::always_answers(OK).await;
    let service = Service::at("shop", ["http://no-such-name.invalid:9000".parse().unwrap()]);
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    for _ in 0..3 {
        let refused = rig.ask(&get("/any")).await;
        assert_eq!(refused.status(), 502);
        assert!(refused.text().contains("legacy-unresolved") && refused.text().contains("Nothing was sent"));
    }
}

/// Ejected addresses are still tried if all are ejected, and one that answers gets requests again at once.
#[tokio::test]
async fn if_all_addresses_are_ejected_one_that_works_again_fails_no_request() {
    let unused = Origin::always_answers(OK).await;
    let (back, dead) = (refusing().await, refusing().await);
    let service = Service { eject: ejecting(Duration::from_secs(600)), ..at(&[back, dead]) };
    let rig = Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await;
    assert_eq!(statuses(&rig, 3).await, [502; 3]);
    let origin = Origin::always_answers_at(back, OK).await;
    assert_eq!(statuses(&rig, 20).await, [200; 20]);
    assert_eq!(origin.requests().len(), 20);
}

#[tokio::test]
async fn a_repeat_without_a_connection_does_not_hide_that_the_request_was_sent_before() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = at(&[listener.local_addr().unwrap()]);
    let unused = Origin::always_answers(OK).await;
    let rig = Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await;
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let mut wire = super::wire::Wire::new(stream);
        wire.message(true).await.expect("the first request");
        wire.send(OK).await;
        wire.message(true).await.expect("the second request")
    });
    let mut client = rig.connect().await;
    assert_eq!(client.ask(&get("/first")).await.status(), 200);
    let refused = client.ask("DELETE /second HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert!(served.await.unwrap().line().starts_with("DELETE /second"));
    assert_eq!(refused.status(), 502);
    assert!(refused.text().contains("legacy-closed") && refused.text().contains("may have been carried out"));
}
