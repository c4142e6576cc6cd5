//! What the circuit breaker of one process tells those of the others on one database.

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Value, json};

use crate::requests_across_moves::force;
use crate::shared_moves::requested;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::output_text;
use crate::support::seed::report_violations;
use crate::support::two_processes::TwoProcesses;
use crate::support::{Pointsman, WAIT_MAX, until};

/// The service `press`, as the API of a process shows it; `None` as long as the files with it are not in force.
async fn press(at: &Pointsman) -> Option<Value> {
    let services = at.get("/api/v2/services").await;
    services.as_array().expect("a list").iter().find(|row| row["name"] == "press").cloned()
}

async fn until_open_in(at: &Pointsman, others: usize) -> Value {
    until(&format!("the breaker to be open in {others} other processes"), || async {
        let breaker = press(at).await?["breaker"].clone();
        (breaker["open_in"].as_array().map(Vec::len) == Some(others)).then_some(breaker)
    })
    .await
}

/// Four calls fail at one process, whose breaker opens; a single one is enough then at the other, and a call that
/// succeeds there is not refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_is_a_hint_for_the_other_process() {
    let Some(two) = TwoProcesses::start_with_long_lease("").await else { return };
    let service = Origin::start(OriginReply::Status(500)).await;
    two.flags.edit("pointsman.yaml", |text| {
        let press = format!(
            "  press:\n    urls: [\"{}\"]\n    breaker: {{ min: 4, over: 60s, open: 3s, open_max: 3s, probes: 1 }}\n",
            service.url()
        );
        text.replace("services:\n", &format!("services:\n{press}"))
    });
    two.flags.write(
        "workflows/print.yaml",
        "workflow: print\nsteps:\n  ask: { call: \"GET ${services.press}/proofs\", retry: { attempts: 1 } }\n\
         respond: { status: 200, body: { id: l1 } }\n",
    );
    two.flags.write(
        "routes/print.yaml",
        "routes:\n- { id: print, match: { method: POST, path: /print }, legacy: shop, workflow: print, state: off }\n",
    );
    for process in &two.processes {
        until("the files to be in force", || press(process)).await;
    }
    let client = Client::new(WAIT_MAX);
    let print = async |at: usize| {
        let url = format!("{}/print", two.processes[at].url());
        client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer").status
    };
    for at in [0, 1] {
        until("the route to be there", || async { (requested(&two, at, "print").await == "off").then_some(()) }).await;
    }
    for to in ["shadow", "dark", "live", "only"] {
        force(&two, 0, "print", to).await;
    }
    until("both to have it in `only`", || async { (requested(&two, 1, "print").await == "only").then_some(()) }).await;
    for _ in 0..4 {
        assert!(print(0).await.is_server_error());
    }
    let mut wrong = Vec::new();
    let told = until_open_in(&two.processes[1], 1).await;
    let named = told["open_in"][0].as_str().unwrap_or_default().to_owned();
    if told["state"] != "closed" || !named.starts_with(&format!("process {} on ", two.processes[0].pid())) {
        wrong.push(format!("the second process shows {told}"));
    }
    let table = output_text(&two.processes[1].cli(&["services"]).await);
    if !table.lines().any(|line| line.starts_with("press") && line.contains("closed, open in 1 other process")) {
        wrong.push(format!("the table: {table}"));
    }
    let asked = service.count();
    print(1).await;
    let after_one = press(&two.processes[1]).await.expect("a service")["breaker"]["state"].clone();
    if (service.count(), &after_one) != (asked + 1, &json!("open")) {
        wrong.push(format!("after one failed call of the second process: {after_one}, {} calls", service.count()));
    }
    // The service answers again: each finds out by itself, and nothing is left of the hints.
    service.set_default(OriginReply::Json(r#"{"id":"b1"}"#));
    for (at, process) in two.processes.iter().enumerate() {
        until("the breaker to close", || async { print(at).await.is_success().then_some(()) }).await;
        let breaker = press(process).await.expect("a service")["breaker"].clone();
        if breaker["state"] != "closed" {
            wrong.push(format!("process {at} after a probe that succeeded: {breaker}"));
        }
    }
    for process in &two.processes {
        until_open_in(process, 0).await;
    }
    wrong.extend(two.finish(0).await);
    report_violations(
        "shared_breakers::an_open_breaker_is_a_hint_for_the_other_process",
        None,
        "a breaker that opens in one of 2 processes",
        &wrong,
    );
}
