//! Measures how fast a client sends and reads, and how fast legacy, or a service whose reply is streamed, sends its
//! reply.
//!
//! Always true: for each side only the time in which the proxy waits for that side, and for nothing else, counts, so
//! that no side is blamed for another's pause; without a limit nothing is measured. Streamed bodies (events, gRPC,
//! tunnels) have no minimum.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::monotonic::{NEVER, now};
use crate::limits::Limits;

/// The minimum rates, in bytes per second; 0: none.
#[derive(Clone, Debug)]
pub(super) struct MinRates {
    client_send: u64,
    client_read: u64,
    legacy_send: u64,
    /// The period over which rates are measured, in microseconds.
    window: u64,
}

impl MinRates {
    /// The minimum rates of these limits; `None` if none is set.
    pub(super) fn new(limits: &Limits) -> Option<Self> {
        let rates = Self {
            client_send: limits.client_send_bytes_per_s_min,
            client_read: limits.client_read_bytes_per_s_min,
            legacy_send: limits.legacy_send_bytes_per_s_min,
            window: limits.rate_window_ms.saturating_mul(1_000),
        };
        (rates.client_send > 0 || rates.client_read > 0 || rates.legacy_send > 0).then_some(rates)
    }

    /// Returns the period over which rates are measured, in microseconds.
    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

/// The bytes that one side has moved while it was waited for. Times are in microseconds. Updated only by the tasks of
/// one exchange, one at a time.
#[derive(Default)]
struct Meter {
    /// Since when this side has been waited for; 0 if it is not.
    since: AtomicU64,
    waited: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    fn restart(&self) {
        [&self.since, &self.waited, &self.bytes].into_iter().for_each(|part| part.store(0, Relaxed));
    }
    /// Records that this side is waited for.
    fn begin_wait(&self, at: u64) {
        let _ = self.since.compare_exchange(0, at.max(1), Relaxed, Relaxed);
    }
    /// Records that this side is not waited for any more.
    fn end_wait(&self, at: u64) {
        let since = self.since.swap(0, Relaxed);
        if since != 0 {
            self.waited.fetch_add(at.saturating_sub(since), Relaxed);
        }
    }
    /// Records that this side moved bytes, which ends the wait for it.
    fn moved(&self, at: u64, bytes: u64) {
        self.end_wait(at);
        self.bytes.fetch_add(bytes, Relaxed);
    }
    /// Returns when this side is too slow if it moves nothing more: at the end of a window in which it moved less than
    /// it must. Bytes that may have moved unnoticed (`unseen`) count as moved. A window in which it was fast enough is
    /// followed by another.
    fn due(&self, at: u64, rate: u64, window: u64, unseen: u64) -> u64 {
        let since = self.since.load(Relaxed);
        if rate == 0 || since == 0 {
            return NEVER;
        }
        let (waited, bytes) = (self.waited.load(Relaxed), self.bytes.load(Relaxed));
        // The time that this many bytes may take.
        let time = |bytes: u64| u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(rate)).unwrap_or(NEVER);
        let waited_now = waited.saturating_add(at.saturating_sub(since));
        if waited_now >= window && time(bytes) >= waited_now {
            self.restart();
            self.begin_wait(at);
            return at.saturating_add(window);
        }
        let allowed = if unseen == 0 { 0 } else { time(bytes.saturating_add(unseen)) };
        since.saturating_add(window.max(allowed).saturating_sub(waited))
    }
}

/// The side that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    ClientSends,
    ClientReads,
    LegacySends,
}

/// The rates of one exchange.
pub(super) struct Rates {
    min: MinRates,
    client_send: Meter,
    client_read: Meter,
    legacy_send: Meter,
    /// Whether the body of the request or of the reply is streamed, so that there is no minimum rate.
    is_streaming: AtomicBool,
    /// How many bytes of an answer the socket, or the stream's window, may hold without its client having read them.
    unseen: AtomicU64,
}

