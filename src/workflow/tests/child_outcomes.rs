//! How a parent handles the end of a child run: an output that fits its schema, one that does not, and undoing.

use super::harness::{breaker_open, plan, take_output};
use super::*;
use crate::workflow::CommandRefusal::NotApplicable;
use crate::workflow::{
    ChildEvent, Choice, ConflictKind, ControlCommand, Parent, RouteAbove, StepPart, TreeEffects, UndoStatus, rerun,
    route_above_child, view,
};

const TRIP: &str = "
workflow: w
steps:
  sub:
    for_each: [1, 2]
    concurrency: 1
    run: invoice
    input: { n: '${item}' }
    undo: { call: 'POST ${services.stock}/credits/${output.id}', body: '${item}' }
  plain: { needs: [sub], run: audit }
  last: { needs: [plain], call: 'POST ${services.bank}/last' }
respond: { status: 200 }
";

#[test]
fn a_completed_child_is_undone_by_its_step_s_undo_or_reported_as_not_undone() {
    let plan = plan(TRIP);
    let mut harness = Harness::of_route(&plan);
    harness.perform_due();
    for id in [7, 8] {
        let child = harness.children()[0];
        harness.child_ends(child, RunStatus::Completed, json!({ "id": id }));
    }
    let plain = harness.children()[0];
    harness.child_ends(plain, RunStatus::Completed, json!({}));
    harness.replies("last", None, status(404));
    assert_eq!(
        (harness.status(), harness.in_flight_names()),
        (RunStatus::Compensating, vec!["undo sub[1]".to_owned()])
    );
    let mut keys = BTreeSet::new();
    for (item, id) in [(1, 8), (0, 7)] {
        let undo = harness.run.attempt(&"sub".into(), Some(item), StepPart::Undo).unwrap();
        assert_eq!((undo.request.url.clone(), undo.request.body.value()), (format!("/credits/{id}"), json!(item + 1)));
        keys.insert(undo.key);
        harness.record_result("sub", Some(item), StepPart::Undo, ok(json!({})));
    }
    assert_eq!((harness.status(), keys.len()), (RunStatus::Failed, 2));
    let why = format!("{plain} `audit`: completed, and its step declares no `undo`");
    let left = harness.run.undone().into_iter().find(|(step, ..)| step.as_str() == "plain").unwrap();
    assert_eq!(left.2, UndoStatus::Left(why.clone()));
    let note = harness.run.note().unwrap();
    assert!(note.ends_with(&format!("; not undone: `plain` ({why})")), "{note}");
}

const WITH_SCHEMA: &str = "
workflow: w
steps:
  sub: { run: invoice, output: { schema: { type: integer } }, undo: 'DELETE ${services.stock}/invoices/${output}' }
  last: { needs: [sub], call: 'POST ${services.bank}/last' }
respond: { status: 200 }
";

#[test]
fn a_completed_child_is_not_repeated_when_its_output_does_not_fit() {
    let plan = plan(WITH_SCHEMA);
    let asked = || {
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        let child = harness.children()[0];
        harness.child_ends(child, RunStatus::Completed, json!("x"));
        let conflict = harness.run.conflict().unwrap();
        assert_eq!((conflict.kind, conflict.attempt), (ConflictKind::Schema, 0));
        assert_eq!(conflict.choices, ["skip", "take", "cancel"]);
        let ended = harness.events.iter().find(|event| matches!(event, Event::Child(ChildEvent::Ended { .. })));
        let Some(Event::Child(ChildEvent::Ended { status, unfit, .. })) = ended else { panic!() };
        assert_eq!((*status, *unfit), (RunStatus::Completed, true), "the event says that the output does not fit");
        harness
    };
    assert!(asked().choose("sub", None, Choice::Retry).is_err());
    for choice in [take_output(json!(5)), Choice::Skip] {
        let mut harness = asked();
        harness.choose("sub", None, choice.clone()).unwrap();
        match choice {
            Choice::Skip => {
                assert_eq!(harness.status(), RunStatus::Completed, "the step that needs `sub` is skipped, too")
            }
            _ => {
                harness.replies("last", None, status(404));
                assert_eq!(harness.in_flight_names(), ["undo sub"]);
                let undo = harness.run.attempt(&"sub".into(), None, StepPart::Undo).unwrap();
                assert_eq!(
                    undo.request.url, "/invoices/x",
                    "the undo reads the child's output, not the one that the person gave"
                );
            }
        }
        assert_eq!(fold(&harness.events).unwrap(), harness.run);
    }
    let mut harness = asked();
    harness.cancel(true).unwrap();
    assert_eq!(harness.in_flight_names(), ["undo sub"]);
    let mut harness = Harness::of_route(&plan);
    harness.perform_due();
    let child = harness.children()[0];
    harness.child_ends(child, RunStatus::Completed, json!("x"));
    assert_eq!(harness.in_flight_names(), ["undo sub"], "a run of a route fails, and the child is undone");
}

