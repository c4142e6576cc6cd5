//! An overloaded shadow: the caller does not notice, nothing grows, everything is counted.

use std::time::{Duration, Instant};

use pointsman::demo::world::Fault;

use crate::support::town::Town;
use crate::support::{checker, until};

fn small_queue(flags: &crate::support::FlagsDir) {
    flags.edit("pointsman.yaml", |text| {
        format!("{text}limits: {{ shadow_queue_entries_max: 8, shadow_in_flight_max: 2, shadow_run_ms: 3000 }}\n")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_arm_fills_the_queue_and_is_counted() {
    let town = Town::with(small_queue).await;
    let p50 = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let mut off = Vec::new();
    for _ in 0..60 {
        let begun = Instant::now();
        town.order().await;
        off.push(begun.elapsed());
    }
    town.climb("shadow").await;
    // Only the engine's arm asks for quotes: legacy computes its own.
    town.world.fault("quote", Fault::Delay(Duration::from_millis(500)), 100_000);
    let mut shadow = Vec::new();
    for n in 0..120 {
        let begun = Instant::now();
        town.order().await;
        shadow.push(begun.elapsed());
        if n % 10 == 0 {
            checker::identity(&town.pointsman.metrics().await);
        }
    }
    let (off, shadow) = (p50(off), p50(shadow));
    assert!(shadow < off * 4 + Duration::from_millis(20), "the caller noticed: {off:?} in off, {shadow:?} in shadow");
    town.world.heal();
    let metrics = town.pointsman.metrics().await;
    let full = [("outcome", "skipped"), ("reason", "queue_full")];
    assert!(metrics.sum("pointsman_comparisons_total", &full) > 0.0, "the queue was never full");
    until("the shadow to be idle", || async {
        let m = town.pointsman.metrics().await;
        checker::identity(&m);
        let busy = m.sum("pointsman_shadow_queue_depth", &[]) + m.sum("pointsman_shadow_in_flight", &[]);
        (busy == 0.0).then_some(())
    })
    .await;
    eprintln!("p50 of an order: {off:?} in off, {shadow:?} in shadow with an engine arm of 500 ms");
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_arm_is_counted_as_failed() {
    let town = Town::with(small_queue).await;
    town.climb("shadow").await;
    town.world.fault("quote", Fault::Close, 100_000);
    for _ in 0..10 {
        town.order().await;
    }
    town.pointsman
        .until_metric("a failed comparison", |m| {
            checker::identity(m);
            m.sum("pointsman_comparisons_total", &[("outcome", "failed")])
                + m.sum("pointsman_comparisons_total", &[("outcome", "mismatched")])
                > 0.0
        })
        .await;
    town.world.heal();
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_balances_at_every_scrape_under_load_and_flips() {
    let town = Town::with(small_queue).await;
    town.climb("shadow").await;
    let load = async {
        for _ in 0..40 {
            let rounds = (0..6).map(|_| town.round());
            futures_util::future::join_all(rounds).await;
        }
    };
    let looking = async {
        for n in 0..60 {
            checker::identity(&town.pointsman.metrics().await);
            if n == 20 || n == 40 {
                for route in ["orders.create", "orders.cancel", "orders.get"] {
                    town.flip(route, "off", &["--reason", "up and down"]).await.expect("down is open");
                }
                for route in ["orders.get", "orders.cancel", "orders.create"] {
                    town.flip(route, "shadow", &["--reason", "up and down"]).await.expect("shadow is open");
                }
            }
        }
    };
    tokio::join!(load, looking);
    town.finish().await;
}
