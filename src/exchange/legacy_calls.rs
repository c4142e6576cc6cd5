//! The replies to the calls that legacy made for one request, for the steps that take their outputs from them.

use std::collections::BTreeSet;

use crate::compare::{EffectReply, Intent};

/// The calls that legacy made for one request, at the moment at which the engine's run began.
pub trait LegacyCalls: Send + Sync {
    /// Finds the call of legacy that corresponds to `intent`, a call of the engine, among those whose numbers are not
    /// in `assigned`. Returns the number of the call and its reply, which is `None` if the call got no reply.
    /// `siblings` returns the intents of those other items of the step that have no call yet; a call that equals one of
    /// these is left to it.
    ///
    /// # Errors
    /// No call corresponds, or it is not known which one does. The error says so, without values of the calls.
    fn corresponding(
        &self,
        intent: &Intent,
        siblings: &dyn Fn() -> Vec<Intent>,
        assigned: &BTreeSet<u64>,
    ) -> Result<(u64, Option<EffectReply>), String>;
}