#[test]
fn the_view_of_a_step_names_its_open_children() {
    let plan = plan(&TRIP.replace("concurrency: 1", "concurrency: 2"));
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let note = |harness: &Harness<'_>| {
        let seen = view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
        (seen.steps[0].note.clone().unwrap(), seen.steps[0].items_ended)
    };
    let children = harness.children();
    assert_eq!(note(&harness), (format!("{} runs `invoice`, and 1 more run", children[0]), Some(0)));
    harness.child_ends(children[0], RunStatus::Completed, json!({}));
    assert_eq!(note(&harness), (format!("{} runs `invoice`", children[1]), Some(1)));
    harness.child_ends(children[1], RunStatus::Completed, json!({}));
    assert_eq!(note(&harness), (format!("{} has completed", children[1]), Some(2)));
}

#[test]
fn a_parent_lifts_only_its_own_pause() {
    let plan = plan(
        "
workflow: w
steps: { a: { call: 'POST ${services.bank}/a' }, b: { needs: [a], call: 'POST ${services.bank}/b' } }
respond: { status: 200 }
",
    );
    let parent = RunId(uuid::Uuid::from_u128(9));
    let by = parent.to_string();
    let mut harness = Harness::started_with(&plan, |started| {
        started.route = None;
        started.parent = Some(Parent { run: parent, step: "sub".into(), item: None });
    });
    harness.perform_due();
    let (pause, resume) = (|| ControlCommand::Pause { reason: None }, || ControlCommand::Resume { reason: None });
    harness.give_command_by(&by, pause()).unwrap();
    harness.give_command_by(&by, resume()).unwrap();
    assert_eq!(harness.status(), RunStatus::Running);
    harness.give_command_by("ann", pause()).unwrap();
    let refused = harness.give_command_by(&by, resume());
    assert!(matches!(&refused, Err(NotApplicable(why)) if why.contains("ann paused it")), "{refused:?}");
    assert_eq!(harness.status(), RunStatus::Paused);
    harness.give_command_by("bob", resume()).unwrap();
    harness.give_command_by(&by, pause()).unwrap();
    harness.give_command_by("ann", resume()).unwrap();
    assert_eq!(harness.status(), RunStatus::Running, "a person lifts any pause");
}

/// A child of a run that a route (`route_above` is `Some`) or the API started.
fn child_below<'a>(plan: &'a Plan, route_above: Option<RouteAbove>) -> Harness<'a> {
    Harness::started_with(plan, |started| {
        started.route = None;
        started.parent = Some(Parent { run: RunId(uuid::Uuid::from_u128(9)), step: "sub".into(), item: None });
        started.route_above = route_above;
    })
}

