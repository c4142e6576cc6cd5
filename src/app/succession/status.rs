//! What `status`, the metrics and the log say about successions.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};

use super::message::ProcessIdentity;

/// The successions of one process.
#[derive(Default)]
pub(in crate::app) struct SuccessionStatus(Mutex<Sentences>);

/// The sentences that `status` shows.
#[derive(Default)]
struct Sentences {
    succeeded: Option<String>,
    hands_over: Option<String>,
}

/// How a hand-over ended for the process that hands over.
#[derive(Clone, Copy)]
pub(in crate::app) enum HandOverEnd {
    /// The successor has started.
    Done,
    /// The successor was lost before this process began to release the store.
    ContinuesServing,
    /// The successor was lost later: this process has to start again.
    StartsAgain,
}

impl SuccessionStatus {
    fn state(&self) -> std::sync::MutexGuard<'_, Sentences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes and logs that this process has taken over.
    pub(in crate::app) fn note_succeeded(&self, predecessor: &ProcessIdentity, waited: Duration) {
        gauge!("pointsman_succession_store_wait_seconds").set(waited.as_secs_f64());
        counter!("pointsman_successions_total", "outcome" => "taken_over").increment(1);
        let text = format!("took over from {predecessor}, after this process had waited {waited:.1?} for the store");
        tracing::info!(%predecessor, ?waited, "this process has taken over, and has the store");
        self.state().succeeded = Some(text);
    }

    /// Notes and logs that this process has begun to hand over.
    pub(in crate::app) fn note_hand_over(&self, successor: &ProcessIdentity) {
        tracing::info!(%successor, "handing over: the successor accepts; requests, the shadow queue and runs finish here");
        self.state().hands_over = Some(format!("hands over to {successor}"));
    }

    /// Notes and logs how a hand-over of this process ended.
    pub(in crate::app) fn note_end(&self, successor: &ProcessIdentity, end: HandOverEnd) {
        let (outcome, sentence) = match end {
            HandOverEnd::Done => {
                ("handed_over", "handed over: open exchanges go on here, and this process ends after them")
            }
            HandOverEnd::ContinuesServing => {
                ("gone_on", "the successor is gone: this process accepts connections again, and goes on")
            }
            HandOverEnd::StartsAgain => ("started_again", "the successor is gone: this process starts again"),
        };
        counter!("pointsman_successions_total", "outcome" => outcome).increment(1);
        tracing::info!(%successor, "{sentence}");
        self.state().hands_over = None;
    }

    /// Whether this process hands over.
    pub(in crate::app) fn hands_over(&self) -> bool {
        self.state().hands_over.is_some()
    }

    /// A sentence for `status`; `None` if this process has not taken over and does not hand over now.
    pub(in crate::app) fn text(&self) -> Option<String> {
        let state = self.state();
        let parts: Vec<&str> = state.hands_over.iter().chain(&state.succeeded).map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
