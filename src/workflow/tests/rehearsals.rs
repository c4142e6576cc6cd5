//! Rehearsals: outputs that are declared or not, values that legacy drew, and attempts while a service is not
//! available. Waiting takes no time in a rehearsal, so the number of such attempts has to be bounded.

use super::harness::{breaker_open, plan};
use super::*;
use crate::expression::Template;
use crate::workflow::{Injected, LegacyReplies, LegacyReply, LegacyResult, RehearsedCall};

/// Answers every attempt of `a` in the same way, at most 20 times. Returns the number of attempts.
fn attempts(harness: &mut Harness<'_>, result: &dyn Fn() -> AttemptResult) -> usize {
    harness.settle();
    let mut count = 0;
    while harness.in_flight_names() == ["a"] && count < 20 {
        count += 1;
        harness.call("a", result());
    }
    count
}

fn of_mode(plan: &Plan, mode: Mode) -> Harness<'_> {
    Harness::new(plan, mode, json!({}))
}

#[test]
fn an_open_breaker_uses_up_the_attempts_of_a_rehearsal() {
    for settings in ["", ", deadline: 1h", ", fallback: b"] {
        let plan = plan(&format!(
            "
workflow: w
steps:
  a: {{ call: 'GET ${{services.bank}}/a', retry: {{ attempts: 4 }}{settings} }}
  b: {{ fallback_only: {}, set: 1 }}
respond: {{ status: 200, body: '${{steps.a.output}}' }}
",
            settings.contains("fallback")
        ));
        let mut harness = of_mode(&plan, Mode::Rehearse);
        let count = attempts(&mut harness, &|| breaker_open(5_000));
        match settings.contains("fallback") {
            true => assert_eq!((count, harness.status()), (1, RunStatus::Completed), "the fallback is taken at once"),
            false => {
                assert_eq!((count, harness.status()), (4, RunStatus::Failed), "{settings}");
                assert_eq!(harness.run.failure().map(|failure| failure.kind), Some(FailureKind::Unavailable));
            }
        }
    }
}

/// Each of these attempts is a request to the service, sent without a delay.
#[test]
fn a_lock_at_a_service_uses_up_the_attempts_of_a_rehearsal() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.bank}/search', effect: read, retry: { attempts: 2 }, busy_on: [409] }
respond: { status: 200 }
",
    );
    for code in [409, 423] {
        let mut harness = of_mode(&plan, Mode::Rehearse);
        assert_eq!(attempts(&mut harness, &|| status(code)), 2);
        assert_eq!(harness.status(), RunStatus::Failed);
    }
}

/// A dark run waits on the real clock.
#[test]
fn a_dark_run_waits_for_an_open_breaker_and_for_a_lock_at_a_service() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'GET ${services.bank}/a', retry: { attempts: 2 }, busy_on: [409] }
respond: { status: 200 }
",
    );
    for result in [breaker_open(5_000), status(409)] {
        let mut harness = of_mode(&plan, Mode::Dark);
        assert_eq!(attempts(&mut harness, &|| result.clone()), 20);
        harness.call("a", ok(json!({})));
        assert_eq!(harness.status(), RunStatus::Completed);
    }
}

#[test]
fn a_rehearsal_fails_with_the_name_of_an_undeclared_output_that_is_read() {
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({"amount": 1}))
        .respond(200, json!({"id": "${steps.charge.output.id}"}))
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Rehearse, json!({}));
    harness.settle();
    let failure = harness.run.failure().unwrap();
    assert_eq!(failure.kind, FailureKind::Unresolved);
    assert!(failure.message.contains("`charge`"), "{}", failure.message);
    assert_eq!(harness.run.intents().count(), 1);
    assert!(harness.sent.is_empty());
}

/// Whether there is a value, and which, is not known: no other one takes its place. What does not depend on it is.
#[test]
fn an_undeclared_output_is_not_absent() {
    let failure = |body: &str| {
        let plan = PlanBuilder::new()
            .call("charge", &[], "POST /charges", json!({"amount": 1}))
            .respond(200, json!({ "of": body }))
            .build("w");
        let mut harness = Harness::new(&plan, Mode::Rehearse, json!({}));
        harness.settle();
        harness.run.failure().map(|failure| failure.kind)
    };
    for unknown in [
        "${default(steps.charge.output.id, 'none')}",
        "${default(steps.charge.status, 201)}",
        "${has(steps.charge.output.id)}",
        "${default(steps.charge, {}).status}",
        "${steps.charge.status == 201 || run.mode == 'live'}",
    ] {
        assert_eq!(failure(unknown), Some(FailureKind::Unresolved), "{unknown}");
    }
    for known in ["${steps.charge.status == 201 || run.mode != 'live'}", "${default(steps.other.status, 0)}"] {
        assert_eq!(failure(known), None, "{known}");
    }
}

