//! The access log of the real binary: one line per exchange, whatever becomes of it, and never at the cost of requests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::bulk_server::BulkServer;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{BINARY, Start, cli, output_text};
use crate::support::raw_connection::RawConnection;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const WORKFLOW: &str = "workflow: same
steps: { one: { set: { a: 1 } } }
respond: { status: 200, body: { a: '${steps.one.output.a}' } }
";

const ROUTES: &str = "routes:
  - { id: plain, match: { method: GET, path: /plain }, legacy: shop }
  - id: engines
    match: { method: POST, path: /engines }
    legacy: shop
    workflow: same
    state: live
    force: { reason: a test }
  - { id: rehearsed, match: { method: POST, path: /rehearsed }, legacy: shop, workflow: same, state: shadow }
";

/// A process with an access log in front of a legacy.
struct AccessLogSystem {
    pointsman: Pointsman,
    file: PathBuf,
    client: Client,
    dir: tempfile::TempDir,
    _flags: FlagsDir,
}

impl AccessLogSystem {
    /// `settings` are the further keys of `access_log`, `more` further keys of pointsman.yaml.
    async fn start(legacy: &str, settings: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("access.log");
        Self::at(legacy, &file, settings, more, dir).await
    }
    async fn at(legacy: &str, file: &Path, settings: &str, more: &str, dir: tempfile::TempDir) -> Self {
        let flags = FlagsDir::passthrough(legacy);
        let own = format!("access_log: {{ file: {}{settings} }}\n{more}", file.display());
        flags.edit("pointsman.yaml", |text| text + &own);
        flags.write("workflows/same.yaml", WORKFLOW);
        flags.write("routes/all.yaml", ROUTES);
        let (store, log) = ("memory:".to_owned(), dir.path().join("log"));
        let start = Start { flags: flags.path().to_owned(), store, log, env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, file: file.to_owned(), client: Client::new(WAIT_MAX), dir, _flags: flags }
    }
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let body = if method == Method::POST { json!({ "x": 1 }) } else { Value::Null };
        let reply = self.client.json(method, &format!("{}{path}", self.pointsman.url()), headers, &body).await;
        reply.ok().map(|reply| reply.status.as_u16())
    }
    /// Waits until the file has `count` lines, and returns them.
    async fn lines(&self, count: usize) -> Vec<Value> {
        lines(&self.file, count).await
    }
    /// The only line.
    async fn line(&self) -> Value {
        self.lines(1).await.remove(0)
    }
    async fn stop(mut self) {
        assert_eq!(self.pointsman.stop().await, Some(0), "{}", self.pointsman.log());
    }
}

async fn lines(file: &Path, count: usize) -> Vec<Value> {
    until("the lines", || async {
        let text = std::fs::read_to_string(file).ok()?;
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines: Vec<Value> = whole.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(lines.len() <= count, "{count} lines were expected:\n{text}");
        (lines.len() == count).then_some(lines)
    })
    .await
}

/// The values of some fields.
fn pick<const N: usize>(line: &Value, fields: [&str; N]) -> [Value; N] {
    fields.map(|field| line[field].clone())
}

