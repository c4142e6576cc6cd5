//! Compares the decisions of another plan with the events of a run.
//!
//! Always true: it only reads. The decisions that begin or end a step, open a checkpoint or give the answer are
//! repeated, each at its own time and from the state of the run at that time, and compared with the recorded events;
//! others (another attempt, a fallback, a pause) are not. The answers of people and services are those of the history.
//! Where the history holds sealed values, neither decisions that read them nor what the input's schema says of them are
//! checked. After a difference it continues with what did happen, so that each difference is found, and none is counted
//! twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::attempt_result;
use super::due::due;
use super::recorded_bytes::as_recorded_earlier;
use super::recorded_input::check_recorded_input;
use super::respond::ANSWER;
use super::sensitive::reads_sealed;
use super::{
    Action, AnswerEvent, AttemptResult, CallRecord, CheckpointEvent, ChildEvent, Command, Conditions, ConflictEvent,
    DecisionInputs, EndingEvent, Event, EventMisfit, FailureKind, LockEvent, OpenCheckpoint, Outcome, Plan, Run,
    Skipped, StepEvent, StepFinished, StepKind, StepPart, WaitEvent, decide, evolve,
};
use crate::expression::SharedJson;
use crate::names::{RunId, Seq, StepId};

/// One decision that would have been different.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The sequence number of the event in the history.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// Which step.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The kind of difference.
    pub kind: DivergenceKind,
    /// What happened.
    pub was: String,
    /// What would have happened.
    pub expected: String,
}

/// How a decision differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DivergenceKind {
    /// The request's body would be refused.
    Input,
    /// The plan has no such step.
    NoStep,
    /// The step would not have been due.
    Order,
    /// Another request would have been sent.
    Request,
    /// The step would have ended otherwise.
    Decision,
    /// What a service answered would be judged otherwise.
    Outcome,
    /// The caller would get another answer.
    Answer,
    /// A step that did not run would have run.
    MoreSteps,
}

impl DivergenceKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            DivergenceKind::Input => "input",
            DivergenceKind::NoStep => "no_step",
            DivergenceKind::Order => "order",
            DivergenceKind::Request => "request",
            DivergenceKind::Decision => "decision",
            DivergenceKind::Outcome => "outcome",
            DivergenceKind::Answer => "answer",
            DivergenceKind::MoreSteps => "more_steps",
        }
    }
}

/// Every decision that this plan would have made differently, in the order of the events. If there is none, this plan
/// could have led to the same events, as far as they are compared.
///
/// # Errors
/// The events do not fit each other.
pub fn replay_with(
    events: &[(Timestamp, Event)],
    plan: &Plan,
    inputs: &DecisionInputs,
) -> Result<Vec<Divergence>, EventMisfit> {
    let mut run: Option<Run> = None;
    let mut found = Vec::new();
    let mut answered_by_person = false;
    let mut before: Option<&Event> = None;
    for (at, event) in events {
        let divergences = match &run {
            None => check_input(event, plan),
            // A person gave the answer in this event, so no decision of the plan is compared with it.
            Some(_) if answered_by_person => Vec::new(),
            // How a child run ended is taken from the history.
            Some(_) if before.is_some_and(|before| is_end_of_child_step(before, event)) => Vec::new(),
            Some(run) if reads_sealed(run, plan, event) => Vec::new(),
            Some(run) => DecisionCheck { run, plan, inputs, at: *at }.check(event),
        };
        let seq = run.as_ref().map_or(Seq::FIRST, |run| run.seq().next());
        let (step, item) = event.subject().map_or((None, None), |(step, item)| (Some(step.clone()), item));
        found.extend(divergences.into_iter().map(|(kind, was, would)| Divergence {
            seq,
            at: *at,
            step: step.clone(),
            item,
            kind,
            was,
            expected: would,
        }));
        answered_by_person =
            matches!(event, Event::Conflict(ConflictEvent::Resolved { step, .. }) if step.as_str() == ANSWER);
        before = Some(event);
        run = Some(evolve(run, event)?);
    }
    Ok(found)
}

/// The kind, what happened, and what would have happened.
type FoundDivergence = (DivergenceKind, String, String);

/// Whether an event ends a step because its child run has ended in the event before.
fn is_end_of_child_step(before: &Event, event: &Event) -> bool {
    matches!(before, Event::Child(ChildEvent::Ended { .. }))
        && matches!(event, Event::StepFinished(_))
        && before.subject() == event.subject()
}

