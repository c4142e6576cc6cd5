//! A service of HTTP/1.1 whose replies a test writes byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{LOCAL, WAIT_MAX};

/// The service.
pub struct RawService(TcpListener);

/// A connection to it, with a request that is not answered.
pub struct RawCall {
    stream: TcpStream,
    /// The head of the request.
    pub head: String,
}

impl RawService {
    /// Listens.
    pub async fn start() -> Self {
        Self(TcpListener::bind(LOCAL).await.expect("a port"))
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("an address"))
    }
    /// The next call, which comes over a new connection.
    pub async fn call(&self) -> RawCall {
        let accepted = tokio::time::timeout(WAIT_MAX, self.0.accept()).await;
        let (stream, _) = accepted.expect("a call in time").expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        let mut call = RawCall { stream, head: String::new() };
        call.next().await;
        call
    }
}

impl RawCall {
    /// Waits for another call over the same connection.
    pub async fn next(&mut self) {
        self.head.clear();
        while !self.head.ends_with("\r\n\r\n") {
            let read = tokio::time::timeout(WAIT_MAX, self.stream.read_u8()).await;
            self.head.push(char::from(read.expect("a call in time").expect("the connection is open")));
        }
    }
    /// Sends a part of the reply; false where the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }
    /// Waits until the other side closes; it sends nothing before.
    pub async fn closed(&mut self) {
        let read = tokio::time::timeout(WAIT_MAX, self.stream.read(&mut [0])).await;
        assert_eq!(read.expect("it closes in time").unwrap_or(0), 0);
    }
}
