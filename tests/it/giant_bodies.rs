//! Bodies that are made to be expensive to compare: callers get legacy's bytes, memory stays within what in-flight
//! comparisons may have, each comparison ends at its deadline, and all of them are counted.

use std::io::Write;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, Request};
use http_body_util::Full;
use pointsman::demo::http::Client;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, Metrics, Pointsman, WAIT_MAX, checker};

const MIB: usize = 1 << 20;
/// The size up to which a body is captured and compared.
const CAP: usize = 8 * MIB;
/// Comparisons at the same time.
const IN_FLIGHT: u64 = 2;
/// Requests for each kind of body.
const REQUESTS: usize = 4;
/// The number of values in a JSON body: below their limit (`output_values_max`), which applies besides that of bytes.
const VALUES: u64 = 199_000;
/// The memory of one comparison: several copies of both bodies as bytes, and the parsed values.
const COMPARISON_KIB_MAX: u64 = 6 * (CAP as u64 >> 10) + VALUES * 400 / 1_024;
/// Both bodies of a pair whose run has ended, and that waits for a thread to be compared: it holds no slot any more.
const WAITING_KIB_MAX: u64 = (REQUESTS as u64 - IN_FLIGHT) * 2 * (CAP as u64 >> 10);
const GROWTH_KIB_MAX: u64 = IN_FLIGHT * COMPARISON_KIB_MAX + WAITING_KIB_MAX + (32 << 10);

const WORKFLOW: &str = "workflow: fetch\nsteps:\n  fetch: { call: 'GET ${services.other}/body' }\n\
     respond: { status: 200, headers: { content-type: TYPE }, body: '${steps.fetch.output}' }\n";
const ROUTE: &str = "routes:\n  - { id: body, match: { method: GET, path: /body }, legacy: shop, workflow: fetch, \
     state: shadow }\n";

struct Kind {
    what: &'static str,
    content_type: &'static str,
    is_gzip: bool,
    /// The bodies of legacy's answer and of the other service's.
    bodies: [Vec<u8>; 2],
    /// How each comparison may end.
    outcomes: &'static [(&'static str, &'static str)],
}

fn lines(word: &str, bytes: usize) -> Vec<u8> {
    let mut all = String::new();
    for n in 0_u64.. {
        if all.len() >= bytes {
            break;
        }
        all += &format!("{word} {}\n", n.wrapping_mul(0x9e37_79b9));
    }
    all.into_bytes()
}

fn deep(open: &str, close: &str, inner: &str) -> Vec<u8> {
    const DEPTH: usize = 100_000;
    format!("{}{inner}{}", open.repeat(DEPTH), close.repeat(DEPTH)).into_bytes()
}

fn wide(of: impl Fn(u64) -> u64) -> Vec<u8> {
    let numbers: Vec<String> = (0..VALUES).map(|n| of(n).to_string()).collect();
    format!("[{}]", numbers.join(",")).into_bytes()
}

/// A gzip body that is much larger than the cap when it is decoded.
fn bomb(byte: u8) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        encoder.write_all(&vec![byte; MIB]).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}

const JSON: &str = "application/json";
/// Every outcome that is allowed. `failed`: the engine refuses the other service's body.
const ANY: &[(&str, &str)] =
    &[("mismatched", ""), ("skipped", "over_budget"), ("skipped", "body_too_large"), ("failed", "")];

fn kinds() -> Vec<Kind> {
    let kind = |what, content_type, bodies| Kind { what, content_type, is_gzip: false, bodies, outcomes: ANY };
    vec![
        kind("5 MB of text with nothing in common", "text/plain", [lines("left", 5 * MIB), lines("right", 5 * MIB)]),
        kind("5 MB without a line end", "text/plain", [vec![b'a'; 5 * MIB], vec![b'b'; 5 * MIB]]),
        kind("JSON 100,000 deep", JSON, [deep("[", "]", "1"), deep("[", "]", "2")]),
        kind("objects 100,000 deep", JSON, [deep("{\"a\":", "}", "1"), deep("{\"a\":", "}", "2")]),
        kind("arrays of 199,000 numbers", JSON, [wide(|n| n), wide(|n| n * 7 + 1)]),
        kind("half a JSON", JSON, [b"{\"id\": [1, 2".to_vec(), b"{\"id\": [1, ".to_vec()]),
        Kind { is_gzip: true, ..kind("a gzip bomb", JSON, [bomb(b'['), bomb(b' ')]) },
        Kind {
            outcomes: &[("skipped", "body_too_large")],
            ..kind("one byte more than the cap", "text/plain", [vec![b'a'; CAP + 1], vec![b'b'; 10]])
        },
    ]
}

