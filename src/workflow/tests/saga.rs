//! Undoing: the order, that each step is undone once, and conflicts over steps that cannot be undone.

use super::harness::{plan, take_output, timed_out};
use super::*;
use crate::workflow::{Choice, ConflictKind, StepPart, UndoStatus};

const TRIP: &str = "
workflow: w
steps:
  reserve:
    for_each: ${request.body.items}
    concurrency: 1
    call: POST ${services.stock}/reservations
    undo: { call: 'DELETE ${services.stock}/reservations/${output.id}?item=${item}', retry: { attempts: 2, base: 1ms, max: 1ms } }
  mail: { call: 'POST ${services.bank}/mails', needs: [reserve] }
  hotel: { call: 'POST ${services.bank}/hotels', needs: [mail], undo: { call: 'POST ${services.bank}/hotels/${output.id}/cancel', body: '${request.body.items}' } }
  flight: { call: 'POST ${services.bank}/flights', needs: [mail], undo: 'DELETE ${services.bank}/flights/${output.id}' }
  last: { needs: [hotel, flight], call: 'POST ${services.bank}/last' }
respond: { status: 200 }
";

/// Completes all steps but the last one.
fn until_last(harness: &mut Harness<'_>) {
    harness.settle();
    for item in 0..3 {
        harness.item("reserve", item, ok(json!({"id": item + 10})));
    }
    harness.call("mail", ok(json!({})));
    harness.call("hotel", ok(json!({"id": 7})));
    harness.call("flight", ok(json!({"id": 8})));
}

#[test]
fn steps_are_undone_in_reverse_order_and_concurrently_where_they_overlapped() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_route(&plan);
    until_last(&mut harness);
    harness.call("last", status(404));
    assert_eq!(harness.run.status(), RunStatus::Compensating);
    assert_eq!(harness.in_flight_names(), ["undo flight", "undo hotel"]);
    let hotel = harness.run.attempt(&"hotel".into(), None, StepPart::Undo).unwrap();
    assert_eq!(hotel.request.url, "/hotels/7/cancel");
    harness.undo("flight", status(404)); // a DELETE that finds nothing counts as undone
    assert_eq!(harness.in_flight_names(), ["undo hotel"]);
    harness.undo("hotel", ok(json!({})));
    let keys: BTreeSet<_> = (0..3u32)
        .rev()
        .map(|item| {
            let undo = harness.run.attempt(&"reserve".into(), Some(item), StepPart::Undo).unwrap();
            assert_eq!(undo.request.url, format!("/reservations/{}?item={}", item + 10, item + 1));
            harness.record_result("reserve", Some(item), StepPart::Undo, timed_out());
            let again = harness.run.attempt(&"reserve".into(), Some(item), StepPart::Undo).unwrap();
            assert_eq!((again.attempt, &again.key), (2, &undo.key), "a DELETE is repeated, under its own key");
            harness.record_result("reserve", Some(item), StepPart::Undo, ok(json!({})));
            undo.key.unwrap()
        })
        .collect();
    assert_eq!((harness.run.status(), keys.len()), (RunStatus::Failed, 3));
    let note = harness.run.note().unwrap();
    assert!(note.ends_with("undone: `flight`, `hotel`, `reserve` (3 items); not undone: `mail`"), "{note}");
}

/// The card was declined: there is nothing to undo.
#[test]
fn a_failed_undo_waits_for_a_person() {
    let plan = plan(TRIP);
    let failing = || {
        let mut harness = Harness::of_route(&plan);
        until_last(&mut harness);
        harness.call("last", status(404));
        harness.undo("flight", ok(json!({})));
        harness.undo("hotel", status(400));
        let conflict = harness.run.conflict().unwrap();
        assert_eq!((conflict.kind, conflict.part), (ConflictKind::UndoFailed, StepPart::Undo));
        assert!(conflict.message.starts_with("what `hotel` did could not be undone: "), "{}", conflict.message);
        assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel_without_undo"]);
        harness
    };
    let end = |harness: &mut Harness<'_>| {
        for item in (0..3).rev() {
            harness.record_result("reserve", Some(item), StepPart::Undo, ok(json!({})));
        }
        let hotel: StepId = "hotel".into();
        harness.run.undone().into_iter().find(|(step, ..)| **step == hotel).map(|(.., undone)| undone)
    };
    let mut again = failing();
    again.choose("hotel", None, Choice::Retry).unwrap();
    again.undo("hotel", ok(json!({})));
    assert_eq!(end(&mut again), Some(UndoStatus::Undone));
    let mut by_hand = failing();
    by_hand.choose("hotel", None, take_output(json!(null))).unwrap();
    assert_eq!(end(&mut by_hand), Some(UndoStatus::Undone));
    let mut left = failing();
    left.choose("hotel", None, Choice::Skip).unwrap();
    assert_eq!(end(&mut left), Some(UndoStatus::Left("ann left it as it is".into())));
    for by_choice in [false, true] {
        let mut called_off = failing();
        let mut cancel = |compensate| match by_choice {
            true => called_off.choose("hotel", None, Choice::Cancel { compensate }),
            false => called_off.cancel(compensate),
        };
        assert!(cancel(true).is_err(), "undoing has begun already");
        cancel(false).unwrap();
        assert_eq!(called_off.run.status(), RunStatus::Cancelled);
        assert!(called_off.run.note().unwrap().contains("not undone: `hotel`"), "{:?}", called_off.run.note());
    }
}

