//! `serve --succeed`: a process takes over the sockets and the store of another one, under load and under kills.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use pointsman::demo::world::Fault;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::continuous_load::ContinuousLoad;
use crate::support::process::Start;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::{LOCAL, Pointsman, WAIT_MAX, until_true};

/// The arguments of a successor: those of the system, with a log of its own.
fn successor(system: &TestSystem) -> Start {
    let start = system.arguments();
    Start { log: start.log.with_file_name("successor.log"), ..start }
}

fn log_of(start: &Start) -> String {
    std::fs::read_to_string(&start.log).unwrap_or_default()
}

/// Starts a successor, which takes over from the system's process; returns the old process.
pub async fn succeed(system: &mut TestSystem) -> Pointsman {
    let started = Pointsman::try_succeed(&successor(system), async |_| {}).await;
    let started = started.unwrap_or_else(|log| panic!("{log}\n{}", system.pointsman.log()));
    std::mem::replace(&mut system.pointsman, started)
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), signal).expect("the signal could be sent");
}

/// Switches each connection to a protocol that echoes.
async fn echo_service() -> std::net::SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 8 << 10];
                let _head = stream.read(&mut buffer).await;
                let switched = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                let _sent = stream.write_all(switched).await;
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    let _sent = stream.write_all(&buffer[..n]).await;
                }
            });
        }
    });
    address
}

async fn echo(tunnel: &mut TcpStream, text: &[u8]) {
    tunnel.write_all(text).await.expect("the tunnel is open");
    let mut echoed = vec![0; text.len()];
    let read = tokio::time::timeout(WAIT_MAX, tunnel.read_exact(&mut echoed)).await;
    read.expect("an echo in time").expect("an echo");
    assert_eq!(echoed, text);
}

async fn open_tunnel(to: std::net::SocketAddr) -> TcpStream {
    let mut tunnel = TcpStream::connect(to).await.expect("a connection");
    let head = b"GET /echo HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    tunnel.write_all(head).await.expect("a head is taken");
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        reply.push(tunnel.read_u8().await.expect("an answer"));
    }
    assert!(reply.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&reply));
    tunnel
}

/// A system with a service that echoes, at `/echo`, and these limits.
async fn system_with_echo(limits: &str) -> TestSystem {
    let service = echo_service().await;
    TestSystem::with(|flags| {
        flags.edit("pointsman.yaml", |text| {
            format!("{limits}{}", text.replace("services:\n", &format!("services:\n  echo: http://{service}\n")))
        });
        let route = "routes: [{ id: echo, match: { method: GET, path: /echo }, legacy: echo }]\n";
        flags.write("routes/echo.yaml", route);
    })
    .await
}

