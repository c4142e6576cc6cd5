//! Builds the request to send from the recorded one: fills in secrets, adds the idempotency key and the trace.
//!
//! Always true: everything but secrets and credentials is sent as it was recorded; the secrets that are filled in are
//! never stored. A call that is sent again after an unknown outcome has the bytes of the first attempt, `traceparent`
//! among them. If the service has another base URL than the record shows, or a secret another value, nothing is sent:
//! `workflow` compares them and decides on the next attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::machine::Attempt;
use crate::engine::ports::client::Outgoing;
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::reply::StreamingCall;
use crate::engine::run_trace::{self, RunTrace};
use crate::limits::Limits;
use crate::workflow::{
    AttemptResult, Call, InFlight, Mode, Plan, RecordedHeaders, Run, StepIndex, address, call_scope, missing, wire,
};

/// Builds the request of an attempt.
///
/// # Errors
/// The request cannot be sent; the error is the result of the attempt.
#[allow(clippy::too_many_arguments)] // the parts of a request come from different owners
pub(in crate::engine) fn outgoing(
    limits: &Limits,
    snapshot: &FilesSnapshot,
    plan: &Plan,
    run: &Run,
    credentials: &BTreeMap<String, String>,
    step: StepIndex,
    attempt: &InFlight,
    now: Timestamp,
) -> Result<Outgoing, AttemptResult> {
    let call = plan.steps.get(step.0).and_then(|step| step.call(attempt.part));
    if let Some(missing) = call.and_then(|call| missing::of_call(call, &snapshot.decision_inputs)) {
        return Err(AttemptResult::Missing(format!("it needs {missing}, which is not in the files in force")));
    }
    let call = call.ok_or_else(|| AttemptResult::NotSent("the plan has no such call".to_owned()))?;
    let of = (&attempt.step, attempt.item, attempt.part);
    let Some(path) = address::path_at_base(call, &snapshot.decision_inputs, run, of, &attempt.request) else {
        return Err(AttemptResult::Missing(format!("`{}` has another URL than it was recorded with", call.service)));
    };
    if let Some(secret) = address::changed_secret(&attempt.request, &snapshot.decision_inputs) {
        return Err(AttemptResult::Missing(format!(
            "the secret `{secret}` has another value than it was recorded with"
        )));
    }
    let deadline = plan.steps.get(step.0).and_then(|step| step.failure_handling.deadline);
    let recorded_headers = plan.recorded_headers(step, attempt.part);
    build(limits, snapshot, call, deadline, path, recorded_headers, run, credentials, attempt, now)
        .map_err(AttemptResult::NotSent)
}

#[allow(clippy::too_many_arguments)] // the parts of a request come from different owners
fn build(
    limits: &Limits,
    snapshot: &FilesSnapshot,
    call: &Call,
    deadline: Option<Duration>,
    path: &str,
    recorded_headers: Arc<RecordedHeaders>,
    run: &Run,
    credentials: &BTreeMap<String, String>,
    attempt: &InFlight,
    now: Timestamp,
) -> Result<Outgoing, String> {
    let service_limits =
        snapshot.services.get(&call.service).ok_or_else(|| format!("there is no service `{}`", call.service))?;
    let record = &attempt.request;
    let hidden = wire::has_hidden_parts(call);
    let revealed = hidden.then(|| {
        let scope = snapshot.decision_inputs.revealed(run, snapshot.secrets.clone(), credentials);
        wire::reveal(call, &call_scope(&scope, run, &attempt.step, attempt.item, attempt.part))
    });
    // The error itself is dropped: it may show the secret, and the result of the attempt is stored.
    let revealed = revealed.transpose().map_err(|_| "its URL or a header has no value now".to_owned())?;
    let revealed = revealed.unwrap_or_default();
    let path = revealed.path.as_deref().unwrap_or(path);
    let at =
        |base: &String| format!("{base}{path}").parse::<Uri>().map_err(|error| format!("its URL is invalid: {error}"));
    let uris = service_limits.urls().iter().map(at).collect::<Result<_, _>>()?;

    let mut headers = HeaderMap::new();
    for (name, recorded) in &record.headers {
        // The record decides which headers are sent: one that it left out as null stays out, and one that it has is
        // never sent with the mask `***`.
        let value = match revealed.headers.iter().find(|(revealed, _)| revealed == name) {
            Some((_, Some(value))) => value,
            Some((_, None)) => return Err(format!("the header `{name}` has no value now")),
            None => recorded,
        };
        insert(&mut headers, name, value)?;
    }
    let trace = RunTrace::of(run.started());
    // After an unknown outcome the service gets the same bytes as in the attempt that it may have received.
    let first = Attempt { number: attempt.bytes_of, ..Attempt::of(attempt) };
    if let Some(trace) = trace.and_then(|trace| run_trace::traceparent(trace.attempt(&first))) {
        headers.insert("traceparent", trace);
    } else if let Some(trace) = &run.started().traceparent {
        insert(&mut headers, "traceparent", trace)?;
    }
    if let Some(key) = &attempt.key {
        insert(&mut headers, "idempotency-key", key)?;
    }
    let timeout = call.timeout.unwrap_or_else(|| Limits::ms(limits.step_timeout_ms));
    Ok(Outgoing {
        method: record.method.parse::<Method>().map_err(|error| error.to_string())?,
        uris,
        headers,
        body: Bytes::from(record.body.bytes()),
        timeout,
        reserved: match deadline {
            // All attempts together have the deadline. If it is no longer than the timeout, half of it is left for the
            // wait; otherwise no call could wait at all.
            Some(deadline) if deadline <= timeout => deadline / 2,
            _ => timeout,
        },
        left: attempt.until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default()),
        repeatable: attempt.repeatable,
        mode: run.mode(),
        run: run.id(),
        caller: caller(run, attempt),
        service_limits: service_limits.clone(),
        lease_proof: None,
        withdrawal: CancellationToken::new(),
        recorded_headers,
        secrets: if hidden { EchoedSecrets::new(&snapshot.secrets, credentials) } else { EchoedSecrets::default() },
        streaming: call.stream.then(|| StreamingCall {
            step: attempt.step.clone(),
            accept: call.accept.clone(),
            receiver: None,
        }),
        read: None,
        whole: None,
    })
}

/// The step of an attempt, for the record of the service's callers.
fn caller(run: &Run, attempt: &InFlight) -> String {
    let (workflow, step) = (&run.started().workflow, &attempt.step);
    match run.mode() {
        Mode::Real => format!("step {workflow}.{step}"),
        mode @ (Mode::Dark | Mode::Rehearse) => format!("step {workflow}.{step} ({})", mode.as_str()),
    }
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let name = HeaderName::try_from(name).map_err(|error| format!("header `{name}`: {error}"))?;
    let mut value = HeaderValue::try_from(value).map_err(|error| format!("header `{name}`: {error}"))?;
    value.set_sensitive(true);
    headers.try_insert(name, value).map_err(|error| format!("the headers: {error}"))?;
    Ok(())
}
