//! Legacy is slow, dead or flapping, or violates HTTP: each request ends within its bounds, with a 502, a 504 or an
//! answer that is visibly cut; requests to another service are answered meanwhile, and no socket is left open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use pointsman::demo::http::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::test_system::short_pause;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until, until_true};

/// Requests that meet each kind of answer at once.
const REQUESTS_OF_EACH: usize = 6;
/// How much later than its limit a request may end on a busy machine.
const LATE: Duration = Duration::from_secs(20);
const LIMITS: &str = "limits: { first_byte_ms: 500, body_idle_ms: 500, total_ms: 1500, connect_ms: 500, \
     service_idle_ms: 1000, linger_ms: 300 }\n";

/// One act of legacy on a connection; a fault is a sequence of them.
#[derive(Clone, Copy)]
enum Act {
    Send(&'static str),
    /// Sends the text repeatedly, as fast as the connection takes it.
    Repeat(&'static str),
    /// Sends the text repeatedly, with pauses that are shorter than the limit on the pause between two bytes.
    Drip(&'static str),
    Close,
    Reset,
    /// Sends nothing more, and keeps the connection open.
    Hang,
}
use Act::{Close, Drip, Hang, Repeat, Reset, Send};

/// What a client gets.
enum Expected {
    /// One of these statuses, with a problem document of the proxy.
    Problem(&'static [u16]),
    /// An answer that the client can see is incomplete.
    Cut,
    /// A complete answer with this body.
    Whole(&'static str),
}
use Expected::{Cut, Problem, Whole};

const TEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nonly\r\n";

#[rustfmt::skip]
const FAULTS: &[(&str, &[Act], Expected)] = &[
    ("stalls before the head", &[Hang], Problem(&[504])),
    ("stalls within the head", &[Send("HTTP/1.1 200 OK\r\ncontent-le"), Hang], Problem(&[504])),
    ("stalls within the body", &[Send(TEN), Send("half"), Hang], Cut),
    ("stalls between chunks", &[Send(CHUNKED), Hang], Cut),
    ("drips a head", &[Send("HTTP/1.1 200 OK\r\n"), Drip("x-a: b\r\n")], Problem(&[502, 504])),
    ("drips a body", &[Send("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"), Drip("x")], Cut),
    ("drips interim answers", &[Drip("HTTP/1.1 103 Early Hints\r\n\r\n")], Problem(&[502, 504])),
    ("floods with interim answers", &[Repeat("HTTP/1.1 103 Early Hints\r\n\r\n")], Problem(&[502, 504])),
    ("sends a head without end", &[Send("HTTP/1.1 200 OK\r\n"), Repeat("x-a: b\r\n")], Problem(&[502])),
    ("closes before the head", &[Close], Problem(&[502])),
    ("resets before the head", &[Reset], Problem(&[502])),
    ("closes within the head", &[Send("HTTP/1.1 200 OK\r\ncontent-le"), Close], Problem(&[502])),
    ("resets within the head", &[Send("HTTP/1.1 200 OK\r\ncontent-le"), Reset], Problem(&[502])),
    ("closes within the body", &[Send(TEN), Send("half"), Close], Cut),
    ("resets within the body", &[Send(TEN), Send("half"), Reset], Cut),
    ("closes between chunks", &[Send(CHUNKED), Close], Cut),
    ("resets between chunks", &[Send(CHUNKED), Reset], Cut),
    ("closes within the size of a chunk", &[Send(CHUNKED), Send("1"), Close], Cut),
    ("sends a chunk size that is none", &[Send(CHUNKED), Send("zz\r\nhalf\r\n0\r\n\r\n"), Close], Cut),
    ("sends a chunk longer than its size", &[Send(CHUNKED), Send("2\r\ntoo long\r\n0\r\n\r\n"), Close], Cut),
    ("sends more than the length", &[Send(TEN), Send("0123456789and more"), Close], Whole("0123456789")),
    ("sends half a JSON of the right length", &[Send(TEN), Send("{\"id\": 1, "), Close], Whole("{\"id\": 1, ")),
    ("speaks another protocol", &[Send("SSH-2.0-OpenSSH_9.2\r\n"), Hang], Problem(&[502])),
    ("speaks another version", &[Send("HTTP/9.9 200 OK\r\n\r\n"), Hang], Problem(&[502])),
    ("answers with a status that is none", &[Send("HTTP/1.1 abc OK\r\n\r\n"), Hang], Problem(&[502])),
    ("declares a negative length", &[Send("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), Hang], Problem(&[502])),
    ("declares two lengths", &[Send("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), Hang],
        Problem(&[502])),
    ("uses an unknown coding", &[Send("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab"), Close], Problem(&[502])),
    ("sends a field with a control character", &[Send("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n"), Hang],
        Problem(&[502])),
    ("answers 200 without a length, and resets", &[Send("HTTP/1.1 200 OK\r\n\r\nhalf"), Reset], Cut),
];

/// A legacy that performs on each connection the acts that are set when it accepts it.
struct FaultyService {
    address: SocketAddr,
    task: tokio::task::AbortHandle,
}

impl Drop for FaultyService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultyService {
    async fn start(acts: Arc<std::sync::Mutex<&'static [Act]>>) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acts = *acts.lock().expect("unpoisoned");
                connections.spawn(perform(stream, acts));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, task: task.abort_handle() }
    }
}

/// Reads a head, and then performs the acts.
async fn perform(mut stream: TcpStream, acts: &[Act]) -> Option<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        seen.extend_from_slice(&piece[..count]);
    }
    for act in acts {
        match act {
            Send(text) => stream.write_all(text.as_bytes()).await.ok()?,
            Repeat(text) => loop {
                stream.write_all(text.repeat(100).as_bytes()).await.ok()?;
            },
            Drip(text) => loop {
                stream.write_all(text.as_bytes()).await.ok()?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            },
            Close => return None,
            Reset => {
                // The bytes sent so far have to arrive first: a reset discards those on their way.
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.set_zero_linger().ok()?;
                return None;
            }
            // Keeps the connection open until the other side closes.
            Hang => while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {},
        }
    }
    Some(())
}

/// Sends a request, and compares the answer with the expected one. Returns how long it took; an error says what is
/// wrong.
async fn ask(to: SocketAddr, expected: &Expected) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let request = b"GET /bad HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("a head is taken");
    let mut answer = Vec::new();
    // An error means that the connection was reset, which is one way to cut an answer.
    let read = tokio::time::timeout(WAIT_MAX, stream.read_to_end(&mut answer)).await;
    let was_reset = read.map_err(|_| "it does not end")?.is_err();
    let took = begun.elapsed();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status: u16 = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let is_whole = !was_reset
        && match length {
            Some(length) => body.len() == length,
            None => !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"),
        };
    let is_right = match expected {
        Problem(statuses) => statuses.contains(&status) && is_whole && head.contains("x-pointsman-source: proxy"),
        Cut => (status == 200 || status == 0) && !is_whole,
        Whole(expected) => status == 200 && is_whole && body == *expected,
    };
    if is_right { Ok(took) } else { Err(format!("{text:?}, reset: {was_reset}, after {took:?}")) }
}

/// A process with two services: `shop`, the faulty default legacy, and `good`, which is the legacy of a route.
async fn start(shop: SocketAddr, good: &Origin) -> (FlagsDir, tempfile::TempDir, Pointsman) {
    let flags = FlagsDir::empty();
    let good = good.url();
    let text = format!("services:\n  shop: http://{shop}\n  good: {good}\ndefault_legacy: shop\n{LIMITS}");
    flags.write("pointsman.yaml", &text);
    // The short timeouts are for the faulty service only: on a busy machine the good one may need longer.
    let route = "routes:\n  - id: good\n    match: { method: GET, path: /good }\n    legacy: good\n    state: off\n    \
         timeouts: { first_byte: 30s, idle: 30s, total: 30s }\n";
    flags.write("routes/good.yaml", route);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let pointsman = Pointsman::start(&start).await;
    (flags, dir, pointsman)
}

/// Sends requests to the good service until `is_over`; each has to be answered. Returns their number and p99.
async fn ask_good_service(pointsman: &Pointsman, is_over: &AtomicBool) -> (usize, Duration) {
    let (client, url) = (Client::new(WAIT_MAX), format!("{}/good", pointsman.url()));
    let mut times = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let reply = client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
        assert_eq!(reply.status, 200);
        times.push(begun.elapsed());
        short_pause().await;
    }
    times.sort();
    (times.len(), times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_or_cut_reply_is_a_502_a_504_or_a_visible_cut_and_other_services_are_answered() {
    let good = Origin::start(OriginReply::Json("{}")).await;
    let acts = Arc::new(std::sync::Mutex::new(FAULTS[0].1));
    let faulty = FaultyService::start(acts.clone()).await;
    let (_flags, _dir, mut pointsman) = start(faulty.address, &good).await;
    let (files, is_over) = (pointsman.open_files(), AtomicBool::new(false));
    let base = pointsman.reset_peak();
    let failing = async {
        let (mut wrong, mut longest) = (Vec::new(), Duration::ZERO);
        for (what, fault, expected) in FAULTS {
            *acts.lock().expect("unpoisoned") = fault;
            let outcomes = join_all((0..REQUESTS_OF_EACH).map(|_| ask(pointsman.listen, expected))).await;
            for outcome in outcomes {
                match outcome {
                    Ok(took) => longest = longest.max(took),
                    Err(why) => wrong.push(format!("legacy {what}: {why}")),
                }
            }
        }
        is_over.store(true, Ordering::SeqCst);
        (wrong, longest)
    };
    let ((wrong, longest), (answered, p99)) = tokio::join!(failing, ask_good_service(&pointsman, &is_over));
    let grown = pointsman.peak_kib().saturating_sub(base);
    eprintln!(
        "{} kinds of faults, {REQUESTS_OF_EACH} requests each, {} violations; the longest took {longest:?}; {answered} \
         others answered, p99 {p99:?}; grown by {grown} KiB",
        FAULTS.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(longest < Duration::from_millis(1_500) + LATE, "{longest:?}");
    assert!(grown < 48 << 10, "grown by {grown} KiB");
    until_true("its sockets to be closed", || pointsman.open_files() <= files + 4).await;
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_comes_and_goes_fails_within_bounds_and_is_used_again() {
    let good = Origin::start(OriginReply::Json("{}")).await;
    let first = TcpListener::bind(LOCAL).await.expect("a port");
    let address = first.local_addr().expect("an address");
    drop(first);
    let (_flags, _dir, mut pointsman) = start(address, &good).await;
    let (files, is_over) = (pointsman.open_files(), AtomicBool::new(false));
    let (answered, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_up = AtomicBool::new(false);
    let flapping = async {
        for _ in 0..8 {
            let before = answered.load(Ordering::SeqCst);
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("a socket");
            socket.bind(address).expect("the port is still free");
            let listener = socket.listen(64).expect("the port is still free");
            let serving = async {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections
                        .spawn(perform(stream, &[Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Reset]));
                }
            };
            is_up.store(true, Ordering::SeqCst);
            let enough = until_true("answers", || answered.load(Ordering::SeqCst) >= before + 5);
            tokio::select! { () = serving => {}, () = enough => {} }
            is_up.store(false, Ordering::SeqCst);
            let before = failed.load(Ordering::SeqCst);
            drop(listener);
            until_true("failures", || failed.load(Ordering::SeqCst) > before).await;
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let asking = async {
        let (client, url) = (Client::new(WAIT_MAX), format!("{}/flapping", pointsman.url()));
        while !is_over.load(Ordering::SeqCst) {
            let reply = client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer, ours or legacy's");
            match reply.status.as_u16() {
                200 => answered.fetch_add(1, Ordering::SeqCst),
                502 => failed.fetch_add(1, Ordering::SeqCst),
                other => panic!("{other} {:?}", reply.body),
            };
            short_pause().await;
        }
    };
    let ((), (), (others, p99)) = tokio::join!(flapping, asking, ask_good_service(&pointsman, &is_over));
    let (answered, failed) = (answered.into_inner(), failed.into_inner());
    eprintln!("legacy came and went 8 times: {answered} answers, {failed} 502; {others} others answered, p99 {p99:?}");
    until_true("its sockets to be closed", || pointsman.open_files() <= files + 4).await;
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_a_502_and_counted_while_others_go_on() {
    let good = Origin::start(OriginReply::Json("{}")).await;
    let (flags, _dir, mut pointsman) = start(good.address(), &good).await;
    // First it resolves; then the files name a service that does not.
    flags.edit("pointsman.yaml", |text| {
        let old = format!("  shop: http://{}\n", good.address());
        assert!(text.contains(&old), "{text}");
        text.replacen(&old, "  shop: http://no-such-name.invalid:9000\n", 1)
    });
    let (client, url) = (Client::new(WAIT_MAX), pointsman.url());
    let ask = async |path: &str| {
        client.json(Method::GET, &format!("{url}{path}"), &[], &Value::Null).await.expect("an answer")
    };
    let refused = until("the new files", || async {
        let reply = ask("/bad").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(refused.status, 502);
    let problem = refused.json();
    assert!(problem["type"].as_str().is_some_and(|kind| kind.ends_with("legacy-unresolved")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Nothing was sent")), "{problem}");
    assert_eq!(ask("/good").await.status, 200, "requests to other services go on");
    let labels = [("service", "shop")];
    let counted = |metrics: &crate::support::Metrics| metrics.sum("pointsman_service_lookup_failures_total", &labels);
    pointsman.until_metric("the failed look-up to be counted", |metrics| counted(metrics) >= 1.0).await;
    let shown = until("the status to say so", || async {
        let shown = output_text(&pointsman.cli(&["status"]).await);
        shown.contains("no address is known").then_some(shown)
    })
    .await;
    assert!(shown.contains("`no-such-name.invalid` of service `shop`"), "{shown}");
    assert_eq!(pointsman.stop().await, Some(0));
}