#[test]
fn a_declared_output_that_is_null_stays_declared_in_the_stored_events() {
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!({"amount": 1}))
        .rehearse(Value::Null)
        .respond(200, json!({"ref": "${steps.charge.output}"}))
        .build("w");
    let mut harness = Harness::new(&plan, Mode::Dark, json!({}));
    harness.settle(); // the harness reads each event back from its stored form
    assert_eq!(harness.run.answer().unwrap().body.value(), json!({"ref": null}));
    let rehearsed = harness.events.iter().find(|event| event.kind() == "step_finished").unwrap();
    let mut written = serde_json::to_value(rehearsed).unwrap();
    let outcome = &mut written["step_finished"]["outcome"]["rehearsed"];
    assert_eq!(outcome["output"], Value::Null);
    // An earlier version wrote a declared null without `declares_null`, which is also how an undeclared output is
    // written.
    outcome.as_object_mut().unwrap().remove("declares_null").unwrap();
    let Event::StepFinished(finished) = serde_json::from_value(written).unwrap() else { panic!("a step's end") };
    assert!(matches!(finished.outcome, super::Outcome::Rehearsed { output: None, .. }));
}

/// The calls that legacy made: the number and the result of each. The first that is not assigned corresponds.
struct MadeByLegacy(Vec<(u64, LegacyResult)>);

impl LegacyReplies for MadeByLegacy {
    fn reply_to(&self, of: &RehearsedCall<'_>, assigned: &BTreeSet<u64>) -> Result<LegacyReply, String> {
        let intent = of.intent;
        let free = self.0.iter().find(|(number, _)| !assigned.contains(number));
        let found = free.map(|(call, result)| LegacyReply { call: *call, result: result.clone() });
        found.ok_or_else(|| format!("legacy made no {} {}", intent.method, intent.url))
    }
}

fn of_legacy(plan: &Plan, mode: Mode, replies: Vec<(u64, LegacyResult)>) -> Harness<'_> {
    let mut harness = Harness::new(plan, mode, json!({"body": {"items": [1, 2]}}));
    harness.inputs.legacy_replies = Some(Arc::new(MadeByLegacy(replies)));
    harness.settle();
    harness
}

fn reply(status: u16, output: Value) -> LegacyResult {
    let headers = BTreeMap::from([("x-trace".to_owned(), "t1".to_owned())]);
    LegacyResult::Reply { status, headers, output: Arc::new(output) }
}

const CHARGE: &str = "
workflow: w
steps:
  charge: { call: 'POST ${services.bank}/charges', accept: [2xx, 402], rehearse: legacy }
respond:
  - { when: '${failed != null}', status: 409, body: '${failed.status}' }
  - status: '${steps.charge.status}'
    body: { of: '${steps.charge.output.id}', trace: '${steps.charge.headers[\"x-trace\"]}' }
";

#[test]
fn a_rehearsed_call_takes_the_reply_that_legacy_got() {
    let plan = plan(CHARGE);
    for mode in [Mode::Rehearse, Mode::Dark] {
        for status in [201, 402] {
            let harness = of_legacy(&plan, mode, vec![(7, reply(status, json!({"id": "c1"})))]);
            let answer = harness.run.answer().unwrap();
            assert_eq!((answer.status, answer.body.value()), (status, json!({"of": "c1", "trace": "t1"})));
            assert_eq!(harness.run.assigned_call(&"charge".into(), None), Some(7));
            assert!(harness.sent.is_empty() && harness.run.intents().count() == 1, "{mode:?}");
        }
    }
}

#[test]
fn a_refusal_that_legacy_got_fails_the_step_and_the_intent_is_kept() {
    let plan = plan(CHARGE);
    let harness = of_legacy(&plan, Mode::Rehearse, vec![(7, reply(400, json!({"why": "no"})))]);
    let answer = harness.run.answer().unwrap();
    assert_eq!((answer.status, answer.body.value()), (409, json!(400)));
    assert_eq!(harness.run.failure().unwrap().kind, FailureKind::Refused);
    assert_eq!((harness.run.intents().count(), harness.run.assigned_call(&"charge".into(), None)), (1, Some(7)));
}

