//! Tests of runs with fake services: random plans, outcomes, orders of replies, and crashes.

mod address;
mod approvals;
mod approvals_above;
mod approvals_again;
mod approvals_of_changes;
mod bytes;
mod child_outcomes;
mod child_runs;
mod dark_conflicts;
mod edges;
mod effects;
mod failure;
mod harness;
mod header_values;
mod item_fallbacks;
mod locks;
mod missing;
mod no_repeats;
mod pending_answers;
mod people;
mod people_harness;
mod pinned_ids;
mod probing;
mod random_people;
mod random_plans;
mod rates;
mod recorded_inputs;
mod rehearsals;
mod repeats_while_ending;
mod rerun_decisions;
mod rerun_repeats;
mod risk;
mod saga;
mod skipped_fallbacks;
mod snapshots;
mod unkeyed;
mod unknown_undos;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::testing::PlanBuilder;
use super::{
    Action, AttemptResult, Command, CommandRefusal, Conditions, DecisionInputs, EffectClass, Event, FailureKind, Mode,
    Outcome, Plan, Run, RunStarted, RunStatus, StepKind, decide, due, evolve, fold, view,
};
use crate::names::{RunId, ServiceName, StepId};

fn inputs() -> DecisionInputs {
    let services = [("world", "http://world"), ("bank", ""), ("stock", "")];
    let services = services.map(|(name, base)| (ServiceName::from(name), base.to_owned()));
    DecisionInputs::new(services.iter().map(|(name, base)| (name, base.clone())), ["bank"], [7; 32], 100, 8)
}

fn started(plan: &Plan, mode: Mode, request: Value) -> RunStarted {
    RunStarted {
        run: RunId(uuid::Uuid::from_u128(1)),
        workflow: plan.workflow.clone(),
        plan: plan.id.clone(),
        mode,
        child_plans: None,
        route: Some("orders.create".into()),
        started: Timestamp::UNIX_EPOCH,
        request: Arc::new(request),
        credentials: Vec::new(),
        sealed: None,
        legacy: None,
        injected: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        route_above: None,
        approval_above: None,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: false,
        sensitive_paths: Vec::new(),
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by: None,
        until: None,
    }
}

/// A run together with its events.
struct Harness<'a> {
    plan: &'a Plan,
    inputs: DecisionInputs,
    run: Run,
    events: Vec<Event>,
    now: Timestamp,
    /// Every attempt that was sent: step, item, attempt, effect.
    sent: Vec<(StepId, Option<u32>, u32, EffectClass)>,
}

