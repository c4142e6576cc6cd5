//! Mutated requests and frames against the real binary: it does not panic, hang or grow in memory, each connection
//! ends, and legacy gets only requests that the proxy may forward.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http2::frames::*;
use crate::support::http2::hpack::Indexing::Incremental;
use crate::support::http2::hpack::{FIRST_DYNAMIC, Name, Text, field, indexed, literal, request, size_update};
use crate::support::mutator::Mutator;
use crate::support::origin::{Origin, OriginReply, ReceivedRequest};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::raw_requests::raw_requests;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until_true};

/// After this many cases it is checked that other clients are served.
const CHECKED_EVERY: u64 = 50;
const GROWTH_KIB_MAX: u64 = 32 << 10;
/// With a route, so that the proxy has to interpret paths.
const ROUTES: &str = "routes:\n  - { id: orders, match: { method: POST, path: /orders }, legacy: shop, workflow: answer, \
     state: shadow }\n";
const WORKFLOW: &str =
    "workflow: answer\nsteps: { nothing: { set: done } }\nrespond: { status: 200, body: { id: '${run.id}' } }\n";

struct FuzzSystem {
    origin: Origin,
    pointsman: Pointsman,
    files: usize,
    base: u64,
    _dir: tempfile::TempDir,
    _flags: FlagsDir,
}

