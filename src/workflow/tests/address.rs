//! Services whose base URL changed between two attempts: a call that may have been done at the old URL is not sent to
//! the new URL.

mod changed_secrets;

use super::harness::timed_out;
use super::*;
use crate::limits::Limits;
use crate::workflow::address::{CallChange, moved_calls};
use crate::workflow::{CallRecord, Choice, ConflictKind, DeclaredNames, StepPart};

/// Steps that call a service that honours idempotency keys, without and with a secret in a header or the URL.
const CALLS: [&str; 4] = [
    "call: 'POST ${services.stock}/charges'",
    "call: 'POST ${services.stock}/charges?x=${request.body.items[0]}'",
    "call: 'POST ${services.stock}/charges', headers: { authorization: 'Bearer ${secrets.bank}' }",
    "call: 'POST ${services.stock}/charges/${secrets.bank}?x=${request.body.items[0]}'",
];

fn plan_of(call: &str, more: &str) -> Plan {
    let yaml = format!(
        "
workflow: w
steps:
  first: {{ call: 'POST ${{services.bank}}/first', undo: 'DELETE ${{services.bank}}/first' }}
  charge: {{ needs: [first], {call}, body: {{ n: 1 }}, retry: {{ attempts: 3, base: 1ms, max: 1ms }}, {more} }}
respond: {{ status: 200 }}
"
    );
    let source: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    let services = BTreeMap::from([(ServiceName::from("bank"), false), (ServiceName::from("stock"), true)]);
    let secrets = BTreeSet::from(["bank".to_owned()]);
    let known =
        DeclaredNames { services: &services, secrets: &secrets, has_store_key: true, limits: &Limits::default() };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{yaml}\n{problems:#?}"))
}

fn set_base_url(harness: &mut Harness<'_>, service: &str, base: &str) {
    Arc::make_mut(&mut harness.inputs.services)[service] = json!(base);
}

/// A run at its first attempt of `charge`, which goes to `http://old`.
fn charging(plan: &Plan) -> Harness<'_> {
    charging_with(plan, |_| ())
}

