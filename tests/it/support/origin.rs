//! A scriptable legacy: it records requests, and fails as scripted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::LOCAL;

/// The scripted reply to one request.
#[derive(Clone, Debug)]
pub enum OriginReply {
    /// Answers with these bytes, head and all.
    Bytes(Vec<u8>),
    /// Answers 200 with a JSON body.
    Json(&'static str),
    /// Answers a status without a body.
    Status(u16),
    /// Answers after a delay.
    Slow(Duration, &'static str),
    /// Never answers; the connection stays open.
    Stall,
    /// Closes the connection instead of an answer.
    Close,
    /// Declares more bytes than it sends, and closes.
    CutMidBody,
    /// Sends the head of a chunked answer and one chunk, then closes without the last one.
    CutMidChunks,
}

/// One request that the origin received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// `POST /orders HTTP/1.1`
    pub line: String,
    /// As received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, framing removed.
    pub body: Vec<u8>,
}

impl ReceivedRequest {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

struct Inner {
    script: VecDeque<OriginReply>,
    default_reply: OriginReply,
    seen: Vec<ReceivedRequest>,
}

/// The scriptable legacy; dropping it stops it.
pub struct Origin {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: tokio::task::AbortHandle,
}

impl Origin {
    /// Listens; answers `default_reply` whenever the script is empty.
    pub async fn start(default_reply: OriginReply) -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Mutex::new(Inner { script: VecDeque::new(), default_reply, seen: Vec::new() }));
        let shared = inner.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { address, inner, task }
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Answers the next `times` requests like this.
    pub fn script(&self, reply: OriginReply, times: usize) {
        self.inner.lock().expect("unpoisoned").script.extend(std::iter::repeat_n(reply, times));
    }
    /// Sets the answer while the script is empty.
    pub fn set_default(&self, reply: OriginReply) {
        self.inner.lock().expect("unpoisoned").default_reply = reply;
    }
    /// The requests that arrived completely.
    pub fn seen(&self) -> Vec<ReceivedRequest> {
        self.inner.lock().expect("unpoisoned").seen.clone()
    }
    /// How many requests arrived completely.
    pub fn count(&self) -> usize {
        self.inner.lock().expect("unpoisoned").seen.len()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, inner: Arc<Mutex<Inner>>) {
    let mut buffer = Vec::new();
    while let Some(seen) = request(&mut stream, &mut buffer).await {
        let is_head = seen.line.starts_with("HEAD ");
        let reply = {
            let mut inner = inner.lock().expect("unpoisoned");
            inner.seen.push(seen);
            inner.script.pop_front().unwrap_or_else(|| inner.default_reply.clone())
        };
        let mut bytes = match reply {
            OriginReply::Bytes(bytes) => bytes,
            OriginReply::Json(body) => ok(body),
            OriginReply::Status(status) => {
                format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 0\r\n\r\n").into_bytes()
            }
            OriginReply::Slow(pause, body) => {
                tokio::time::sleep(pause).await;
                ok(body)
            }
            OriginReply::Stall => std::future::pending().await,
            OriginReply::Close => return,
            OriginReply::CutMidBody => {
                let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this").await;
                return;
            }
            OriginReply::CutMidChunks => {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nonly\r\n";
                let _sent = stream.write_all(head).await;
                return;
            }
        };
        if is_head && let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            bytes.truncate(at + 4);
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Reads one request; nothing where the client closed.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<ReceivedRequest> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut body = Vec::new();
    if find("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    if find("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
        loop {
            let at = loop {
                if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
                    break at;
                }
                more(stream, buffer).await?;
            };
            let size = usize::from_str_radix(String::from_utf8_lossy(&buffer[..at]).split(';').next()?.trim(), 16);
            let size = size.ok()?;
            while buffer.len() < at + 2 + size + 2 {
                more(stream, buffer).await?;
            }
            body.extend_from_slice(&buffer[at + 2..at + 2 + size]);
            buffer.drain(..at + 2 + size + 2);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = find("content-length").and_then(|v| v.parse::<usize>().ok()) {
        while buffer.len() < length {
            more(stream, buffer).await?;
        }
        body = buffer.drain(..length).collect();
    }
    Some(ReceivedRequest { line, headers, body })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = vec![0; 64 << 10];
    let n = stream.read(&mut chunk).await.ok()?;
    buffer.extend_from_slice(&chunk[..n]);
    (n > 0).then_some(())
}