const OUTCOME: [&str; 4] = ["status", "arm", "reply_bytes", "failure"];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_each_arm_is_one_line() {
    let origin = Origin::start(OriginReply::Json("{\"a\": 1}")).await;
    let system = AccessLogSystem::start(&origin.url(), "", "").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("user-agent", "a \"test\""), ("referer", "http://a/?token=hunter2")];
    for (method, path) in [
        (Method::GET, "/plain?q=1&password=hunter2"),
        (Method::POST, "/engines"),
        (Method::POST, "/rehearsed"),
        (Method::GET, "/elsewhere"),
    ] {
        assert_eq!(system.send(method, path, &headers).await, Some(200), "{path}");
    }
    let lines = system.lines(4).await;
    let decided = ["route", "state", "rung", "decision", "reason", "arm", "service"];
    let expected = [
        json!(["plain", "off", "off", null, null, "legacy", "shop"]),
        json!(["engines", "live", "live", "engine", "rung", "engine", null]),
        json!(["rehearsed", "shadow", "shadow", "legacy", "rehearse", "legacy", "shop"]),
        json!([null, null, "off", null, null, "legacy", "shop"]),
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert_eq!(json!(pick(line, decided)), expected, "{line}");
        let basic = pick(line, ["client", "http", "status", "user_agent", "referer", "trace_id", "failure"]);
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let same = json!(["127.0.0.1", "1.1", 200, "a \"test\"", "http://a/?token=***", trace, null]);
        assert_eq!(json!(basic), same, "{line}");
        let is_engine = line["arm"] == "engine";
        assert_eq!(line["reply_bytes"], if is_engine { 7 } else { 8 }, "{line}");
        for time in ["connect_ms", "first_byte_ms"] {
            assert_eq!(line[time].is_number(), !is_engine, "{time}: {line}");
        }
        let took = line["duration_ms"].as_f64().expect("a number");
        assert!(took > 0.0 && took >= line["first_byte_ms"].as_f64().unwrap_or(0.0), "{line}");
        let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("RFC 3339");
        assert!(time.duration_until(jiff::Timestamp::now()).as_secs() < 60, "{line}");
    }
    assert_eq!(pick(&lines[0], ["method", "target"]), [json!("GET"), json!("/plain?q=1&password=***")]);
    assert_eq!(pick(&lines[1], ["method", "target", "request_bytes"]), [json!("POST"), json!("/engines"), json!(7)]);
    assert_eq!(lines[2]["request_bytes"], 7, "passed on to legacy: {}", lines[2]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_exchange_of_a_connection_is_a_line() {
    let origin = Origin::start(OriginReply::Json("{\"a\": 1}")).await;
    let system = AccessLogSystem::start(&origin.url(), "", "limits: { body_engine_bytes_max: 1000 }\n").await;
    let mut raw = RawConnection::connect(system.pointsman.listen).await;
    let more = "host: a\r\n";
    raw.send(format!(
        "GET /plain?1 HTTP/1.1\r\n{more}\r\nGET /plain?2 HTTP/1.0\r\n{more}connection: keep-alive\r\n\r\n"
    ))
    .await;
    raw.send(format!("GET /plain?3 HTTP/1.1\r\n{more}connection: close\r\n\r\n")).await.read_to_close().await;
    let lines = system.lines(3).await;
    for (line, (target, http)) in lines.iter().zip([("/plain?1", "1.1"), ("/plain?2", "1.0"), ("/plain?3", "1.1")]) {
        assert_eq!(json!(pick(line, ["target", "http"])), json!([target, http]), "{line}");
        assert_eq!(json!(pick(line, OUTCOME)), json!([200, "legacy", 8, null]), "{line}");
        assert!(line["trace_id"].as_str().is_some_and(|trace| trace.len() == 32), "made for legacy: {line}");
    }
    // A HEAD request; and a request for the engine that falls back to legacy because its body is too large.
    let mut raw = RawConnection::connect(system.pointsman.listen).await;
    raw.send(format!("HEAD /plain HTTP/1.1\r\n{more}\r\n")).await;
    let line = system.lines(4).await.remove(3);
    assert_eq!(json!(pick(&line, OUTCOME)), json!([200, "legacy", 0, null]), "{line}");
    raw.send(format!("POST /engines HTTP/1.1\r\n{more}content-length: 2000\r\n\r\n{}", "a".repeat(2_000))).await;
    let line = system.lines(5).await.remove(4);
    let fallback = json!(pick(&line, ["decision", "reason", "arm", "service", "request_bytes"]));
    assert_eq!(fallback, json!(["engine", "rung", "legacy", "shop", 2_000]), "{line}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_line_with_its_reason_whatever_the_sample() {
    let origin = Origin::start(OriginReply::Close).await;
    let more = "limits: { head_bytes_max: 100000 }\n";
    let system = AccessLogSystem::start(&origin.url(), ", sample: 0", more).await;
    assert_eq!(system.send(Method::POST, "/elsewhere", &[]).await, Some(502));
    assert_eq!(system.send(Method::TRACE, "/plain", &[]).await, Some(501));
    origin.set_default(OriginReply::Status(500));
    assert_eq!(system.send(Method::GET, "/plain", &[]).await, Some(500));
    origin.set_default(OriginReply::Status(404));
    assert_eq!(system.send(Method::GET, "/plain", &[]).await, Some(404));
    let lines = system.lines(3).await;
    assert_eq!(json!(pick(&lines[0], OUTCOME)[..2]), json!([502, "proxy"]));
    assert_eq!(pick(&lines[0], ["failure", "service"]), [json!("legacy-closed"), json!("shop")]);
    assert!(lines[0]["reply_bytes"].as_u64() > Some(100), "the problem: {}", lines[0]);
    assert_eq!(pick(&lines[1], ["status", "failure", "route"]), [json!(501), json!("no-trace"), Value::Null]);
    assert_eq!(json!(pick(&lines[2], OUTCOME)), json!([500, "legacy", 0, null]), "legacy's own failure");
    // Heads that cannot be read: the answer has no body, and the line has no field of the request.
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(66_000));
    let large = format!("GET /plain HTTP/1.1\r\nx: {}", "a".repeat(110_000));
    let heads = ["GET /plain HTTP/9.9\r\n\r\n".to_owned(), long, large];
    let expected = [(400, "malformed-head"), (414, "head-too-large"), (431, "head-too-large")];
    for (n, (head, (status, failure))) in heads.into_iter().zip(expected).enumerate() {
        let mut raw = RawConnection::connect(system.pointsman.listen).await;
        assert_eq!(raw.send(head).await.reply().await.status, status);
        drop(raw);
        // Each line is awaited, since those of different connections come in any order.
        let line = system.lines(4 + n).await.remove(3 + n);
        let of_head = json!(pick(&line, ["client", "method", "target", "status", "arm", "failure"]));
        assert_eq!(of_head, json!(["127.0.0.1", null, null, status, "proxy", failure]));
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_cut_does_not_look_like_a_success() {
    let origin = Origin::start(OriginReply::CutMidBody).await;
    let limits = "limits: { body_idle_ms: 600 }\n";
    let system = AccessLogSystem::start(&origin.url(), ", sample: 0", limits).await;
    assert_eq!(system.send(Method::GET, "/plain", &[]).await, None);
    origin.set_default(OriginReply::CutMidChunks);
    assert_eq!(system.send(Method::GET, "/plain", &[]).await, None);
    origin.set_default(OriginReply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nsome".to_vec()));
    assert_eq!(system.send(Method::GET, "/plain", &[]).await, None);
    let lines = system.lines(3).await;
    assert_eq!(json!(pick(&lines[0], OUTCOME)), json!([200, "legacy", 9, "legacy-reply-cut"]));
    assert_eq!(json!(pick(&lines[1], OUTCOME)), json!([200, "legacy", 4, "legacy-reply-cut"]));
    assert_eq!(json!(pick(&lines[2], OUTCOME)), json!([200, "legacy", 4, "legacy-reply-stalled"]));
    let metrics = system.pointsman.metrics().await;
    assert_eq!((cuts(&metrics, "legacy-reply-cut"), cuts(&metrics, "legacy-reply-stalled")), (2.0, 1.0));
    let of_class = |class| metrics.sum("pointsman_requests_total", &[("code_class", class)]);
    assert_eq!((of_class("2xx"), of_class("cut")), (0.0, 3.0));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_takes_too_long_in_all_is_logged_as_such() {
    let bulk_server = BulkServer::start().await;
    let system = AccessLogSystem::start(&bulk_server.url(), ", sample: 0", "limits: { total_ms: 1000 }\n").await;
    // The client reads slowly but without a stop, so only the total time exceeds its limit.
    let mut reading = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    reading.write_all(b"GET /down/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut chunk = vec![0; 64 << 10];
    while reading.read(&mut chunk).await.is_ok_and(|n| n > 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let line = system.line().await;
    assert_eq!(pick(&line, ["status", "failure"]), [json!(200), json!("timeout")], "{line}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_or_takes_nothing_is_logged_as_such() {
    let bulk_server = BulkServer::start().await;
    let limits = "limits: { client_half_close_ms: 200, body_idle_ms: 700, linger_ms: 200 }\n";
    let system = AccessLogSystem::start(&bulk_server.url(), "", limits).await;
    // The client reads nothing of a large reply.
    let mut stalled = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    stalled.write_all(b"GET /down/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let line = system.line().await;
    assert_eq!(json!(pick(&line, ["status", "arm", "failure"])), json!([200, "legacy", "client-stalled"]), "{line}");
    assert!(line["reply_bytes"].as_u64().is_some_and(|bytes| bytes > 0 && bytes < 50_000_000), "{line}");
    // The client closes in the middle of a reply. As it has unread bytes, the close is a reset.
    let mut gone = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    gone.write_all(b"GET /down/50000000 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    gone.read_exact(&mut [0; 1_000]).await.expect("the beginning");
    drop(gone);
    let line = system.lines(2).await.remove(1);
    assert_eq!(json!(pick(&line, ["status", "arm", "failure"])), json!([200, "legacy", "client-gone"]), "{line}");
    drop(stalled);
    system.stop().await;

    // The client closes before there is an answer.
    let origin = Origin::start(OriginReply::Stall).await;
    let system = AccessLogSystem::start(&origin.url(), "", limits).await;
    let mut gone = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    gone.write_all(b"POST /plain HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await.expect("sent");
    until("the request at legacy", || async { (origin.count() == 1).then_some(()) }).await;
    drop(gone);
    let line = system.line().await;
    let outcome = ["status", "arm", "service", "request_bytes", "reply_bytes", "failure"];
    assert_eq!(json!(pick(&line, outcome)), json!([null, null, "shop", 4, 0, "client-gone"]), "{line}");
    assert_eq!(cuts(&system.pointsman.metrics().await, "client-gone"), 1.0, "no status was sent");
    // The client closes in the middle of its own request body.
    let mut gone = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    gone.write_all(b"POST /plain HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\nbody").await.expect("sent");
    gone.set_zero_linger().expect("a reset");
    drop(gone);
    let line = system.lines(2).await.remove(1);
    let failure = line["failure"].as_str().expect("a failure");
    assert!(["client-gone", "bad-body"].contains(&failure), "{line}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_a_stop_cuts_and_a_tunnel_are_lines_too() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello";
    let origin = Origin::start(OriginReply::Bytes(switching.to_vec())).await;
    let system = AccessLogSystem::start(&origin.url(), "", "limits: { drain_ms: 300 }\n").await;
    let mut tunnel = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    let head = b"GET /plain HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    tunnel.write_all(head).await.expect("sent");
    let mut read = Vec::new();
    while !read.ends_with(b"hello") {
        let mut chunk = [0; 1_024];
        let n = tunnel.read(&mut chunk).await.expect("readable");
        assert!(n > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&chunk[..n]);
    }
    tunnel.write_all(b"to legacy").await.expect("sent");
    drop(tunnel);
    let line = system.line().await;
    let outcome = ["route", "status", "arm", "request_bytes", "reply_bytes", "failure"];
    assert_eq!(json!(pick(&line, outcome)), json!(["plain", 101, "legacy", 9, 5, null]), "{line}");
    origin.set_default(OriginReply::Stall);
    let mut waiting = RawConnection::connect(system.pointsman.listen).await;
    waiting.send("GET /plain HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until("the request at legacy", || async { (origin.count() == 2).then_some(()) }).await;
    let file = system.file.clone();
    let dir = {
        let AccessLogSystem { mut pointsman, dir, .. } = system;
        pointsman.stop().await;
        dir
    };
    let line = lines(&file, 2).await.remove(1);
    assert_eq!(pick(&line, ["status", "failure"]), [Value::Null, json!("drain-cut")], "written before the end: {line}");
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_has_its_share_of_the_successes() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let system = AccessLogSystem::start(&origin.url(), ", sample: 0.3", "").await;
    for _ in 0..400 {
        assert_eq!(system.send(Method::GET, "/plain", &[]).await, Some(204));
    }
    assert_eq!(system.send(Method::TRACE, "/plain", &[]).await, Some(501));
    // The refusal is the last line.
    let text = until("the refusal's line", || async {
        let text = std::fs::read_to_string(&system.file).ok()?;
        text.contains("no-trace").then_some(text)
    })
    .await;
    let logged = text.lines().count() - 1;
    // The random sample is outside this range once in some millions of test runs.
    assert!((70..=170).contains(&logged), "{logged} of 400");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_opens_a_renamed_file_again() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let system = AccessLogSystem::start(&origin.url(), "", "").await;
    let signal = || {
        let pid = rustix::process::Pid::from_raw(system.pointsman.pid().try_into().expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, Signal::USR1).expect("the signal could be sent");
    };
    assert_eq!(system.send(Method::GET, "/plain?1", &[]).await, Some(204));
    system.lines(1).await;
    let renamed = system.dir.path().join("access.log.1");
    std::fs::rename(&system.file, &renamed).expect("renamed");
    assert_eq!(system.send(Method::GET, "/plain?2", &[]).await, Some(204));
    assert_eq!(lines(&renamed, 2).await[1]["target"], "/plain?2", "the process still has this file open");
    assert!(!system.file.exists());
    signal();
    until("the new file", || async { system.file.exists().then_some(()) }).await;
    assert_eq!(system.send(Method::GET, "/plain?3", &[]).await, Some(204));
    assert_eq!(system.line().await["target"], "/plain?3");
    assert_eq!(lines(&renamed, 2).await.len(), 2, "no further line in the renamed file");
    // Where the file cannot be opened again, the process keeps writing to the old one.
    let again = system.dir.path().join("access.log.2");
    std::fs::rename(&system.file, &again).expect("renamed");
    std::fs::create_dir(&system.file).expect("a directory in its place");
    signal();
    until("the report", || async { system.pointsman.log().contains("cannot be opened again").then_some(()) }).await;
    assert_eq!(system.send(Method::GET, "/plain?4", &[]).await, Some(204));
    assert_eq!(lines(&again, 2).await[1]["target"], "/plain?4");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_access_log_sigusr1_does_nothing() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let flags = FlagsDir::passthrough(&origin.url());
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".to_owned(), dir.path().join("log"));
    let start = Start { flags: flags.path().to_owned(), store, log, env: Vec::new() };
    let mut pointsman = Pointsman::start(&start).await;
    let pid = rustix::process::Pid::from_raw(pointsman.pid().try_into().expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::USR1).expect("the signal could be sent");
    let client = Client::new(WAIT_MAX);
    let reply = client.json(Method::GET, &pointsman.url(), &[], &Value::Null).await.expect("an answer");
    assert_eq!(reply.status, 204);
    assert_eq!(pointsman.stop().await, Some(0));
}

fn cuts(metrics: &crate::support::Metrics, reason: &str) -> f64 {
    metrics.sum("pointsman_exchanges_cut_total", &[("reason", reason)])
}

fn dropped(metrics: &crate::support::Metrics, reason: &str) -> f64 {
    metrics.sum("pointsman_access_log_dropped_total", &[("reason", reason)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_lines_and_no_request() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let system = AccessLogSystem::at(&origin.url(), Path::new("/dev/full"), "", "", dir).await;
    for _ in 0..20 {
        assert_eq!(system.send(Method::GET, "/plain", &[]).await, Some(204));
    }
    let metrics = system.pointsman.until_metric("the loss", |metrics| dropped(metrics, "write") == 20.0).await;
    assert_eq!(dropped(&metrics, "queue"), 0.0);
    let log = system.pointsman.log();
    assert!(log.contains("lines of the access log were lost") && log.contains("No space left"), "{log}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_hangs_costs_lines_and_no_request() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
    // Opened for reading and writing: the pipe has a reader, which never reads.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("opened");
    let more = "limits: { access_log_lines_max: 16 }\n";
    // The earlier name of `combined`.
    let system = AccessLogSystem::at(&origin.url(), &pipe, ", format: common", more, dir).await;
    let user_agent = "a".repeat(2_000);
    let began = Instant::now();
    // A pipe holds 64 KiB.
    for _ in 0..200 {
        assert_eq!(system.send(Method::GET, "/plain", &[("user-agent", &user_agent)]).await, Some(204));
    }
    assert!(began.elapsed() < WAIT_MAX / 2, "{:?}", began.elapsed());
    system.pointsman.until_metric("the loss", |metrics| dropped(metrics, "queue") >= 100.0).await;
    // Nor does the end of the process wait for the pipe.
    system.stop().await;
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_cannot_forge_a_line_of_the_common_format() {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let system = AccessLogSystem::start(&origin.url(), ", format: combined", "trust_forwarded: true\n").await;
    let mut raw = RawConnection::connect(system.pointsman.listen).await;
    let mut head =
        b"GET /plain?a='%0a%22 HTTP/1.1\r\nhost: a\r\nreferer: \\\" 200\r\nx-forwarded-for: 1.2.3.4, x\r\n".to_vec();
    head.extend_from_slice(b"user-agent: \xff\xc3\xa9\t\"quoted\"\r\n\r\n");
    assert_eq!(raw.send(head).await.reply().await.status, 200);
    let text = until("the line", || async {
        let text = std::fs::read_to_string(&system.file).ok()?;
        text.ends_with('\n').then_some(text)
    })
    .await;
    assert!(text.is_ascii() && text.lines().count() == 1, "{text}");
    assert!(
        text.contains(r#"] "GET /plain?a='%0a%22 HTTP/1.1" 200 2 "\\\" 200" "\xff\xc3\xa9\t\"quoted\"" route=plain "#)
    );
    assert!(text.contains(" forwarded_for=\"1.2.3.4, x\" failure=-\n"), "{text}");
    assert!(text.starts_with("127.0.0.1 - - ["), "{text}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_can_go_to_stdout() {
    let origin = Origin::start(OriginReply::Status(204)).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| text + "access_log: { file: stdout }\n");
    let mut child = tokio::process::Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", "memory:", "--flags"])
        .arg(flags.path())
        .env("STATE_DIRECTORY", flags.path().parent().expect("a directory"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let mut printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(WAIT_MAX, printed.next_line()).await.expect("in time").expect("readable");
        serde_json::from_str(&line.expect("a line")).expect("JSON")
    };
    let addresses = next().await;
    let url = format!("http://{}/a", addresses["listen"].as_str().expect("an address"));
    Client::new(WAIT_MAX).json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
    assert_eq!(next().await["target"], "/a");
    child.kill().await.expect("it could be killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_settings_is_said_with_its_position() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    let good = std::fs::read_to_string(flags.file("pointsman.yaml")).expect("readable");
    let inside = flags.file("access.log").display().to_string();
    let in_routes = flags.file("routes/access.log").display().to_string();
    let cases = [
        ("{ file: a.log, sample: 2 }".to_owned(), "pointsman.yaml:4:36: error: `2` is not a share"),
        (format!("{{ file: {inside} }}"), "pointsman.yaml:4:21: error: the access log would be in the directory"),
        (format!("{{ file: {in_routes} }}"), "pointsman.yaml:4:21: error: the access log would be in the directory"),
        ("{ file: logs/ }".to_owned(), "pointsman.yaml:4:21: error: the access log needs the name of a file"),
        ("{ sample: 1 }".to_owned(), "`file`"),
        ("{ file: a.log, format: xml }".to_owned(), "pointsman.yaml:4:36: error: "),
        ("{ file: a.log, fomat: json }".to_owned(), "did you mean `format`"),
    ];
    for (settings, says) in cases {
        flags.write("pointsman.yaml", &format!("{good}access_log: {settings}\n"));
        let checked = cli(&["check", &flags.path().display().to_string(), "--json"], &[]).await;
        assert_eq!(checked.status.code(), Some(1), "{settings}");
        let text = cli(&["check", &flags.path().display().to_string()], &[]).await;
        let found: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        let shown = format!("{found}\n{}", output_text(&text));
        let place = says.split(": ").next().and_then(|place| place.strip_prefix("pointsman.yaml:"));
        if let Some((line, column)) = place.and_then(|place| place.split_once(':')) {
            assert!(
                shown.contains(&format!("\"line\":{line}")) && shown.contains(&format!("\"column\":{column}")),
                "{shown}"
            );
        }
        let message = says.rsplit(": ").next().expect("a message");
        assert!(shown.contains(message), "{settings}: {message}\n{shown}");
    }
    // A file that cannot be opened: the process does not start.
    flags.write("pointsman.yaml", &format!("{good}access_log: {{ file: /nowhere/at/all.log }}\n"));
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".to_owned(), dir.path().join("log"));
    let start = Start { flags: flags.path().to_owned(), store, log, env: Vec::new() };
    let refused = Pointsman::try_start(&start).await.err().expect("it does not start");
    assert!(refused.contains("opening the access log /nowhere/at/all.log (`access_log.file`)"), "{refused}");
}
