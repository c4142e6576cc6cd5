//! Answers from the engine.
//!
//! Always true:
//! - The body is read completely, up to the limit, before the engine gets the request. A request with a larger body
//!   goes to legacy where that is allowed, and is refused where it is not.
//! - Legacy is called after the engine only when the engine gave the request back ([`ArmReply::Abandoned`]) and the
//!   decision allows it; never after a refusal or a missed deadline, because then it is unknown what was done.
//! - When the caller goes away, the run continues.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode, request};
use tokio::time::timeout;
use tower::ServiceExt;

use super::after_answer::AfterAnswer;
use super::answer_check::ToCheck;
use super::answered_exchange::AnsweredExchange;
use super::awaited_answer::AwaitedAnswer;
use super::client_upgrade::ClientUpgrade;
use super::compression::{self, CompressionRequest};
use super::conditional::{self, Preconditions};
use super::copied_exchange::CopiedExchange;
use super::failure::Failure;
use super::hygiene::HeadRefusal;
use super::monotonic::now;
use super::noted_instance::AnsweredInstance;
use super::prepare_copy::copy_fallback;
use super::proxied_request::{FlaggedRequest, ProxiedRequest, declared_length};
use super::relay::{self, answer_from_legacy};
use super::reply_body::ReplyBody;
use super::request_body::RequestBody;
use super::respond::Refused;
use super::retry_keys;
use super::route_metrics::AnsweredBy;
use super::streamed_served::{ServedRequest, StreamedServed};
use super::table::Table;
use super::upload::{ReadBody, Upload};
use super::wait::Phase;
use crate::compare::AwaitedIntents;
use crate::exchange::{
    ABANDONED_BEFORE, AnswerBody, ArmAnswer, ArmReply, ArmRequest, FILES_CHANGED, FROZEN, KnownBody,
    LEGACY_TOOK_FIRST_TRY, LegacyTake, NO_FIRST_TRY, ProblemDocument, RequestCopy, Served, SetInUse,
};
use crate::flag::{EngineReason, Instance, State};
use crate::limits::Limits;
use crate::workflow::Mode;

/// The reasons for which the engine gives a request back without having failed: no fallback is counted.
const NOT_A_FAILURE: [&str; 5] = [FROZEN, NO_FIRST_TRY, FILES_CHANGED, ABANDONED_BEFORE, LEGACY_TOOK_FIRST_TRY];
/// How long after the deadline the engine's answer is still awaited.
const GRACE: Duration = Duration::from_millis(500);