/// A POST is not repeated automatically, and a later refusal does not tell whether an earlier attempt undid the step.
#[test]
fn an_undo_with_unknown_outcome_is_not_shown_as_a_refusal() {
    let plan = plan(TRIP);
    for result in [timed_out(), status(500), AttemptResult::CutOff("x".into()), AttemptResult::Interrupted] {
        let mut harness = Harness::of_route(&plan);
        until_last(&mut harness);
        harness.call("last", status(404));
        harness.undo("flight", ok(json!({})));
        harness.undo("hotel", result);
        let assert_unknown = |harness: &Harness<'_>| {
            let conflict = harness.run.conflict().unwrap();
            assert_eq!((conflict.kind, conflict.part), (ConflictKind::UndoUnknown, StepPart::Undo));
            assert!(
                conflict.message.starts_with("it is unknown whether what `hotel` did was undone: "),
                "{conflict:?}"
            );
            assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel_without_undo"]);
            assert!(harness.run.note().unwrap().contains("it is unknown whether what `hotel` did was undone"));
        };
        assert_unknown(&harness);
        for refusal in [status(400), status(429)] {
            harness.choose("hotel", None, Choice::Retry).unwrap();
            harness.undo("hotel", refusal);
            assert_unknown(&harness);
        }
        harness.choose("hotel", None, Choice::Skip).unwrap();
        let undone = harness.run.undone();
        let left = undone.iter().find(|(step, ..)| step.as_str() == "hotel").map(|(.., undone)| undone);
        assert_eq!(left, Some(&UndoStatus::Left("whether it was undone is unknown: ann left it as it is".into())));
    }
}

#[test]
fn a_cancelled_run_ends_what_is_under_way_and_undoes_it_or_not() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("reserve", 0, ok(json!({"id": 1})));
    harness.cancel(true).unwrap();
    assert_eq!(harness.in_flight_names(), ["reserve[1]"], "a call under way ends before undoing");
    assert!(harness.cancel(true).is_err());
    harness.item("reserve", 1, ok(json!({"id": 2})));
    assert_eq!(harness.in_flight_names(), ["undo reserve[1]"]);
    harness.record_result("reserve", Some(1), StepPart::Undo, ok(json!({})));
    harness.record_result("reserve", Some(0), StepPart::Undo, ok(json!({})));
    assert_eq!(harness.run.status(), RunStatus::Cancelled);
    assert!(harness.run.note().unwrap().starts_with("ann cancelled it: why not"));

    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("reserve", 0, ok(json!({"id": 1})));
    harness.cancel(false).unwrap();
    harness.item("reserve", 1, timed_out());
    assert_eq!(harness.run.status(), RunStatus::Cancelled, "the unknown call is only listed: {:?}", harness.kinds());
    assert_eq!(harness.run.undone().len(), 2);
}

#[test]
fn a_conflict_in_a_run_that_was_cancelled_offers_no_second_cancel_with_undo() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.item("reserve", 0, ok(json!({"id": 1})));
    harness.cancel(true).unwrap();
    harness.item("reserve", 1, timed_out());
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::OutcomeUnknown);
    assert_eq!(conflict.choices, ["retry", "skip", "take", "cancel_without_undo"]);
    let Err(CommandRefusal::NotApplicable(why)) =
        harness.choose("reserve", Some(1), Choice::Cancel { compensate: true })
    else {
        panic!("a second cancel with undo is accepted");
    };
    assert!(why.ends_with("cancelled already; choose one of retry, skip, take, cancel_without_undo"), "{why}");
    harness.choose("reserve", Some(1), Choice::Cancel { compensate: false }).unwrap();
    assert_eq!(harness.run.status(), RunStatus::Cancelled);
}

