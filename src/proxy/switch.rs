//! Who answers this request?
//!
//! A request enters here with a whole head: hygiene, then its route, then the facts, then the decision, which this file
//! carries out and never second-guesses. Always true: one flag set per request; legacy is called at most where the
//! decision names it (after a fallback: once), and never after the engine refused; a request that should be compared
//! has one ticket. Bytes are `legacy`'s and `engine`'s business, errors become answers in `respond`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use http::header::HOST;
use http::{Request, Response, Uri, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::clock::Phase;
use super::exchange::{Client, Exchange, Flagged, length};
use super::hygiene;
use super::keys;
use super::relay::by_legacy;
use super::reply_body::ReplyBody;
use super::request_body::Account;
use super::respond::{Failure, Refused, refuse};
use super::upload::Upload;
use super::watch::watch;
use crate::clock;
use crate::exchange::{LegacyTake, Problem, Remembered, request_digest};
use crate::flag::{Arm, Decision, Found, InstanceId, Notes, Owner, RequestFacts, State, decide, decide_noting};

/// Answers one request.
pub(super) async fn serve(client: Arc<Client>, request: Request<Incoming>) -> Result<Response<ReplyBody>, Infallible> {
    let no_body = http_body::Body::is_end_stream(request.body());
    let (turn, began) = client.clock.begin(client.shared.bounds.first_byte, no_body);
    let (head, incoming) = request.into_parts();
    let account = Account { clock: client.clock.clone(), turn };
    Ok(match answer(&client, head, Upload::new(incoming, account), began).await {
        Ok(response) => response,
        Err(refused) => refuse(*refused, &client.clock, began),
    })
}

type Answer = Result<Response<ReplyBody>, Box<Refused>>;

async fn answer(client: &Client, mut head: request::Parts, upload: Upload, began: u64) -> Answer {
    let clean = hygiene::check(&head).map_err(|dirty| Refused::early(Failure::Dirty(dirty)))?;
    let table = client.shared.table();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let resolved = table.set.resolve(&head.method, host, head.uri.path());
    let resolved = resolved.map_err(|why| Refused::early(Failure::Path(why)))?;
    let found = resolved.found;
    // What is matched is what is forwarded. Nearly always that is the target as it came.
    let uri = match &resolved.path {
        Cow::Borrowed(_) if head.uri.authority().is_none() => None,
        path => Some(origin_form(path, head.uri.query()).ok_or(Refused::early(Failure::Target))?),
    };
    if let Some(uri) = uri {
        head.uri = uri;
    }
    let upgrade = clean.upgrade.then(|| on_upgrade(&mut head));
    client.forwarder.strip_request(&mut head.headers, clean.upgrade);
    let entry = table.entry(found.as_ref().map(|found| found.flag));
    let exchange = Exchange { client, table: &table, entry, began, upgrade };
    match found {
        Some(found) if found.flag.route.workflow.is_some() => flagged(exchange, found, head, upload).await,
        _ => by_legacy(exchange, head, upload.stream(None), None, State::Off).await.map_err(Box::new),
    }
}

/// A request of a route that the engine may have a part in.
async fn flagged(exchange: Exchange<'_>, found: Found<'_>, head: request::Parts, mut upload: Upload) -> Answer {
    let client = exchange.client;
    let (shared, table) = (&client.shared, exchange.table);
    let Found { flag, params } = found;
    let path = head.uri.path().to_owned();
    let mut facts = RequestFacts {
        method: &head.method,
        path: &path,
        query: head.uri.query(),
        headers: &head.headers,
        peer: client.peer,
        params: &params,
        draw: fastrand::u64(..),
        owner: Owner::Nobody,
        first_try: None,
        now_s: clock::now().as_second(),
    };
    let mut instance = None;
    if let Some(key) = flag.follows(&params) {
        let (owner, run) = shared.pins.owner(&key).await.unwrap_or((Owner::Unknown, None));
        facts.owner = owner;
        instance = Some(InstanceId { key, run });
    }
    let retry_keys = table.set.retry_keys(flag, &facts);
    let mut look = None;
    let mut first_try_unknown = false;
    let mut noted_before = false;
    if let Some(keys) = &retry_keys {
        match shared.pins.remembered(&keys.scoped) {
            Remembered::By(arm) => facts.first_try = Some(arm),
            Remembered::NotEngine => look = Some(keys),
            Remembered::Unknown => match keys::first_try(&*shared.pins, keys).await {
                Ok(arm) => {
                    facts.first_try = arm;
                    noted_before = arm == Some(Arm::Legacy);
                }
                Err(_) => first_try_unknown = true,
            },
        }
    }
    let mut notes = Notes::default();
    let mut decision = decide_noting(&table.set, flag, &facts, &mut notes);
    exchange.entry.meter.noted(notes);
    // What legacy took before this process only the store knows, and only who would ask the engine has to.
    if let (Some(keys), Decision::Engine { .. }) = (look, &decision) {
        match keys::first_try(&*shared.pins, keys).await {
            Ok(None) => {}
            Ok(arm) => {
                facts.first_try = arm;
                noted_before = arm == Some(Arm::Legacy);
                decision = decide(&table.set, flag, &facts);
            }
            Err(_) => first_try_unknown = true,
        }
    }
    // Only the whole request tells whether the engine has it under another credential of the same caller.
    let any_caller = retry_keys.and_then(|keys| keys.any_caller);
    if let (Some(any_caller), Decision::Legacy { rung, .. }, None) = (any_caller, &decision, facts.first_try)
        && !first_try_unknown
        && keys::may_be_held(&*shared.pins, &any_caller)
    {
        let refused = |failure| Err(Box::new(exchange.refused(*rung, failure)));
        let bytes_max = usize::try_from(shared.limits.body_engine_bytes_max).unwrap_or(usize::MAX);
        client.clock.enter(Phase::Upload);
        if let Err(overdue) = client.clock.watch(upload.read_ahead(bytes_max, length(&head.headers))).await {
            return refused(Failure::Overdue(overdue));
        }
        // What is larger the engine cannot have.
        match upload.whole() {
            Err(()) => return refused(Failure::Body),
            Ok(None) => {}
            Ok(Some(body)) => {
                let digest = request_digest(&head.method, &path, head.uri.query(), body);
                match keys::is_held(&*shared.pins, &any_caller, &digest).await {
                    Ok(false) => {}
                    Ok(true) => {
                        keys::count_held(&flag.route.id);
                        return refused(Failure::Engine(Problem::held_under_another_credential()));
                    }
                    Err(_) => first_try_unknown = true,
                }
            }
        }
    }
    // From here on it is legacy's, unless the engine was faster: another request with the same key may be on its way
    // under another set.
    let mut key_not_noted = false;
    if let (false, Decision::Legacy { rung, .. }) = (first_try_unknown || noted_before, &decision) {
        match keys::take_for_legacy(&*shared.pins, retry_keys) {
            LegacyTake::Noted => {}
            LegacyTake::NotNoted if flag.could_be_live() || *rung >= State::Live => key_not_noted = true,
            LegacyTake::NotNoted => shared.pins.serve_unnoted(&flag.route.id),
            LegacyTake::HeldByEngine => {
                facts.first_try = Some(Arm::Engine);
                decision = decide(&table.set, flag, &facts);
            }
        }
    }
    let flag = flag.clone();
    let flagged = Flagged { flag, params, path, instance, retry_keys };
    match decision {
        Decision::Legacy { rung, .. } | Decision::Engine { rung, .. } if first_try_unknown => {
            Err(exchange.refused(rung, Failure::FirstTryUnknown))
        }
        Decision::Legacy { rung, .. } if key_not_noted => Err(exchange.refused(rung, Failure::KeyNotNoted)),
        Decision::Legacy { rung, other } => {
            let (watched, tee) = watch(&exchange, &flagged, &head, &upload, rung, other);
            by_legacy(exchange, head, upload.stream(tee), watched, rung).await
        }
        Decision::Engine { rung, may_fall_back, because } => {
            super::engine::answer(exchange, flagged, head, upload, rung, may_fall_back, because).await
        }
        Decision::Nobody { rung, why } => Err(exchange.refused(rung, Failure::Nobody(why))),
    }
    .map_err(Box::new)
}

/// Path and query as a target of their own.
fn origin_form(path: &str, query: Option<&str>) -> Option<Uri> {
    let text = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    Uri::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|uri| uri.authority().is_none())
}

fn on_upgrade(head: &mut request::Parts) -> OnUpgrade {
    let mut request = Request::new(());
    *request.extensions_mut() = std::mem::take(&mut head.extensions);
    hyper::upgrade::on(&mut request)
}
