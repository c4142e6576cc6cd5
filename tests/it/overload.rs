//! An overloaded shadow executor: callers are not delayed, memory stays bounded, everything is counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::seed::{report_violations, seed};
use crate::support::test_system::{FAMILY, TestSystem};
use crate::support::{FlagsDir, Metrics, Pointsman, WAIT_MAX, checker, until};

fn small_queue(flags: &crate::support::FlagsDir) {
    flags.edit("pointsman.yaml", |text| {
        format!("{text}limits: {{ shadow_queue_entries_max: 8, shadow_in_flight_max: 2, shadow_run_ms: 3000 }}\n")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_arm_fills_the_queue_and_is_counted() {
    let system = TestSystem::with(small_queue).await;
    let p50 = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let mut off = Vec::new();
    for _ in 0..60 {
        let begun = Instant::now();
        system.order().await;
        off.push(begun.elapsed());
    }
    system.climb_to("shadow").await;
    // Only the engine's arm calls for quotes: legacy computes its own.
    system.world.fault("quote", Fault::Delay(Duration::from_millis(500)), 100_000);
    let mut shadow = Vec::new();
    for n in 0..120 {
        let begun = Instant::now();
        system.order().await;
        shadow.push(begun.elapsed());
        if n % 10 == 0 {
            checker::check_balance(&system.pointsman.metrics().await);
        }
    }
    let (off, shadow) = (p50(off), p50(shadow));
    assert!(
        shadow < off * 4 + Duration::from_millis(20),
        "comparison delays callers: {off:?} in off, {shadow:?} in shadow"
    );
    system.world.clear_faults();
    let metrics = system.pointsman.metrics().await;
    let full = [("outcome", "skipped"), ("reason", "queue_full")];
    assert!(metrics.sum("pointsman_comparisons_total", &full) > 0.0, "the queue was never full");
    until("the shadow to be idle", || async {
        let m = system.pointsman.metrics().await;
        checker::check_balance(&m);
        let busy = m.sum("pointsman_shadow_queue_depth", &[]) + m.sum("pointsman_shadow_in_flight", &[]);
        (busy == 0.0).then_some(())
    })
    .await;
    eprintln!("p50 of an order: {off:?} in off, {shadow:?} in shadow with an engine arm of 500 ms");
    system.finish().await;
}

/// Orders in each half (`off` or `shadow`) of a pair.
const ORDERS_OF_A_HALF: usize = 25;
/// The memory that slow and hung engine arms, with the requests that they hold, may cost.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// Orders in `off` and in `shadow`, in pairs of shuffled order, with an engine arm that is fast, slow, hung or dead. An
/// arm that panics is in the tests of the shadow executor.
#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_what_the_engine_arm_does() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let system = TestSystem::with(small_queue).await;
    system.climb_to("shadow").await;
    let arms = [
        ("fast", Fault::None),
        ("slow", Fault::Delay(Duration::from_secs(5))),
        ("hung", Fault::Delay(Duration::from_secs(600))),
        ("dead", Fault::Close),
    ];
    let base = system.pointsman.reset_peak();
    let (mut wrong, mut orders) = (Vec::new(), 0);
    for (arm, fault) in arms {
        system.world.fault("quote", fault, 100_000);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..2 {
            let mut halves = ["off", "shadow"];
            random.shuffle(&mut halves);
            for state in halves {
                system.flip("orders.create", state, &["--reason", "paired runs"]).await.expect("it is open");
                for _ in 0..ORDERS_OF_A_HALF {
                    let begun = Instant::now();
                    system.order().await;
                    times[usize::from(state == "shadow")].push(begun.elapsed());
                    orders += 1;
                }
                checker::check_balance(&system.pointsman.metrics().await);
            }
        }
        system.world.clear_faults();
        let [off, shadow] = times.map(|mut times| {
            times.sort();
            (times[times.len() / 2], times[times.len() * 99 / 100])
        });
        eprintln!("engine arm {arm}: p50 and p99 of an order {off:?} in off, {shadow:?} in shadow");
        if shadow.0 > off.0 * 4 + Duration::from_millis(50) {
            wrong.push(format!("engine arm {arm}: {off:?} in off, {shadow:?} in shadow"));
        }
    }
    let grown = system.pointsman.peak_kib().saturating_sub(base);
    let metrics = system.pointsman.metrics().await;
    checker::check_balance(&metrics);
    let full = metrics.sum("pointsman_comparisons_total", &[("outcome", "skipped"), ("reason", "queue_full")]);
    assert!(full > 0.0, "the queue was never full");
    assert!(grown < GROWTH_KIB_MAX, "grown by {grown} KiB");
    let figures = format!("{orders} orders, 4 kinds of engine arms, {full} not taken, grown by {grown} KiB");
    report_violations("callers_do_not_notice_what_the_engine_arm_does", Some(seed), &figures, &wrong);
    system.wait_for_shadow_idle().await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_engine_arm_is_counted_as_failed_or_mismatched() {
    let system = TestSystem::with(small_queue).await;
    system.climb_to("shadow").await;
    system.world.fault("quote", Fault::Close, 100_000);
    const OUTCOMES: [&str; 5] = ["matched", "ignored", "mismatched", "failed", "skipped"];
    let outcomes = |m: &Metrics| OUTCOMES.map(|outcome| m.sum("pointsman_comparisons_total", &[("outcome", outcome)]));
    let before = outcomes(&system.pointsman.metrics().await);
    const ORDERS: usize = 10;
    for _ in 0..ORDERS {
        system.order().await;
    }
    let counted = |m: &Metrics| {
        let after = outcomes(m);
        std::array::from_fn::<f64, 5, _>(|at| after[at] - before[at])
    };
    system
        .pointsman
        .until_metric("the outcome of each order", |m| {
            checker::check_balance(m);
            counted(m).iter().sum::<f64>() >= ORDERS as f64
        })
        .await;
    let [matched, ignored, mismatched, failed, skipped] = counted(&system.pointsman.metrics().await);
    assert_eq!((matched, ignored), (0.0, 0.0), "no order is taken for a match");
    assert!(mismatched + failed > 0.0, "{mismatched} mismatched, {failed} failed, {skipped} skipped");
    system.world.clear_faults();
    system.finish().await;
}

/// Scrapes continuously until the load is over: the comparison counts have to balance in every scrape.
async fn check_balance_while(system: &TestSystem, load: impl Future<Output = ()>) {
    let stopped = AtomicBool::new(false);
    let load = async {
        load.await;
        stopped.store(true, Ordering::SeqCst);
    };
    let scraping = async {
        let (mut scrapes, mut busy) = (0, 0);
        while !stopped.load(Ordering::SeqCst) {
            let metrics = system.pointsman.metrics().await;
            checker::check_balance(&metrics);
            let of = |name: &str| metrics.sum(name, &[]);
            busy += u32::from(of("pointsman_shadow_queue_depth") + of("pointsman_shadow_in_flight") > 0.0);
            scrapes += 1;
        }
        (scrapes, busy)
    };
    let ((), (scrapes, busy)) = tokio::join!(load, scraping);
    let offered = system.pointsman.metrics().await.sum("pointsman_offered_total", &[]);
    eprintln!("balanced in {scrapes} scrapes, {busy} of them with work under way; {offered} offered");
    assert!(scrapes >= 10 && busy > 0, "{scrapes} scrapes, {busy} with work under way");
}

async fn many_rounds(system: &TestSystem) {
    for _ in 0..30 {
        futures_util::future::join_all((0..8).map(|_| system.create_read_cancel())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn comparison_counts_balance_at_every_scrape_under_load_and_flips() {
    let system = TestSystem::with(small_queue).await;
    system.climb_to("shadow").await;
    let flipping = async {
        for state in ["off", "shadow", "off", "shadow"] {
            let mut routes = FAMILY;
            if state == "off" {
                routes.reverse();
            }
            for route in routes {
                system.flip(route, state, &["--reason", "up and down"]).await.expect("it is open");
            }
        }
    };
    check_balance_while(&system, async {
        tokio::join!(many_rounds(&system), flipping);
    })
    .await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comparison_counts_balance_at_every_scrape_in_dark_too() {
    let system = TestSystem::with(small_queue).await;
    for state in ["shadow", "dark"] {
        for route in FAMILY {
            let why = ["--force", "--reason", "the counts are checked, not the evidence"];
            system.flip(route, state, &why).await.expect("forced");
        }
    }
    check_balance_while(&system, many_rounds(&system)).await;
    let metrics = system.pointsman.metrics().await;
    let ended = |outcome| metrics.sum("pointsman_comparisons_total", &[("outcome", outcome)]);
    assert!(ended("matched") + ended("ignored") > 0.0 && ended("skipped") > 0.0, "some were taken and some were not");
    system.finish().await;
}

/// The reads of two routes never get a reply, so that each of their runs keeps its slot until it times out.
#[tokio::test(flavor = "multi_thread")]
async fn routes_whose_runs_hang_lose_comparisons_and_others_do_not() {
    let (shop, bank) = (Origin::start(OriginReply::Json("{}")).await, Origin::start(OriginReply::Stall).await);
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\n  bank: {}\ndefault_legacy: shop\nlimits: {{ shadow_queue_entries_max: 40, \
             shadow_in_flight_max: 8, shadow_run_ms: 20000 }}\n",
            shop.url(),
            bank.url()
        ),
    );
    flags.write(
        "workflows/reads.yaml",
        "workflow: reads\nsteps:\n  r: { call: 'GET ${services.bank}/r' }\nrespond: { status: 200, body: {} }\n",
    );
    flags.write(
        "workflows/plain.yaml",
        "workflow: plain\nsteps:\n  a: { set: 1 }\nrespond: { status: 200, body: {} }\n",
    );
    let route = |id: &str, workflow: &str| {
        format!(
            "  - {{ id: {id}, match: {{ method: POST, path: /{id} }}, legacy: shop, workflow: {workflow}, state: shadow }}\n"
        )
    };
    let routes = [route("hung", "reads"), route("hung-too", "reads"), route("good", "plain")].concat();
    flags.write("routes/all.yaml", &format!("routes:\n{routes}"));
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    let send = async |path: &str| {
        let url = format!("{}/{path}", pointsman.url());
        let reply = client.json(Method::POST, &url, &[], &serde_json::json!({})).await.expect("an answer");
        assert_eq!(reply.status, StatusCode::OK);
    };
    for _ in 0..100 {
        send("hung").await;
        send("hung-too").await;
    }
    let full = |metrics: &Metrics, route: &str| {
        let labels = [("route", route), ("outcome", "skipped"), ("reason", "queue_full")];
        metrics.sum("pointsman_comparisons_total", &labels)
    };
    pointsman.until_metric("their places to be taken", |metrics| full(metrics, "hung") > 0.0).await;
    let matched =
        |metrics: &Metrics| metrics.sum("pointsman_comparisons_total", &[("route", "good"), ("outcome", "matched")]);
    // Few places are left beside the two: each request has its turn before the next.
    for n in 1..=20 {
        send("good").await;
        pointsman.until_metric("the good route's pair", |metrics| matched(metrics) == f64::from(n)).await;
    }
    let metrics = pointsman.metrics().await;
    checker::check_balance(&metrics);
    assert_eq!(full(&metrics, "good"), 0.0);
    assert!(full(&metrics, "hung") > 50.0 && full(&metrics, "hung-too") > 50.0, "each has its share only");
}