#[test]
fn an_unknown_effect_is_a_conflict_before_anything_is_undone() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_route(&plan);
    until_last(&mut harness);
    harness.call("last", timed_out());
    assert_eq!(harness.run.status(), RunStatus::Paused);
    harness.choose("last", None, Choice::Cancel { compensate: true }).unwrap();
    assert_eq!(
        harness.in_flight_names(),
        ["undo flight", "undo hotel"],
        "the person who cancels has seen the conflict, so it does not stop undoing"
    );

    let mut harness = Harness::of_route(&plan);
    harness.settle();
    for item in 0..3 {
        harness.item("reserve", item, ok(json!({"id": item})));
    }
    harness.call("mail", ok(json!({})));
    harness.call("hotel", status(404));
    harness.call("flight", timed_out());
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(
        (conflict.kind, conflict.choices.contains(&"retry_with".to_owned())),
        (ConflictKind::OutcomeUnknown, false)
    );
    harness.choose("flight", None, Choice::Retry).unwrap();
    assert_eq!(harness.in_flight_names(), ["flight"], "the repeat finds out the outcome, although the run fails");
    harness.call("flight", ok(json!({"id": 4})));
    assert_eq!(harness.in_flight_names(), ["undo flight"]);
}

#[test]
fn the_answer_is_given_before_undoing_and_a_fail_step_undoes_too() {
    let plan =
        plan(&TRIP.replace("call: 'POST ${services.bank}/last'", "fail: { status: 402, body: { error: declined } }"));
    let mut harness = Harness::of_route(&plan);
    until_last(&mut harness);
    assert_eq!((harness.run.status(), harness.run.answer().unwrap().status), (RunStatus::Compensating, 402));
    while let Some(undo) = harness.run.in_flight().first().cloned() {
        harness.record_result(undo.step.as_str(), undo.item, undo.part, ok(json!({})));
    }
    assert_eq!(harness.run.status(), RunStatus::Completed, "an end by a `fail` step is no failure");
    assert!(harness.run.note().is_some_and(|note| note.contains("undone: ")), "{:?}", harness.run.note());
}

#[test]
fn a_rehearsal_records_what_it_would_have_undone() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/a', rehearse: { id: 1 }, undo: 'DELETE ${services.bank}/a/${output.id}' }
  b: { needs: [a], call: 'POST ${services.bank}/b', undo: 'DELETE ${services.bank}/b/${output.id}' }
  c: { needs: [b], fail: { status: 402 } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::new(&plan, Mode::Rehearse, json!({}));
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed, "as its workflow declares");
    let intents: Vec<_> =
        harness.run.intents().map(|(step, _, part, record)| (step.as_str(), part, record.url.as_str())).collect();
    assert_eq!(intents, [("a", StepPart::Do, "/a"), ("a", StepPart::Undo, "/a/1"), ("b", StepPart::Do, "/b")]);
    assert!(harness.sent.is_empty());
}

#[test]
fn a_fan_out_of_thousands_costs_the_same_for_each_item() {
    let plan = plan(
        "{ workflow: w, steps: { each: { for_each: '${request.body.items}', call: 'POST ${services.stock}/x', undo: 'DELETE ${services.stock}/x/${index}' } }, respond: { status: 200 } }",
    );
    let drive = |count: usize| {
        let items: Vec<usize> = (0..count).collect();
        let first = started(&plan, Mode::Real, json!({"body": {"items": items}}));
        let inputs = DecisionInputs { items_max: 100_000, ..inputs() };
        let mut events = vec![Event::RunStarted(Arc::new(first))];
        let mut run = evolve(None, &events[0]).unwrap();
        let began = std::time::Instant::now();
        let conditions = Conditions { now: Timestamp::UNIX_EPOCH, hold_effects: false };
        while !run.is_final() {
            let mut commands: Vec<Command> = due(&run, &plan, &inputs, conditions)
                .into_iter()
                .filter_map(|action| if let Action::Decide(command) = action { Some(command) } else { None })
                .collect();
            if commands.is_empty() {
                let call = run.in_flight().remove(0);
                commands.push(Command::Record {
                    step: super::super::StepIndex(0),
                    item: call.item,
                    part: StepPart::Do,
                    attempt: 1,
                    result: if call.item == Some(u32::try_from(count - 1).unwrap()) {
                        status(404)
                    } else {
                        ok(json!({}))
                    },
                    may_be_repeat: false,
                    jitter: 0.5,
                });
                if call.part == StepPart::Undo {
                    break;
                }
            }
            for command in commands {
                for event in decide(&run, &plan, &inputs, command, conditions.now).unwrap_or_default() {
                    run.evolve_in_place(&event).unwrap();
                    events.push(event);
                }
            }
        }
        let live = began.elapsed();
        let stored: Vec<String> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let began = std::time::Instant::now();
        let read: Vec<Event> = stored.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let folded = fold(&read).unwrap();
        println!("{count} items: {} events, driven in {live:?}, read and folded in {:?}", read.len(), began.elapsed());
        assert_eq!(folded, run);
        assert_eq!(run.status(), RunStatus::Compensating);
        live
    };
    let (small, large) = (drive(1_000), drive(8_000));
    assert!(large < small * 40, "{small:?} for 1,000 items and {large:?} for 8,000");
}

