//! A store that hangs, beside more keys and instances of the engine's than are kept in memory: whoever legacy answers does
//! not wait for it.

use std::path::PathBuf;

use http::{Method, StatusCode};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::seed::{said, seed};
use crate::support::strace::Strace;
use crate::support::town::{FAMILY, Town, id, some_order};

/// So many first tries of the engine's.
const KEYS: u64 = 110_000;

/// Writes them into a store that nobody has open, all of one run.
async fn crowd(town: &Town) {
    let options = SqliteConnectOptions::new().filename(town.store());
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
async fn whom_legacy_answers_does_not_wait() {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    for rung in ["shadow", "dark", "live"] {
        for route in FAMILY {
            town.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
        }
    }
    let keyed = async |town: &Town, key: &str, number| {
        town.send_with(Method::POST, "/orders", &[("idempotency-key", key)], &some_order(number))
            .await
            .expect("a reply")
    };
    let engines = keyed(&town, "the engine's", 1).await;
    assert!(engines.status == StatusCode::CREATED && engines.json()["id"].is_string(), "{}", engines.json());
    town.quiet().await;
    let mut wrong = Vec::new();
    for state in ["off", "shadow", "dark"] {
        town.lower("off").await;
        for rung in ["shadow", "dark"].into_iter().take_while(|_| state != "off") {
            for route in FAMILY {
                town.flip(route, rung, &["--force", "--reason", "the test climbs"]).await.expect("it is forced");
            }
            if rung == state {
                break;
            }
        }
        let legacys = town.order().await;
        town.idle().await;
        town.quiet().await;
        town.kill().await;
        if state == "off" {
            crowd(&town).await;
        }
        town.restart().await;
        town.pointsman
            .until_metric("what the engine took and owns to be known", |metrics| {
                let entries = |set| metrics.sum("pointsman_affinity_set_entries", &[("set", set)]);
                entries("engine_keys") > KEYS as f64 * 0.99 && entries("engine_pins") >= 1.0
            })
            .await;
        let beside = |end: &str| PathBuf::from(format!("{}{end}", town.store().display()));
        let files = [town.store(), beside("-wal")];
        let calls = "pread64,pwrite64,fsync,fdatasync";
        let hangs = Strace::inject_on(town.pointsman.pid(), calls, "delay_enter=4000000", &files).await;
        for n in 0..12 {
            let reply = keyed(&town, &format!("{state}-{n}"), n).await;
            if reply.status != StatusCode::CREATED || !reply.json()["id"].is_number() {
                wrong.push(format!("{state}: a keyed order gets {} {}", reply.status, reply.json()));
            }
            let read =
                town.send(Method::GET, &format!("/orders/{}", id(&legacys)), &Value::Null).await.expect("a reply");
            if !read.status.is_success() {
                wrong.push(format!("{state}: an order of legacy's reads as {} {}", read.status, read.json()));
            }
        }
        town.kill().await;
        hangs.end().await;
        town.restart().await;
    }
    town.finish().await;
    said("store_hangs::whom_legacy_answers_does_not_wait", seed(), "36 keyed orders and 36 reads", &wrong);
}
