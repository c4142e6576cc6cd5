//! The kill switch from outside: once a freeze is acknowledged, nothing that it forbids begins, not even for a request
//! that was assigned to the engine before.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::process::output_text;
use crate::support::raw_connection::RawConnection;
use crate::support::seed::report_violations;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, short_pause, some_order};
use crate::support::{until, until_true};

/// A call that was handed to the socket before the acknowledgement may be counted by its receiver this much later.
const IN_TRANSIT: Duration = Duration::from_millis(150);

/// For how long the test observes that no call begins while effects are frozen: without the freeze, the rate would let
/// all waiting calls begin in this time.
const OBSERVED: Duration = Duration::from_secs(3);
/// Under load: how long each freeze is in force and watched.
const FROZEN: Duration = Duration::from_millis(300);
/// Under load: how many clients send orders.
const CLIENTS: u64 = 8;

/// The engine answers orders from the start; `more` goes into pointsman.yaml.
async fn live_system(more: &str) -> TestSystem {
    TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| {
            ["create-order", "get-order", "cancel-order"].iter().fold(text, |text, workflow| {
                let off = format!("workflow: {workflow}\n    state: off");
                text.replace(&off, &off.replace("off", "live\n    force: { reason: a test }"))
            })
        });
        flags.edit("pointsman.yaml", |text| format!("{text}{more}"));
    })
    .await
}

fn is_from_engine(order: &Value) -> bool {
    order["id"].is_string()
}

async fn freeze(system: &TestSystem, arguments: &[&str]) -> String {
    let output = system.pointsman.cli(&[&["freeze"], arguments].concat()).await;
    assert!(output.status.success(), "{}", output_text(&output));
    output_text(&output)
}

/// The decision for a request is made at its head, while the route is live; its body comes after the freeze: legacy
/// answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_begins_nothing() {
    let system = live_system("").await;
    assert!(is_from_engine(&system.order().await));
    let body = some_order(7).to_string();
    let mut client =
        RawConnection::connect(system.pointsman.url()["http://".len()..].parse().expect("an address")).await;
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ntraceparent: \
         00-0000000000000000000000000000abcd-000000000000abcd-01\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head).await;
    // `100 Continue` comes once the request was decided for the engine.
    assert_eq!(client.reply().await.status, 100);
    freeze(&system, &["--reason", "a look around"]).await;
    client.send(body).await;
    let reply = client.reply().await;
    let order: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert!(reply.status == 201 && !is_from_engine(&order), "{} {order}", reply.status);
    system.record_order(order);
    // The fallback is no failure of the engine: the count of its consecutive answers is not reset.
    let evidence = system.pointsman.get("/api/v2/routes/orders.create/evidence").await["evidence"].clone();
    assert_eq!((&evidence["engine_answers"], &evidence["engine_errors"]), (&json!(1), &json!(0)), "{evidence}");
    freeze(&system, &["--off"]).await;
    system.finish().await;
}

/// Idle clients hold more connections than the admin listener has room for: the kill switch still works.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_block_the_kill_switch() {
    let system = live_system("limits: { api_connections_max: 256 }\n").await;
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut client = RawConnection::connect(system.pointsman.admin).await;
        // Half of the clients have sent a part of a head.
        client.send(if number % 2 == 0 { "" } else { "GET /metrics HTTP/1.1\r\nhost: a\r\nx: " }).await;
        idle.push(client);
    }
    let within = Duration::from_secs(5);
    let ready = tokio::time::timeout(within, system.pointsman.try_api("/readyz")).await.expect("a reply in time");
    assert_eq!(ready.expect("a reply").status.as_u16(), 200);
    tokio::time::timeout(within, freeze(&system, &["--reason", "a flood"])).await.expect("it is frozen in time");
    assert!(!is_from_engine(&system.order().await));
    drop(idle);
    freeze(&system, &["--off"]).await;
    system.finish().await;
}

