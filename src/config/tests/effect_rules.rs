//! What the comparison of effects is told about a workflow's calls.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::set::Set;
use crate::compare::{Body, CompareBounds, Comparison, Effect, Observation, Pair, compare};
use crate::limits::Limits;

const ORDER: &str = "\
workflow: create-order
steps:
  price: { call: 'POST ${services.shop}/quotes', effect: read }
  charge:
    call: POST ${services.bank}/accounts/${request.body.account}/charges
    undo: DELETE ${services.bank}/charges/${output.id}
    rehearse: { id: '${legacy.body.id}' }
  pay: { run: payment, rehearse: {} }
respond: { status: 201, body: { price: '${steps.price.output}', id: '${steps.charge.output.id}' } }
";

const PAYMENT: &str = "\
workflow: payment
steps: { book: { call: 'POST ${services.shop}/bookings', rehearse: {} } }
respond: { status: 200 }
";

/// The comparison of a pair in which legacy made these calls and the engine would make no call.
fn with_calls(set: &Set, calls: &[(&str, &str, &str)]) -> Comparison {
    let loaded = set.read().unwrap_or_else(|failed| panic!("{}", failed.render(false)));
    let rules = &loaded.setup.rules["orders.create"];
    let effect = |(number, (service, method, url)): (u64, &(&str, &str, &str))| {
        Arc::new(Effect {
            service: Some((*service).into()),
            method: method.parse().expect("a method"),
            url: (*url).to_owned(),
            headers: HeaderMap::new(),
            body: Body::Whole("".into()),
            reply: None,
            number,
            replied_before: None,
        })
    };
    let effects: Vec<_> = (0..).zip(calls).map(effect).collect();
    let reply = Observation::new(StatusCode::OK, HeaderMap::new(), Body::Whole("".into()), Duration::ZERO, Vec::new());
    let pair = Pair {
        legacy: &reply,
        engine: &reply,
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, rules, &CompareBounds::of(&Limits::default()), &|| false).expect("a verdict")
}

#[test]
fn the_templates_of_paths_have_the_base_of_the_service_and_reads_and_child_runs_are_known() {
    let set = Set::valid()
        .put("workflows/create-order.yaml", ORDER)
        .put("workflows/payment.yaml", PAYMENT)
        .edit("pointsman.yaml", "http://127.0.0.1:9102", "http://127.0.0.1:9102/v1")
        .edit("routes/orders.yaml", "      assert: [ '${intents.charge.body.amount == legacy.body.total}' ]\n", "");
    let missing = with_calls(
        &set,
        &[
            ("bank", "POST", "http://127.0.0.1:9102/v1/accounts/ada/charges"),
            ("bank", "DELETE", "http://127.0.0.1:9102/v1/charges/x"),
            ("bank", "POST", "http://127.0.0.1:9102/accounts/7/charges"),
            ("shop", "POST", "http://127.0.0.1:9000/quotes"),
            ("shop", "POST", "http://127.0.0.1:9000/bookings"),
            ("shop", "GET", "http://127.0.0.1:9000/bookings"),
        ],
    );
    let paths: Vec<_> = missing.differences.iter().map(|difference| &*difference.path).collect();
    assert_eq!(
        paths,
        [
            "effects.bank POST /v1/accounts/{}/charges",
            "effects.bank DELETE /v1/charges/{}",
            "effects.bank POST /accounts/{}/charges",
        ]
    );
    assert_eq!(missing.effects.expect("watched").calls_not_judged, 3);
}

/// Nothing compares the calls of a workflow that is run. Of the step that runs it only the reason can be said why they
/// need no comparison.
#[test]
fn shared_steps_of_a_child_workflow_are_warned_of_unless_its_step_is_declared_unseen() {
    const ASSERT: &str = "      assert: [ '${intents.charge.body.amount == legacy.body.total}' ]\n";
    const WARNING: &str = "shared steps of workflows that it runs: `payment/book`;";
    let set = |rules: &str| {
        let effects = format!("{ASSERT}      effects: {{ {rules} }}\n");
        Set::valid()
            .put("workflows/create-order.yaml", ORDER)
            .put("workflows/payment.yaml", PAYMENT)
            .edit("routes/orders.yaml", ASSERT, &effects)
            .edit(
                "routes/orders.yaml",
                "    state: shadow\n    percent: 50\n",
                "    state: dark\n    force: { reason: x }\n",
            )
    };
    let shown = set("charge: { any_order: true }").shown();
    assert!(shown.contains(WARNING) && shown.contains("`compare.effects.STEP.unseen`"), "{shown}");
    let unseen = set("pay: { unseen: the booking is only a note }");
    let shown = unseen.shown();
    assert!(unseen.read().is_ok() && !shown.contains(WARNING), "{shown}");
    let refused = set("pay: { any_order: true }");
    let shown = refused.shown();
    assert!(refused.read().is_err() && shown.contains("the step `pay` runs a workflow"), "{shown}");
    let shown = set("pya: { unseen: x }").shown();
    assert!(shown.contains("no step `pya`"), "{shown}");
}