/// Answers from the engine, or from legacy where the engine gives the request back.
pub(super) async fn answer(
    mut proxied: ProxiedRequest<'_>,
    flagged: FlaggedRequest,
    head: &mut request::Parts,
    upload: &mut Upload,
    rung: State,
    may_fall_back: bool,
    reason: EngineReason,
) -> Result<Response<ReplyBody>, Refused> {
    let client = proxied.client;
    let (shared, wait) = (&client.shared, &client.wait);
    // A 2xx answer to an extended CONNECT says that the protocol is switched, which a workflow cannot do.
    if let Some(ClientUpgrade::Stream(_)) = &proxied.upgrade {
        return Err(proxied.refused(rung, Failure::Head(HeadRefusal::Connect)));
    }
    // A workflow cannot switch to another protocol, so legacy is not asked to switch either when it answers as the
    // fallback.
    proxied.upgrade = None;
    if head.headers.remove(UPGRADE).is_some() {
        head.headers.remove(CONNECTION);
    }
    let bytes_max = usize::try_from(shared.limits.body_engine_bytes_max).unwrap_or(usize::MAX);
    let overhead_before = now().saturating_sub(proxied.began).saturating_sub(proxied.waited);
    let answering = flagged.candidate.as_ref().filter(|candidate| candidate.answers);
    // An answer of a candidate counts for the candidate, and not for the plan in force.
    let route = answering.map_or(&flagged.flag.route.id, |candidate| &candidate.id);
    let files_version = proxied.table.set.files_version;
    let observer = shared.served_observer.clone();
    let served_request = ServedRequest { observer, route: route.clone(), files_version, rung, reason };
    wait.enter(Phase::Upload);
    let declared = declared_length(&head.headers);
    let (bytes, trailers) = match wait.or_overdue(upload.read(bytes_max, declared)).await {
        Err(overdue) => return Err(proxied.refused(rung, Failure::Overdue(overdue))),
        Ok(ReadBody::Whole(bytes, trailers)) => (bytes, trailers),
        // Not for a retry: the engine may have performed its first try.
        Ok(ReadBody::TooLarge(prefix, rest, progress)) if may_fall_back && reason.is_by_rung() => {
            // An earlier process may have taken larger bodies.
            let all = flagged.retry_keys.iter().chain(&flagged.earlier.keys);
            let any_caller: Vec<_> = all.filter_map(|keys| keys.any_caller).collect();
            match retry_keys::engine_took_any(&*shared.affinity, &any_caller).await {
                Ok(false) => {}
                Ok(true) => return Err(proxied.refused(rung, Failure::RetryTooLarge)),
                Err(_) => return Err(proxied.refused(rung, Failure::FirstTryUnknown)),
            }
            let take = retry_keys::take_for_legacy(
                &*shared.affinity,
                &flagged.flag.route.id,
                flagged.retry_keys,
                &flagged.earlier,
                KnownBody::TooLarge,
            )
            .await;
            match take {
                LegacyTake::Taken { noted: true, .. } => {}
                LegacyTake::Taken { noted: false, .. } => return Err(proxied.refused(rung, Failure::KeyNotNoted)),
                LegacyTake::Unknown => return Err(proxied.refused(rung, Failure::FirstTryUnknown)),
                LegacyTake::HeldByEngine
                | LegacyTake::NeedsBody
                | LegacyTake::HeldUnderAnotherCredential
                | LegacyTake::HeldUnderNewerFiles => {
                    return Err(proxied.refused(rung, Failure::RetryTooLarge));
                }
            }
            proxied.entry.route_metrics.count_fallback();
            served_request.count_too_large();
            let copied = copy_fallback(&proxied, &flagged, head).map(CopiedExchange::Request);
            return answer_from_legacy(proxied, head, RequestBody::prefixed(prefix, rest, progress), copied, rung)
                .await;
        }
        Ok(ReadBody::TooLarge(..)) => {
            let is_retry = reason == EngineReason::Retry;
            let failure = if is_retry { Failure::RetryTooLarge } else { Failure::TooLarge };
            return Err(proxied.refused(rung, failure));
        }
        Ok(ReadBody::Broken) => return Err(proxied.refused(rung, Failure::Body)),
    };
    let read_at = now();
    let copy = Arc::new(RequestCopy { body: bytes.clone(), ..flagged.copy(client, head) });
    let may_end_instance = flagged.flag.route.lifetime.ends.is_some();
    let copied = may_end_instance.then(|| RequestCopy { body: Bytes::new(), ..RequestCopy::clone(&copy) });
    let request = request(&flagged, proxied.table, copy.clone(), may_fall_back, reason, &shared.limits);
    let deadline = request.deadline.saturating_add(GRACE);
    wait.enter(Phase::OwnDeadline);
    let asked = now();
    let awaited = AwaitedAnswer::begin(shared, &served_request, asked);
    let reply = wait.or_overdue(timeout(deadline, shared.engine.clone().oneshot(request))).await;
    awaited.end();
    let replied = now();
    let took = Duration::from_micros(replied.saturating_sub(asked));
    let count_served = |served, run| served_request.count(served, Some(took), run);
    let candidate = flagged.candidate.as_ref().filter(|candidate| !candidate.answers);
    if let Some(candidate) = candidate.filter(|_| !matches!(reply, Ok(Ok(Ok(ArmReply::Answer(_)))))) {
        candidate.without_answer(&proxied, &flagged, &head.method);
    }
    let failure = match reply {
        Ok(Ok(Ok(ArmReply::Answer(answer)))) => {
            let run = answer.report.run;
            let to_check = ToCheck { counted_as: route, rung, reason, request: copy.clone(), headers: &head.headers };
            let check = to_check.with_answer(&proxied, &flagged, &answer, took);
            let offer = candidate.and_then(|candidate| candidate.with_answer(&proxied, &flagged, copy, &answer, took));
            let after = AfterAnswer::new(offer, check);
            let mut streamed = matches!(answer.body, AnswerBody::Streamed(_)).then(|| StreamedServed {
                request: served_request.clone(),
                took,
                run,
            });
            match answer.status {
                // What became of the request was counted when its first try was answered.
                _ if answer.report.of_earlier_try => streamed = None,
                status if status.is_server_error() || answer.report.refused_by_schema => {
                    count_served(Served::Error, run);
                }
                status if status.is_client_error() => count_served(Served::CallerError, run),
                // The answer says that the work is accepted. Whether it is done is unknown: a person has to decide.
                _ if answer.report.pending_in_conflict => {
                    streamed = None;
                    count_served(Served::Unknown, run);
                }
                // Neither evidence for the engine nor against it.
                _ if answer.report.outlived_deadline => streamed = None,
                _ if streamed.is_some() => {}
                _ => count_served(Served::Answered, run),
            }
            let of_instance = copied.and_then(|copy| {
                AnsweredInstance::new(&flagged.flag, flagged.instance.as_ref(), copy, &answer, &shared.affinity)
            });
            if let Some(answered) = of_instance {
                shared.settler.note(answered);
            }
            let answer = match conditional::judge(&head.method, &head.headers, answer.status, &answer.headers) {
                Preconditions::Met => answer,
                Preconditions::NotModified => not_modified(answer),
                Preconditions::Failed => return Err(proxied.refused(rung, Failure::Precondition)),
            };
            let Some(response) = respond(&proxied, head, answer, streamed, after, rung) else {
                return Err(proxied.refused(rung, Failure::EngineSilent));
            };
            let overhead = overhead_before + asked.saturating_sub(read_at) + now().saturating_sub(replied);
            proxied.entry.route_metrics.record_overhead(overhead);
            return Ok(response);
        }
        Ok(Ok(Ok(ArmReply::Abandoned(abandoned)))) if may_fall_back => {
            tracing::info!(route = %route, reason = abandoned.reason, "the engine gave a request back");
            let failure = match retry_keys::give_to_legacy(&*shared.affinity, flagged.retry_keys, &copy).await {
                LegacyTake::Taken { noted: true, .. } => None,
                LegacyTake::Taken { noted: false, .. } => Some(Failure::KeyNotNoted),
                // The engine of another process took the request meanwhile, or may have.
                LegacyTake::HeldByEngine
                | LegacyTake::NeedsBody
                | LegacyTake::HeldUnderAnotherCredential
                | LegacyTake::HeldUnderNewerFiles
                | LegacyTake::Unknown => Some(Failure::FirstTryUnknown),
            };
            if let Some(failure) = failure {
                count_served(Served::Error, abandoned.run);
                return Err(proxied.refused(rung, failure));
            }
            if !NOT_A_FAILURE.contains(&abandoned.reason) {
                proxied.entry.route_metrics.count_fallback();
                count_served(Served::FellBack, abandoned.run);
            }
            let copied = copy_fallback(&proxied, &flagged, head).map(CopiedExchange::Request);
            return answer_from_legacy(proxied, head, RequestBody::whole(bytes, trailers), copied, rung).await;
        }
        Ok(Ok(Ok(ArmReply::Abandoned(abandoned)))) => {
            count_served(Served::Error, abandoned.run);
            Failure::EngineGaveBack
        }
        Ok(Ok(Ok(ArmReply::Refused(problem, report)))) => {
            tracing::debug!(route = %route, kind = problem.kind, run = ?report.run, "the engine refused");
            if problem.is_retry_key_taken() {
                retry_keys::count_taken(route);
            }
            // A person or a rule of the workflow decided so: neither an answer nor an error of the engine is counted.
            // Of a retry, the first try was counted.
            if !report.ended_on_purpose && !report.of_earlier_try {
                count_served(served_as(&problem), report.run);
            }
            Failure::Engine(problem)
        }
        Ok(Err(_)) => {
            count_served(Served::Unknown, None);
            Failure::EngineSilent
        }
        Err(overdue) => {
            count_served(Served::Unknown, None);
            Failure::Overdue(overdue)
        }
    };
    Err(proxied.refused(rung, failure))
}

