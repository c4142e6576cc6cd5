//! Spans of the real binary in a real OpenTelemetry collector: one trace for a request, both arms, the run and its
//! steps.

use std::sync::{Arc, Mutex};

use http::Method;
use pointsman::demo::http::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::certificates::{Authority, Subject};
use crate::support::collector::{Collector, ReceivedSpan};
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::tls_front::TlsFront;
use crate::support::{FlagsDir, Metrics, Pointsman, WAIT_MAX, until};

const WORKFLOW: &str = "workflow: create-order
steps:
  price:
    call: POST ${services.bank}/quotes
    effect: read
    retry: { attempts: 2, base: 1ms }
    body: { n: 1 }
  note: { needs: [price], call: 'POST ${services.bank}/notes', effect: private, body: { n: 1 } }
  charge:
    needs: [note]
    call: POST ${services.bank}/charges?token=${request.body.secret}
    body: { n: 1 }
    rehearse: { id: 7 }
respond: { status: 200, body: { id: '${steps.charge.output.id}' } }
";

const ROUTES: &str = "routes:
  - { id: plain, match: { method: GET, path: '/plain/{id}' }, legacy: shop }
  - id: dark
    match: { method: POST, path: /dark }
    legacy: shop
    workflow: create-order
    state: dark
    force: { reason: a test }
  - id: live
    match: { method: POST, path: /live }
    legacy: shop
    workflow: create-order
    state: live
    force: { reason: a test }
";

/// A value that a client sends and that no span may contain.
const SECRET: &str = "hunter2";

struct TraceSystem {
    pointsman: Pointsman,
    start: Start,
    origin: Origin,
    steps: StepService,
    client: Client,
    _flags: FlagsDir,
    _dir: tempfile::TempDir,
}

impl TraceSystem {
    async fn start(settings: &str) -> Self {
        let (origin, steps) = (Origin::start(OriginReply::Json("{\"id\":7}")).await, StepService::start().await);
        let flags = FlagsDir::passthrough(&origin.url());
        let bank = format!("  bank: {{ urls: [{}], keyed: true }}\n", steps.url());
        flags
            .edit("pointsman.yaml", |text| text.replace("default_legacy", &format!("{bank}default_legacy")) + settings);
        flags.write("workflows/create-order.yaml", WORKFLOW);
        flags.write("routes/all.yaml", ROUTES);
        let dir = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, start, origin, steps, client: Client::new(WAIT_MAX), _flags: flags, _dir: dir }
    }
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let secrets = [("authorization", SECRET), ("cookie", SECRET)];
        let headers: Vec<_> = headers.iter().copied().chain(secrets).collect();
        let url = format!("{}{path}?token={SECRET}", self.pointsman.url());
        let reply = self.client.json(method, &url, &headers, &json!({ "secret": SECRET })).await;
        reply.ok().map(|reply| reply.status.as_u16())
    }
    async fn stop(&mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
    }
}

fn settings(collector: &Collector, more: &str) -> String {
    format!("traces: {{ otlp: '{}', service_name: shop-proxy{more} }}\n", collector.url())
}

/// The spans of a trace.
fn of_trace<'a>(spans: &'a [ReceivedSpan], trace: &str) -> Vec<&'a ReceivedSpan> {
    spans.iter().filter(|span| span.trace == trace).collect()
}

/// The only span with this name.
fn only<'a>(spans: &[&'a ReceivedSpan], name: &str) -> &'a ReceivedSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// The trace id and the span id of a `traceparent`.
fn span_of(traceparent: Option<&str>) -> (&str, &str) {
    let fields: Vec<_> = traceparent.expect("a traceparent").split('-').collect();
    assert_eq!((fields[0], fields[3]), ("00", "01"));
    (fields[1], fields[2])
}