/// Clients of all kinds, a run of 5 s and a WebSocket, while one process takes over from another.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_load_fails_no_request_and_refuses_no_connection() {
    let mut system = system_with_echo("").await;
    system.climb_to("live").await;
    let listen = system.pointsman.listen;
    let mut tunnel = open_tunnel(listen).await;
    echo(&mut tunnel, b"before").await;
    let mut load = ContinuousLoad::start(listen, "/orders", 4);
    until_true("load", || load.kinds().iter().all(|(_, seen)| seen.answered.load(SeqCst) > 50)).await;

    let charges = system.world.arrived("charge");
    system.world.fault("charge", Fault::Delay(Duration::from_secs(5)), 1);
    let began = Instant::now();
    let slow = {
        let (url, body) = (format!("{}/orders", system.pointsman.url()), some_order(1));
        tokio::spawn(async move {
            let client = pointsman::demo::http::Client::new(WAIT_MAX);
            client.json(Method::POST, &url, &[("x-tenant", "tenant-1")], &body).await
        })
    };
    until_true("the slow order to be under way", || system.world.arrived("charge") > charges).await;

    // Orders that come while the old process has the store wait in the new one.
    let start = successor(&system);
    let waited = async {
        until_true("the hand-over", || system.pointsman.log().contains("handing over")).await;
        let asked = Instant::now();
        // On a new connection: the old process still serves the open ones.
        let client = pointsman::demo::http::Client::new(WAIT_MAX);
        let (url, tenant) = (format!("{}/orders", system.pointsman.url()), [("x-tenant", "tenant-1")]);
        let reply = client.json(Method::POST, &url, &tenant, &some_order(2)).await.expect("an answer");
        (reply, asked.elapsed())
    };
    let (started, (waiting, waited)) = tokio::join!(Pointsman::try_succeed(&start, async |_| {}), waited);
    let taken_over = began.elapsed();
    let started = started.unwrap_or_else(|log| panic!("{log}\n{}", system.pointsman.log()));
    let mut old = std::mem::replace(&mut system.pointsman, started);
    assert_eq!(system.pointsman.listen, listen);
    assert_eq!(waiting.status, StatusCode::CREATED, "{}", waiting.json());
    system.record_order(waiting.json());
    let slow = slow.await.expect("no panic").expect("an answer");
    assert_eq!(slow.status, StatusCode::CREATED, "{}", slow.json());
    system.record_order(slow.json());

    let answered = load.kinds().map(|(_, seen)| seen.answered.load(SeqCst));
    until_true("load on the successor", || {
        load.kinds().iter().zip(answered).all(|((_, seen), before)| seen.answered.load(SeqCst) > before + 50)
    })
    .await;
    load.end().await;
    for (kind, seen) in load.kinds() {
        let (answered, slowest) = (seen.answered.load(SeqCst), seen.slowest_ms.load(SeqCst));
        let again = seen.refused_unprocessed.load(SeqCst);
        eprintln!("{kind}: {answered} answered, slowest {slowest} ms, refused unprocessed {again}");
        assert_eq!(seen.failures(), Vec::<String>::new(), "{kind}");
        assert!(slowest < 3_000, "{kind}: nobody waits for the store: {slowest} ms");
    }
    eprintln!("the successor had the store after {taken_over:.2?}; an order waited {waited:.2?}");

    // The WebSocket goes on in the old process, which ends with it.
    echo(&mut tunnel, b"after").await;
    assert!(!old.is_gone());
    drop(tunnel);
    assert_eq!(old.wait_for_exit().await, Some(0), "{}", old.log());
    let status = system.pointsman.get("/api/v2/status").await;
    let text = status["succession"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("took over from process"), "{status}");
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_successions_total", &[("outcome", "taken_over")]), 1.0);
    assert!(metrics.sum("pointsman_succession_requests_total", &[("outcome", "served")]) >= 1.0);
    assert!(metrics.sum("pointsman_succession_store_wait_seconds", &[]) > 0.0);
    system.create_read_cancel().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_outlasts_the_hand_over_is_cut_at_its_bound() {
    let mut system = system_with_echo("limits: { succession_drain_ms: 1500 }\n").await;
    let mut tunnel = open_tunnel(system.pointsman.listen).await;
    echo(&mut tunnel, b"before").await;
    let mut old = succeed(&mut system).await;
    let handed_over = Instant::now();
    echo(&mut tunnel, b"after").await;
    let mut byte = [0];
    let end = tokio::time::timeout(WAIT_MAX, tunnel.read(&mut byte)).await.expect("it ends");
    assert!(matches!(end, Ok(0) | Err(_)), "no byte comes");
    assert_eq!(old.wait_for_exit().await, Some(0), "{}", old.log());
    // The bound begins when the store has been handed over, shortly before the successor says that it is ready.
    let lasted = handed_over.elapsed();
    assert!(lasted > Duration::from_millis(500), "the tunnel was cut at once: {lasted:?}");
    system.create_read_cancel().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_order_that_is_tried_again_across_a_succession_stays_on_its_arm() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let key = |n: u64| format!("across-{n}");
    let mut placed = Vec::new();
    for (n, state) in [(1_u64, "live"), (2, "off")] {
        system.lower(state).await;
        let (key, body) = (key(n), some_order(n));
        let reply = system.send_with(Method::POST, "/orders", &[("idempotency-key", &key)], &body).await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, StatusCode::CREATED);
        system.record_order(reply.json());
        placed.push((key, body, reply.json()));
    }
    let mut old = succeed(&mut system).await;
    for (key, body, first) in &placed {
        let reply = system.send_with(Method::POST, "/orders", &[("idempotency-key", key)], body).await;
        let reply = reply.expect("an answer");
        assert_eq!((reply.status, id(&reply.json())), (StatusCode::CREATED, id(first)), "{}", reply.json());
    }
    assert_eq!(old.wait_for_exit().await, Some(0));
    system.finish().await;
}

