//! A store that hangs while the engine has more keys and instances than are kept in memory: requests that legacy
//! answers do not wait for it.

use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::seed::{report_violations, seed};
use crate::support::strace::Strace;
use crate::support::test_system::{FAMILY, TestSystem, id, some_order};

/// The number of first tries that the engine took.
const KEYS: u64 = 110_000;

/// Of the 72 requests, how many may ask the store. A set of 110,000 keys answers "perhaps" for one of 4,000 others, and
/// a keyed request is looked up in it up to four times: in 3 of 100 runs of this test one of the 36 keyed requests
/// asks, in 5 of 10,000 runs two do.
const FALSE_POSITIVES_MAX: usize = 1;

/// Adds [`KEYS`] random keys, all of one run of the engine, to a store that no process has open.
async fn fill(system: &TestSystem) {
    let options = SqliteConnectOptions::new().filename(system.store());
    let mut store = options.connect().await.expect("the store opens");
    let added = sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) \
         INSERT INTO retry_keys (key, arm, run_id, request, at) \
         SELECT randomblob(32), held.arm, held.run_id, held.request, held.at FROM n, \
         (SELECT * FROM retry_keys WHERE run_id IS NOT NULL LIMIT 1) AS held",
    )
    .bind(i64::try_from(KEYS).expect("a number"))
    .execute(&mut store)
    .await
    .expect("rows are added");
    assert_eq!(added.rows_affected(), KEYS);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_legacy_answers_do_not_wait() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    for rung in ["shadow", "dark", "live"] {
        for route in FAMILY {
            system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
    let send_keyed = async |system: &TestSystem, key: &str, number| {
        system
            .send_with(Method::POST, "/orders", &[("idempotency-key", key)], &some_order(number))
            .await
            .expect("a reply")
    };
    let engine_order = send_keyed(&system, "the engine's", 1).await;
    assert!(
        engine_order.status == StatusCode::CREATED && engine_order.json()["id"].is_string(),
        "{}",
        engine_order.json()
    );
    system.wait_for_runs_to_end().await;
    let mut wrong = Vec::new();
    for state in ["off", "shadow", "dark"] {
        system.lower("off").await;
        for rung in ["shadow", "dark"].into_iter().take_while(|_| state != "off") {
            for route in FAMILY {
                system.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
            }
            if rung == state {
                break;
            }
        }
        let legacy_order = system.order().await;
        system.wait_for_shadow_idle().await;
        system.wait_for_runs_to_end().await;
        system.kill().await;
        if state == "off" {
            fill(&system).await;
        }
        system.restart().await;
        system
            .pointsman
            .until_metric("what the engine took and owns to be known", |metrics| {
                let entries = |set| metrics.sum("pointsman_affinity_set_entries", &[("set", set)]);
                entries("engine_keys") > KEYS as f64 * 0.99 && entries("engine_pins") >= 1.0
            })
            .await;
        let with_suffix = |end: &str| PathBuf::from(format!("{}{end}", system.store().display()));
        let files = [system.store(), with_suffix("-wal")];
        let calls = "pread64,pwrite64,fsync,fdatasync";
        let hangs = Strace::inject_on(system.pointsman.pid(), calls, "delay_enter=4000000", &files).await;
        for n in 0..12 {
            let reply = send_keyed(&system, &format!("{state}-{n}"), n).await;
            if reply.status != StatusCode::CREATED || !reply.json()["id"].is_number() {
                wrong.push(format!("{state}: a keyed order gets {} {}", reply.status, reply.json()));
            }
            let read = system
                .send(Method::GET, &format!("/orders/{}", id(&legacy_order)), &Value::Null)
                .await
                .expect("a reply");
            if !read.status.is_success() {
                wrong.push(format!("{state}: an order of legacy's reads as {} {}", read.status, read.json()));
            }
        }
        system.kill().await;
        hangs.end().await;
        system.restart().await;
    }
    system.finish().await;
    if wrong.len() <= FALSE_POSITIVES_MAX {
        wrong.iter().for_each(|wrong| eprintln!("one false positive of a set is allowed: {wrong}"));
        wrong.clear();
    }
    report_violations(
        "store_hangs::requests_that_legacy_answers_do_not_wait",
        seed(),
        "36 keyed orders and 36 reads",
        &wrong,
    );
}
