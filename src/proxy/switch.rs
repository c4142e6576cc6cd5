//! Who answers this request?
//!
//! A request enters here with a whole head: hygiene, then its route, then the facts, then the decision, which this file
//! carries out and never second-guesses. Always true: one flag set per request; legacy is called at most where the
//! decision names it (after a fallback: once), and never after the engine refused; a request that should be compared
//! has one ticket. Bytes are `legacy`'s and `engine`'s business, errors become answers in `respond`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::Shared;
use super::body::{Account, InBody, OutBody, RequestCapture};
use super::capture::Watched;
use super::clock::{Clock, Phase, now};
use super::headers::{Forwarder, strip_reply};
use super::hygiene;
use super::legacy::{self, CallError};
use super::meter::{By, Finish};
use super::respond::{Failure, Refused, refuse};
use super::table::{Entry, Table};
use super::tunnel;
use crate::exchange::RequestCopy;
use crate::flag::{
    Decision, Found, Instance, InstanceId, Other, Owner, RequestFacts, RetryKey, RouteFlag, SkipReason, State, decide,
};
use crate::workflow::Mode;

/// What the requests of one client connection share.
pub(super) struct Client {
    pub shared: Arc<Shared>,
    pub clock: Arc<Clock>,
    pub forwarder: Forwarder,
    pub peer: IpAddr,
}

/// A request's body as it came.
pub(super) struct Upload {
    pub incoming: Incoming,
    pub account: Account,
}

impl Upload {
    /// As it comes.
    fn stream(self, tee: Option<Arc<Mutex<RequestCapture>>>) -> InBody {
        match http_body::Body::is_end_stream(&self.incoming) {
            true => InBody::empty(),
            false => InBody::streamed(self.incoming, self.account, tee),
        }
    }
    fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(&self.incoming)
    }
}

/// A request on its way: what every arm needs to know.
pub(super) struct Exchange<'a> {
    pub client: &'a Client,
    pub table: &'a Table,
    pub entry: &'a Arc<Entry>,
    pub began: u64,
    /// Asks for another protocol.
    pub upgrade: Option<OnUpgrade>,
}

impl Exchange<'_> {
    pub(super) fn refused(&self, rung: State, failure: Failure) -> Refused {
        Refused { failure, counted: Some((self.entry.meter.clone(), rung)) }
    }
    pub(super) fn finish(&self, rung: State, by: By, status: StatusCode) -> Finish {
        Finish { meter: self.entry.meter.clone(), rung, by, status, began: self.began }
    }
}

/// What is known of a request of a route that has a workflow.
pub(super) struct Flagged {
    pub flag: Arc<RouteFlag>,
    pub params: Vec<(Arc<str>, String)>,
    pub path: String,
    pub instance: Option<InstanceId>,
    pub retry_key: Option<RetryKey>,
}

impl Flagged {
    /// The request as the engine sees it, without its body.
    pub(super) fn copy(&self, client: &Client, head: &request::Parts) -> RequestCopy {
        RequestCopy {
            method: head.method.clone(),
            path: self.path.clone(),
            query: head.uri.query().map(str::to_owned),
            params: self.params.clone(),
            headers: head.headers.clone(),
            body: bytes::Bytes::new(),
            peer: client.peer,
            received: SystemTime::now(),
        }
    }
}

/// Answers one request.
pub(super) async fn serve(client: Arc<Client>, request: Request<Incoming>) -> Result<Response<OutBody>, Infallible> {
    let no_body = http_body::Body::is_end_stream(request.body());
    let (turn, began) = client.clock.begin(client.shared.bounds.first_byte, no_body);
    let (head, incoming) = request.into_parts();
    let account = Account { clock: client.clock.clone(), turn };
    Ok(match answer(&client, head, Upload { incoming, account }, began).await {
        Ok(response) => response,
        Err(refused) => refuse(*refused, &client.clock, began),
    })
}

type Answer = Result<Response<OutBody>, Box<Refused>>;

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
async fn flagged(exchange: Exchange<'_>, found: Found<'_>, head: request::Parts, upload: Upload) -> Answer {
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
    };
    let mut instance = None;
    if let Some(key) = flag.follows(&params) {
        let (owner, run) = shared.pins.owner(&key).await.unwrap_or((Owner::Unknown, None));
        facts.owner = owner;
        instance = Some(InstanceId { key, run });
    }
    let retry_key = table.set.retry_key(flag, &facts);
    let mut first_try_unknown = false;
    if let Some(key) = &retry_key {
        match shared.pins.first_try(key).await {
            Ok(arm) => facts.first_try = arm,
            Err(_) => first_try_unknown = true,
        }
    }
    let decision = decide(&table.set, flag, &facts);
    let flag = flag.clone();
    let flagged = Flagged { flag, params, path, instance, retry_key };
    match decision {
        Decision::Legacy { rung, other } => {
            if let Some(key) = flagged.retry_key {
                shared.pins.note_legacy(key);
            }
            let (watched, tee) = watch(&exchange, &flagged, &head, &upload, rung, other);
            by_legacy(exchange, head, upload.stream(tee), watched, rung).await
        }
        Decision::Engine { rung, .. } if first_try_unknown => Err(exchange.refused(rung, Failure::FirstTryUnknown)),
        Decision::Engine { rung, may_fall_back, because: _ } => {
            super::engine::answer(exchange, flagged, head, upload, rung, may_fall_back).await
        }
        Decision::Nobody { rung, why } => Err(exchange.refused(rung, Failure::Nobody(why))),
    }
    .map_err(Box::new)
}

