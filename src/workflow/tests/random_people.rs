//! Any plan with questions, risks, waits, locks and child runs, with any answers, signals, commands and times: the run
//! always names what it waits for, ends, and begins no call without its approval and its lock.

use super::harness::{plan, take_output, timed_out};
use super::locks::wait_link;
use super::people_harness::{no, review, yes, yes_with};
use super::*;
use crate::workflow::{
    CheckpointEvent, CheckpointKind, ChildEvent, Choice, ControlCommand, LockEvent, LockPosition, StepPart,
    TreeEffects, replay_with,
};

fn steps() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec((0u8..7, any::<u8>(), any::<u8>()), 1..6)
}

fn plan_of(steps: &[(u8, u8, u8)]) -> Plan {
    let mut all = serde_json::Map::new();
    for (index, (kind, has, needs)) in steps.iter().enumerate() {
        let bit = |bit: u8| has & (1 << bit) != 0;
        let needs: BTreeSet<String> =
            (0..index).filter(|need| needs & (1 << need) != 0).map(|need| format!("s{need}")).collect();
        let mut step = json!({ "needs": needs });
        if bit(7) && !needs.is_empty() {
            step["needs_any"] = json!(true);
        }
        let timeout = |step: &mut Value, at: &str| {
            if bit(0) {
                step[at]["timeout"] = json!("1m");
                step[at]["on_timeout"] = json!(["approve", "reject", "escalate"][usize::from(has % 3)]);
                if has % 3 == 2 {
                    step[at]["escalate"] = json!({ "who": ["eve"], "timeout": "1m", "on_timeout": "reject" });
                }
            }
        };
        match kind {
            0 => {
                step["checkpoint"] = json!({ "question": "sure" });
                timeout(&mut step, "checkpoint");
            }
            1 => step["wait"] = json!("1m"),
            2 => {
                step["wait"] = json!({ "signal": "go", "where": "${signal.n > 1}" });
                if bit(0) {
                    step["wait"]["timeout"] = json!("1m");
                    step["wait"]["on_timeout"] = json!(if bit(1) { "fail" } else { "continue" });
                }
            }
            3 => {
                step["run"] = json!("child");
                step["input"] = json!({ "n": 1 });
            }
            4 => step["set"] = json!(index),
            _ => {
                step["call"] = json!("POST ${services.stock}/x");
                step["body"] = json!({ "n": [1, 2, index] });
                step["retry"] = json!({ "attempts": 2, "base": "1s", "max": "1s" });
                step["undo"] = json!("DELETE ${services.stock}/x");
            }
        }
        if matches!(kind, 3 | 5 | 6) {
            if bit(2) {
                step["risk"] = json!(if bit(3) { "high" } else { "medium" });
                timeout(&mut step, "ask");
            }
            if bit(4) {
                step["for_each"] = json!("${request.body.items}");
                step["concurrency"] = json!(2);
            }
            if bit(5) {
                let busy = ["wait", "skip", "cancel", "ask"][usize::from(has % 4)];
                step["lock"] = json!({ "key": if bit(4) { "k${index}" } else { "k" }, "busy": busy });
            }
            if bit(6) {
                step["on_failure"] = json!("pause");
            }
        }
        if bit(1) && matches!(kind, 0 | 3 | 5 | 6) {
            step["on_reject"] = json!("skip");
        }
        if *kind == 6 && !bit(0) {
            // The step or its items get a fallback, which asks people, waits for a lock, or is a child run.
            step["fallback"] = json!(format!("f{index}"));
            let mut by = match bit(3) {
                true => {
                    let busy = ["wait", "skip", "cancel", "ask"][usize::from(has % 4)];
                    let lock = json!({ "key": "k", "busy": busy });
                    json!({ "call": "POST ${services.stock}/y", "retry": { "attempts": 1 }, "lock": lock })
                }
                false => json!({ "run": "child" }),
            };
            if bit(1) {
                by["on_reject"] = json!("skip");
            }
            by["fallback_only"] = json!(true);
            if bit(5) {
                by["risk"] = json!("medium");
            }
            if bit(4) && bit(7) {
                by["if"] = json!("${index != 1}");
            }
            all.insert(format!("f{index}"), by);
        }
        all.insert(format!("s{index}"), step);
    }
    plan(&json!({ "workflow": "any", "steps": all, "respond": { "status": 200 } }).to_string())
}

