//! An overloaded shadow executor: callers are not delayed, memory stays bounded, everything is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pointsman::demo::world::Fault;

use crate::support::town::{FAMILY, Town};
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
    // Only the engine's arm calls for quotes: legacy computes its own.
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

/// Scrapes continuously until the load is over: the comparison counts have to balance in every scrape.
async fn balances_while(town: &Town, load: impl Future<Output = ()>) {
    let over = AtomicBool::new(false);
    let load = async {
        load.await;
        over.store(true, Ordering::SeqCst);
    };
    let looking = async {
        let (mut scrapes, mut busy) = (0, 0);
        while !over.load(Ordering::SeqCst) {
            let metrics = town.pointsman.metrics().await;
            checker::identity(&metrics);
            let of = |name: &str| metrics.sum(name, &[]);
            busy += u32::from(of("pointsman_shadow_queue_depth") + of("pointsman_shadow_in_flight") > 0.0);
            scrapes += 1;
        }
        (scrapes, busy)
    };
    let ((), (scrapes, busy)) = tokio::join!(load, looking);
    let offered = town.pointsman.metrics().await.sum("pointsman_offered_total", &[]);
    eprintln!("balanced in {scrapes} scrapes, {busy} of them with work under way; {offered} offered");
    assert!(scrapes >= 10 && busy > 0, "{scrapes} scrapes, {busy} with work under way");
}

async fn many_rounds(town: &Town) {
    for _ in 0..30 {
        futures_util::future::join_all((0..8).map(|_| town.round())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_balances_at_every_scrape_under_load_and_flips() {
    let town = Town::with(small_queue).await;
    town.climb("shadow").await;
    let flipping = async {
        for state in ["off", "shadow", "off", "shadow"] {
            let mut routes = FAMILY;
            if state == "off" {
                routes.reverse();
            }
            for route in routes {
                town.flip(route, state, &["--reason", "up and down"]).await.expect("it is open");
            }
        }
    };
    balances_while(&town, async {
        tokio::join!(many_rounds(&town), flipping);
    })
    .await;
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_balances_at_every_scrape_in_dark_too() {
    let town = Town::with(small_queue).await;
    for state in ["shadow", "dark"] {
        for route in FAMILY {
            let why = ["--force", "--reason", "the account is looked at, not the evidence"];
            town.flip(route, state, &why).await.expect("forced");
        }
    }
    balances_while(&town, many_rounds(&town)).await;
    let metrics = town.pointsman.metrics().await;
    let ended = |outcome| metrics.sum("pointsman_comparisons_total", &[("outcome", outcome)]);
    assert!(ended("matched") + ended("ignored") > 0.0 && ended("skipped") > 0.0, "some were taken and some were not");
    town.finish().await;
}
