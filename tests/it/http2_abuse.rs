//! Clients that abuse HTTP/2: each connection is ended within a bound, or does no harm; other connections are answered
//! meanwhile, memory stays flat, and all of it is counted.

use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use pointsman::demo::http::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http2::frames::*;
use crate::support::http2::hpack::Indexing::Incremental;
use crate::support::http2::hpack::{FIRST_DYNAMIC, Name, Text, field, indexed, literal, request};
use crate::support::http2::peer;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::test_system::short_pause;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX};

/// Connections with the same abuse at once.
const CONNECTIONS: usize = 4;
/// The number of rounds (frames, or pairs of frames) within which the server has to end a connection.
const ROUNDS_MAX: u32 = 200_000;
/// The number of rounds that are written with one call.
const ROUNDS_OF_A_WRITE: u32 = 200;
/// The memory that one kind of abuse may cost.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// Requests that each healthy client makes at least.
const HEALTHY_MIN: u32 = 5;

/// A kind of abuse.
struct Abuse {
    what: &'static str,
    /// What the client sends once, before the rounds.
    begins: Vec<u8>,
    /// What the client sends in the n-th round.
    round: fn(u32) -> Vec<u8>,
}

/// A field of 4,000 bytes for the dynamic table, to which one byte refers.
fn large_field() -> Vec<u8> {
    literal(Incremental, Name::New("x-large"), Text::Plain(&"v".repeat(4_000)))
}

fn kinds() -> Vec<Abuse> {
    let (get, post) = (request("GET", &[]), request("POST", &[]));
    let open_post = headers(1, END_HEADERS, &post);
    vec![
        Abuse {
            what: "rapid reset",
            begins: Vec::new(),
            round: |n| [headers(2 * n + 1, WHOLE, &request("GET", &[])), rst_stream(2 * n + 1, CANCEL)].concat(),
        },
        Abuse {
            what: "reset within a body",
            begins: Vec::new(),
            round: |n| [headers(2 * n + 1, END_HEADERS, &request("POST", &[])), rst_stream(2 * n + 1, CANCEL)].concat(),
        },
        Abuse {
            what: "requests that the server has to reset",
            begins: Vec::new(),
            round: |n| headers(2 * n + 1, WHOLE, &request("GET", &[("te", "gzip")])),
        },
        Abuse { what: "SETTINGS", begins: Vec::new(), round: |_| settings(&[(MAX_CONCURRENT_STREAMS, 100)]) },
        Abuse { what: "empty SETTINGS", begins: Vec::new(), round: |_| settings(&[]) },
        Abuse { what: "PING", begins: Vec::new(), round: |_| ping(0, &[7; 8]) },
        Abuse { what: "empty DATA", begins: open_post.clone(), round: |_| data(1, 0, &[]) },
        Abuse { what: "DATA of padding", begins: open_post.clone(), round: |_| data(1, PADDED, &padded(&[], 0)) },
        Abuse { what: "empty CONTINUATION", begins: headers(1, END_STREAM, &get), round: |_| continuation(1, 0, &[]) },
        Abuse {
            what: "CONTINUATION without end",
            begins: headers(1, END_STREAM, &get),
            round: |_| continuation(1, 0, &field("x-more", "0123456789")),
        },
        Abuse { what: "WINDOW_UPDATE of 1", begins: Vec::new(), round: |_| window_update(0, 1) },
        Abuse { what: "WINDOW_UPDATE of 1 for a stream", begins: open_post.clone(), round: |_| window_update(1, 1) },
        Abuse { what: "PRIORITY", begins: Vec::new(), round: |n| priority(2 * n + 1, 0, false, 1) },
        Abuse { what: "unknown frames", begins: Vec::new(), round: |_| frame(0x16, 0, 0, &[]) },
    ]
}

/// Sends rounds until the server ends the connection, which it has to. Returns the number of rounds sent by then: more
/// than the server processed, because it reads and discards bytes for a while after its last frame.
async fn abuse(to: std::net::SocketAddr, kind: &Abuse) -> u32 {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        let begins = [PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[]), &kind.begins].concat();
        writing.write_all(&begins).await.ok();
        for first in (0..ROUNDS_MAX).step_by(ROUNDS_OF_A_WRITE as usize) {
            let rounds: Vec<u8> = (first..first + ROUNDS_OF_A_WRITE).flat_map(kind.round).collect();
            if writing.write_all(&rounds).await.is_err() {
                return first;
            }
        }
        ROUNDS_MAX
    };
    let mut answers = vec![0; 64 << 10];
    let reading = async { while reading.read(&mut answers).await.is_ok_and(|count| count > 0) {} };
    let both = async { tokio::join!(sending, reading).0 };
    tokio::time::timeout(WAIT_MAX, both).await.expect("the connection is ended in time")
}

/// Sends requests on its own connection until `is_over`; each has to be answered. Returns how many were.
async fn healthy(url: &str, is_over: &AtomicBool) -> u32 {
    let client = Client::new(WAIT_MAX);
    let mut answered = 0;
    while !is_over.load(Ordering::SeqCst) || answered < HEALTHY_MIN {
        let reply = client.json(Method::GET, url, &[], &Value::Null).await.expect("an answer");
        assert_eq!(reply.status, 200);
        answered += 1;
        short_pause().await;
    }
    answered
}

