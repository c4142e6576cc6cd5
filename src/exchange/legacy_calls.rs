//! The replies to the calls that legacy made for one request, for the steps that take their outputs from them.

use std::collections::BTreeSet;

use crate::compare::{EffectReply, Intent};

/// The calls that legacy made for one request, at the moment at which the engine's run began.
pub trait LegacyCalls: Send + Sync {
    /// Finds the call that corresponds to one of the engine, among those whose numbers are not in `assigned`. Returns
    /// its number and its reply; `None` within if it got none. `siblings` returns what the other items of the step
    /// would send that have no call yet; a call that equals one of these is not taken.
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