fn charging_with<'p>(plan: &'p Plan, set: impl FnOnce(&mut Harness<'p>)) -> Harness<'p> {
    let mut harness = Harness::of_route(plan);
    set(&mut harness);
    set_base_url(&mut harness, "stock", "http://old");
    set_base_url(&mut harness, "bank", "http://bank");
    harness.settle();
    harness.call("first", ok(json!({})));
    assert_eq!(harness.in_flight_names(), ["charge"]);
    harness
}

fn attempt(harness: &Harness<'_>) -> (u32, Arc<CallRecord>, String) {
    let attempt = harness.run.attempt(&"charge".into(), None, StepPart::Do).expect("the attempt is under way");
    (attempt.attempt, attempt.request, attempt.key.expect("a shared step has a key"))
}

/// The same request at another base URL.
fn moved(record: &CallRecord, to: &str) -> CallRecord {
    CallRecord { url: record.url.replace("http://old", to), ..record.clone() }
}

/// Ends the attempt of `charge` with an unknown outcome: by a time-out, or (`is_crash`) because the process ended while
/// the call was in flight, and it was not sent again, because the new process has another URL.
fn ends_unknown(harness: &mut Harness<'_>, is_crash: bool) {
    let (index, number) = (harness.plan.step(&"charge".into()).unwrap().0, attempt(harness).0);
    let result = if is_crash { AttemptResult::Missing("x".into()) } else { timed_out() };
    let (item, part) = (None, StepPart::Do);
    harness
        .command(Command::Record {
            step: index,
            item,
            part,
            attempt: number,
            result,
            may_be_repeat: is_crash,
            jitter: 0.5,
        })
        .unwrap();
}

fn assert_paused(harness: &Harness<'_>) {
    let conflict = harness.run.conflict().expect("a conflict is open");
    assert_eq!((conflict.kind, conflict.step.as_str()), (ConflictKind::OutcomeUnknown, "charge"));
    for part in ["http://old/charges", "`stock` is at http://new now"] {
        assert!(conflict.message.contains(part), "{}", conflict.message);
    }
    assert!(!conflict.message.contains("x="), "the message must not repeat the query: {}", conflict.message);
    assert!(
        conflict.key.is_some() && conflict.request.is_some(),
        "with the key and the request a person can ask the service"
    );
    assert!(!conflict.choices.contains(&"fallback".to_owned()), "the call may have been done");
    assert!(harness.in_flight_names().is_empty() && harness.due().is_empty());
}

#[test]
fn an_unknown_attempt_is_repeated_only_at_the_address_that_it_went_to() {
    for (call, is_crash) in CALLS.iter().flat_map(|call| [(call, false), (call, true)]) {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        let first = attempt(&harness);
        assert!(first.1.url.starts_with("http://old/charges"), "{}", first.1.url);
        ends_unknown(&mut harness, is_crash);
        set_base_url(&mut harness, "stock", "http://new");
        harness.settle();
        assert_paused(&harness);
        // The files name the old address again: the same request is sent there.
        let mut back = harness;
        set_base_url(&mut back, "stock", "http://old");
        back.choose("charge", None, Choice::Retry).unwrap();
        assert_eq!(attempt(&back), (2, first.1.clone(), first.2.clone()));
        // The reply is lost once more, and the address has not changed: the attempt is repeated without a person.
        back.call("charge", timed_out());
        assert_eq!(attempt(&back), (3, first.1, first.2));
    }
}

#[test]
fn calls_of_unknown_outcome_at_another_address_are_listed() {
    for call in CALLS {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        let listed = |harness: &Harness<'_>| {
            let found = moved_calls(&harness.run, harness.plan, &harness.inputs).into_iter();
            let parts = |((step, item), change)| match change {
                CallChange::Address { service, from, to } => (step, item, service, from, to),
                CallChange::Secret { .. } => panic!("no secret was changed"),
            };
            found.map(parts).collect::<Vec<_>>()
        };
        assert_eq!(listed(&harness), []);
        set_base_url(&mut harness, "stock", "http://new");
        let [(step, item, service, from, to)] = &listed(&harness)[..] else { panic!("one call is under way") };
        assert_eq!((step.as_str(), *item, service.as_str(), to.as_str()), ("charge", None, "stock", "http://new"));
        assert!(from.starts_with("http://old/charges") && !from.contains('?'), "{from}");
        set_base_url(&mut harness, "stock", "http://old");
        ends_unknown(&mut harness, false);
        set_base_url(&mut harness, "stock", "http://new");
        harness.settle();
        assert_paused(&harness);
        assert_eq!(listed(&harness).len(), 1, "a call in conflict is listed, too");
        harness.choose("charge", None, Choice::Skip).unwrap();
        assert_eq!(listed(&harness), []);
    }
}

#[test]
fn a_person_may_send_an_unknown_attempt_to_the_new_address() {
    for call in CALLS {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        let (_, request, key) = attempt(&harness);
        ends_unknown(&mut harness, false);
        set_base_url(&mut harness, "stock", "http://new");
        harness.settle();
        harness.choose("charge", None, Choice::Retry).unwrap();
        let there = Arc::new(moved(&request, "http://new"));
        assert_eq!(attempt(&harness), (2, there.clone(), key.clone()));
        // From now on the attempt counts as sent to the new address.
        harness.call("charge", timed_out());
        assert_eq!(attempt(&harness), (3, there, key));
        ends_unknown(&mut harness, false);
        set_base_url(&mut harness, "stock", "http://old");
        harness.settle();
        assert_eq!(harness.run.conflict().map(|conflict| conflict.kind), Some(ConflictKind::OutcomeUnknown));
    }
}

