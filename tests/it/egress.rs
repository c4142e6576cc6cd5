//! Legacy's own calls through the real binary: they are passed on unchanged, by base URL and as a proxy, also when the
//! service fails, until the end of a drain, and by the successor of the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::bulk_server::{BulkServer, CHUNK, discard, read_head, send_bytes};
use crate::support::collector::Collector;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::raw_connection::{RawConnection, RawReply};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until, until_true};

/// A process with a bank that legacy calls.
struct EgressSystem {
    pointsman: Pointsman,
    start: Start,
    access_log: PathBuf,
    _flags: FlagsDir,
    _dir: TempDir,
}

impl EgressSystem {
    /// `egress` are further keys of the listener, `more` further lines of pointsman.yaml.
    async fn start(legacy: &str, bank: &str, egress: &str, more: &str) -> Self {
        let flags = FlagsDir::passthrough(legacy);
        let dir = tempfile::tempdir().expect("a directory");
        let access_log = dir.path().join("access.log");
        flags.edit("pointsman.yaml", |text| {
            text.replace("default_legacy", &format!("  bank: {bank}\ndefault_legacy"))
                + &format!("egress: {{ listen: 127.0.0.1:0{egress} }}\n")
                + &format!("access_log: {{ file: {} }}\n{more}", access_log.display())
        });
        let store = format!("sqlite:{}", dir.path().join("db").display());
        let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, start, access_log, _flags: flags, _dir: dir }
    }
    /// With a bank and default settings; clients' requests find no legacy.
    async fn with_bank(bank: &str) -> Self {
        Self::start("http://127.0.0.1:9", bank, "", "").await
    }
    fn egress(&self) -> SocketAddr {
        self.pointsman.egress.expect("an egress listener")
    }
    /// One request on a connection of its own.
    async fn call(&self, request: &str) -> RawReply {
        RawConnection::connect(self.egress()).await.send(request).await.reply().await
    }
    async fn get(&self, path: &str) -> RawReply {
        self.call(&format!("GET {path} HTTP/1.1\r\nhost: egress\r\n\r\n")).await
    }
    /// Runs curl with this listener as its proxy.
    async fn curl(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let proxy = format!("http://{}", self.egress());
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "", "--max-time", "30", "--proxy", &proxy])
            .args(arguments)
            .output();
        let output = tokio::time::timeout(WAIT_MAX, output).await.expect("it ends").expect("curl is on this machine");
        (output.status.code(), output_text(&output))
    }
    /// The line of the access log with this target.
    async fn line(&self, target: &str) -> Value {
        until("a line of the access log", || async {
            let text = std::fs::read_to_string(&self.access_log).ok()?;
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .find(|line: &Value| line["target"] == target)
        })
        .await
    }
}