/// Performs one action of a person, a service or the clock; returns false if this was not possible.
fn act(harness: &mut Harness<'_>, pick: u8, late: bool) -> bool {
    let in_flight = harness.run.in_flight();
    let asked: Vec<_> = harness.run.open_checkpoints().cloned().collect();
    let steps: Vec<StepId> = harness.plan.steps.iter().map(|step| step.id.clone()).collect();
    let step = steps[usize::from(pick) % steps.len()].clone();
    let what = if late { pick % 6 } else { pick % 16 };
    match what {
        0 | 6 | 7 if !in_flight.is_empty() => {
            let call = in_flight[usize::from(pick / 16) % in_flight.len()].clone();
            let result = match pick / 16 {
                _ if late => ok(json!({ "n": 1 })),
                0 => status(404),
                1 => status(409),
                2 => status(503),
                3 => status(423),
                4 => timed_out(),
                5 | 6 => status(429),
                _ => ok(json!({ "n": 1 })),
            };
            let index = harness.plan.step(&call.step).unwrap().0;
            let (item, part, attempt) = (call.item, call.part, call.attempt);
            harness
                .command(Command::Record {
                    step: index,
                    item,
                    part,
                    attempt,
                    result,
                    may_be_repeat: false,
                    jitter: 0.5,
                })
                .is_ok()
        }
        1 | 8 if !asked.is_empty() => {
            let ask = &asked[usize::from(pick / 16) % asked.len()];
            let said = match (ask.kind, pick / 64) {
                (_, 0) => no(),
                (CheckpointKind::Question, _) => yes_with(json!({ "n": 1 })),
                (CheckpointKind::Approval, _) => yes(),
                (CheckpointKind::Review, half) => {
                    let all: Vec<u32> = ask.items.iter().map(|item| item.index).collect();
                    let at = if half == 1 { all.len() / 2 } else { all.len() };
                    review(&all[..at], &all[at..])
                }
            };
            let by = ask.who.first().cloned().unwrap_or_else(|| "ann".into());
            harness
                .give_command_by(&by, ControlCommand::Answer { checkpoint: ask.checkpoint.clone(), answer: said })
                .is_ok()
        }
        2 | 9 => {
            harness.advance_seconds(61);
            true
        }
        3 | 10 => {
            let locks: Vec<_> = harness
                .due()
                .into_iter()
                .filter_map(|action| match action {
                    Action::Lock { step, item, queued, .. } => Some((step, item, queued)),
                    _ => None,
                })
                .collect();
            let Some((step, item, queued)) = locks.get(usize::from(pick / 16) % locks.len().max(1)).copied() else {
                return false;
            };
            let holder = RunId(uuid::Uuid::from_u128(9));
            let seen = match pick / 32 {
                0 if !late => LockPosition::Behind { holder },
                1 if !late => LockPosition::Deadlock { links: vec![wait_link(holder, harness.run.id())] },
                _ => LockPosition::First,
            };
            harness.command(Command::LockSeen { step, item, queued, seen }).is_ok()
        }
        4 | 11 => {
            let children = harness.children();
            let Some(child) = children.get(usize::from(pick / 16) % children.len().max(1)).copied() else {
                return false;
            };
            let status = if pick < 64 && !late { RunStatus::Failed } else { RunStatus::Completed };
            let (output, note) = (Arc::new(json!(1)), None);
            let effects = |shared| TreeEffects { shared, ..TreeEffects::default() };
            let (tree, sensitive) =
                ([Some(effects(true)), Some(effects(false)), None][usize::from(pick % 3)].clone(), Vec::new());
            harness.command(Command::ChildEnded { child, status, output, note, failure: None, tree, sensitive }).is_ok()
        }
        5 => {
            let signal = ControlCommand::Signal {
                name: "go".into(),
                payload: Arc::new(json!({ "n": pick / 64 + 1 })),
                id: None,
            };
            let sent = harness.give_command_by("shop", signal).is_ok();
            let conflict = harness.run.conflict().cloned();
            let Some(conflict) = conflict else {
                return harness.give_command_by("ann", ControlCommand::Resume { reason: None }).is_ok() || sent;
            };
            let choices: Vec<&String> =
                conflict.choices.iter().filter(|name| late || !name.starts_with("cancel")).collect();
            let choice = match choices[usize::from(pick / 8) % choices.len()].as_str() {
                "retry" => Choice::Retry,
                "retry_with" => Choice::RetryWith { input: Arc::new(json!({ "n": [1] })) },
                "skip" => Choice::Skip,
                "take" => take_output(json!({ "n": 1 })),
                "wait" => Choice::Wait,
                _ => Choice::Cancel { compensate: false },
            };
            harness.resolve(&conflict, choice).is_ok()
        }
        12 => harness.give_command_by("ann", ControlCommand::Pause { reason: None }).is_ok(),
        13 => harness.give_command_by("ann", ControlCommand::Skip { step, reason: None }).is_ok(),
        14 => {
            let item = harness.run.open_step(&step).and_then(|open| open.items.as_ref()).map(|_| u32::from(pick) / 64);
            let input = Arc::new(json!({ "n": [pick] }));
            harness.give_command_by("ann", ControlCommand::Adjust { step, item, input, reason: None }).is_ok()
        }
        15 if pick == 255 => harness
            .give_command_by("ann", ControlCommand::Cancel { compensate: true, reason: None, automatic: false })
            .is_ok(),
        15 => harness.give_command_by("ann", ControlCommand::Retry { step: Some(step), attempt: None }).is_ok(),
        _ => false,
    }
}