/// The person decides about a conflict that was opened before the service moved, and that names no address.
#[test]
fn a_person_who_was_not_told_of_the_move_is_asked_again() {
    for call in CALLS {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        for _ in 0..3 {
            harness.call("charge", timed_out());
        }
        let conflict = harness.run.conflict().expect("the attempts are used up");
        assert_eq!(conflict.kind, ConflictKind::OutcomeUnknown);
        assert!(!conflict.message.contains("http://old"), "{}", conflict.message);
        set_base_url(&mut harness, "stock", "http://new");
        harness.choose("charge", None, Choice::Retry).unwrap();
        assert_paused(&harness);
        harness.choose("charge", None, Choice::Retry).unwrap();
        assert!(attempt(&harness).1.url.starts_with("http://new/charges"));
    }
}

/// The service itself may send a text like the message of a conflict over a changed base URL. Such a text does not
/// count as that message: the person was not told of the change, so a retry asks again.
#[test]
fn only_a_conflict_over_a_changed_base_url_tells_the_person_of_the_change() {
    let plan = plan_of(CALLS[0], "");
    let mut harness = charging(&plan);
    for _ in 0..3 {
        harness.call("charge", AttemptResult::CutOff("that attempt went to http://old/charges".into()));
    }
    let conflict = harness.run.conflict().expect("the attempts are used up");
    assert!(conflict.message.contains("that attempt went to"), "{}", conflict.message);
    // A conflict that an earlier version recorded is recognised by its message only.
    let mut stored = serde_json::to_value(conflict).unwrap();
    stored.as_object_mut().unwrap().remove("names_earlier_url").expect("the field is stored");
    let earlier: crate::workflow::Conflict = serde_json::from_value(stored).unwrap();
    assert!(earlier.names_earlier_url() && !conflict.names_earlier_url());
    set_base_url(&mut harness, "stock", "http://new");
    harness.choose("charge", None, Choice::Retry).unwrap();
    assert_paused(&harness);
    assert!(harness.run.conflict().unwrap().names_earlier_url());
    harness.choose("charge", None, Choice::Retry).unwrap();
    assert!(attempt(&harness).1.url.starts_with("http://new/charges"));
}

/// The conflict over a missing service names no address, so neither a person nor a reload that ends the conflict agrees
/// to a new address.
#[test]
fn a_service_that_was_missing_and_comes_back_elsewhere_gets_no_unknown_attempt() {
    for (call, by_person) in CALLS.iter().flat_map(|call| [(call, false), (call, true)]) {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        ends_unknown(&mut harness, false);
        let services = Arc::make_mut(&mut harness.inputs.services).as_object_mut().expect("a map");
        services.remove("stock");
        harness.settle();
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Missing));
        if by_person {
            harness.choose("charge", None, Choice::Retry).unwrap();
            assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::Missing));
        }
        set_base_url(&mut harness, "stock", "http://new");
        harness.settle();
        assert_paused(&harness);
    }
}

#[test]
fn an_attempt_that_was_not_done_goes_to_the_present_address() {
    for call in CALLS {
        let plan = plan_of(call, "");
        let mut harness = charging(&plan);
        let (_, request, key) = attempt(&harness);
        harness.reply("charge", None, status(429)).unwrap();
        set_base_url(&mut harness, "stock", "http://new/v1");
        harness.settle();
        let there = Arc::new(moved(&request, "http://new/v1"));
        assert_eq!(attempt(&harness), (2, there.clone(), key.clone()));
        // The attempt at the new address may have taken effect there, so it is repeated there.
        harness.call("charge", timed_out());
        assert_eq!(attempt(&harness), (3, there, key));
    }
}

/// Two addresses are different even if one of them begins with the other.
#[test]
fn an_address_is_compared_as_a_whole() {
    for (call, (from, to)) in CALLS.iter().flat_map(|call| {
        [("http://old", "http://old/v1"), ("http://old/v1", "http://old"), ("http://old:90", "http://old:9")]
            .map(|pair| (call, pair))
    }) {
        let plan = plan_of(call, "");
        let mut harness = Harness::of_route(&plan);
        set_base_url(&mut harness, "stock", from);
        harness.settle();
        harness.call("first", ok(json!({})));
        ends_unknown(&mut harness, false);
        set_base_url(&mut harness, "stock", to);
        harness.settle();
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::OutcomeUnknown), "{from} {to}");
    }
}