impl<'a> Harness<'a> {
    fn new(plan: &'a Plan, mode: Mode, request: Value) -> Self {
        Self::of_first_event(plan, Event::RunStarted(Arc::new(started(plan, mode, request))))
    }
    fn of_first_event(plan: &'a Plan, first: Event) -> Self {
        let run = Self::with_sensitive_values(plan, evolve(None, &first).unwrap(), std::slice::from_ref(&first));
        Self { plan, inputs: inputs(), run, events: vec![first], now: Timestamp::UNIX_EPOCH, sent: Vec::new() }
    }
    /// The run after it has collected the sensitive values in these events.
    fn with_sensitive_values(plan: &Plan, mut run: Run, events: &[Event]) -> Run {
        if !plan.sensitive_values().is_empty() {
            let same = Plan::from_stored(&plan.source, &BTreeMap::new(), &crate::limits::Limits::default()).unwrap();
            run.collect_sensitive(&Arc::new(same), events);
        }
        run
    }
    fn conditions(&self) -> Conditions {
        Conditions { now: self.now, hold_effects: false }
    }
    fn due(&self) -> Vec<Action> {
        due(&self.run, self.plan, &self.inputs, self.conditions())
    }
    fn command(&mut self, command: Command) -> Result<usize, CommandRefusal> {
        let events = decide(&self.run, self.plan, &self.inputs, command, self.now)?;
        let count = events.len();
        assert!(count > 0, "every accepted command has an event");
        for event in events {
            if let Event::StepStarted(started) = &event {
                self.sent.push((started.step.clone(), started.item, started.attempt, started.effect));
            }
            let written = serde_json::to_value(&event).unwrap();
            assert!(written.get(event.kind()).is_some(), "{written}");
            assert_eq!(serde_json::from_str::<Event>(&written.to_string()).unwrap(), event);
            self.run = evolve(Some(self.run.clone()), &event).unwrap();
            self.events.push(event);
            let folded = fold(&self.events).unwrap();
            assert_eq!(folded, self.run, "the fold of the events equals the live state");
            if !self.plan.sensitive_values().is_empty() {
                let read = Self::with_sensitive_values(self.plan, folded, &self.events).known_values();
                assert_eq!(read, self.run.known_values(), "a reader of the events finds the same sensitive values");
            }
            self.check_cancelled_although_unreadable();
            assert!(self.run.undo_counts_agree(), "{:?}", self.run.note());
        }
        Ok(count)
    }
    /// Checks that the run can be cancelled unread now, with the summary that folding its events gives.
    fn check_cancelled_although_unreadable(&self) {
        if self.run.is_final() {
            return;
        }
        let (row, end) =
            self.run.summary(self.now).cancelled_although_unreadable("it is too new", Some("no use"), "ann", self.now);
        let ended = evolve(Some(self.run.clone()), &end).unwrap();
        assert_eq!(ended.summary(row.updated), row);
        assert!(ended.in_flight().is_empty() && ended.children().next().is_none(), "nothing is under way");
    }
    /// Performs all actions that need no reply, and advances the clock where the run only waits; calls stay in flight.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let actions = self.due();
            let (mut moved, mut wake) = (false, None);
            for action in actions {
                match action {
                    Action::Decide(command) => moved |= self.command(command).is_ok(),
                    Action::Wait(at) => wake = Some(at),
                    Action::Held(_) | Action::Child { .. } | Action::CommandChild { .. } | Action::Lock { .. } => {}
                }
            }
            if moved {
                continue;
            }
            match wake {
                Some(at) if self.run.in_flight().is_empty() => self.now = at,
                _ => return,
            }
        }
        panic!("the run does not come to rest");
    }
    fn reply(&mut self, step: &str, item: Option<u32>, result: AttemptResult) -> Result<usize, CommandRefusal> {
        let attempt = self.run.attempt(&StepId::from(step), item, super::StepPart::Do).expect("under way").attempt;
        let index = self.plan.steps.iter().position(|known| known.id.as_str() == step).unwrap();
        self.command(Command::Record {
            step: super::StepIndex(index),
            item,
            part: super::StepPart::Do,
            attempt,
            result,
            may_be_repeat: false,
            jitter: 0.5,
        })
    }
    /// Whether the run has ended, or something will wake it: an action that is due, a time, a call, or a person.
    fn wakes(&self) -> bool {
        let goes_on = !self.run.in_flight().is_empty() || !self.due().is_empty();
        self.run.is_final() || self.run.conflict().is_some() || goes_on
    }
}

fn ok(output: Value) -> AttemptResult {
    AttemptResult::Reply { status: 200, headers: BTreeMap::new(), output: Arc::new(output), retry_after_ms: None }
}
fn status(status: u16) -> AttemptResult {
    AttemptResult::Reply { status, headers: BTreeMap::new(), output: Arc::new(Value::Null), retry_after_ms: None }
}

fn order_plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "POST /quotes", json!("${request.body.items}"))
        .effect(EffectClass::Read)
        .attempts(3)
        .call("reserve", &["price"], "POST /reservations", json!({"sku": "${item.sku}"}))
        .for_each("${request.body.items}", 2)
        .rehearse(json!({"id": "${item.sku}"}))
        .keyed()
        .attempts(2)
        .call("charge", &["price", "reserve"], "POST /charges", json!({"amount": "${steps.price.output.total}"}))
        .header("authorization", "Bearer ${secrets.bank}")
        .accept(402, 402)
        .call("mail", &["charge"], "POST /mails", json!({"total": "${steps.price.output.total}"}))
        .when("steps.charge.status == 200")
        .rehearse(json!({}))
        .fail("declined", &["charge"], 402, json!({"error": "card declined"}))
        .when("steps.charge.status == 402")
        .respond(201, json!({"id": "${run.id}", "ids": "${steps.reserve.output}"}))
        .build("order")
}

