//! When a wait is overdue, and what that means for its connection.
//!
//! Always true: nothing is changed here, except that a meter of `rate` may begin a new window; of several limits that
//! hold for a wait, the one that ends first counts.

use std::sync::atomic::Ordering::Relaxed;

use super::{ConnectionWait, Overdue, Phase};
use crate::proxy::cut_reason::CutReason;
use crate::proxy::monotonic::now;
use crate::proxy::rate::Slow;
use crate::proxy::wait_limits::WaitLimits;

impl ConnectionWait {
    /// Returns why the connection is cut, if its wait is overdue now.
    pub(in crate::proxy) fn why_cut(&self, wait_limits: &WaitLimits) -> CutReason {
        let (at, fin) = (now(), self.fin.load(Relaxed));
        let gone = fin.max(self.since.load(Relaxed)).saturating_add(wait_limits.half_close);
        match self.phase() {
            _ if self.total_due() <= at => CutReason::Timeout,
            _ if fin != 0 && gone <= at => CutReason::ClientGone,
            Phase::Reply if self.is_too_slow(Slow::ClientReads) => CutReason::ClientSlow,
            Phase::Reply if self.is_too_slow(Slow::LegacySends) => CutReason::LegacyReplySlow,
            Phase::Reply if self.waits_for_legacy.load(Relaxed) => CutReason::LegacyReplyStalled,
            Phase::Reply | Phase::Linger => CutReason::ClientStalled,
            // Reached only if the exchange has been told before that it is overdue, and is overdue again: it is
            // answered only once, so now its connection is cut.
            Phase::Upload | Phase::FirstByte | Phase::OwnDeadline => CutReason::Timeout,
            Phase::Idle | Phase::Head | Phase::Tunnel => CutReason::ClientGone,
        }
    }

    fn is_too_slow(&self, who: Slow) -> bool {
        self.rates.as_ref().is_some_and(|rates| matches!(rates.due(true), (due, slow) if slow == who && due <= now()))
    }

    /// Returns when the current wait is overdue, and which wait that is.
    pub(in crate::proxy) fn due(&self, wait_limits: &WaitLimits) -> (u64, Overdue) {
        let phase = self.phase();
        let since = self.since.load(Relaxed);
        let mut due = since.saturating_add(self.limit_of(phase, wait_limits));
        let mut why = match phase {
            Phase::Idle | Phase::Head | Phase::Reply | Phase::OwnDeadline | Phase::Linger | Phase::Tunnel => {
                Overdue::Cut
            }
            Phase::Upload if self.waits_for_client.load(Relaxed) => Overdue::Client,
            Phase::Upload => Overdue::Upload,
            Phase::FirstByte => Overdue::FirstByte,
        };
        if matches!(phase, Phase::Upload | Phase::FirstByte | Phase::Reply | Phase::OwnDeadline) {
            if let (Some(rates), Phase::Upload | Phase::Reply) = (&self.rates, phase) {
                let (slow, _) = rates.due(phase == Phase::Reply);
                if slow < due {
                    due = slow;
                    why = if phase == Phase::Reply { Overdue::Cut } else { Overdue::ClientSlow };
                }
            }
            let total = self.total_due();
            if total < due {
                due = total;
                why = if phase == Phase::Reply { Overdue::Cut } else { Overdue::Total };
            }
            let fin = self.fin.load(Relaxed);
            if fin != 0 {
                // A client that only closed its sending side is served as long as bytes move; a client that is gone
                // answers the first bytes with a reset.
                let gone = fin.max(since).saturating_add(wait_limits.half_close);
                if gone < due {
                    (due, why) = (gone, Overdue::Cut);
                }
            }
        }
        (due, why)
    }
}
