//! A connection that sends bytes of a test's making and reads frames.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{self, ACK, GOAWAY, PING, SETTINGS};
use crate::support::WAIT_MAX;

/// The longest wait for a frame.
const SILENCE: Duration = Duration::from_secs(30);

/// One received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedFrame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl ReceivedFrame {
    /// The code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        self.payload.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
    }
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A client's connection.
pub struct FramePeer {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The settings that the other side sent.
    pub settings: Vec<(u16, u32)>,
    /// Whether the last wait for a frame timed out.
    pub is_silent: bool,
}

impl FramePeer {
    /// Connects, and sends nothing.
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.expect("a connection");
        stream.set_nodelay(true).expect("a connection");
        Self { stream, buffer: Vec::new(), settings: Vec::new(), is_silent: false }
    }
    /// Connects and exchanges settings.
    pub async fn handshake(to: SocketAddr) -> Self {
        Self::handshake_with(to, &[]).await
    }
    /// Connects and exchanges settings; the client's are these.
    pub async fn handshake_with(to: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut peer = Self::connect(to).await;
        peer.send(&[frames::PREFACE, &frames::settings(values)].concat()).await;
        let (mut theirs, mut ours) = (false, false);
        while !(theirs && ours) {
            let frame = peer.next().await.expect("the settings of the other side");
            match (frame.kind, frame.has(ACK)) {
                (SETTINGS, true) => ours = true,
                (SETTINGS, false) => {
                    peer.settings = frame.payload.chunks_exact(6).map(setting).collect();
                    theirs = true;
                }
                _ => {}
            }
        }
        peer.send(&frames::frame(SETTINGS, ACK, 0, &[])).await;
        peer
    }
    /// Sends; a closed connection is not a failure, since tests may expect it.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _sent = self.try_send(bytes).await;
    }
    /// Sends; an error where the other side has closed.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(WAIT_MAX, self.stream.write_all(bytes)).await.expect("the bytes are taken in time")
    }
    /// The next frame; nothing where the connection has ended, or is silent.
    pub async fn next(&mut self) -> Option<ReceivedFrame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            let mut piece = [0; 16 << 10];
            let read = tokio::time::timeout(SILENCE, self.stream.read(&mut piece)).await;
            self.is_silent = read.is_err();
            let count = read.map_or(0, |count| count.unwrap_or(0));
            if count == 0 {
                return None;
            }
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }
    fn take(&mut self) -> Option<ReceivedFrame> {
        let (frame, length) = first(&self.buffer)?;
        self.buffer.drain(..length);
        Some(frame)
    }
    /// Reads frames up to the first one that satisfies a condition; an error if the connection ends before.
    pub async fn until(
        &mut self,
        what: &str,
        mut is_wanted: impl FnMut(&ReceivedFrame) -> bool,
    ) -> Result<Vec<ReceivedFrame>, String> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            let is_last = is_wanted(&frame);
            seen.push(frame);
            if is_last {
                return Ok(seen);
            }
        }
        let end = if self.is_silent { "nothing more came" } else { "the connection ended" };
        Err(format!("{end} before {what}; frames: {}", describe(&seen)))
    }
    /// Sends a PING, and returns the frames up to its answer; an error if it is not answered.
    pub async fn ping(&mut self) -> Result<Vec<ReceivedFrame>, String> {
        const MARK: &[u8; 8] = b"is alive";
        self.send(&frames::ping(0, MARK)).await;
        self.until("the answer to a PING", |frame| frame.kind == PING && frame.has(ACK) && frame.payload == MARK).await
    }
}

/// The complete frames in these bytes.
pub fn all(mut bytes: &[u8]) -> Vec<ReceivedFrame> {
    let mut frames = Vec::new();
    while let Some((frame, length)) = first(bytes) {
        frames.push(frame);
        bytes = &bytes[length..];
    }
    frames
}

/// The first frame, and its length in bytes; `None` if it is incomplete.
fn first(bytes: &[u8]) -> Option<(ReceivedFrame, usize)> {
    let head: [u8; 9] = bytes.get(..9)?.try_into().ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = bytes.get(9..9 + length)?.to_vec();
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Some((ReceivedFrame { kind: head[3], flags: head[4], stream, payload }, 9 + length))
}

fn setting(bytes: &[u8]) -> (u16, u32) {
    (u16::from_be_bytes([bytes[0], bytes[1]]), u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]))
}

/// Frames for a message of a failed test.
pub fn describe(frames: &[ReceivedFrame]) -> String {
    const NAMES: [&str; 10] = [
        "DATA",
        "HEADERS",
        "PRIORITY",
        "RST_STREAM",
        "SETTINGS",
        "PUSH_PROMISE",
        "PING",
        "GOAWAY",
        "WINDOW_UPDATE",
        "CONTINUATION",
    ];
    let one = |frame: &ReceivedFrame| {
        let name = NAMES.get(usize::from(frame.kind)).copied().unwrap_or("unknown");
        let code = match name {
            "RST_STREAM" | "GOAWAY" => format!(" code {}", frame.code().unwrap_or(u32::MAX)),
            "HEADERS" => format!(" status {}", super::hpack::status(&frame.payload).unwrap_or(0)),
            _ => String::new(),
        };
        format!("{name} on {} flags {:#x} of {} bytes{code}", frame.stream, frame.flags, frame.payload.len())
    };
    format!("[{}]", frames.iter().map(one).collect::<Vec<_>>().join(", "))
}
