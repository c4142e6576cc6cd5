//! What a client connection waits for, and since when.
//!
//! One [`ConnectionWait`] per client connection, and with HTTP/2 one for each of its streams too, updated with plain
//! atomics by the connection's own task and by the task that sends the request's body to legacy. Always true: each
//! phase has one limit on the time without progress; no update of a wait allocates, locks or arms a timer. The
//! connection has one timer, whose task reads the wait when the timer fires, so a request needs no timer of its own.
//! `respond` turns an overrun into an answer.

mod due;
mod flush;
mod phase;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;

use flush::ReplyFlush;
pub(super) use phase::Phase;

use super::completion::Unflushed;
use super::monotonic::{NEVER, now, recent};
use super::rate::Rates;
use super::settler::Settler;
use super::wait_limits::{ExchangeLimits, WaitLimits};

/// Whether a connection can be parked when it is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Parkable {
    No,
    Yes,
    /// The connection's task has been asked to park it.
    Requested,
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Overdue {
    /// The client stopped sending its body.
    Client = 1,
    /// The client sends its body too slowly.
    ClientSlow,
    /// Legacy stopped taking the body.
    Upload,
    /// Legacy sent no first byte.
    FirstByte,
    /// The whole request took too long.
    Total,
    /// The wait ends without an answer: the connection is cut.
    Cut,
}

/// The state of one client connection's wait. Times are in microseconds, as [`now`] returns them.
#[derive(Default)]
pub(super) struct ConnectionWait {
    phase: AtomicU8,
    since: AtomicU64,
    began: AtomicU64,
    first_byte_limit: AtomicU64,
    body_limit: AtomicU64,
    total_limit: AtomicU64,
    /// The number of the current exchange; updates from the body of an earlier one are ignored.
    exchange_number: AtomicU32,
    request_done: AtomicBool,
    request_broken: AtomicBool,
    /// Whether the request may have been sent to legacy, in part or whole.
    is_sent: AtomicBool,
    /// Whether the request has no body.
    has_no_body: AtomicBool,
    /// Whether the last bytes that were read may end a message. If not, and the request has no body, they may
    /// contain the beginning of the next request.
    may_end_message: AtomicBool,
    /// Whether the client has sent anything.
    has_client_bytes: AtomicBool,
    waits_for_client: AtomicBool,
    /// Whether the reply's next frame has not come from legacy yet.
    waits_for_legacy: AtomicBool,
    /// The number of bytes of the request's body that came. Written by one task at a time.
    request_bytes: AtomicU64,
    /// When the client closed its sending side; 0 until then.
    fin: AtomicU64,
    overdue_reported: AtomicU8,
    /// Whether the exchange may use the store.
    may_use_store: AtomicBool,
    /// Whether the connection is to close if it is idle.
    close_requested: AtomicBool,
    /// A [`Parkable`].
    parkable: AtomicU8,
    /// The meters of byte rates, if there is a minimum rate.
    rates: Option<Box<Rates>>,
    /// Replies that the client's socket has not taken completely.
    pub(super) unflushed: Unflushed,
    /// Whether the socket has taken what was passed on of the current reply.
    pub(super) flush: ReplyFlush,
    /// Wakes the connection's task, which registers itself at each poll.
    pub(super) waker: AtomicWaker,
}