#[test]
fn without_a_call_by_legacy_that_has_a_result_the_output_is_unresolved() {
    let plan = plan(CHARGE);
    for (replies, why) in [
        (vec![], "legacy made no POST"),
        (vec![(7, reply(503, json!({})))], "the service answered 503"),
        (vec![(7, LegacyResult::None { why: "it got no reply".into() })], "it got no reply"),
    ] {
        let harness = of_legacy(&plan, Mode::Rehearse, replies);
        let failure = harness.run.failure().unwrap();
        assert_eq!(failure.kind, FailureKind::Unresolved, "{failure:?}");
        assert!(failure.message.contains(why), "{}", failure.message);
        assert_eq!((harness.run.intents().count(), harness.run.assigned_call(&"charge".into(), None)), (1, None));
    }
    // As after a restart of the process.
    let mut harness = Harness::new(&plan, Mode::Dark, json!({}));
    harness.settle();
    assert!(harness.run.failure().unwrap().message.contains("not known (any more)"), "{:?}", harness.run.failure());
}

/// Notes the bodies that the other items of a step would send.
#[derive(Default)]
struct NotedSiblings(std::sync::Mutex<Vec<Vec<(u32, Value)>>>);

impl LegacyReplies for NotedSiblings {
    fn reply_to(&self, of: &RehearsedCall<'_>, assigned: &BTreeSet<u64>) -> Result<LegacyReply, String> {
        let siblings = (of.siblings)().into_iter().map(|(item, call)| (item, call.body.value())).collect();
        self.0.lock().unwrap().push(siblings);
        Ok(LegacyReply { call: assigned.len() as u64, result: reply(201, json!({})) })
    }
}

#[test]
fn items_that_have_not_begun_are_named_when_calls_by_legacy_are_assigned() {
    let plan = plan(
        "
workflow: w
steps:
  reserve:
    for_each: '${request.body.items}'
    call: 'POST ${services.stock}/reservations'
    body: { sku: '${item}' }
    rehearse: legacy
  charge: { needs: [reserve], call: 'POST ${services.bank}/charges', rehearse: legacy }
respond: { status: 200, body: {} }
",
    );
    let noted = Arc::new(NotedSiblings::default());
    let mut harness = Harness::new(&plan, Mode::Rehearse, json!({"body": {"items": ["a", "b", "c"]}}));
    harness.inputs.legacy_replies = Some(Arc::clone(&noted) as _);
    harness.settle();
    let [_, b, c] = ["a", "b", "c"].map(|sku| json!({ "sku": sku }));
    let expected = [vec![(1, b), (2, c.clone())], vec![(2, c)], vec![], vec![]];
    assert_eq!(*noted.0.lock().unwrap(), expected, "a step that makes one call has no items");
}

#[test]
fn a_call_by_legacy_is_assigned_once() {
    let plan = plan(
        "
workflow: w
steps:
  charge: { for_each: '${request.body.items}', call: 'POST ${services.bank}/charges', rehearse: legacy }
respond: { status: 200, body: '${steps.charge.output}' }
",
    );
    let replies = vec![(7, reply(200, json!("a"))), (9, reply(200, json!("b")))];
    let harness = of_legacy(&plan, Mode::Rehearse, replies.clone());
    assert_eq!(harness.run.answer().unwrap().body.value(), json!(["a", "b"]));
    let assigned = [0, 1].map(|item| harness.run.assigned_call(&"charge".into(), Some(item)));
    assert_eq!(assigned, [Some(7), Some(9)]);
    let harness = of_legacy(&plan, Mode::Rehearse, replies[..1].to_vec());
    assert_eq!(harness.run.failure().unwrap().kind, FailureKind::Unresolved);
}

#[test]
fn a_reply_that_does_not_fit_the_schema_fails_the_step() {
    let plan = plan(
        "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    output: { schema: { type: object, required: [id] } }
    rehearse: legacy
respond: { status: 200, body: '${steps.charge.output.id}' }
",
    );
    let harness = of_legacy(&plan, Mode::Rehearse, vec![(7, reply(200, json!({"no": "id"})))]);
    assert_eq!(harness.run.failure().unwrap().kind, FailureKind::Schema);
    assert_eq!(harness.run.intents().count(), 1);
}

const DRAWS: &str = "
workflow: w
inject:
  now: '${legacy.body.at}'
  uuid: { order: '${legacy.body.id}' }
  random: { lot: '${legacy.body.lot}' }
steps:
  a: { set: { at: '${now}', id: '${uuid(\"order\")}', other: '${uuid(\"other\")}', lot: '${random(\"lot\")}' } }
respond: { status: 200, body: '${steps.a.output}' }
";

