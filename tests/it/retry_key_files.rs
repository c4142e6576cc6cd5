//! Retry keys that legacy took are in a file until the store has them; the file or the store is moved, copied or lost.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::legacy_keys::{charges, fill_disk, force, send_keyed};
use crate::support::process::{Start, cli, output_text};
use crate::support::strace::Strace;
use crate::support::test_system::TestSystem;
use crate::support::{FlagsDir, Pointsman, until};

/// Sets `retry_keys_dir` in the flag files.
fn keep_in(flags: &FlagsDir, dir: &TempDir) {
    flags.edit("pointsman.yaml", |text| {
        let others: Vec<&str> = text.lines().filter(|line| !line.starts_with("retry_keys_dir:")).collect();
        format!("{}\nretry_keys_dir: {}\n", others.join("\n"), dir.path().display())
    });
}

/// Lets legacy take an order while the store accepts no writes, and kills the process. Returns the order's id.
async fn let_legacy_take(system: &mut TestSystem, key: &str) -> Value {
    let full = fill_disk(system).await;
    let first = send_keyed(system, key, 1).await;
    assert!(first.json()["id"].is_number(), "{}", first.json());
    system.kill().await;
    full.end().await;
    first.json()["id"].clone()
}

/// Checks that the client's retry, with the route in `live`, is answered with legacy's order.
async fn check_retry_stays_with_legacy(system: &TestSystem, key: &str, id: &Value) {
    force(system, "live").await;
    let before = charges(system);
    let again = send_keyed(system, key, 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, id), "{}", again.json());
    assert_eq!(charges(system), before, "it was performed again");
}

async fn why_shut(system: &TestSystem) -> String {
    let flip = json!({ "to": "live" });
    let reply = system.pointsman.api(Method::POST, "/api/v2/routes/orders.create/flip", flip).await;
    assert_eq!(reply.status, StatusCode::CONFLICT, "{}", reply.json());
    reply.json().to_string()
}

fn tempdir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_directory_for_the_file_forgets_no_key() {
    let (earlier, later) = (tempdir(), tempdir());
    let mut system = TestSystem::with(|flags| keep_in(flags, &earlier)).await;
    system.allowed.unacknowledged = true;
    let id = let_legacy_take(&mut system, "one").await;
    keep_in(&system.flags, &later);
    system.restart().await;
    check_retry_stays_with_legacy(&system, "one", &id).await;
    system.finish().await;
}

/// The store accepts no writes, so the key stays in the file; the process is killed when it syncs that file.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_wait_for_the_store_are_synced() {
    let dir = tempdir();
    let mut system = TestSystem::with(|flags| keep_in(flags, &dir)).await;
    system.allowed.unacknowledged = true;
    let options = SqliteConnectOptions::new().filename(system.store());
    let mut other = options.connect().await.expect("the store opens");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("it is locked");
    let file = std::fs::read_dir(dir.path()).expect("a directory").next().expect("a file").expect("a file").path();
    let killed_at_sync = Strace::inject_on(system.pointsman.pid(), "fsync,fdatasync", "signal=SIGKILL", &[file]).await;
    let first = send_keyed(&system, "one", 1).await;
    assert!(first.json()["id"].is_number(), "{}", first.json());
    until("the file to be synced", || async { system.pointsman.is_gone().then_some(()) }).await;
    killed_at_sync.end().await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("it is free");
    other.close().await.expect("it closes");
    system.kill().await;
    system.restart().await;
    check_retry_stays_with_legacy(&system, "one", &first.json()["id"]).await;
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_shuts_the_gate_until_it_is_back() {
    let (dir, hidden) = (tempdir(), tempdir());
    let mut system = TestSystem::with(|flags| keep_in(flags, &dir)).await;
    system.allowed.unacknowledged = true;
    let id = let_legacy_take(&mut system, "one").await;
    let named: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").map(|e| e.expect("a file").path()).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    let away = hidden.path().join("away.keys");
    std::fs::rename(&named[0], &away).expect("renamed");
    for _ in 0..2 {
        system.restart().await;
        force(&system, "dark").await;
        for follower in ["orders.get", "orders.cancel"] {
            system.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
        }
        let why = why_shut(&system).await;
        assert!(why.contains("the file of retry keys") && why.contains("another file has its name"), "{why}");
        let status = system.pointsman.get("/api/v2/status").await;
        assert!(status["retry_keys_trouble"].as_str().is_some_and(|why| why.contains("retry keys")), "{status}");
        assert!(system.pointsman.log().contains("a file of retry keys of legacy is not there"));
        system.kill().await;
    }
    let other_name = named[0].to_string_lossy().replace("-0.keys", "-1.keys");
    std::fs::rename(&away, other_name).expect("renamed");
    system.restart().await;
    force(&system, "dark").await;
    assert!(!why_shut(&system).await.contains("file of retry keys"));
    check_retry_stays_with_legacy(&system, "one", &id).await;
    system.finish().await;
}