#[test]
fn a_child_pauses_or_fails_as_the_run_at_the_top_of_its_tree_does() {
    let charge = "charge: { call: 'POST ${services.bank}/charges'";
    let cases = [
        (format!("{charge} }}"), "1", status(409)),
        (format!("{charge}, output: {{ schema: {{ type: integer }} }} }}"), "1", ok(json!("x"))),
        (format!("{charge} }}, next: {{ set: '${{steps.charge.output.id}}' }}"), "1", ok(json!({}))),
        (format!("{charge} }}"), "'${steps.charge.output.id}'", ok(json!({}))),
    ];
    for (steps, body, result) in cases {
        let plan = plan(&format!("{{ workflow: w, steps: {{ {steps} }}, respond: {{ body: {body} }} }}"));
        for route_above in [None, Some(RouteAbove { caller_until: None })] {
            let mut harness = child_below(&plan, route_above);
            harness.settle();
            harness.call("charge", result.clone());
            let expected = if route_above.is_none() { RunStatus::Paused } else { RunStatus::Failed };
            assert_eq!(harness.status(), expected, "{steps} {body} {route_above:?}: {:?}", harness.kinds());
            let stored = serde_json::to_value(&harness.events).unwrap();
            assert_eq!(serde_json::from_value::<Vec<Event>>(stored.clone()).unwrap(), harness.events);
            let first = &stored[0]["run_started"];
            assert_eq!(first.get("route_above").is_some(), route_above.is_some(), "{first}");
        }
    }
}

#[test]
fn a_child_waits_for_a_breaker_only_while_no_caller_waits_for_it() {
    let plan = plan("{ workflow: w, steps: { a: { call: 'POST ${services.bank}/a' } }, respond: { status: 200 } }");
    let ends_at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(30);
    let above = |caller_until| Some(RouteAbove { caller_until });
    for (route_above, waits) in [(None, true), (above(None), true), (above(Some(ends_at)), false)] {
        let mut harness = child_below(&plan, route_above);
        harness.settle();
        harness.call("a", breaker_open(60_000));
        let expected = if waits { RunStatus::Running } else { RunStatus::Failed };
        assert_eq!(harness.status(), expected, "{route_above:?}");
    }
    let mut harness = child_below(&plan, above(Some(ends_at)));
    harness.now = ends_at;
    harness.settle();
    harness.call("a", breaker_open(60_000));
    assert_eq!(harness.in_flight_names(), ["a"], "the caller has an answer by now, so the child waits for the breaker");
}

#[test]
fn a_child_is_told_of_the_caller_only_where_every_answer_waits_for_it() {
    let text = "
workflow: w
steps:
  before: { call: 'POST ${services.bank}/a', fallback: instead }
  instead: { fallback_only: true, run: other }
  sub: { needs: [before], run: x }
  next: { needs: [sub], set: 1 }
  beside: { run: z }
respond: RESPOND
";
    let until = Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(5));
    let told = |respond: &str, change: fn(&mut RunStarted)| {
        let plan = plan(&text.replace("RESPOND", respond));
        let harness = Harness::started_with(&plan, change);
        ["sub", "instead", "beside"].map(|step| route_above_child(&plan, &harness.run, &step.into(), until))
    };
    let (of_caller, other) = (Some(RouteAbove { caller_until: until }), Some(RouteAbove { caller_until: None }));
    assert_eq!(told("{ status: 200 }", |_| {}), [of_caller; 3]);
    assert_eq!(told("[{ after: [next] }]", |_| {}), [of_caller, of_caller, other]);
    assert_eq!(told("[{ after: [beside], when: '${false}' }, { status: 200 }]", |_| {}), [other, other, of_caller]);
    assert_eq!(told("{ status: 200 }", |started| started.route = None), [None; 3]);
    // A grandchild is told what the child was told, whatever the child itself answers.
    let below = |started: &mut RunStarted| {
        let caller_until = Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1));
        (started.route, started.route_above) = (None, Some(RouteAbove { caller_until }));
    };
    let earlier = Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1));
    assert_eq!(told("[{ after: [before] }]", below), [Some(RouteAbove { caller_until: earlier }); 3]);
}