fn reply(kind: &Kind, body: &[u8]) -> OriginReply {
    let encoding = if kind.is_gzip { "content-encoding: gzip\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\n{encoding}content-length: {}\r\n\r\n",
        kind.content_type,
        body.len()
    );
    OriginReply::Bytes([head.as_bytes(), body].concat())
}

fn count(metrics: &Metrics, outcome: &str, reason: &str) -> f64 {
    let labels = [("outcome", outcome), ("reason", reason)];
    metrics.sum("pointsman_comparisons_total", &labels[..if reason.is_empty() { 1 } else { 2 }])
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_expensive_to_compare_cost_callers_nothing_and_memory_is_bounded() {
    let (shop, other) = (Origin::start(OriginReply::Json("{}")).await, Origin::start(OriginReply::Json("{}")).await);
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\n  other: {}\ndefault_legacy: shop\nlimits: {{ body_capture_bytes_max: {CAP}, \
             compare_bytes_max: {CAP}, compare_ms: 500, shadow_in_flight_max: {IN_FLIGHT}, shadow_run_ms: 5000, output_bytes_max: {CAP} }}\n",
            shop.url(),
            other.url()
        ),
    );
    flags.write("workflows/fetch.yaml", &WORKFLOW.replace("TYPE", "text/plain"));
    flags.write("routes/body.yaml", ROUTE);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    let (mut wrong, mut offered) = (Vec::new(), 0.0);
    let kinds = kinds();
    for kind in &kinds {
        flags.write("workflows/fetch.yaml", &WORKFLOW.replace("TYPE", kind.content_type));
        let reloaded = pointsman.cli(&["reload"]).await;
        assert!(reloaded.status.success(), "{}", output_text(&reloaded));
        shop.set_default(reply(kind, &kind.bodies[0]));
        other.set_default(reply(kind, &kind.bodies[1]));
        let before = pointsman.metrics().await;
        let (base, begun) = (pointsman.reset_peak(), Instant::now());
        for _ in 0..REQUESTS {
            let url = format!("{}/body", pointsman.url());
            let request = Request::builder().method(Method::GET).uri(url).body(Full::default()).expect("a request");
            let got = client.send(request).await.expect("an answer");
            assert_eq!(got.status, 200, "{}", kind.what);
            assert!(got.body[..] == kind.bodies[0], "{}: the caller gets legacy's bytes", kind.what);
        }
        offered += REQUESTS as f64;
        let after = pointsman
            .until_metric("everything to be settled", |metrics| {
                checker::check_balance(metrics);
                let busy = ["pointsman_shadow_queue_depth", "pointsman_shadow_in_flight"];
                let busy: f64 = busy.iter().map(|name| metrics.sum(name, &[])).sum();
                busy == 0.0 && metrics.sum("pointsman_offered_total", &[("route", "body")]) >= offered
            })
            .await;
        let took = begun.elapsed();
        let grown = pointsman.peak_kib().saturating_sub(base);
        let ended = |outcome, reason| count(&after, outcome, reason) - count(&before, outcome, reason);
        let right: f64 = kind.outcomes.iter().map(|(outcome, reason)| ended(outcome, reason)).sum();
        let mut all = Vec::new();
        for outcome in ["matched", "ignored", "mismatched", "skipped", "failed"] {
            for reason in after.values("pointsman_comparisons_total", "reason") {
                let labels = [("outcome", outcome), ("reason", reason.as_str())];
                let of = |metrics: &Metrics| metrics.sum("pointsman_comparisons_total", &labels);
                if of(&after) > of(&before) {
                    all.push(format!("{outcome} {reason} {}", of(&after) - of(&before)));
                }
            }
        }
        eprintln!("{}: {all:?} in {took:?}, grown by {grown} KiB", kind.what);
        if right != REQUESTS as f64 || grown > GROWTH_KIB_MAX {
            wrong.push(format!("{}: {all:?}, grown by {grown} KiB", kind.what));
        }
    }
    eprintln!("{} kinds of bodies, {REQUESTS} requests each, {} violations", kinds.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}\n{}", pointsman.log());
    assert_eq!(pointsman.stop().await, Some(0));
}