/// A cohort that its own `force` puts in `live` is held like a route in `live`.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_cohort_in_live_stays_with_legacy_while_the_file_is_gone() {
    const CREATE: &str = "match: { method: POST, path: /orders }";
    let when = r#"'${request.headers["idempotency-key"].startsWith("staff")}'"#;
    let cohort = format!("cohorts: [{{ name: staff, when: {when}, state: live, force: {{ reason: a test }} }}]");
    let (dir, hidden) = (tempdir(), tempdir());
    let mut system = TestSystem::with(|flags| {
        keep_in(flags, &dir);
        flags.edit("routes/orders.yaml", |text| {
            assert!(text.contains(CREATE), "{text}");
            text.replacen(CREATE, &format!("{CREATE}\n    {cohort}"), 1)
        });
    })
    .await;
    system.allowed.unacknowledged = true;
    let by_engine = send_keyed(&system, "staff-0", 0).await;
    assert!(by_engine.json()["id"].is_string(), "{}", by_engine.json());
    let id = let_legacy_take(&mut system, "staff-1").await;
    let named: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").map(|e| e.expect("a file").path()).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    std::fs::rename(&named[0], hidden.path().join("away.keys")).expect("renamed");
    system.restart().await;
    let shown = system.pointsman.get("/api/v2/routes/orders.create").await;
    let why = shown["refused"].to_string();
    assert!(why.contains("the cohort `staff` is held below `live`"), "{why}");
    let before = charges(&system);
    let again = send_keyed(&system, "staff-1", 1).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::CREATED, &id), "{}", again.json());
    assert_eq!(charges(&system), before, "it was performed again");
    system.finish().await;
}

/// The offset of the first record in the file, and the size of a record.
const RING: usize = 64 * 64;
const RECORD: usize = 64;

type Change = fn(&mut Vec<u8>);

/// Lets legacy take six orders, kills the process, and changes its file of retry keys. Returns why the gate to `live`
/// is shut after that.
async fn gate_reasons_after(change: Change, is_damage: bool) -> String {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let full = fill_disk(&system).await;
    for number in 1..=6 {
        let taken = send_keyed(&system, &format!("key-{number}"), number).await;
        assert!(taken.json()["id"].is_number(), "{}", taken.json());
    }
    system.kill().await;
    full.end().await;
    let path = format!("{}.keys", system.store().display());
    let mut bytes = std::fs::read(&path).expect("the file");
    change(&mut bytes);
    std::fs::write(&path, bytes).expect("written");
    let mut why = String::new();
    // The second process finds a sound file that notes the damage which the first one found.
    for _ in 0..2 {
        system.restart().await;
        force(&system, "dark").await;
        for follower in ["orders.get", "orders.cancel"] {
            system.flip(follower, "live", &["--force", "--reason", "followers go first"]).await.expect("it is forced");
        }
        why = why_shut(&system).await;
        let shown = output_text(&system.pointsman.cli(&["status"]).await);
        assert_eq!(shown.contains("retry keys: "), is_damage, "{shown}");
        system.kill().await;
    }
    let reports = system.pointsman.log().matches("the file of retry keys is damaged").count();
    assert_eq!(reports, usize::from(is_damage), "{}", system.pointsman.log());
    system.restart().await;
    system.finish().await;
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_shuts_the_gate() {
    let damages: [(&str, Change); 4] = [
        ("truncated", |bytes| bytes.truncate(RING + 4 * RECORD)),
        ("zeros at the end", |bytes| bytes[RING + 4 * RECORD..].fill(0)),
        ("zeros in all records", |bytes| bytes[RING..].fill(0)),
        ("a record that cannot be read", |bytes| bytes[RING + 2 * RECORD + 30] ^= 1),
    ];
    for (damage, change) in damages {
        let why = gate_reasons_after(change, true).await;
        assert!(why.contains("could not be noted"), "{damage}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_being_written_shuts_no_gate() {
    let tear_next = |bytes: &mut Vec<u8>| {
        let noted = bytes[RECORD + 24..RECORD + 32].try_into().map(u64::from_le_bytes).expect("a number");
        let next = RING + usize::try_from(noted).expect("a number") * RECORD;
        assert!(noted >= 6 && bytes[next..next + RECORD].iter().all(|byte| *byte == 0), "{noted}");
        bytes[next + 10..next + 40].fill(7);
    };
    let why = gate_reasons_after(tear_next, false).await;
    assert!(!why.contains("retry keys"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_on_a_copy_of_the_store_takes_no_key_away() {
    let dir = tempdir();
    let mut system = TestSystem::with(|flags| keep_in(flags, &dir)).await;
    system.allowed.unacknowledged = true;
    let id = let_legacy_take(&mut system, "one").await;
    let copy = system.flags.file("copy.db");
    for end in ["", "-wal"] {
        let with_suffix = |path: &std::path::Path| format!("{}{end}", path.display());
        std::fs::copy(with_suffix(&system.store()), with_suffix(&copy)).expect("copied");
    }
    let start =
        Start { store: format!("sqlite:{}", copy.display()), log: system.flags.file("copy.log"), ..system.arguments() };
    let mut other = Pointsman::start(&start).await;
    assert!(other.log().contains("belongs to the store"), "{}", other.log());
    system.restart().await;
    check_retry_stays_with_legacy(&system, "one", &id).await;
    assert_eq!(other.stop().await, Some(0), "{}", other.log());
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_has_the_keys_that_wait_in_the_file() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let full = fill_disk(&system).await;
    let first = send_keyed(&system, "one", 1).await;
    assert!(first.json()["id"].is_number(), "{}", first.json());
    let copy = system.flags.file("copy.db");
    let source = format!("sqlite:{}", system.store().display());
    let backup = cli(&["store", "backup", copy.to_str().expect("a path"), "--store", &source, "--json"], &[]).await;
    assert!(backup.status.success(), "{}", output_text(&backup));
    let report: Value = serde_json::from_slice(&backup.stdout).expect("JSON");
    assert!(report["waiting_keys"].as_u64().is_some_and(|keys| keys > 0), "{report}");
    assert_eq!(report["unread"], json!([]), "{report}");
    system.kill().await;
    full.end().await;
    system.restart_on(copy).await;
    check_retry_stays_with_legacy(&system, "one", &first.json()["id"]).await;
    system.finish().await;
}
