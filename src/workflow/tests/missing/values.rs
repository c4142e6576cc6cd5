//! Runs whose plan reads, outside a call, a service that the files in force do not have.

use super::super::harness::timed_out;
use super::super::*;
use crate::limits::Limits;
use crate::workflow::{Choice, ConflictKind, ControlCommand, Missing, StepIndex, StepPart, missing};

fn stored(step: &str) -> Plan {
    let yaml = format!("workflow: w\nsteps:\n  s: {{ {step} }}\nrespond: {{ status: 200 }}");
    let source: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    Plan::from_stored(&source, &BTreeMap::new(), &Limits::default()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn has_gone(harness: &mut Harness<'_>) {
    harness.inputs.services = Arc::new(json!({ "bank": "", "stock": "", "gone": "http://gone" }));
    harness.settle();
}

fn gone() -> Missing {
    Missing::Service("gone".into())
}

fn assert_waits(harness: &Harness<'_>, part: StepPart, what: &str) {
    let conflict = harness.run.conflict().unwrap_or_else(|| panic!("{what}: {:?}", harness.run.failure()));
    assert_eq!((conflict.kind, conflict.part), (ConflictKind::Missing, part), "{what}: {}", conflict.message);
    assert_eq!(conflict.missing, Some(gone()), "{what}");
    assert!(conflict.message.contains("the service `gone`"), "{what}: {}", conflict.message);
    assert!(harness.run.note().is_some_and(|note| missing::is_noted(&note)), "{what}: {:?}", harness.run.note());
    assert!(harness.in_flight_names().is_empty() && harness.due().is_empty(), "{what}: {:?}", harness.due());
    let all = missing::all(harness.plan, Some(&harness.run), &harness.inputs);
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("s".into(), gone())], "{what}");
}

/// Whatever a step evaluates before it begins, in runs of routes and of the API alike.
#[test]
fn a_run_waits_for_a_service_that_any_value_of_a_step_reads() {
    for step in [
        "set: '${services.gone}'",
        "for_each: '${[1, 2]}', set: '${services.gone}'",
        "for_each: '${[services.gone]}', set: '${item}'",
        "for_each: '${[services.gone]}', call: 'POST ${services.bank}/a'",
        "if: '${services.gone != \"\"}', set: 1",
        "if: '${services.gone != \"\"}', call: 'POST ${services.bank}/a'",
        "call: 'POST ${services.bank}/a', lock: { key: '${services.gone}' }",
        "for_each: '${[1, 2]}', call: 'POST ${services.bank}/a', lock: { key: '${services.gone}' }",
        "call: 'POST ${services.bank}/a', risk: '${services.gone == \"\" ? \"high\" : \"low\"}'",
        "for_each: '${[1, 2]}', call: 'POST ${services.bank}/a', risk: '${services.gone == \"\" ? \"high\" : \"low\"}'",
        "call: 'POST ${services.bank}/a', risk: medium, ask: { question: 'At ${services.gone}?' }",
        "checkpoint: { question: 'At ${services.gone}?' }",
        "checkpoint: { question: Well?, timeout: 1h, on_timeout: approve, default: { at: '${services.gone}' } }",
        "wait: '${services.gone == \"\" ? 1 : 2}'",
        "wait: { until: '${services.gone == \"\" ? 1 : 2}' }",
        "wait: { signal: go, where: '${signal.from == services.gone}' }",
        "fail: { status: 402, body: '${services.gone}' }",
    ] {
        let plan = stored(step);
        for mut harness in [Harness::of_route(&plan), Harness::of_api(&plan)] {
            harness.settle();
            assert_waits(&harness, StepPart::Do, step);
            harness.choose("s", None, Choice::Retry).ok();
            harness.choose("s", Some(0), Choice::Retry).ok();
            assert_waits(&harness, StepPart::Do, step);
            has_gone(&mut harness);
            assert!(harness.run.conflict().is_none(), "{step}: {:?}", harness.run.conflict());
            let has_failed = harness.run.failure().is_some_and(|failure| failure.kind != FailureKind::Declared);
            assert!(!has_failed, "{step}: {:?}", harness.run.failure());
            let all = missing::all(&plan, Some(&harness.run), &harness.inputs);
            assert!(all.is_empty(), "{step}: {all:?}");
        }
    }
}

