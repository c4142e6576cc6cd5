//! The replies that legacy got to its own calls, for the steps of one run that are rehearsed from them.
//!
//! Always true: a reply is decoded as one to a call of the engine would be, within the same bounds. One of which the
//! events of a control have less than the step would record is not taken: the run would go on with less than the
//! service answered.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::machine::run_report;
use crate::engine::ports::decode::DecodeBounds;
use crate::engine::ports::reply;
use crate::exchange::LegacyCalls;
use crate::names::StepId;
use crate::workflow::{CallRecord, LegacyReplies, LegacyReply, LegacyResult, Plan, StepPart};

/// The replies that legacy got to its calls for the request of one run.
pub(super) struct RepliesOfRun {
    pub calls: Arc<dyn LegacyCalls>,
    pub plan: Arc<Plan>,
    pub bounds: DecodeBounds,
}

impl LegacyReplies for RepliesOfRun {
    fn reply_to(
        &self,
        step: &StepId,
        item: Option<u32>,
        intent: &CallRecord,
        assigned: &BTreeSet<u64>,
    ) -> Result<LegacyReply, String> {
        let Some((index, _)) = self.plan.step(step) else { return Err(format!("the plan has no step `{step}`")) };
        let intent = run_report::intent(Some(&self.plan), step, item, StepPart::Do, intent);
        let (call, reply) = self.calls.corresponding(&intent, assigned)?;
        let headers = self.plan.recorded_headers(index, StepPart::Do);
        if let Some(lacking) = reply.as_ref().and_then(|reply| reply.lacks(headers.names())) {
            return Err(format!("the events of the plan in force do not have all of its reply: {lacking} is missing"));
        }
        let result = match reply {
            Some(reply) => reply::of_legacy(&reply, headers, self.bounds),
            None => LegacyResult::None { why: "it got no reply".to_owned() },
        };
        Ok(LegacyReply { call, result })
    }
}
