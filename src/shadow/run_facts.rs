//! What a run, and the comparison of a pair, have to know of the request.

use std::sync::Arc;

use super::engine_result::EngineResult;
use crate::compare::{AwaitedIntents, Effect, Intent, Rules, path_of_url};
use crate::evidence::is_sampled;
use crate::exchange::{Answered, CallTarget, RunReport, UnattributedWrites};
use crate::expression::CreatedIdSource;
use crate::flag::{Instance, RouteFlag, State};
use crate::names::{RouteId, StepId};
use crate::workflow::Mode;

/// The route that created the instance which this request follows up.
pub(super) fn creator(answered: &Answered) -> Option<&RouteFlag> {
    let Some(Instance::Follows { creator, .. }) = &answered.flag.route.instance else { return None };
    answered.flags.route(creator).map(|flag| &**flag)
}

/// The route that created this request's instance: where its replies have the new instance's id.
pub(super) fn instance_ids(answered: &Answered) -> Option<CreatedIdSource> {
    match &creator(answered)?.route.instance {
        Some(Instance::Creates { id }) => Some(id.clone()),
        Some(Instance::Follows { .. }) | None => None,
    }
}

/// Whether a request in `dark` has a durable run. A create whose run could not go on made no instance, so it has none.
pub(super) fn makes_twin(answered: &Answered, report: &RunReport, result: &EngineResult) -> bool {
    let creates = matches!(answered.flag.route.instance, Some(Instance::Creates { .. }));
    let is_made = report.run.is_some() && (!creates || matches!(result, EngineResult::Comparable(..)));
    answered.mode == Mode::Dark && is_made
}

/// The rung on which a request was compared.
pub(super) fn rung_of(answered: &Answered) -> State {
    if answered.mode == Mode::Dark { State::Dark } else { State::Shadow }
}

/// The intents that a comparison reads: all of them, if they are compared with legacy's calls.
pub(super) fn awaited_intents(answered: &Answered, rules: &Rules) -> AwaitedIntents {
    if answered.effects.is_some() { AwaitedIntents::All } else { rules.awaited_intents() }
}

/// The calls that legacy made for the request. `None` if they were not watched, or if some may be missing here because
/// they were not attributed, were not kept, or have not ended yet; such a pair is counted.
pub(super) fn effects_of(answered: &Answered) -> Option<Vec<Arc<Effect>>> {
    let so_far = answered.effects.as_ref()?.so_far();
    let reason = match (so_far.open, so_far.gaps) {
        (0, 0) => return Some(so_far.calls.into_iter().map(Arc::new).collect()),
        (0, _) => "gap",
        // An open call may take an hour or longer: waiting for its end would keep the pair in memory for as long.
        _ => "open",
    };
    count_not_judged(answered, reason);
    None
}

/// The share of `compare_ms` in which the two observations are compared, percent. The rest is for what is kept of the
/// pair.
pub(super) const COMPARING_PERCENT: u32 = 80;

/// Counts a sample of which a part is missing because the time for the pair was over.
pub(super) fn count_cut_sample(route: &RouteId) {
    metrics::counter!("pointsman_samples_cut_total", "route" => route.to_string()).increment(1);
}

/// Counts a pair of which not all calls by legacy are compared.
pub(super) fn count_not_judged(answered: &Answered, reason: &'static str) {
    let route = answered.flag.route.id.to_string();
    metrics::counter!("pointsman_effects_not_judged_total", "route" => route, "reason" => reason).increment(1);
}

/// The steps for which a call by legacy may be missing among the calls of this request: while the request was handled,
/// legacy made a call that fits the step and that was attributed to no request, so it may have been for this one.
pub(super) fn unattributed_steps(answered: &Answered, rules: &Rules, intents: &[Intent]) -> Vec<StepId> {
    let Some(effects) = answered.effects.as_ref().filter(|_| !intents.is_empty()) else { return Vec::new() };
    // Of calls that are not listed nothing is known, so they fit no step.
    let UnattributedWrites { calls, may_have_others: _ } = effects.unattributed_writes();
    let is_of =
        |step: &StepId| calls.iter().any(|to| rules.is_judged_call_of(step, to.service.as_ref(), &to.method, &to.path));
    let mut steps: Vec<StepId> = intents.iter().map(|intent| intent.step.clone()).filter(is_of).collect();
    steps.sort();
    steps.dedup();
    steps
}

/// Whether an intent is a call to this service with this method and path.
pub(super) fn goes_to(intent: &Intent, to: &CallTarget) -> bool {
    intent.service.is_some()
        && intent.service == to.service
        && intent.method == to.method
        && path_of_url(&intent.url) == to.path
}

/// Whether the engine is to run this request twice: a rehearsal of the route itself, in the share that it declares.
pub(super) fn runs_twice(answered: &Answered) -> bool {
    answered.mode == Mode::Rehearse
        && answered.candidate.is_none()
        && answered.reads.is_none()
        && is_sampled(answered.flag.route.rehearse_twice)
}