fn items(count: usize) -> Value {
    json!({"body": {"items": (0..count).map(|n| json!({"sku": format!("s{n}")})).collect::<Vec<_>>()}})
}

#[test]
fn the_order_workflow_completes_and_its_events_survive_json() {
    let plan = order_plan();
    let mut harness = Harness::new(&plan, Mode::Real, items(3));
    harness.settle();
    harness.reply("price", None, ok(json!({"total": 7}))).unwrap();
    harness.settle();
    assert_eq!(harness.run.in_flight().len(), 2, "as many items as may be under way at the same time");
    harness.reply("reserve", Some(1), ok(json!({"id": 11}))).unwrap();
    harness.settle();
    harness.reply("reserve", Some(2), ok(json!({"id": 12}))).unwrap();
    harness.reply("reserve", Some(0), ok(json!({"id": 10}))).unwrap();
    harness.settle();
    let charge = &harness.run.in_flight()[0];
    assert_eq!(charge.request.headers[0].1, "Bearer ***");
    assert_eq!(charge.request.body, super::Payload::Text(r#"{"amount":7}"#.into()));
    assert_eq!(charge.request.url, "http://world/charges");
    harness.reply("charge", None, ok(json!({}))).unwrap();
    harness.settle();
    harness.reply("mail", None, ok(json!({}))).unwrap();
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let body = harness.run.answer().unwrap().body.value();
    assert_eq!(body["ids"], json!([{"id": 10}, {"id": 11}, {"id": 12}]));

    let text = serde_json::to_string(&harness.events).unwrap();
    let read: Vec<Event> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, harness.events);
    assert!(!text.contains("secrets"));
    let view = view(read.iter().map(|event| (Timestamp::UNIX_EPOCH, event))).unwrap();
    assert_eq!(
        view.steps.iter().map(|step| step.step.as_str()).collect::<Vec<_>>(),
        ["price", "reserve", "charge", "mail", "declined"]
    );
}

#[test]
fn a_declined_card_ends_with_the_declared_answer() {
    let plan = order_plan();
    let mut harness = Harness::new(&plan, Mode::Real, items(0));
    harness.settle();
    harness.reply("price", None, ok(json!({"total": 7}))).unwrap();
    harness.settle();
    harness.reply("charge", None, status(402)).unwrap();
    harness.settle();
    assert_eq!(harness.run.answer().unwrap().status, 402);
    assert_eq!(harness.run.status(), RunStatus::Completed);
    assert!(harness.run.failed_as_declared());
}

#[test]
fn an_unknown_attempt_is_repeated_where_that_is_harmless_else_the_run_pauses() {
    let plan = order_plan();
    let mut harness = Harness::new(&plan, Mode::Real, items(1));
    harness.settle();
    harness.reply("price", None, status(500)).unwrap();
    harness.settle();
    harness.reply("price", None, ok(json!({"total": 7}))).unwrap();
    harness.settle();
    let first = harness.run.attempt(&"reserve".into(), Some(0), super::StepPart::Do).unwrap();
    harness.reply("reserve", Some(0), AttemptResult::CutOff("x".into())).unwrap();
    harness.settle();
    let second = harness.run.attempt(&"reserve".into(), Some(0), super::StepPart::Do).unwrap();
    assert_eq!((second.attempt, &second.key, &second.request), (2, &first.key, &first.request));
    assert!(second.key.is_some());
    harness.reply("reserve", Some(0), ok(json!({}))).unwrap();
    harness.settle();
    harness.reply("charge", None, AttemptResult::TimedOut("x".into())).unwrap();
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Paused);
    assert_eq!(harness.command(Command::Abandon { reason: "x" }), Err(CommandRefusal::EffectsBegun));
}

