//! Inputs, signals and decisions that a run was given also hold for the run that supersedes it.

use super::harness::{plan, timed_out};
use super::*;
use crate::limits::Limits;
use crate::workflow::{
    Choice, ControlCommand, ControlEvent, DeclaredNames, SignalDelivery, StepEvent, Taint, WaitEvent, parts, rerun,
};

/// Returns the run that supersedes this one and begins at the step `from`.
pub(super) fn successor<'a>(harness: &Harness<'a>, from: &str) -> Harness<'a> {
    let events = rerun(&harness.run, harness.plan, &from.into()).unwrap_or_else(|refusal| panic!("{refusal}"));
    let deliveries = harness.run.deliveries_before(&events);
    let mut new = Harness::started_with(harness.plan, |started| {
        started.route = None;
        started.rerun_of = Some(harness.run.id());
        started.approval_above = harness.run.started().approval_above.clone();
        started.run = RunId(uuid::Uuid::from_u128(harness.run.id().0.as_u128() + 1));
        started.deliveries_before = deliveries;
    });
    for event in events {
        let stored: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(stored, event);
        new.run.evolve_in_place(&event).unwrap_or_else(|misfit| panic!("{misfit}"));
        new.events.push(event);
    }
    new.perform_due();
    new
}

fn signal(id: &str) -> ControlCommand {
    ControlCommand::Signal { name: "paid".into(), payload: Arc::new(json!({ "n": 1 })), id: Some(id.into()) }
}

fn adjust(step: &str, item: Option<u32>, input: Value) -> ControlCommand {
    ControlCommand::Adjust { step: step.into(), item, input: Arc::new(input), reason: None }
}