fn check_input(event: &Event, plan: &Plan) -> Vec<FoundDivergence> {
    let Event::RunStarted(started) = event else { return Vec::new() };
    match check_recorded_input(started, plan) {
        Ok(()) => Vec::new(),
        Err(wrong) => {
            let would = format!("its input would be refused: {}", wrong.join("; "));
            vec![(DivergenceKind::Input, "the run began".into(), would)]
        }
    }
}

struct DecisionCheck<'a> {
    run: &'a Run,
    plan: &'a Plan,
    inputs: &'a DecisionInputs,
    at: Timestamp,
}

impl DecisionCheck<'_> {
    fn check(&self, event: &Event) -> Vec<FoundDivergence> {
        let found = match event {
            Event::StepStarted(started) if started.part == StepPart::Do && started.request.is_some() => {
                self.check_step(event, RunId(uuid::Uuid::nil()))
            }
            Event::StepFinished(finished) if finished.part == StepPart::Do && finished.attempt == 0 => {
                match &finished.outcome {
                    Outcome::Failed { failure } if is_failure_of_plan(failure.kind) => {
                        self.check_step(event, RunId(uuid::Uuid::nil()))
                    }
                    _ => None, // follows from a person's answer or the end of a child run, which the history gives
                }
            }
            Event::StepFinished(StepFinished { outcome: Outcome::Rehearsed { .. }, part: StepPart::Do, .. })
            | Event::Step(StepEvent::Computed { .. })
            | Event::Step(StepEvent::Skipped {
                reason: Skipped::Condition | Skipped::Needs | Skipped::NotNeeded,
                ..
            })
            | Event::Step(StepEvent::FanOutOpened { .. })
            | Event::Step(StepEvent::FailReached { .. })
            | Event::Checkpoint(CheckpointEvent::Opened(_))
            | Event::Wait(WaitEvent::Began { .. })
            | Event::Lock(LockEvent::Queued { .. }) => self.check_step(event, RunId(uuid::Uuid::nil())),
            Event::Child(ChildEvent::Started { child, .. }) => self.check_step(event, *child),
            Event::StepFinished(finished) if finished.part == StepPart::Do => self.check_end(event, finished),
            Event::Answer(AnswerEvent::Responded { .. }) if self.run.failure().is_none() => self.check_answer(event),
            Event::Ending(EndingEvent::Completed {}) if self.run.failure().is_none() => return self.steps_not_run(),
            _ => None,
        };
        found.into_iter().collect()
    }

    /// Compares an event that begins or ends a step with what the plan would do at that point.
    fn check_step(&self, event: &Event, child: RunId) -> Option<FoundDivergence> {
        let (id, item) = event.subject()?;
        let Some((step, declared)) = self.plan.step(id) else {
            return Some((DivergenceKind::NoStep, describe(event), format!("there is no step `{id}`")));
        };
        // A question about a whole fan-out, or the fan-out's failure, names no item, but is decided when the next item
        // would begin.
        let open = self.run.open_step(id).filter(|open| item.is_none() && open.items.is_some());
        let item = open.map_or(item, |open| Some(open.next));
        let is_whole_fan_out = item.is_none() && declared.for_each.is_some();
        let begin = match declared.kind {
            StepKind::Call(_) if !is_whole_fan_out => Command::Begin { step, item, part: StepPart::Do },
            StepKind::Run(_) if !is_whole_fan_out => Command::BeginChild { step, item, child },
            _ => Command::Advance { step },
        };
        let mut refused = None;
        // `Advance` is tried too, because it skips a fallback that is not needed, whatever the kind of the step.
        for command in [begin, Command::Advance { step }] {
            match decide(self.run, self.plan, self.inputs, command, self.at) {
                // One decision may give several events, and only the first is compared.
                Ok(events) => return self.compare(event, events.first()?),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        Some((DivergenceKind::Order, describe(event), format!("it would not have happened then: {}", refused?)))
    }

    /// The difference between a recorded event and the one that the plan would give.
    fn compare(&self, was: &Event, would: &Event) -> Option<FoundDivergence> {
        let same = match (was, would) {
            (Event::StepStarted(was), Event::StepStarted(would)) => {
                let (was, would) = (was.request.as_deref()?, would.request.as_deref()?);
                let difference = request_difference(was, would)?;
                return Some((DivergenceKind::Request, difference.0, difference.1));
            }
            (Event::StepFinished(was), Event::StepFinished(would)) => match (&was.outcome, &would.outcome) {
                (Outcome::Rehearsed { intent: was, .. }, Outcome::Rehearsed { intent: would, .. }) => {
                    let difference = request_difference(was, would)?;
                    return Some((DivergenceKind::Request, difference.0, difference.1));
                }
                (was, would) => std::mem::discriminant(was) == std::mem::discriminant(would),
            },
            (
                Event::Wait(WaitEvent::Began { step: was, until: was_until, signal: was_signal }),
                Event::Wait(WaitEvent::Began { step: would, until: would_until, signal: would_signal }),
            ) => (was, was_signal) == (would, would_signal) && same_time(*was_until, *would_until),
            (Event::Checkpoint(CheckpointEvent::Opened(was)), Event::Checkpoint(CheckpointEvent::Opened(would))) => {
                let (at, until, base_url) = (was.at, was.until, was.base_url.clone());
                let items = as_recorded_earlier(&was.items, &would.items);
                let as_it_was = OpenCheckpoint { at, until, base_url, items, ..(**would).clone() };
                **was == as_it_was && same_time(was.until, would.until)
            }
            (
                Event::Step(StepEvent::FanOutOpened { items: was, .. }),
                Event::Step(StepEvent::FanOutOpened { items: would, .. }),
            ) => was == would,
            (
                Event::Step(StepEvent::FailReached { answer: was, .. }),
                Event::Step(StepEvent::FailReached { answer: would, .. }),
            ) => was.is_same_for_caller(would),
            (was, would) => was == would,
        };
        (!same).then(|| (DivergenceKind::Decision, describe(was), describe(would)))
    }

    /// Compares the end of a call with what the plan would make of the same reply.
    fn check_end(&self, event: &Event, finished: &StepFinished) -> Option<FoundDivergence> {
        let (step, _) = self.plan.step(&finished.step)?;
        let reply = |status: u16, headers: &BTreeMap<String, String>, output: &SharedJson| AttemptResult::Reply {
            status,
            headers: headers.clone(),
            output: output.shared().clone(),
            retry_after_ms: None,
        };
        let result = match &finished.outcome {
            Outcome::Done { status, headers, output } | Outcome::Unfit { status, headers, output, .. } => {
                reply(*status, headers, output)
            }
            Outcome::NotDone { failure } | Outcome::Failed { failure } => match failure.status {
                Some(status) => reply(status, &BTreeMap::new(), &Arc::default()),
                None => attempt_result::of_unsent(failure),
            },
            Outcome::Unknown { .. } | Outcome::Rehearsed { .. } => return None,
        };
        let (item, attempt) = (finished.item, finished.attempt);
        let command =
            Command::Record { step, item, part: StepPart::Do, attempt, result, may_be_repeat: false, jitter: 0.5 };
        let events = decide(self.run, self.plan, self.inputs, command, self.at).ok()?;
        let same = match events.first()? {
            Event::StepFinished(would) => {
                std::mem::discriminant(&would.outcome) == std::mem::discriminant(&finished.outcome)
            }
            _ => false,
        };
        let would = events.first().map(describe).unwrap_or_default();
        (!same).then(|| (DivergenceKind::Outcome, describe(event), would))
    }

    /// Compares the caller's answer with the one that the plan would give at that point.
    fn check_answer(&self, event: &Event) -> Option<FoundDivergence> {
        let conditions = Conditions { now: self.at, hold_effects: false };
        let actions = due(self.run, self.plan, self.inputs, conditions);
        let respond = actions.into_iter().find_map(|action| match action {
            Action::Decide(command @ Command::Respond { .. }) => Some(command),
            _ => None,
        });
        let Some(command) = respond else {
            return Some((DivergenceKind::Answer, describe(event), "no answer yet".into()));
        };
        let events = decide(self.run, self.plan, self.inputs, command, self.at).ok()?;
        let would = events.first()?;
        match (event, would) {
            (
                Event::Answer(AnswerEvent::Responded { answer: was, .. }),
                Event::Answer(AnswerEvent::Responded { answer: would, .. }),
            ) if was.is_same_for_caller(would) => None,
            (was, would) => Some((DivergenceKind::Answer, describe(was), describe(would))),
        }
    }

    /// Steps of the plan that never ran in this history. (A `fail:` step may complete a run before the others begin.)
    fn steps_not_run(&self) -> Vec<FoundDivergence> {
        let missing = self.plan.steps.iter().filter(|step| !self.run.steps.contains_key(&step.id));
        missing
            .map(|step| {
                (DivergenceKind::MoreSteps, "the run was complete".to_owned(), format!("`{}` would have run", step.id))
            })
            .collect()
    }
}

/// Whether two times are the same, apart from the time between a decision and its event.
fn same_time(was: Option<Timestamp>, would: Option<Timestamp>) -> bool {
    match (was, would) {
        (Some(was), Some(would)) => was.duration_since(would).abs() < SignedDuration::from_millis(500),
        (was, would) => was == would,
    }
}

/// Whether the failure comes from the plan itself, before any call.
fn is_failure_of_plan(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Expression | FailureKind::Unresolved | FailureKind::Bound | FailureKind::NeedsPerson)
}