#[test]
fn results_of_attempts_are_classified() {
    let try_once = |result: AttemptResult| {
        let plan = PlanBuilder::new().call("a", &[], "POST /a", json!({})).respond(200, json!({})).build("w");
        let mut harness = Harness::new(&plan, Mode::Real, json!({}));
        harness.settle();
        harness.reply("a", None, result).unwrap();
        harness.settle();
        (harness.run.status(), harness.run.failure().map(|failure| failure.kind))
    };
    assert_eq!(try_once(status(429)), (RunStatus::Failed, Some(FailureKind::Unavailable)));
    assert_eq!(try_once(status(503)), (RunStatus::Paused, None), "a proxy may send 503 after the request was sent");
    assert_eq!(try_once(AttemptResult::NotSent("x".into())), (RunStatus::Failed, Some(FailureKind::Unavailable)));
    assert_eq!(try_once(status(404)), (RunStatus::Failed, Some(FailureKind::Refused)));
    assert_eq!(try_once(status(500)), (RunStatus::Paused, None));
    assert_eq!(try_once(AttemptResult::Interrupted), (RunStatus::Paused, None));
    let large = AttemptResult::Unreadable { status: 200, why: "x".into(), body_start: "[[[".into() };
    assert_eq!(try_once(large), (RunStatus::Failed, Some(FailureKind::Bound)));
}

#[test]
fn a_skipped_step_skips_its_dependents_except_those_with_needs_any() {
    let plan = PlanBuilder::new()
        .set("a", &[], json!(1))
        .when("false")
        .set("b", &["a"], json!(1))
        .set("c", &[], json!(2))
        .set("d", &["a", "c"], json!("${steps.a.skipped ? steps.c.output : 0}"))
        .needs_any()
        .respond(200, json!({"d": "${steps.d.output}", "b": "${steps.b.skipped}"}))
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"d": 2, "b": true}));
}

#[test]
fn the_answer_may_come_before_the_end_and_by_condition() {
    let plan = PlanBuilder::new()
        .set("a", &[], json!(1))
        .call("b", &["a"], "GET /b", Value::Null)
        .respond(500, json!({}))
        .respond_when("steps.nothing.output")
        .respond(202, json!({"a": "${steps.a.output}"}))
        .respond_after(&["a"])
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Real, json!({}));
    harness.settle();
    assert_eq!(harness.run.answer().unwrap().status, 202);
    assert_eq!(harness.run.status(), RunStatus::Running);
    harness.reply("b", None, ok(json!({}))).unwrap();
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed);
}

#[test]
fn while_effects_are_frozen_a_due_step_is_reported_as_held() {
    let plan = order_plan();
    let mut harness = Harness::new(&plan, Mode::Real, items(1));
    harness.settle();
    harness.reply("price", None, ok(json!({"total": 7}))).unwrap();
    let command = Command::Advance { step: super::StepIndex(1) };
    harness.command(command).unwrap();
    let conditions = Conditions { now: harness.now, hold_effects: true };
    assert_eq!(due(&harness.run, &plan, &harness.inputs, conditions), [Action::Held(super::StepIndex(1))]);
}

/// What a fake service does with an attempt.
#[derive(Clone, Copy, Debug)]
enum ServiceReply {
    Ok,
    Refused,
    NotDone,
    Unknown,
    NotSent,
    Declined,
}

impl ServiceReply {
    fn result(self, step: &StepId, item: Option<u32>) -> AttemptResult {
        match self {
            ServiceReply::Ok => ok(json!({"of": step.as_str(), "item": item, "total": 3, "list": [1, 2, 3]})),
            ServiceReply::Refused => status(404),
            ServiceReply::NotDone => status(429),
            ServiceReply::Unknown => AttemptResult::TimedOut("x".into()),
            ServiceReply::NotSent => AttemptResult::NotSent("x".into()),
            ServiceReply::Declined => status(402),
        }
    }
}

fn replies() -> impl Strategy<Value = Vec<ServiceReply>> {
    let reply = prop_oneof![
        8 => Just(ServiceReply::Ok), 1 => Just(ServiceReply::Refused), 2 => Just(ServiceReply::NotDone),
        2 => Just(ServiceReply::Unknown), 1 => Just(ServiceReply::NotSent), 1 => Just(ServiceReply::Declined),
    ];
    proptest::collection::vec(reply, 40)
}

