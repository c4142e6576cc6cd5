//! Hands the reads of a run to whoever records or answers them.
//!
//! Always true: a read that is answered from a capture is not sent, and its reply is decoded as that of the service
//! would be.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Driver;
use crate::engine::machine::run_report;
use crate::engine::ports::client::Outgoing;
use crate::engine::ports::decode::DecodeBounds;
use crate::engine::ports::reply::{self, RecordedRead, ReplyRecorder};
use crate::workflow::{AttemptResult, EffectClass, InFlight};

impl Driver {
    /// Performs an attempt: answers a read from a capture, or has it sent.
    pub(super) fn send_or_answer(
        &self,
        attempt: &InFlight,
        mut request: Outgoing,
    ) -> BoxFuture<'static, AttemptResult> {
        let reads = self.legacy_sources.reads.as_ref().filter(|_| attempt.effect == EffectClass::Read);
        if let Some(reads) = reads {
            let plan = Some(&**self.machine.plan());
            let asked = run_report::intent(plan, &attempt.step, attempt.item, attempt.part, &attempt.request);
            reads.record_asked(&asked);
            if let Some(answer) = reads.answer(&asked, &request.recorded_headers) {
                let files = &self.core.files;
                let bounds = DecodeBounds::of(&files.limits, &files.key_secret);
                let Outgoing { recorded_headers: headers, secrets, streaming, .. } = request;
                let recorder = ReplyRecorder { bounds, headers, secrets, streaming };
                return Box::pin(std::future::ready(reply::of_captured(answer, &recorder)));
            }
            request.read = Some(RecordedRead { reads: Arc::clone(reads), asked });
        }
        self.executor.perform(attempt.effect, request)
    }
}