#[test]
fn a_step_that_does_not_run_needs_nothing() {
    let plan = stored("if: '${has(request.body.all)}', set: '${services.gone}'");
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed);
    let plan = stored("set: '${has(request.body.all) ? services.gone : services.bank}'");
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    assert_eq!(harness.run.status(), RunStatus::Completed);
}

/// Two services are missing. The run goes on as soon as it has the one that it waits for, although the step also reads
/// the other one, in a branch that is not taken.
#[test]
fn a_run_waits_only_for_what_its_conflict_names() {
    let plan = stored("set: '${has(request.body.all) ? services.other : services.gone}'");
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    assert_eq!(harness.run.conflict().and_then(|conflict| conflict.missing.clone()), Some(gone()));
    has_gone(&mut harness);
    assert_eq!(harness.run.status(), RunStatus::Completed);
}

#[test]
fn the_input_of_a_child_run_waits_for_a_missing_service() {
    for step in [
        "run: other, input: { at: '${services.gone}' }",
        "for_each: '${[1, 2]}', run: other, input: { at: '${services.gone}' }",
        // People are shown the input before they approve it.
        "for_each: '${[1, 2]}', run: other, input: { at: '${services.gone}' }, risk: high",
        "run: other, input: { at: '${services.gone}' }, risk: medium",
    ] {
        let plan = stored(step);
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        let item = step.starts_with("for_each").then_some(0);
        let child = RunId(uuid::Uuid::from_u128(9));
        let begin = || Command::BeginChild { step: StepIndex(0), item, child };
        harness.command(begin()).unwrap();
        assert_waits(&harness, StepPart::Do, step);
        has_gone(&mut harness);
        harness.command(begin()).unwrap();
        let expected = if step.contains("risk") { (0, 1) } else { (1, 0) };
        assert_eq!((harness.run.children().count(), harness.run.open_checkpoints().count()), expected, "{step}");
    }
}

/// The service is removed from the files after the step began to wait. A signal that came would stay untaken.
#[test]
fn a_signal_is_refused_while_its_filter_cannot_be_evaluated() {
    let plan = stored("wait: { signal: go, where: '${signal.from == services.gone}' }");
    let mut harness = Harness::of_route(&plan);
    has_gone(&mut harness);
    let present = harness.inputs.services.clone();
    harness.inputs = inputs();
    let send = |harness: &mut Harness<'_>| {
        let payload = Arc::new(json!({ "from": "http://gone" }));
        harness.give_command(ControlCommand::Signal { name: "go".into(), payload, id: Some("1".into()) })
    };
    let Err(CommandRefusal::NotApplicable(why)) = send(&mut harness) else { panic!("it is refused") };
    assert!(why.contains("its `where` needs the service `gone`"), "{why}");
    harness.inputs.services = present;
    send(&mut harness).unwrap();
    assert_eq!(harness.run.status(), RunStatus::Completed, "the refused delivery does not count");
}

