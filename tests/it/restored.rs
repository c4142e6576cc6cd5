//! A restored backup does not know what was done after it was made: what may be done twice is held, and shown.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::legacy_keys::{charges, force, send_keyed};
use crate::support::process::{cli, output_text};
use crate::support::seed::{report_violations, seed};
use crate::support::test_system::TestSystem;

/// Makes a backup of the store; its path.
async fn make_backup(system: &TestSystem, name: &str) -> PathBuf {
    let (copy, source) = (system.flags.file(name), format!("sqlite:{}", system.store().display()));
    let done = cli(&["store", "backup", copy.to_str().expect("a path"), "--store", &source], &[]).await;
    assert!(done.status.success(), "{}", output_text(&done));
    copy
}

/// Changes the store of a killed process.
async fn change(system: &TestSystem, text: &'static str) {
    let mut store = SqliteConnectOptions::new().filename(system.store()).connect().await.expect("it opens");
    sqlx::raw_sql(text).execute(&mut store).await.expect("it is changed");
    store.close().await.expect("it closes");
}

async fn row(system: &TestSystem, route: &str) -> Value {
    system.pointsman.get(&format!("/api/v2/routes/{route}")).await
}

async fn order(system: &TestSystem, key: &str, number: u64) -> Value {
    let reply = send_keyed(system, key, number).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{key}: {}", reply.json());
    reply.json()["id"].clone()
}

/// On another machine: neither the original store nor its files are there.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_a_restored_backup_go_down() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let by_engine = order(&system, "before", 1).await;
    assert!(by_engine.is_string(), "{by_engine}");
    system.wait_for_runs_to_end().await;
    let copy = make_backup(&system, "copy.db").await;
    system.kill().await;
    for end in ["", "-wal", "-shm", ".keys", ".evidence", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{end}", system.store().display())); // not each one is there
    }
    system.restart_on(copy).await;
    for when in ["at the first start", "at the second start"] {
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{when}: {shown}");
        let last = shown["flip"].to_string();
        assert!(last.contains("a flip that lowered this route later is not in it"), "{when}: {last}");
        let why = shown["next"].to_string();
        assert!(why.contains("the store is a copy") && why.contains("until 20"), "{when}: {why}");
        // The order of the backup was answered without an error.
        let evidence = &shown["evidence"];
        assert!(evidence["engine_answers"] == 0 && evidence["lost_differences"].is_string(), "{when}: {evidence}");
        let status = system.pointsman.get("/api/v2/status").await.to_string();
        assert!(
            status.contains("restored from a backup of 20") && status.contains("0 runs were open"),
            "{when}: {status}"
        );
        assert_eq!(order(&system, "before", 1).await, by_engine, "{when}: what the backup has is answered by it");
        let read = row(&system, "orders.get").await;
        assert_eq!(read["row"]["effective"]["state"], "live", "{when}: reading twice does no harm: {read}");
        system.kill().await;
        system.restart().await;
    }
    let before = charges(&system);
    assert!(order(&system, "one", 2).await.is_number(), "legacy answers");
    for route in ["orders.cancel", "orders.create"] {
        system.flip(route, "live", &["--force", "--reason", "no client retries"]).await.expect("it is forced");
    }
    assert!(order(&system, "two", 3).await.is_string(), "the engine answers");
    assert_eq!(charges(&system), before + 2, "each once");
    system.kill().await;
    // Without the record of the restore it would not be known that keys are missing.
    change(
        &system,
        "INSERT INTO meta SELECT 'aside', value FROM meta WHERE key = 'restored'; \
                     UPDATE meta SET value = CAST('{' AS BLOB) WHERE key = 'restored'",
    )
    .await;
    let refused = system.restart_refused().await;
    assert!(refused.contains("the row `restored` of the table meta is damaged"), "{refused}");
    change(
        &system,
        "UPDATE meta SET value = (SELECT value FROM meta WHERE key = 'aside') WHERE key = 'restored'; \
                     DELETE FROM meta WHERE key = 'aside'",
    )
    .await;
    system.restart().await;
    assert_eq!(row(&system, "orders.create").await["row"]["effective"]["state"], "live", "it stays forced");
    // A backup of the restored store is a backup of its own: its routes are held again.
    system.wait_for_runs_to_end().await;
    let again = make_backup(&system, "again.db").await;
    system.kill().await;
    system.restart_on(again).await;
    assert_eq!(
        row(&system, "orders.create").await["row"]["effective"]["state"],
        "dark",
        "an earlier force does not count"
    );
    system.finish().await;
    let test = "restored::live_routes_of_a_restored_backup_go_down";
    report_violations(test, seed(), "3 orders, 2 backups", &[]);
}

/// A copy that other tools made of the files of a killed process, beside which the original stays.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_a_copy_beside_the_original_go_down() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    order(&system, "before", 1).await;
    system.wait_for_runs_to_end().await;
    system.kill().await;
    let (original, copy) = (system.store(), system.flags.file("copied.db"));
    for end in ["", "-wal"] {
        let name = |path: &PathBuf| format!("{}{end}", path.display());
        std::fs::copy(name(&original), name(&copy)).expect("copied");
    }
    system.restart_on(copy).await;
    let shown = row(&system, "orders.create").await;
    assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{shown}");
    let status = system.pointsman.get("/api/v2/status").await.to_string();
    assert!(status.contains("a copy of another one"), "{status}");
    system.finish().await;
    let test = "restored::live_routes_of_a_copy_beside_the_original_go_down";
    report_violations(test, seed(), "1 order, 1 copy", &[]);
}