/// A successor with other files has to write to the store before its states are in force; here that takes at least
/// 100 ms.
#[tokio::test(flavor = "multi_thread")]
async fn orders_stay_with_the_engine_while_a_process_with_other_files_takes_over() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let flags = system.flags.copy();
    flags.write("routes/more.yaml", "routes: [{ id: more, match: { method: GET, path: /more }, legacy: shop }]\n");
    let start = Start { flags: flags.path().to_owned(), ..successor(&system) };
    let (url, is_over) = (format!("{}/orders", system.pointsman.url()), AtomicBool::new(false));
    let place = async |number: u64| {
        let client = pointsman::demo::http::Client::new(WAIT_MAX);
        let (tenant, key) = (format!("tenant-{}", number % 7), format!("orders-{number}"));
        let headers = [("x-tenant", tenant.as_str()), ("idempotency-key", &key)];
        let reply = client.json(Method::POST, &url, &headers, &some_order(number)).await.expect("an answer");
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.json());
        reply.json()
    };
    let place_until_over = async |first: u64| {
        let mut placed = Vec::new();
        for number in (first..).step_by(4) {
            if is_over.load(SeqCst) {
                break;
            }
            placed.push((number, place(number).await));
        }
        placed
    };
    let take_over = async {
        let mut slow_disk = None;
        let delay = async |pid| slow_disk = Some(Strace::inject(pid, "fsync,fdatasync", "delay_enter=100000").await);
        let started = Pointsman::try_succeed(&start, delay).await;
        is_over.store(true, SeqCst);
        slow_disk.expect("it was started").end().await;
        started.unwrap_or_else(|log| panic!("{log}\n{}", system.pointsman.log()))
    };
    let loads = futures_util::future::join_all((0..4).map(place_until_over));
    let (started, placed) = tokio::join!(take_over, loads);
    let placed = placed.concat();
    eprintln!("{} orders", placed.len());
    for (number, order) in &placed {
        assert_eq!(id(&place(*number).await), id(order), "the retry has the answer of the first try");
        system.record_order(order.clone());
    }
    let mut old = std::mem::replace(&mut system.pointsman, started);
    assert_eq!(old.wait_for_exit().await, Some(0), "{}", old.log());
    let by_legacy = [("answered_by", "legacy")];
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_requests_total", &by_legacy), 0.0, "legacy gets none of them");
    system.finish().await;
}

