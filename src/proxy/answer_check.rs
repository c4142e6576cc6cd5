//! Which answers of the engine are checked, and what the check needs.
//!
//! Always true: nothing is copied for a route that asks for no check. A retry, of which the first try was checked, is
//! not checked again.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::proxied_request::{FlaggedRequest, ProxiedRequest};
use crate::clock;
use crate::compare::{Body, Observation};
use crate::exchange::{AnswerBody, AnswerUnknown, ArmAnswer, EngineAnswered, Offer, RequestCopy, ReverseRequest};
use crate::flag::{Decision, EngineReason, EngineWork, FlagSet, Percent, RequestFacts, RouteFlag, State, work_or_skip};
use crate::names::RouteId;

/// Whether a request that the engine answers is chosen, at random, for a reverse comparison. `reverse:` of the route is
/// the share. It is a share of the requests that the engine answers because of the rung `live`, that have no retry key,
/// and that could have been compared in `shadow`.
pub(super) fn is_reversed(flag: &RouteFlag, facts: &RequestFacts<'_>, decision: &Decision, has_key: bool) -> bool {
    let share = flag.route.reverse;
    let by_rung = matches!(decision, Decision::Engine { reason: EngineReason::Rung, rung: State::Live, .. });
    share > Percent::NONE
        && by_rung
        && !has_key
        && fastrand::u32(..10_000) < u32::from(share.hundredths())
        && matches!(work_or_skip(facts, EngineWork::Rehearse), EngineWork::Rehearse)
}

/// What is needed of a request to check the engine's answer to it.
pub(super) struct ToCheck<'a> {
    pub counted_as: &'a RouteId,
    pub rung: State,
    pub reason: EngineReason,
    pub request: Arc<RequestCopy>,
    /// The headers as the engine got them.
    pub headers: &'a HeaderMap,
}

impl ToCheck<'_> {
    /// Adds the engine's answer, which took this time. Returns `None` if the answer is not checked.
    pub(super) fn with_answer(
        self,
        proxied: &ProxiedRequest<'_>,
        flagged: &FlaggedRequest,
        answer: &ArmAnswer,
        took: Duration,
    ) -> Option<(EngineAnswered, Arc<dyn Offer>)> {
        let route = &flagged.flag.route;
        let is_retry = self.reason == EngineReason::Retry || answer.report.of_earlier_try;
        // A candidate's answer is compared with the plan in force instead.
        let is_reversed = flagged.is_reversed && *self.counted_as == route.id;
        if is_retry || (route.invariants.is_empty() && !is_reversed) {
            return None;
        }
        let shared = &proxied.client.shared;
        let bytes_max = shared.limits.body_capture_bytes_max;
        let observed = match &answer.body {
            _ if answer.report.outlived_deadline => Err(AnswerUnknown::Pending),
            AnswerBody::Streamed(_) => Err(AnswerUnknown::Streaming),
            AnswerBody::Whole(body) if body.len().max(self.request.body.len()) as u64 > bytes_max => {
                Err(AnswerUnknown::TooLarge)
            }
            AnswerBody::Whole(body) => {
                let body = Body::Whole(body.clone());
                Ok(Arc::new(Observation::new(answer.status, answer.headers.clone(), body, took, Vec::new())))
            }
        };
        let reverse = (is_reversed && observed.is_ok()).then(|| {
            let mut sent = self.headers.clone();
            proxied.client.forwarder.forward(&mut sent);
            ReverseRequest { sent: Arc::new(sent), effect_registry: shared.effect_registry.clone() }
        });
        let flags: Arc<FlagSet> = proxied.table.set.clone();
        let cohort = flagged.cohort.and_then(|index| route.cohorts.get(index));
        let answered = EngineAnswered {
            cohort: cohort.map(|cohort| Arc::from(cohort.name.as_str())),
            declared: flagged.stratum_value.clone(),
            flags,
            flag: flagged.flag.clone(),
            counted_as: self.counted_as.clone(),
            rung: self.rung,
            supports_only: self.reason != EngineReason::Cohort,
            request: self.request,
            instance: flagged.instance.clone(),
            status: answer.status,
            answer: observed,
            answered_at: clock::now(),
            run: answer.report.run,
            run_status: answer.report.status,
            is_stored: route.keeps_runs,
            reverse,
        };
        Some((answered, shared.offer.clone()))
    }
}
