//! Replies of the outside world are lost at random, callers hang up at random, and repeat the same key until they are
//! answered.
//!
//! Where a service honours keys, a call with an unknown outcome is sent again with the same bytes. Where it does not, a
//! person decides: an effect that happened is taken over, one that did not is sent once more; nothing is sent again
//! automatically.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use pointsman::demo::world::Fault;
use serde_json::{Value, json};

use crate::support::seed::{report_violations, seed};
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{WAIT_MAX, until};

const ORDERS: u64 = 24;
/// Calls of each operation that may meet a fault.
const CALLS: usize = 120;
const OPERATIONS: [&str; 3] = ["reserve", "charge", "mail"];
/// How long a client waits before it repeats its request.
const CLIENT_PAUSE: Duration = Duration::from_millis(40);
const RUNS: &str = "/api/v2/orchestrate/run";

/// The engine answers orders from the start; every service honours keys, or none does.
async fn system(keyed: bool) -> TestSystem {
    let mut system = TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| {
            ["create-order", "get-order", "cancel-order"].iter().fold(text, |text, workflow| {
                let off = format!("workflow: {workflow}\n    state: off");
                text.replace(&off, &off.replace("off", "live\n    force: { reason: a test }"))
            })
        });
        flags.edit("pointsman.yaml", |text| {
            // The breaker has tests of its own; here it is off, so that it stops no call.
            let text = text.replace("keyed: true", &format!("keyed: {keyed}, breaker: off"));
            format!("{text}limits: {{ step_timeout_ms: 400 }}\n")
        });
    })
    .await;
    system.allowed.unacknowledged = true;
    system
}

/// The fault of each call of the outside world: mostly none.
fn faults(random: &mut fastrand::Rng) -> BTreeMap<&'static str, Vec<Fault>> {
    let mut draw = || match random.u8(0..20) {
        0..=2 => Fault::LoseReply,
        3 => Fault::Close,
        4 => Fault::Refuse(500),
        5 => Fault::DelayReply(Duration::from_millis(700)),
        _ => Fault::None,
    };
    OPERATIONS.map(|operation| (operation, (0..CALLS).map(|_| draw()).collect())).into()
}

/// Repeats one order under one key until it is confirmed; returns how often it was sent.
async fn send_until_confirmed(system: &TestSystem, number: u64, mut random: fastrand::Rng) -> u64 {
    let (key, order) = (format!("key-{number}"), some_order(number));
    let headers = [("idempotency-key", key.as_str())];
    let (mut times_sent, deadline) = (0, tokio::time::Instant::now() + WAIT_MAX);
    loop {
        times_sent += 1;
        let sent = system.send_with(Method::POST, "/orders", &headers, &order);
        // Some callers hang up before they are answered.
        let wait_max = if random.u8(0..4) == 0 { Duration::from_millis(random.u64(1..80)) } else { WAIT_MAX };
        if let Ok(Ok(reply)) = tokio::time::timeout(wait_max, sent).await {
            let status = reply.status.as_u16();
            assert!(matches!(status, 201 | 409 | 503 | 504), "{status}: {}\n{}", reply.json(), system.pointsman.log());
            if status == 201 {
                system.record_order(reply.json());
                return times_sent;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "order {number} is not confirmed:\n{}", system.pointsman.log());
        tokio::time::sleep(CLIENT_PAUSE).await;
    }
}

/// The key under which the call that a conflict is about was sent.
async fn key_of(system: &TestSystem, run: &str, conflict: &Value) -> Option<String> {
    let events = system.pointsman.get(&format!("{RUNS}/{run}/events")).await;
    let started = events.as_array()?.iter().rev().filter_map(|event| event["event"].get("step_started"));
    let mut of = started.filter(|step| step["step"] == conflict["step_id"] && step["item"] == conflict["item"]);
    Some(of.next()?["key"].as_str()?.to_owned())
}

/// Decides every conflict by what the ledger says, until `done`; returns the number of decisions that were accepted.
async fn resolve_conflicts(system: &TestSystem, done: &Cell<bool>) -> u64 {
    let mut decided = 0;
    loop {
        let paused = system.pointsman.get("/api/v2/orchestrate/runs?status=paused").await;
        let runs = paused["runs"].as_array().into_iter().flatten();
        for run in runs.filter_map(|run| run["run_id"].as_str()) {
            let shown = system.pointsman.get(&format!("{RUNS}/{run}")).await;
            for conflict in shown["data"]["conflicts"].as_array().into_iter().flatten() {
                let key = key_of(system, run, conflict).await;
                let took_place = system.world.ledger().entries().iter().any(|line| line.key == key && !line.repeated);
                let mut body = json!({ "step": conflict["step_id"], "item": conflict["item"], "choice": "retry" });
                if took_place {
                    body["choice"] = "take".into();
                    body["output"] = json!({ "id": "looked up" });
                }
                let reply = system.pointsman.api(Method::POST, &format!("{RUNS}/{run}/resolve"), body).await;
                assert!(matches!(reply.status.as_u16(), 200 | 409), "{} {}", reply.status, reply.json());
                decided += u64::from(reply.status.is_success());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if done.get() {
            return decided;
        }
    }
}

async fn replies_are_lost(test: &str, keyed: bool) {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut system = system(keyed).await;
    let drawn = faults(&mut random);
    for (operation, faults) in &drawn {
        faults.iter().for_each(|fault| system.world.fault(operation, *fault, 1));
    }
    let done = Cell::new(false);
    let all = async {
        let mut times_sent = 0;
        for chunk in (0..ORDERS).collect::<Vec<_>>().chunks(8) {
            let orders = chunk.iter().map(|number| send_until_confirmed(&system, *number, random.fork()));
            times_sent += futures_util::future::join_all(orders).await.iter().sum::<u64>();
        }
        done.set(true);
        times_sent
    };
    let (times_sent, decided) = tokio::join!(all, resolve_conflicts(&system, &done));
    let calls_made = |operation: &str| usize::try_from(system.world.arrived(operation)).expect("few").min(CALLS);
    let faults_met = drawn.iter().map(|(operation, faults)| {
        faults[..calls_made(operation)].iter().filter(|fault| **fault != Fault::None).count() as u64
    });
    let faults_met = faults_met.sum::<u64>();
    let again = system.world.ledger().entries().iter().filter(|line| line.repeated).count() as u64;
    let mut wrong = Vec::new();
    if again > if keyed { faults_met } else { 0 } {
        wrong.push(format!("{again} calls were made again after {faults_met} faults, keys honoured: {keyed}"));
    }
    until("every run to end", || async {
        let open = system.pointsman.get("/api/v2/orchestrate/runs?status=open").await;
        open["runs"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
    system.allowed.lost_replies = faults_met;
    system.finish().await;
    let figures = format!(
        "{ORDERS} orders, sent {times_sent} times, {faults_met} faults, {again} calls made again, {decided} decisions of a person"
    );
    report_violations(test, Some(seed), &figures, &wrong);
}

#[tokio::test]
async fn with_keys_an_unknown_outcome_is_sent_again() {
    replies_are_lost("lost_replies::with_keys_an_unknown_outcome_is_sent_again", true).await;
}

#[tokio::test]
async fn without_keys_an_unknown_outcome_is_decided_by_a_person() {
    replies_are_lost("lost_replies::without_keys_an_unknown_outcome_is_decided_by_a_person", false).await;
}
