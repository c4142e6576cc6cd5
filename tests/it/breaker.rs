//! Calls of steps to a service that fails, is slow or limits its callers: breaker, rate and timeouts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX, closed_port, until};

/// A legacy, a bank, and the binary between them. `POST /pay` asks the bank once for each request.
struct TestSystem {
    bank: Origin,
    flags: FlagsDir,
    pointsman: Pointsman,
    client: Client,
    _legacy: Origin,
    _dir: TempDir,
}

const LEGACY: &str = r#"{"id":"l1"}"#;
const GOOD: &str = r#"{"id":"b1"}"#;

impl TestSystem {
    /// `settings` are the settings of the service `bank` besides its URL.
    async fn start(settings: &str) -> Self {
        Self::at(|bank| vec![bank], "only", settings).await
    }
    /// Like [`TestSystem::start`]: `addresses` makes the URLs of `bank` from its real address; `state` is the route's.
    async fn at(addresses: impl FnOnce(SocketAddr) -> Vec<SocketAddr>, state: &str, settings: &str) -> Self {
        let legacy = Origin::start(OriginReply::Json(LEGACY)).await;
        let bank = Origin::start(OriginReply::Json(GOOD)).await;
        let flags = FlagsDir::passthrough(&legacy.url());
        let urls: Vec<_> = addresses(bank.address()).iter().map(|address| format!("http://{address}")).collect();
        flags.edit("pointsman.yaml", |text| {
            text.replace("services:\n", &format!("services:\n  bank: {{ urls: {urls:?}{settings} }}\n"))
                + "limits: { connect_ms: 20000 }\n"
        });
        flags.write(
            "workflows/pay.yaml",
            "workflow: pay\n\
             steps:\n  \
             ask:\n    call: GET ${services.bank}/accounts\n    retry: { attempts: 1 }\n    timeout: 20s\n\
             respond: { status: 200, body: { id: l1 } }\n",
        );
        flags.write(
            "routes/pay.yaml",
            &format!(
                "routes:\n\
                 - {{ id: pay, match: {{ method: POST, path: /pay }}, legacy: shop, workflow: pay, state: {state}, \
                 force: {{ reason: a test }} }}\n\
                 - {{ id: real, match: {{ method: POST, path: /real }}, legacy: shop, workflow: pay, \
                 force: {{ reason: a test }}, state: only }}\n"
            ),
        );
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let start = Start { flags: flags.path().to_owned(), store: "memory:".into(), log, env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { bank, flags, pointsman, client: Client::new(WAIT_MAX), _legacy: legacy, _dir: dir }
    }
    async fn send(&self, path: &str) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        self.client.json(Method::POST, &url, &[], &json!({})).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }
    async fn pay(&self) -> StatusCode {
        self.send("/pay").await.status
    }
    /// Sends `count` requests at the same time; returns how many succeeded.
    async fn pay_at_once(&self, count: usize) -> usize {
        let replies = futures_util::future::join_all((0..count).map(|_| self.pay())).await;
        replies.into_iter().filter(|status| status.is_success()).count()
    }
    /// The bank as the API shows it.
    async fn shown(&self) -> Value {
        let services = self.pointsman.get("/api/v2/services").await;
        services.as_array().expect("a list").iter().find(|row| row["name"] == "bank").expect("the bank").clone()
    }
    async fn state(&self) -> String {
        self.shown().await["breaker"]["state"].as_str().expect("a state").to_owned()
    }
    async fn wait_until_probes_are_allowed(&self) {
        until("the open time to be over", || async {
            let next = self.shown().await["breaker"]["next_probe"].as_str()?.parse::<jiff::Timestamp>().ok()?;
            (next <= jiff::Timestamp::now()).then_some(())
        })
        .await;
    }
}

fn bank_metric(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(name, &[("service", "bank")])
}

fn transitions(metrics: &Metrics, to: &str) -> f64 {
    metrics.sum("pointsman_breaker_transitions_total", &[("service", "bank"), ("to", to)])
}

