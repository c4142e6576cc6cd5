//! kill -9 at every event boundary: when a thread syncs a file for the n-th time, and at its n-th write to a socket.
//!
//! After each kill the next process continues: every run finishes, nothing acknowledged is lost, and calls that were in
//! flight are sent at most once more. A seed picks some of the boundaries; `POINTSMAN_ALL=1` takes them all.

use std::collections::BTreeMap;

use http::Method;
use pointsman::demo::http::NoReply;
use serde_json::{Value, json};

use crate::support::seed::{report_violations, seed, tries_everything};
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::until_true;

/// A system in which the engine answers all routes from the start.
async fn live_system() -> TestSystem {
    let mut system = TestSystem::with(|flags| {
        for file in ["routes/orders.yaml", "routes/campaigns.yaml"] {
            flags.edit(file, |text| {
                ["create-order", "get-order", "cancel-order", "create-campaign"].iter().fold(text, |text, workflow| {
                    let off = format!("workflow: {workflow}\n    state: off");
                    text.replace(&off, &off.replace("off", "live\n    force: { reason: a test }"))
                })
            });
        }
    })
    .await;
    system.allowed.unacknowledged = true;
    system
}

/// Sends requests of every kind concurrently and records the acknowledged ones; returns whether all were answered.
async fn send_traffic(system: &TestSystem, round: u64) -> bool {
    let one = |number: u64| async move {
        let made = system.send(Method::POST, "/orders", &some_order(number)).await?;
        if made.status.is_success() {
            let order = made.json();
            let path = format!("/orders/{}", id(&order));
            system.record_order(order);
            system.send(Method::GET, &path, &Value::Null).await?;
            system.send(Method::POST, &format!("{path}/cancel"), &Value::Null).await?;
        }
        Ok::<_, NoReply>(())
    };
    let brief = json!({ "product": "tea", "audience": "everybody" });
    let campaign = system.send(Method::POST, "/campaigns", &brief);
    let (first, second, campaign) = tokio::join!(one(round * 2), one(round * 2 + 1), campaign);
    first.is_ok() && second.is_ok() && campaign.is_ok()
}

/// How many calls were repeated since an entry of the ledger, and which were repeated more than once.
fn repeated_calls(system: &TestSystem, since: usize) -> (usize, Vec<String>) {
    let mut extra: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for line in system.world.ledger().entries().into_iter().skip(since).filter(|line| line.repeated) {
        *extra.entry((line.operation, line.key)).or_default() += 1;
    }
    let wrong =
        extra.iter().filter(|(_, times)| **times > 1).map(|(call, times)| format!("{call:?} {times} times again"));
    (extra.values().sum(), wrong.collect())
}

/// Kills the process at every `stride`-th of these system calls, one kill in each round.
async fn kill_at_each(test: &str, calls: &str, stride: usize) {
    let seed = seed();
    let (first, stride) =
        if tries_everything() { (1, 1) } else { (1 + usize::try_from(seed).unwrap_or(0) % stride, stride) };
    let mut system = live_system().await;
    // Opens connections and fills caches, so that the system calls that are counted below are those of events.
    assert!(send_traffic(&system, 0).await);
    let (mut kills, mut sent_again, mut wrong) = (0, 0, Vec::new());
    for n in (first..2_000).step_by(stride) {
        let since = system.world.ledger().len();
        let strace = Strace::inject(system.pointsman.pid(), calls, &format!("signal=SIGKILL:when={n}")).await;
        if send_traffic(&system, n as u64).await && !system.pointsman.is_gone() {
            strace.end().await;
            break;
        }
        until_true("the process to be gone", || system.pointsman.is_gone()).await;
        strace.end().await;
        kills += 1;
        system.allowed.crashes += 1;
        system.restart().await;
        system.wait_for_runs_to_end().await;
        let (times, twice) = repeated_calls(&system, since);
        sent_again += times;
        wrong.extend(twice.into_iter().map(|what| format!("kill at {calls} no. {n}: {what}")));
        let paused = system.pointsman.get("/api/v2/orchestrate/runs?status=paused&limit=10").await;
        if paused["runs"].as_array().is_none_or(|runs| !runs.is_empty()) {
            wrong.push(format!("kill at {calls} no. {n}: every service is keyed, and a run waits: {paused}"));
        }
    }
    assert!(kills > 0, "it was never killed");
    system.finish().await;
    report_violations(test, Some(seed), &format!("{kills} kills at {calls}, {sent_again} calls sent again"), &wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_sync_of_the_store() {
    kill_at_each("kill_at_every_write::killed_at_each_sync_of_the_store", "fsync,fdatasync", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_write_to_a_socket() {
    kill_at_each("kill_at_every_write::killed_at_each_write_to_a_socket", "sendto,writev", 5).await;
}
