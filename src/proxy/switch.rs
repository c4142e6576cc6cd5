//! Decides which arm answers a request, and carries the decision out.
//!
//! A request enters here with a complete head: hygiene, then its route, then the facts, then the decision. `relay` and
//! `engine` answer, `respond` turns errors into answers. Always true:
//! - A request has one flag set and one decision. Its retry key may bind the decision to the arm of its first try
//!   (`keyed_request`).
//! - Legacy is called only where the decision allows it (after a fallback: once), and never after the engine refused.
//! - A request that should be compared has one ticket, which is settled once, with the outcome of its comparison.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Request, Response, request};

use super::admission::Admission;
use super::adoption;
use super::answer_check::is_reversed;
use super::candidate::{CandidateOfRoute, version_by_instance};
use super::client_body::ClientBody;
use super::client_upgrade::on_upgrade;
use super::egress_call;
use super::failure::Failure;
use super::followed_instance::followed_instance;
use super::headers::{end_to_end_in_connection, find};
use super::hygiene::{self, HeadRefusal};
use super::keyed_request::{BoundDecision, KeyedRequest};
use super::may_begin::may_begin;
use super::options;
use super::prepare_copy::{CopySetup, prepare_copy};
use super::proxied_request::{Client, FlaggedRequest, ProxiedRequest};
use super::relay::{RequestToForward, forward};
use super::reply_body::ReplyBody;
use super::request_body::BodyProgress;
use super::respond::{Refused, refuse};
use super::retry_keys::{self, KnownFirstTry};
use super::upload::Upload;
use super::workflow_wait::{reaches_workflow, table_with_store};
use crate::clock;
use crate::flag::{
    Decision, DecisionDiagnostics, EngineWork, FoundRoute, InstanceId, InstanceKey, Owner, RequestFacts, ResolvedPath,
    SkipReason, State, decide,
};

/// The reply header that says which arm gave the answer, where the files ask for it.
const ARM: HeaderName = HeaderName::from_static("pointsman-arm");

/// Answers one request.
pub(super) async fn serve(
    client: Arc<Client>,
    request: Request<ClientBody>,
) -> Result<Response<ReplyBody>, Infallible> {
    let no_body = http_body::Body::is_end_stream(request.body());
    let (exchange_number, began) = client.wait.begin(client.shared.wait_limits.exchange, no_body);
    // A call by legacy belongs to the trace in its `traceparent`, which is always trusted.
    let is_trusted = client.forwarder.trusts_peer() || client.shared.egress.is_some();
    client.record.begin(client.peer, is_trusted, &request, began);
    let (mut head, incoming) = request.into_parts();
    let progress = BodyProgress { wait: client.wait.clone(), exchange_number };
    let mut upload = Upload::new(incoming, progress);
    let mut admission = Admission::default();
    // Counted before the files in force are looked at (see `begin_write`). Not for a tunnel: it may last for days, and
    // is no request of an instance.
    let is_write = !head.method.is_safe() && head.method != Method::CONNECT && client.shared.egress.is_none();
    let write = if is_write { client.shared.affinity.begin_write() } else { None };
    // Head and body are handed on by reference: each `async fn` that takes them by value copies them twice.
    let answered = match &client.shared.egress {
        None => answer(&client, &mut admission, &mut head, &mut upload, began).await,
        // Boxed, so that the future of a client's request does not reserve room for it.
        Some(egress) => {
            let call = egress_call::answer(&client, egress, &mut admission, &mut head, &mut upload, began);
            Box::pin(call).await
        }
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(refused) => refuse(*refused, client.shared.table().no_route(), &client.wait, began),
    };
    // Added only now that the reply's head is copied: it is compared as legacy sent it, without this header.
    if let Some(arm) = response.body().exposed_arm() {
        response.headers_mut().insert(ARM, HeaderValue::from_static(arm.as_str()));
    }
    response.body_mut().set_held(admission.take(), client.record.take());
    if let Some(write) = write {
        response.body_mut().set_write(write);
    }
    Ok(response)
}

type ReplyOrRefusal = Result<Response<ReplyBody>, Box<Refused>>;

