//! kill -9 in the middle of runs: nothing acknowledged is lost, nothing is done twice, everything finishes.

use std::time::Duration;

use http::Method;
use pointsman::demo::world::Fault;

use crate::support::test_system::{TestSystem, some_order};
use crate::support::until_true;

/// Kills the process while one call of `operation` is in flight, restarts it, and waits until every run has ended.
async fn kill_during(operation: &'static str) {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    system.create_read_cancel().await;
    let before = system.world.arrived(operation);
    system.world.fault(operation, Fault::Delay(Duration::from_secs(30)), 1);
    {
        let body = some_order(1);
        let request = system.send(Method::POST, "/orders", &body);
        let arrived = until_true("the call to arrive", || system.world.arrived(operation) > before);
        tokio::select! {
            _ = request => panic!("it was answered before it was killed"),
            () = arrived => {}
        }
    }
    let before = ["charge", "mail"].map(|o| system.world.ledger().balance().total(o));
    system.kill().await;
    system.allowed.unacknowledged = true;
    system.world.clear_faults();
    system.restart().await;
    system.wait_for_runs_to_end().await;
    let balance = system.world.ledger().balance();
    assert!(balance.duplicates.is_empty(), "{balance:?}");
    if operation != "quote" {
        // A shared step had begun, so the run finishes by itself: what was cut off and what follows is done, once.
        let charges = before[0] + u64::from(operation != "mail");
        assert_eq!([charges, before[1] + 1], ["charge", "mail"].map(|o| balance.total(o)), "{balance:?}");
    }
    system.create_read_cancel().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_a_read() {
    kill_during("quote").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_a_reservation() {
    kill_during("reserve").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_charge() {
    kill_during("charge").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_mail() {
    kill_during("mail").await;
}

/// Several kills at arbitrary moments under load.
#[tokio::test(flavor = "multi_thread")]
async fn killed_repeatedly_under_load() {
    let mut system = TestSystem::with_latency(pointsman::demo::Latency::new(0.3, 7), |_| {}).await;
    system.climb_to("live").await;
    system.allowed.unacknowledged = true;
    let mut random = fastrand::Rng::with_seed(11);
    for kill in 1..=5 {
        let target = system.world.ledger().len() + random.usize(5..40);
        {
            let load = async {
                loop {
                    let bodies: Vec<_> = (0..4).map(|n| some_order(n + kill * 10)).collect();
                    let requests = bodies.iter().map(|body| system.send(Method::POST, "/orders", body));
                    for reply in futures_util::future::join_all(requests).await.into_iter().flatten() {
                        if reply.status.is_success() {
                            system.record_order(reply.json());
                        }
                    }
                }
            };
            let ledger = system.world.ledger();
            tokio::select! {
                () = load => {}
                () = until_true("some effects", || ledger.len() >= target) => {}
            }
        }
        system.kill().await;
        system.restart().await;
    }
    system.wait_for_runs_to_end().await;
    let runs = system.pointsman.get("/api/v2/orchestrate/runs?status=paused&limit=10").await;
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(0), "every service is keyed, so nothing waits: {runs}");
    system.finish().await;
}
