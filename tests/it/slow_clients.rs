//! Clients that send slowly, stall, or do not read: disconnected at their limit, while others are served and memory
//! stays constant.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use pointsman::demo::http::Client;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bulk_server::BulkServer;
use crate::support::process::Start;
use crate::support::test_system::short_pause;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until, until_true};

/// Clients of each kind.
const CLIENTS_OF_EACH_KIND: usize = 60;
/// The memory that all of them may cost: clients that do not read fill the buffers of their connections on both sides;
/// the others less.
const GROWTH_KIB_MAX: u64 = (CLIENTS_OF_EACH_KIND as u64) * (2 << 10) + (16 << 10);
/// The pause between two bytes of a slow sender.
const DRIBBLE: Duration = Duration::from_millis(100);
/// How much later than its limit a client may be disconnected on a busy machine.
const LATE: Duration = Duration::from_secs(3);

/// A kind of slow client.
struct Kind {
    what: &'static str,
    /// What the client sends at first.
    begins: &'static str,
    /// What the client then sends repeatedly.
    dribbles: Option<&'static str>,
    /// The time after which the client has to be disconnected.
    limit: Duration,
}

const KINDS: [Kind; 5] = [
    Kind { what: "says nothing", begins: "", dribbles: None, limit: Duration::from_millis(1_500) },
    Kind {
        what: "says nothing more",
        begins: "GET /down/1 HTTP/1.1\r\nhost: a\r\n\r\n",
        dribbles: None,
        limit: Duration::from_millis(2_500),
    },
    Kind {
        what: "dribbles a head",
        begins: "GET /down/1 HTTP/1.1\r\nhost: a\r\nx: ",
        dribbles: Some("y"),
        limit: Duration::from_millis(1_500),
    },
    Kind {
        what: "stops within a body",
        begins: "POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nsome of it",
        dribbles: None,
        limit: Duration::from_millis(1_500),
    },
    Kind {
        what: "dribbles a body",
        begins: "POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n",
        dribbles: Some("y"),
        limit: Duration::from_millis(4_000),
    },
];
const LIMITS: &str = "limits: { head_read_ms: 1500, body_idle_ms: 1500, total_ms: 4000, client_idle_ms: 2500, \
     linger_ms: 300, service_idle_ms: 1000 }\n";

