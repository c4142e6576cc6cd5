//! `stream: true`: the body of a service's reply reaches the caller while the service sends it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::EngineTest;
use crate::support::bulk_server::{BulkServer, CHUNK, discard, read_head};
use crate::support::raw_connection::RawConnection;
use crate::support::raw_service::{RawCall, RawService};
use crate::support::step_service::ScriptedReply;
use crate::support::{LOCAL, WAIT_MAX};

pub const DOWNLOAD: &str = "
workflow: download
steps:
  file:
    call: 'GET ${services.files}/files/${request.params.id}'
    stream: true
    retry: { attempts: 2, base: 1ms, max: 1ms }
respond: { status: 200, body: '${steps.file.output}' }
";

const ROUTES: &str = "
routes:
- id: files.get
  match: { method: GET, path: '/files/{id}' }
  legacy: plain
  workflow: download
  state: STATE
  force: { reason: a test }
  keep: none
  deadline: 10s
";

/// A test whose service `files` has this URL and these settings; `more` are further lines of pointsman.yaml.
pub async fn test_of(url: &str, settings: &str, more: &str, workflow: &str, state: &str) -> EngineTest {
    let more = format!("  files: {{ urls: ['{url}']{settings} }}\n{more}");
    let routes = ROUTES.replace("STATE", state);
    let mut test = EngineTest::with_settings(&more, &[workflow], |flags| flags.write("routes/all.yaml", &routes)).await;
    test.allowed.keep_none_routes.push("files.get");
    test
}

/// A test of [`DOWNLOAD`] and its service.
pub async fn test(settings: &str, more: &str) -> (EngineTest, RawService) {
    let service = RawService::start().await;
    (test_of(&service.url(), settings, more, DOWNLOAD, "only").await, service)
}

