//! Legacy answers: how does its reply become the client's?
//!
//! Always true: the reply's bytes go on as they come, less the fields of its hop; a reply that was framed twice ends its
//! connection; a protocol that nobody asked for is an error. Which connection is used is `legacy`'s business, copies are
//! `capture`'s.

use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;

use super::capture::Watched;
use super::clock::{Overdue, Phase, now};
use super::exchange::{Client, Exchange, Flagged};
use super::headers::strip_reply;
use super::legacy::{self, CallError};
use super::meter::By;
use super::reply_body::ReplyBody;
use super::request_body::RequestBody;
use super::respond::{Failure, Refused};
use super::tunnel;
use crate::exchange::Served;
use crate::flag::{SkipReason, State};
use crate::limits::Limits;

/// Legacy answers.
pub(super) async fn by_legacy(
    mut exchange: Exchange<'_>,
    head: request::Parts,
    body: RequestBody,
    watched: Option<Watched>,
    rung: State,
) -> Result<Response<ReplyBody>, Refused> {
    let (client, entry) = (exchange.client, exchange.entry);
    let clock = &client.clock;
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    client.forwarder.forward(request.headers_mut());
    let called = clock.watch(legacy::call(&entry.upstream, request, clock)).await;
    let failure = match called {
        Ok(Ok((response, lease))) => {
            let (mut parts, incoming) = response.into_parts();
            let replied = now();
            clock.enter(Phase::Reply);
            let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
            if switching {
                let legacy = on_upgrade_reply(&mut parts);
                match exchange.upgrade.take() {
                    Some(upgrade) => tunnel(client, upgrade, legacy),
                    None => return Err(exchange.refused(rung, Failure::Switched)),
                }
            }
            let mut lease = lease;
            lease.reusable = strip_reply(&mut parts.headers, switching) && !switching;
            let length = http_body::Body::size_hint(&incoming).exact();
            let tee = watched.and_then(|watched| watched.replying(parts.status, &parts.headers, length));
            let finish = exchange.finish(rung, By::Legacy, parts.status);
            let asked = lease.sent.saturating_sub(lease.connecting);
            entry.meter.overhead(asked.saturating_sub(exchange.began) + now().saturating_sub(replied));
            parts.version = Version::HTTP_11;
            let unmodified = parts.status == StatusCode::NOT_MODIFIED && parts.headers.contains_key(CONTENT_LENGTH);
            let mut body = ReplyBody::legacy(incoming, lease, tee, clock.clone(), Some(finish));
            if unmodified {
                body = body.unmodified();
            }
            return Ok(Response::from_parts(parts, body));
        }
        Ok(Err(CallError::Closed(_) | CallError::Invalid(_))) if clock.is_request_broken() => Failure::Body,
        Ok(Err(error)) => Failure::Legacy(error),
        Err(overdue) => Failure::Overdue(overdue),
    };
    if let Some(watched) = watched {
        match failure {
            Failure::Body | Failure::Overdue(Overdue::Client) => {
                watched.skip(SkipReason::ClientWentAway);
            }
            _ => watched.skip(SkipReason::LegacyFailed),
        }
    }
    Err(exchange.refused(rung, failure))
}

/// Counts a request that legacy answers instead of the engine.
pub(super) fn count_fallback(exchange: &Exchange<'_>, flagged: &Flagged) {
    exchange.entry.meter.fell_back();
    exchange.client.shared.watch.served(&flagged.flag.route.id, Served::FellBack);
}

fn on_upgrade_reply(parts: &mut http::response::Parts) -> OnUpgrade {
    let mut response = Response::new(());
    *response.extensions_mut() = std::mem::take(&mut parts.extensions);
    hyper::upgrade::on(&mut response)
}

/// Carries another protocol until it ends; the client's place among the open connections stays taken.
fn tunnel(client: &Client, from_client: OnUpgrade, from_legacy: OnUpgrade) {
    let shared = &client.shared;
    let idle = Limits::ms(shared.limits.client_idle_ms);
    let (cut, clock, place) = (shared.cut.clone(), client.clock.clone(), client.place.clone());
    shared.tasks.spawn(async move {
        clock.enter(Phase::Tunnel);
        tunnel::carry(from_client, from_legacy, idle, cut).await;
        drop(place);
    });
}
