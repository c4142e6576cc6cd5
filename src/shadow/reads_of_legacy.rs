//! Answers the reads of a shadow run from legacy's own (`replay_reads: true`).
//!
//! The engine runs after legacy has acted, so that a read which is sent sees what legacy has changed. Where legacy
//! itself made the same read through the egress listener, the reply to it shows what was there before.
//!
//! Always true: a read is answered only from an equal one of the same request: service, method, path, query and body;
//! the first from the first, and so on, and the last one again if the run asks more often. All others are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::compare::{AnsweredRead, CapturedReads, EffectReply, Intent};
use crate::exchange::{KnownInstance, Reads, RecordedReads, RequestEffects};
use crate::workflow::RecordedHeaders;

/// The reads of one run, answered from legacy's calls as they are when the run begins.
pub(super) struct ReadsOfLegacy {
    of_legacy: CapturedReads,
    recorded: Option<Arc<RecordedReads>>,
    has_sent: AtomicBool,
}

impl ReadsOfLegacy {
    /// `recorded` learns of all reads, those that are answered here included.
    pub(super) fn new(calls: &RequestEffects, recorded: Option<Arc<RecordedReads>>) -> Self {
        let of_legacy = CapturedReads::of_legacy(&calls.so_far().calls);
        Self { of_legacy, recorded, has_sent: AtomicBool::new(false) }
    }

    /// Whether at least one read was sent, because legacy had made no equal one.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }
}

impl Reads for ReadsOfLegacy {
    fn answer(&self, asked: &Intent, _headers: &RecordedHeaders) -> Option<Result<EffectReply, String>> {
        let Ok(reply) = self.of_legacy.answer(asked) else {
            self.has_sent.store(true, Ordering::Relaxed);
            return None;
        };
        self.record(AnsweredRead { asked: asked.clone(), reply: Some(reply.clone()) });
        Some(Ok(reply))
    }
    fn record(&self, read: AnsweredRead) {
        self.recorded.iter().for_each(|recorded| recorded.record(read.clone()));
    }
    fn record_instance(&self, known: KnownInstance) {
        self.recorded.iter().for_each(|recorded| recorded.record_instance(known.clone()));
    }
    fn record_started(&self, at: Timestamp) {
        self.recorded.iter().for_each(|recorded| recorded.record_started(at));
    }
}