/// Sends a GET; the connection, and the call that results from it.
pub async fn get(test: &EngineTest, service: &RawService, fields: &str) -> (RawConnection, RawCall) {
    let mut client = RawConnection::connect(test.pointsman.listen).await;
    client.send(format!("GET /files/1 HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
    (client, service.call().await)
}

pub const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n";

/// A request over HTTP/2; the head of the reply and its body.
pub async fn get_over_http2(test: &EngineTest) -> http::Response<h2::RecvStream> {
    let socket = TcpStream::connect(test.pointsman.listen).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get("http://a/files/1").header("te", "trailers").body(()).expect("a request");
    let mut requests = requests.ready().await.expect("room for a stream");
    let (response, _) = requests.send_request(request, true).expect("a stream");
    tokio::time::timeout(WAIT_MAX, response).await.expect("a reply in time").expect("a reply")
}

/// The rest of a body and its trailers; an error where it is cut.
pub async fn rest_of(body: &mut h2::RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let reading = async {
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            let _room = body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        Ok((all, body.trailers().await?.unwrap_or_default()))
    };
    tokio::time::timeout(WAIT_MAX, reading).await.expect("an end in time")
}

impl EngineTest {
    /// The number of calls in flight to the service `files`, as the API shows it.
    pub async fn calls_in_flight(&self) -> Value {
        let services = self.pointsman.get("/api/v2/services").await;
        let all = services["services"].as_array().or(services.as_array()).expect("a list").clone();
        let files = all.into_iter().find(|service| service["name"] == "files").expect("the service");
        files["in_flight"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_reaches_the_caller_while_the_service_sends_it_and_its_connection_is_used_again() {
    let (test, service) = test(", calls_max: 1", "").await;
    let (mut client, mut call) = get(&test, &service, "").await;
    assert!(call.head.starts_with("GET /files/1 "), "{}", call.head);
    call.send(format!("{CHUNKED}5\r\nfirst\r\n")).await;
    let begun = client.read_until("first").await;
    assert!(begun.starts_with("HTTP/1.1 200") && begun.contains("content-type: image/png\r\n"), "{begun}");
    assert_eq!(test.calls_in_flight().await, 1);
    call.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert!(client.read_until("0\r\n\r\n").await.contains("last"));

    // The same connections, with a length. `calls_max` is 1, so the permit was returned too.
    for id in [2, 3] {
        client.send(format!("GET /files/{id} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        call.next().await;
        assert!(call.head.starts_with(&format!("GET /files/{id} ")), "{}", call.head);
        call.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n123").await;
        let begun = client.read_until("123").await;
        assert!(begun.contains("content-length: 6\r\n") && !begun.contains("content-type"), "{begun}");
        call.send("456").await;
        client.read_until("456").await;
    }
    assert_eq!(test.calls_in_flight().await, 0);
    // JSON and text are passed on as they are, over HTTP/2 as well.
    let (asked, answered) = tokio::join!(get_over_http2(&test), async {
        call.next().await;
        call.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{ \"a\"").await
    });
    assert!(answered);
    assert_eq!(asked.headers()["content-type"], "application/json");
    assert_eq!(asked.headers()["content-length"], "9");
    let mut body = asked.into_body();
    let begun = tokio::time::timeout(WAIT_MAX, body.data()).await.expect("in time").expect("data").expect("data");
    assert_eq!(begun, "{ \"a\"");
    call.send(":1 }").await;
    assert_eq!(rest_of(&mut body).await.expect("a whole body").0, b":1 }");

    let metrics = test.pointsman.metrics().await;
    let completed = [("workflow", "download"), ("mode", "real"), ("outcome", "completed")];
    assert_eq!(metrics.sum("pointsman_runs_total", &completed), 4.0);
    assert_eq!(metrics.sum("pointsman_exchanges_cut_total", &[]), 0.0);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_take_constant_memory() {
    const BYTES: u64 = 200 << 20;
    let bulk_server = BulkServer::start().await;
    let test = test_of(&bulk_server.url(), "", "", DOWNLOAD, "only").await;
    let download = async |bytes: u64| {
        let mut stream = TcpStream::connect(test.pointsman.listen).await.expect("a connection");
        let request = format!("GET /files/{bytes} HTTP/1.1\r\nhost: a\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("a head is taken");
        let mut buffer = vec![0; CHUNK];
        let reply = read_head(&mut stream, &mut buffer).await.expect("an answer");
        assert_eq!((reply.line.as_str(), reply.length), ("http/1.1 200 ok", bytes));
        discard(&mut stream, &mut buffer, bytes - reply.body_bytes_read).await.expect("the whole body");
    };
    download(1 << 20).await;
    let base = test.pointsman.reset_peak();
    download(BYTES).await;
    let grown = test.pointsman.peak_kib().saturating_sub(base);
    eprintln!("{BYTES} bytes: memory grew by {grown} KiB");
    assert!(grown < 32 << 10, "memory grew by {grown} KiB");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_passed_on() {
    let (test, service) = test("", "").await;
    let reply =
        format!("{}3\r\nabc\r\n0\r\nx-sum: 17\r\n\r\n", CHUNKED.replace("\r\n\r\n", "\r\ntrailer: x-sum\r\n\r\n"));
    let (mut client, mut call) = get(&test, &service, "te: trailers\r\n").await;
    call.send(&reply).await;
    let got = client.read_until("x-sum: 17\r\n\r\n").await;
    assert!(got.contains("trailer: x-sum\r\n"), "{got}");
    let (asked, ()) = tokio::join!(get_over_http2(&test), async {
        call.next().await;
        call.send(&reply).await;
    });
    let (body, trailers) = rest_of(&mut asked.into_body()).await.expect("a whole body");
    assert_eq!(body, b"abc");
    assert_eq!(trailers["x-sum"], "17");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_speaks_http2_streams_too() {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let test = test_of(&url, ", http: 2, calls_max: 1", "", DOWNLOAD, "only").await;
    let (calls, mut streams) = tokio::sync::mpsc::channel(1);
    let serving = tokio::spawn(async move {
        // Before a stream is cut, all calls come over one connection, and over another one afterwards.
        for _ in 0..2 {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = http::Response::builder().header("content-type", "text/csv").body(()).expect("a head");
                let mut send = respond.send_response(head, false).expect("an open stream");
                send.send_data(Bytes::from_static(b"a,b\n"), false).expect("an open stream");
                calls.send(send).await.expect("the test goes on");
            }
        }
    });
    let mut get = async || {
        let (asked, send) = tokio::join!(get_over_http2(&test), streams.recv());
        assert_eq!(asked.headers()["content-type"], "text/csv");
        let mut body = asked.into_body();
        let begun = tokio::time::timeout(WAIT_MAX, body.data()).await.expect("in time").expect("data").expect("data");
        assert_eq!(&begun[..], b"a,b\n");
        (body, send.expect("a call"))
    };
    let (mut body, mut send) = get().await;
    let trailers = [("x-sum".parse().expect("a name"), "18".parse().expect("a value"))].into_iter().collect();
    send.send_trailers(trailers).expect("an open stream");
    assert_eq!(rest_of(&mut body).await.expect("a whole body").1["x-sum"], "18");
    let (mut body, mut send) = get().await;
    send.send_reset(h2::Reason::CANCEL);
    let error = rest_of(&mut body).await.expect_err("the service has cut it");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    let (body, mut send) = get().await;
    drop(body);
    let reset = tokio::time::timeout(WAIT_MAX, std::future::poll_fn(|cx| send.poll_reset(cx))).await;
    assert_eq!(reset.expect("a reset in time").expect("the connection is open"), h2::Reason::CANCEL);
    let (mut body, mut send) = get().await;
    send.send_data(Bytes::new(), true).expect("an open stream");
    rest_of(&mut body).await.expect("a whole body");
    test.finish().await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gets_no_body_closes_the_connection_to_the_service() {
    let service = RawService::start().await;
    let workflow = DOWNLOAD.replace("status: 200,", "status: 200, headers: { etag: '${steps.file.headers.etag}' },");
    let test = test_of(&service.url(), ", calls_max: 1", "", &workflow, "only").await;
    let head = "HTTP/1.1 200 OK\r\netag: \"v7\"\r\ncontent-length: 1000\r\n\r\nsome";
    let mut client = RawConnection::connect(test.pointsman.listen).await;
    for (method, fields, status) in [("HEAD", "", 200), ("GET", "if-none-match: \"v7\"\r\n", 304), ("HEAD", "", 200)] {
        client.send(format!("{method} /files/1 HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        let mut call = service.call().await;
        assert!(call.head.starts_with("GET "), "{}", call.head);
        call.send(head).await;
        let reply = client.read_until("\r\n\r\n").await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")) && reply.ends_with("\r\n\r\n"), "{reply}");
        assert!(reply.contains("etag: \"v7\"\r\n"), "{reply}");
        assert_eq!(reply.contains("content-length: 1000\r\n"), method == "HEAD", "{reply}");
        call.closed().await;
    }
    // The client's connection can still be used: no bytes of an earlier body are left on it.
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    service.call().await.send("HTTP/1.1 200 OK\r\netag: \"v8\"\r\ncontent-length: 2\r\n\r\nok").await;
    assert!(client.read_until("ok").await.contains("\"v8\""));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_replies_are_read_as_a_whole() {
    let (test, service) = test("", "").await;
    // A status that is not accepted: the call is repeated.
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno").await;
    call.next().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.read_until("\r\n\r\nok").await;
    // Refused.
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.next().await;
    call.send("HTTP/1.1 404 None\r\ncontent-length: 2\r\n\r\nno").await;
    let refused = client.reply().await;
    assert_eq!(refused.status, 502, "{}", String::from_utf8_lossy(&refused.body));
    // Empty.
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.next().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/csv\r\ncontent-length: 0\r\n\r\n").await;
    let empty = client.reply().await;
    assert_eq!((empty.status, empty.header("content-type"), empty.body.len()), (200, Some("text/csv"), 0));
    // Encoded, although nobody asked for that.
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"decoded").expect("memory takes it");
    let encoded = encoder.finish().expect("memory takes it");
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.next().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-type: text/csv\r\n";
    call.send(format!("{head}content-length: {}\r\n\r\n", encoded.len())).await;
    call.send(&encoded).await;
    let decoded = client.reply().await;
    assert_eq!((decoded.header("content-encoding"), &decoded.body[..]), (None, &b"decoded"[..]));
    assert_eq!(decoded.header("content-type"), Some("text/csv"));
    // With a transfer coding that is not undone here.
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.next().await;
    call.send("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n").await;
    let refused = client.reply().await;
    let why = String::from_utf8_lossy(&refused.body);
    assert!(refused.status == 500 && why.contains("a transfer coding other than `chunked`"), "{why}");
    test.finish().await;
}

/// A second step that is refused after the head of the stream has come.
const WITH_CHECK: &str = "
workflow: download
steps:
  file: { call: 'GET ${services.files}/files/${request.params.id}', stream: true }
  may: { call: 'GET ${services.works}/rights' }
respond: { status: 200, body: '${steps.file.output}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_after_the_head_drops_the_body() {
    for state in ["only", "live"] {
        let service = RawService::start().await;
        let test = test_of(&service.url(), ", calls_max: 1", "", WITH_CHECK, state).await;
        test.step_service.set_default("GET /files", ScriptedReply::Done(200, json!({ "by": "legacy" })));
        test.step_service.hold("GET /rights");
        test.step_service.script("GET /rights", ScriptedReply::Refuse(403), 1);
        let (mut client, mut call) = get(&test, &service, "").await;
        call.send(format!("{CHUNKED}5\r\nfirst\r\n")).await;
        test.wait_for_calls("GET /rights", 1).await;
        test.step_service.release_all("GET /rights");
        let reply = client.reply().await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        match state {
            "only" => assert_eq!(reply.status, 502, "{text}"),
            _ => assert!(reply.status == 200 && text.contains("legacy"), "{text}"),
        }
        call.closed().await;
        let (mut client, mut call) = get(&test, &service, "").await;
        call.send(format!("{CHUNKED}5\r\nagain\r\n0\r\n\r\n")).await;
        client.read_until("again").await;
        test.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_shadow_and_dark_a_streamed_reply_is_read_as_a_whole_and_compared() {
    for state in ["shadow", "dark"] {
        let bytes = || ScriptedReply::Bytes("text/csv", Bytes::from_static(b"a,b\n1,2\n"));
        let workflow = DOWNLOAD.replace("services.files", "services.works").replace("${request.params.id}", "1");
        let test = test_of("http://127.0.0.1:9", "", "", &workflow, state).await;
        test.step_service.set_default("GET /files", bytes());
        let mut client = RawConnection::connect(test.pointsman.listen).await;
        for _ in 0..3 {
            let reply = client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await.reply().await;
            assert_eq!((reply.status, &reply.body[..]), (200, &b"a,b\n1,2\n"[..]));
        }
        let matched = [("route", "files.get"), ("outcome", "matched")];
        test.pointsman.until_metric("three pairs", |m| m.sum("pointsman_comparisons_total", &matched) == 3.0).await;
        // A run of the API is kept, and has the bytes as its output.
        let data = test.run("download", Value::Null).await;
        assert_eq!(data["status"], "completed", "{data}");
        test.finish().await;
    }
}

/// The body belongs to the process that has begun it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_drain_let_a_body_end() {
    let (mut test, service) = test("", "limits: { drain_ms: 20000 }\n").await;
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(format!("{CHUNKED}5\r\nfirst\r\n")).await;
    client.read_until("first").await;
    test.reload(|| {
        test.flags.edit("pointsman.yaml", |text| text.replace("urls: ['http", "calls_max: 7, urls: ['http"));
        test.flags.edit("routes/all.yaml", |text| text.replace("deadline: 10s", "deadline: 11s"));
    })
    .await;
    call.send("6\r\nsecond\r\n").await;
    client.read_until("second").await;
    test.pointsman.terminate();
    crate::support::until("the drain", || async {
        TcpStream::connect(test.pointsman.listen).await.is_err().then_some(())
    })
    .await;
    call.send("5\r\nthird\r\n").await;
    client.read_until("third").await;
    call.send("0\r\n\r\n").await;
    client.read_until("0\r\n\r\n").await;
    assert_eq!(test.pointsman.wait_for_exit().await, Some(0), "{}", test.pointsman.log());
    test.restart().await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_does_not_wait_for_a_body_and_does_not_cut_it() {
    let (mut test, service) = test("", "").await;
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(format!("{CHUNKED}5\r\nfirst\r\n")).await;
    client.read_until("first").await;
    let begun = std::time::Instant::now();
    let start = crate::support::process::Start { log: test.dir.path().join("successor.log"), ..test.start.clone() };
    let succeeded = crate::support::Pointsman::try_succeed(&start, async |_| {}).await;
    let successor = succeeded.unwrap_or_else(|log| panic!("{log}\n{}", test.pointsman.log()));
    let mut old = std::mem::replace(&mut test.pointsman, successor);
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    // The successor has the store and answers; the old process sends the rest.
    let (mut other, mut other_call) = get(&test, &service, "").await;
    other_call.send(format!("{CHUNKED}5\r\nother\r\n0\r\n\r\n")).await;
    other.read_until("other").await;
    call.send("6\r\nsecond\r\n0\r\n\r\n").await;
    client.read_until("0\r\n\r\n").await;
    assert_eq!(old.wait_for_exit().await, Some(0), "{}", old.log());
    test.finish().await;
}
