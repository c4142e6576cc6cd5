//! Steps that wait for a time or a signal, and the receipt of signals.
//!
//! Always true: a signal that arrives before a step waits for it is stored, up to a bound. Each signal is taken by at
//! most one step; a repeated delivery counts once. A filter that cannot be evaluated matches nothing.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::decision_inputs::deeper_than;
use super::rules::{Until, Wait};
use super::step_events::{failed, finished};
use super::{
    CommandRefusal, DecisionInputs, Event, Failure, FailureKind, Mode, Outcome, Plan, Run, Step, StepKind, StepPart,
    WaitEvent, missing, span,
};
use crate::expression::{Expression, ExpressionError, Template};
use crate::names::Seq;

/// Begins a step of kind `wait`.
pub(super) fn open(run: &Run, inputs: &DecisionInputs, step: &Step, wait: &Wait, now: Timestamp) -> Vec<Event> {
    let began = |until, signal: Option<&String>| {
        Event::Wait(WaitEvent::Began { step: step.id.clone(), until, signal: signal.cloned() })
    };
    let value = |template: &Template, read: &dyn Fn(&Value) -> Result<Timestamp, String>| {
        let value = template.evaluate(&inputs.plain(run));
        let value = value.and_then(|value| read(&value).map_err(ExpressionError::new));
        value.map_err(|error| Box::new(failed(run, inputs, step, None, template.reads(), &error)))
    };
    let until = match &wait.until {
        Until::For(template) => value(template, &|value| {
            let span = SignedDuration::try_from(span::duration_value(value)?).map_err(|_| "too long".to_owned())?;
            now.checked_add(span).map_err(|_| "it ends after the latest possible time".to_owned())
        }),
        Until::At(template) => value(template, &|value| {
            let (time, begun) = (span::time(value)?, run.started.started);
            Ok(run.started.injected.as_ref().map_or(time, |injected| injected.on_clock(begun, time)))
        }),
        Until::Signal { name, timeout, .. } => {
            return signal(
                run,
                inputs,
                step,
                wait,
                name,
                began(timeout.and_then(|t| now.checked_add(t).ok()), Some(name)),
            );
        }
    };
    vec![match until {
        Ok(until) => began(Some(until), None),
        Err(event) => *event,
    }]
}

/// Waits for a signal: one that arrived before is taken at once.
fn signal(run: &Run, inputs: &DecisionInputs, step: &Step, wait: &Wait, name: &str, began: Event) -> Vec<Event> {
    let ended = |signal, output| Event::Wait(WaitEvent::Ended { step: step.id.clone(), signal: Some(signal), output });
    if run.mode() != Mode::Real {
        let Some(rehearse) = &wait.rehearse else {
            let message = format!("`{}` waits for the signal `{name}`, and has no `rehearse:`", step.id);
            let failure = Failure::of_step(FailureKind::NeedsSignal, &step.id, None, message);
            return vec![finished(step, None, 0, Outcome::Failed { failure })];
        };
        return match rehearse.evaluate(&inputs.plain(run)) {
            Err(error) => vec![failed(run, inputs, step, None, rehearse.reads(), &error)],
            Ok(payload) => {
                let payload = Arc::new(payload);
                let (name, by) = (name.to_owned(), "rehearse".to_owned());
                let received = Event::Wait(WaitEvent::SignalReceived {
                    name,
                    payload: payload.clone(),
                    id: None,
                    by,
                    sensitive: false,
                });
                vec![began, received, ended(Seq(run.seq().0 + 2), payload)]
            }
        };
    }
    // Without what the filter reads, no signal can be accepted or refused, not even one that has come already.
    if let Some(missing) = filter_of(step).and_then(|filter| missing::of_reads(filter.reads(), inputs)) {
        return vec![missing::pause(run, step, None, StepPart::Do, &missing)];
    }
    let stored = run.interactions.signals.iter();
    let mut stored = stored.filter(|signal| signal.name == name && accepts(run, inputs, step, &signal.payload));
    match stored.next() {
        Some(signal) => vec![began, ended(signal.seq, signal.payload.clone())],
        None => vec![began],
    }
}

/// Whether a step's filter accepts a signal with this payload.
fn accepts(run: &Run, inputs: &DecisionInputs, step: &Step, payload: &Arc<Value>) -> bool {
    filter_of(step).is_none_or(|filter| {
        let scope = inputs.plain(run).with("signal", payload.clone());
        filter.holds(&scope).unwrap_or(false)
    })
}

