//! Which version of a workflow answers: an instance stays with the version that made it, a route that went below `live`
//! has no candidate when it returns, a candidate is moved only by name, and what it declares to read repeats nothing.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use serde_json::{Value, json};

use crate::candidate::{candidate_evidence, cli, edit, flip_to_live, in_live, row};
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, one_line, output_text};
use crate::support::test_system::{TestSystem, id};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const NOTED: (&str, &str) = ("  confirm:\n", "  noted:\n    set: ${steps.total.output}\n  confirm:\n");
const FORCED: [&str; 3] = ["--force", "--reason", "a drill"];

/// Moves the candidate of a route by force.
async fn force(system: &TestSystem, route: &str, stage: &[&str]) {
    let arguments = [&["flip", route, "--candidate"][..], stage, &FORCED[..]].concat();
    let (code, text) = cli(system, &arguments).await;
    assert_eq!(code, Some(0), "{text}");
}

/// The plan of the newest run of a route.
async fn newest_plan(system: &TestSystem, route: &str) -> String {
    let runs = system.pointsman.get(&format!("/api/v2/orchestrate/runs?route={route}&limit=1")).await;
    runs["runs"][0]["plan_id"].as_str().expect("a plan").to_owned()
}

/// The plan in force of a route, and that of its candidate.
async fn plans(system: &TestSystem, route: &str) -> (String, String) {
    let row = system.pointsman.get(&format!("/api/v2/routes/{route}")).await["row"].clone();
    let text = |value: &Value| value.as_str().expect("a plan").to_owned();
    (text(&row["plan"]), text(&row["candidate"]["plan"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_followed_up_by_the_version_that_made_it_also_after_a_kill() {
    const CANCEL: &str = "workflows/cancel-order.yaml";
    // Every request has a key of its own.
    let mut system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| text.replacen("headers[\"x-tenant\"]", "headers[\"traceparent\"]", 1));
    })
    .await;
    flip_to_live(&system).await;
    let before = system.order().await;
    system.flags.edit(CANCEL, |text| text.replacen("  notify:\n", "  noted:\n    set: 1\n  notify:\n", 1));
    edit(&system, NOTED.0, NOTED.1).await;
    let (create, cancel) = (plans(&system, "orders.create").await, plans(&system, "orders.cancel").await);
    force(&system, "orders.create", &["live", "--percent", "50"]).await;
    // However small or large, it does not split the instances of one version.
    force(&system, "orders.cancel", &["live", "--percent", "1"]).await;
    let mut orders = vec![(before, create.0.clone())];
    for _ in 0..24 {
        let order = system.order().await;
        orders.push((order, newest_plan(&system, "orders.create").await));
    }
    let mut followed = BTreeMap::new();
    for (n, (order, made_by)) in orders.iter().enumerate() {
        match n {
            8 => {
                system.kill().await;
                system.restart().await;
            }
            16 => force(&system, "orders.cancel", &["live", "--percent", "99"]).await,
            _ => {}
        }
        system.cancel(order).await;
        let by = newest_plan(&system, "orders.cancel").await;
        assert!(by == cancel.0 || by == cancel.1, "{by}");
        assert_eq!(by == cancel.1, *made_by == create.1, "order {n}: made by {made_by}, followed up by {by}");
        *followed.entry(by).or_insert(0) += 1;
    }
    assert_eq!(followed.len(), 2, "both versions were asked: {followed:?}");

    // Without a share of the follower's candidate, its plan in force follows up everything.
    force(&system, "orders.create", &["live", "--percent", "100"]).await;
    force(&system, "orders.cancel", &["shadow"]).await;
    let order = system.order().await;
    assert_eq!(newest_plan(&system, "orders.create").await, create.1);
    let (code, text) = cli(&system, &["explain", &id(&order)]).await;
    assert!(text.contains(&format!("{}: the candidate of orders.create", create.1)), "{code:?} {text}");
    system.cancel(&order).await;
    assert_eq!(newest_plan(&system, "orders.cancel").await, cancel.0);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_down_and_up_at_once_leaves_no_share_of_the_candidate() {
    let system = in_live().await;
    edit(&system, NOTED.0, NOTED.1).await;
    let (_, candidate) = plans(&system, "orders.create").await;
    force(&system, "orders.create", &["live", "--percent", "50"]).await;
    system.flip("orders.create", "dark", &[]).await.expect("down");
    system.flip("orders.create", "live", &FORCED).await.expect("up");
    let shown = row(&system).await;
    assert_eq!((&shown["plan"], &shown["candidate"]), (&json!(candidate), &Value::Null), "it is simply the plan");
    system.order().await;
    assert_eq!(newest_plan(&system, "orders.create").await, candidate);
    let (_, flips) = cli(&system, &["flips", "orders.create"]).await;
    assert!(flips.contains("candidate dropped"), "{flips}");
    edit(&system, "  noted:\n", "  marked:\n").await;
    assert_eq!(row(&system).await["candidate"]["share"], 0.0, "a new candidate begins without");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_was_not_looked_at_is_not_moved_by_force_either() {
    let system = in_live().await;
    edit(&system, NOTED.0, NOTED.1).await;
    let (plan, seen) = plans(&system, "orders.create").await;
    edit(&system, "  noted:\n", "  marked:\n").await;
    let (_, newer) = plans(&system, "orders.create").await;
    let moved = ["flip", "orders.create", "--candidate", "in-force", "--plan", seen.as_str()];
    let (code, refused) = cli(&system, &[&moved[..], &FORCED[..]].concat()).await;
    assert!(code == Some(1) && refused.contains(&format!("is {newer}, and not {seen}")), "{refused}");
    assert_eq!(plans(&system, "orders.create").await, (plan, newer.clone()), "nothing was moved");
    let moved = ["flip", "orders.create", "--candidate", "in-force"];
    let (code, text) = cli(&system, &[&moved[..], &FORCED[..]].concat()).await;
    assert!(code == Some(0) && text.contains(&format!("the candidate of orders.create is {newer}")), "{text}");
    system.finish().await;
}

/// A charge that is declared to read would be made once more by each rehearsal.
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_a_candidate_declares_as_a_read_is_not_made_by_its_rehearsals() {
    const CHARGE: &str = "    call: POST ${services.bank}/charges\n";
    const REHEARSED: &str = "    rehearse: { id: \"${legacy.body.payment_id}\" }\n";
    const ASSERT: &str = "      assert: [\"${intents.charge.body.amount == legacy.body.total}\"]\n";
    let system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| {
            assert!(text.contains(ASSERT), "{text}");
            text.replacen(ASSERT, "", 1)
        });
    })
    .await;
    flip_to_live(&system).await;
    system.flags.edit("workflows/create-order.yaml", |text| {
        assert!(text.contains(REHEARSED), "{text}");
        text.replacen(REHEARSED, "", 1)
    });
    edit(&system, CHARGE, &format!("{CHARGE}    effect: read\n")).await;
    for _ in 0..5 {
        system.order().await;
    }
    let evidence = candidate_evidence(&system, 5).await;
    assert_eq!(evidence["skipped"], json!({ "unresolved_effect": 5 }), "the same call, no longer shared: {evidence}");
    edit(&system, "amount: \"${steps.total.output}\"", "amount: \"${steps.total.output + 1.0}\"").await;
    for _ in 0..5 {
        system.order().await;
    }
    let evidence = candidate_evidence(&system, 5).await;
    assert_eq!(evidence["skipped"], json!({ "unresolved_effect": 5 }), "another amount: {evidence}");
    // It checks that each order is charged once.
    system.finish().await;
}

