//! Probes of attempts with unknown outcome, and from when on a "no" counts.

use super::harness::{plan, take_output, timed_out};
use super::*;
use crate::workflow::{Choice, ConflictKind, ControlCommand, StepPart, rerun};

const PROBED: &str = "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    retry: { attempts: 2, base: 1ms, max: 1ms }
    probe:
      call: GET ${services.bank}/charges?key=${key}
      retry: { attempts: 2 }
      done: ${output.found}
      output: ${output.charge}
    output: { schema: { required: [id] } }
respond: { status: 200, body: '${steps.charge.output}' }
";

#[test]
fn a_probe_tells_whether_an_attempt_with_unknown_outcome_took_effect() {
    let plan = plan(PROBED);
    let probing = || {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        let key = harness.run.attempt(&"charge".into(), None, StepPart::Do).unwrap().key.unwrap();
        harness.call("charge", timed_out());
        assert_eq!(
            (harness.in_flight_names(), harness.run.status()),
            (vec!["probe charge".to_owned()], RunStatus::Running)
        );
        let probe = harness.run.attempt(&"charge".into(), None, StepPart::Probe).unwrap();
        assert!(probe.request.url.ends_with(&format!("?key={key}")), "{}", probe.request.url);
        harness
    };
    let mut yes = probing();
    yes.record_result("charge", None, StepPart::Probe, ok(json!({"found": true, "charge": {"id": 3}})));
    assert_eq!(yes.run.answer().unwrap().body.value(), json!({"id": 3}));
    let mut no = probing();
    no.record_result("charge", None, StepPart::Probe, status(429));
    let left = no.now;
    while no.in_flight_names() == ["probe charge"] {
        let asked = no.now;
        no.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
        assert!(no.in_flight_names() == ["charge"] || no.now > asked, "the probe is repeated, later each time");
    }
    assert_eq!(no.in_flight_names(), ["charge"], "the attempt counts as not done, and one more attempt is left");
    assert!(
        no.now.duration_since(left).as_secs() >= 28,
        "the \"no\" counts only after the first attempt can no longer take effect"
    );
    no.call("charge", status(429));
    assert_eq!(no.run.failure().unwrap().kind, FailureKind::Unavailable);
    let mut unsure = probing();
    unsure.record_result("charge", None, StepPart::Probe, ok(json!({})));
    let conflict = unsure.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::OutcomeUnknown);
    assert!(conflict.message.contains("could not say"), "{}", conflict.message);
    let bad = unsure.choose("charge", None, take_output(json!({}))).unwrap_err();
    assert!(
        matches!(bad, CommandRefusal::BadValues(_)),
        "an output that a person gives is checked against the schema: {bad}"
    );
    unsure.choose("charge", None, take_output(json!({"id": 4}))).unwrap();
    assert_eq!(unsure.run.answer().unwrap().body.value(), json!({"id": 4}));
}

/// The names of the reply's headers are in lower case; `done` may write them in any case.
#[test]
fn a_probe_finds_a_header_in_any_case_of_its_name() {
    for done in ["${\"X-Charge-Id\" in headers}", "${default(headers[\"X-Charge-Id\"], \"\") != \"\"}"] {
        let plan = plan(
            &PROBED
                .replace("${output.found}", &format!("'{done}'"))
                .replace("${output.charge}", "{ id: '${headers[\"X-CHARGE-ID\"]}' }"),
        );
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        harness.call("charge", timed_out());
        let reply = AttemptResult::Reply {
            status: 200,
            headers: BTreeMap::from([("x-charge-id".to_owned(), "c7".to_owned())]),
            output: Arc::default(),
            retry_after_ms: None,
        };
        harness.record_result("charge", None, StepPart::Probe, reply);
        assert_eq!(harness.run.status(), RunStatus::Completed, "{done}: {:?}", harness.run.note());
        assert_eq!(harness.run.answer().unwrap().body.value(), json!({"id": "c7"}));
        let sent = harness.sent.iter().filter(|(.., effect)| *effect == EffectClass::Shared).count();
        assert_eq!(sent, 1, "the probe has found the charge, so the charge is not sent again");
    }
}