/// A "no" from the new address proves nothing about an attempt that went to the old one.
#[test]
fn a_probe_is_sent_only_to_the_address_of_the_attempt() {
    let probe = "probe: { call: 'GET ${services.stock}/charges?key=${key}', retry: { attempts: 3 }, done: '${output.found}' }, timeout: 1s";
    for (call, asked) in CALLS.iter().flat_map(|call| [(call, false), (call, true)]) {
        let plan = plan_of(&call.replace("POST", "PATCH"), &format!("{probe}, effect: shared"));
        let mut harness = charging(&plan);
        for _ in 0..2 {
            harness.call("charge", timed_out());
        }
        harness.reply("charge", None, timed_out()).unwrap();
        if asked {
            harness.settle();
            assert_eq!(harness.in_flight_names(), ["probe charge"]);
            let no = ok(json!({"found": false}));
            let (index, part) = (plan.step(&"charge".into()).unwrap().0, StepPart::Probe);
            let record = Command::Record {
                step: index,
                item: None,
                part,
                attempt: 1,
                result: no,
                may_be_repeat: false,
                jitter: 0.5,
            };
            harness.command(record).unwrap();
        }
        set_base_url(&mut harness, "stock", "http://new");
        harness.settle();
        assert_paused(&harness);
        let sent = |part: StepPart| {
            let of = |event: &&Event| matches!(event, Event::StepStarted(s) if s.step.as_str() == "charge" && s.part == part);
            harness.events.iter().filter(of).count()
        };
        assert_eq!((sent(StepPart::Do), sent(StepPart::Probe)), (3, usize::from(asked)));
    }
}

#[test]
fn an_unknown_undo_is_repeated_only_at_the_address_that_it_went_to() {
    let plan = plan_of(CALLS[0], "");
    for is_unknown in [true, false] {
        let mut harness = charging(&plan);
        harness.call("charge", status(400));
        assert_eq!(harness.in_flight_names(), ["undo first"]);
        let undo = |harness: &Harness<'_>| harness.run.attempt(&"first".into(), None, StepPart::Undo).unwrap();
        let first = undo(&harness);
        let (index, item, part) = (plan.step(&"first".into()).unwrap().0, None, StepPart::Undo);
        let result = if is_unknown { timed_out() } else { status(429) };
        harness
            .command(Command::Record { step: index, item, part, attempt: 1, result, may_be_repeat: false, jitter: 0.5 })
            .unwrap();
        set_base_url(&mut harness, "bank", "http://new");
        harness.settle();
        if is_unknown {
            let conflict = harness.run.conflict().unwrap();
            assert_eq!((conflict.kind, conflict.part), (ConflictKind::UndoUnknown, StepPart::Undo));
            assert!(conflict.message.contains("http://bank/first"), "{}", conflict.message);
            assert!(conflict.message.contains("`bank` is at http://new now"), "{}", conflict.message);
            harness.choose("first", None, Choice::Retry).unwrap();
        }
        let second = undo(&harness);
        assert_eq!((second.attempt, second.request.url.as_str(), second.key), (2, "http://new/first", first.key));
        harness.undo("first", ok(json!({})));
        assert!(harness.run.is_final());
    }
}

/// A read has no effect, so it goes to the service's present address.
#[test]
fn a_read_is_repeated_at_the_present_address() {
    let plan = plan_of("call: 'GET ${services.stock}/prices'", "");
    let mut harness = charging(&plan);
    harness.reply("charge", None, timed_out()).unwrap();
    set_base_url(&mut harness, "stock", "http://new");
    harness.settle();
    let read = harness.run.attempt(&"charge".into(), None, StepPart::Do).unwrap();
    assert_eq!((read.attempt, read.request.url.as_str()), (2, "http://new/prices"));
}