/// The first difference between two requests.
fn request_difference(was: &CallRecord, would: &CallRecord) -> Option<(String, String)> {
    if was.method != would.method || was.url != would.url {
        return Some((format!("{} {}", was.method, was.url), format!("{} {}", would.method, would.url)));
    }
    if was.headers != would.headers {
        return Some((format!("headers {:?}", was.headers), format!("headers {:?}", would.headers)));
    }
    let body = |record: &CallRecord| {
        let shown = super::conflict::shorten_value(&record.body.value());
        format!("{} {} with {}", record.method, record.url, shown.map_or_else(|| "no body".into(), |v| v.to_string()))
    };
    (was.body != would.body).then(|| (body(was), body(would)))
}

/// An event in a sentence.
fn describe(event: &Event) -> String {
    match event {
        Event::StepStarted(started) => match &started.request {
            Some(request) => format!("{} {}", request.method, request.url),
            None => format!("attempt {} of `{}`", started.attempt, started.step),
        },
        Event::StepFinished(finished) => match &finished.outcome {
            Outcome::Done { status, .. } => format!("`{}` is done with {status}", finished.step),
            Outcome::Rehearsed { intent, .. } => format!("{} {} is rehearsed", intent.method, intent.url),
            Outcome::NotDone { failure }
            | Outcome::Unknown { failure }
            | Outcome::Failed { failure }
            | Outcome::Unfit { failure, .. } => format!("`{}` fails: {}", finished.step, failure.message),
        },
        Event::Step(StepEvent::Skipped { step, .. }) => format!("`{step}` is skipped"),
        Event::Step(StepEvent::Computed { step, output }) => {
            let shown = super::conflict::shorten_value(output);
            format!("`{step}` gives {}", shown.map_or_else(|| "null".into(), |shown| shown.to_string()))
        }
        Event::Step(StepEvent::FanOutOpened { step, items, .. }) => format!("`{step}` has {} items", items.len()),
        Event::Step(StepEvent::FailReached { step, answer }) => format!("`{step}` ends the run with {}", answer.status),
        Event::Answer(AnswerEvent::Responded { answer, .. }) => {
            match super::conflict::shorten_value(&answer.body.value()) {
                Some(body) => format!("the answer is {} with {body}", answer.status),
                None => format!("the answer is {}", answer.status),
            }
        }
        Event::Answer(AnswerEvent::Failed { failure }) => format!("there is no answer: {}", failure.message),
        Event::Conflict(ConflictEvent::Paused { conflict, .. }) => format!("the run pauses: {}", conflict.message),
        Event::RetryScheduled(retry) => format!("`{}` is tried again: {}", retry.step, retry.why),
        Event::Checkpoint(CheckpointEvent::Opened(asked)) => {
            format!("people are asked about `{}` ({} risk): {}", asked.step, asked.risk.as_str(), asked.question)
        }
        Event::Wait(WaitEvent::Began { step, until, signal }) => match (signal, until) {
            (Some(signal), _) => format!("`{step}` waits for the signal `{signal}`"),
            (None, Some(until)) => format!("`{step}` waits until {until}"),
            (None, None) => format!("`{step}` waits"),
        },
        Event::Lock(LockEvent::Queued { step, name, .. }) => format!("`{step}` asks for the lock `{name}`"),
        Event::Child(ChildEvent::Started { step, workflow, input, .. }) => {
            let shown = super::conflict::shorten_value(input);
            format!("`{step}` runs `{workflow}` with {}", shown.map_or_else(|| "null".into(), |v| v.to_string()))
        }
        Event::Step(StepEvent::FallbackTaken { step, item, by, .. }) => match item {
            Some(item) => format!("`{by}` takes the place of item {item} of `{step}`"),
            None => format!("`{by}` takes the place of `{step}`"),
        },
        other => other.kind().replace('_', " "),
    }
}