/// An order of 5 s, so that a hand-over is under way for that time.
async fn begin_slow_order(system: &TestSystem) -> tokio::task::JoinHandle<Option<Value>> {
    let charges = system.world.arrived("charge");
    system.world.fault("charge", Fault::Delay(Duration::from_secs(5)), 1);
    let (url, body) = (format!("{}/orders", system.pointsman.url()), some_order(1));
    let order = tokio::spawn(async move {
        let client = pointsman::demo::http::Client::new(WAIT_MAX);
        let reply = client.json(Method::POST, &url, &[("x-tenant", "tenant-1")], &body).await.ok()?;
        (reply.status == StatusCode::CREATED).then(|| reply.json())
    });
    until_true("the slow order to be under way", || system.world.arrived("charge") > charges).await;
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_over_from_a_process_that_is_killed_meanwhile() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let slow = begin_slow_order(&system).await;
    let start = successor(&system);
    let pid = system.pointsman.pid();
    let killed = Pointsman::try_succeed(&start, async |_| {
        until_true("the successor to accept", || log_of(&start).contains("requests of routes with a workflow wait"))
            .await;
        signal(pid, Signal::KILL);
    });
    let started = killed.await.unwrap_or_else(|log| panic!("{log}"));
    drop(std::mem::replace(&mut system.pointsman, started));
    system.allowed.crashes += 1;
    system.allowed.unacknowledged = true; // the slow order: its run goes on in the successor
    assert_eq!(slow.await.expect("no panic"), None, "its process was killed");
    system.create_read_cancel().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_goes_on_if_its_successor_is_killed_before_it_had_the_store() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let slow = begin_slow_order(&system).await;
    let start = successor(&system);
    let killed = Pointsman::try_succeed(&start, async |pid| {
        until_true("the hand-over", || system.pointsman.log().contains("handing over")).await;
        // A second successor is refused meanwhile.
        let other = Start { log: start.log.with_file_name("other.log"), ..start.clone() };
        let refused = Pointsman::try_succeed(&other, async |_| {}).await.map(|_| ()).expect_err("it must not start");
        assert!(refused.contains("hands over to another process already"), "{refused}");
        signal(pid, Signal::KILL);
    })
    .await;
    assert!(killed.is_err(), "it was killed");
    until_true("the process to go on", || system.pointsman.log().contains("this process accepts connections again"))
        .await;
    system.create_read_cancel().await;
    let slow = slow.await.expect("no panic").expect("an answer");
    system.record_order(slow);
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_successions_total", &[("outcome", "gone_on")]), 1.0);
    let reply = system.pointsman.try_api("/readyz").await.expect("an answer");
    assert_eq!(reply.status, StatusCode::OK);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_starts_again_if_its_successor_is_killed_when_the_store_was_released() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let start = successor(&system);
    let killed = Pointsman::try_succeed(&start, async |pid| {
        until_true("the successor to accept", || log_of(&start).contains("requests of routes with a workflow wait"))
            .await;
        signal(pid, Signal::STOP);
        until_true("the store to be released", || system.pointsman.log().contains("the store is released")).await;
        tokio::time::sleep(Duration::from_millis(500)).await; // mostly long enough for the store to be closed
        signal(pid, Signal::KILL);
    })
    .await;
    assert!(killed.is_err(), "it was killed");
    until_true("the process to start again", || system.pointsman.log().matches("listening").count() >= 2).await;
    system.create_read_cancel().await;
    let metrics = system.pointsman.metrics().await;
    assert_eq!(metrics.sum("pointsman_successions_total", &[("outcome", "started_again")]), 1.0);
    // Another successor can take over after that.
    let mut system = system;
    let mut old = succeed(&mut system).await;
    assert_eq!(old.wait_for_exit().await, Some(0));
    system.create_read_cancel().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_cannot_take_over_is_refused_with_the_reason_and_changes_nothing() {
    let mut system = TestSystem::start().await;
    let pid = system.pointsman.pid();
    let start = successor(&system);
    // Not declared as a successor.
    let log = Pointsman::try_start(&start).await.map(|_| ()).expect_err("it must not start");
    assert!(log.contains(&format!("is in use by process {pid}")), "{log}");
    // Bad files.
    let good = std::fs::read_to_string(system.flags.file("pointsman.yaml")).expect("readable");
    system.flags.write("pointsman.yaml", "services: {\n");
    let log = Pointsman::try_succeed(&start, async |_| {}).await.map(|_| ()).expect_err("it must not start");
    assert!(log.contains("pointsman.yaml"), "{log}");
    system.flags.write("pointsman.yaml", &good);
    // An address that is taken by somebody else.
    let taken = TcpListener::bind(LOCAL).await.expect("a port");
    let address = taken.local_addr().expect("an address");
    system.flags.write("pointsman.yaml", &format!("{good}api: {{ listen: {address} }}\n"));
    let log = Pointsman::try_succeed(&start, async |_| {}).await.map(|_| ()).expect_err("it must not start");
    assert!(log.contains(&format!("listening on {address} (`api.listen`)")), "{log}");
    system.flags.write("pointsman.yaml", &good);
    // Stores that are not handed over.
    for (store, sentence) in
        [("memory:", "a store in memory does not"), ("postgres://nobody@127.0.0.1:1/x", "is for a SQLite store")]
    {
        let other = Start { store: store.to_owned(), ..start.clone() };
        let log = Pointsman::try_succeed(&other, async |_| {}).await.map(|_| ()).expect_err("it must not start");
        assert!(log.contains(sentence), "{log}");
    }
    system.create_read_cancel().await;
    assert!(!system.pointsman.log().contains("handing over"), "it was never asked to stop accepting");
    // Without a process to succeed it starts as usual.
    assert_eq!(system.pointsman.stop().await, Some(0));
    system.pointsman = Pointsman::try_succeed(&start, async |_| {}).await.unwrap_or_else(|log| panic!("{log}"));
    assert!(system.pointsman.log().contains("there is none to succeed"));
    system.create_read_cancel().await;
    system.finish().await;
}
