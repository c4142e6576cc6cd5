//! Clients that send one request after the other until they are told to stop, and count what fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::test_system::short_pause;

/// What the clients of one kind saw.
#[derive(Default)]
pub struct Seen {
    pub answered: AtomicU64,
    /// The longest time until an answer, in milliseconds.
    pub slowest_ms: AtomicU64,
    /// Requests that ended with REFUSED_STREAM or GOAWAY instead of an answer; the client goes on with another request.
    pub refused_unprocessed: AtomicU64,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    fn answer(&self, began: Instant) {
        self.answered.fetch_add(1, SeqCst);
        self.slowest_ms.fetch_max(began.elapsed().as_millis() as u64, SeqCst);
    }
    fn fail(&self, what: impl std::fmt::Display) {
        self.failures.lock().expect("unpoisoned").push(what.to_string());
    }
    /// What failed.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("unpoisoned").clone()
    }
}

/// Clients that send GET requests.
pub struct ContinuousLoad {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    /// Clients that keep their connection until they are told to close it.
    pub keep_alive: Arc<Seen>,
    /// Clients that open a connection for each request.
    pub new_connections: Arc<Seen>,
    /// Clients that speak HTTP/2.
    pub http2: Arc<Seen>,
}

impl ContinuousLoad {
    /// Starts `each` clients of each kind.
    pub fn start(to: SocketAddr, path: &'static str, each: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            clients: JoinSet::new(),
            keep_alive: Arc::default(),
            new_connections: Arc::default(),
            http2: Arc::default(),
        };
        for _ in 0..each {
            load.clients.spawn(http1(to, path, true, load.stop.clone(), load.keep_alive.clone()));
            load.clients.spawn(http1(to, path, false, load.stop.clone(), load.new_connections.clone()));
            load.clients.spawn(http2(to, path, load.stop.clone(), load.http2.clone()));
        }
        load
    }
    /// Lets each client finish its request.
    pub async fn end(&mut self) {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no client panics");
        }
    }
    /// The clients of each kind, with names.
    pub fn kinds(&self) -> [(&'static str, &Seen); 3] {
        [("keep-alive", &self.keep_alive), ("new connections", &self.new_connections), ("HTTP/2", &self.http2)]
    }
}

async fn http1(to: SocketAddr, path: &str, keeps: bool, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    let close = if keeps { "" } else { "connection: close\r\n" };
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{close}\r\n");
    let mut open: Option<TcpStream> = None;
    while !stop.load(SeqCst) {
        let began = Instant::now();
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(to).await {
                Ok(stream) => stream,
                Err(error) => {
                    seen.fail(format!("connect: {error}"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        match exchange(&mut stream, request.as_bytes()).await {
            Ok((status, closes)) => {
                seen.answer(began);
                if status != 200 {
                    seen.fail(format!("status {status}"));
                }
                open = (keeps && !closes).then_some(stream);
            }
            Err(error) => seen.fail(error),
        }
        short_pause().await;
    }
}

/// Sends a request and reads its reply. Returns the status, and whether the connection closes.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<(u16, bool), String> {
    stream.write_all(request).await.map_err(|error| format!("sending: {error}"))?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let (head, mut body) = loop {
        let n = stream.read(&mut buffer).await.map_err(|error| format!("after {} bytes: {error}", all.len()))?;
        if n == 0 {
            return Err(format!("closed after {} bytes of a reply", all.len()));
        }
        all.extend_from_slice(&buffer[..n]);
        if let Some(at) = all.windows(4).position(|window| window == b"\r\n\r\n") {
            break (String::from_utf8_lossy(&all[..at]).to_lowercase(), all.len() - at - 4);
        }
    };
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = field("content-length:").and_then(|it| it.parse().ok()).ok_or("no length")?;
    while body < length {
        match stream.read(&mut buffer).await {
            Ok(0) => return Err("a reply was cut".to_owned()),
            Ok(n) => body += n,
            Err(error) => return Err(format!("within a body: {error}")),
        }
    }
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or("no status")?;
    Ok((status, field("connection:") == Some("close")))
}

async fn http2(to: SocketAddr, path: &str, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    let mut open = None;
    while !stop.load(SeqCst) {
        let began = Instant::now();
        let requests = match open.take() {
            Some(requests) => requests,
            None => match connect_http2(to).await {
                Ok(requests) => requests,
                Err(error) => {
                    seen.fail(error);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let request = Request::get(format!("http://shop.test{path}")).body(()).expect("a request");
        // An error means that the connection takes no more requests: nothing was sent.
        let Ok(mut requests) = h2::client::SendRequest::<Bytes>::ready(requests).await else { continue };
        let Ok((response, _)) = requests.send_request(request, true) else { continue };
        let answered = async {
            let (head, mut body) = response.await?.into_parts();
            while let Some(data) = body.data().await {
                let bytes = data?.len();
                body.flow_control().release_capacity(bytes)?;
            }
            Ok::<_, h2::Error>(head.status)
        };
        match answered.await {
            Ok(status) => {
                seen.answer(began);
                if status != StatusCode::OK {
                    seen.fail(format!("status {status}"));
                }
                open = Some(requests);
            }
            Err(error) if error.reason() == Some(h2::Reason::REFUSED_STREAM) || error.is_go_away() => {
                seen.refused_unprocessed.fetch_add(1, SeqCst);
            }
            Err(error) => seen.fail(format!("HTTP/2: {error:?}")),
        }
        short_pause().await;
    }
}

async fn connect_http2(to: SocketAddr) -> Result<h2::client::SendRequest<Bytes>, String> {
    let socket = TcpStream::connect(to).await.map_err(|error| format!("connect: {error}"))?;
    let (requests, connection) = h2::client::handshake(socket).await.map_err(|error| format!("handshake: {error}"))?;
    tokio::spawn(connection);
    Ok(requests)
}