/// Clients whose bodies do not arrive hold all connections to the admin listener: the kill switch works before these
/// clients are disconnected for their slowness. The newest of them is still served.
#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_do_not_keep_the_kill_switch_out() {
    let system = live_system("limits: { api_connections_max: 256 }\n").await;
    let body = "{\"on\": true, \"reason\": \"slowly\"}";
    let (begin, end) = body.split_at(10);
    let request = format!(
        "POST /api/v2/freeze HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begin}",
        system.pointsman.admin,
        body.len()
    );
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut client = RawConnection::connect(system.pointsman.admin).await;
        client.send(&request).await;
        slow.push(client);
    }
    let within = Duration::from_secs(5);
    tokio::time::timeout(within, freeze(&system, &["--reason", "a flood"])).await.expect("it is frozen in time");
    assert!(!is_from_engine(&system.order().await));
    freeze(&system, &["--off"]).await;
    let newest = slow.last_mut().expect("there are some");
    newest.send(end).await;
    let reply = newest.reply().await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    drop(slow);
    freeze(&system, &["--off"]).await;
    system.finish().await;
}

/// Calls wait for their service's rate when effects are frozen: none of them is sent, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_a_permit_are_not_sent() {
    const CALLS: usize = 12;
    let mut system = TestSystem::with(|flags| {
        flags.edit("pointsman.yaml", |text| {
            text.replace("/bank\"], keyed: true }", "/bank\"], keyed: true, rate: 5/s, burst: 1 }")
        });
        flags.write(
            "workflows/pay-all.yaml",
            &format!(
                "workflow: pay-all\n\
                 steps:\n  \
                 pay:\n    for_each: ${{request.body.all}}\n    concurrency: {CALLS}\n    \
                 call: POST ${{services.bank}}/charges\n    body: {{ order: '${{item}}', amount: 1 }}\n    retry: {{ attempts: 1 }}\n\
                 respond: {{ status: 200, body: {{}} }}\n"
            ),
        );
    })
    .await;
    system.allowed.unacknowledged = true;
    let all: Vec<usize> = (0..CALLS).collect();
    let request = json!({ "workflow": "pay-all", "input": { "all": all } });
    let path = "/api/v2/orchestrate/run";
    let client = pointsman::demo::http::Client::new(crate::support::WAIT_MAX);
    let url = format!("{}{path}", system.pointsman.admin_url());
    let begun =
        client.json(Method::POST, &url, &[("prefer", "respond-async")], &request).await.expect("a reply").json();
    let run = begun["data"]["run_id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
    let charged = || system.world.ledger().balance().total("charge");
    until("the first calls", || async { (charged() >= 2).then_some(()) }).await;
    let answer = freeze(&system, &["--effects", "--reason", "the bank is odd"]).await;
    assert!(answer.contains("1 run in flight; 1 run open, waiting ones included"), "{answer}");
    until("the calls that were sent to be answered", || async {
        let metrics = system.pointsman.metrics().await;
        (metrics.sum("pointsman_service_calls_in_flight", &[("service", "bank")]) == 0.0).then_some(())
    })
    .await;
    let before = charged();
    assert!((before as usize) < CALLS / 2, "most of them wait: {before}");
    tokio::time::sleep(OBSERVED).await;
    assert_eq!(charged(), before, "none begins after the acknowledgement");
    let explained = output_text(&system.pointsman.cli(&["explain", &run]).await);
    assert!(explained.contains("is held"), "{explained}");
    freeze(&system, &["--off"]).await;
    until("the run to end", || async {
        (system.pointsman.get(&format!("{path}/{run}")).await["data"]["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(charged() as usize, CALLS, "each of them once");
    system.finish().await;
}

/// Requests are sent continuously while the kill switch is set and lifted repeatedly.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_begins_between_an_acknowledgement_and_its_end() {
    const ROUNDS: usize = 30;
    let mut system = live_system("limits: { answer_ms: 20000 }\n").await;
    system.allowed.unacknowledged = true;
    let (stopped, by_engine) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        let one = async |worker: u64| {
            let mut number = worker;
            while !stopped.load(Ordering::SeqCst) {
                number += CLIENTS;
                let reply = system.send(Method::POST, "/orders", &some_order(number)).await.expect("a reply");
                if reply.status.is_success() {
                    by_engine.fetch_add(u64::from(is_from_engine(&reply.json())), Ordering::SeqCst);
                    system.record_order(reply.json());
                }
                short_pause().await;
            }
        };
        futures_util::future::join_all((0..CLIENTS).map(one)).await;
    };
    // Records for each freeze the time from its acknowledgement to the request that lifts it.
    let switching = async {
        let (mut instances, mut effects) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let with_effects = round % 2 == 1;
            let switch = async |body: Value| {
                let reply = system.pointsman.api(Method::POST, "/api/v2/freeze", body).await;
                assert!(reply.status.is_success(), "{}", reply.json());
            };
            switch(json!({ "on": true, "effects": with_effects })).await;
            let from = Timestamp::now();
            tokio::time::sleep(FROZEN).await;
            let window = (from, Timestamp::now());
            instances.push(window);
            if with_effects {
                effects.push(window);
            }
            switch(json!({ "on": false, "effects": false })).await;
            // Up to `CLIENTS` answers may be of runs that began before the freeze; one answer more shows that a run has
            // begun after it.
            let answered = by_engine.load(Ordering::SeqCst) + CLIENTS;
            until_true("the engine to begin runs again", || by_engine.load(Ordering::SeqCst) > answered).await;
        }
        stopped.store(true, Ordering::SeqCst);
        (instances, effects)
    };
    let ((), (instances, effects)) = tokio::join!(load, switching);
    let mut wrong = Vec::new();
    let mut instances_made = 0;
    let mut before = String::new();
    loop {
        let page = system.pointsman.get(&format!("/api/v2/orchestrate/runs?limit=500{before}")).await;
        let runs = page["runs"].as_array().cloned().unwrap_or_default();
        for run in &runs {
            let started: Timestamp =
                run["started"].as_str().unwrap_or_else(|| panic!("{run}")).parse().expect("a time");
            instances_made += usize::from(run["route"] == "orders.create");
            let inside = instances.iter().any(|(from, to)| *from < started && started < *to);
            if inside && run["route"] == "orders.create" {
                wrong.push(format!("an instance began at {started}"));
            }
        }
        match runs.last().filter(|_| runs.len() == 500) {
            Some(last) => before = format!("&before={}", last["run_id"].as_str().expect("an id")),
            None => break,
        }
    }
    let late = jiff::SignedDuration::try_from(IN_TRANSIT).expect("short");
    let entries = system.world.ledger().entries();
    let held = |at: Timestamp| effects.iter().any(|(from, to)| at > *from + late && at < *to);
    let begun = entries.iter().filter(|entry| entry.by_engine() && !entry.repeated && held(entry.at));
    wrong.extend(begun.map(|entry| format!("`{}` began at {}", entry.operation, entry.at)));
    let engine_effects = entries.iter().filter(|entry| entry.by_engine()).count();
    assert!(
        instances_made > ROUNDS && engine_effects > ROUNDS,
        "the engine worked in between: {instances_made} runs, {engine_effects} effects"
    );
    system.finish().await;
    let figures = format!("{ROUNDS} freezes, {instances_made} instances and {engine_effects} effects in between");
    report_violations(
        "freeze::under_load_nothing_begins_between_an_acknowledgement_and_its_end",
        None,
        &figures,
        &wrong,
    );
}

/// The kill switch is set while the store accepts no writes: the freeze is in force at once, the answer says that it is
/// not recorded, lifting it is refused, and once the store has recorded it, a restart keeps it.
async fn while_the_store_takes_nothing(test: &str, calls: &str, fault: &str) {
    let mut system = live_system("limits: { move_answer_ms: 2000 }\n").await;
    system.allowed.unacknowledged = true;
    assert!(is_from_engine(&system.order().await));
    system.wait_for_runs_to_end().await;
    let switch = async |system: &TestSystem, body: Value| {
        let reply = system.pointsman.api(Method::POST, "/api/v2/freeze", body).await;
        (reply.status.as_u16(), reply.json())
    };
    let unrecorded = async |system: &TestSystem, count: f64| {
        let matches = |metrics: &crate::support::Metrics| metrics.sum("pointsman_freeze_unrecorded", &[]) == count;
        system.pointsman.until_metric("the metric pointsman_freeze_unrecorded to change", matches).await;
    };
    let store = system.store();
    let files = ["", "-wal", "-journal"].map(|end| std::path::PathBuf::from(format!("{}{end}", store.display())));
    let store_fault = Strace::inject_on(system.pointsman.pid(), calls, fault, &files).await;
    let (status, frozen) = switch(&system, json!({ "on": true, "effects": true, "reason": "an alarm" })).await;
    assert_eq!((status, &frozen["freeze"], &frozen["recorded"]), (202, &json!("effects"), &json!(false)), "{frozen}");
    assert!(frozen["note"].as_str().is_some_and(|note| note.contains("in force")), "{frozen}");
    unrecorded(&system, 1.0).await;
    assert!(!is_from_engine(&system.order().await), "legacy answers while it is frozen");
    let (status, lifted) = switch(&system, json!({ "on": false })).await;
    assert_eq!(status, 503, "{lifted}");
    assert!(!is_from_engine(&system.order().await), "legacy answers: the freeze stays in force");
    store_fault.end().await;
    unrecorded(&system, 0.0).await;
    system.kill().await;
    system.restart().await;
    let status = system.pointsman.get("/api/v2/status").await;
    assert_eq!((&status["freeze"], &status["freeze_unrecorded"]), (&json!("effects"), &json!(false)), "{status}");
    freeze(&system, &["--off"]).await;
    assert!(is_from_engine(&system.order().await));
    system.finish().await;
    report_violations(test, None, "1 freeze, 4 orders", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_on_a_full_disk_is_in_force_at_once() {
    let test = "freeze::a_freeze_on_a_full_disk_is_in_force_at_once";
    while_the_store_takes_nothing(test, "pwrite64,pwritev", "error=ENOSPC").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_while_the_store_hangs_is_in_force_at_once() {
    let test = "freeze::a_freeze_while_the_store_hangs_is_in_force_at_once";
    while_the_store_takes_nothing(test, "pwrite64,pwritev,fsync,fdatasync", "delay_enter=6000000").await;
}

/// Freezes and their ends are requested at the same time: the one in force is the last one in the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_the_freeze_that_was_in_force_after_freezes_and_their_ends() {
    const ROUNDS: usize = 40;
    let mut system = live_system("").await;
    let switch = async |system: &TestSystem, body: Value| {
        let reply = system.pointsman.api(Method::POST, "/api/v2/freeze", body).await;
        assert!(matches!(reply.status.as_u16(), 200 | 202 | 409), "{} {}", reply.status, reply.json());
    };
    let in_force = async |system: &TestSystem| system.pointsman.get("/api/v2/status").await["freeze"].clone();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        let (on, effects, off) =
            (json!({ "on": true }), json!({ "on": true, "effects": true }), json!({ "on": false }));
        match round % 2 {
            0 => tokio::join!(switch(&system, off), switch(&system, on), switch(&system, effects)),
            _ => tokio::join!(switch(&system, effects), switch(&system, on), switch(&system, off)),
        };
        let recorded = |metrics: &crate::support::Metrics| metrics.sum("pointsman_freeze_unrecorded", &[]) == 0.0;
        system.pointsman.until_metric("the freeze to be recorded", recorded).await;
        let last = system.pointsman.get("/api/v2/flips?limit=1").await[0]["to"].clone();
        let freeze = in_force(&system).await;
        assert_eq!(last, freeze, "round {round}");
        seen.insert(freeze.to_string());
    }
    switch(&system, json!({ "on": true, "effects": true })).await;
    system.kill().await;
    system.restart().await;
    assert_eq!(in_force(&system).await, "effects", "it was acknowledged as recorded");
    freeze(&system, &["--off"]).await;
    system.finish().await;
    let figures = format!("{ROUNDS} rounds, in force after them: {seen:?}");
    report_violations(
        "freeze::a_restart_finds_the_freeze_that_was_in_force_after_freezes_and_their_ends",
        None,
        &figures,
        &[],
    );
}