/// Like [`healthy`], over HTTP/2.
async fn healthy_http2(pointsman: &Pointsman, is_over: &AtomicBool) -> u32 {
    let socket = TcpStream::connect(pointsman.listen).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut answered = 0;
    while !is_over.load(Ordering::SeqCst) || answered < HEALTHY_MIN {
        let request = http::Request::get("http://shop.test/healthy").body(()).expect("a request");
        let mut requests = requests.clone().ready().await.expect("the connection stays open");
        let (reply, _) = requests.send_request(request, true).expect("a stream");
        let reply = tokio::time::timeout(WAIT_MAX, reply).await.expect("in time").expect("an answer");
        assert_eq!(reply.status(), 200);
        answered += 1;
        short_pause().await;
    }
    answered
}

async fn start() -> (Origin, FlagsDir, tempfile::TempDir, Pointsman) {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| text + "limits: { linger_ms: 300 }\n");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let pointsman = Pointsman::start(&start).await;
    (origin, flags, dir, pointsman)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_floods_its_connection_loses_it_and_nobody_else_does() {
    let (_origin, _flags, _dir, mut pointsman) = start().await;
    let url = format!("{}/healthy", pointsman.url());
    let goaways = |metrics: &crate::support::Metrics| metrics.sum("pointsman_client_goaways_total", &[]);
    let kinds = kinds();
    let (count, mut wrong) = (kinds.len(), Vec::new());
    for kind in kinds {
        let before = goaways(&pointsman.metrics().await);
        let (base, is_over) = (pointsman.reset_peak(), AtomicBool::new(false));
        let floods = async {
            let ended = futures_util::future::join_all((0..CONNECTIONS).map(|_| abuse(pointsman.listen, &kind))).await;
            is_over.store(true, Ordering::SeqCst);
            ended
        };
        let (ended, http1, http2) = tokio::join!(floods, healthy(&url, &is_over), healthy_http2(&pointsman, &is_over));
        let grown = pointsman.peak_kib().saturating_sub(base);
        let counted = goaways(&pointsman.metrics().await) - before;
        eprintln!(
            "{}: ended after {ended:?} rounds, {counted} GOAWAYs, {http1} + {http2} others answered, {grown} KiB",
            kind.what
        );
        if counted < CONNECTIONS as f64 || grown > GROWTH_KIB_MAX {
            wrong.push(format!("{}: ended {ended:?}, counted {counted}, grown by {grown} KiB", kind.what));
        }
    }
    eprintln!("{count} kinds of floods, {CONNECTIONS} connections each, {} violations", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    let metrics = pointsman.metrics().await;
    let calm = [("reason", "enhance_your_calm")];
    assert!(metrics.sum("pointsman_client_goaways_total", &calm) >= 10.0 * CONNECTIONS as f64, "most kinds end so");
    assert_eq!(metrics.sum("pointsman_client_streams", &[]), 0.0, "every stream has ended");
    assert_eq!(pointsman.stop().await, Some(0));
}

/// A header block of 16 KiB that decodes to 64 MiB of fields. One connection sends it complete on every stream, another
/// one without END_HEADERS and with CONTINUATION frames.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_unfold_to_many_times_their_size_are_refused_in_constant_memory() {
    let (origin, _flags, _dir, mut pointsman) = start().await;
    let url = format!("{}/healthy", pointsman.url());
    let is_over = AtomicBool::new(false);
    let base = pointsman.reset_peak();
    let bombs = async {
        let mut outcomes = Vec::new();
        for ends in [END_HEADERS, 0] {
            let stream = TcpStream::connect(pointsman.listen).await.expect("a connection");
            let (mut reading, mut writing) = stream.into_split();
            let sending = async {
                writing.write_all(&[PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat()).await.ok();
                for n in 0..100 {
                    let block =
                        if n == 0 { [request("GET", &[]), large_field()].concat() } else { request("GET", &[]) };
                    let bomb = indexed(FIRST_DYNAMIC).repeat((1 << 14) - block.len());
                    let bytes = headers(2 * n + 1, END_STREAM | ends, &[block, bomb].concat());
                    if writing.write_all(&bytes).await.is_err() {
                        break;
                    }
                    if ends == 0 {
                        let more = continuation(1, 0, &indexed(FIRST_DYNAMIC).repeat(1 << 14)).repeat(50);
                        writing.write_all(&more).await.ok();
                        break;
                    }
                }
                let _shut = writing.shutdown().await;
            };
            let mut answers = Vec::new();
            let reading = async {
                // An error means that the other side reset the connection, which is a valid end too.
                let _end = reading.read_to_end(&mut answers).await;
            };
            tokio::time::timeout(WAIT_MAX, async { tokio::join!(sending, reading) }).await.expect("it ends in time");
            outcomes.push(peer::describe(&peer::all(&answers)));
        }
        is_over.store(true, Ordering::SeqCst);
        outcomes
    };
    let (outcomes, http1, http2) = tokio::join!(bombs, healthy(&url, &is_over), healthy_http2(&pointsman, &is_over));
    let grown = pointsman.peak_kib().saturating_sub(base);
    eprintln!("bombs were answered with {outcomes:#?}; {http1} + {http2} others answered, {grown} KiB");
    assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
    assert!(origin.seen().iter().all(|request| request.line == "GET /healthy HTTP/1.1"), "no bomb reached legacy");
    let metrics = pointsman.metrics().await;
    let refused = metrics.sum("pointsman_refusals_total", &[("reason", "head-too-large")]);
    let ended = metrics.sum("pointsman_client_goaways_total", &[]);
    assert!(refused + ended >= 2.0, "they are counted: {refused} refused, {ended} connections ended");
    assert_eq!(pointsman.stop().await, Some(0));
}
