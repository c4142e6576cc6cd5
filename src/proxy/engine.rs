//! The engine answers: how does a streamed request become a run, and what if it cannot?
//!
//! Always true: the body is read whole, up to the limit, before the engine hears of the request; what is larger goes to
//! legacy where that is allowed, prefix first, and is refused where it is not. Legacy is called after the engine only
//! when the engine gave the request back ([`ArmReply::Abandoned`]) and the decision allows it; never after a refusal or
//! a missed deadline, since nobody knows then what was done. When the caller goes away the run goes on: it is the
//! engine's.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Response, request};
use tokio::time::timeout;
use tower::ServiceExt;

use super::clock::{Phase, now};
use super::exchange::{Exchange, Flagged, length};
use super::keys;
use super::meter::By;
use super::relay::{by_legacy, count_fallback};
use super::reply_body::ReplyBody;
use super::request_body::RequestBody;
use super::respond::{Failure, Refused};
use super::upload::{Read, Upload};
use super::watch::fallback;
use crate::exchange::{ArmAnswer, ArmReply, ArmRequest, FROZEN, LegacyTake, Problem, RequestCopy, Served};
use crate::flag::{Because, Instance, State};
use crate::limits::Limits;
use crate::workflow::Mode;

/// How much later than its deadline the engine may be before it is given up.
const GRACE: Duration = Duration::from_millis(500);

/// The engine answers; or gives the request back to legacy.
pub(super) async fn answer(
    mut exchange: Exchange<'_>,
    flagged: Flagged,
    mut head: request::Parts,
    upload: Upload,
    rung: State,
    may_fall_back: bool,
    because: Because,
) -> Result<Response<ReplyBody>, Refused> {
    let client = exchange.client;
    let (shared, clock) = (&client.shared, &client.clock);
    // A workflow speaks no other protocol, and legacy in its stead is asked for the same.
    exchange.upgrade = None;
    if head.headers.remove(UPGRADE).is_some() {
        head.headers.remove(CONNECTION);
    }
    let bytes_max = usize::try_from(shared.limits.body_engine_bytes_max).unwrap_or(usize::MAX);
    let ours = now().saturating_sub(exchange.began);
    clock.enter(Phase::Upload);
    let declared = length(&head.headers);
    let (bytes, trailers) = match clock.watch(upload.read(bytes_max, declared)).await {
        Err(overdue) => return Err(exchange.refused(rung, Failure::Overdue(overdue))),
        Ok(Read::Whole(bytes, trailers)) => (bytes, trailers),
        // The engine has not heard of it; of a retry it has, and may have done it.
        Ok(Read::TooLarge(prefix, rest, account)) if may_fall_back && because == Because::Rung => {
            match keys::take_for_legacy(&*shared.pins, flagged.retry_keys) {
                LegacyTake::Noted => {}
                LegacyTake::NotNoted => return Err(exchange.refused(rung, Failure::KeyNotNoted)),
                LegacyTake::HeldByEngine => return Err(exchange.refused(rung, Failure::TooLarge)),
            }
            count_fallback(&exchange, &flagged);
            let looked_at = fallback(&exchange, &flagged, &head);
            return by_legacy(exchange, head, RequestBody::prefixed(prefix, rest, account), looked_at, rung).await;
        }
        Ok(Read::TooLarge(..)) => return Err(exchange.refused(rung, Failure::TooLarge)),
        Ok(Read::Broken) => return Err(exchange.refused(rung, Failure::Body)),
    };
    let read_at = now();
    let copy = RequestCopy { body: bytes.clone(), ..flagged.copy(client, &head) };
    let edition = exchange.table.set.edition;
    // What a freeze stops: neither a retry nor a follow-up, and nothing in `only`.
    let new_instance = because == Because::Rung && rung != State::Only;
    let Some(request) = request(&flagged, edition, copy, new_instance, may_fall_back, &shared.limits) else {
        return Err(exchange.refused(rung, Failure::EngineGaveBack));
    };
    let deadline = request.deadline.saturating_add(GRACE);
    clock.enter(Phase::Arm);
    let asked = now();
    let reply = clock.watch(timeout(deadline, shared.engine.clone().oneshot(request))).await;
    let replied = now();
    let route = &flagged.flag.route.id;
    let failure = match reply {
        Ok(Ok(Ok(ArmReply::Answer(answer)))) => {
            shared.watch.served(route, Served::Answered);
            let response = respond(&exchange, answer, rung);
            let ours = ours + asked.saturating_sub(read_at) + now().saturating_sub(replied);
            exchange.entry.meter.overhead(ours);
            return Ok(response);
        }
        Ok(Ok(Ok(ArmReply::Abandoned(abandoned)))) if may_fall_back => {
            tracing::info!(route = %route, reason = abandoned.reason, "the engine gave a request back");
            if keys::give_to_legacy(&*shared.pins, flagged.retry_keys) == LegacyTake::NotNoted {
                shared.watch.served(route, Served::Error);
                return Err(exchange.refused(rung, Failure::KeyNotNoted));
            }
            // Frozen since it was decided: the engine did nothing wrong.
            if abandoned.reason != FROZEN {
                count_fallback(&exchange, &flagged);
            }
            let looked_at = fallback(&exchange, &flagged, &head);
            return by_legacy(exchange, head, RequestBody::whole(bytes, trailers), looked_at, rung).await;
        }
        Ok(Ok(Ok(ArmReply::Abandoned(_)))) => {
            shared.watch.served(route, Served::Error);
            Failure::EngineGaveBack
        }
        Ok(Ok(Ok(ArmReply::Refused(problem, report)))) => {
            tracing::debug!(route = %route, kind = problem.kind, run = ?report.run, "the engine refused");
            if problem.is_held_under_another_credential() {
                keys::count_held(route);
            }
            shared.watch.served(route, served(&problem));
            Failure::Engine(problem)
        }
        Ok(Err(_)) => {
            shared.watch.served(route, Served::Unknown);
            Failure::EngineSilent
        }
        Err(overdue) => {
            shared.watch.served(route, Served::Unknown);
            Failure::Overdue(overdue)
        }
    };
    Err(exchange.refused(rung, failure))
}

