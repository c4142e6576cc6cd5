//! The replies that legacy got to the calls that it made for the request of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::CallRecord;
use crate::names::StepId;

/// The replies that legacy got to the calls that it made for a run's request. The same question always has the same
/// answer.
pub trait LegacyReplies: Send + Sync {
    /// The reply to the call by legacy that corresponds to this call of a step; `assigned` are the numbers of the calls
    /// whose replies were given to other rehearsed calls.
    ///
    /// # Errors
    /// There is no such call, or it is not known which one corresponds. The error says so, as a sentence without values
    /// of the calls.
    fn reply_to(&self, call: &RehearsedCall<'_>, assigned: &BTreeSet<u64>) -> Result<LegacyReply, String>;
}

/// A call that is rehearsed.
pub struct RehearsedCall<'a> {
    /// The step.
    pub step: &'a StepId,
    /// Its item.
    pub item: Option<u32>,
    /// What would be sent.
    pub intent: &'a CallRecord,
    /// What the other items of the step would send that have not begun: calls by legacy that equal these are theirs.
    pub siblings: &'a dyn Fn() -> Vec<(u32, CallRecord)>,
}

/// The reply to one call by legacy.
pub struct LegacyReply {
    /// The number of the call.
    pub call: u64,
    /// The reply, decoded as one to a call of the engine would be.
    pub result: LegacyResult,
}

/// What came of a call by legacy.
#[derive(Clone, Debug)]
pub enum LegacyResult {
    /// A reply.
    Reply {
        /// Its status.
        status: u16,
        /// The headers that the plan reads, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body.
        output: Arc<Value>,
    },
    /// A reply whose body cannot be read within the bounds.
    Unreadable {
        /// Its status.
        status: u16,
        /// What is wrong with the body, as the rest of a sentence.
        why: String,
    },
    /// No reply.
    None {
        /// What happened.
        why: String,
    },
}
