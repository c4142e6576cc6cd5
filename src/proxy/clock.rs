//! How long has this client connection waited, and for whom?
//!
//! One [`Clock`] per client connection, written with plain atomics by whoever makes progress: the connection's own
//! task, and the task that feeds the request's body to legacy. Always true: a phase has one limit, and progress moves
//! its start; nothing here allocates, locks or arms a timer. The edge's one lazy timer per connection reads it, so a
//! request costs no timer of its own. What an overrun means for the caller is `respond`'s business.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::limits::Limits;

static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since the process began to look.
pub(super) fn now() -> u64 {
    BASE.elapsed().as_micros() as u64
}

/// The same moment for a timer.
pub(super) fn instant(micros: u64) -> Instant {
    *BASE + Duration::from_micros(micros)
}

/// No limit.
pub(super) const NEVER: u64 = u64::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// The request's body: from the client, or for legacy to take it.
    Upload,
    /// The first byte of legacy's reply.
    FirstByte,
    /// The reply's body, or the client to take it.
    Reply,
    /// An arm with a deadline of its own: the engine, or a connect.
    Arm,
    /// The client to close after an early answer.
    Linger,
    /// Nothing here: the connection speaks another protocol and has a bound of its own.
    Tunnel,
}

impl Phase {
    const ALL: [Phase; 8] = [
        Phase::Idle,
        Phase::Head,
        Phase::Upload,
        Phase::FirstByte,
        Phase::Reply,
        Phase::Arm,
        Phase::Linger,
        Phase::Tunnel,
    ];
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Overdue {
    /// The client stopped sending its body.
    Client = 1,
    /// Legacy stopped taking the body.
    Upload,
    /// Legacy sent no first byte.
    FirstByte,
    /// The whole request took too long.
    Total,
    /// Nothing that an answer could tell: the connection is cut.
    Cut,
}

/// The limits in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    idle: u64,
    head: u64,
    pub(super) first_byte: u64,
    body: u64,
    total: u64,
    half_close: u64,
    linger: u64,
    /// The timer looks at least this often, so that it is never armed later than a wait that begins after it.
    pub(super) look: u64,
}

impl Bounds {
    pub(super) fn new(limits: &Limits) -> Self {
        let micros = |ms: u64| ms.saturating_mul(1_000).max(1);
        let mut bounds = Self {
            idle: micros(limits.client_idle_ms),
            head: micros(limits.head_read_ms),
            first_byte: micros(limits.first_byte_ms),
            body: micros(limits.body_idle_ms),
            total: if limits.total_ms == 0 { NEVER } else { micros(limits.total_ms) },
            half_close: micros(limits.client_half_close_ms),
            linger: micros(limits.linger_ms),
            look: 0,
        };
        bounds.look = bounds.idle.min(bounds.head).min(bounds.first_byte).min(bounds.body).min(bounds.total);
        bounds
    }

    fn of(&self, phase: Phase, first_byte: u64) -> u64 {
        match phase {
            Phase::Idle => self.idle,
            Phase::Head => self.head,
            Phase::Upload | Phase::Reply => self.body,
            Phase::FirstByte => first_byte,
            Phase::Arm | Phase::Tunnel => NEVER,
            Phase::Linger => self.linger,
        }
    }
}

/// Where one client connection stands.
#[derive(Default)]
pub(super) struct Clock {
    phase: AtomicU8,
    since: AtomicU64,
    began: AtomicU64,
    first_byte: AtomicU64,
    /// The exchange under way; a body that outlives its exchange no longer counts.
    turn: AtomicU32,
    request_done: AtomicBool,
    request_broken: AtomicBool,
    waits_for_client: AtomicBool,
    fin: AtomicU64,
    fired: AtomicU8,
    /// Wakes the connection's task, which keeps it registered.
    pub(super) waker: AtomicWaker,
}

