//! Any plan with fallbacks, probes, undos and schemas, with any replies, commands and choices: the run ends, and the
//! invariants hold.

use super::harness::{breaker_open, plan, take_output, timed_out};
use super::*;
use crate::workflow::{
    Choice, ConflictEvent, ConflictKind, ControlCommand, ControlEvent, StepEvent, StepPart, UndoStatus,
};

#[derive(Clone, Debug)]
struct Step {
    method: u8,
    keyed: bool,
    needs: Vec<usize>,
    attempts: u32,
    /// Bits: undo, probe, fallback, schema, on_failure, for_each, collect, deadline.
    has: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..3, any::<bool>(), proptest::collection::vec(0usize..6, 0..3), 1u32..3, any::<u8>())
        .prop_map(|(method, keyed, needs, attempts, has)| Step { method, keyed, needs, attempts, has });
    proptest::collection::vec(step, 1..6)
}

fn plan_of(steps: &[Step]) -> Plan {
    let mut all = serde_json::Map::new();
    for (index, step) in steps.iter().enumerate() {
        let has = |bit: u8| step.has & (1 << bit) != 0;
        let service = if step.keyed { "stock" } else { "bank" };
        let method = ["GET", "POST", "PUT"][usize::from(step.method)];
        let needs: BTreeSet<_> =
            step.needs.iter().filter(|_| index > 0).map(|need| format!("s{}", need % index.max(1))).collect();
        let mut declared = json!({
            "call": format!("{method} ${{services.{service}}}/x"),
            "needs": needs,
            "retry": { "attempts": step.attempts, "base": "1s", "max": "1s" },
        });
        if step.method > 0 && has(0) {
            declared["undo"] = json!(format!("DELETE ${{services.{service}}}/x/${{output.of}}"));
        }
        if step.method > 0 && has(1) {
            declared["probe"] =
                json!({ "call": "GET ${services.bank}/x", "done": "${output.total > 2}", "retry": { "attempts": 1 } });
        }
        if has(3) {
            declared["output"] = json!({ "schema": { "required": ["of"] } });
        }
        if has(4) {
            declared["on_failure"] = json!("pause");
        }
        if has(7) {
            declared["deadline"] = json!("3s");
        }
        if has(5) {
            declared["for_each"] = json!("${request.body.items}");
            declared["concurrency"] = json!(2);
            if has(6) && !has(4) {
                declared["failures"] = json!("collect");
            }
        }
        if has(2) {
            declared["fallback"] = json!(format!("f{index}"));
            let mut by =
                json!({ "call": "POST ${services.bank}/y", "fallback_only": true, "retry": { "attempts": 1 } });
            if has(5) {
                // Fallbacks of items, some with fallbacks of their own.
                by["body"] = json!({ "item": "${item}", "index": "${index}" });
                by["undo"] = json!("DELETE ${services.bank}/y/${item}");
                match step.attempts {
                    1 => by["if"] = json!("${index != 1}"),
                    _ => {
                        by["fallback"] = json!(format!("g{index}"));
                        all.insert(
                            format!("g{index}"),
                            json!({ "set": { "of": "${item}" }, "fallback_only": true, "if": "${item != 2}" }),
                        );
                    }
                }
            }
            all.insert(format!("f{index}"), by);
        }
        all.insert(format!("s{index}"), declared);
    }
    plan(&json!({ "workflow": "any", "steps": all, "respond": { "status": 200 } }).to_string())
}

fn result(reply: u8, step: &StepId) -> AttemptResult {
    match reply % 16 {
        0 => status(404),
        1 => status(409),
        2 => status(503),
        3 => status(429),
        4 | 5 => timed_out(),
        6 => breaker_open(500),
        7 => ok(json!({ "total": 1 })), // some schemas refuse this
        8 => AttemptResult::Unreadable { status: 200, why: "x".into(), body_start: "[[[".into() },
        _ => ok(json!({ "of": step.as_str(), "total": 3 })),
    }
}