/// The trace and span ids in the `traceparent` of each call to an endpoint.
fn spans_of_calls(steps: &StepService, endpoint: &str) -> Vec<(String, String)> {
    let call = |call: &crate::support::step_service::ReceivedCall| {
        let (trace, span) = span_of(call.headers.get("traceparent").and_then(|value| value.to_str().ok()));
        (trace.to_owned(), span.to_owned())
    };
    steps.seen(endpoint).iter().map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_has_the_exchange_both_arms_the_run_and_its_steps() {
    let collector = Collector::start().await;
    let mut system = TraceSystem::start(&settings(&collector, ", trust_sampled: always")).await;
    system.steps.script("POST /quotes", ScriptedReply::Refuse(503), 1);
    assert_eq!(system.send(Method::POST, "/dark", &[]).await, Some(200));
    let compared = |metrics: &Metrics| metrics.sum("pointsman_comparisons_total", &[("route", "dark")]) == 1.0;
    system.pointsman.until_metric("the comparison", compared).await;
    let dark_quotes = spans_of_calls(&system.steps, "POST /quotes");
    let (client_trace, client_span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traceparent = format!("00-{client_trace}-{client_span}-01");
    assert_eq!(system.send(Method::POST, "/live", &[("traceparent", &traceparent)]).await, Some(200));
    let unrecorded = "11111111111111111111111111111111";
    let traceparent = format!("00-{unrecorded}-b7ad6b7169203331-00");
    assert_eq!(system.send(Method::POST, "/live", &[("traceparent", &traceparent)]).await, Some(200));
    assert_eq!(system.send(Method::GET, "/plain/5", &[]).await, Some(200));
    system.stop().await; // the last spans are sent before it ends
    let spans = collector.spans(8 + 6 + 2).await;
    let output = collector.output();
    assert!(!output.contains(SECRET), "{output}");
    assert!(output.contains("service.name: Str(shop-proxy)"), "{output}");
    assert_eq!(spans.len(), 8 + 6 + 2, "{spans:#?}");
    assert!(of_trace(&spans, unrecorded).is_empty(), "the client asked for no spans");

    // In `dark`: both arms.
    let legacy_request = system.origin.seen().remove(0);
    let (trace, legacy_span) = span_of(legacy_request.header("traceparent"));
    let dark = of_trace(&spans, trace);
    assert_eq!(dark.len(), 8, "{dark:#?}");
    let exchange = only(&dark, "POST /dark");
    assert_eq!((&*exchange.parent, &*exchange.kind), ("", "SPAN_KIND_SERVER"));
    for (key, value) in [
        ("http.request.method", "Str(POST)"),
        ("http.route", "Str(/dark)"),
        ("url.path", "Str(/dark)"),
        ("http.response.status_code", "Int(200)"),
        ("pointsman.route", "Str(dark)"),
        ("pointsman.state", "Str(dark)"),
        ("pointsman.arm", "Str(legacy)"),
        ("pointsman.decision", "Str(legacy)"),
        ("client.address", "Str(127.0.0.1)"),
    ] {
        assert_eq!(exchange.attribute(key), value, "{key}");
    }
    let legacy = only(&dark, "legacy");
    assert_eq!((&legacy.parent, &*legacy.kind), (&exchange.id, "SPAN_KIND_CLIENT"));
    assert_eq!(legacy_span, legacy.id, "legacy's own spans are its children");
    assert_eq!(legacy.attribute("server.port"), format!("Int({})", system.origin.address().port()));
    let engine = only(&dark, "engine");
    assert_eq!((&engine.parent, engine.attribute("pointsman.mode")), (&exchange.id, "Str(dark)"));
    let run = only(&dark, "run create-order");
    assert_eq!((&run.parent, run.attribute("pointsman.outcome")), (&engine.id, "Str(completed)"));
    let mut prices: Vec<_> = dark.iter().filter(|span| span.name == "step price").collect();
    prices.sort_by_key(|span| span.attribute("pointsman.attempt"));
    let [first, second] = &prices[..] else { panic!("two attempts: {prices:#?}") };
    assert_eq!((&*first.status, first.attribute("http.response.status_code")), ("STATUS_CODE_ERROR", "Int(503)"));
    assert_eq!((&*second.status, second.attribute("http.request.resend_count")), ("", "Int(1)"));
    let (note, charge) = (only(&dark, "step note"), only(&dark, "step charge"));
    assert_eq!(note.attribute("pointsman.effect"), "Str(private)");
    assert_eq!((charge.attribute("pointsman.outcome"), &*charge.kind), ("Str(rehearsed)", "SPAN_KIND_INTERNAL"));
    for step in [first, second, &note, &charge] {
        assert_eq!(step.parent, run.id, "{step:?}");
    }
    assert_eq!(
        dark_quotes,
        [first, second].map(|span| (trace.to_owned(), span.id.clone())),
        "each call names its attempt"
    );

    // In `live`: a child of the client's span; legacy was not called.
    let live = of_trace(&spans, client_trace);
    assert_eq!(live.len(), 6, "{live:#?}");
    let (exchange, engine, run) = (only(&live, "POST /live"), only(&live, "engine"), only(&live, "run create-order"));
    assert_eq!((&*exchange.parent, exchange.attribute("pointsman.arm")), (client_span, "Str(engine)"));
    assert_eq!((&engine.parent, &run.parent), (&exchange.id, &engine.id));
    assert_eq!(run.attribute("pointsman.mode"), "Str(real)");
    let charge = only(&live, "step charge");
    for step in [only(&live, "step price"), only(&live, "step note"), charge] {
        assert_eq!((&step.parent, step.attribute("pointsman.outcome")), (&run.id, "Str(done)"));
    }
    assert_eq!(
        spans_of_calls_with_flag(&system.steps, "POST /charges"),
        [
            (client_trace.to_owned(), charge.id.clone(), "01".to_owned()),
            // The client's `traceparent` is passed on unchanged, because its trace is not recorded.
            (unrecorded.to_owned(), "b7ad6b7169203331".to_owned(), "00".to_owned()),
        ]
    );

    // A route without a workflow: the template names the span, not the path.
    let plain = spans.iter().find(|span| span.name == "GET /plain/{id}").expect("its span");
    assert_eq!(plain.attribute("url.path"), "Str(/plain/5)");
    assert_eq!(of_trace(&spans, &plain.trace).len(), 2);
}

/// Like [`spans_of_calls`], with the flags.
fn spans_of_calls_with_flag(steps: &StepService, endpoint: &str) -> Vec<(String, String, String)> {
    let calls = steps.seen(endpoint).into_iter().map(|call| {
        let value = call.headers["traceparent"].to_str().expect("text").to_owned();
        let fields: Vec<_> = value.split('-').map(str::to_owned).collect();
        (fields[1].clone(), fields[2].clone(), fields[3].clone())
    });
    calls.collect()
}

/// The service may know the first attempt, and compare a repetition with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_again_after_an_unknown_outcome_has_the_bytes_of_the_first_attempt() {
    let collector = Collector::start().await;
    let mut system = TraceSystem::start(&settings(&collector, "")).await;
    for unknown in [ScriptedReply::Refuse(503), ScriptedReply::LoseReply] {
        system.steps.script("POST /charges", unknown, 1);
    }
    // A read has no effect, so each attempt of a read has its own span id.
    system.steps.script("POST /quotes", ScriptedReply::Refuse(503), 1);
    assert_eq!(system.send(Method::POST, "/live", &[]).await, Some(200));
    let sent = system.steps.seen("POST /charges");
    assert_eq!(sent.len(), 3, "two attempts with unknown outcome, and one that was answered");
    for again in &sent[1..] {
        assert_eq!((&again.headers, &again.text), (&sent[0].headers, &sent[0].text));
    }
    let quotes = spans_of_calls(&system.steps, "POST /quotes");
    assert!(quotes.len() == 2 && quotes[0].0 == quotes[1].0 && quotes[0].1 != quotes[1].1, "{quotes:?}");
    let charges = spans_of_calls(&system.steps, "POST /charges");
    system.stop().await;
    // The exchange, the arm, the run, two quotes, a note and three charges.
    let spans = collector.spans(9).await;
    let spans = of_trace(&spans, &charges[0].0);
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "step charge").collect();
    assert_eq!(attempts.len(), 3, "each attempt has a span: {spans:#?}");
    let named = attempts.iter().find(|span| span.id == charges[0].1).expect("the first one's");
    assert_eq!(named.attribute("pointsman.attempt"), "Int(1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_next_process_resumes_stays_in_its_trace() {
    let collector = Collector::start().await;
    let mut system = TraceSystem::start(&settings(&collector, ", trust_sampled: always")).await;
    system.steps.hold("POST /charges");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
    let headers = [("traceparent", &*traceparent)];
    let steps = &system.steps;
    tokio::select! {
        reply = system.send(Method::POST, "/live", &headers) => panic!("{reply:?}: the charge is held"),
        () = crate::support::until_true("the charge", || steps.count("POST /charges") == 1) => {}
    }
    // The spans of the steps that have ended are sent, the others are lost with the process.
    let before = collector.spans(2).await;
    system.pointsman.kill().await;
    system.steps.release_all("POST /charges");
    system.pointsman = Pointsman::start(&system.start).await;
    let completed = [("workflow", "create-order"), ("outcome", "completed")];
    let ended = |metrics: &Metrics| metrics.sum("pointsman_runs_total", &completed) == 1.0;
    system.pointsman.until_metric("the run's end", ended).await;
    system.stop().await;
    let spans = collector.spans(before.len() + 2).await;
    let of_run = of_trace(&spans, trace);
    let (run, charge) = (only(&of_run, "run create-order"), of_run.iter().rfind(|span| span.name == "step charge"));
    let charge = charge.unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!((&charge.parent, charge.attribute("pointsman.outcome")), (&run.id, "Str(done)"), "{spans:#?}");
    assert_eq!(only(&of_run, "step price").parent, run.id, "recorded by the process before");
    let last = spans_of_calls(&system.steps, "POST /charges").pop().expect("a call");
    assert_eq!(last, (trace.to_owned(), charge.id.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_share_of_0_no_trace_that_begins_here_is_recorded() {
    let collector = Collector::start().await;
    let mut system = TraceSystem::start(&settings(&collector, ", sample: 0, trust_sampled: always")).await;
    assert_eq!(system.send(Method::POST, "/live", &[]).await, Some(200));
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(system.send(Method::GET, "/plain/1", &[("traceparent", traceparent)]).await, Some(200));
    system.stop().await;
    let spans = collector.spans(2).await;
    assert!(spans.iter().all(|span| span.trace == "0af7651916cd43dd8448eb211c80319c"), "{spans:#?}");
    let [(_, _, flags)] = &spans_of_calls_with_flag(&system.steps, "POST /charges")[..] else { panic!("one call") };
    assert_eq!(flags, "00", "the services are told that nobody records it");
}

/// Not every client may decide which traces are recorded.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_flag_of_a_trusted_peer_makes_a_trace_recorded() {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (settings, is_recorded) in [
        ("", false),
        (", trust_sampled: never", false),
        (", trust_sampled: always", true),
        (", trust_sampled: peers", false),
    ] {
        // First from an untrusted client, then from a peer that is trusted to tell who its clients are.
        for trust_forwarded in ["false", "[127.0.0.0/8]"] {
            let is_peer = trust_forwarded != "false" && !settings.contains("never");
            let collector = Collector::start().await;
            let more = format!("trust_forwarded: {trust_forwarded}\n");
            let mut system =
                TraceSystem::start(&(self::settings(&collector, &format!(", sample: 0{settings}")) + &more)).await;
            assert_eq!(system.send(Method::GET, "/plain/1", &[("traceparent", traceparent)]).await, Some(200));
            assert_eq!(system.send(Method::POST, "/live", &[("traceparent", traceparent)]).await, Some(200));
            let expected = if is_recorded || is_peer { "01" } else { "00" };
            let legacy = system.origin.seen()[0].header("traceparent").expect("a traceparent").to_owned();
            assert!(legacy.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{legacy}: the trace stays");
            assert!(legacy.ends_with(expected), "{settings} {trust_forwarded}: {legacy}");
            let [(trace, _, flags)] = &spans_of_calls_with_flag(&system.steps, "POST /charges")[..] else {
                panic!("one call")
            };
            assert_eq!((&**trace, &**flags), ("0af7651916cd43dd8448eb211c80319c", expected));
            let dropped = system.pointsman.metrics().await.sum("pointsman_spans_dropped_total", &[]);
            assert_eq!(dropped, 0.0);
            system.stop().await;
            let spans = collector.spans(if expected == "01" { 2 } else { 0 }).await;
            assert_eq!(!spans.is_empty(), expected == "01", "{settings} {trust_forwarded}: {spans:#?}");
        }
    }
}

/// A collector that answers each request and keeps its head. Returns its URL and the heads.
async fn keeping_heads() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind(crate::support::LOCAL).await.expect("a port");
    let (address, heads) = (listener.local_addr().expect("an address"), Arc::<Mutex<String>>::default());
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut part = [0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut part).await {
                    kept.lock().expect("unpoisoned").push_str(&String::from_utf8_lossy(&part[..read]));
                    // The whole of a small batch comes at once.
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (format!("http://{address}"), heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_reached_over_https_with_credentials_if_its_certificate_is_trusted() {
    let (collector, authority, other) = (Collector::start().await, Authority::new("Test"), Authority::new("Other"));
    let issued = authority.issue(&Subject { names: &["127.0.0.1"], ..Subject::default() });
    let front = TlsFront::start(&issued).await;
    front.lead_to(&collector.url());
    let port = front.address().port();
    let certificates = tempfile::tempdir().expect("a directory");
    for (name, authority) in [("ca.pem", &authority), ("other.pem", &other)] {
        std::fs::write(certificates.path().join(name), authority.pem()).expect("a file");
    }
    let settings = |ca: &str| {
        let ca = certificates.path().join(ca).display().to_string();
        format!("traces: {{ otlp: 'https://127.0.0.1:{port}', tls: {{ ca: '{ca}' }} }}\n")
    };
    let mut system = TraceSystem::start(&settings("ca.pem")).await;
    assert_eq!(system.send(Method::GET, "/plain/5", &[]).await, Some(200));
    system.stop().await;
    assert_eq!(collector.spans(2).await.len(), 2);

    let mut system = TraceSystem::start(&settings("other.pem")).await;
    assert_eq!(system.send(Method::GET, "/plain/5", &[]).await, Some(200));
    let failed = [("service", "traces.otlp"), ("reason", "certificate")];
    let is_refused = |metrics: &Metrics| metrics.sum("pointsman_service_handshake_failures_total", &failed) > 0.0;
    system.pointsman.until_metric("a handshake that failed", is_refused).await;
    system.stop().await;
    assert_eq!(collector.spans(2).await.len(), 2, "nothing was sent");

    // Without TLS the test can read the head that the collector gets.
    let (url, heads) = keeping_heads().await;
    let secret = certificates.path().join("secret");
    std::fs::write(&secret, "c0llector-key\n").expect("a file");
    let settings = format!(
        "secrets: {{ otlp: {{ file: '{}' }} }}\ntraces:\n  otlp: '{url}'\n  headers: {{ authorization: 'Bearer \
         ${{secrets.otlp}}', x-scope: shop }}\n",
        secret.display()
    );
    let mut system = TraceSystem::start(&settings).await;
    assert_eq!(system.send(Method::GET, "/plain/5", &[]).await, Some(200));
    system.stop().await;
    let heads = heads.lock().expect("unpoisoned").to_lowercase();
    assert!(
        heads.contains("authorization: bearer c0llector-key\r\n") && heads.contains("x-scope: shop\r\n"),
        "{heads}"
    );
    assert!(!system.pointsman.log().contains("c0llector-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_requests_go_on_and_spans_are_counted_as_dropped() {
    let gone = tokio::net::TcpListener::bind(crate::support::LOCAL).await.expect("a port").local_addr().expect("it");
    let settings = format!("traces: {{ otlp: 'http://{gone}' }}\nlimits: {{ spans_waiting_max: 4 }}\n");
    let mut system = TraceSystem::start(&settings).await;
    let queue_is_full = || async {
        assert_eq!(system.send(Method::GET, "/plain/5", &[]).await, Some(200));
        let metrics = system.pointsman.metrics().await;
        (metrics.sum("pointsman_spans_dropped_total", &[("reason", "queue")]) > 0.0).then_some(())
    };
    until("the queue is full, and no request waits for it", queue_is_full).await;
    assert_eq!(system.send(Method::POST, "/live", &[]).await, Some(200));
    let given_up = |metrics: &Metrics| metrics.sum("pointsman_spans_dropped_total", &[("reason", "export")]) > 0.0;
    let metrics = system.pointsman.until_metric("the spans that were tried to be sent", given_up).await;
    assert_eq!(metrics.sum("pointsman_spans_exported_total", &[]), 0.0);
    system.stop().await;
    let log = system.pointsman.log();
    assert_eq!(log.matches("spans are dropped: too many wait for the collector").count(), 1, "{log}");
    let warnings = log.matches("spans are dropped: the collector does not accept them").count();
    assert_eq!(warnings, 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traces_in_the_files_a_clients_trace_is_passed_on_as_it_came() {
    let mut system = TraceSystem::start("").await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(system.send(Method::POST, "/dark", &[("traceparent", traceparent)]).await, Some(200));
    let compared = |metrics: &Metrics| metrics.sum("pointsman_comparisons_total", &[("route", "dark")]) == 1.0;
    system.pointsman.until_metric("the comparison", compared).await;
    assert_eq!(system.origin.seen()[0].header("traceparent"), Some(traceparent));
    let called = &system.steps.seen("POST /notes")[0];
    assert_eq!(called.headers["traceparent"], traceparent);
    system.stop().await;
}
