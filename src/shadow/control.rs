//! What the run that answered a request (the control) did, for the comparison of the route's candidate with it.
//!
//! Always true: the candidate is rehearsed only after the control has ended, or after a bounded time: none of the
//! candidate's reads is sent before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::control_reads::{ControlReads, ReadsBesideControl};
use super::queue::QueuedRequest;
use super::run::Runner;
use super::stop::Stop;
use crate::compare::Effect;
use crate::exchange::{PerformedCalls, RequestEffects};
use crate::flag::SkipReason;

/// How long the rehearsal of a candidate waits for the end of the run that answered. A run that has not ended by then
/// is compared by its answer alone.
pub const CONTROL_ENDS_WITHIN: Duration = Duration::from_secs(10);

impl Runner {
    /// For a request to a candidate: waits until the run that answered it has ended, or for a bounded time, and adds
    /// that run's calls. A read of the candidate is not sent, but answered from these calls, if the run made it too or
    /// if it would repeat one of the run's effects. `None`: the ticket is settled, because too many requests wait, a
    /// stop was asked for, or the route has no candidate any more.
    pub(super) async fn wait_for_control(
        &self,
        mut entry: QueuedRequest,
        stop: watch::Receiver<Stop>,
    ) -> Option<QueuedRequest> {
        let Some(candidate) = &entry.answered.candidate else { return Some(entry) };
        // From now on, moves of the candidate wait for the comparison of this request.
        entry.ticket.begin();
        // The rules of the route are those of the control only while the route has a candidate.
        let control = {
            let rules = self.rules.load();
            rules.get(&candidate.id).and_then(|_| rules.get(&entry.answered.flag.route.id).cloned())
        };
        let Some(control) = control else {
            entry.ticket.skip(SkipReason::FilesChanged);
            return None;
        };
        let (mut entry, reads) = self.with_calls_of_control(entry, stop).await?;
        let calls = entry.answered.effects.as_ref().map(|effects| effects.so_far().calls);
        entry.answered.reads = Some(Arc::new(ReadsBesideControl::new(control, calls, reads)));
        Some(entry)
    }

    /// The request with the effects of its control, and the control's reads.
    async fn with_calls_of_control(
        &self,
        mut entry: QueuedRequest,
        mut stop: watch::Receiver<Stop>,
    ) -> Option<(QueuedRequest, ControlReads)> {
        let control = entry.answered.candidate.as_ref().and_then(|candidate| candidate.control);
        let known = RequestEffects::new(Duration::ZERO);
        let Some(control) = control else {
            // The run that answered is not stored, so it only reads: it has no effects.
            entry.answered.effects = Some(known);
            return Some((entry, ControlReads::default()));
        };
        let Some(reserved) = self.waiting.reserve(entry.answered.bytes()) else {
            entry.ticket.skip(SkipReason::EffectsQueueFull);
            return None;
        };
        entry.memory = reserved.into();
        tokio::select! {
            biased;
            calls = self.twins.performed(control, CONTROL_ENDS_WITHIN) => {
                let Some(PerformedCalls { effects, reads }) = calls else {
                    return Some((entry, ControlReads::default()));
                };
                let bytes = effects.iter().chain(&reads).map(Effect::bytes).sum();
                let Some(reserved) = self.waiting.reserve(bytes) else {
                    entry.ticket.skip(SkipReason::EffectsQueueFull);
                    return None;
                };
                let reserved = Arc::new(reserved);
                effects.into_iter().for_each(|call| known.add(call, Box::new(Arc::clone(&reserved))));
                entry.answered.effects = Some(known);
                Some((entry, ControlReads { reads, reserved: Some(reserved) }))
            }
            _ = stop.wait_for(|stop| *stop != Stop::No) => {
                entry.ticket.skip(SkipReason::ShuttingDown);
                None
            }
        }
    }
}