/// A service commits late, after the probe's first "no". A later probe finds this, and nothing is sent again.
#[test]
fn a_probe_s_no_counts_only_when_the_attempt_can_no_longer_take_effect() {
    let plan = plan(PROBED);
    for (result, commits_after) in
        [(timed_out(), 3), (timed_out(), 29), (AttemptResult::Interrupted, 20), (status(503), 29)]
    {
        let mut harness = Harness::of_route(&plan);
        harness.settle();
        let sent = harness.now;
        harness.call("charge", result);
        let mut asked = 0;
        while harness.in_flight_names() == ["probe charge"] {
            asked += 1;
            let committed = harness.now.duration_since(sent).as_secs() >= commits_after;
            let said = if committed { json!({"found": true, "charge": {"id": 3}}) } else { json!({"found": false}) };
            harness.record_result("charge", None, StepPart::Probe, ok(said));
        }
        assert!((2..=12).contains(&asked), "with back-off: {asked}");
        assert_eq!(
            harness.run.answer().map(|answer| answer.body.value()),
            Some(json!({"id": 3})),
            "{:?}",
            harness.kinds()
        );
        let attempts =
            harness.events.iter().filter(|event| matches!(event, Event::StepStarted(s) if s.part == StepPart::Do));
        assert_eq!(attempts.count(), 1, "charged once");
    }
}

/// The time-out of steps that declare none may be raised after the plan was made.
#[test]
fn an_attempt_may_take_effect_for_as_long_as_its_step_may_take() {
    for (timeout, settles, seconds) in [("", "10s", 60), ("    timeout: 1s\n", "10s", 10), ("", "90s", 90)] {
        let times = format!("{timeout}    probe:\n      settles: {settles}\n");
        let plan = plan(&PROBED.replace("    probe:\n", &times));
        let mut harness = Harness::of_route(&plan);
        harness.inputs = harness.inputs.with_timeout(std::time::Duration::from_secs(60));
        harness.settle();
        let ended = harness.now;
        harness.call("charge", timed_out());
        while harness.in_flight_names() == ["probe charge"] {
            harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
        }
        let waited = harness.now.duration_since(ended).as_secs();
        assert!((seconds..=seconds + seconds / 2 + 1).contains(&waited), "{timeout} {settles}: {waited} s");
    }
}

/// The machine's clock is set ahead between two processes, so that a time recorded in an event is reached too early.
#[test]
fn after_a_restart_a_probe_s_no_counts_only_when_the_new_process_has_waited_too() {
    let plan = plan(PROBED);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    harness.now += SignedDuration::from_secs(3600);
    let restarted = harness.now;
    harness.inputs = harness.inputs.clone().with_start(restarted);
    while harness.in_flight_names() == ["probe charge"] {
        harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    }
    assert_eq!(harness.in_flight_names(), ["charge"], "sent again");
    assert_eq!(harness.now.duration_since(restarted).as_secs(), 30);
}

/// The time is in the events, so a run that is folded again has the same time. Events of an older version lack the
/// time: it then counts from the probe's next answer.
#[test]
fn the_time_at_which_a_probe_s_no_counts_is_computed_from_events() {
    let plan = plan(PROBED);
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    let again = crate::workflow::fold(&harness.events).unwrap();
    let settled =
        |run: &Run| run.call_state(&"charge".into(), None, StepPart::Do).and_then(|call| call.may_take_effect_until);
    assert_eq!(settled(&again), Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(30)));
    let mut older = harness.events.clone();
    older.truncate(older.iter().position(|event| event.kind() == "retry_scheduled").unwrap() + 1);
    let Some(Event::RetryScheduled(retry)) = older.last_mut() else {
        panic!("the attempt with an unknown outcome is retried")
    };
    retry.may_take_effect_until = None;
    harness.run = crate::workflow::fold(&older).unwrap();
    harness.events = older;
    harness.settle();
    let asked = harness.now;
    harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    assert_eq!(settled(&harness.run), Some(asked + SignedDuration::from_secs(30)));
}

/// While the probe has not answered, or has said "no" too early, the attempt could still take effect in addition to
/// that of the rerun.
#[test]
fn a_rerun_waits_for_the_probe() {
    let plan = plan(
        "
workflow: w
steps:
  charge:
    call: POST ${services.bank}/charges
    retry: { attempts: 1 }
    probe: { call: 'GET ${services.bank}/charges', retry: { attempts: 1 }, settles: 5m, done: '${output.found}' }
respond: { status: 200 }
",
    );
    let refused = |harness: &Harness<'_>| {
        let why = rerun(&harness.run, harness.plan, &"charge".into()).unwrap_err().to_string();
        assert!(why.contains("probe"), "{why}");
    };
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.reply("charge", None, timed_out()).unwrap();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    refused(&harness); // the probe is due
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    harness.settle();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    refused(&harness); // the probe is under way
    harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    assert!(harness.run.in_flight().is_empty() && harness.run.is_paused());
    refused(&harness); // the probe is due again, because the "no" came too early
    let hand_over =
        ControlCommand::HandOver { to: RunId(uuid::Uuid::from_u128(77)), from: "charge".into(), sealed: None };
    assert!(harness.give_command_by("ann", hand_over).is_err());
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    while harness.run.failure().is_none() {
        harness.settle();
        harness.record_result("charge", None, StepPart::Probe, ok(json!({"found": false})));
    }
    assert!(rerun(&harness.run, &plan, &"charge".into()).is_ok(), "the attempt was certainly not done");
}

