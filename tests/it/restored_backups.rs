//! A restored backup does not have what was done after it was made: routes that could do it twice are held, and shown.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::legacy_keys::{charges, force, send_keyed};
use crate::support::process::{cli, output_text};
use crate::support::seed::report_violations;
use crate::support::test_system::TestSystem;

/// Makes a backup of the store; returns its path.
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

/// Ends the process normally.
async fn stop(system: &mut TestSystem) {
    system.wait_for_runs_to_end().await;
    assert_eq!(system.pointsman.stop().await, Some(0), "{}", system.pointsman.log());
}

/// Whether the status says that the store is a copy, and with it that keys may be missing; it says both or neither.
async fn says_copy(system: &TestSystem) -> bool {
    let status = system.pointsman.get("/api/v2/status").await.to_string();
    assert_eq!(status.contains("a copy of another one"), status.contains("treated as first tries"), "{status}");
    status.contains("a copy of another one")
}

async fn row(system: &TestSystem, route: &str) -> Value {
    system.pointsman.get(&format!("/api/v2/routes/{route}")).await
}

async fn order(system: &TestSystem, key: &str, number: u64) -> Value {
    let reply = send_keyed(system, key, number).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{key}: {}", reply.json());
    reply.json()["id"].clone()
}

/// The backup is restored as on another machine: neither the original store nor its other files are there.
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
        let _ = std::fs::remove_file(format!("{}{end}", system.store().display())); // may not exist
    }
    system.restart_on(copy).await;
    for when in ["at the first start", "at the second start"] {
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{when}: {shown}");
        let last = shown["flip"].to_string();
        assert!(
            last.contains("if a flip lowered this route after the copy was made, it does not have that flip"),
            "{when}: {last}"
        );
        let why = shown["next"].to_string();
        assert!(why.contains("the store is a copy") && why.contains("until 20"), "{when}: {why}");
        // The order of the backup was answered without an error, and does not count: the evidence starts anew.
        let evidence = &shown["evidence"];
        assert!(evidence["engine_answers"] == 0 && evidence["lost_differences"].is_string(), "{when}: {evidence}");
        let status = system.pointsman.get("/api/v2/status").await.to_string();
        assert!(
            status.contains("restored from a backup of 20") && status.contains("0 runs were open"),
            "{when}: {status}"
        );
        assert_eq!(
            order(&system, "before", 1).await,
            by_engine,
            "{when}: the restored engine answers a retry that the backup has"
        );
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
    let test = "restored_backups::live_routes_of_a_restored_backup_go_down";
    report_violations(test, None, "3 orders, 2 backups", &[]);
}

/// Copies that other tools made of the files of a killed process, without and with its file of retry keys. The original
/// stays.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_a_copy_beside_the_original_go_down() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    order(&system, "before", 1).await;
    system.wait_for_runs_to_end().await;
    let original = system.store();
    for (copy, ends) in [("alone.db", &["", "-wal"][..]), ("with-keys.db", &["", "-wal", ".keys"])] {
        system.kill().await;
        let path = system.flags.file(copy);
        for end in ends {
            let name = |path: &PathBuf| format!("{}{end}", path.display());
            std::fs::copy(name(&original), name(&path)).expect("copied");
        }
        system.restart_on(path).await;
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{copy}: {shown}");
        assert!(says_copy(&system).await, "{copy}");
    }
    system.finish().await;
    let test = "restored_backups::live_routes_of_a_copy_beside_the_original_go_down";
    report_violations(test, None, "1 order, 2 copies", &[]);
}