/// Nothing is asked whose reply could not be judged; where the service is removed while the probe is under way, the
/// probe is sent again later.
#[test]
fn a_probe_waits_for_what_its_expressions_read() {
    for probe in ["done: '${output.at == services.gone}'", "done: '${true}', output: '${services.gone}'"] {
        let call = "call: 'POST ${services.bank}/a', retry: { attempts: 1 }";
        let plan = stored(&format!("{call}, probe: {{ call: 'GET ${{services.bank}}/a', {probe} }}"));
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("s", timed_out());
        assert_waits(&harness, StepPart::Probe, probe);
        has_gone(&mut harness);
        assert_eq!(harness.in_flight_names(), ["probe s"]);
        harness.inputs = inputs();
        let reply = ok(json!({ "at": "http://gone" }));
        harness.record_result("s", None, StepPart::Probe, reply.clone());
        assert_waits(&harness, StepPart::Probe, probe);
        has_gone(&mut harness);
        harness.record_result("s", None, StepPart::Probe, reply);
        assert_eq!(harness.run.status(), RunStatus::Completed, "{probe}: {:?}", harness.run.note());
        let sent =
            harness.events.iter().filter(|event| matches!(event, Event::StepStarted(s) if s.part == StepPart::Do));
        assert_eq!(sent.count(), 1);
    }
}

/// A conflict of an earlier version does not say what is missing: the step does.
#[test]
fn a_conflict_of_an_earlier_version_is_resolved_by_a_reload() {
    let plan = stored("call: 'POST ${services.gone}/a'");
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    let mut stored = serde_json::to_value(harness.events.last().unwrap()).unwrap();
    assert_eq!(stored["paused"]["conflict"]["missing"], json!({ "service": "gone" }), "{stored}");
    stored["paused"]["conflict"].as_object_mut().unwrap().remove("missing");
    let mut earlier = Harness::of_route(&plan);
    let paused: Event = serde_json::from_value(stored).unwrap();
    earlier.run.evolve_in_place(&paused).unwrap();
    earlier.events.push(paused);
    assert!(earlier.run.misses_something() && earlier.due().is_empty());
    has_gone(&mut earlier);
    assert_eq!(earlier.in_flight_names(), ["s"]);
}

/// What a step that has begun does not evaluate again is not listed as needed.
#[test]
fn a_step_that_has_begun_is_not_said_to_miss_what_it_no_longer_needs() {
    let needs = |harness: &Harness<'_>| -> Vec<Missing> {
        let missing = missing::all(harness.plan, Some(&harness.run), &inputs().with_workflows([]));
        missing.into_iter().map(|(_, missing)| missing).collect()
    };
    let begun = |step: &str, items: u32| {
        let plan = Box::leak(Box::new(stored(step)));
        let mut harness = Harness::of_route(plan);
        has_gone(&mut harness);
        for item in 0..items {
            let item = step.starts_with("for_each").then_some(item);
            let child = RunId(uuid::Uuid::from_u128(9 + u128::from(item.unwrap_or(0))));
            harness.command(Command::BeginChild { step: StepIndex(0), item, child }).unwrap();
        }
        harness
    };
    let other = || Missing::Workflow("other".into());
    let single = "run: other, input: '${services.gone}', if: '${services.gone != \"\"}'";
    assert_eq!(needs(&begun(single, 0)), [gone(), other()]);
    assert_eq!(needs(&begun(single, 1)), []);
    let items = "for_each: '${[1, services.gone]}', run: other";
    assert_eq!(needs(&begun(items, 1)), [other()], "an item is to come, and the list is known");
    assert_eq!(needs(&begun(items, 2)), []);
    for (step, expected) in [
        ("wait: '${services.gone == \"\" ? 1 : 2000000}'", Vec::new()),
        ("wait: { signal: go, where: '${signal.from == services.gone}' }", vec![gone()]),
        ("checkpoint: { question: 'At ${services.gone}?' }", Vec::new()),
        ("call: 'POST ${services.bank}/a', if: '${services.gone != \"\"}'", Vec::new()),
        ("call: 'POST ${services.bank}/a', body: '${services.gone}'", vec![gone()]),
        ("call: 'POST ${services.bank}/a', risk: medium, ask: { question: 'At ${services.gone}?' }", vec![gone()]),
    ] {
        assert_eq!(needs(&begun(step, 0)), expected, "{step}");
    }
    let mut ending = begun(single, 1);
    ending.cancel(true).unwrap();
    assert_eq!(needs(&ending), []);
}
