//! The replies that a run hands to its caller while a service sends their bodies.
//!
//! Always true: a reply that is not handed over is dropped with the run's driver at the latest, and then its connection
//! to the service closes. The driver says which runs stream; any other run reads the reply as a whole.

use std::collections::BTreeMap;

use crate::engine::machine::CallerAnswer;
use crate::engine::ports::client::Outgoing;
use crate::exchange::{AnswerBody, ArmReply, StreamedBody};
use crate::names::StepId;
use crate::workflow::{Run, is_without_content};

/// The replies that are streamed, or will be, by the step that calls.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<StepId, StreamedBody>);

impl Streams {
    /// Lets the reply to a call be streamed, if its step says so.
    pub fn prepare(&mut self, call: &mut Outgoing) {
        if let Some(streaming) = &mut call.streaming {
            let body = StreamedBody::default();
            streaming.receiver = Some(body.clone());
            self.0.insert(streaming.step.clone(), body);
        }
    }

    /// Gives an answer the body that a service is sending, where the run's answer is such a body.
    pub fn put_into(&mut self, answer: &mut CallerAnswer, run: &Run) {
        if let Some(step) = run.answer().and_then(|answer| answer.streamed_from.as_ref())
            && let CallerAnswer::Reply(reply) = answer
            && let ArmReply::Answer(answer) = &mut **reply
            && !is_without_content(answer.status.as_u16())
        {
            answer.body = AnswerBody::Streamed(self.0.remove(step).unwrap_or_default());
        }
    }
}
