//! A client that sends exactly the bytes that a test gives it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One raw connection.
pub struct RawConnection(TcpStream);

impl RawConnection {
    /// Connects.
    pub async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.expect("a connection"))
    }
    /// Sends bytes; a closed connection is not a failure, since tests may expect it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _sent = self.0.write_all(bytes.as_ref()).await;
        self
    }
    /// Closes the sending side.
    pub async fn close_sending(&mut self) -> &mut Self {
        let _shut = self.0.shutdown().await;
        self
    }
    /// Reads until what came so far contains a text, and returns that.
    pub async fn read_until(&mut self, part: &str) -> String {
        let mut all = String::new();
        let mut buffer = vec![0; 64 << 10];
        while !all.contains(part) {
            let read = tokio::time::timeout(super::WAIT_MAX, self.0.read(&mut buffer)).await;
            let n = read.unwrap_or_else(|_| panic!("`{part}` does not come: {all}")).unwrap_or(0);
            assert!(n > 0, "the connection ended before `{part}`: {all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        all
    }
    /// Reads until the other side closes, or nothing comes for two seconds.
    pub async fn read_to_close(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_secs(2), self.0.read(&mut buffer)).await {
            if n == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..n]);
        }
        all
    }
    /// Reads one reply, head and body: as long as its `content-length` or its chunks say, or until the other side
    /// closes.
    pub async fn reply(&mut self) -> RawReply {
        let mut all = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(reply) = RawReply::parse(&all) {
                return reply;
            }
            let read = tokio::time::timeout(super::WAIT_MAX, self.0.read(&mut buffer)).await;
            let n = read.expect("a reply in time").unwrap_or(0);
            if n == 0 {
                return RawReply::parse_closed(&all);
            }
            all.extend_from_slice(&buffer[..n]);
        }
    }
}

/// One reply as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReply {
    /// The status; 0 if the connection was closed without one.
    pub status: u16,
    /// The headers in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, framing removed.
    pub body: Vec<u8>,
}

impl RawReply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
    /// The parts that must be equal in a direct and a proxied reply: all but `date`, hop-by-hop fields, the `via` that
    /// a proxy must add, and the framing of the body.
    pub fn without_hop_fields(&self) -> (u16, Vec<(String, String)>, Vec<u8>) {
        const OURS: [&str; 6] = ["date", "connection", "keep-alive", "transfer-encoding", "content-length", "via"];
        let mut headers: Vec<_> = self.headers.iter().filter(|(n, _)| !OURS.contains(&n.as_str())).cloned().collect();
        headers.sort();
        (self.status, headers, self.body.clone())
    }
    fn head(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some((Self { status, headers, body: Vec::new() }, end))
    }
    /// The reply, if these bytes are a complete one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut reply, end) = Self::head(bytes)?;
        let body = &bytes[end..];
        if reply.header("transfer-encoding").is_some_and(|v| v.contains("chunked")) {
            reply.body = unchunk(body)?;
        } else if let Some(length) = reply.header("content-length").and_then(|v| v.parse::<usize>().ok()) {
            reply.body = body.get(..length)?.to_vec();
        } else if !matches!(reply.status, 100..=199 | 204 | 304) {
            return None;
        }
        Some(reply)
    }
    /// The reply so far, where the other side has closed.
    fn parse_closed(bytes: &[u8]) -> Self {
        Self::head(bytes).map_or(Self { status: 0, headers: Vec::new(), body: Vec::new() }, |(mut reply, end)| {
            reply.body = bytes[end..].to_vec();
            reply
        })
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return bytes.windows(2).any(|w| w == b"\r\n").then_some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