impl Harness<'_> {
    fn resolve(&mut self, conflict: &crate::workflow::Conflict, choice: Choice) -> Result<usize, CommandRefusal> {
        let (step, item) = (conflict.step.clone(), conflict.item);
        self.give_command_by("ann", ControlCommand::Resolve { step, item, attempt: None, choice, reason: None })
    }
}

fn check_invariants(harness: &Harness<'_>) {
    let mut approved: BTreeMap<StepId, (BTreeSet<u32>, bool)> = BTreeMap::new();
    let mut asked = BTreeMap::new();
    let (mut held, mut queued) = (BTreeSet::new(), BTreeSet::new());
    for event in &harness.events {
        match event {
            Event::Checkpoint(CheckpointEvent::Opened(ask)) => {
                asked.insert(ask.checkpoint.clone(), ask.clone());
            }
            Event::Checkpoint(CheckpointEvent::Answered { checkpoint, answer: said, .. }) => {
                let ask = asked.remove(checkpoint).expect("answered once");
                if said.approve {
                    let struck =
                        if ask.item.is_some() { BTreeSet::new() } else { said.struck.iter().copied().collect() };
                    approved.insert(ask.step.clone(), (struck, true));
                }
            }
            Event::Lock(LockEvent::Queued { step, item, .. }) => assert!(queued.insert((step.clone(), *item))),
            Event::Lock(LockEvent::Taken { step, item, .. }) => assert!(held.insert((step.clone(), *item))),
            Event::Lock(LockEvent::Left { step, item, .. }) => {
                assert!(queued.remove(&(step.clone(), *item)), "a step leaves only a queue that it was in");
                held.remove(&(step.clone(), *item));
            }
            Event::StepStarted(started) if started.part == StepPart::Do => {
                check_begin(harness, &approved, &held, &started.step, started.item);
            }
            Event::Child(ChildEvent::Started { step, item, .. }) => check_begin(harness, &approved, &held, step, *item),
            _ => {}
        }
    }
    assert!(queued.is_empty() && held.is_empty(), "{queued:?} {held:?}");
}