fn refusals(metrics: &Metrics, by: &str) -> f64 {
    metrics.sum("pointsman_service_refused_total", &[("service", "bank"), ("by", by)])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_stops_calls_and_is_visible() {
    let system = TestSystem::start(", breaker: { min: 5, over: 60s, open: 60s }").await;
    system.bank.set_default(OriginReply::Status(500));
    for _ in 0..5 {
        assert!(system.pay().await.is_server_error());
    }
    assert_eq!((system.bank.count(), system.state().await.as_str()), (5, "open"));
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(system.pay().await.is_server_error());
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "no call waits for a service that is known to fail");
    assert_eq!(system.bank.count(), 5, "no call is sent while the breaker is open");

    let metrics = system.pointsman.metrics().await;
    assert_eq!(bank_metric(&metrics, "pointsman_breaker_state"), 2.0);
    assert_eq!((transitions(&metrics, "open"), refusals(&metrics, "breaker")), (1.0, 20.0));
    assert_eq!(bank_metric(&metrics, "pointsman_service_calls_in_flight"), 0.0);
    let shop = metrics.sum("pointsman_breaker_state", &[("service", "shop")]);
    assert_eq!(shop, 0.0, "the breaker of another service is not affected");
    let shown = system.shown().await;
    assert!(shown["breaker"]["next_probe"].is_string() && shown["in_flight"] == 0, "{shown}");
    let table = output_text(&system.pointsman.cli(&["services"]).await);
    let line = table.lines().find(|line| line.starts_with("bank")).expect("the bank's line");
    assert!(line.contains("open") && line.contains(" in "), "{table}");
    let json: Value =
        serde_json::from_slice(&system.pointsman.cli(&["services", "--json"]).await.stdout).expect("JSON");
    assert_eq!(json[0]["breaker"]["state"], "open");
    assert!(system.pointsman.log().contains("the breaker opens"), "{}", system.pointsman.log());

    // Files with the same settings of the service keep its breaker; changed settings reset it.
    let generation = || async { system.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
    let before = generation().await;
    system.flags.edit("routes/pay.yaml", |text| text.replace("state: only }\n", "state: only, deadline: 9s }\n"));
    until("the files to be taken", || async { (generation().await > before).then_some(()) }).await;
    assert_eq!(system.state().await, "open");
    system.flags.edit("pointsman.yaml", |text| text.replace("min: 5", "min: 6"));
    until("a new breaker", || async { (system.state().await == "closed").then_some(()) }).await;
    system.pointsman.until_metric("a new breaker", |m| bank_metric(m, "pointsman_breaker_state") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn successful_probes_close_the_breaker() {
    let system = TestSystem::start(", breaker: { min: 4, over: 60s, open: 300ms, open_max: 400ms, probes: 2 }").await;
    system.bank.set_default(OriginReply::Status(503));
    for _ in 0..4 {
        assert!(system.pay().await.is_server_error());
    }
    system.wait_until_probes_are_allowed().await;
    assert!(system.pay().await.is_server_error());
    let metrics = system.pointsman.metrics().await;
    assert_eq!(
        (system.bank.count(), transitions(&metrics, "half_open"), transitions(&metrics, "open")),
        (5, 1.0, 2.0),
        "the probe failed, and the breaker opened again"
    );

    system.wait_until_probes_are_allowed().await;
    // Slow enough for all calls to arrive before the probes are answered.
    system.bank.set_default(OriginReply::Slow(Duration::from_secs(4), GOOD));
    assert_eq!(system.pay_at_once(20).await, 2, "the probes are answered, the others fail at once");
    assert_eq!(system.bank.count(), 7);
    assert_eq!(system.state().await, "closed");
    system.bank.set_default(OriginReply::Json(GOOD));
    assert_eq!(system.pay_at_once(20).await, 20);
    let metrics = system.pointsman.metrics().await;
    assert_eq!((transitions(&metrics, "closed"), bank_metric(&metrics, "pointsman_breaker_state")), (1.0, 0.0));
    assert_eq!(refusals(&metrics, "breaker"), 18.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_errors_do_not_open_the_breaker_and_slow_calls_do() {
    let system = TestSystem::start(", breaker: { min: 4, over: 60s, slow: 500ms, open: 60s }").await;
    system.bank.script(OriginReply::Status(429), 10);
    system.bank.script(OriginReply::Status(404), 10);
    for _ in 0..20 {
        assert!(!system.pay().await.is_success());
    }
    let shown = system.shown().await;
    assert_eq!((&shown["breaker"]["state"], &shown["breaker"]["calls"]), (&json!("closed"), &json!(20)));
    assert_eq!(shown["breaker"]["failed"], 0);
    system.bank.set_default(OriginReply::Slow(Duration::from_millis(700), GOOD));
    assert_eq!(system.pay_at_once(20).await, 20, "slow is still an answer");
    assert_eq!(system.state().await, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_is_off_stops_no_call() {
    let system = TestSystem::start(", breaker: off").await;
    system.bank.set_default(OriginReply::Status(500));
    for _ in 0..30 {
        assert!(system.pay().await.is_server_error());
    }
    assert_eq!(system.bank.count(), 30);
    assert_eq!(system.shown().await["breaker"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn dark_runs_obey_the_breaker_and_do_not_count_in_it() {
    let system = TestSystem::at(|bank| vec![bank], "dark", ", breaker: { min: 5, over: 60s, open: 60s }").await;
    system.bank.set_default(OriginReply::Status(500));
    let settled = |m: &Metrics| m.sum("pointsman_comparisons_total", &[("route", "pay")]);
    for _ in 0..20 {
        assert_eq!(system.pay().await, StatusCode::OK, "legacy answers");
    }
    system.pointsman.until_metric("all to be compared", |m| settled(m) == 20.0).await;
    assert_eq!(system.bank.count(), 20, "every dark run called the bank, and failed");
    assert_eq!(system.state().await, "closed");
    assert_eq!(system.shown().await["breaker"]["calls"], 0);

    for _ in 0..5 {
        assert!(system.send("/real").await.status.is_server_error());
    }
    assert_eq!((system.state().await.as_str(), system.bank.count()), ("open", 25));
    system.bank.set_default(OriginReply::Json(GOOD));
    for _ in 0..10 {
        assert_eq!(system.pay().await, StatusCode::OK);
    }
    let metrics = system.pointsman.until_metric("all to be compared", |m| settled(m) == 30.0).await;
    assert_eq!(
        (system.state().await.as_str(), system.bank.count()),
        ("open", 25),
        "it refuses the calls of dark runs too"
    );
    assert_eq!(refusals(&metrics, "breaker"), 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_no_more_calls_per_second_than_its_rate() {
    let system = TestSystem::start(", rate: 20/s, burst: 4").await;
    let begun = Instant::now();
    assert_eq!(system.pay_at_once(44).await, 44, "all wait for their turn");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_990), "4 at once and 40 at 20 a second take 2 s, not {took:?}");
    let shown = system.shown().await;
    assert_eq!((&shown["rate"], &shown["burst"], &shown["waiting"]), (&json!("20/s"), &json!(4), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_times_out_waiting_for_the_rate_was_not_sent() {
    let system = TestSystem::start(", rate: 1/m").await;
    assert_eq!(system.pay_at_once(5).await, 1);
    assert_eq!(system.bank.count(), 1);
    let metrics = system.pointsman.metrics().await;
    assert_eq!((refusals(&metrics, "rate"), bank_metric(&metrics, "pointsman_breaker_state")), (4.0, 0.0));
    let text = String::from_utf8_lossy(&system.send("/pay").await.body).into_owned();
    assert!(text.contains("the service's rate (1/m)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeouts_of_a_service_apply_to_steps() {
    let system = TestSystem::start(", first_byte: 200ms").await;
    system.bank.set_default(OriginReply::Stall);
    let begun = Instant::now();
    assert!(system.pay().await.is_server_error());
    assert!(begun.elapsed() < Duration::from_secs(15), "sooner than the step's own 20 s");

    let (address, _backlog) = unreachable().await;
    let system = TestSystem::at(|_| vec![address], "only", ", connect: 200ms").await;
    let begun = Instant::now();
    assert!(system.pay().await.is_server_error());
    assert!(begun.elapsed() < Duration::from_secs(15), "sooner than the limit's 20 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_another_url_of_the_service_where_one_accepts_no_connection() {
    let closed = closed_port();
    let refusing = closed.local_addr().expect("an address");
    let (silent, _backlog) = unreachable().await;
    let settings = ", connect: 200ms, breaker: { min: 4, over: 60s, open: 60s }";
    for dead in [refusing, silent] {
        let system = TestSystem::at(|bank| vec![dead, bank], "only", settings).await;
        assert_eq!(system.pay_at_once(20).await, 20);
        let shown = system.shown().await;
        assert_eq!((system.bank.count(), &shown["breaker"]["state"]), (20, &json!("closed")), "{shown}");
        assert_eq!((&shown["breaker"]["calls"], &shown["breaker"]["failed"]), (&json!(20), &json!(0)), "{shown}");

        let system = TestSystem::at(|_| vec![dead, dead], "only", settings).await;
        assert_eq!(system.pay_at_once(4).await, 0);
        let shown = system.shown().await;
        assert_eq!(shown["breaker"]["state"], "open", "no URL accepts a connection: {shown}");
    }
}

/// An address that accepts no connection: its accept queue is full.
async fn unreachable() -> (SocketAddr, impl Sized) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&listener, &LOCAL).expect("a port");
    listen(&listener, 0).expect("it listens");
    let address: SocketAddr = getsockname(&listener).expect("an address").try_into().expect("an address");
    let mut backlog = Vec::new();
    for _ in 0..16 {
        match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => backlog.push(stream),
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => return (address, (listener, backlog)),
        }
    }
    panic!("the accept queue never fills")
}
