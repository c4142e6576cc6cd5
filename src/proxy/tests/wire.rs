//! One end of a raw connection, as a client or an origin.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The longest time that these tests wait for anything.
pub const BOUND: Duration = Duration::from_secs(10);

/// Panics if a future takes longer than [`BOUND`].
pub async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(BOUND, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {BOUND:?}"),
    }
}

/// Connects with a receive buffer of a fixed size: if the kernel chose it, it might take a whole large reply.
pub async fn connect_with_buffer(address: SocketAddr, bytes: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    bounded("connecting", socket.connect(address)).await.unwrap()
}

/// One end of a connection.
pub struct Wire<S = TcpStream> {
    pub stream: S,
    seen: Vec<u8>,
}

/// A message as it was sent.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    /// The trailers: what followed the last chunk.
    pub trailers: String,
}

impl Message {
    /// Returns the value of a field, by its lower-case name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).into_iter().next()
    }
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let field = |line: &'_ str| -> bool { line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name)) };
        self.head.lines().skip(1).filter(|l| field(l)).filter_map(|l| Some(l.split_once(':')?.1.trim())).collect()
    }
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {}", self.head))
    }
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, seen: Vec::new() }
    }
    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        bounded("sending", self.stream.write_all(text.as_ref())).await.expect("the other end takes it");
    }
    /// Closes the sending side.
    pub async fn fin(&mut self) {
        self.stream.shutdown().await.expect("a FIN");
    }
    async fn more(&mut self) -> bool {
        let mut buffer = [0_u8; 16 << 10];
        match bounded("reading", self.stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.seen.extend_from_slice(&buffer[..n]);
                true
            }
        }
    }
    /// Reads up to and including a delimiter; `None` if the connection ends before.
    pub async fn until(&mut self, delimiter: &str) -> Option<String> {
        loop {
            if let Some(at) = self.seen.windows(delimiter.len()).position(|w| w == delimiter.as_bytes()) {
                let taken: Vec<u8> = self.seen.drain(..at + delimiter.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }
    pub async fn exactly(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.seen.len() < n {
            if !self.more().await {
                return None;
            }
        }
        Some(self.seen.drain(..n).collect())
    }
    /// Reads once, at most `bytes_max` bytes, and keeps them for later reads. Returns whether the other side is still
    /// open.
    pub async fn read_some(&mut self, bytes_max: usize) -> bool {
        let mut buffer = vec![0_u8; bytes_max];
        let read = bounded("reading", self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.seen.extend_from_slice(&buffer[..read]);
        read > 0
    }
    /// Reads everything until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.seen)
    }
    /// Asserts that the other side closes without sending more.
    pub async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {}", String::from_utf8_lossy(&rest));
    }
    pub async fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n").await
    }
    /// Reads a message whose framing says where it ends. `None` if it is cut.
    pub async fn message(&mut self, has_body: bool) -> Option<Message> {
        let head = self.head().await?;
        match has_body {
            true => self.body_of(head).await,
            false => Some(Message { head, ..Message::default() }),
        }
    }
    /// Reads the rest of a message whose head was read.
    pub async fn body_of(&mut self, head: String) -> Option<Message> {
        let mut message = Message { head, ..Message::default() };
        if message.field("transfer-encoding").is_some() {
            loop {
                let size = self.until("\r\n").await?;
                let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            }
            loop {
                let line = self.until("\r\n").await?;
                if line == "\r\n" {
                    break;
                }
                message.trailers.push_str(&line);
            }
        } else if let Some(n) = message.field("content-length").map(|n| n.parse().expect("a length")) {
            message.body = self.exactly(n).await?;
        }
        Some(message)
    }
    /// Reads the final reply with its body; skips `100 Continue`.
    pub async fn reply(&mut self) -> Message {
        loop {
            let message = self.message(true).await.expect("a whole reply");
            if message.status() != 100 {
                return message;
            }
        }
    }
    /// Sends a request and reads its reply.
    pub async fn ask(&mut self, request: &str) -> Message {
        self.send(request).await;
        self.reply().await
    }
}
