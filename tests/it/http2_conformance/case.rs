//! One case: what a client sends, and what RFC 9113 and RFC 7541 allow as an answer to it.

use std::net::SocketAddr;
use std::pin::Pin;

use crate::support::http2::frames::{DATA, END_STREAM, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM};
use crate::support::http2::hpack::status;
use crate::support::http2::peer::{FramePeer, ReceivedFrame, describe};

/// How closely an outcome keeps to the letter of the RFCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// To the letter.
    Exactly,
    /// The connection ends, with PROTOCOL_ERROR where the RFC names a more specific code.
    LessSpecificCode,
    /// The connection ends where only the stream had to (RFC 9113, section 5.4.1, allows it).
    WholeConnection,
    /// The outcome is not allowed by the RFC; the case gives the reason.
    Deviates(&'static str),
}

/// The expected outcome. If the connection does not end, a PING after the case has to be answered.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// GOAWAY with one of these codes, and the end of the connection.
    ConnectionError(&'static [u32]),
    /// The end of the connection, with or without GOAWAY: before HTTP/2 has begun.
    Closed,
    /// RST_STREAM with one of these codes; the connection goes on.
    StreamError(u32, &'static [u32]),
    /// `StreamError` or `ConnectionError`: the RFC leaves the choice.
    StreamOrConnectionError(u32, &'static [u32]),
    /// The request is malformed: RST_STREAM or GOAWAY with PROTOCOL_ERROR, or an answer 4xx or 501; legacy never gets
    /// it.
    Malformed(u32),
    /// The stream gets an answer with this status, to its end.
    Answered(u32, u16),
    /// What was sent is ignored, or needs no answer.
    Ignored,
    /// Like `Ignored`, or the connection is closed.
    IgnoredOrClosed,
}

enum Step {
    Send(Vec<u8>),
    AwaitEnd(u32),
}

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One conformance case.
pub struct Case {
    /// The section of the RFC, and what is special about the case.
    pub name: &'static str,
    begins: Begins,
    steps: Vec<Step>,
    outcome: Outcome,
    check: Option<Box<dyn FnOnce(SocketAddr) -> CheckFuture + Send>>,
    /// The name and value of a header field that legacy has to get.
    pub legacy_sees: Option<(&'static str, &'static str)>,
    deviates: Option<&'static str>,
}

enum Begins {
    /// The connection begins with the preface and both sides' settings.
    WithSettings(Vec<(u16, u32)>),
    /// The connection begins with the steps of the case; not even the preface is sent before.
    Raw,
}

impl Case {
    /// A case that begins after both sides have exchanged settings.
    pub fn new(name: &'static str, outcome: Outcome) -> Self {
        let begins = Begins::WithSettings(Vec::new());
        Self { name, begins, steps: Vec::new(), outcome, check: None, legacy_sees: None, deviates: None }
    }
    /// A case that a function performs; its `Err` says what is wrong.
    pub fn checked<F, Fut>(name: &'static str, check: F) -> Self
    where
        F: FnOnce(SocketAddr) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Box<dyn FnOnce(SocketAddr) -> CheckFuture + Send> = Box::new(|to| Box::pin(check(to)));
        Self { check: Some(check), ..Self::new(name, Outcome::Ignored) }
    }
    /// Sends nothing but the steps: no preface and no settings.
    pub fn raw(mut self) -> Self {
        self.begins = Begins::Raw;
        self
    }
    /// Sets the client's settings.
    pub fn with_settings(mut self, values: &[(u16, u32)]) -> Self {
        self.begins = Begins::WithSettings(values.to_vec());
        self
    }
    /// Adds a step that sends these bytes in one write.
    pub fn send(mut self, pieces: &[&[u8]]) -> Self {
        self.steps.push(Step::Send(pieces.concat()));
        self
    }
    /// Adds a step that waits for the end of an answer.
    pub fn await_end(mut self, stream: u32) -> Self {
        self.steps.push(Step::AwaitEnd(stream));
        self
    }
    /// Requires that legacy gets this field.
    pub fn legacy_sees(mut self, name: &'static str, value: &'static str) -> Self {
        self.legacy_sees = Some((name, value));
        self
    }
    /// Marks the outcome as one that the RFC does not allow, for this reason.
    pub fn deviates(mut self, why: &'static str) -> Self {
        self.deviates = Some(why);
        self
    }
    /// Whether legacy must not get the request.
    pub fn is_kept_from_legacy(&self) -> bool {
        matches!(self.outcome, Outcome::Malformed(_))
    }

    /// Runs it. An error says what is wrong.
    pub async fn run(self, to: SocketAddr) -> Result<Kept, String> {
        if let Some(check) = self.check {
            return check(to).await.map(|()| Kept::Exactly);
        }
        let mut peer = match &self.begins {
            Begins::WithSettings(values) => FramePeer::handshake_with(to, values).await,
            Begins::Raw => FramePeer::connect(to).await,
        };
        for step in self.steps {
            match step {
                Step::Send(bytes) => peer.send(&bytes).await,
                // Frames received so far are not judged.
                Step::AwaitEnd(stream) => drop(peer.until("an answer", |frame| ends(frame, stream)).await?),
            }
        }
        let kept = judge(self.outcome, &mut peer).await?;
        Ok(self.deviates.map_or(kept, Kept::Deviates))
    }
}

/// Whether a frame ends an answer.
pub fn ends(frame: &ReceivedFrame, stream: u32) -> bool {
    frame.stream == stream && matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM)
}

/// How a stream of the client ended.
#[derive(Clone, Copy)]
enum Got {
    Reset(u32),
    Answer(u16),
    ConnectionEnd(Option<u32>),
}

/// Reads what the server sends, and compares it with the expected outcome. An error says what is wrong.
async fn judge(outcome: Outcome, peer: &mut FramePeer) -> Result<Kept, String> {
    let mut seen = Vec::new();
    let got = match outcome {
        Outcome::Ignored => {
            let frames = peer.ping().await?;
            return match frames.iter().all(|frame| frame.kind != RST_STREAM) {
                true => Ok(Kept::Exactly),
                false => Err(format!("not ignored: {}", describe(&frames))),
            };
        }
        Outcome::IgnoredOrClosed => {
            let answer = peer.ping().await;
            return if peer.is_silent { answer.map(|_| Kept::Exactly) } else { Ok(Kept::Exactly) };
        }
        Outcome::ConnectionError(_) | Outcome::Closed => Got::ConnectionEnd(connection_end(peer, &mut seen).await),
        Outcome::StreamError(stream, _)
        | Outcome::StreamOrConnectionError(stream, _)
        | Outcome::Malformed(stream)
        | Outcome::Answered(stream, _) => stream_end(peer, stream, &mut seen).await,
    };
    let kept = match (outcome, got) {
        _ if peer.is_silent => None,
        (Outcome::Closed, _) => Some(Kept::Exactly),
        (
            Outcome::ConnectionError(codes) | Outcome::StreamOrConnectionError(_, codes),
            Got::ConnectionEnd(Some(code)),
        ) => match codes.contains(&code) {
            true => Some(Kept::Exactly),
            false => (code == PROTOCOL_ERROR).then_some(Kept::LessSpecificCode),
        },
        (Outcome::StreamError(_, codes) | Outcome::StreamOrConnectionError(_, codes), Got::Reset(code)) => {
            codes.contains(&code).then_some(Kept::Exactly)
        }
        (Outcome::Malformed(_), Got::Reset(PROTOCOL_ERROR) | Got::Answer(400..=499 | 501)) => Some(Kept::Exactly),
        (Outcome::Malformed(_), Got::ConnectionEnd(Some(PROTOCOL_ERROR))) => Some(Kept::WholeConnection),
        (Outcome::Answered(_, expected), Got::Answer(status)) => (status == expected).then_some(Kept::Exactly),
        _ => None,
    };
    let Some(kept) = kept else {
        let got = match got {
            _ if peer.is_silent => "silence".to_owned(),
            Got::Reset(code) => format!("a reset with code {code}"),
            Got::Answer(status) => format!("an answer {status}"),
            Got::ConnectionEnd(Some(code)) => format!("a connection error with code {code}"),
            Got::ConnectionEnd(None) => "the end of the connection without GOAWAY".to_owned(),
        };
        return Err(format!("{got} instead of {outcome:?}; frames: {}", describe(&seen)));
    };
    if !matches!(got, Got::ConnectionEnd(_)) {
        peer.ping().await?;
    }
    Ok(kept)
}

/// Reads until the connection has ended; returns the code of the last GOAWAY.
async fn connection_end(peer: &mut FramePeer, seen: &mut Vec<ReceivedFrame>) -> Option<u32> {
    while let Some(frame) = peer.next().await {
        seen.push(frame);
    }
    seen.iter().rev().find(|frame| frame.kind == GOAWAY).and_then(ReceivedFrame::code)
}

/// Reads until a stream, or the connection, has ended.
async fn stream_end(peer: &mut FramePeer, stream: u32, seen: &mut Vec<ReceivedFrame>) -> Got {
    let (mut read, mut head) = (0, None);
    loop {
        while let Some(frame) = seen.get(read) {
            read += 1;
            match frame.kind {
                GOAWAY if frame.code() != Some(0) => return Got::ConnectionEnd(connection_end(peer, seen).await),
                RST_STREAM if frame.stream == stream => return Got::Reset(frame.code().unwrap_or(u32::MAX)),
                // An interim answer does not count.
                HEADERS if frame.stream == stream && head.is_none_or(|status: u16| status < 200) => {
                    head = Some(status(&frame.payload).unwrap_or(0));
                }
                _ => {}
            }
            if ends(frame, stream) {
                return Got::Answer(head.unwrap_or(0));
            }
        }
        match peer.next().await {
            Some(frame) => seen.push(frame),
            None => return Got::ConnectionEnd(connection_end(peer, seen).await),
        }
    }
}