fn check_begin(
    harness: &Harness<'_>,
    approved: &BTreeMap<StepId, (BTreeSet<u32>, bool)>,
    held: &BTreeSet<(StepId, Option<u32>)>,
    id: &StepId,
    item: Option<u32>,
) {
    let (_, step) = harness.plan.step(id).unwrap();
    if step.safeguards.risk.is_some() {
        let (struck, yes) = approved.get(id).unwrap_or_else(|| panic!("`{id}` began without a question"));
        assert!(
            *yes && item.is_none_or(|item| !struck.contains(&item)),
            "`{id}` {item:?} began although it was rejected or struck out"
        );
    }
    if step.safeguards.lock.is_some() {
        assert!(held.contains(&(id.clone(), item)), "`{id}` {item:?} began without its lock");
    }
}

fn check_script(steps: &[(u8, u8, u8)], script: &[u8]) {
    let plan = plan_of(steps);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    for round in 0..2_000 {
        if harness.run.is_final() {
            break;
        }
        let late = round > 60;
        let pick = script[round % script.len()].wrapping_add(u8::try_from(round / script.len() * 7 % 256).unwrap_or(0));
        act(&mut harness, pick, late);
        harness.perform_due();
    }
    assert!(harness.run.is_final(), "{:#?}\n{:?}", harness.reasons(), harness.kinds());
    check_invariants(&harness);
    let text = serde_json::to_string(&harness.events).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), harness.events.clone());
    snapshots::check_at_many_points(&harness.events);
    assert!(view(harness.events.iter().map(|event| (harness.now, event))).is_ok());
}

/// A child run that failed is begun again and waits behind another holder of the lock. With an earlier defect, the step
/// was queued, but nobody read the queue.
#[test]
fn a_step_that_is_retried_queues_for_its_lock_again() {
    let steps = [(0, 42, 0), (0, 0, 0), (3, 224, 180), (0, 0, 0), (0, 0, 66)];
    let script = [
        2, 52, 78, 221, 45, 115, 2, 20, 2, 86, 2, 34, 2, 47, 2, 2, 2, 2, 2, 2, 2, 9, 2, 2, 2, 2, 9, 2, 2, 2, 2, 2, 57,
        152, 0, 0, 0, 0, 0, 0,
    ];
    check_script(&steps, &script);
}

/// A call that is retried with another input needs an approval, and then the run is cancelled.
#[test]
fn a_run_that_is_cancelled_before_an_attempt_with_another_input_ends() {
    let script = [
        2, 126, 248, 1, 1, 8, 22, 56, 1, 16, 0, 0, 0, 0, 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 38, 0, 0, 0, 0, 0, 0,
        0, 38, 0, 0, 0, 0,
    ];
    check_script(&[(6, 156, 0)], &script);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_run_names_what_it_waits_for_and_needs_every_approval(
        steps in steps(), script in proptest::collection::vec(any::<u8>(), 40),
    ) {
        check_script(&steps, &script);
    }

    #[test]
    fn a_run_does_not_diverge_from_its_own_plan(
        steps in steps(), script in proptest::collection::vec(any::<u8>(), 60),
    ) {
        let plan = plan_of(&steps);
        let mut harness = Harness::of_api(&plan);
        let mut events: Vec<(Timestamp, Event)> = harness.events.iter().map(|event| (harness.now, event.clone())).collect();
        harness.perform_due();
        for pick in script {
            let now = harness.now;
            let more: Vec<_> = harness.events[events.len()..].iter().map(|event| (now, event.clone())).collect();
            events.extend(more);
            if harness.run.is_final() || pick % 16 == 2 || pick % 16 == 9 {
                continue;
            }
            act(&mut harness, pick, false);
            harness.perform_due();
        }
        let found = replay_with(&events, &plan, &harness.inputs).unwrap();
        prop_assert!(found.is_empty(), "{found:#?}");
    }
}