async fn answer(
    client: &Client,
    admission: &mut Admission,
    head: &mut request::Parts,
    upload: &mut Upload,
    began: u64,
) -> ReplyOrRefusal {
    if let Some(in_flight) = &client.shared.requests_in_flight {
        admission.permit = Some(in_flight.take().ok_or_else(|| Refused::early(Failure::Overloaded))?);
    }
    // Only heads of HTTP/2 are refused here: hyper has refused such a head of HTTP/1.1 before.
    if head.headers.len() as u64 > client.shared.limits.head_fields_max {
        return Err(Refused::early(Failure::HeadTooLarge).into());
    }
    let checked = hygiene::check(head).map_err(|refusal| Refused::early(Failure::Head(refusal)))?;
    let (table, waited) = table_with_store(client, head).await?;
    let host = find(&head.headers, &HOST).and_then(|host| host.to_str().ok());
    // Methods are case-sensitive, and `post` matches no route; but some frameworks upcase methods, and would perform a
    // request for which neither the state of a route nor a retry key was looked up.
    if let Some(method) = hygiene::known_in_another_case(&head.method)
        && reaches_workflow(&table.set, &method, host, head.uri.path())
    {
        let why =
            "the method, in upper case, is that of a route with a workflow; servers disagree whether the two are one";
        return Err(Refused::early(Failure::Head(HeadRefusal::Ambiguous(why))).into());
    }
    if hygiene::overriding_methods(head).any(|method| reaches_workflow(&table.set, &method, host, head.uri.path())) {
        let why = "a field such as X-HTTP-Method-Override names a method for which the path has a route with a workflow; \
                   some frameworks perform that method, others the one of the request";
        return Err(Refused::early(Failure::Head(HeadRefusal::Ambiguous(why))).into());
    }
    let now_s = || clock::now().as_second();
    let resolved = table.set.resolve(&head.method, host, head.uri.path(), now_s);
    let ResolvedPath { path, respelled_from, found, former } =
        resolved.map_err(|why| Refused::early(Failure::Path(why)))?;
    // An OPTIONS request without a route of its own goes to the service of the path's routes for other methods.
    let others = match found {
        None if head.method == Method::OPTIONS => table.set.routes_of_path(host, head.uri.path()),
        _ => Vec::new(),
    };
    let below_only = others.iter().find(|flag| flag.effective.state != State::Only);
    let entry = table.entry(found.as_ref().map(|found| found.flag).or(below_only.or(others.first()).copied()));
    client.wait.set_limits(entry.limits);
    if let Some(FoundRoute { flag, .. }) = &found {
        client.record.set_route(flag, entry.template.as_ref());
    }
    let found = match found {
        Some(found) if found.flag.route.workflow.is_some() => Some(found),
        // Under earlier files a route with a workflow got such requests: the engine may have the first try of this one.
        found => former.map(|former| found.unwrap_or(former)),
    };
    // A field that `Connection` names is removed below. Without the field this request would have another key or caller
    // than its retry, whose `Connection` may not name the field; so each arm could perform one of the two.
    if let Some(FoundRoute { flag, .. }) = &found
        && end_to_end_in_connection(&head.headers).any(|name| table.set.depends_on_header(flag, &name))
    {
        let why = "Connection names a field that the retry key or the arm of this request depends on";
        return Err(Refused::early(Failure::Head(HeadRefusal::Ambiguous(why))).into());
    }
    // Usually the path is forwarded as it came.
    let uri = match &path {
        Cow::Borrowed(_) if head.uri.authority().is_none() => None,
        path => Some(hygiene::origin_form(path, head.uri.query()).ok_or(Refused::early(Failure::Target))?),
    };
    if let Some(uri) = uri {
        head.uri = uri;
    }
    if checked.odd_coding {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let upgrade = checked.upgrade.then(|| on_upgrade(head));
    client.forwarder.strip_request(&mut head.headers, checked.upgrade);
    client.forwarder.set_identity(&mut head.headers, &client.shared.identity_headers);
    client.record.set_trace(&mut head.headers);
    let mut proxied =
        ProxiedRequest { client, table: &table, entry, began, waited, admission, params: Vec::new(), upgrade };
    proxied.take_turn(found.as_ref().map_or(State::Off, |found| found.flag.effective.state)).await?;
    // In `only` legacy is never called.
    if !others.is_empty() && below_only.is_none() {
        let methods: Vec<_> = others.iter().map(|flag| &flag.route.matches.method).collect();
        return Ok(options::answer(&proxied, &methods));
    }
    let mut in_progress = None;
    let outcome = match found {
        Some(found) => {
            let entered = client.shared.workflow_gate.enter();
            let entered = entered.map_err(|why| proxied.refused(found.flag.effective.state, Failure::NoStore(why)))?;
            in_progress = Some(entered);
            client.wait.set_may_use_store();
            // Boxed: the future is large, and without the box the future of every request would reserve room for it.
            let decided = decide_flagged(proxied, found, respelled_from, head, &mut *upload);
            Box::pin(decided).await?
        }
        None => DecisionOutcome::Forward(proxied, (None, None), State::Off),
    };
    let mut response = match outcome {
        DecisionOutcome::Forward(proxied, copies, rung) => {
            let _passed_on = table.pass_on();
            forward(RequestToForward { proxied, head, upload, copies, rung }).await?
        }
        DecisionOutcome::Answered(response) => *response,
    };
    if let Some(in_progress) = in_progress {
        response.body_mut().set_in_progress(in_progress);
    }
    Ok(response)
}

/// Who answers: legacy is still to be called, or the engine has answered.
enum DecisionOutcome<'a> {
    /// Legacy is still to be called.
    Forward(ProxiedRequest<'a>, CopySetup, State),
    /// The engine has answered.
    Answered(Box<Response<ReplyBody>>),
}

/// Looks up who owns the instance that a request follows up.
async fn look_up_owner(proxied: &ProxiedRequest<'_>, key: &InstanceKey, facts: &mut RequestFacts<'_>) -> InstanceId {
    let shared = &proxied.client.shared;
    // Asked first: a twin that is made in between has its pin by the time the owner is looked up.
    let may_get_twin = shared.offer.may_add_twins();
    let (owner, run) = shared.affinity.owner(key).await.unwrap_or((Owner::Unknown, None));
    facts.owner = if owner == Owner::NoPin && may_get_twin { Owner::LegacyWithTwin } else { owner };
    InstanceId { key: key.clone(), run }
}

/// Decides a request of a route that has a workflow, or had one by earlier files.
async fn decide_flagged<'a>(
    mut proxied: ProxiedRequest<'a>,
    found: FoundRoute<'_>,
    respelled_from: Option<String>,
    head: &mut request::Parts,
    upload: &mut Upload,
) -> Result<DecisionOutcome<'a>, Box<Refused>> {
    let client = proxied.client;
    let (shared, table) = (&client.shared, proxied.table);
    let FoundRoute { flag, params } = found;
    let path = head.uri.path().to_owned();
    let follows = match flag.route.workflow {
        Some(_) => followed_instance(&mut proxied, flag, &params, head, upload).await?,
        None => None,
    };
    let decided_at = clock::now();
    let mut facts = RequestFacts {
        method: &head.method,
        path: &path,
        matched_path: respelled_from.as_ref().unwrap_or(&path),
        query: head.uri.query(),
        headers: &head.headers,
        peer: client.peer,
        params: &params,
        random: fastrand::u64(..),
        owner: Owner::NoPin,
        now_s: decided_at.as_second(),
    };
    // Without one clear key this request and its retry could go to different arms.
    let keys = retry_keys::keys_of_request(&table.set, flag, &facts).map_err(|ambiguous| {
        let failure = Failure::Head(HeadRefusal::Ambiguous(ambiguous.as_str()));
        proxied.refused(flag.effective.state, failure)
    })?;
    if flag.route.caller.token.is_some() && keys.present.is_some_and(|keys| !keys.is_verified()) {
        proxied.entry.route_metrics.count_unverified_caller();
    }
    let mut instance = None;
    let mut at_legacy = adoption::admit(&proxied, flag, follows.as_ref(), &head.method).await?;
    if let Some(key) = &follows {
        instance = Some(look_up_owner(&proxied, key, &mut facts).await);
    }
    let mut first_try = KnownFirstTry::look_up(&*shared.affinity, &flag.route, keys, !flag.route.keeps_runs).await;
    let mut diagnostics = DecisionDiagnostics::default();
    let mut decision_if_new = decide(&table.set, flag, &facts, &mut diagnostics);
    if let Some(key) = &follows
        && adoption::is_asked_for(flag, &facts, &decision_if_new, &mut first_try, &*shared.affinity).await
    {
        // The move waits until legacy has no request of the instance. This request, which legacy has not got yet, must
        // not count.
        drop(at_legacy.take());
        adoption::adopt(&proxied, flag, key).await?;
        at_legacy = adoption::admit(&proxied, flag, Some(key), &head.method).await?;
        instance = Some(look_up_owner(&proxied, key, &mut facts).await);
        diagnostics = DecisionDiagnostics::default();
        decision_if_new = decide(&table.set, flag, &facts, &mut diagnostics);
    }
    // Counted only for first tries: a retry stays on its arm, whatever the shares of the cohorts say.
    if first_try.arm.is_none() {
        proxied.entry.route_metrics.count_diagnostics(diagnostics);
    }
    let keyed = KeyedRequest { proxied: &proxied, flag, head, facts: &facts, decision_if_new };
    let BoundDecision { mut decision, key_not_noted } = keyed.bind(&mut first_try, upload).await?;
    let may_begin = may_begin(&mut decision, &decision_if_new, flag);
    client.record.note(|record| record.set_decision(&decision));
    let flag = flag.clone();
    let earlier = first_try.earlier_keys(table.set.files_version, false);
    let KnownFirstTry { keys: retry_keys, is_unknown, arm: first_arm, .. } = first_try;
    let is_skipped = matches!(decision, Decision::Legacy { engine_work: EngineWork::Skip(SkipReason::Retried), .. });
    let is_retry = is_skipped || first_arm.is_some();
    let (owner, cohort) = (facts.owner, diagnostics.cohort);
    let by_instance = version_by_instance(&table.set, &flag, instance.as_ref(), &decision, &*shared.affinity).await;
    let candidate = CandidateOfRoute::find(&table.set, &flag, &facts, follows.as_ref(), &decision, by_instance);
    let is_reversed = is_reversed(&flag, &facts, &decision, retry_keys.is_some());
    let is_of_legacy = matches!(decision, Decision::Legacy { engine_work, .. } if engine_work != EngineWork::None);
    let may_be_compared = is_of_legacy || candidate.is_some() || is_reversed;
    let stratum_value = if may_be_compared { proxied.entry.route_metrics.stratum_value(&flag, &facts) } else { None };
    let flagged = FlaggedRequest {
        flag,
        params,
        path,
        instance,
        owner,
        is_retry,
        may_begin,
        retry_keys,
        earlier,
        decided_at,
        cohort,
        stratum_value,
        candidate,
        is_reversed,
    };
    match decision {
        Decision::Legacy { rung, .. } | Decision::Engine { rung, .. } if is_unknown => {
            Err(proxied.refused(rung, Failure::FirstTryUnknown))
        }
        Decision::Legacy { rung, .. } if key_not_noted => Err(proxied.refused(rung, Failure::KeyNotNoted)),
        Decision::Legacy { rung, engine_work } => {
            proxied.admission.at_legacy = at_legacy;
            let (copied, copy) = prepare_copy(&proxied, &flagged, head, upload, rung, engine_work);
            let proxied = ProxiedRequest { params: flagged.params, ..proxied };
            Ok(DecisionOutcome::Forward(proxied, (copied, copy), rung))
        }
        Decision::Engine { rung, may_fall_back, reason } => {
            // Kept only if the engine may fall back: then legacy may still get the request.
            proxied.admission.at_legacy = at_legacy.filter(|_| may_fall_back);
            let proxied = ProxiedRequest { params: flagged.params.clone(), ..proxied };
            let answered = super::engine::answer(proxied, flagged, head, upload, rung, may_fall_back, reason);
            Box::pin(answered).await.map(|response| DecisionOutcome::Answered(Box::new(response)))
        }
        Decision::Nobody { rung, why } => Err(proxied.refused(rung, Failure::NoSafeArm(why))),
    }
    .map_err(Box::new)
}