/// The control's events do not have the bytes that its call got, and the candidate's own call would get.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_takes_a_reply_of_bytes_from_its_control_is_skipped() {
    const LABEL: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/pdf\r\ncontent-length: 5\r\n\r\n%PDF\xff";
    let workflow = |rehearse: &str, body: &str| {
        format!(
            "workflow: label\nsteps:\n  print: {{ call: 'POST ${{services.printer}}/labels', body: {{ a: 1 }}, \
             rehearse: {rehearse} }}\nrespond: {{ status: 200, body: {body} }}\n"
        )
    };
    let legacy = Origin::start(OriginReply::Json("{}")).await;
    let printer = Origin::start(OriginReply::Bytes(LABEL.to_vec())).await;
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\n  printer: {}\ndefault_legacy: shop\negress: {{ listen: 127.0.0.1:0 }}\n",
            legacy.url(),
            printer.url()
        ),
    );
    flags.write("workflows/label.yaml", &workflow("{}", "{}"));
    flags.write(
        "routes/labels.yaml",
        "routes:\n  - { id: labels, match: { method: POST, path: /labels }, legacy: shop, workflow: label, state: shadow }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("db").display());
    let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
    let pointsman = Pointsman::start(&start).await;
    let run = async |arguments: &[&str]| {
        let output = pointsman.cli(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
        output_text(&output)
    };
    run(&["flip", "labels", "live", "--force", "--reason", "the test begins in live"]).await;
    flags.write("workflows/label.yaml", &workflow("legacy", "{ label: '${steps.print.output}' }"));
    run(&["reload"]).await;
    let client = Client::new(WAIT_MAX);
    let url = format!("{}/labels", pointsman.url());
    assert_eq!(client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply").status, StatusCode::OK);
    let skipped = until("the candidate's outcome", || async {
        let view = pointsman.get("/api/v2/routes/labels/evidence?candidate=true").await;
        let evidence = view["evidence"].clone();
        let is_settled = evidence["skipped"] != json!({}) || evidence["shadow_pairs"].as_u64()? > 0;
        is_settled.then_some(evidence)
    })
    .await;
    assert_eq!(skipped["skipped"], json!({ "unresolved_effect": 1 }), "{skipped}");
    let shown = one_line(&run(&["evidence", "labels", "--candidate"]).await);
    assert!(shown.contains("its body, which is bytes"), "{shown}");
    assert_eq!(printer.count(), 1, "by the control alone");
}