#[test]
fn a_given_input_holds_for_a_step_that_runs_again() {
    let plan = plan(
        "
workflow: w
steps:
  price: { call: 'GET ${services.stock}/price' }
  pay: { call: 'POST ${services.bank}/pays', body: { amount: '${steps.price.output}' } }
  ship: { needs: [pay], call: 'POST ${services.stock}/ships' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("price", status(409));
    harness.give_command(adjust("pay", None, json!({ "amount": 10 }))).unwrap();
    let mut harness = successor(&harness, "price");
    harness.call("price", ok(json!(1000)));
    assert_eq!(harness.sent_bodies().last(), Some(&json!({ "amount": 10 })));
    harness.call("pay", status(409));
    let mut harness = successor(&harness, "pay");
    assert_eq!(
        harness.sent_bodies(),
        [json!({ "amount": 10 })],
        "the given input holds even for the step at which a rerun begins"
    );
    harness.call("pay", ok(json!({})));
    harness.call("ship", status(409));
    let mut harness = successor(&harness, "ship");
    harness.call("ship", status(409));
    let harness = successor(&harness, "pay");
    assert_eq!(harness.sent_bodies(), [json!({ "amount": 10 })], "and for a step whose result was taken over before");
}

const SIGNALS: &str = "
workflow: w
steps:
  link: { call: 'POST ${services.stock}/links' }
  paid: { needs: [link], wait: { signal: paid, timeout: 3d } }
  ship: { needs: [paid], call: 'POST ${services.stock}/ships' }
  again: { needs: [paid], wait: { signal: paid } }
respond: { status: 200 }
";

#[test]
fn a_signal_that_no_step_has_taken_is_taken_over() {
    let plan = plan(SIGNALS);
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("link", status(409));
    assert_eq!(harness.give_command_by("bank", signal("d1")), Ok(1));
    let mut harness = successor(&harness, "link");
    assert_eq!(harness.give_command_by("bank", signal("d1")), Ok(0), "a repeated delivery counts once");
    harness.replies("link", None, ok(json!({})));
    assert_eq!(harness.output("paid")["output"], json!({ "n": 1 }));
    assert_eq!(harness.in_flight_names(), ["ship"]);
}

#[test]
fn a_signal_that_a_step_has_taken_counts_once() {
    let plan = plan(SIGNALS);
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("link", None, ok(json!({})));
    harness.give_command_by("bank", signal("d1")).unwrap();
    harness.replies("ship", None, status(409));
    let mut harness = successor(&harness, "ship");
    assert_eq!(harness.give_command_by("bank", signal("d1")), Ok(0));
    assert!(harness.run.interactions.waits.contains_key("again"), "no step took the repeated delivery");
    harness.replies("ship", None, status(409));
    let mut last = successor(&harness, "ship");
    assert_eq!(last.give_command_by("bank", signal("d1")), Ok(0), "the delivery counts once in a later rerun, too");
    assert_eq!(last.give_command_by("bank", signal("d2")), Ok(2));
}

/// The step that took the signal waits for the signal again, and the sender may send it again.
#[test]
fn a_signal_whose_wait_runs_again_may_be_delivered_again() {
    let plan = plan(SIGNALS);
    let refused_after = |taken: fn(&mut Harness<'_>)| {
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        taken(&mut harness);
        harness.replies("ship", None, status(409));
        harness
    };
    let in_this_run = refused_after(|harness| {
        harness.replies("link", None, ok(json!({})));
        harness.give_command_by("bank", signal("d1")).unwrap();
    });
    // The run in between takes over the result of the step.
    let mut in_the_run_before = successor(&in_this_run, "ship");
    in_the_run_before.replies("ship", None, status(409));
    // The signal came before the rerun, and the step took the signal in the rerun.
    let taken_over = refused_after(|harness| {
        harness.replies("link", None, status(409));
        harness.give_command_by("bank", signal("d1")).unwrap();
        *harness = successor(harness, "link");
        harness.replies("link", None, ok(json!({})));
    });
    for harness in [in_this_run, in_the_run_before, taken_over] {
        assert_eq!(
            successor(&harness, "paid").give_command_by("bank", signal("d1")),
            Ok(2),
            "the step takes the signal"
        );
        let mut above = successor(&harness, "link");
        assert_eq!(above.give_command_by("bank", signal("d1")), Ok(1), "the signal is stored");
        above.replies("link", None, ok(json!({})));
        assert_eq!(above.in_flight_names(), ["ship"]);
        assert_eq!(
            successor(&harness, "ship").give_command_by("bank", signal("d1")),
            Ok(0),
            "the result of the step is taken over, so the delivery is a repeated one"
        );
    }
    // Earlier versions stored only the id of a delivery.
    let stored: SignalDelivery = serde_json::from_value(json!("d1")).unwrap();
    assert_eq!(stored, SignalDelivery { id: "d1".into(), taken_by: None });
}

#[test]
fn a_step_that_a_person_skipped_stays_skipped() {
    let plan = plan(
        "
workflow: w
steps:
  address: { call: 'GET ${services.stock}/address' }
  mail: { needs: [address], call: 'POST ${services.stock}/mails' }
  log: { needs: [mail], call: 'POST ${services.stock}/logs' }
  ship: { needs: [address], call: 'POST ${services.stock}/ships' }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("address", status(409));
    harness.give_command(ControlCommand::Skip { step: "mail".into(), reason: None }).unwrap();
    for _ in 0..2 {
        harness = successor(&harness, "address");
        harness.replies("address", None, ok(json!("a")));
        assert_eq!(harness.in_flight_names(), ["ship"]);
        assert!(["mail", "log"].iter().all(|step| harness.run.was_skipped(&(*step).into())));
        harness.replies("ship", None, status(409));
    }
    assert_eq!(
        successor(&harness, "mail").in_flight_names(),
        ["mail", "ship"],
        "a rerun from the skipped step runs it, as a person asked"
    );
}

#[test]
fn a_step_whose_fallback_a_person_skipped_stays_skipped() {
    let plan = plan(
        "
workflow: w
steps:
  address: { call: 'GET ${services.stock}/address' }
  charge: { needs: [address], call: 'POST ${services.bank}/charges', retry: { attempts: 1 }, fallback: invoice }
  invoice: { fallback_only: true, call: 'POST ${services.bank}/invoices' }
  ship: { needs: [address], call: 'POST ${services.stock}/ships' }
respond: { status: 200 }
",
    );
    for (charged, skipped) in [(status(429), "invoice"), (timed_out(), "charge")] {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("address", ok(json!("a")));
        harness.call("charge", charged.clone());
        if skipped == "invoice" {
            harness.call("invoice", status(409));
        }
        harness.choose(skipped, None, Choice::Skip).unwrap();
        harness.call("ship", status(409));
        let mut again = successor(&harness, "address");
        again.replies("address", None, ok(json!("b")));
        assert_eq!(again.in_flight_names(), ["ship"], "{skipped}");
        assert_eq!(again.run.unknown.len(), usize::from(skipped == "charge"), "what may have been done stays listed");
        assert_eq!(successor(&harness, "charge").in_flight_names(), ["charge", "ship"]);
    }
}

#[test]
fn a_rerun_does_not_forget_what_was_decided_about_an_item() {
    let plan = plan(
        "
workflow: w
steps:
  address: { call: 'GET ${services.stock}/address' }
  send: { needs: [address], for_each: '${request.body.items}', concurrency: 1, call: 'PUT ${services.stock}/${item}', body: {} }
  look: { needs: [address], call: 'GET ${services.stock}/look' }
respond: { status: 200 }
",
    );
    for choice in [Choice::Skip, Choice::RetryWith { input: Arc::new(json!({ "n": 1 })) }] {
        let mut harness = Harness::of_api(&plan);
        harness.settle();
        harness.call("address", ok(json!("a")));
        harness.item("send", 0, status(409));
        harness.choose("send", Some(0), choice.clone()).unwrap();
        harness.call("look", status(409));
        let under_way = harness.run.in_flight()[0].item.unwrap();
        harness.item("send", under_way, status(409));
        for from in ["address", "look"] {
            let why = rerun(&harness.run, &plan, &from.into()).unwrap_err().to_string();
            assert!(why.contains("item 0 of `send`") && why.contains("begin at `send`"), "{why}");
        }
        assert!(
            rerun(&harness.run, &plan, &"send".into()).is_ok(),
            "a rerun from the step runs all of its items, as a person asked"
        );
        // A later rerun does not forget the decision either, although the step's result is taken over.
        harness.choose("send", Some(under_way), Choice::Skip).unwrap();
        harness.choose("look", None, Choice::Retry).unwrap();
        while let Some(item) = harness.run.in_flight().iter().find_map(|call| call.item) {
            harness.item("send", item, ok(json!({})));
        }
        harness.call("look", status(409));
        let mut harness = successor(&harness, "look");
        harness.replies("look", None, status(409));
        let why = rerun(&harness.run, &plan, &"address".into()).unwrap_err().to_string();
        assert!(why.contains("of `send`") && why.contains("begin at `send`"), "{why}");
    }
}

/// The new run fetches a new token, and does not know the old one, which is in what the run takes over.
#[test]
fn what_is_taken_over_is_sealed_as_it_was() {
    let source: Value = serde_saphyr::from_str(
        "
workflow: w
steps:
  login: { call: 'POST ${services.stock}/login', sensitive: [$.token] }
  link: { needs: [login], call: 'POST ${services.stock}/links' }
  paid: { needs: [link], wait: { signal: paid } }
  pay: { needs: [paid], call: 'POST ${services.stock}/pays', body: { memo: m } }
  use: { needs: [paid], call: 'POST ${services.stock}/uses', body: { t: '${steps.login.output.token}' } }
respond: { status: 200 }
",
    )
    .unwrap();
    let services = BTreeMap::from([(ServiceName::from("stock"), true)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let token = "tok-12345678";
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.replies("login", None, ok(json!({ "token": token })));
    harness.replies("link", None, status(409));
    let payload = Arc::new(json!({ "text": format!("for {token}") }));
    harness.give_command_by("bank", ControlCommand::Signal { name: "paid".into(), payload, id: None }).unwrap();
    harness.give_command_by("ann", adjust("pay", None, json!({ "memo": token }))).unwrap();
    harness.give_command_by("ann", adjust("use", None, json!({ "t": "x" }))).unwrap();
    // Returns the steps and signals whose values are marked as sensitive; checks that these values are sealed.
    let sealed = |harness: &Harness<'_>| {
        let taint = Taint::of(&plan, &harness.run).unwrap();
        let taken_over = harness.events.iter().filter_map(|event| match event {
            Event::Control(ControlEvent::InputAdjusted { step, sensitive, .. }) => {
                Some((step.as_str(), *sensitive, event))
            }
            Event::Wait(WaitEvent::SignalReceived { name, sensitive, .. }) => Some((name.as_str(), *sensitive, event)),
            _ => None,
        });
        let sealed = taken_over.filter_map(|(name, sensitive, event)| {
            let is_sealed = !parts(&taint, event, &BTreeMap::new()).is_empty();
            assert_eq!(is_sealed, sensitive, "{name}");
            sensitive.then(|| name.to_owned())
        });
        sealed.collect::<Vec<_>>()
    };
    let mut new = successor(&harness, "login");
    assert_eq!(sealed(&new), ["pay", "use", "paid"]);
    assert_eq!(sealed(&successor(&harness, "link")), ["use"], "the rerun takes the token over, and finds it by value");
    new.replies("login", None, status(409));
    assert_eq!(sealed(&successor(&new, "login")), ["pay", "use", "paid"], "a later rerun seals the same");
    // Values computed from these are sensitive as well.
    new.give_command_by("ann", ControlCommand::Retry { step: Some("login".into()), attempt: None }).unwrap();
    new.replies("login", None, ok(json!({ "token": "another-token" })));
    new.replies("link", None, ok(json!({})));
    let taint = Taint::of(&plan, &new.run).unwrap();
    let bodies = new.events.iter().filter(|event| {
        matches!(event, Event::StepStarted(started) if ["pay", "use"].contains(&started.step.as_str()))
            || matches!(event, Event::Wait(WaitEvent::Ended { .. }))
    });
    assert_eq!(bodies.map(|event| parts(&taint, event, &BTreeMap::new()).len().min(1)).sum::<usize>(), 3);
}

/// The result of a step that quotes a token which the new run does not know.
#[test]
fn a_result_that_quotes_a_lost_value_is_sensitive_as_a_whole() {
    let source = json!({
        "workflow": "w",
        "steps": {
            "login": { "call": "POST ${services.stock}/login", "sensitive": ["$.token"] },
            "echo": { "call": "POST ${services.stock}/echo" },
            "link": { "needs": ["login", "echo"], "call": "POST ${services.stock}/links" },
        },
        "respond": { "status": 200 },
    });
    let services = BTreeMap::from([(ServiceName::from("stock"), true)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let mut harness = Harness::of_api(&plan);
    harness.settle();
    harness.call("login", ok(json!({ "token": "tok-12345678" })));
    harness.call("echo", ok(json!({ "seen": "Bearer tok-12345678" })));
    harness.call("link", status(409));
    let taken = |from: &str| {
        let events = rerun(&harness.run, &plan, &from.into()).unwrap();
        let taken = events.iter().find_map(|event| match event {
            Event::Step(StepEvent::ResultTaken(taken)) if taken.step.as_str() == "echo" => Some(taken),
            _ => None,
        });
        taken.unwrap().sensitive.len()
    };
    assert_eq!((taken("login"), taken("link")), (1, 0));
}