/// A service that records the bytes of one request after the other, whole, and answers 200.
async fn recording_service() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let recorded = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let recorded = recorded.clone();
            tokio::spawn(async move {
                let (mut seen, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..n]);
                    if seen.ends_with(b"END") {
                        recorded.lock().expect("unpoisoned").push(std::mem::take(&mut seen));
                        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Bank: yes\r\nX-bank: Yes\r\n\r\nok";
                        let _sent = stream.write_all(reply).await;
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_at_the_service_and_of_its_reply_are_those_of_a_direct_call() {
    let (bank, recorded) = recording_service().await;
    let system = EgressSystem::with_bank(&format!("http://{bank}")).await;
    let request = |target: &str, host: &str, hop: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: 7\r\naccept: */*\r\nCookie: a=1; b=2\r\n\
             X-Forwarded-For: 10.1.1.1\r\nX-request-id: 8\r\n{hop}Content-Length: 7\r\n\r\nbodyEND"
        )
    };
    let (target, host) = ("/a//b/../c;d%2F%7e?q=%20&q=+", bank.to_string());
    let raw = async |to: SocketAddr, request: String| {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let (mut reply, mut buffer) = (Vec::new(), [0; 4096]);
        while !reply.ends_with(b"\r\n\r\nok") {
            let n = tokio::time::timeout(WAIT_MAX, stream.read(&mut buffer)).await.expect("in time").expect("a reply");
            assert!(n > 0, "{}", String::from_utf8_lossy(&reply));
            reply.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8(reply).expect("text")
    };
    let direct = raw(bank, request(target, &host, "")).await;
    let hop = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nProxy-Authorization: Basic eDp5\r\n";
    let by_base = raw(system.egress(), request(&format!("/bank{target}"), "legacy.test:8090", hop)).await;
    let by_proxy = raw(system.egress(), request(&format!("http://{host}{target}"), &host, hop)).await;
    let recorded = recorded.lock().expect("unpoisoned").clone();
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    // The process groups the values of one name.
    let grouped =
        text(&recorded[0]).replace("X-request-id: 8\r\n", "").replace("7\r\naccept", "7\r\nX-request-id: 8\r\naccept");
    assert_eq!(text(&recorded[1]), grouped, "by base URL");
    assert_eq!(text(&recorded[2]), grouped, "as a proxy");
    // The service sends no `date`, and hyper adds one.
    let without_date = |reply: String| -> Vec<String> {
        reply.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("date:")).map(str::to_owned).collect()
    };
    assert_eq!(without_date(by_base), without_date(direct.clone()));
    assert_eq!(without_date(by_proxy), without_date(direct));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_uses_the_listener_as_its_proxy_with_and_without_a_tunnel() {
    let (bank, other) = (Origin::start(OriginReply::Json("{}")).await, Origin::start(OriginReply::Json("[1]")).await);
    let to = format!(", to: ['{}']", other.address());
    let system = EgressSystem::start("http://127.0.0.1:9", &bank.url(), &to, "").await;
    let (bank_url, other_url) = (format!("{}/x?y=1", bank.url()), format!("{}/x?y=2", other.url()));
    for (arguments, expected) in [
        (vec![bank_url.as_str()], "{}"),
        (vec![other_url.as_str()], "[1]"),
        (vec!["--proxytunnel", bank_url.as_str()], "{}"),
        (vec!["--proxytunnel", other_url.as_str()], "[1]"),
    ] {
        let (code, text) = system.curl(&arguments).await;
        assert_eq!((code, text.as_str()), (Some(0), expected), "{arguments:?}");
    }
    assert_eq!((bank.count(), other.count()), (2, 2));
    let metrics = system
        .pointsman
        .until_metric("the tunnels to be counted", |m| {
            m.sum("pointsman_egress_unseen_total", &[("kind", "tunnel")]) == 2.0
        })
        .await;
    let answered = [("route", "egress:bank"), ("answered_by", "service"), ("code_class", "2xx")];
    system.pointsman.until_metric("both calls", |m| m.sum("pointsman_requests_total", &answered) == 2.0).await;
    assert_eq!(metrics.sum("pointsman_egress_unseen_total", &[("target", "bank")]), 1.0);
    let tunnel = system.line(&bank.address().to_string()).await;
    assert_eq!((&tunnel["method"], &tunnel["route"]), (&"CONNECT".into(), &"egress:bank".into()));
    assert!(tunnel["reply_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{tunnel}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_is_no_open_proxy() {
    let (bank, other) = (Origin::start(OriginReply::Json("{}")).await, Origin::start(OriginReply::Json("{}")).await);
    let system = EgressSystem::with_bank(&bank.url()).await;
    let (code, text) = system.curl(&["--fail", &other.url()]).await;
    assert!(code == Some(22) && text.contains("403"), "{code:?} {text}");
    let (code, text) = system.curl(&["--proxytunnel", &other.url()]).await;
    assert!(code == Some(56) && text.contains("403"), "{code:?} {text}");
    // Requests to the process's own listeners are refused.
    for address in [system.pointsman.admin, system.pointsman.listen, system.egress()] {
        let (code, text) = system.curl(&["--proxytunnel", &format!("http://localhost:{}/", address.port())]).await;
        assert!(code == Some(56) && text.contains("403"), "{code:?} {text}");
    }
    assert_eq!(system.get("/other/x").await.status, 404);
    assert_eq!((bank.count(), other.count()), (0, 0));
    let refused = [("route", "egress"), ("reason", "egress-not-listed")];
    assert_eq!(system.pointsman.metrics().await.sum("pointsman_refusals_total", &refused), 5.0);
}

/// The process's own address is listed under `to:`: the request would come back to the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_listed_address_that_is_this_process_is_refused() {
    let bank = Origin::start(OriginReply::Json("{}")).await;
    // Held until the process has started, so that nobody else gets the port.
    let held = TcpListener::bind(LOCAL).await.expect("a port");
    let port = held.local_addr().expect("an address").port();
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    flags.edit("pointsman.yaml", |text| {
        text.replace("default_legacy", &format!("  bank: {}\ndefault_legacy", bank.url()))
            + &format!("listen: 127.0.0.1:{port}\negress: {{ listen: 127.0.0.1:0, to: ['localhost:{port}'] }}\n")
    });
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    drop(held);
    let pointsman = Pointsman::try_start_with_own_listeners(&start).await.unwrap_or_else(|log| panic!("{log}"));
    let egress = pointsman.egress.expect("an egress listener");
    for request in [
        format!("GET http://localhost:{port}/x HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n"),
        format!("CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n"),
    ] {
        let reply = RawConnection::connect(egress).await.send(&request).await.reply().await;
        assert_eq!(reply.status, 508, "{request}{}", String::from_utf8_lossy(&reply.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_head_cannot_be_read_gets_a_reason_and_is_counted() {
    let system = EgressSystem::with_bank("http://127.0.0.1:9").await;
    let reply = system.get("/bank/x?\"a\"<b>").await;
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/problem+json")), "{body}");
    assert!(body.contains("urn:pointsman:problem:malformed-head") && body.contains("percent-encoded"), "{body}");
    let labels = [("reason", "malformed-head")];
    let counted = |metrics: &crate::support::Metrics| metrics.sum("pointsman_refusals_total", &labels) == 1.0;
    system.pointsman.until_metric("it is counted", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_slow_cut_or_doubled_are_passed_on() {
    let bank = Origin::start(OriginReply::Json("{\"id\":1}")).await;
    let system = EgressSystem::with_bank(&format!("{{ urls: ['{}'], first_byte: 2s }}", bank.url())).await;
    let post = "POST /bank/charges HTTP/1.1\r\nhost: egress\r\ncontent-length: 4\r\n\r\nbody";
    // The same call sent twice is passed on twice.
    for _ in 0..2 {
        assert_eq!(system.call(post).await.body, b"{\"id\":1}");
    }
    assert_eq!(bank.count(), 2);
    bank.script(OriginReply::Slow(Duration::from_millis(150), "{\"late\":1}"), 1);
    assert_eq!(system.call(post).await.body, b"{\"late\":1}");
    bank.script(OriginReply::Status(503), 1);
    assert_eq!(system.call(post).await.status, 503, "the service's own");
    for (fault, status) in [(OriginReply::Close, 502), (OriginReply::Stall, 504)] {
        let before = bank.count();
        bank.script(fault, 1);
        let reply = system.call(post).await;
        assert_eq!((reply.status, bank.count()), (status, before + 1), "not sent again");
        assert_eq!(reply.header("x-pointsman-source"), Some("proxy"));
    }
    for cut in [OriginReply::CutMidBody, OriginReply::CutMidChunks] {
        bank.script(cut, 1);
        let reply = RawConnection::connect(system.egress()).await.send(post).await.read_to_close().await;
        let text = String::from_utf8_lossy(&reply);
        assert!(text.starts_with("HTTP/1.1 200") && !text.ends_with("0\r\n\r\n"), "{text}");
    }
    let line = system.line("/bank/charges").await;
    for (key, value) in [("route", "egress:bank"), ("arm", "service"), ("service", "bank"), ("method", "POST")] {
        assert_eq!(line[key], value, "{line}");
    }
    let of_bank = |class| [("route", "egress:bank"), ("answered_by", "service"), ("code_class", class)];
    let metrics = system
        .pointsman
        .until_metric("the cut calls", |m| m.sum("pointsman_requests_total", &of_bank("cut")) == 2.0)
        .await;
    assert_eq!(metrics.sum("pointsman_requests_total", &of_bank("2xx")), 3.0);
    assert_eq!(metrics.sum("pointsman_requests_total", &[("route", "default")]), 0.0, "no client asked anything");
    let status = system.pointsman.cli(&["status"]).await;
    let text = output_text(&status);
    assert!(text.contains(&format!("egress on {}  8 calls", system.egress())), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_in_constant_memory() {
    const BYTES: u64 = 512 << 20;
    let bank = BulkServer::start().await;
    let system = EgressSystem::with_bank(&bank.url()).await;
    let down = async |bytes: u64| {
        let mut stream = TcpStream::connect(system.egress()).await.expect("a connection");
        let request = format!("GET /bank/down/{bytes} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a head is taken");
        let mut buffer = vec![0; CHUNK];
        let reply = read_head(&mut stream, &mut buffer).await.expect("an answer");
        discard(&mut stream, &mut buffer, reply.length - reply.body_bytes_read).await.expect("the whole body");
    };
    let up = async |bytes: u64| {
        let mut stream = TcpStream::connect(system.egress()).await.expect("a connection");
        let request = format!("POST /bank/up HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a head is taken");
        send_bytes(&mut stream, bytes).await.expect("the body is taken");
        let reply = read_head(&mut stream, &mut vec![0; CHUNK]).await.expect("an answer");
        assert!(reply.line.starts_with("http/1.1 200"), "{}", reply.line);
    };
    tokio::join!(down(1 << 20), up(1 << 20));
    let base = system.pointsman.reset_peak();
    tokio::join!(down(BYTES), up(BYTES));
    let grown = system.pointsman.peak_kib().saturating_sub(base);
    eprintln!("{BYTES} bytes each way: memory grew by {grown} KiB");
    assert!(grown < 32 << 10, "memory grew by {grown} KiB");
}

/// How often [`calling_legacy`] calls the bank for one request: a drain may begin before the last of these calls.
const CALLS: usize = 3;

/// A legacy that calls the bank for each request, each time over a connection of its own, before it answers.
async fn calling_legacy(egress: Arc<OnceLock<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let egress = egress.clone();
            tokio::spawn(async move {
                let (mut head, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    head.extend_from_slice(&buffer[..n]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    head.clear();
                    let to = *egress.get().expect("it is known");
                    let mut status = 0;
                    for _ in 0..CALLS {
                        status = match TcpStream::connect(to).await {
                            Ok(call) => call_bank(call).await,
                            Err(_) => 599,
                        };
                        if status != 200 {
                            break;
                        }
                    }
                    let reply = format!("HTTP/1.1 {status} Done\r\ncontent-length: 0\r\n\r\n");
                    let _sent = stream.write_all(reply.as_bytes()).await;
                }
            });
        }
    });
    address
}

/// Sends a call to the bank, and returns the status of the answer.
async fn call_bank(mut call: TcpStream) -> u16 {
    let request = b"POST /bank/charges HTTP/1.1\r\nhost: egress\r\ncontent-length: 4\r\n\r\nbody";
    let _sent = call.write_all(request).await;
    let mut buffer = [0; 4096];
    let n = call.read(&mut buffer).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(598)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_legacy_call_until_the_last_client_has_its_answer() {
    let bank = Origin::start(OriginReply::Slow(Duration::from_millis(100), "{}")).await;
    let egress = Arc::<OnceLock<SocketAddr>>::default();
    let legacy = calling_legacy(egress.clone()).await;
    let mut system = EgressSystem::start(&format!("http://{legacy}"), &bank.url(), "", "").await;
    egress.set(system.egress()).expect("once");
    let answered = AtomicUsize::new(0);
    let listen = system.pointsman.listen;
    let client = async || {
        loop {
            // A request without any reply was not begun: the listener or the connection was closed.
            let Ok(mut stream) = TcpStream::connect(listen).await else { return };
            let _sent = stream.write_all(b"GET /order HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut buffer = [0; 4096];
            let n = stream.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            let text = String::from_utf8_lossy(&buffer[..n]);
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            answered.fetch_add(1, SeqCst);
        }
    };
    let terminating = async {
        until_true("traffic", || answered.load(SeqCst) >= 40).await;
        system.pointsman.terminate();
    };
    tokio::join!(futures_util::future::join_all((0..8).map(|_| client())), terminating);
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0), "{}", system.pointsman.log());
    assert!(TcpStream::connect(system.egress()).await.is_err(), "nobody listens any more");
    assert!(answered.load(SeqCst) >= 40 && bank.count() >= CALLS * answered.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_the_listener_over() {
    let bank = Origin::start(OriginReply::Json("{}")).await;
    let mut system = EgressSystem::with_bank(&bank.url()).await;
    let egress = system.egress();
    assert_eq!(system.get("/bank/1").await.status, 200);
    let start = Start { log: system.start.log.with_file_name("successor.log"), ..system.start.clone() };
    let succeeded = Pointsman::try_succeed(&start, async |_| {}).await;
    let mut before = std::mem::replace(&mut system.pointsman, succeeded.unwrap_or_else(|log| panic!("{log}")));
    assert_eq!(system.egress(), egress, "the same socket");
    assert_eq!(before.wait_for_exit().await, Some(0), "{}", before.log());
    assert_eq!(system.get("/bank/2").await.status, 200);
    // The successor served it. It counts a call when it has passed the reply on.
    until("the call to be counted", || async {
        (system.pointsman.get("/api/v2/status").await["egress"]["calls"] == 1).then_some(())
    })
    .await;
    assert_eq!(bank.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_belong_to_the_trace_that_legacy_names_and_the_header_stays() {
    let collector = Collector::start().await;
    let bank = Origin::start(OriginReply::Json("{}")).await;
    let traces = format!("traces: {{ otlp: '{}' }}\n", collector.url());
    let mut system = EgressSystem::start("http://127.0.0.1:9", &bank.url(), "", &traces).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{parent}-01");
    let request = format!("GET /bank/x HTTP/1.1\r\nhost: egress\r\ntraceparent: {traceparent}\r\n\r\n");
    assert_eq!(system.call(&request).await.status, 200);
    assert_eq!(system.get("/bank/y").await.status, 200);
    let seen = bank.seen();
    assert_eq!(seen[0].header("traceparent"), Some(traceparent.as_str()));
    assert_eq!(seen[1].header("traceparent"), None);
    assert_eq!(system.pointsman.stop().await, Some(0));
    let spans = collector.spans(4).await;
    let named = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.trace == trace && span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {spans:#?}");
        found[0].clone()
    };
    let (exchange, call) = (named("GET egress:bank"), named("service"));
    assert_eq!((exchange.parent.as_str(), call.parent.as_str()), (parent, exchange.id.as_str()));
    assert_eq!(call.attribute("pointsman.service"), "Str(bank)");
}