#[derive(Clone, Debug)]
struct StepShape {
    kind: u8,
    effect: u8,
    keyed: bool,
    attempts: u32,
    needs: Vec<usize>,
    needs_any: bool,
    condition: u8,
    fan_out: u8,
    rehearse: bool,
}

fn shapes() -> impl Strategy<Value = Vec<StepShape>> {
    let shape = (
        0u8..8,
        0u8..3,
        any::<bool>(),
        1u32..4,
        proptest::collection::vec(0usize..8, 0..3),
        any::<bool>(),
        0u8..6,
        0u8..4,
        any::<bool>(),
    );
    let shape = shape.prop_map(|(kind, effect, keyed, attempts, needs, needs_any, condition, fan_out, rehearse)| {
        StepShape { kind, effect, keyed, attempts, needs, needs_any, condition, fan_out, rehearse }
    });
    proptest::collection::vec(shape, 1..7)
}

fn plan_of(shapes: &[StepShape], early: bool) -> Arc<Plan> {
    let mut plan = PlanBuilder::new();
    for (index, shape) in shapes.iter().enumerate() {
        let id = format!("s{index}");
        let names: BTreeSet<String> =
            shape.needs.iter().filter(|_| index > 0).map(|need| format!("s{}", need % index.max(1))).collect();
        let needs: Vec<&str> = names.iter().map(String::as_str).collect();
        plan = match shape.kind {
            0 => plan.set(&id, &needs, json!({"n": index})),
            1 if shape.condition == 1 => plan.fail(&id, &needs, 409, json!({"at": index})),
            _ => {
                let effect = [EffectClass::Read, EffectClass::Private, EffectClass::Shared][usize::from(shape.effect)];
                // Some steps read what they need, so a rehearsal may end as unresolved.
                let body = match needs.first() {
                    Some(need) if shape.condition == 2 => json!({"v": format!("${{steps.{need}.output}}")}),
                    _ => json!({"v": index}),
                };
                let plan = plan.call(&id, &needs, "POST /x", body).effect(effect).attempts(shape.attempts);
                let plan = if shape.keyed { plan.keyed() } else { plan };
                let plan = if shape.rehearse { plan.rehearse(json!({"of": id, "total": 3})) } else { plan };
                if shape.fan_out == 1 { plan.for_each("${request.body.items}", 2) } else { plan }
            }
        };
        if shape.condition == 3 {
            plan = plan.when("request.body.flag");
        }
        if shape.needs_any {
            plan = plan.needs_any();
        }
    }
    let plan = plan.respond(200, json!({"ok": true}));
    let plan = if early { plan.respond_after(&["s0"]) } else { plan };
    plan.build("any")
}