const CHARGE: &str = "
workflow: w
steps:
  letter: { call: 'POST ${services.bank}/letters' }
  charge: { needs: [letter], call: 'POST ${services.bank}/charges', undo: 'DELETE ${services.bank}/charges/1' }
respond: { status: 200 }
";

/// A child that is paused, because it is unknown whether its `charge` was done.
fn paused_over_charge<'a>(plan: &'a Plan, parent: RunId) -> Harness<'a> {
    let mut harness = Harness::started_with(plan, |started| {
        started.route = None;
        started.parent = Some(Parent { run: parent, step: "sub".into(), item: None });
    });
    harness.perform_due();
    harness.call("letter", ok(json!({})));
    harness.call("charge", status(500));
    assert_eq!(harness.run.conflict().unwrap().kind, ConflictKind::OutcomeUnknown);
    harness
}

#[test]
fn only_a_person_closes_the_conflict_over_an_unknown_outcome() {
    let plan = plan(CHARGE);
    let parent = RunId(uuid::Uuid::from_u128(9));
    let cancel = |automatic| ControlCommand::Cancel { compensate: true, reason: None, automatic };
    let left = |harness: &Harness<'_>| harness.run.tree_effects().left.unwrap_or_default();
    for automatic in [true, false] {
        let mut harness = paused_over_charge(&plan, parent);
        let by = if automatic { parent.to_string() } else { "ann".to_owned() };
        harness.give_command_by(&by, cancel(automatic)).unwrap();
        assert_eq!(harness.status(), if automatic { RunStatus::Paused } else { RunStatus::Cancelled });
        if automatic {
            assert!(harness.give_command_by(&by, cancel(true)).is_err(), "the run was cancelled before");
            assert!(!harness.run.conflict().unwrap().choices.contains(&"fallback".to_owned()));
            let mut taken = paused_over_charge(&plan, parent);
            taken.give_command_by(&by, cancel(true)).unwrap();
            taken.choose("charge", None, take_output(json!({}))).unwrap();
            assert_eq!(taken.in_flight_names(), ["undo charge"]);
            taken.undo("charge", ok(json!({})));
            assert_eq!((taken.status(), left(&taken)), (RunStatus::Cancelled, "not undone: `letter`".to_owned()));
            assert!(!taken.run.tree_effects().unknown);
            harness.give_command_by("ann", cancel(false)).unwrap();
        }
        assert_eq!(
            (harness.status(), left(&harness)),
            (RunStatus::Cancelled, "not undone: `charge`, `letter`".to_owned())
        );
        assert!(harness.run.tree_effects().unknown);
        // An event of an earlier version does not say whether the cancellation was automatic: it closed the conflicts.
        let mut stored = serde_json::to_value(&harness.events).unwrap();
        for event in stored.as_array_mut().unwrap() {
            if let Some(ordered) = event.get_mut("cancel_ordered").and_then(Value::as_object_mut) {
                ordered.remove("automatic");
            }
        }
        let events: Vec<Event> = serde_json::from_value(stored).unwrap();
        let ordered = events.iter().position(|event| event.kind() == "cancel_ordered").unwrap();
        assert!(fold(&events[..=ordered]).unwrap().conflict().is_none());
    }
}