/// Copies that other tools made of the file of a process that ended normally, alone and together with its file of retry
/// keys. The original is then used, and stays.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_a_copy_of_a_stopped_store_go_down() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    order(&system, "before", 1).await;
    stop(&mut system).await;
    let original = system.store();
    let copies = ["alone.db", "with-keys.db"].map(|name| system.flags.file(name));
    for copy in &copies {
        std::fs::copy(&original, copy).expect("copied");
    }
    let keys = |store: &PathBuf| format!("{}.keys", store.display());
    std::fs::copy(keys(&original), keys(&copies[1])).expect("copied");
    system.restart().await;
    system.flip("orders.create", "off", &["--reason", "legacy takes over"]).await.expect("down is always open");
    let by_legacy = order(&system, "one", 2).await;
    assert!(by_legacy.is_number(), "{by_legacy}");
    system.kill().await;
    for copy in copies {
        let shown_path = copy.display().to_string();
        system.restart_on(copy).await;
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{shown_path}: {shown}");
        assert!(says_copy(&system).await, "{shown_path}");
        let before = charges(&system);
        assert_eq!(order(&system, "one", 2).await, by_legacy, "{shown_path}: the engine performed it again");
        assert_eq!(charges(&system), before, "{shown_path}");
        system.kill().await;
    }
    system.restart_on(original).await;
    system.finish().await;
    let test = "restored_backups::live_routes_of_a_copy_of_a_stopped_store_go_down";
    report_violations(test, None, "2 orders, 2 copies", &[]);
}

/// A store that was stopped and is started by a link, by another name of its file, or after it was moved, is no copy.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_a_moved_store_stay() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    order(&system, "before", 1).await;
    stop(&mut system).await;
    let original = system.store();
    let [link, name, moved] = ["link.db", "name.db", "moved.db"].map(|name| system.flags.file(name));
    std::os::unix::fs::symlink(&original, &link).expect("a link");
    std::fs::hard_link(&original, &name).expect("a name");
    // A file that is moved within a file system keeps its identity, so another move is tested as a copy whose original
    // is removed.
    for (store, original_goes) in [(link, false), (name.clone(), false), (moved, true)] {
        let shown_path = store.display().to_string();
        if original_goes {
            std::fs::copy(&original, &store).expect("copied");
            for path in [&original, &name] {
                std::fs::remove_file(path).expect("removed");
            }
        }
        system.restart_on(store).await;
        assert!(!says_copy(&system).await, "{shown_path}");
        let shown = row(&system, "orders.create").await;
        assert_eq!(shown["row"]["effective"]["state"], "live", "{shown_path}: {shown}");
        if !original_goes {
            stop(&mut system).await;
        }
    }
    system.finish().await;
    report_violations("restored_backups::live_routes_of_a_moved_store_stay", None, "3 starts", &[]);
}

/// Copies of the store's file, made while it was stopped, are put back in its place; the file of retry keys stays.
#[tokio::test(flavor = "multi_thread")]
async fn live_routes_of_an_older_copy_in_the_place_of_the_store_go_down() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    order(&system, "before", 1).await;
    for (number, is_killed) in [(2, false), (3, true)] {
        stop(&mut system).await;
        let (store, older) = (system.store(), system.flags.file("older.db"));
        std::fs::copy(&store, &older).expect("copied");
        system.restart().await;
        assert!(!says_copy(&system).await || number > 2);
        force(&system, "live").await;
        system.flip("orders.create", "off", &["--reason", "legacy takes over"]).await.expect("down is always open");
        let key = number.to_string();
        let by_legacy = order(&system, &key, number).await;
        assert!(by_legacy.is_number(), "{by_legacy}");
        system.flip("orders.create", "live", &["--force", "--reason", "back"]).await.expect("it is forced");
        match is_killed {
            true => system.kill().await,
            false => stop(&mut system).await,
        }
        for end in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", store.display())); // may not exist
        }
        std::fs::copy(&older, &store).expect("copied");
        for when in ["at the first start", "at the second start"] {
            system.restart().await;
            let shown = row(&system, "orders.create").await;
            assert_eq!(shown["row"]["effective"], json!({ "state": "dark", "why": "requested" }), "{when}: {shown}");
            assert!(says_copy(&system).await, "{when}");
            let before = charges(&system);
            assert_eq!(order(&system, &key, number).await, by_legacy, "{when}: the engine performed it again");
            assert_eq!(charges(&system), before, "{when}");
            system.kill().await;
        }
        assert!(system.pointsman.log().contains("the store is an older copy"), "{}", system.pointsman.log());
        system.restart().await;
    }
    system.finish().await;
    let test = "restored_backups::live_routes_of_an_older_copy_in_the_place_of_the_store_go_down";
    report_violations(test, None, "3 orders, 2 copies", &[]);
}