/// Returns the request to the engine.
fn request(
    flagged: &FlaggedRequest,
    table: &Arc<Table>,
    copy: Arc<RequestCopy>,
    may_fall_back: bool,
    reason: EngineReason,
    limits: &Limits,
) -> ArmRequest {
    let route = &flagged.flag.route;
    ArmRequest {
        route: route.id.clone(),
        files_version: table.set.files_version,
        workflow: route.workflow.clone(),
        plans: match flagged.candidate.as_ref().filter(|candidate| candidate.answers) {
            Some(candidate) => Some(candidate.plans.clone()),
            None => flagged.flag.plans.as_ref().map(|plans| plans.in_force.clone()),
        },
        mode: Mode::Real,
        request: copy,
        legacy: None,
        instance: flagged.instance.clone(),
        unknown_instance: route.lifetime.unknown,
        creates: match &route.instance {
            Some(Instance::Creates { id }) => Some((flagged.flag.family.clone(), id.clone())),
            Some(Instance::Follows { .. }) | None => None,
        },
        retry_keys: flagged.retry_keys,
        may_begin: flagged.may_begin,
        earlier: flagged.earlier.clone(),
        legacy_keys: None,
        // A retry is always kept: it comes because the engine took its first try, and under `keep: none` no keys are
        // remembered, so that try has a stored run from before `keep: none`.
        keep: route.keeps_runs || reason == EngineReason::Retry,
        may_fall_back,
        deadline: route.deadline.unwrap_or(Limits::ms(limits.answer_ms)),
        awaited_intents: AwaitedIntents::None,
        set_in_use: Some(SetInUse::new(table.set.set_number, table.clone())),
        legacy_calls: None,
        reads: None,
        // The id of an instance that the engine owns is the one by which the caller knows it.
        instance_ids: None,
    }
}

