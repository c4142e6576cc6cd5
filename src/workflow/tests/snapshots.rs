//! A run that is read from a snapshot behaves like the run that was written to it.

use super::*;

/// Writes the run and reads it back at several points; the remaining events must result in the same run.
pub(super) fn check_at_many_points(events: &[Event]) {
    let whole = fold(events).unwrap();
    for index in (1..=events.len()).step_by(events.len() / 12 + 1) {
        let (before, after) = events.split_at(index);
        let run = fold(before).unwrap();
        let bytes = run.to_snapshot().unwrap();
        let mut back = Run::from_snapshot(&bytes).unwrap();
        assert_eq!(back, run, "at {index}: {}", String::from_utf8_lossy(&bytes));
        after.iter().for_each(|event| back.evolve_in_place(event).unwrap());
        assert_eq!(back, whole, "at {index}");
    }
}

fn each() -> Plan {
    harness::plan(
        "workflow: w\nsteps:\n  a: { for_each: '${request.body.items}', call: 'POST ${services.stock}/a', body: '${item}' }\nrespond: { status: 200, body: 1 }\n",
    )
}

/// An output may be `null`, contain `null` and empty maps, or hold numbers that no machine type can represent.
#[test]
fn numbers_of_an_output_keep_all_digits() {
    let numbers = r#"{ "n": 123456789012345678901234567890.10, "e": 1e400, "z": -0, "big": 18446744073709551615 }"#;
    for output in [Value::Null, json!([null, {}]), serde_json::from_str(numbers).unwrap()] {
        let plan = each();
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.item("a", 0, ok(output.clone()));
        let back = Run::from_snapshot(&harness.run.to_snapshot().unwrap()).unwrap();
        assert_eq!(back, harness.run);
        let open = back.open_step(&"a".into()).unwrap();
        assert_eq!(open.results[&0].output.as_deref(), Some(&output));
        assert_eq!(serde_json::to_string(&open.results[&0].output).unwrap(), serde_json::to_string(&output).unwrap());
        check_at_many_points(&harness.events);
    }
}

/// The values of items that an open step holds are not written a second time with the list of calls that were done, and
/// are shared between the two after reading.
#[test]
fn each_output_of_a_fan_out_is_written_once() {
    let plan = each();
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.item("a", 0, ok(json!("once-0")));
    harness.item("a", 2, ok(json!("once-2")));
    let bytes = harness.run.to_snapshot().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(text.matches("once-").count(), 2, "{text}");
    let back = Run::from_snapshot(&bytes).unwrap();
    let (open, done) = (back.open_step(&"a".into()).unwrap(), &back.done);
    assert_eq!(done.iter().map(|done| done.item).collect::<Vec<_>>(), [Some(0), Some(2)]);
    for done in done {
        let item = done.item.unwrap();
        assert!(done.output.is_same(open.results[&item].output.as_ref().unwrap()));
        assert!(Arc::ptr_eq(done.value.as_ref().unwrap(), &open.items.as_ref().unwrap()[item as usize]));
    }
    // The snapshot does not grow when a run is written and read repeatedly.
    assert_eq!(back.to_snapshot().unwrap(), bytes);
}

/// A run that is read back from its events or from a snapshot holds the outputs as text until an expression reads them.
#[test]
fn only_outputs_that_are_read_are_parsed() {
    let plan = harness::plan(
        "workflow: w\nsteps:\n  one: { call: 'POST ${services.stock}/one' }\n  two: { call: 'POST ${services.stock}/two' }\n  \
         a: { needs: [one, two], for_each: '${request.body.items}', call: 'POST ${services.stock}/a', \
         body: { id: '${steps.one.output.id}' } }\nrespond: { status: 200, body: 1 }\n",
    );
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("one", ok(json!({ "id": "o-1" })));
    harness.call("two", ok(json!({ "id": "o-2" })));
    for item in 0..3 {
        harness.item("a", item, ok(json!({ "made": [item] })));
    }
    let stored = |event: &Event| serde_json::from_slice::<Event>(&serde_json::to_vec(event).unwrap()).unwrap();
    let events: Vec<Event> = harness.events.iter().map(stored).collect();
    let run = fold(&events).unwrap();
    for run in [Run::from_snapshot(&run.to_snapshot().unwrap()).unwrap(), run] {
        let is_unread = |step: &str| run.outputs.get(step).unwrap().is_output_unread();
        assert!(is_unread("one") && is_unread("two") && is_unread("a"));
        assert!(run.done.iter().all(|done| done.output.is_unread()));
        let scope = harness.inputs.plain(&run);
        let id = crate::expression::Expression::parse("steps.one.output.id").unwrap().evaluate(&scope);
        assert_eq!(id.unwrap(), json!("o-1"));
        assert!(!is_unread("one") && is_unread("two") && is_unread("a"));
        assert_eq!(run, harness.run);
        assert_eq!(run.output_of("a"), Some(&json!([{ "made": [0] }, { "made": [1] }, { "made": [2] }])));
        assert!(!run.has_empty_output("a"));
    }
}

/// The output is as deep as `output_depth_max` allows.
#[test]
fn an_output_as_deep_as_the_bound_is_read_back() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let plan = each();
    let mut harness = Harness::of_route(&plan);
    harness.inputs = inputs().with_depth(100);
    harness.settle();
    harness.item("a", 1, ok(deep));
    check_at_many_points(&harness.events);
}

#[test]
fn bytes_that_are_no_snapshot_are_an_error() {
    let plan = each();
    let bytes = Harness::of_route(&plan).run.to_snapshot().unwrap();
    for broken in [&bytes[..bytes.len() - 1], b"", b"{}", b"null"] {
        assert!(Run::from_snapshot(broken).unwrap_err().contains("a snapshot cannot be read"));
    }
    // `FOLD`, which identifies the rules by which events are applied, is a hash of 32 hex digits.
    assert_eq!(crate::workflow::FOLD.len(), 32);
}