/// Returns the offered choice that the script picks; late in a run always `cancel`, so that the run ends.
fn choice(offered: &[String], pick: u8, late: bool) -> Choice {
    let name = if late { "cancel" } else { &offered[usize::from(pick) % offered.len()] };
    match name {
        "retry" => Choice::Retry,
        "retry_with" => Choice::RetryWith { input: Arc::new(json!({ "n": pick })) },
        "skip" => Choice::Skip,
        "take" => take_output(json!({ "of": "hand", "total": 4 })),
        "fallback" => Choice::Fallback,
        "cancel" => Choice::Cancel { compensate: !late && pick.is_multiple_of(2) },
        _ => Choice::Cancel { compensate: false },
    }
}

fn drive<'a>(plan: &'a Plan, api: bool, replies: &[u8], picks: &[u8], cancel_at: Option<(usize, bool)>) -> Harness<'a> {
    let mut harness = if api { Harness::of_api(plan) } else { Harness::of_route(plan) };
    for round in 0..600 {
        harness.settle();
        assert!(harness.wakes(), "nothing will ever wake the run: {:#?}", harness.events);
        if harness.run.is_final() {
            return harness;
        }
        if let Some((_, compensate)) = cancel_at.filter(|(at, _)| *at == round) {
            let _ = harness.give_command(ControlCommand::Cancel { compensate, reason: None, automatic: false });
            continue;
        }
        let pick = picks[round % picks.len()];
        let in_flight = harness.run.in_flight();
        if in_flight.is_empty() {
            let Some(conflict) = harness.run.conflict().cloned() else {
                panic!("nothing is due: {:?}", harness.kinds())
            };
            let choice = choice(&conflict.choices, pick, round > 80);
            if let Err(refusal) = harness.choose(conflict.step.as_str(), conflict.item, choice.clone()) {
                // The only offered choice that is refused is to cancel a run that was cancelled before.
                assert!(matches!(choice, Choice::Cancel { .. }), "{choice:?} of {conflict:?}: {refusal}");
                harness.cancel(false).unwrap();
            }
            continue;
        }
        let call = in_flight[usize::from(pick) % in_flight.len()].clone();
        let reply = if round > 80 { 9 } else { replies[round % replies.len()] };
        harness.record_result(call.step.as_str(), call.item, call.part, result(reply, &call.step));
    }
    panic!("the run does not end: {:#?}", harness.events);
}

