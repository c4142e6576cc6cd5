//! Detects a client that floods its HTTP/2 connection with frames that cost this process more than the client.
//!
//! The h2 crate bounds the memory that such frames take; this module bounds their rate. Always true:
//! - Each answered stream offsets one reset, and each frame of a head or a body offsets [`CONTROL_FRAMES_PER_FRAME`]
//!   control frames. What is not offset counts against a limit for each [`PERIOD_MICROS`].
//! - The clock is read only when a limit is reached.

use crate::limits::Limits;

/// The period for which the limits hold.
pub(in crate::proxy) const PERIOD_MICROS: u64 = 10_000_000;
/// The control frames that may come with each frame of a head or a body, in either direction: a client acknowledges a
/// DATA frame by two WINDOW_UPDATEs, and may measure the round trip with a PING.
const CONTROL_FRAMES_PER_FRAME: u64 = 3;

/// Counts frames against one limit.
struct Budget {
    used: u64,
    max: u64,
    /// When the period began.
    began: u64,
}

impl Budget {
    /// Counts one more frame. Returns whether the limit allows it. If the limit is used up and the period is over, a
    /// new period begins, and this frame is its first.
    fn count(&mut self, clock: impl Fn() -> u64) -> bool {
        self.used += 1;
        if self.used <= self.max {
            return true;
        }
        let at = clock();
        let is_new_period = at.saturating_sub(self.began) >= PERIOD_MICROS;
        if is_new_period {
            (self.began, self.used) = (at, 1);
        }
        is_new_period
    }
    fn give_back(&mut self, count: u64) {
        self.used = self.used.saturating_sub(count);
    }
}

/// The limits on the frames of one connection.
pub(super) struct FloodLimits {
    resets: Budget,
    control: Budget,
}

impl FloodLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        let budget = |max| Budget { used: 0, max, began: 0 };
        Self { resets: budget(limits.client_http2_resets_max), control: budget(limits.client_http2_control_frames_max) }
    }
    /// Counts a stream that the client reset. Returns `false` if it resets streams too often.
    pub(super) fn allows_reset(&mut self, clock: impl Fn() -> u64) -> bool {
        self.resets.count(clock)
    }
    /// Counts a frame of the client that carries no part of a message. Returns `false` if it sends them too often.
    pub(super) fn allows_control(&mut self, clock: impl Fn() -> u64) -> bool {
        self.control.count(clock)
    }
    /// Records that a frame of a head or a body passed, in either direction.
    pub(super) fn on_message_frame(&mut self) {
        self.control.give_back(CONTROL_FRAMES_PER_FRAME);
    }
    /// Records that the answer on a stream was written.
    pub(super) fn on_answer(&mut self) {
        self.resets.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> FloodLimits {
        let limits = Limits { client_http2_resets_max: 3, client_http2_control_frames_max: 4, ..Limits::default() };
        FloodLimits::new(&limits)
    }

    #[test]
    fn resets_beyond_the_limit_are_refused_unless_they_are_spread_over_time() {
        let mut flood = limits();
        assert!((0..3).all(|_| flood.allows_reset(|| 20_000_000)));
        assert!(flood.allows_reset(|| 20_000_000), "the period began long ago");
        assert!(flood.allows_reset(|| 21_000_000) && flood.allows_reset(|| 22_000_000));
        assert!(!flood.allows_reset(|| 23_000_000));
        assert!(flood.allows_reset(|| 33_000_000));
    }

    #[test]
    fn answers_make_up_for_resets_and_parts_of_messages_for_control_frames() {
        let mut flood = limits();
        for _ in 0..1_000 {
            assert!(flood.allows_reset(|| 1));
            flood.on_answer();
            assert!((0..3).all(|_| flood.allows_control(|| 1)));
            flood.on_message_frame();
        }
        assert!((0..4).all(|_| flood.allows_control(|| 1)));
        assert!(!flood.allows_control(|| 1));
    }
}