impl ConnectionWait {
    pub(super) fn new() -> Self {
        let wait = Self::default();
        wait.set_limits(ExchangeLimits { first_byte: NEVER, body: NEVER, total: NEVER });
        wait.enter(Phase::Head);
        wait
    }
    /// Creates a wait that also measures rates, if the limits have minimum rates.
    pub(super) fn with_rates(limits: &WaitLimits) -> Self {
        let rates = limits.rates.as_ref().map(|min| Box::new(Rates::new(min.clone())));
        Self { rates, ..Self::new() }
    }
    /// Returns the meters of byte rates, if there is a minimum rate.
    pub(super) fn rates(&self) -> Option<&Rates> {
        self.rates.as_deref()
    }
    /// Records that the client's socket takes no bytes now.
    pub(super) fn write_blocked(&self, socket: &TcpStream) {
        if let Some(rates) = self.rates.as_ref().filter(|_| self.phase() == Phase::Reply) {
            rates.write_blocked(rustix::net::sockopt::socket_send_buffer_size(socket).unwrap_or(usize::MAX));
        }
    }
    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed)).min(Phase::ALL.len() - 1)]
    }
    pub(super) fn enter(&self, phase: Phase) {
        self.enter_at(phase, recent());
    }
    /// Begins a phase, for a caller that has just read the clock: `at` is the present time.
    pub(super) fn enter_at(&self, phase: Phase, at: u64) {
        self.since.store(at, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }
    /// Restarts the limit of the current phase, because bytes moved.
    pub(super) fn progress(&self) {
        self.since.store(recent(), Relaxed);
    }
    /// Records that bytes arrived from the client; `may_end_message`: whether a head or a chunked body may end with
    /// them.
    pub(super) fn on_client_bytes(&self, may_end_message: bool) {
        self.may_end_message.store(may_end_message, Relaxed);
        self.has_client_bytes.store(true, Relaxed);
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }
    /// Whether a part of a head has come, but not the rest.
    pub(super) fn has_part_of_head(&self) -> bool {
        self.phase() == Phase::Head && self.has_client_bytes.load(Relaxed)
    }
    /// Begins an exchange, whose request has a complete head. Returns the exchange's number and when it began.
    pub(super) fn begin(&self, limits: ExchangeLimits, no_body: bool) -> (u32, u64) {
        let at = recent();
        let exchange_number = self.exchange_number.load(Relaxed).wrapping_add(1);
        self.exchange_number.store(exchange_number, Relaxed);
        self.began.store(at, Relaxed);
        self.set_limits(limits);
        self.rates.iter().for_each(|rates| rates.restart());
        self.request_done.store(no_body, Relaxed);
        self.has_no_body.store(no_body, Relaxed);
        self.request_broken.store(false, Relaxed);
        self.is_sent.store(false, Relaxed);
        self.waits_for_client.store(false, Relaxed);
        self.waits_for_legacy.store(false, Relaxed);
        self.request_bytes.store(0, Relaxed);
        self.overdue_reported.store(0, Relaxed);
        self.may_use_store.store(false, Relaxed);
        self.since.store(at, Relaxed);
        self.phase.store(Phase::OwnDeadline as u8, Relaxed);
        (exchange_number, at)
    }
    /// Sets the limits of the exchange, once its route is known.
    pub(super) fn set_limits(&self, limits: ExchangeLimits) {
        let ExchangeLimits { first_byte, body, total } = limits;
        self.first_byte_limit.store(first_byte, Relaxed);
        self.body_limit.store(body, Relaxed);
        self.total_limit.store(total, Relaxed);
    }
    /// Returns how long the current phase may last without progress.
    fn limit_of(&self, phase: Phase, wait_limits: &WaitLimits) -> u64 {
        match phase {
            Phase::Idle => wait_limits.idle,
            Phase::Head => wait_limits.head,
            Phase::Upload | Phase::Reply => self.body_limit.load(Relaxed),
            Phase::FirstByte => self.first_byte_limit.load(Relaxed),
            Phase::OwnDeadline | Phase::Tunnel => NEVER,
            Phase::Linger => wait_limits.linger,
        }
    }
    /// Returns when the whole exchange is overdue.
    fn total_due(&self) -> u64 {
        self.began.load(Relaxed).saturating_add(self.total_limit.load(Relaxed))
    }
    /// Returns the number of exchanges so far.
    pub(super) fn exchange_count(&self) -> u32 {
        self.exchange_number.load(Relaxed)
    }
    /// Records that the exchange may use the store from now on.
    pub(super) fn set_may_use_store(&self) {
        self.may_use_store.store(true, Relaxed);
    }
    /// Records that the exchange does not use the store any more: what is left of it is a body that a service sends.
    pub(super) fn clear_may_use_store(&self) {
        self.may_use_store.store(false, Relaxed);
    }
    /// Whether the current exchange, or else the last one, may use the store.
    pub(super) fn may_use_store(&self) -> bool {
        self.may_use_store.load(Relaxed)
    }
    /// Records that the request is sent to legacy from now on: `at` is the present time.
    pub(super) fn start_sending(&self, at: u64) {
        self.is_sent.store(true, Relaxed);
        self.enter_at(if self.request_done.load(Relaxed) { Phase::FirstByte } else { Phase::Upload }, at);
    }
    /// Records that legacy certainly has not begun with what was sent, and that the request waits for another
    /// connection.
    pub(super) fn mark_not_sent(&self) {
        self.is_sent.store(false, Relaxed);
        self.enter(Phase::OwnDeadline);
    }
    /// Whether the request may have been sent to legacy, in part or whole.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Relaxed)
    }
    /// Records that a frame of the request's body, of this many bytes, was read ahead or passed on to legacy.
    pub(super) fn uploaded(&self, exchange_number: u32, bytes: usize) {
        if self.exchange_number.load(Relaxed) == exchange_number {
            self.request_bytes.store(self.request_bytes() + bytes as u64, Relaxed);
            self.waits_for_client.store(false, Relaxed);
            self.rates.iter().for_each(|rates| rates.client_sent(bytes));
            self.progress();
        }
    }
    /// Returns when the current phase began, or when bytes last moved in it.
    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }
    /// Records when the socket last took bytes of any stream: bytes of this exchange wait for the same socket.
    pub(super) fn on_socket_progress(&self, at: u64) {
        if self.phase() == Phase::Reply && !self.waits_for_legacy.load(Relaxed) {
            self.since.fetch_max(at, Relaxed);
        }
    }
    /// Returns the number of bytes of the request's body that came.
    pub(super) fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Relaxed)
    }
    /// Notes whether the next frame of legacy's reply has come.
    pub(super) fn note_reply_poll<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.waits_for_legacy.store(polled.is_pending(), Relaxed);
        self.rates.iter().for_each(|rates| rates.waits_for_legacy(polled.is_pending()));
        polled
    }
    /// Records that no body frame is available: the wait is for the client, not for legacy.
    pub(super) fn set_waits_for_client(&self, exchange_number: u32) {
        if self.exchange_number.load(Relaxed) == exchange_number {
            self.waits_for_client.store(true, Relaxed);
            self.rates.iter().for_each(|rates| rates.waits_for_client_bytes());
        }
    }
    /// Records that the request's body is complete.
    pub(super) fn request_ended(&self, exchange_number: u32) {
        if self.exchange_number.load(Relaxed) == exchange_number {
            self.request_done.store(true, Relaxed);
            self.since.store(now(), Relaxed);
            let (from, to) = (Phase::Upload as u8, Phase::FirstByte as u8);
            if self.phase.compare_exchange(from, to, Relaxed, Relaxed).is_ok() {
                // From here on the client's socket is not read, so the connection's task begins to peek at it.
                self.waker.wake();
            }
        }
    }
    /// Records that the request's body ended with an error: bad framing, or the client is gone.
    pub(super) fn on_request_error(&self, exchange_number: u32) {
        if self.exchange_number.load(Relaxed) == exchange_number {
            self.request_broken.store(true, Relaxed);
        }
    }
    pub(super) fn is_request_done(&self) -> bool {
        self.request_done.load(Relaxed)
    }
    pub(super) fn is_request_broken(&self) -> bool {
        self.request_broken.load(Relaxed)
    }
    /// Records that the client closed its sending side: it may be gone, or it may still read.
    pub(super) fn on_fin(&self) {
        let _ = self.fin.compare_exchange(0, now().max(1), Relaxed, Relaxed);
    }
    pub(super) fn has_fin(&self) -> bool {
        self.fin.load(Relaxed) != 0
    }
    /// Returns since when the connection has been idle; `None` if it is not idle, or is to close already.
    pub(super) fn idle_since(&self) -> Option<u64> {
        let is_idle = self.phase() == Phase::Idle && !self.close_requested.load(Relaxed);
        is_idle.then(|| self.since.load(Relaxed))
    }
    /// Asks the connection's task to close the connection if it is still idle.
    pub(super) fn request_close(&self) {
        self.close_requested.store(true, Relaxed);
        self.waker.wake();
    }
    /// Sets whether the connection can be parked.
    pub(super) fn set_parkable(&self, is_parkable: bool) {
        self.parkable.store(if is_parkable { Parkable::Yes } else { Parkable::No } as u8, Relaxed);
    }
    /// Asks the connection's task to park the connection, if it can be parked and has been idle since before a time.
    pub(super) fn request_parking(&self, before: u64) {
        let (from, to) = (Parkable::Yes as u8, Parkable::Requested as u8);
        if self.idle_since().is_some_and(|since| since <= before)
            && self.parkable.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
        {
            self.waker.wake();
        }
    }
    /// Takes the request to park, if there is one, and returns since when the connection is idle; `None` if it is not
    /// idle, or not for as long as the limits require.
    pub(super) fn take_parking_request(&self, wait_limits: &WaitLimits) -> Option<u64> {
        if self.parkable.load(Relaxed) != Parkable::Requested as u8 {
            return None;
        }
        self.set_parkable(true);
        let is_at_rest = !self.has_fin() && !self.unflushed.is_any();
        self.idle_since().filter(|since| is_at_rest && since.saturating_add(wait_limits.park) <= now())
    }
    /// Takes the request to close, if there is one, and returns whether the connection is to close now: not if a
    /// request has begun meanwhile.
    pub(super) fn take_close_request(&self) -> bool {
        self.close_requested.load(Relaxed) && self.close_requested.swap(false, Relaxed) && self.phase() == Phase::Idle
    }
    /// Records that the client's socket has taken all bytes that hyper had.
    pub(super) fn flushed(&self, settler: &Settler) {
        if let Some(exchange_number) = self.unflushed.flushed(settler)
            && exchange_number == self.exchange_count()
            && self.is_request_done()
            && self.phase() != Phase::Tunnel
        {
            // If hyper has already read a part of the next head, the connection is not idle.
            let has_part_of_next = self.has_no_body.load(Relaxed) && !self.may_end_message.load(Relaxed);
            self.enter(if has_part_of_next { Phase::Head } else { Phase::Idle });
        }
    }
    /// Reports to the exchange that it is overdue; the exchange answers when it is polled next.
    pub(super) fn report_overdue(&self, why: Overdue) {
        self.overdue_reported.store(why as u8, Relaxed);
        self.enter(Phase::Linger);
    }
    pub(super) fn overdue_reported(&self) -> Option<Overdue> {
        match self.overdue_reported.load(Relaxed) {
            1 => Some(Overdue::Client),
            2 => Some(Overdue::ClientSlow),
            3 => Some(Overdue::Upload),
            4 => Some(Overdue::FirstByte),
            5 => Some(Overdue::Total),
            _ => None,
        }
    }

    /// Returns the future's output, or the reported overrun. Polled by the connection's own task.
    pub(super) async fn or_overdue<F: Future>(&self, future: F) -> Result<F::Output, Overdue> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match self.overdue_reported() {
            Some(why) => Poll::Ready(Err(why)),
            None => future.as_mut().poll(cx).map(Ok),
        })
        .await
    }
}