/// What the engine is asked. `None` where the route has no workflow, which a check refuses.
fn request(
    flagged: &Flagged,
    edition: u64,
    copy: RequestCopy,
    new_instance: bool,
    may_fall_back: bool,
    limits: &Limits,
) -> Option<ArmRequest> {
    let route = &flagged.flag.route;
    Some(ArmRequest {
        route: route.id.clone(),
        edition: Some(edition),
        workflow: route.workflow.clone()?,
        mode: Mode::Real,
        request: std::sync::Arc::new(copy),
        legacy: None,
        instance: flagged.instance.clone(),
        creates: match &route.instance {
            Some(Instance::Creates { id }) => Some((flagged.flag.family.clone(), id.clone())),
            Some(Instance::Follows { .. }) | None => None,
        },
        retry_key: flagged.retry_key(),
        new_instance,
        any_caller: flagged.retry_keys.and_then(|keys| keys.any_caller),
        may_fall_back,
        deadline: route.deadline.unwrap_or(Limits::ms(limits.answer_ms)),
    })
}

/// A refusal of what the caller sent is an answer like a declared 4xx; another is an error, and where it cannot be told
/// what was done it is unknown.
fn served(problem: &Problem) -> Served {
    match problem.status {
        400..500 => Served::Answered,
        // Its run goes on, or waits for a person: nobody knows yet what it will have done.
        _ if matches!(problem.kind.as_str(), "outcome-unknown" | "run-goes-on" | "run-paused") => Served::Unknown,
        _ => Served::Error,
    }
}

fn respond(exchange: &Exchange<'_>, answer: ArmAnswer, rung: State) -> Response<ReplyBody> {
    let ArmAnswer { status, mut headers, body, report: _ } = answer;
    // Framing is ours.
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let clock = &exchange.client.clock;
    clock.enter(Phase::Reply);
    let finish = exchange.finish(rung, By::Engine, status);
    let mut response = Response::new(ReplyBody::full(body, clock.clone(), Some(finish)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