/// The filter of a step that waits for a signal.
fn filter_of(step: &Step) -> Option<&Expression> {
    let StepKind::Wait(wait) = &step.kind else { return None };
    match &wait.until {
        Until::Signal { filter, .. } => filter.as_ref(),
        Until::For(_) | Until::At(_) => None,
    }
}

/// Handles a signal.
pub(super) fn receive(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    name: String,
    payload: Arc<Value>,
    id: Option<String>,
    by: &str,
) -> Result<Vec<Event>, CommandRefusal> {
    if id.as_ref().is_some_and(|id| run.interactions.is_delivered(id)) {
        return Ok(Vec::new()); // a repeated delivery changes nothing
    }
    let known = plan.steps.iter().filter_map(|step| match &step.kind {
        StepKind::Wait(wait) => match &wait.until {
            Until::Signal { name, .. } => Some(name.as_str()),
            Until::For(_) | Until::At(_) => None,
        },
        _ => None,
    });
    if !known.clone().any(|known| known == name) {
        let known: Vec<_> = known.collect();
        let waits = match known.is_empty() {
            true => "it waits for none".to_owned(),
            false => format!("it waits for {}", known.join(", ")),
        };
        return Err(CommandRefusal::NotApplicable(format!(
            "the workflow has no step that waits for the signal `{name}`; {waits}"
        )));
    }
    if run.is_ending() {
        return Err(CommandRefusal::NotApplicable("the run is ending".into()));
    }
    if deeper_than(&payload, inputs.output_depth_max) {
        let message = format!("the payload is nested deeper than output_depth_max ({})", inputs.output_depth_max);
        return Err(CommandRefusal::BadValues(vec![message]));
    }
    let waits_for_it = |step: &&Step| {
        let waits = run.interactions.waits.get(&step.id);
        waits.is_some_and(|wait| wait.signal.as_deref() == Some(&name))
    };
    let mut waiting = plan.steps.iter().filter(waits_for_it);
    let lacking = waiting.clone().find_map(|step| Some((step, missing::of_reads(filter_of(step)?.reads(), inputs)?)));
    let waiting = waiting.find(|step| accepts(run, inputs, step, &payload));
    // Stored, the signal would stay untaken after the files have what is missing.
    if let (None, Some((step, missing))) = (waiting, lacking) {
        return Err(CommandRefusal::NotApplicable(format!(
            "`{}` cannot tell whether it waits for this signal: its `where` needs {missing}, which is not in the files \
             in force; send the signal again when they have it",
            step.id
        )));
    }
    if waiting.is_none() && run.interactions.signals.len() >= inputs.signals_max {
        let message =
            format!("{} signals have come that no step has taken, as many as signals_max allows", inputs.signals_max);
        return Err(CommandRefusal::NotApplicable(message));
    }
    let mut events = vec![Event::Wait(WaitEvent::SignalReceived {
        name,
        payload: payload.clone(),
        id,
        by: by.to_owned(),
        sensitive: false,
    })];
    if let Some(step) = waiting {
        events.push(Event::Wait(WaitEvent::Ended {
            step: step.id.clone(),
            signal: Some(run.seq().next()),
            output: payload,
        }));
    }
    Ok(events)
}

/// The events of the first wait whose deadline has passed.
pub(super) fn elapse(run: &Run, plan: &Plan, now: Timestamp) -> Option<Vec<Event>> {
    let has_passed = |wait: &super::interactions::OpenWait| wait.until.is_some_and(|until| until <= now);
    let (id, wait) = run.interactions.waits.iter().find(|(_, wait)| has_passed(wait))?;
    let (_, step) = plan.step(id)?;
    let fails = match &step.kind {
        StepKind::Wait(wait) => matches!(wait.until, Until::Signal { continues: false, .. }),
        _ => false,
    };
    Some(vec![match &wait.signal {
        Some(signal) if fails => {
            let message = format!("`{id}`: the signal `{signal}` did not come in time");
            let failure = Failure::of_step(FailureKind::TimedOut, id, None, message);
            finished(step, None, 0, Outcome::Failed { failure })
        }
        _ => Event::Wait(WaitEvent::Ended { step: id.clone(), signal: None, output: Arc::new(Value::Null) }),
    }])
}
