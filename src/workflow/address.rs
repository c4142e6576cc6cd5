//! Decides how a call is repeated when its service may have another base URL than at the earlier attempt, or when a
//! secret in its URL or headers may have another value.
//!
//! Always true: an attempt with unknown effect is repeated, and its probe is sent, only at the base URL that the
//! attempt went to, and with the values of the secrets that it and its probe read then: a service at another URL, or
//! asked with other credentials, may not know the idempotency key, and its "no" would prove nothing. Where the files in
//! force give the service another base URL, or a secret another value, the run pauses, and a person decides. An attempt
//! that certainly did nothing is repeated at the service's present base URL with the present secrets, and the request
//! is recorded so. A service with several URLs is identified by its first one: all of them lead to the same service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::calls::{CallState, Phase, StepItem, UnknownReply, all_calls};
use super::conflict::conflict;
use super::decision_inputs::call_scope;
use super::failure::WENT_TO;
use super::{
    Call, CallRecord, Conflict, ConflictEvent, ConflictKind, DecisionInputs, EffectClass, Event, Failure, FailureKind,
    Plan, Run, Step, StepPart, wire,
};
use crate::expression::{ExpressionError, ReadPath};
use crate::names::{ServiceName, StepId};
use crate::secret::SEALED;

/// The path and query of a recorded call below its service's base URL; `None` where the service has another base URL
/// now, where the files in force lack it, and where the call's URL can no longer have this path.
pub fn path_at_base<'r>(
    call: &Call,
    inputs: &DecisionInputs,
    run: &Run,
    (step, item, part): (&StepId, Option<u32>, StepPart),
    record: &'r CallRecord,
) -> Option<&'r str> {
    inputs.base(&call.service)?;
    let path = record.url.strip_prefix(wire::base_of(call, inputs))?;
    let matches = match wire::is_url_hidden(call) {
        // The path is evaluated again when the call is sent, so the result has to equal the recorded path.
        true => {
            let masked = call_scope(&inputs.masked(run), run, step, item, part);
            wire::recorded_path(call, &masked).is_ok_and(|evaluated| evaluated == path)
        }
        false => call.url.may_evaluate_to(path),
    };
    matches.then_some(path)
}

/// Whether the files in force allow a call to be repeated after an unknown outcome. The plan is loaded with these
/// files, so a call whose repeat would need the key is not repeated once its service is not `keyed` any more. True also
/// while the files lack the service: whether it is `keyed` is not known then, and nothing is sent to it anyway.
pub fn allows_repeat(call: &Call, inputs: &DecisionInputs) -> bool {
    call.repeat_is_harmless() || inputs.base(&call.service).is_none()
}

/// What differs between a recorded call and the same call if it were sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallChange {
    /// Its service has another base URL.
    Address {
        /// The service.
        service: ServiceName,
        /// The URL of the recorded call, without its query.
        from: String,
        /// The service's present base URL.
        to: String,
    },
    /// A secret in its URL or headers, or in those of its probe, has another value.
    Secret {
        /// The service.
        service: ServiceName,
        /// The name of the secret.
        secret: String,
    },
}

impl fmt::Display for CallChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { service, from, to } => write!(f, "{WENT_TO} {from}, and `{service}` is at {to} now"),
            Self::Secret { service: _, secret } => {
                write!(f, "when that attempt was sent, the secret `{secret}` had another value")
            }
        }
    }
}

/// The name of a secret that has another value than when a call was recorded. A secret that the files do not have any
/// more is not one of them: the call is not sent then.
pub fn changed_secret<'r>(record: &'r CallRecord, inputs: &DecisionInputs) -> Option<&'r str> {
    let is_changed = |(name, hash): &(&String, &String)| {
        inputs.secret_hashes.get(name.as_str()).is_some_and(|present| present != *hash)
    };
    record.secrets.iter().find(is_changed).map(|(name, _)| name.as_str())
}

/// The change of a recorded call's service or secrets; `None` where it would be sent as it was recorded.
pub(super) fn call_change(
    run: &Run,
    inputs: &DecisionInputs,
    call: &Call,
    call_id: (&StepId, Option<u32>, StepPart),
    record: &CallRecord,
) -> Option<CallChange> {
    let service = call.service.clone();
    if path_at_base(call, inputs, run, call_id, record).is_some() {
        let secret = changed_secret(record, inputs)?.to_owned();
        return Some(CallChange::Secret { service, secret });
    }
    let from = record.url.split('?').next().unwrap_or_default().to_owned();
    Some(CallChange::Address { service, from, to: wire::base_of(call, inputs).to_owned() })
}

