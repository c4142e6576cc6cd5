//! Changes to a decision when more becomes known about the first try of the request.
//!
//! Always true: none of them lets the engine begin a run that the decision did not allow.

use super::retry_keys::KnownFirstTry;
use crate::flag::{Decision, EngineWork, FlagSet, RequestFacts, RouteFlag, SkipReason, decide};

/// Skips the dark run of a retry: the first try has had one, which has sent the private effects. A run that only reads
/// may be repeated.
pub(super) fn skip_second_dark_run(decision: &mut Decision, flag: &RouteFlag) {
    if let Decision::Legacy { engine_work: work @ EngineWork::Dark, .. } = decision
        && flag.route.keeps_runs
    {
        *work = EngineWork::Skip(SkipReason::Retried);
    }
}

/// Decides again once it is known which arm took the first try.
pub(super) fn decide_again(
    decision: &mut Decision,
    facts: &mut RequestFacts<'_>,
    first_try: &KnownFirstTry,
    set: &FlagSet,
    flag: &RouteFlag,
) {
    if first_try.arm.is_some() {
        facts.first_try = first_try.arm;
        *decision = decide(set, flag, facts);
    }
}