impl FuzzSystem {
    async fn start() -> Self {
        let origin = Origin::start(OriginReply::Json("{}")).await;
        let flags = FlagsDir::passthrough(&origin.url());
        flags.edit("pointsman.yaml", |text| {
            text + "limits: { linger_ms: 100, client_idle_ms: 500, head_read_ms: 500, body_idle_ms: 500 }\n"
        });
        flags.write("routes/orders.yaml", ROUTES);
        flags.write("workflows/answer.yaml", WORKFLOW);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::in_memory(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        let this = Self { origin, files: pointsman.open_files(), base: 0, pointsman, _dir: dir, _flags: flags };
        this.serves_others(0).await;
        Self { base: this.pointsman.reset_peak(), ..this }
    }
    /// Sends bytes, and closes the sending side. Returns whether the other side closes its side in time.
    async fn send(&self, bytes: &[u8]) -> bool {
        let mut stream = TcpStream::connect(self.pointsman.listen).await.expect("a connection");
        let (mut reading, mut writing) = stream.split();
        let sending = async {
            // Both may fail because the other side has closed.
            let _sent = writing.write_all(bytes).await;
            let _ended = writing.shutdown().await;
        };
        let mut answer = Vec::new();
        let both = async { tokio::join!(sending, reading.read_to_end(&mut answer)) };
        tokio::time::timeout(WAIT_MAX, both).await.is_ok()
    }
    async fn serves_others(&self, number: u64) {
        let request = format!("GET /marker-{number} HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        let reply = RawConnection::connect(self.pointsman.listen).await.send(&request).await.reply().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let line = format!("GET /marker-{number} HTTP/1.1");
        assert!(self.origin.seen().iter().any(|request| request.line == line), "legacy got the request as it was sent");
    }
    async fn finish(mut self) {
        let pointsman = &self.pointsman;
        until_true("all connections to end", || pointsman.open_files() <= self.files + 4).await;
        let grown = pointsman.peak_kib().saturating_sub(self.base);
        println!("{} requests reached legacy, grown by {grown} KiB", self.origin.count());
        assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
        assert!(!pointsman.log().contains("panicked"), "{}", pointsman.log());
        let wrong: Vec<_> = self.origin.seen().into_iter().filter_map(what_is_wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(self.pointsman.stop().await, Some(0));
    }
}

/// Describes a request that legacy must never get; `None` for any other.
fn what_is_wrong(request: ReceivedRequest) -> Option<String> {
    let count = |name: &str| request.headers.iter().filter(|(n, _)| n == name).count();
    let words: Vec<&str> = request.line.split(' ').collect();
    let is_line = words.len() == 3 && words[2] == "HTTP/1.1" && (words[1].starts_with('/') || words[1] == "*");
    let framing = count("content-length") + count("transfer-encoding");
    let coding = request.header("transfer-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case("chunked"));
    let is_token = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) && !name.is_empty()
    };
    let names = request.headers.iter().all(|(name, _)| is_token(name));
    let values = request.headers.iter().all(|(_, value)| !value.bytes().any(|byte| byte == 0 || byte == b'\r'));
    let disguised = ["content_length", "transfer_encoding"].iter().any(|name| count(name) > 0);
    let is_right = is_line && count("host") == 1 && framing <= 1 && coding && names && values && !disguised;
    (!is_right).then(|| format!("{request:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_requests_reach_legacy_as_requests_or_not_at_all() {
    const WORDS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\t",
        ":",
        "\r\n\r\n",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: b\r\n",
        "Connection: close\r\n",
        "Connection: content-length\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: h2c\r\n",
        "TE: trailers\r\n",
        "HTTP/1.1",
        "HTTP/1.0",
        "GET ",
        "POST ",
        "HEAD ",
        "/../",
        "%2e%2e/",
        "//",
        ";x=",
        "http://a/",
        "_",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let corpus: Vec<&str> = raw_requests().map(|(_, raw, _)| *raw).filter(|raw| raw.len() < 8_000).collect();
    let system = FuzzSystem::start().await;
    let mut mutator = Mutator::new(&corpus, WORDS);
    while let Some((number, bytes)) = mutator.next() {
        assert!(system.send(&bytes).await, "the connection does not end: {}", mutator.case(number, &bytes));
        if number % CHECKED_EVERY == 0 {
            system.serves_others(number).await;
        }
    }
    mutator.report("mutated_requests_reach_legacy_as_requests_or_not_at_all");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_frames_do_no_harm() {
    let (get, post) = (request("GET", &[]), request("POST", &[("content-length", "4")]));
    let begin = [PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 10)])].concat();
    let kept = [get.clone(), literal(Incremental, Name::New("x-kept"), Text::Plain("v"))].concat();
    let sessions: Vec<Vec<u8>> = [
        headers(1, WHOLE, &get),
        [headers(1, END_HEADERS, &post), data(1, END_STREAM, b"body")].concat(),
        [headers(1, END_HEADERS, &post), data(1, PADDED, &padded(b"body", 3)), headers(1, WHOLE, &field("x-sum", "4"))]
            .concat(),
        [headers(1, END_STREAM, &get[..9]), continuation(1, END_HEADERS, &get[9..])].concat(),
        [headers(1, WHOLE, &kept), headers(3, WHOLE, &[get.clone(), indexed(FIRST_DYNAMIC)].concat())].concat(),
        [headers(1, WHOLE, &[size_update(100), get.clone()].concat()), window_update(1, 5), window_update(0, 9)]
            .concat(),
        [headers(1, END_HEADERS, &post), rst_stream(1, CANCEL), priority(3, 1, true, 7), ping(0, &[3; 8])].concat(),
        [headers(1, WHOLE, &get), settings(&[(HEADER_TABLE_SIZE, 0), (MAX_FRAME_SIZE, 1 << 20)]), goaway(0, 0, 0)]
            .concat(),
    ]
    .into_iter()
    .map(|session| [&begin[..], &session].concat())
    .collect();
    let words: Vec<Vec<u8>> = vec![
        headers(1, WHOLE, &get),
        headers(5, END_HEADERS, &post),
        data(1, END_STREAM, b"body"),
        data(5, 0, &[]),
        continuation(1, END_HEADERS, &[]),
        rst_stream(1, CANCEL),
        settings(&[(ENABLE_PUSH, 0)]),
        frame(SETTINGS, ACK, 0, &[]),
        window_update(0, 0x7fff_ffff),
        window_update(1, 1),
        ping(0, &[0; 8]),
        goaway(0, 1, NO_ERROR),
        frame(0x16, 0xff, 1, &[1, 2, 3]),
        vec![0, 0, 0],
        vec![0xff, 0xff, 0xff],
        field("x-more", "1"),
    ];
    let system = FuzzSystem::start().await;
    let mut mutator = Mutator::new(&sessions, &words);
    while let Some((number, mut bytes)) = mutator.next() {
        // Most mutations of the preface would only make it another protocol.
        if number % 8 != 0 && bytes.get(..PREFACE.len()) != Some(PREFACE) {
            bytes.splice(..PREFACE.len().min(bytes.len()), PREFACE.iter().copied());
        }
        assert!(system.send(&bytes).await, "the connection does not end: {}", mutator.case(number, &bytes));
        if number % CHECKED_EVERY == 0 {
            system.serves_others(number).await;
        }
    }
    mutator.report("mutated_frames_do_no_harm");
    tokio::time::timeout(WAIT_MAX + Duration::from_secs(1), system.finish()).await.expect("in time");
}
