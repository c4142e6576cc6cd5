//! The ticket of a request that is to be compared with the candidate of its route, and what is compared.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::candidate::{CandidateOfRoute, CandidateOffer};
use super::proxied_request::{FlaggedRequest, ProxiedRequest};
use crate::compare::{Body, Observation};
use crate::exchange::{
    AnswerBody, Answered, ArmAnswer, ComparisonOutcome, ComparisonTicket, ForCandidate, KeysOfLegacy, OfferedRequest,
    RequestCopy, RunReport,
};
use crate::flag::{SkipReason, State};
use crate::workflow::Mode;

impl CandidateOfRoute {
    fn open(&self, proxied: &ProxiedRequest<'_>, flagged: &FlaggedRequest, method: &Method) -> ComparisonTicket {
        let cohort = flagged.cohort.and_then(|index| flagged.flag.route.cohorts.get(index));
        let cohort = cohort.map(|cohort| Arc::from(cohort.name.as_str()));
        let request = OfferedRequest::new(self.id.clone(), proxied.table.set.files_version);
        let offer = &proxied.client.shared.offer;
        let (method, declared) = (method.clone(), flagged.stratum_value.clone());
        offer.open(OfferedRequest { rung: State::Shadow, method, cohort, declared, ..request })
    }

    /// Settles the ticket as skipped: the engine gave no answer.
    pub(super) fn without_answer(&self, proxied: &ProxiedRequest<'_>, flagged: &FlaggedRequest, method: &Method) {
        self.open(proxied, flagged, method).skip(self.skip.unwrap_or(SkipReason::LegacyFailed));
    }

    /// Returns what is to be compared, now that the engine has answered within this time; `None` if nothing is.
    pub(super) fn with_answer(
        &self,
        proxied: &ProxiedRequest<'_>,
        flagged: &FlaggedRequest,
        request: Arc<RequestCopy>,
        answer: &ArmAnswer,
        took: Duration,
    ) -> Option<CandidateOffer> {
        let shared = &proxied.client.shared;
        let mut ticket = self.open(proxied, flagged, &request.method);
        ticket.set_legacy_status(answer.status);
        let body = match whole_body(answer, shared.limits.body_capture_bytes_max) {
            _ if self.skip.is_some() => Err(self.skip.unwrap_or(SkipReason::NotSampled)),
            _ if !shared.offer.has_room(&self.id) => Err(SkipReason::QueueFull),
            _ if request.body.len() as u64 > shared.limits.body_capture_bytes_max => Err(SkipReason::BodyTooLarge),
            body => body,
        };
        let body = match body {
            Ok(body) => body,
            Err(reason) => {
                ticket.skip(reason);
                return None;
            }
        };
        ticket.set_outcome_on_drop(ComparisonOutcome::Skipped(SkipReason::ClientWentAway));
        let observed = observation(answer.status, &answer.headers, body, took);
        let control = answer.report.run.filter(|_| flagged.flag.route.keeps_runs);
        let answered = Answered {
            flags: proxied.table.set.clone(),
            flag: flagged.flag.clone(),
            mode: Mode::Rehearse,
            request,
            legacy: Arc::new(observed),
            instance: flagged.instance.clone(),
            legacy_keys: KeysOfLegacy { keys: Vec::new(), decided_at: flagged.decided_at },
            effects: None,
            reads: None,
            repeat: None,
            candidate: Some(ForCandidate { plans: Arc::clone(&self.plans), id: self.id.clone(), control }),
            at_legacy: None,
        };
        Some(CandidateOffer { ticket, answered, offer: shared.offer.clone() })
    }
}

fn observation(status: StatusCode, headers: &HeaderMap, body: Body, took: Duration) -> Observation {
    Observation::new(status, headers.clone(), body, took, Vec::new())
}

/// Returns the body of an answer that can be compared, or why the answer cannot.
fn whole_body(answer: &ArmAnswer, bytes_max: u64) -> Result<Body, SkipReason> {
    let RunReport { of_earlier_try, outlived_deadline, .. } = answer.report;
    match &answer.body {
        _ if of_earlier_try => Err(SkipReason::Retried),
        // How the run serves the request is not known yet.
        _ if outlived_deadline => Err(SkipReason::MayStillRecordIntents),
        AnswerBody::Streamed(_) => Err(SkipReason::Streaming),
        AnswerBody::Whole(body) if body.len() as u64 > bytes_max => Err(SkipReason::BodyTooLarge),
        AnswerBody::Whole(body) => Ok(Body::Whole(body.clone())),
    }
}