impl Rates {
    pub(super) fn new(min: MinRates) -> Self {
        let (client_send, client_read, legacy_send) = Default::default();
        Self {
            min,
            client_send,
            client_read,
            legacy_send,
            is_streaming: AtomicBool::new(false),
            unseen: AtomicU64::new(0),
        }
    }
    /// Resets all meters: another exchange begins.
    pub(super) fn restart(&self) {
        [&self.client_send, &self.client_read, &self.legacy_send].into_iter().for_each(Meter::restart);
        self.is_streaming.store(false, Relaxed);
    }
    pub(super) fn set_streaming(&self) {
        self.is_streaming.store(true, Relaxed);
    }
    pub(super) fn waits_for_client_bytes(&self) {
        self.client_send.begin_wait(now());
    }
    pub(super) fn client_sent(&self, bytes: usize) {
        self.client_send.moved(now(), bytes as u64);
    }
    /// Records whether the next frame of legacy's reply is waited for.
    pub(super) fn waits_for_legacy(&self, waits: bool) {
        match waits {
            true => self.legacy_send.begin_wait(now()),
            false => self.legacy_send.end_wait(now()),
        }
    }
    pub(super) fn legacy_sent(&self, bytes: usize) {
        self.legacy_send.moved(now(), bytes as u64);
    }
    /// Records that the client's socket, or its stream, takes no more bytes. `buffer`: how many of the bytes that it
    /// took the client may not have read.
    pub(super) fn write_blocked(&self, buffer: usize) {
        let at = now();
        self.client_read.begin_wait(at);
        self.unseen.store(buffer as u64, Relaxed);
        // The wait is for the client now, not for legacy.
        self.legacy_send.end_wait(at);
    }
    pub(super) fn written(&self, bytes: usize) {
        self.client_read.moved(now(), bytes as u64);
    }

    /// Returns when the body of the request, or of the reply, is too slow if nothing more moves, and which side is too
    /// slow.
    pub(super) fn due(&self, of_reply: bool) -> (u64, Slow) {
        if self.is_streaming.load(Relaxed) {
            return (NEVER, Slow::ClientSends);
        }
        let (at, MinRates { client_send, client_read, legacy_send, window }) = (now(), &self.min);
        if !of_reply {
            return (self.client_send.due(at, *client_send, *window, 0), Slow::ClientSends);
        }
        let reads = self.client_read.due(at, *client_read, *window, self.unseen.load(Relaxed));
        let sends = self.legacy_send.due(at, *legacy_send, *window, 0);
        if reads <= sends { (reads, Slow::ClientReads) } else { (sends, Slow::LegacySends) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn only_the_time_in_which_a_side_is_waited_for_counts() {
        let meter = Meter::default();
        assert_eq!(meter.due(5 * SECOND, 100, 10 * SECOND, 0), NEVER, "it is not waited for");
        meter.begin_wait(SECOND);
        assert_eq!(meter.due(SECOND, 100, 10 * SECOND, 0), 11 * SECOND);
        meter.moved(3 * SECOND, 10);
        assert_eq!(meter.due(60 * SECOND, 100, 10 * SECOND, 0), NEVER, "another one is slow");
        meter.begin_wait(60 * SECOND);
        // Two seconds of ten are over, and ten bytes pay for a tenth of a second.
        assert_eq!(meter.due(61 * SECOND, 100, 10 * SECOND, 0), 68 * SECOND);
        assert_eq!(meter.due(70 * SECOND, 100, 10 * SECOND, 0), 68 * SECOND, "overdue");
    }

    #[test]
    fn a_window_that_was_fast_enough_is_followed_by_another() {
        let meter = Meter::default();
        meter.begin_wait(SECOND);
        meter.moved(2 * SECOND, 5_000);
        meter.begin_wait(2 * SECOND);
        assert_eq!(meter.due(12 * SECOND, 100, 10 * SECOND, 0), 22 * SECOND, "it begins now");
        assert_eq!(meter.due(30 * SECOND, 100, 10 * SECOND, 0), 22 * SECOND, "nothing has moved in it");
        assert_eq!(meter.due(30 * SECOND, 0, 10 * SECOND, 0), NEVER, "there is no minimum");
    }

    #[test]
    fn bytes_that_may_have_moved_unnoticed_count_as_moved() {
        let meter = Meter::default();
        meter.begin_wait(SECOND);
        assert_eq!(meter.due(SECOND, 100, 10 * SECOND, 500), 11 * SECOND);
        assert_eq!(meter.due(SECOND, 100, 10 * SECOND, 5_000), 51 * SECOND);
        assert_eq!(meter.due(40 * SECOND, 100, 10 * SECOND, 5_000), 51 * SECOND);
    }
}