/// Returns how a problem counts: as [`Served::CallerError`] if it is the caller's error, like a declared 4xx; as
/// unknown if it is not known what was done; else as an error.
fn served_as(problem: &ProblemDocument) -> Served {
    match problem.status {
        400..500 => Served::CallerError,
        // The run continues or waits for a person, so its outcome is not known yet.
        _ if matches!(problem.kind.as_str(), "outcome-unknown" | "run-goes-on" | "run-paused") => Served::Unknown,
        _ => Served::Error,
    }
}

/// Returns a 304 in place of the answer, for a client that has the body already.
fn not_modified(mut answer: ArmAnswer) -> ArmAnswer {
    conditional::strip_content_fields(&mut answer.headers);
    ArmAnswer { status: StatusCode::NOT_MODIFIED, body: Bytes::new().into(), ..answer }
}

/// Returns the answer as it goes to the client; `None` if a streamed body was already taken, which is a bug: only runs
/// that are not stored stream their answer, and such an answer has one receiver.
fn respond(
    proxied: &ProxiedRequest<'_>,
    head: &request::Parts,
    answer: ArmAnswer,
    streamed_served: Option<StreamedServed>,
    after: Option<Box<AfterAnswer>>,
    rung: State,
) -> Option<Response<ReplyBody>> {
    let ArmAnswer { status, mut headers, body, report: _ } = answer;
    // The proxy frames the reply itself.
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let wait = &proxied.client.wait;
    wait.enter(Phase::Reply);
    let served = streamed_served.filter(|_| !status.is_client_error() && !status.is_server_error()).map(Box::new);
    let answered = AnsweredExchange { served, after, ..proxied.answered(rung, AnsweredBy::Engine, status) };
    let body = match body {
        AnswerBody::Whole(body) => {
            let request = CompressionRequest { version: head.version, headers: &head.headers };
            let compress = proxied.entry.compress;
            let is_compressed = compress && compression::negotiate(&request, status, &mut headers, body.len());
            let body = ReplyBody::full(body, wait.clone(), Some(answered));
            if is_compressed { body.compressed() } else { body }
        }
        AnswerBody::Streamed(streamed) => {
            let reply = streamed.take()?;
            proxied.client.record.note(|record| record.service = Some(reply.service));
            wait.set_limits(proxied.entry.limits.with_idle(reply.idle));
            wait.clear_may_use_store();
            relay::note_slow_kinds(wait, &headers);
            headers.extend(reply.fields);
            ReplyBody::streamed(reply.body, wait.clone(), answered)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}