impl Clock {
    pub(super) fn new() -> Self {
        let clock = Self::default();
        clock.enter(Phase::Head);
        clock
    }
    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed)).min(Phase::ALL.len() - 1)]
    }
    pub(super) fn enter(&self, phase: Phase) {
        self.since.store(now(), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }
    /// Something moved.
    pub(super) fn progress(&self) {
        self.since.store(now(), Relaxed);
    }
    /// Bytes came from the client.
    pub(super) fn heard(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }
    /// A request's head is complete. Gives the exchange's number and when it began.
    pub(super) fn begin(&self, first_byte: u64, no_body: bool) -> (u32, u64) {
        let at = now();
        let turn = self.turn.load(Relaxed).wrapping_add(1);
        self.turn.store(turn, Relaxed);
        self.began.store(at, Relaxed);
        self.first_byte.store(first_byte, Relaxed);
        self.request_done.store(no_body, Relaxed);
        self.request_broken.store(false, Relaxed);
        self.waits_for_client.store(false, Relaxed);
        self.fired.store(0, Relaxed);
        self.since.store(at, Relaxed);
        self.phase.store(Phase::Arm as u8, Relaxed);
        (turn, at)
    }
    /// Another limit for the first byte: the service has one of its own.
    pub(super) fn first_byte_within(&self, micros: u64) {
        self.first_byte.store(micros, Relaxed);
    }
    /// How many exchanges there were.
    pub(super) fn turns(&self) -> u32 {
        self.turn.load(Relaxed)
    }
    /// The request goes to legacy now.
    pub(super) fn sending(&self) {
        self.enter(if self.request_done.load(Relaxed) { Phase::FirstByte } else { Phase::Upload });
    }
    /// A frame of the request's body went by.
    pub(super) fn uploaded(&self, turn: u32) {
        if self.turn.load(Relaxed) == turn {
            self.waits_for_client.store(false, Relaxed);
            self.progress();
        }
    }
    /// The body has nothing to give: the client is slow, not legacy.
    pub(super) fn client_is_slow(&self, turn: u32) {
        if self.turn.load(Relaxed) == turn {
            self.waits_for_client.store(true, Relaxed);
        }
    }
    /// The request's body is complete.
    pub(super) fn request_ended(&self, turn: u32) {
        if self.turn.load(Relaxed) == turn {
            self.request_done.store(true, Relaxed);
            self.since.store(now(), Relaxed);
            let (from, to) = (Phase::Upload as u8, Phase::FirstByte as u8);
            if self.phase.compare_exchange(from, to, Relaxed, Relaxed).is_ok() {
                // From here on nobody reads the client's socket: its task begins to watch it.
                self.waker.wake();
            }
        }
    }
    /// The request's body broke off: bad framing, or the client is gone.
    pub(super) fn request_broke(&self, turn: u32) {
        if self.turn.load(Relaxed) == turn {
            self.request_broken.store(true, Relaxed);
        }
    }
    pub(super) fn is_request_done(&self) -> bool {
        self.request_done.load(Relaxed)
    }
    pub(super) fn is_request_broken(&self) -> bool {
        self.request_broken.load(Relaxed)
    }
    /// The client closed its sending side: it may be gone, or it may still read.
    pub(super) fn saw_fin(&self) {
        let _ = self.fin.compare_exchange(0, now().max(1), Relaxed, Relaxed);
    }
    pub(super) fn has_fin(&self) -> bool {
        self.fin.load(Relaxed) != 0
    }
    /// Tells the exchange that it is overdue; it answers when it is polled next.
    pub(super) fn fire(&self, why: Overdue) {
        self.fired.store(why as u8, Relaxed);
        self.enter(Phase::Linger);
    }
    pub(super) fn fired(&self) -> Option<Overdue> {
        match self.fired.load(Relaxed) {
            1 => Some(Overdue::Client),
            2 => Some(Overdue::Upload),
            3 => Some(Overdue::FirstByte),
            4 => Some(Overdue::Total),
            _ => None,
        }
    }

    /// The future's output, or why the wait for it is over. Polled by the connection's own task, which the edge wakes.
    pub(super) async fn watch<F: Future>(&self, future: F) -> Result<F::Output, Overdue> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.fired() {
            Some(why) => Poll::Ready(Err(why)),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// When the present wait ends, and what that means.
    pub(super) fn due(&self, bounds: &Bounds) -> (u64, Overdue) {
        let phase = self.phase();
        let since = self.since.load(Relaxed);
        let mut due = since.saturating_add(bounds.of(phase, self.first_byte.load(Relaxed)));
        let mut why = match phase {
            Phase::Idle | Phase::Head | Phase::Reply | Phase::Arm | Phase::Linger | Phase::Tunnel => Overdue::Cut,
            Phase::Upload if self.waits_for_client.load(Relaxed) => Overdue::Client,
            Phase::Upload => Overdue::Upload,
            Phase::FirstByte => Overdue::FirstByte,
        };
        if matches!(phase, Phase::Upload | Phase::FirstByte | Phase::Reply | Phase::Arm) {
            let total = self.began.load(Relaxed).saturating_add(bounds.total);
            if total < due {
                due = total;
                why = if phase == Phase::Reply { Overdue::Cut } else { Overdue::Total };
            }
            let fin = self.fin.load(Relaxed);
            if fin != 0 {
                // Whoever only closed the sending side is served as long as something moves; a client that is gone
                // answers our first bytes with a reset.
                let gone = fin.max(since).saturating_add(bounds.half_close);
                if gone < due {
                    (due, why) = (gone, Overdue::Cut);
                }
            }
        }
        (due, why)
    }
}