/// Returns how many calls are visited while a fan-out of `count` items, all begun at once, is done, and then undone
/// because the step after it fails.
fn work_to_undo(count: usize, undo: &str) -> usize {
    let plan = plan(&format!(
        "{{ workflow: w, steps: {{ each: {{ for_each: '${{request.body.items}}', concurrency: {count}, \
         call: 'POST ${{services.stock}}/x' {undo} }}, last: {{ needs: [each], call: 'POST ${{services.bank}}/last', \
         undo: 'POST ${{services.bank}}/never' }} }}, respond: {{ status: 200 }} }}"
    ));
    let items: Vec<usize> = (0..count).collect();
    let first = started(&plan, Mode::Real, json!({"body": {"items": items}}));
    let inputs = DecisionInputs { items_max: 100_000, run_calls_max: count, ..inputs() };
    let mut run = evolve(None, &Event::RunStarted(Arc::new(first))).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let apply = |run: &mut Run, command: Command, run_calls_max: usize| {
        let inputs = DecisionInputs { run_calls_max, ..inputs.clone() };
        for event in decide(run, &plan, &inputs, command, now).unwrap() {
            run.evolve_in_place(&event).unwrap();
            // The engine computes the summary for every append.
            run.summary(now);
        }
    };
    let due_now = |run: &Run, run_calls_max: usize| -> Vec<Command> {
        let inputs = DecisionInputs { run_calls_max, ..inputs.clone() };
        let actions = due(run, &plan, &inputs, Conditions { now, hold_effects: false });
        actions
            .into_iter()
            .filter_map(|action| if let Action::Decide(command) = action { Some(command) } else { None })
            .collect()
    };
    super::super::work_count::take_work();
    while !run.is_final() {
        let calls_max = if run.has_begun_compensation() { 8 } else { count };
        let commands = due_now(&run, calls_max);
        if commands.is_empty() {
            let call = run.in_flight().remove(0);
            let step = plan.step(&call.step).unwrap().0;
            let (item, part, result) =
                (call.item, call.part, if call.item.is_none() { status(404) } else { ok(json!({})) });
            apply(
                &mut run,
                Command::Record { step, item, part, attempt: 1, result, may_be_repeat: false, jitter: 0.5 },
                calls_max,
            );
        }
        commands.into_iter().for_each(|command| apply(&mut run, command, calls_max));
    }
    assert_eq!(run.undone().iter().filter(|(.., undone)| *undone != UndoStatus::NotYet).count(), count);
    super::super::work_count::take_work()
}

#[test]
fn undoing_thousands_of_calls_visits_each_call_a_few_times() {
    for undo in [", undo: 'DELETE ${services.stock}/x/${index}'", ""] {
        let work = work_to_undo(1_000, undo);
        assert!(work < 40_000, "1,000 calls are visited {work} times");
    }
}

#[test]
fn the_view_shows_the_status_of_each_step() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_route(&plan);
    until_last(&mut harness);
    harness.call("last", status(404));
    harness.undo("flight", ok(json!({})));
    harness.undo("hotel", timed_out());
    let seen = |harness: &Harness<'_>| {
        let view = view(harness.events.iter().map(|event| (Timestamp::UNIX_EPOCH, event))).unwrap();
        let step = |name: &str| view.steps.iter().find(|step| step.step.as_str() == name).unwrap().clone();
        let items = (step("reserve").items_ended, step("reserve").attempts);
        (step("flight").status, step("hotel").status, step("mail").status, items)
    };
    use crate::workflow::StepStatus::{Conflict, Done, Undone};
    assert_eq!(seen(&harness), (Undone, Conflict, Done, (Some(3), 3)));
    harness.choose("hotel", None, Choice::Skip).unwrap();
    for item in (0..3).rev() {
        harness.record_result("reserve", Some(item), StepPart::Undo, ok(json!({})));
    }
    assert_eq!(seen(&harness), (Undone, Done, Done, (Some(3), 3)), "the attempts of an undo do not count");
}