/// Behaves as this kind of client, and returns how long the connection stayed open.
async fn time_until_closed(to: SocketAddr, kind: &Kind) -> Duration {
    // Taken before the other side can accept the connection, so the measured time is never shorter than the limit.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    let _sent = stream.write_all(kind.begins.as_bytes()).await;
    let (mut reading, mut writing) = stream.into_split();
    let cut = async {
        let mut buffer = [0; 4_096];
        // An answer (408, 504) may come first.
        while reading.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    let dribble = async {
        while let Some(piece) = kind.dribbles {
            tokio::time::sleep(DRIBBLE).await;
            if writing.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = cut => {}
        () = dribble => {}
        () = tokio::time::sleep(WAIT_MAX) => panic!("a client that {} was never cut", kind.what),
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_disconnected_in_time_and_others_are_served() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    flags.edit("pointsman.yaml", |text| text + LIMITS);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let (client, url) = (Client::new(WAIT_MAX), format!("{}/down/1000", pointsman.url()));
    client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
    let files = pointsman.open_files();
    let base = pointsman.reset_peak();

    let listen = pointsman.listen;
    let slow = join_all(KINDS.iter().map(|kind| async move {
        let times = join_all((0..CLIENTS_OF_EACH_KIND).map(|_| time_until_closed(listen, kind))).await;
        let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        eprintln!(
            "{CLIENTS_OF_EACH_KIND} clients, each {}: cut after {first:?} to {last:?}, limit {:?}",
            kind.what, kind.limit
        );
        assert!(first + Duration::from_millis(50) >= kind.limit, "a client that {} was cut after {first:?}", kind.what);
        assert!(last <= kind.limit + LATE, "a client that {} was cut after {last:?}", kind.what);
    }));
    let unread = async {
        let mut held = Vec::new();
        for _ in 0..CLIENTS_OF_EACH_KIND {
            let mut stream = TcpStream::connect(listen).await.expect("a connection");
            let request = format!("GET /down/{} HTTP/1.1\r\nhost: a\r\n\r\n", 64 << 20);
            stream.write_all(request.as_bytes()).await.expect("a head is taken");
            held.push(stream);
        }
        // A client that does not read cannot see the disconnection: the process's open sockets are counted instead.
        until("those who do not read to be cut", || async { (pointsman.open_files() <= files + 8).then_some(()) })
            .await;
        drop(held);
    };
    let stopped = AtomicBool::new(false);
    let healthy = async {
        let mut times = Vec::new();
        while !stopped.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let reply = client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
            assert!(reply.status.is_success() && reply.body.len() == 1_000);
            times.push(begun.elapsed());
            short_pause().await;
        }
        times
    };
    let all = async {
        tokio::join!(slow, unread);
        stopped.store(true, Ordering::SeqCst);
    };
    let (mut times, ()) = tokio::join!(healthy, all);
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let grown = pointsman.peak_kib().saturating_sub(base);
    eprintln!("meanwhile {} healthy requests, p50 {p50:?}, p99 {p99:?}; memory grew by {grown} KiB", times.len());
    assert!(p50 < Duration::from_millis(100), "healthy requests wait: p50 {p50:?}");
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_the_api_make_room_and_are_counted() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    flags.edit("pointsman.yaml", |text| text + "limits: { api_connections_max: 3 }\n");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let mut idle = TcpStream::connect(pointsman.admin).await.expect("a connection");
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(TcpStream::connect(pointsman.admin).await.expect("a connection"));
    }
    let end = tokio::time::timeout(WAIT_MAX, idle.read(&mut [0; 1])).await.expect("the oldest is closed");
    assert_eq!(end.unwrap_or(0), 0);
    let closed = [("outcome", "closed")];
    let what = "a closed connection to be counted";
    pointsman.until_metric(what, |all| all.sum("pointsman_api_connections_full_total", &closed) >= 1.0).await;
    assert_eq!(pointsman.stop().await, Some(0));
}

/// The process may open no more files: the idle clients of one listener do not keep the kill switch from being set on
/// the other one.
#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_can_be_set_when_idle_connections_to_the_other_listener_use_up_the_open_files() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    flags.edit("pointsman.yaml", |text| text + "api: { listen: '127.0.0.1:0' }\n");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let (soft, hard) = open_files_limits(&pointsman);
    assert_eq!(soft, hard, "the start raises the limit of open files");
    let api = pointsman.api.expect("a listener for applications");
    let (before, mut idle) = (pointsman.open_files(), Vec::new());
    for _ in 0..20 {
        idle.push(TcpStream::connect(api).await.expect("a connection"));
    }
    until_true("the connections to be accepted", || pointsman.open_files() >= before + 20).await;
    let folder = format!("/proc/{}/fd", pointsman.pid());
    let next = (0..).find(|number| std::fs::symlink_metadata(format!("{folder}/{number}")).is_err());
    let all_used = Rlimit { current: next, maximum: hard };
    let pid = Pid::from_raw(pointsman.pid().try_into().expect("a pid"));
    prlimit(pid, Resource::Nofile, all_used).expect("the limit is set");
    let body = serde_json::json!({ "on": true, "reason": "a drill" });
    let reply = tokio::time::timeout(WAIT_MAX, pointsman.api(Method::POST, "/api/v2/freeze", body)).await;
    assert_eq!(reply.expect("it is answered").status, 200);
    assert!(pointsman.log().contains("could not accept a connection"), "{}", pointsman.log());
    assert_eq!(pointsman.stop().await, Some(0));
}

/// The soft and the hard limit.
fn open_files_limits(pointsman: &Pointsman) -> (Option<u64>, Option<u64>) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", pointsman.pid())).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    let mut words = line.split_whitespace().map(|word| word.parse().ok());
    (words.next().flatten(), words.next().flatten())
}
