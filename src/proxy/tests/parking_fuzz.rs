//! Many clients whose pauses are about as long as the time until a connection is parked: every answer is correct, byte
//! for byte, and none is missing.
//!
//! `POINTSMAN_SEED=N` repeats a run's random choices (not its timing); `POINTSMAN_PARKING_S=N` sets its duration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::rig::{Origin, Rig, Setup};
use super::wire::Wire;
use crate::limits::Limits;

const CLIENTS: u64 = 200;
const PARK_MS: u64 = 3;
/// The duration of a run without `POINTSMAN_PARKING_S`, in seconds.
const DEFAULT_S: u64 = 6;
/// An answer that takes longer counts as missing.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The body of the answer to a request.
fn answer(id: &str, body: &[u8], size: usize) -> Vec<u8> {
    let text = format!("{id} {} {:x} ", body.len(), hash(body));
    text.bytes().cycle().take(size).collect()
}

/// Answers as the request asks for: the requested number of bytes, derived from its id and body, with a length or in
/// chunks. Switches to an echo protocol on request.
async fn echo_origin() -> Origin {
    Origin::script(|mut wire, _| async move {
        loop {
            // The next request may come later than other tests allow.
            if wire.stream.readable().await.is_err() {
                return;
            }
            let Some(request) = wire.message(true).await else { return };
            let field = |name: &str| request.field(name).unwrap_or_default().to_owned();
            if field("upgrade") == "echo" {
                wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
                let mut bytes = [0_u8; 1_024];
                while let Ok(count @ 1..) = wire.stream.read(&mut bytes).await {
                    if wire.stream.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
                return;
            }
            let id = field("x-id");
            let body = answer(&id, &request.body, field("x-size").parse().unwrap_or(0));
            let is_head = request.line().starts_with("HEAD ");
            let mut reply = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\n").into_bytes();
            if field("x-chunked") == "yes" && !is_head {
                reply.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(1_000) {
                    reply.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    reply.extend(chunk);
                    reply.extend(b"\r\n");
                }
                reply.extend(b"0\r\n\r\n");
            } else {
                reply.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                if !is_head {
                    reply.extend(body);
                }
            }
            if wire.stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The answer that a request must get.
struct Expected {
    id: String,
    /// `None`: the answer has no body, because the method is HEAD.
    body: Option<Vec<u8>>,
    /// The position in the sent bytes where the request ends.
    end: usize,
}

struct FuzzClient<'a> {
    rig: &'a Rig,
    name: u64,
    random: Rng,
    wire: Wire,
    requests: u64,
}

type Checked = Result<(), String>;

impl FuzzClient<'_> {
    /// Waits for a time that is often about as long as the time until the connection is parked.
    async fn pause(&mut self) {
        match self.random.u8(..10) {
            0..=4 => {}
            5..=8 => sleep(Duration::from_micros(self.random.u64(..4 * PARK_MS * 1_000))).await,
            _ => sleep(Duration::from_micros(self.random.u64(..20 * PARK_MS * 1_000))).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Checked {
        self.wire.stream.write_all(bytes).await.map_err(|error| format!("sending: {error}"))
    }

    /// Appends a request. `expects`: the body is sent after `100 Continue`, and returned here.
    fn request(&mut self, sent: &mut Vec<u8>, size_max: usize, expects: bool) -> (Expected, Vec<u8>) {
        self.requests += 1;
        let id = format!("{}-{}", self.name, self.requests);
        let size = self.random.usize(..size_max);
        let is_chunked = if self.random.bool() { "yes" } else { "no" };
        let method = match self.random.u8(..6) {
            _ if expects => "POST",
            0..=2 => "GET",
            3 => "HEAD",
            4 => "POST",
            _ => "PUT",
        };
        let head =
            format!("{method} /{id} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nX-Size: {size}\r\nX-Chunked: {is_chunked}");
        let mut body = Vec::new();
        sent.extend(head.bytes());
        if method == "POST" || method == "PUT" {
            body = (0..self.random.usize(..2_000)).map(|_| self.random.alphanumeric() as u8).collect();
            match (expects, self.random.bool()) {
                (true, _) => sent.extend(format!("\r\nExpect: 100-continue\r\nContent-Length: {}", body.len()).bytes()),
                (false, true) => {
                    sent.extend(format!("\r\nContent-Length: {}\r\n\r\n", body.len()).bytes());
                    sent.extend(&body);
                }
                (false, false) => {
                    sent.extend(b"\r\nTransfer-Encoding: chunked\r\n\r\n");
                    let step = self.random.usize(1..700);
                    for chunk in body.chunks(step) {
                        sent.extend(format!("{:x}\r\n", chunk.len()).bytes());
                        sent.extend(chunk);
                        sent.extend(b"\r\n");
                    }
                    sent.extend(b"0\r\n\r\n");
                }
            }
        }
        if body.is_empty() && method != "POST" && method != "PUT" || expects {
            sent.extend(b"\r\n\r\n");
        }
        let expected = (method != "HEAD").then(|| answer(&id, &body, size));
        (Expected { id, body: expected, end: sent.len() }, body)
    }

    /// Reads one answer and compares it.
    async fn check(&mut self, expected: &Expected) -> Checked {
        let has_body = expected.body.is_some();
        let read = timeout(ANSWER_WITHIN, self.wire.message(has_body)).await;
        let Ok(Some(reply)) = read else { return Err(format!("{}: no answer", expected.id)) };
        let is_right = reply.status() == 200
            && reply.field("x-id") == Some(&expected.id)
            && reply.body == expected.body.as_deref().unwrap_or_default();
        if is_right { Ok(()) } else { Err(format!("{}: got {}", expected.id, reply.head)) }
    }

    /// Checks that the proxy closes the connection without sending anything.
    async fn ends(&mut self) -> Checked {
        match timeout(ANSWER_WITHIN, self.wire.rest()).await {
            Ok(rest) if rest.is_empty() => Ok(()),
            Ok(rest) => Err(format!("more came: {}", String::from_utf8_lossy(&rest))),
            Err(_) => Err("the connection stays open".to_owned()),
        }
    }

    /// Sends a few requests at once, cut into pieces anywhere, with pauses between the pieces; in a pause the client
    /// may read answers that have come.
    async fn pipelined(&mut self) -> Checked {
        let (mut sent, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.random.usize(..5) * self.random.usize(..2) {
            if self.random.u8(..8) == 0 {
                sent.extend(b"\r\n");
            }
            expected.push(self.request(&mut sent, 3_000, false).0);
        }
        let mut cuts: Vec<usize> = (0..self.random.usize(..4)).map(|_| self.random.usize(..sent.len())).collect();
        // The cut is often right after a request, or within the first bytes of the next.
        cuts.extend(expected.iter().filter(|_| self.random.bool()).map(|request| request.end));
        cuts.push(sent.len());
        cuts.sort_unstable();
        let (mut from, mut answered) = (0, 0);
        for cut in cuts {
            let to = (cut + self.random.usize(..4)).min(sent.len()).max(from);
            let piece = sent[from..to].to_vec();
            self.send(&piece).await?;
            from = to;
            while self.random.bool() && answered < expected.len() && expected[answered].end <= to {
                self.check(&expected[answered]).await?;
                answered += 1;
            }
            self.pause().await;
        }
        let rest = sent[from..].to_vec();
        self.send(&rest).await?;
        for expected in &expected[answered..] {
            self.check(expected).await?;
        }
        Ok(())
    }

    async fn with_expect(&mut self) -> Checked {
        let mut sent = Vec::new();
        let (expected, body) = self.request(&mut sent, 3_000, true);
        self.send(&sent).await?;
        if !body.is_empty() {
            let read = timeout(ANSWER_WITHIN, self.wire.head()).await;
            if !matches!(&read, Ok(Some(head)) if head.starts_with("HTTP/1.1 100 ")) {
                return Err(format!("{}: {read:?} instead of 100", expected.id));
            }
        }
        self.pause().await;
        self.send(&body).await?;
        self.check(&expected).await
    }

    /// Requests a large answer and reads it in small pieces.
    async fn slow_reader(&mut self) -> Checked {
        let mut sent = Vec::new();
        let (expected, _) = self.request(&mut sent, 200_000, false);
        self.send(&sent).await?;
        for _ in 0..3 {
            self.pause().await;
            let some = self.random.usize(1..20_000);
            match timeout(Duration::from_millis(100), self.wire.read_some(some)).await {
                Ok(true) => {}
                Ok(false) => return Err(format!("{}: cut", expected.id)),
                Err(_) => break, // the whole answer was read
            }
        }
        self.check(&expected).await
    }

    /// Ends the connection in one of several ways; the next connection is new.
    async fn end(&mut self) -> Checked {
        match self.random.u8(..4) {
            // FIN, while the connection is idle or right after a request.
            0 | 1 => {
                let mut last = None;
                if self.random.bool() {
                    let mut sent = Vec::new();
                    let (expected, _) = self.request(&mut sent, 3_000, false);
                    self.send(&sent).await?;
                    last = Some(expected);
                }
                self.wire.stream.shutdown().await.map_err(|error| format!("FIN: {error}"))?;
                if let Some(expected) = last {
                    self.check(&expected).await?;
                }
                self.ends().await?;
            }
            2 => {
                let _ = self.wire.stream.set_zero_linger();
            }
            _ => {
                self.requests += 1;
                let upgrade = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
                self.send(upgrade.as_bytes()).await?;
                let read = timeout(ANSWER_WITHIN, self.wire.head()).await;
                if !matches!(&read, Ok(Some(head)) if head.starts_with("HTTP/1.1 101 ")) {
                    return Err(format!("{read:?} instead of 101"));
                }
                for _ in 0..3 {
                    self.pause().await;
                    let bytes: Vec<u8> = (0..self.random.usize(1..900)).map(|_| self.random.u8(..)).collect();
                    self.send(&bytes).await?;
                    let echoed = timeout(ANSWER_WITHIN, self.wire.exactly(bytes.len())).await;
                    if echoed.ok().flatten().as_ref() != Some(&bytes) {
                        return Err("the tunnel's bytes differ".to_owned());
                    }
                }
            }
        }
        self.wire = connect(self.rig).await;
        Ok(())
    }

    async fn step(&mut self) -> Checked {
        self.pause().await;
        match self.random.u8(..20) {
            0..=14 => self.pipelined().await,
            15 | 16 => self.with_expect().await,
            17 | 18 => self.slow_reader().await,
            _ => self.end().await,
        }
    }
}

async fn connect(rig: &Rig) -> Wire {
    Wire::new(TcpStream::connect(rig.address).await.expect("the proxy accepts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_is_the_right_one_whenever_connections_are_parked() {
    let seed = number("POINTSMAN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let ends = Instant::now() + Duration::from_secs(number("POINTSMAN_PARKING_S").unwrap_or(DEFAULT_S));
    let origin = echo_origin().await;
    let limits = Limits { client_park_ms: PARK_MS, ..Limits::default() };
    let rig = Arc::new(Rig::new(&origin, Setup { limits, ..Setup::default() }).await);
    let requests = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for name in 0..CLIENTS {
        let (rig, requests) = (rig.clone(), requests.clone());
        clients.push(tokio::spawn(async move {
            let random = Rng::with_seed(seed.wrapping_add(name));
            let mut client = FuzzClient { rig: &rig, name, random, wire: connect(&rig).await, requests: 0 };
            let mut wrong = Vec::new();
            while Instant::now() < ends && wrong.len() < 3 {
                if let Err(why) = client.step().await {
                    wrong.push(format!("client {name}: {why}"));
                    client.wire = connect(&rig).await;
                }
            }
            requests.fetch_add(client.requests, SeqCst);
            wrong
        }));
    }
    let mut wrong = Vec::new();
    for client in clients {
        wrong.extend(client.await.expect("a client"));
    }
    let (requests, parked) = (requests.load(SeqCst), rig.proxy.shared.parking.total());
    println!("seed {seed}: {CLIENTS} clients, {requests} requests, parked {parked} times, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    assert!(parked > requests / 50, "the pauses are too short: parked {parked} times");
}
