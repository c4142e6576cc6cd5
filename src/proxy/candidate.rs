//! Hands a request that the engine answered to the comparison of its route's candidate.
//!
//! Always true: the candidate is rehearsed only after the client has the whole answer, which the plan in force gave;
//! nothing here waits. On a route with a candidate, each request that goes to the plan in force has one ticket,
//! whatever becomes of the request. A request that is within the candidate's share is answered by the candidate, and
//! compared with nothing.

use std::sync::Arc;

use crate::exchange::{Affinity, Answered, ComparisonTicket, Offer};
use crate::flag::{
    CandidatePlans, Decision, EngineReason, EngineWork, FlagSet, Instance, InstanceId, InstanceKey, Percent,
    RequestFacts, RouteFlag, SkipReason, VersionByInstance, candidate_answers, is_sampled_for_candidate, work_or_skip,
};
use crate::names::{PlanSet, RouteId};

/// The candidate of a request's route.
pub(super) struct CandidateOfRoute {
    pub plans: Arc<PlanSet>,
    /// The id under which its evidence is kept.
    pub id: RouteId,
    /// Whether the candidate answers the request itself.
    pub answers: bool,
    /// Why the request is not compared, if that is known before it is answered.
    pub skip: Option<SkipReason>,
}

impl CandidateOfRoute {
    /// Returns the candidate with which a request is compared once the engine has answered it; `None` if legacy
    /// answers, or if there is no candidate.
    pub(super) fn find(
        set: &FlagSet,
        flag: &RouteFlag,
        facts: &RequestFacts<'_>,
        follows: Option<&InstanceKey>,
        decision: &Decision,
        by_instance: VersionByInstance,
    ) -> Option<Self> {
        let CandidatePlans { plans, id, share } = candidate_of(flag)?;
        let Decision::Engine { reason, .. } = decision else { return None };
        let skip = match work_or_skip(facts, EngineWork::Rehearse) {
            _ if *reason == EngineReason::Retry => Some(SkipReason::Retried),
            _ if !is_sampled_for_candidate(set, flag, facts) => Some(SkipReason::NotSampled),
            EngineWork::Skip(reason) => Some(reason),
            EngineWork::None | EngineWork::Rehearse | EngineWork::Dark => None,
        };
        // A retry is answered by the run of its first try, whichever version began that.
        let answers =
            *reason != EngineReason::Retry && candidate_answers(set, flag, facts, follows, *share, by_instance);
        Some(Self { plans: Arc::clone(plans), id: id.clone(), answers, skip })
    }
}

/// Returns which version has to answer a follow-up because of the version that made its instance. The store is asked
/// only if both the route and the creator of its instances have candidates, and the route's own has a share.
pub(super) async fn version_by_instance(
    set: &FlagSet,
    flag: &RouteFlag,
    instance: Option<&InstanceId>,
    decision: &Decision,
    affinity: &dyn Affinity,
) -> VersionByInstance {
    let has_share = candidate_of(flag).is_some_and(|own| own.share > Percent::NONE);
    let is_asked = has_share && matches!(decision, Decision::Engine { reason, .. } if *reason != EngineReason::Retry);
    let Some(Instance::Follows { creator, .. }) = flag.route.instance.as_ref().filter(|_| is_asked) else {
        return VersionByInstance::Either;
    };
    let Some(of_creator) = set.route(creator).and_then(|creator| candidate_of(creator)) else {
        return VersionByInstance::Either;
    };
    let made_by_candidate = match instance.and_then(|instance| instance.run) {
        Some(run) => affinity.began_with(run, &of_creator.plans).await,
        None => None,
    };
    match made_by_candidate {
        Some(true) => VersionByInstance::Candidate,
        Some(false) | None => VersionByInstance::InForce,
    }
}

fn candidate_of(flag: &RouteFlag) -> Option<&CandidatePlans> {
    flag.plans.as_ref()?.candidate.as_ref()
}

/// An answered request that is offered once its client has the answer.
pub(super) struct CandidateOffer {
    pub ticket: ComparisonTicket,
    pub answered: Answered,
    pub offer: Arc<dyn Offer>,
}

impl CandidateOffer {
    /// Offers the request, whose exchange has ended. It is compared even if its client went away: the plan in force has
    /// performed it.
    pub(super) fn end(self) {
        self.offer.offer(self.ticket, self.answered);
    }
}