/// The calls of a run whose outcome is unknown, or may become unknown because they are under way, and whose services
/// have other base URLs in the files in force, or whose secrets have other values. Instead of sending such a call or
/// its probe again, the run pauses. A call whose recorded URL is sealed is left out, because the URL is not known here.
pub fn moved_calls(run: &Run, plan: &Plan, inputs: &DecisionInputs) -> BTreeMap<StepItem, CallChange> {
    let mut found = BTreeMap::new();
    for (step, item, part, state) in all_calls(&run.steps, &run.side_calls) {
        let in_flight = state.phase == Phase::InFlight && state.effect != EffectClass::Read;
        let Some((_, declared)) = plan.step(step) else { continue };
        let Some(call) = declared.call(part).filter(|call| inputs.base(&call.service).is_some()) else { continue };
        let is_unknown = state.unknown_effect() && state.unfit_result.is_none();
        let is_uncertain = in_flight || is_unknown || part == StepPart::Probe;
        if is_uncertain
            && !state.request.url.contains(SEALED[0])
            && let Some(moved) = call_change(run, inputs, call, (step, item, part), &state.request)
        {
            found.entry((step.clone(), item)).or_insert(moved);
        }
    }
    found
}

/// How the next attempt of a call is made.
pub(super) enum NextAttempt {
    /// The bytes of the first attempt, to the same address.
    Same,
    /// The same method, headers and body, to the service's present address with the present secrets.
    Rebased(Arc<CallRecord>),
    /// The call is not repeated: this event pauses the run.
    Pause(Event),
}

/// Decides how the next attempt of a call is made, where its service may have another address, or a secret another
/// value.
///
/// # Errors
/// The URL's expressions have no value any more.
pub(super) fn next(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
    (call, state): (&Call, &CallState),
) -> Result<NextAttempt, (Vec<ReadPath>, ExpressionError)> {
    match call_change(run, inputs, call, (&step.id, item, part), &state.request) {
        None => Ok(NextAttempt::Same),
        // `move_accepted`: a person who was told both addresses has asked for another attempt.
        Some(moved) if state.unknown_effect() && !state.move_accepted => {
            Ok(NextAttempt::Pause(pause(run, step, item, part, state, &moved)))
        }
        Some(_) => {
            let masked = call_scope(&inputs.masked(run), run, &step.id, item, part);
            let path = wire::recorded_path(call, &masked).map_err(|error| (call.url.reads().to_vec(), error))?;
            let url = format!("{}{path}", wire::base_of(call, inputs));
            let secrets = inputs.hashes_of_secrets(state.request.secrets.keys().map(String::as_str));
            Ok(NextAttempt::Rebased(Arc::new(CallRecord { url, secrets, ..(*state.request).clone() })))
        }
    }
}

/// Pauses the run until a person decides about an attempt with unknown effect, because its service has another address
/// or a secret another value.
pub(super) fn pause(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
    state: &CallState,
    change: &CallChange,
) -> Event {
    let mut conflict = conflict_over_unknown(run, step, item, part, state, change);
    conflict.expected = Some(match change {
        CallChange::Address { service, from, to } => {
            format!("`{service}` at {from}, which alone knows the call's key; `retry` sends the same call to {to}")
        }
        CallChange::Secret { service, secret } => format!(
            "the secret `{secret}` as it was: `{service}` may know the call's key only together with it; `retry` sends \
             the same call with the present one"
        ),
    });
    conflict.names_earlier_url = Some(true);
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })
}

/// Pauses the run instead of repeating an attempt with unknown effect: a repeat was harmless when the attempt was sent,
/// but is not any more, because the service is not `keyed` in the files in force. `None` where the attempt is repeated,
/// or a person has asked for the repeat.
pub(super) fn pause_unrepeatable(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
    inputs: &DecisionInputs,
    (call, state): (&Call, &CallState),
) -> Option<Event> {
    let is_asked_for = state.requested && !state.requested_by_reload;
    if !state.unknown_effect() || is_asked_for || allows_repeat(call, inputs) {
        return None;
    }
    let service = &call.service;
    let why = format!("`{service}` is not `keyed` in the files in force, so that another attempt could do it twice");
    let conflict = conflict_over_unknown(run, step, item, part, state, &why);
    Some(Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None }))
}

/// The conflict over an attempt with unknown effect, with what came back from it.
fn conflict_over_unknown(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
    state: &CallState,
    reason: &dyn fmt::Display,
) -> Conflict {
    let (kind, what) = match part {
        StepPart::Undo => {
            (ConflictKind::UndoUnknown, format!("it is unknown whether what `{}` did was undone", step.id))
        }
        StepPart::Do | StepPart::Probe => {
            (ConflictKind::OutcomeUnknown, format!("it is unknown whether `{}` was done", step.id))
        }
    };
    let why = state.why.as_ref().map_or_else(String::new, |why| format!("{why}; "));
    let UnknownReply { status, response } = state.unknown_reply.clone().unwrap_or_default();
    let failure = Failure::of_step(FailureKind::Broken, &step.id, item, format!("{what}: {why}{reason}"));
    let mut conflict = conflict(run, step, item, part.decided_part(), kind, &Failure { status, ..failure });
    conflict.response = response;
    conflict
}