/// Drives a run until it ends or pauses. `order` picks which call is answered next, `replies` with what; after
/// `crash_at` events the run is folded again, and what was in flight is sent again or recorded as interrupted.
fn drive(
    plan: &Plan,
    mode: Mode,
    replies: &[ServiceReply],
    order: &[u8],
    crash_at: Option<usize>,
    flag: bool,
) -> (Run, Vec<Event>, usize) {
    let request = json!({"body": {"items": [1, 2, 3], "flag": flag}});
    let mut harness = Harness::new(plan, mode, request);
    let mut crashed = crash_at.is_none();
    let mut answers = 0;
    for round in 0..2_000 {
        harness.settle();
        assert!(harness.wakes(), "nothing will ever wake the run: {:?}", harness.events);
        if !crashed && harness.events.len() >= crash_at.unwrap_or(0) {
            crashed = true;
            harness.run = fold(&harness.events).unwrap();
            for attempt in harness.run.in_flight().into_iter().filter(|attempt| !attempt.repeatable) {
                harness.reply(attempt.step.as_str(), attempt.item, AttemptResult::Interrupted).unwrap();
            }
            continue;
        }
        let in_flight = harness.run.in_flight();
        if in_flight.is_empty() {
            break;
        }
        let pick = &in_flight[usize::from(order[round % order.len()]) % in_flight.len()];
        // The result depends only on the call, so that it is the same in every order of replies.
        let index = plan.steps.iter().position(|step| step.id == pick.step).unwrap();
        let seed = index * 7 + pick.item.unwrap_or(0) as usize * 3 + pick.attempt as usize;
        harness
            .reply(pick.step.as_str(), pick.item, replies[seed % replies.len()].result(&pick.step, pick.item))
            .unwrap();
        answers += 1;
    }
    for (step, _, _, effect) in &harness.sent {
        assert!(mode.sends(*effect), "`{step}` was sent in {mode:?}");
    }
    let mut seen = BTreeSet::new();
    for event in &harness.events {
        if let Event::StepFinished(finished) = event {
            assert!(seen.insert((finished.step.clone(), finished.item)), "two outcomes of `{}`", finished.step);
        }
    }
    (harness.run, harness.events, answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_run_ends_or_waits_and_folding_its_events_gives_it(
        shapes in shapes(), replies in replies(), order in proptest::collection::vec(any::<u8>(), 16),
        mode in prop_oneof![Just(Mode::Rehearse), Just(Mode::Dark), Just(Mode::Real)],
        early in any::<bool>(), flag in any::<bool>(),
    ) {
        let plan = plan_of(&shapes, early);
        let (run, events, _) = drive(&plan, mode, &replies, &order, None, flag);
        prop_assert!(run.is_final() || run.conflict().is_some());
        if mode == Mode::Rehearse {
            prop_assert!(!run.effects_begun());
        }
        if mode == Mode::Dark {
            prop_assert!(!run.shared_begun());
        }
        // Decisions after a replay are the same as before it, at every prefix.
        let mut live = None;
        for end in 0..events.len() {
            live = Some(evolve(live, &events[end]).unwrap());
            let replayed = fold(&events[..=end]).unwrap();
            let conditions = Conditions { now: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(5), hold_effects: false };
            let inputs = inputs();
            let live = live.as_ref().unwrap();
            prop_assert_eq!(due(live, &plan, &inputs, conditions), due(&replayed, &plan, &inputs, conditions));
        }
        // An open run may fall back as long as no effect has begun and nothing was answered or decided against it.
        for end in 0..events.len() {
            let prefix = fold(&events[..=end]).unwrap();
            let abandoned = decide(&prefix, &plan, &inputs(), Command::Abandon { reason: "x" }, Timestamp::UNIX_EPOCH);
            let may = !prefix.is_final()
                && !prefix.effects_begun()
                && prefix.answer().is_none()
                && prefix.pending().is_none()
                && !prefix.is_decided_against();
            prop_assert_eq!(abandoned.is_ok(), may);
        }
    }

    #[test]
    fn a_crash_anywhere_changes_nothing_but_what_is_unknown(
        shapes in shapes(), order in proptest::collection::vec(any::<u8>(), 16), crash in 1usize..40,
        early in any::<bool>(), flag in any::<bool>(),
    ) {
        // If every call succeeds, a crash costs at most repeats; where a repeat could harm, the run pauses.
        let replies = [ServiceReply::Ok];
        let plan = plan_of(&shapes, early);
        let (whole, events, _) = drive(&plan, Mode::Real, &replies, &order, None, flag);
        let (cut, _, _) = drive(&plan, Mode::Real, &replies, &order, Some(crash.min(events.len())), flag);
        let harmless = plan.steps.iter().all(|step| match &step.kind {
            StepKind::Call(call) => call.repeat_is_harmless(),
            _ => true,
        });
        // An early answer and a step that fails the run race each other: after a crash the other one may win.
        let races = early && plan.steps.iter().any(|step| matches!(step.kind, StepKind::Fail(_)));
        if !races && (harmless || cut.conflict().is_none()) {
            prop_assert_eq!(cut.status(), whole.status());
            prop_assert_eq!(cut.answer(), whole.answer());
        }
    }

    #[test]
    fn events_survive_json(
        shapes in shapes(), replies in replies(), order in proptest::collection::vec(any::<u8>(), 16),
    ) {
        let plan = plan_of(&shapes, false);
        let (_, events, _) = drive(&plan, Mode::Real, &replies, &order, None, true);
        let text = serde_json::to_string(&events).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), events.clone());
        prop_assert!(view(events.iter().map(|event| (Timestamp::UNIX_EPOCH, event))).is_ok());
    }
}
