//! A start while the store accepts no writes: legacy answers its routes, and the runs that the last process left are
//! resumed once the store accepts writes again.

use std::io::Write;
use std::path::Path;

use http::{Method, StatusCode};
use pointsman::demo::Latency;
use pointsman::demo::world::Fault;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::legacy_keys::{charges, force, send_keyed};
use crate::support::process::{cli, output_text};
use crate::support::small_disk::SmallDisk;
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{WAIT_MAX, until, until_true};

/// Begins an order in the engine whose charge stays in flight; then all routes go to `off`.
async fn leave_a_run_in_flight(system: &TestSystem) {
    force(system, "live").await;
    system.world.fault("charge", Fault::DelayReply(WAIT_MAX), 1);
    let began = async {
        until_true("the charge to be sent", || system.world.arrived("charge") == 1).await;
    };
    tokio::select! {
        reply = send_keyed(system, "the run's", 1) => panic!("it is answered: {}", reply.json()),
        () = began => {}
    }
    system.lower("off").await;
}

/// Checks a process that was started on a store that accepts no writes.
async fn check_serving_without_the_store(system: &TestSystem) {
    for (key, number) in [("new", 2), ("newer", 3)] {
        let new = send_keyed(system, key, number).await;
        assert_eq!(new.status, StatusCode::CREATED, "{}", new.json());
        assert!(new.json()["id"].is_number(), "legacy answers: {}", new.json());
    }
    system.send_ok(Method::GET, "/orders", &Value::Null).await;
    let status = system.pointsman.get("/api/v2/status").await;
    assert_eq!(status["engine_healthy"], false, "{status}");
    assert!(status["recovery_trouble"].is_string(), "{status}");
    let shown = output_text(&system.pointsman.cli(&["status"]).await);
    assert!(shown.contains("the engine takes no new runs"), "{shown}");
    let ready = system.pointsman.api(Method::GET, "/readyz", Value::Null).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", ready.body);
    assert_eq!(system.pointsman.metrics().await.sum("pointsman_recovery_pending", &[]), 1.0);
    let start = json!({ "workflow": "create-order", "input": some_order(4) });
    let started = system.pointsman.api(Method::POST, "/api/v2/orchestrate/run", start).await;
    assert_eq!(
        (started.status, &started.json()["title"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("Nothing was started"))
    );
    assert!(started.json()["detail"].as_str().is_some_and(|why| why.contains("not resumed yet")), "{}", started.json());
    assert_eq!(started.headers["retry-after"], "1");
    let charged = charges(system);
    let retried = send_keyed(system, "the run's", 1).await;
    assert_eq!(retried.status, StatusCode::SERVICE_UNAVAILABLE, "{}", retried.json());
    assert_eq!(charges(system), charged, "nothing is begun anew");
}

/// Checks the process and its run once the store accepts writes again.
async fn check_resumed_run(system: TestSystem) {
    until("the process to be ready", || async {
        let ready = system.pointsman.api(Method::GET, "/readyz", Value::Null).await;
        (ready.status == StatusCode::OK).then_some(())
    })
    .await;
    system.wait_for_runs_to_end().await;
    let retried = send_keyed(&system, "the run's", 1).await;
    assert_eq!(retried.status, StatusCode::CREATED, "{}", retried.json());
    assert!(retried.json()["id"].is_string(), "the run's answer: {}", retried.json());
    assert_eq!(charges(&system), 3, "one of the run, two of legacy's orders");
    assert_eq!(system.pointsman.metrics().await.sum("pointsman_recovery_pending", &[]), 0.0);
    system.finish().await;
}

/// Empties the log of a database that is in use: in a long log that was moved to the database, a start has room to write
/// although the disk is full.
async fn empty_log(path: &Path) {
    let database = rusqlite::Connection::open(path).expect("the store");
    until_true("the log to be empty", || {
        let busy = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        busy.is_ok_and(|busy| busy == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_and_resumes_later() {
    let Some(disk) = SmallDisk::mount("8m") else {
        eprintln!("not tried: this user may not mount a file system");
        return;
    };
    let store = format!("sqlite:{}", disk.path().join("pointsman.db").display());
    let small = |text: String| text + "\nlimits: { retry_keys_file_bytes_max: 65536 }\n";
    let mut system = TestSystem::on(Some(store), Latency::instant(), |flags| flags.edit("pointsman.yaml", small)).await;
    system.allowed.unacknowledged = true;
    leave_a_run_in_flight(&system).await;
    empty_log(&disk.path().join("pointsman.db")).await;
    let filler = disk.fill();
    for _ in 0..2 {
        system.kill().await;
        system.restart().await;
        until_true("the log to say why", || system.pointsman.log().contains("cannot be resumed yet")).await;
    }
    check_serving_without_the_store(&system).await;
    std::fs::remove_file(filler).expect("removed");
    check_resumed_run(system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_starts_again_on_a_disk_that_became_full() {
    let Some(disk) = SmallDisk::mount("8m") else {
        eprintln!("not tried: this user may not mount a file system");
        return;
    };
    let path = disk.path().join("pointsman.db");
    let small = |text: String| text + "\nlimits: { retry_keys_file_bytes_max: 65536 }\n";
    let store = format!("sqlite:{}", path.display());
    let mut system = TestSystem::on(Some(store), Latency::instant(), |flags| flags.edit("pointsman.yaml", small)).await;
    system.allowed.unacknowledged = true;
    force(&system, "live").await;
    let by_engine = send_keyed(&system, "before", 1).await;
    assert!(by_engine.json()["id"].is_string(), "the engine answers: {}", by_engine.json());
    system.wait_for_runs_to_end().await;
    system.lower("off").await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    let filler = disk.fill();
    for (key, number) in [("new", 2), ("newer", 3)] {
        system.restart().await;
        let new = send_keyed(&system, key, number).await;
        assert_eq!(new.status, StatusCode::CREATED, "{}", new.json());
        assert!(new.json()["id"].is_number(), "legacy answers: {}", new.json());
        let retried = send_keyed(&system, "before", 1).await;
        assert_eq!(retried.json(), by_engine.json(), "the store is read");
        assert_eq!(system.pointsman.stop().await, Some(0));
    }
    // Without the `-shm` file that a stopped process leaves, the start fails and says why.
    let index = disk.path().join("pointsman.db-shm");
    std::fs::remove_file(&index).expect("removed");
    let mut refill = std::fs::OpenOptions::new().append(true).open(&filler).expect("the filler");
    while refill.write_all(&[1; 512]).is_ok() {}
    let log = system.restart_refused().await;
    assert!(log.contains("the disk is full"), "{log}");
    // The space of a removed file is free only once the file is closed.
    drop(refill);
    std::fs::remove_file(filler).expect("removed");
    system.restart().await;
    until("the process to be ready", || async {
        let ready = system.pointsman.api(Method::GET, "/readyz", Value::Null).await;
        (ready.status == StatusCode::OK).then_some(())
    })
    .await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_locked_store_serves_and_resumes_later() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    leave_a_run_in_flight(&system).await;
    let options = SqliteConnectOptions::new().filename(system.store());
    let mut other = options.connect().await.expect("the store opens");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("it is locked");
    system.kill().await;
    system.restart().await;
    check_serving_without_the_store(&system).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("it is free");
    other.close().await.expect("it closes");
    check_resumed_run(system).await;
}

/// SQLite maps the file `-shm` to memory. A write to a part of it that has no block yet would end the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_with_small_blocks_ends_no_process() {
    let Some(disk) = SmallDisk::mount_with_small_blocks() else {
        eprintln!("not tried: this user may not mount a file system of an image");
        return;
    };
    let small = |text: String| text + "\nlimits: { retry_keys_file_bytes_max: 65536 }\n";
    let store = format!("sqlite:{}", disk.path().join("pointsman.db").display());
    let mut system = TestSystem::on(Some(store), Latency::instant(), |flags| flags.edit("pointsman.yaml", small)).await;
    system.allowed.unacknowledged = true;
    assert_eq!(system.pointsman.stop().await, Some(0));
    disk.fill();
    system.restart().await;
    // Fills the space that the start has left free.
    let filler = disk.fill();
    for (key, number) in [("new", 1), ("newer", 2)] {
        let new = send_keyed(&system, key, number).await;
        assert_eq!(new.status, StatusCode::CREATED, "{}", new.json());
    }
    std::fs::remove_file(filler).expect("removed");
    force(&system, "live").await;
    // The next check of the engine's health finds that the disk accepts writes again.
    until("the route to be live", || async {
        let shown = system.pointsman.get("/api/v2/routes/orders.create").await;
        (shown["row"]["effective"]["state"] == "live").then_some(())
    })
    .await;
    let by_engine = send_keyed(&system, "newest", 3).await;
    assert!(by_engine.json()["id"].is_string(), "the engine answers: {}", by_engine.json());
    system.wait_for_runs_to_end().await;
    system.finish().await;
}

/// Where the store is read-only, no blocks are allocated for the file `-shm`.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_a_read_only_disk_with_small_blocks_is_read() {
    let Some(disk) = SmallDisk::mount_with_small_blocks() else {
        eprintln!("not tried: this user may not mount a file system of an image");
        return;
    };
    let small = |text: String| text + "\nlimits: { retry_keys_file_bytes_max: 65536 }\n";
    let store = format!("sqlite:{}", disk.path().join("pointsman.db").display());
    let on_disk = Some(store.clone());
    let mut system = TestSystem::on(on_disk, Latency::instant(), |flags| flags.edit("pointsman.yaml", small)).await;
    assert_eq!(system.pointsman.stop().await, Some(0));
    disk.remount("ro");
    let checked = cli(&["store", "check", "--store", &store], &[]).await;
    assert!(checked.status.success(), "{}", output_text(&checked));
    disk.remount("rw");
    system.restart().await;
    system.finish().await;
}
