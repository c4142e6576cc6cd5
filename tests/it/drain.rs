//! SIGTERM under load: requests in flight are answered, every begun step is recorded.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::test_system::{TestSystem, some_order};
use crate::support::{Metrics, WAIT_MAX, checker, until, until_true};

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let before = system.world.arrived("charge");
    system.world.fault("charge", Fault::Delay(Duration::from_millis(800)), 6);
    let terminated = AtomicBool::new(false);
    let bodies: Vec<_> = (0..6).map(some_order).collect();
    let requests = futures_util::future::join_all(bodies.iter().map(async |body| {
        let reply = system.send(Method::POST, "/orders", body).await;
        assert!(terminated.load(Ordering::SeqCst), "it was in flight when the process was told to stop");
        reply
    }));
    let terminating = async {
        until_true("all to be under way", || system.world.arrived("charge") >= before + 6).await;
        terminated.store(true, Ordering::SeqCst);
        system.pointsman.terminate();
    };
    let (replies, ()) = tokio::join!(requests, terminating);
    for reply in replies {
        let reply = reply.expect("an answer in spite of SIGTERM");
        assert_eq!(reply.status, StatusCode::CREATED);
        system.record_order(reply.json());
    }
    let mut system = system;
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0));
    system.restart().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_reports_not_ready_before_it_stops_listening() {
    let mut system = TestSystem::with(|flags| {
        flags.edit("pointsman.yaml", |text| text + "limits: { stop_delay_ms: 3000 }\n");
    })
    .await;
    let ready = system.pointsman.try_api("/readyz").await.expect("an answer");
    assert_eq!(ready.status, StatusCode::OK);
    system.pointsman.terminate();
    let not_ready = until("the process to be not ready", || async {
        let reply = system.pointsman.try_api("/readyz").await?;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE).then_some(reply)
    })
    .await;
    assert_eq!(&not_ready.body[..], b"not ready: stopping\n");
    assert_eq!(system.pointsman.get("/api/v2/status").await["stopping"], true);
    // Connections that a load balancer opens meanwhile are served.
    system.order().await;
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0));
    assert!(TcpStream::connect(system.pointsman.listen).await.is_err(), "nobody listens any more");
    system.restart().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigquit_drains_as_sigterm_does() {
    let mut system = TestSystem::start().await;
    let before = system.world.arrived("charge");
    system.world.fault("charge", Fault::Delay(Duration::from_millis(800)), 1);
    let body = some_order(1);
    let quitting = async {
        until_true("the order to be under way", || system.world.arrived("charge") > before).await;
        system.pointsman.signal(rustix::process::Signal::QUIT);
    };
    let (reply, ()) = tokio::join!(system.send(Method::POST, "/orders", &body), quitting);
    let reply = reply.expect("an answer in spite of SIGQUIT");
    assert_eq!(reply.status, StatusCode::CREATED);
    system.record_order(reply.json());
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0));
    system.restart().await;
    system.finish().await;
}

/// Clients that keep sending while the process drains: every request that reached an arm is answered, every answer is
/// complete, and nothing is accepted after the end.
async fn every_begun_request_is_answered(state: &str) {
    let mut system = TestSystem::start().await;
    system.climb_to(state).await;
    let (served, charged) = (system.legacy.served(), system.world.arrived("charge"));
    let answered = AtomicUsize::new(0);
    let client = |number: u64| {
        let (system, answered) = (&system, &answered);
        async move {
            for n in 0.. {
                // A request without a reply is no failure, and ends this client: the listener or the connection was
                // closed. If an order was begun nevertheless, the checker finds it in the ledger without an answer.
                let body = some_order(number * 1_000 + n);
                let Ok(reply) = system.send(Method::POST, "/orders", &body).await else { return };
                assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.json());
                system.record_order(reply.json());
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let terminating = async {
        until_true("traffic", || answered.load(Ordering::SeqCst) >= 40).await;
        system.pointsman.terminate();
    };
    // In the last scrape before the end the sums have to agree, as in every other.
    let scraping = async {
        let (api, url) = (Client::new(WAIT_MAX), format!("{}/metrics", system.pointsman.admin_url()));
        let mut scrapes = 0;
        while let Ok(reply) = api.json(Method::GET, &url, &[], &Value::Null).await {
            checker::check_balance(&Metrics::parse(&String::from_utf8_lossy(&reply.body)));
            scrapes += 1;
        }
        scrapes
    };
    let (_, (), scrapes) = tokio::join!(futures_util::future::join_all((0..6).map(client)), terminating, scraping);
    assert!(TcpStream::connect(system.pointsman.listen).await.is_err(), "no connection is accepted any more");
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0), "{}", system.pointsman.log());
    let answered = answered.load(Ordering::SeqCst);
    eprintln!("{answered} answers in {state}, {scrapes} scrapes until the end");
    match state {
        "live" => {
            assert_eq!(system.world.arrived("charge") - charged, answered as u64, "what the engine began was answered")
        }
        _ => assert_eq!(system.legacy.served() - served, answered as u64, "what reached legacy was answered"),
    }
    system.restart().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_sending_lose_nothing_in_shadow() {
    every_begun_request_is_answered("shadow").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_sending_lose_nothing_in_live() {
    every_begun_request_is_answered("live").await;
}