/// What a run of this mode evaluates, where legacy answered with this body.
fn drawn(mode: Mode, body: Value) -> Value {
    drawn_at(mode, body, Timestamp::UNIX_EPOCH)
}

fn drawn_at(mode: Mode, body: Value, now: Timestamp) -> Value {
    let plan = plan(DRAWS);
    let legacy = Arc::new(json!({ "status": 200, "headers": {}, "body": body }));
    let mut first = started(&plan, mode, json!({}));
    let inject = plan.inject.as_ref().expect("it is declared");
    first.injected = inject.values(mode, &first.request, Some(&legacy));
    let run = fold([&Event::RunStarted(Arc::new(first))]).unwrap();
    let scope = inputs().at(now).plain(&run);
    let read = |text: &str| Template::parse_str(text).unwrap().evaluate(&scope).unwrap();
    json!({
        "at": read("${now}"), "id": read("${uuid('order')}"), "other": read("${uuid('other')}"),
        "lot": read("${random('lot')}"),
    })
}

#[test]
fn a_rehearsal_has_legacys_time_ids_and_random_numbers() {
    let own = drawn(Mode::Real, json!({}));
    assert_eq!(own["at"], "1970-01-01T00:00:00Z");
    let body = json!({ "at": "2026-11-26T10:00:00Z", "id": 4711, "lot": 0.25 });
    let injected = drawn(Mode::Rehearse, body.clone());
    assert_eq!(injected["at"], "2026-11-26T10:00:00Z");
    assert_eq!((&injected["id"], &injected["lot"]), (&json!("4711"), &json!(0.25)), "an id is a text here");
    assert_eq!(injected["other"], own["other"], "what is not named is drawn");
    let later = |ms| drawn_at(Mode::Rehearse, body.clone(), Timestamp::from_millisecond(ms).unwrap())["at"].clone();
    assert_eq!((later(999), later(61_500)), (json!("2026-11-26T10:00:00Z"), json!("2026-11-26T10:01:01Z")));
    for mode in [Mode::Dark, Mode::Real] {
        assert_eq!(drawn(mode, body.clone()), own, "only a rehearsal: {mode:?}");
    }
}

#[test]
fn a_value_that_legacys_reply_lacks_is_generated() {
    let own = drawn(Mode::Real, json!({}));
    for body in [json!({}), json!(null), json!({ "at": "soon", "id": "", "lot": "many" }), json!({ "id": [1] })] {
        assert_eq!(drawn(Mode::Rehearse, body.clone()), own, "{body}");
    }
    let http = drawn(Mode::Rehearse, json!({ "at": "Thu, 26 Nov 2026 10:00:00 GMT" }));
    assert_eq!(http["at"], "2026-11-26T10:00:00Z");
}

#[test]
fn injected_values_are_not_stored_in_the_first_event() {
    let plan = plan(DRAWS);
    let mut first = started(&plan, Mode::Rehearse, json!({}));
    let before = serde_json::to_value(&first).unwrap();
    first.injected = Some(Default::default());
    assert_eq!(serde_json::to_value(&first).unwrap(), before);
}

/// A time that lay ahead of the captured run lies ahead of the one that repeats it, whatever the day today is.
#[test]
fn a_run_that_repeats_one_of_the_past_waits_until_times_of_its_own_clock() {
    let plan = plan(
        "workflow: w\nsteps:\n  gone: { wait: { until: '2026-01-02T03:00:00Z' } }\n  \
         later: { needs: [gone], wait: { until: '2026-01-02T04:00:00Z' } }\n\
         respond: { status: 200, body: { at: '${now}', began: '${run.started}' } }\n",
    );
    for past in ["2026-01-02T03:59:00Z", "2026-01-02T03:59:00.75Z"] {
        let begun: Timestamp = "2031-05-06T07:08:09Z".parse().unwrap();
        let injected = Injected::default().begun_at(past.parse().unwrap());
        let first = RunStarted {
            started: begun,
            injected: Some(Arc::new(injected)),
            ..started(&plan, Mode::Rehearse, json!({}))
        };
        let mut harness = Harness::of_first_event(&plan, Event::RunStarted(Arc::new(first)));
        harness.now = begun;
        harness.settle();
        let waited = harness.now.duration_since(begun).as_secs();
        assert_eq!(waited, 60, "{past}: the first wait ends at once");
        let body: Value = serde_json::from_slice(&harness.run.answer().expect("an answer").body.bytes()).unwrap();
        let at: Timestamp = body["at"].as_str().unwrap().parse().unwrap();
        assert!(at >= "2026-01-02T04:00:00Z".parse().unwrap(), "{past}: {at}");
    }
}
