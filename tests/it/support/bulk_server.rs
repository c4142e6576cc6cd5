//! A legacy that receives and sends bodies of any size in constant memory.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::LOCAL;

/// The most bytes that are sent or read with one call.
pub const CHUNK: usize = 256 << 10;

/// `GET …/N` returns N bytes; the answer to a request with a body is the body's length. Dropping it stops it.
pub struct BulkServer {
    address: SocketAddr,
    task: tokio::task::AbortHandle,
}

impl BulkServer {
    /// Listens.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(LOCAL).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _set = stream.set_nodelay(true); // head and body are two writes
                connections.spawn(serve(stream));
                while connections.try_join_next().is_some() {}
            }
        })
        .abort_handle();
        Self { address, task }
    }
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for BulkServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    let mut buffer = vec![b'x'; CHUNK];
    loop {
        let Head { line, length, body_bytes_read } = read_head(&mut stream, &mut buffer).await?;
        discard(&mut stream, &mut buffer, length - body_bytes_read).await?;
        let path = line.split(' ').nth(1)?;
        let requested = path.rsplit('/').next()?.parse::<u64>();
        match requested {
            Ok(n) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {n}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok()?;
                send_bytes(&mut stream, n).await?;
            }
            Err(_) => {
                let count = length.to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{count}", count.len());
                stream.write_all(head.as_bytes()).await.ok()?;
            }
        }
    }
}

/// The head of a message.
pub struct Head {
    /// Its first line.
    pub line: String,
    /// The declared length of the body; 0 without `content-length`.
    pub length: u64,
    /// How many bytes of the body were read together with the head.
    pub body_bytes_read: u64,
}

/// Reads a head; `None` where the other side has closed.
pub async fn read_head(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<Head> {
    let mut have = 0;
    let end = loop {
        let n = stream.read(&mut buffer[have..]).await.ok().filter(|n| *n > 0)?;
        have += n;
        if let Some(at) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|value| value.trim().parse().ok()).unwrap_or(0);
    Some(Head { line: text.lines().next()?.to_owned(), length, body_bytes_read: (have - end) as u64 })
}

/// Reads this many bytes and discards them.
pub async fn discard(stream: &mut TcpStream, buffer: &mut [u8], mut left: u64) -> Option<()> {
    while left > 0 {
        let n = stream.read(buffer).await.ok().filter(|n| *n > 0)?;
        left = left.checked_sub(n as u64)?;
    }
    Some(())
}

/// Sends this many bytes.
pub async fn send_bytes(stream: &mut TcpStream, mut left: u64) -> Option<()> {
    static BYTES: [u8; CHUNK] = [b'x'; CHUNK];
    while left > 0 {
        let n = left.min(CHUNK as u64);
        stream.write_all(&BYTES[..n as usize]).await.ok()?;
        left -= n;
    }
    Some(())
}