#[test]
fn a_retry_command_sends_a_waiting_probe_at_once() {
    let plan =
        plan(&PROBED.replace("      retry: { attempts: 2 }", "      retry: { attempts: 2, base: 10s, max: 10s }"));
    let mut harness = Harness::of_route(&plan);
    harness.settle();
    harness.call("charge", timed_out());
    let attempt = harness.run.attempt(&"charge".into(), None, StepPart::Probe).unwrap().attempt;
    let step = plan.step(&"charge".into()).unwrap().0;
    let (result, part) = (status(429), StepPart::Probe);
    harness
        .command(Command::Record { step, item: None, part, attempt, result, may_be_repeat: false, jitter: 1.0 })
        .unwrap();
    harness.perform_due();
    assert!(harness.in_flight_names().is_empty(), "the probe waits for 10 s");
    harness.give_command_by("ann", ControlCommand::Retry { step: Some("charge".into()), attempt: None }).unwrap();
    assert_eq!(harness.in_flight_names(), ["probe charge"]);
}

const WITH_ANOTHER: &str = "
workflow: w
deadline: 10s
steps:
  charge:
    call: POST ${services.bank}/charges
    probe: { call: 'GET ${services.bank}/charges?key=${key}', done: '${output.found}', output: '${output.charge}' }
    output: { schema: { required: [id] } }
    undo: DELETE ${services.bank}/charges/1
  other: { call: 'POST ${services.bank}/other' }
respond: { status: 200 }
";

/// The probe says that the charge was done, and its output does not fit: the run pauses over that alone.
fn paused_over_output(plan: &Plan) -> Harness<'_> {
    let mut harness = Harness::of_api(plan);
    harness.settle();
    harness.call("charge", timed_out());
    harness.now += std::time::Duration::from_secs(2);
    harness.perform_due();
    let unfit = ok(json!({ "found": true, "charge": {} }));
    harness.record_result("charge", None, StepPart::Probe, unfit);
    assert_eq!(harness.run.conflict().unwrap().kind, ConflictKind::Schema);
    harness
}

#[test]
fn a_call_that_the_probe_found_done_is_undone_if_another_step_fails() {
    let plan = plan(WITH_ANOTHER);
    let mut harness = paused_over_output(&plan);
    harness.call("other", status(400));
    assert!(harness.run.conflict().is_none(), "it is known what was done");
    assert_eq!(harness.in_flight_names(), ["undo charge"]);
    harness.undo("charge", ok(json!({})));
    assert_eq!((harness.status(), harness.run.unknown.len()), (RunStatus::Failed, 0));
    assert_eq!(fold(&harness.events).unwrap(), harness.run);
}

#[test]
fn a_call_that_the_probe_found_done_is_not_unknown_if_a_person_skips_its_step() {
    let plan = plan(WITH_ANOTHER);
    let mut harness = paused_over_output(&plan);
    harness.choose("charge", None, Choice::Skip).unwrap();
    harness.call("other", status(400));
    assert_eq!(harness.in_flight_names(), ["undo charge"]);
    harness.undo("charge", ok(json!({})));
    assert_eq!((harness.status(), harness.run.unknown.len()), (RunStatus::Failed, 0));
}

/// Earlier versions kept the conflict open while the run ended, until a person decided.
#[test]
fn the_events_of_earlier_versions_still_fit() {
    let plan = plan(WITH_ANOTHER);
    for choice in [Choice::Skip, take_output(json!({ "id": 1 })), Choice::Cancel { compensate: true }] {
        let mut harness = paused_over_output(&plan);
        // The other step fails, and nothing else is decided before the person's choice.
        harness
            .command(Command::Record {
                step: plan.step(&"other".into()).unwrap().0,
                item: None,
                part: StepPart::Do,
                attempt: 1,
                result: status(400),
                may_be_repeat: false,
                jitter: 0.5,
            })
            .unwrap();
        assert!(harness.run.conflict().is_some(), "{choice:?}");
        harness.choose("charge", None, choice.clone()).unwrap();
        assert_eq!(harness.in_flight_names(), ["undo charge"], "{choice:?}");
        harness.undo("charge", ok(json!({})));
        assert!(harness.run.is_final(), "{choice:?}");
        assert_eq!(fold(&harness.events).unwrap(), harness.run);
    }
}
