//! What a change in `live` must not hide: legacy's own rates outlive it, what the guard has stopped stays stopped, and
//! pairs that are under way count before a candidate or a state from a file passes its gate.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::guard::Orders;
use crate::support::process::output_text;
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const REFUSED_TENANT: &str = "1";

/// A workflow that refuses one tenant, before anything is sent.
fn refusing(orders: &Orders) {
    orders.flags.write(
        "workflows/create.yaml",
        &format!(
            "workflow: create\nsteps:\n  refuse: {{ if: '${{request.headers[\"x-tenant\"] == \"{REFUSED_TENANT}\"}}', \
             fail: {{ status: 422, body: {{ error: no }} }} }}\n  \
             charge: {{ call: \"POST ${{services.bank}}/charges\", needs: [refuse], body: {{ amount: 7 }}, rehearse: {{}} }}\n\
             respond: {{ status: 200, body: {{ total: 7 }} }}\n"
        ),
    );
}

/// A workflow that does what that of [`Orders`] does, and these steps more; it answers after these steps.
fn with_steps(orders: &Orders, more: &str, answers_after: &str) {
    orders.flags.write(
        "workflows/create.yaml",
        &format!(
            "workflow: create\nsteps:\n  rate: {{ call: \"GET ${{services.bank}}/rate\", retry: {{ attempts: 1 }} }}\n  \
             charge: {{ call: \"POST ${{services.bank}}/charges\", needs: [rate], body: {{ amount: 7 }}, rehearse: {{}} }}\n\
             {more}respond: {{ after: [{answers_after}], status: 200, body: {{ total: 7 }} }}\n"
        ),
    );
}