#[test]
fn children_are_cancelled_automatically_or_by_a_person_as_their_parent_is() {
    let plan = plan("{ workflow: w, steps: { sub: { run: x }, f: { call: 'POST ${services.bank}/f' } }, respond: {} }");
    let automatic = |harness: &Harness<'_>| {
        let told = harness.due().into_iter().find_map(|action| match action {
            Action::CommandChild { command: ControlCommand::Cancel { automatic, reason, .. }, .. } => {
                // Not the failure or a person's reason: they may quote what is sensitive in the parent only.
                assert_eq!(reason.as_deref(), Some("the run that began it ends"));
                Some(automatic)
            }
            _ => None,
        });
        told.expect("a command")
    };
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.call("f", status(404));
    assert!(automatic(&harness), "a parent that fails cancels its child automatically");
    harness.cancel(true).unwrap();
    assert!(!automatic(&harness), "a person's cancellation of the parent is passed on as one");
    let child = harness.children()[0];
    let (left, status, output) = (Some("not undone: `c`".to_owned()), RunStatus::Cancelled, Arc::default());
    let tree = Some(TreeEffects { shared: true, unknown: true, left, ..TreeEffects::default() });
    harness
        .command(Command::ChildEnded { child, status, output, note: None, failure: None, tree, sensitive: Vec::new() })
        .unwrap();
    harness.perform_due();
    let note = harness.run.note().unwrap();
    assert!(note.ends_with(&format!("; left by child runs: `sub` ({child} `x`: not undone: `c`)")), "{note}");
    let report = harness.run.tree_effects();
    assert!(
        report.unknown && report.left.unwrap().contains("not undone: `c`"),
        "the run reports what its child left to its own parent"
    );
    assert_eq!(harness.run.undone().len(), 1);
    assert_eq!(fold(&harness.events).unwrap(), harness.run);
}

#[test]
fn what_a_child_left_undone_is_reported_at_every_depth_and_named_once_in_a_note() {
    let plan = plan("{ workflow: w, steps: { sub: { run: x }, z: { needs: [sub], run: after } }, respond: {} }");
    let ends = |tree: Option<TreeEffects>, note: &str| {
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        let child = harness.children()[0];
        let (status, output, note) = (RunStatus::Failed, Arc::default(), Some(note.to_owned()));
        harness
            .command(Command::ChildEnded { child, status, output, note, failure: None, tree, sensitive: Vec::new() })
            .unwrap();
        harness.perform_due();
        harness
    };
    let text = "not undone: `c`";
    let report = || Some(TreeEffects { shared: true, left: Some(text.to_owned()), ..TreeEffects::default() });
    for note in ["it broke", "it broke; not undone: `c`"] {
        let harness = ends(report(), note);
        assert_eq!(harness.run.note().unwrap().matches(text).count(), 1, "{:?}", harness.run.note());
        assert!(harness.run.tree_effects().left.unwrap().contains(text));
    }
    let from = |harness: &Harness<'_>, step: &str| rerun(&harness.run, &plan, &step.into());
    // A child without a report may have left anything.
    for harness in [ends(report(), "it broke"), ends(None, "it broke")] {
        let refused = from(&harness, "z");
        assert!(matches!(&refused, Err(NotApplicable(why)) if why.contains("begin at `sub`")), "{refused:?}");
        assert!(from(&harness, "sub").is_ok());
    }
    assert!(from(&ends(Some(TreeEffects::default()), "it broke"), "z").is_ok());
}

/// The parent counts such a child as failed, and undoes only what the other steps did.
#[test]
fn a_child_without_an_answer_undoes_what_it_did() {
    let plan = plan(
        "
workflow: w
steps: { charge: { call: 'POST ${services.bank}/charges', undo: 'DELETE ${services.bank}/charges' } }
respond: { body: '${steps.charge.output.id}' }
",
    );
    for (is_child, expected) in [(true, "undo charge"), (false, "")] {
        let mut harness = match is_child {
            true => child_below(&plan, Some(RouteAbove { caller_until: None })),
            false => Harness::of_route(&plan),
        };
        harness.perform_due();
        harness.call("charge", ok(json!({})));
        assert_eq!(harness.in_flight_names().join(" "), expected);
        if is_child {
            harness.undo("charge", ok(json!({})));
        }
        let note = harness.run.note().unwrap();
        let report = if is_child { "; undone: `charge`" } else { "; not undone: `charge`" };
        assert!(harness.status() == RunStatus::Failed && note.ends_with(report), "{note}");
        assert_eq!(fold(&harness.events).unwrap(), harness.run);
    }
}