fn check_invariants(harness: &Harness<'_>) {
    let (mut ended, mut undos) = (BTreeSet::new(), BTreeSet::new());
    let mut unknown: BTreeSet<(StepId, Option<u32>)> = BTreeSet::new();
    let (mut cancelled, mut asked) = (false, BTreeSet::new());
    for event in &harness.events {
        match event {
            Event::StepStarted(started) => {
                let call = (started.step.clone(), started.item);
                match started.part {
                    StepPart::Do => {
                        let may = started.effect == EffectClass::Read || !cancelled || asked.remove(&call);
                        assert!(may, "`{}` began after the cancel", started.step);
                    }
                    StepPart::Undo if started.attempt == 1 => assert!(undos.insert(call), "undone twice"),
                    StepPart::Undo | StepPart::Probe => {}
                }
            }
            Event::StepFinished(finished) => {
                let call = (finished.step.clone(), finished.item, finished.part);
                assert!(ended.insert(call), "two outcomes of `{}`", finished.step);
            }
            Event::RetryScheduled(retry) if retry.part == StepPart::Do && retry.unknown => {
                unknown.insert((retry.step.clone(), retry.item));
            }
            Event::Conflict(ConflictEvent::Paused { conflict, .. })
                if conflict.kind == ConflictKind::OutcomeUnknown =>
            {
                unknown.insert((conflict.step.clone(), conflict.item));
            }
            Event::Step(StepEvent::Probed { step, item, done: Some(false), .. }) => {
                unknown.remove(&(step.clone(), *item));
            }
            // The call stays in `unknown`: whatever a person chose, it may have been done.
            Event::Conflict(ConflictEvent::Resolved { step, item, .. }) => drop(asked.insert((step.clone(), *item))),
            // A read has no effect, however it ended.
            Event::Step(StepEvent::FallbackTaken { step, item, .. }) => {
                let (_, of) = harness.plan.step(step).unwrap();
                let read = of.call(StepPart::Do).is_some_and(|call| call.effect == EffectClass::Read);
                assert!(read || !unknown.contains(&(step.clone(), *item)), "`{step}` may have been done");
            }
            Event::Control(ControlEvent::CancelRequested { .. }) => cancelled = true,
            _ => {}
        }
    }
    let undone = harness.run.undone();
    assert!(undone.iter().all(|(.., undone)| *undone != UndoStatus::NotYet), "{undone:?}");
    let may_be = |state: &UndoStatus| matches!(state, UndoStatus::Left(why) if why.starts_with("it is unknown"));
    let listed: BTreeSet<_> = undone.iter().map(|(step, item, state)| (step, item, may_be(state))).collect();
    assert_eq!(
        listed.len(),
        undone.len(),
        "each call is listed once, apart from its earlier attempts that may have been done"
    );
    let compensated = harness.run.status() == RunStatus::Failed;
    for (step, item, state) in &undone {
        let has_undo = harness.plan.step(step).is_some_and(|(_, step)| step.undo.is_some());
        assert!(
            !has_undo || !matches!(state, UndoStatus::Left(why) if why.contains("declares no")),
            "`{step}` was forgotten"
        );
        if compensated && has_undo && *state == UndoStatus::Undone {
            let by_hand = asked.contains(&((*step).clone(), *item));
            assert!(
                undos.contains(&((*step).clone(), *item)) || by_hand,
                "`{step}` counts as undone, but no undo was sent"
            );
        }
    }
    let text = serde_json::to_string(&harness.events).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), harness.events);
    snapshots::check_at_many_points(&harness.events);
    let view = view(harness.events.iter().map(|event| (Timestamp::UNIX_EPOCH, event))).unwrap();
    for step in &view.steps {
        assert!(step.items_ended <= step.items, "more items have ended than there are: {step:?}");
    }
    check_item_lists(harness, &view);
}

/// Checks that in a completed run each item has an entry in the lists, and that `by` names the fallback that ran.
fn check_item_lists(harness: &Harness<'_>, view: &crate::workflow::RunView) {
    if harness.run.status() != RunStatus::Completed {
        return;
    }
    for step in
        harness.plan.steps.iter().filter(|step| step.for_each.is_some() && step.failure_handling.fallback.is_some())
    {
        let Some(output) = harness.run.output_of(step.id.as_str()).and_then(Value::as_array) else { continue };
        let by = harness.run.outputs.whole()[step.id.as_str()]["by"].as_array().expect("a list");
        assert_eq!((by.len(), output.len()), (3, 3));
        let shown = view.steps.iter().find(|shown| shown.step == step.id).unwrap();
        assert_eq!((shown.items, shown.items_ended), (Some(3), Some(3)), "{shown:?}");
        for (item, by) in (0u32..).zip(by) {
            let taken = harness.events.iter().any(|event| {
                matches!(event, Event::Step(StepEvent::FallbackTaken { step: of, item: Some(which), .. })
                    if *of == step.id && *which == item)
            });
            assert!(taken || by.is_null(), "item {item} of `{}` was not replaced by {by}", step.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn any_run_ends_and_its_invariants_hold(
        steps in steps(), api in any::<bool>(), replies in proptest::collection::vec(any::<u8>(), 24),
        picks in proptest::collection::vec(any::<u8>(), 24),
        cancel in proptest::option::of((0usize..24, any::<bool>())),
    ) {
        let plan = plan_of(&steps);
        let harness = drive(&plan, api, &replies, &picks, cancel);
        check_invariants(&harness);
    }
}