impl Orders {
    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        let done = self.pointsman.cli(arguments).await;
        (done.status.success(), output_text(&done))
    }

    async fn run_ok(&self, arguments: &[&str]) -> String {
        let (is_ok, text) = self.run(arguments).await;
        assert!(is_ok, "{arguments:?}: {text}");
        text
    }

    async fn evidence(&self, of: &str) -> Value {
        self.pointsman.get(&format!("/api/v2/routes/orders/evidence{of}")).await
    }

    /// Waits until a count of the evidence is as large as this.
    async fn until_counted(&self, of: &str, name: &str, wanted: u64) {
        let found = || async { (self.evidence(of).await["evidence"][name].as_u64() >= Some(wanted)).then_some(()) };
        until(name, found).await;
    }

    /// Legacy's replies in `dark` are known, and the route is in `live` again.
    async fn know_legacy(&self, replies: u64) {
        self.run_ok(&["flip", "orders", "dark"]).await;
        for _ in 0..replies {
            assert_eq!(self.order(0).await.status, StatusCode::OK);
        }
        self.until_counted("", "legacy_replies", replies).await;
        self.run_ok(&["flip", "orders", "live", "--force", "--reason", "the test goes on in live"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_knows_legacys_rate_of_4xx_after_a_workflow_was_changed_in_live() {
    let orders = Orders::start("guard: { errors: 1% }").await;
    let status = orders.run_ok(&["status"]).await;
    assert!(status.contains("orders: the guard does not count 4xx of the engine"), "{status}");
    orders.know_legacy(110).await;
    until("the guard to know legacy's rate", || async {
        (!orders.run_ok(&["status"]).await.contains("the guard does not count")).then_some(())
    })
    .await;
    refusing(&orders);
    orders.run_ok(&["reload"]).await;
    orders.pointsman.put_candidate_in_force("orders").await;
    let evidence = orders.evidence("").await["evidence"].clone();
    assert_eq!((&evidence["dark_pairs"], &evidence["legacy_replies"]), (&json!(0), &json!(110)), "{evidence}");
    assert_eq!(orders.order(1).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    // The guard begins to count anew when the workflow comes into force, which may be a moment after the command.
    until("the guard to lower the route", || async {
        orders.order(1).await;
        (orders.effective().await["state"] == "dark").then_some(())
    })
    .await;
    assert_eq!(orders.effective().await["why"], "guard");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_refuses_callers_does_not_go_to_only_whatever_is_known_of_legacy() {
    let mut orders = Orders::start("").await;
    refusing(&orders);
    orders.run_ok(&["reload"]).await;
    orders.pointsman.put_candidate_in_force("orders").await;
    let gate = async |orders: &Orders| {
        let next = orders.evidence("").await["next"].clone();
        let conditions = next["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["name"] == "client_errors");
        found.unwrap_or_else(|| panic!("{next}"))
    };
    let answer_some = async |orders: &Orders| {
        for tenant in 0..60 {
            orders.order(tenant % 2).await;
        }
    };
    answer_some(&orders).await;
    let found = gate(&orders).await;
    assert_eq!(found["verdict"], "inconclusive", "nothing is known of legacy: {found}");
    let (is_ok, refused) = orders.run(&["flip", "orders", "only"]).await;
    assert!(!is_ok && refused.contains("how many of legacy's replies are is not known"), "{refused}");

    orders.know_legacy(25).await;
    orders.restart().await;
    answer_some(&orders).await;
    let found = gate(&orders).await;
    assert_eq!(found["verdict"], "fail", "{found}");
    assert!(found["detail"].as_str().is_some_and(|why| why.contains(") 0.0 % were (0 of 25)")), "{found}");
    orders.run_ok(&["flip", "orders", "only", "--force", "--reason", "they are rightly refused"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_refuses_callers_is_stopped_and_does_not_come_into_force() {
    let mut orders = Orders::start("guard: { errors: 1% }").await;
    let refuse =
        "  refuse: { needs: [charge], if: '${has(steps.charge.output.refused)}', fail: { status: 422, body: {} } }\n";
    with_steps(&orders, refuse, "charge, refuse");
    orders.run_ok(&["reload"]).await;
    for _ in 0..30 {
        assert_eq!(orders.order(0).await.status, StatusCode::OK);
    }
    orders.until_counted("?candidate=true", "shadow_pairs", 30).await;
    orders.run_ok(&["flip", "orders", "--candidate", "live", "--percent", "100"]).await;
    // What no rehearsal shows: the bank's real reply.
    orders.bank.set_default("POST /charges", ScriptedReply::Done(200, json!({ "refused": true })));
    let stopped = || async {
        let reply = orders.order(0).await;
        let shown = orders.row().await["candidate"].clone();
        assert!(reply.status.is_client_error() || shown["share"] == 0.0, "{}", reply.status);
        (shown["share"] == 0.0).then_some(())
    };
    until("the guard to stop the candidate", stopped).await;
    orders.bank.set_default("POST /charges", ScriptedReply::Done(200, json!({ "id": 1 })));
    let in_force = ["flip", "orders", "--candidate", "in-force"];
    let refused = async |orders: &Orders| {
        let (is_ok, text) = orders.run(&in_force).await;
        let says = ["the guard has taken its share of new requests away", "it answered all"];
        assert!(!is_ok && says.iter().all(|part| text.contains(part)), "{text}");
    };
    refused(&orders).await;
    let (_, status) = orders.run(&["status"]).await;
    assert!(status.contains("the guard has taken its share of new requests away"), "{status}");
    orders.restart().await;
    refused(&orders).await;
    orders.run_ok(&[&in_force[..], &["--force", "--reason", "the bank is back"]].concat()).await;
    assert_eq!(orders.order(0).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_waits_for_pairs_whose_control_has_answered_and_goes_on() {
    const MAIL: &str =
        "  mail: { needs: [charge], call: \"POST ${services.bank}/mails\", body: { to: TO }, rehearse: {} }\n";
    let orders = Orders::start("").await;
    with_steps(&orders, &MAIL.replace("TO", "a"), "charge");
    orders.run_ok(&["reload"]).await;
    orders.pointsman.put_candidate_in_force("orders").await;
    let wrong_for_one = "'${request.headers[\"x-tenant\"] == \"1\" ? \"b\" : \"a\"}'";
    with_steps(&orders, &MAIL.replace("TO", wrong_for_one), "charge");
    orders.run_ok(&["reload"]).await;
    for _ in 0..30 {
        assert_eq!(orders.order(0).await.status, StatusCode::OK);
    }
    orders.until_counted("?candidate=true", "shadow_pairs", 30).await;
    orders.bank.hold("POST /mails");
    for _ in 0..8 {
        assert_eq!(orders.order(1).await.status, StatusCode::OK, "it is answered before its mail is sent");
    }
    until("the mails of the control", || async { (orders.bank.count("POST /mails") >= 38).then_some(()) }).await;
    let asked = ["flip", "orders", "--candidate", "in-force"];
    let mut flip = std::pin::pin!(orders.run(&asked));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut flip).await;
    assert!(early.is_err(), "it waits: {early:?}");
    orders.bank.release_all("POST /mails");
    let (is_ok, text) = flip.await;
    assert!(!is_ok && text.contains("open mismatch"), "{text}");
    assert!(!orders.row().await["candidate"].is_null(), "it is not in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_from_a_file_waits_for_pairs_under_way_and_is_judged_again() {
    let mut orders = Orders::start("").await;
    // With an egress listener a pair is under way for the whole window.
    orders.flags.edit("pointsman.yaml", |text| format!("{text}egress: {{ listen: 127.0.0.1:0, window: 5s }}\n"));
    orders
        .flags
        .edit("routes/orders.yaml", |text| text.replace("state: live\n    force: { reason: a test }", "state: shadow"));
    // Legacy makes no call.
    let pure = "workflow: create\nsteps: { total: { set: 7 } }\nrespond: { status: 200, body: { total: 7 } }\n";
    orders.flags.write("workflows/create.yaml", pure);
    orders.run_ok(&["flip", "orders", "shadow"]).await;
    orders.restart().await;
    let declare = async |from: &str, to: &str| {
        orders.flags.edit("routes/orders.yaml", |text| {
            let before = format!("state: {from}");
            assert!(text.contains(&before), "{text}");
            text.replace(&before, &format!("state: {to}"))
        });
        orders.run_ok(&["reload"]).await;
    };
    for _ in 0..25 {
        assert_eq!(orders.order(0).await.status, StatusCode::OK);
    }
    orders.until_counted("", "shadow_pairs", 25).await;
    orders.order(0).await;
    declare("shadow", "dark").await;
    orders.until_effective("dark").await;
    declare("dark", "shadow").await;
    orders.until_effective("shadow").await;

    orders.legacy.set_default(crate::support::origin::OriginReply::Json(r#"{"total":8}"#));
    for _ in 0..8 {
        orders.order(0).await;
    }
    declare("shadow", "dark").await;
    let refused = || async {
        assert_eq!(orders.effective().await["state"], "shadow");
        let (_, status) = orders.run(&["status"]).await;
        status.contains("open mismatch").then_some(())
    };
    until("the gate to be shut by the pairs", refused).await;
    assert_eq!(orders.effective().await["state"], "shadow");
}
