//! Whether a service still has the base URL that an earlier attempt was sent to.
//!
//! Always true: an attempt with unknown effect is repeated, and its probe asked, only at the base URL that it went to:
//! elsewhere its idempotency key is unknown, and "not there" says nothing. Where the files in force give the service
//! another one, the run pauses, and a person decides. An attempt that was certainly not done goes to the service's
//! present base URL, and is recorded as it is sent then. A service with several URLs is known by its first one: the
//! others lead to the same service.

use std::fmt;
use std::sync::Arc;

use super::calls::{CallState, Evidence};
use super::conflict::conflict;
use super::world::call_scope;
use super::{Call, CallRecord, ConflictEvent, ConflictKind, Event, Failure, FailureKind, Part, Run, Step, World, wire};
use crate::expression::{ExpressionError, ReadPath};
use crate::names::{ServiceName, StepId};

/// Path and query of a recorded call below its service's base URL; `None` where the service has another base URL now.
pub fn path_at_base<'r>(
    call: &Call,
    world: &World,
    run: &Run,
    (step, item, part): (&StepId, Option<u32>, Part),
    record: &'r CallRecord,
) -> Option<&'r str> {
    world.base(&call.service)?;
    let path = record.url.strip_prefix(wire::base_of(call, world))?;
    let is_path = match wire::is_url_hidden(call) {
        // At sending the path is evaluated again, so it has to be the recorded one.
        true => {
            let masked = call_scope(&world.masked(run), run, step, item, part);
            wire::recorded_path(call, &masked).is_ok_and(|evaluated| evaluated == path)
        }
        false => call.url.may_evaluate_to(path),
    };
    is_path.then_some(path)
}

/// A service has another base URL than when a call was recorded.
pub(super) struct Moved {
    service: ServiceName,
    /// Where the recorded call went, without its query.
    from: String,
    /// The base URL now.
    to: String,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "that attempt went to {}, and `{}` is at {} now", self.from, self.service, self.to)
    }
}

/// Whether the service of a recorded call has another base URL now.
pub(super) fn moved(
    run: &Run,
    world: &World,
    call: &Call,
    of: (&StepId, Option<u32>, Part),
    record: &CallRecord,
) -> Option<Moved> {
    if path_at_base(call, world, run, of, record).is_some() {
        return None;
    }
    let from = record.url.split('?').next().unwrap_or_default().to_owned();
    Some(Moved { service: call.service.clone(), from, to: wire::base_of(call, world).to_owned() })
}

/// The next attempt of a call whose service may have moved: what it records of the request, if anything.
pub(super) enum Next {
    /// The bytes of the first attempt, to the same address.
    Same,
    /// The same method, headers and body, to the service's present address.
    Rebased(Arc<CallRecord>),
    /// It is not repeated there.
    Pause(Event),
}

/// Decides how the next attempt of a call is made.
///
/// # Errors
/// The URL has no value any more.
pub(super) fn next(
    run: &Run,
    world: &World,
    step: &Step,
    item: Option<u32>,
    part: Part,
    (call, state): (&Call, &CallState),
) -> Result<Next, (Vec<ReadPath>, ExpressionError)> {
    let of = (&step.id, item, part);
    match moved(run, world, call, of, &state.request) {
        None => Ok(Next::Same),
        // A person who asks for another attempt was told both addresses.
        Some(moved) if state.unknown_effect() && !state.requested => {
            Ok(Next::Pause(pause(run, step, item, part, state, &moved)))
        }
        Some(_) => {
            let masked = call_scope(&world.masked(run), run, &step.id, item, part);
            let path = wire::recorded_path(call, &masked).map_err(|error| (call.url.reads().to_vec(), error))?;
            let url = format!("{}{path}", wire::base_of(call, world));
            Ok(Next::Rebased(Arc::new(CallRecord { url, ..(*state.request).clone() })))
        }
    }
}

/// Pauses the run until a person decides over an attempt with unknown effect.
pub(super) fn pause(run: &Run, step: &Step, item: Option<u32>, part: Part, state: &CallState, moved: &Moved) -> Event {
    let (kind, what) = match part {
        Part::Undo => (ConflictKind::UndoFailed, format!("what `{}` did may not be undone", step.id)),
        Part::Do | Part::Probe => {
            (ConflictKind::OutcomeUnknown, format!("it is unknown whether `{}` was done", step.id))
        }
    };
    let why = state.why.as_ref().map_or_else(String::new, |why| format!("{why}; "));
    let Evidence { status, response } = state.evidence.clone().unwrap_or_default();
    let failure = Failure::of_step(FailureKind::Broken, &step.id, item, format!("{what}: {why}{moved}"));
    let mut conflict = conflict(run, step, item, part.asked_about(), kind, &Failure { status, ..failure });
    conflict.response = response;
    let Moved { service, from, to } = moved;
    conflict.expected =
        Some(format!("`{service}` where {from} is: nobody else knows its key. `retry` sends the same to {to}"));
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), gave: None })
}
