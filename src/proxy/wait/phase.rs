//! What a client connection waits for.

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::proxy) enum Phase {
    /// The next request.
    Idle,
    /// A connection's first head, or the rest of a later one.
    Head,
    /// The request's body: for the client to send it, or for legacy to take it.
    Upload,
    /// The first byte of legacy's reply.
    FirstByte,
    /// The reply's body: for legacy to send it, or for the client to take it. For a connection of HTTP/2: its streams,
    /// which have limits of their own.
    Reply,
    /// Something with its own deadline: the engine's answer, a turn at legacy, or a new connection to it.
    OwnDeadline,
    /// For the client to close, after an early answer.
    Linger,
    /// Nothing here: the connection speaks another protocol, whose tunnel has its own limit.
    Tunnel,
}

impl Phase {
    pub(super) const ALL: [Phase; 8] = [
        Phase::Idle,
        Phase::Head,
        Phase::Upload,
        Phase::FirstByte,
        Phase::Reply,
        Phase::OwnDeadline,
        Phase::Linger,
        Phase::Tunnel,
    ];

    /// Whether an exchange is under way that has no answer so far.
    pub(in crate::proxy) fn awaits_answer(self) -> bool {
        matches!(self, Phase::Upload | Phase::FirstByte | Phase::OwnDeadline)
    }
}