type Tees = (Option<Watched>, Option<Arc<Mutex<RequestCapture>>>);

/// Opens the account of a request that should be compared, and the copies that are taken for it.
fn watch(
    exchange: &Exchange<'_>,
    flagged: &Flagged,
    head: &request::Parts,
    upload: &Upload,
    rung: State,
    other: Other,
) -> Tees {
    let shared = &exchange.client.shared;
    let bytes_max = usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX);
    let mode = match other {
        Other::None => None,
        Other::Skip(reason) => {
            shared.offer.open(&flagged.flag.route.id).skip(reason);
            None
        }
        Other::Rehearse => Some(Mode::Rehearse),
        Other::Dark => Some(Mode::Dark),
    };
    let compare = mode.and_then(|mode| {
        let mut ticket = shared.offer.open(&flagged.flag.route.id);
        if mode == Mode::Dark {
            ticket.wants_twin();
        }
        let too_large = length(&head.headers).is_some_and(|n| n > bytes_max as u64);
        let why = match () {
            () if !shared.offer.has_room() => SkipReason::QueueFull,
            () if exchange.upgrade.is_some() => SkipReason::Streaming,
            () if too_large => SkipReason::BodyTooLarge,
            () => return Some((ticket, mode)),
        };
        ticket.skip(why);
        None
    });
    let creates = matches!(flagged.flag.route.instance, Some(Instance::Creates { .. })) && rung != State::Off;
    if compare.is_none() && !creates {
        return (None, None);
    }
    let body = (compare.is_some() && !upload.is_empty())
        .then(|| Arc::new(Mutex::new(RequestCapture { bytes_max, ..RequestCapture::default() })));
    let watched = watched(exchange, flagged, head, compare, body.clone());
    (Some(watched), body)
}

/// A reply that is looked at: for the comparison, or only for what it creates.
pub(super) fn watched(
    exchange: &Exchange<'_>,
    flagged: &Flagged,
    head: &request::Parts,
    compare: Option<(crate::exchange::Ticket, Mode)>,
    body: Option<Arc<Mutex<RequestCapture>>>,
) -> Watched {
    let shared = &exchange.client.shared;
    Watched {
        compare,
        flags: exchange.table.set.clone(),
        flag: flagged.flag.clone(),
        request: flagged.copy(exchange.client, head),
        body,
        instance: flagged.instance.clone(),
        retry_key: flagged.retry_key,
        began: exchange.began,
        bytes_max: usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX),
        offer: shared.offer.clone(),
        pins: shared.pins.clone(),
    }
}

/// Legacy answers.
pub(super) async fn by_legacy(
    mut exchange: Exchange<'_>,
    head: request::Parts,
    body: InBody,
    watched: Option<Watched>,
    rung: State,
) -> Result<Response<OutBody>, Refused> {
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
                    Some(upgrade) => client.shared.tunnel(upgrade, legacy, client.clock.clone()),
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
            let mut body = OutBody::legacy(incoming, lease, tee, clock.clone(), Some(finish));
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
            Failure::Body | Failure::Overdue(super::clock::Overdue::Client) => {
                watched.skip(SkipReason::ClientWentAway);
            }
            _ => watched.skip(SkipReason::LegacyFailed),
        }
    }
    Err(exchange.refused(rung, failure))
}

/// Remembers that legacy took a request which the engine gave back.
pub(super) fn note_fallback(exchange: &Exchange<'_>, flagged: &Flagged) {
    let shared = &exchange.client.shared;
    exchange.entry.meter.fell_back();
    shared.watch.served(&flagged.flag.route.id, crate::exchange::Served::FellBack);
    if let Some(key) = flagged.retry_key {
        shared.pins.note_legacy(key);
    }
}

/// Path and query as a target of their own.
fn origin_form(path: &str, query: Option<&str>) -> Option<Uri> {
    let text = match query {
        Some(query) => [path, "?", query].concat(),
        None => path.to_owned(),
    };
    Uri::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|uri| uri.authority().is_none())
}

/// The declared length of a body.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok()).and_then(|n| n.trim().parse().ok())
}

fn on_upgrade(head: &mut request::Parts) -> OnUpgrade {
    let mut request = Request::new(());
    *request.extensions_mut() = std::mem::take(&mut head.extensions);
    hyper::upgrade::on(&mut request)
}

fn on_upgrade_reply(parts: &mut http::response::Parts) -> OnUpgrade {
    let mut response = Response::new(());
    *response.extensions_mut() = std::mem::take(&mut parts.extensions);
    hyper::upgrade::on(&mut response)
}

impl Shared {
    fn tunnel(&self, client: OnUpgrade, legacy: OnUpgrade, clock: Arc<Clock>) {
        let idle = crate::limits::Limits::ms(self.limits.body_idle_ms);
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            clock.tunnel();
            tunnel::carry(client, legacy, idle, cut).await;
        });
    }
}
