//! A check finds every kind of damage, and reports nothing for an undamaged store; a backup is complete.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::store::{Claim, LockChange, RunSnapshot, Store, StoreChecked};

const WINDOW: Duration = Duration::from_secs(86_400);

/// A time so long ago that the retry key has expired.
fn past() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// A closed database with rows in nearly all tables that a check examines.
async fn undamaged() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    fill(&store).await;
    store.close().await;
    (dir, path)
}

/// Writes an open run with a lock, a command and an outbox row; an ended run with a pin, a claimed key, a snapshot and
/// a large output; a purged run with a pin; and an open rerun of another purged run.
async fn fill(store: &impl Store) {
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    let open = vec![(at(1), run_started(run_id(1), at(1)))];
    let summary = fold(open.iter().map(|(_, event)| event)).unwrap().summary(at(1));
    let locks = vec![LockChange::Queue { name: "sku:1".into(), step: "reserve".into(), item: None }];
    let pending_runs = vec![pending_runs::pending_run(9, Some(1))];
    store
        .append(Arc::new(Append { events: open, summary, locks, pending_runs, ..append(run_id(1), 1, 1) }))
        .await
        .unwrap();
    store.put_command(coordination::command_record(1, run_id(1))).await.unwrap();
    let mut large = completed_run(run_id(2), at(2));
    large.events[1].1 = Event::Step(StepEvent::Computed { step: "a".into(), output: json!("x".repeat(50_000)).into() });
    large.pins = vec![pin("17", Arm::Engine)];
    large.claim = claim(1);
    for one in split(large) {
        store.append(one.into()).await.unwrap();
    }
    let two = store.events(run_id(2), Seq::FIRST).await.unwrap();
    let body = fold(two[..2].iter().map(|stored| &stored.event)).unwrap().to_snapshot().unwrap();
    let fold = crate::workflow::FOLD.to_owned();
    store.put_run_snapshot(RunSnapshot { run: run_id(2), seq: Seq(2), at: at(2), fold, body }).await.unwrap();
    let old = Append { pins: vec![pin("18", Arm::Engine)], ..completed_run(run_id(3), past()) };
    store.append(old.into()).await.unwrap();
    store.append(Append { claim: claim(4), ..completed_run(run_id(4), past()) }.into()).await.unwrap();
    store.append(rerun_of(run_id(4), run_id(5)).into()).await.unwrap();
    assert_eq!(store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 2);
}

fn claim(n: u8) -> Option<Claim> {
    Some(Claim::new(RetryKey([n; 32]), [n; 32]))
}

/// Splits an append into three: the first event, the second, and the rest.
fn split(whole: Append) -> Vec<Append> {
    let of = |from: usize, to: usize| {
        let events = whole.events[from..to].to_vec();
        let at = events.last().unwrap().0;
        let summary = fold(whole.events[..to].iter().map(|(_, event)| event)).unwrap().summary(at);
        let first = Seq(from as u64 + 1);
        Append { first, events, summary, batch: Uuid::now_v7(), pins: Vec::new(), claim: None, ..whole.clone() }
    };
    let first = Append { claim: whole.claim, ..of(0, 1) };
    let rest = Append { pins: whole.pins.clone(), ..of(2, whole.events.len()) };
    vec![first, of(1, 2), rest]
}

async fn check(path: &Path) -> StoreChecked {
    SqliteStore::check(path, WINDOW).await.unwrap()
}

pub(super) async fn edit(path: &Path, text: &str) {
    use sqlx::{Connection, Executor, SqlSafeStr};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    conn.execute(sqlx::AssertSqlSafe(text.to_owned()).into_sql_str()).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn an_undamaged_store_has_no_findings() {
    let (_dir, path) = undamaged().await;
    let checked = check(&path).await;
    assert_eq!(checked.findings, []);
    assert_eq!((checked.runs, checked.purged, checked.events, checked.payloads), (4, 1, 6, 1));
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_named() {
    let two = "run_id = (SELECT run_id FROM pins WHERE id = '17')";
    let cases = [
        (
            format!("DELETE FROM appends WHERE first = 2 AND {two}"),
            Some(2),
            "event 3 is stored where event 2 should be",
        ),
        (format!("DELETE FROM appends WHERE first = 3 AND {two}"), Some(2), "counts 4 events, but there are 2"),
        (
            format!("UPDATE appends SET last = 5 WHERE first = 3 AND {two}"),
            Some(2),
            "event 3: its append should hold 3 events, but holds 2",
        ),
        (
            format!("UPDATE appends SET events = '0 {{' WHERE first = 1 AND {two}"),
            Some(2),
            "event 1: an event cannot be read",
        ),
        (format!("UPDATE appends SET version = 99 WHERE first = 3 AND {two}"), Some(2), "event 3 has version 99"),
        (
            format!("UPDATE appends SET events = '0 {{\"completed\":{{}}}}' WHERE first = 1 AND {two}"),
            Some(2),
            "contradict each other",
        ),
        (
            format!("UPDATE appends SET events = 'x' WHERE first = 2 AND {two}"),
            Some(2),
            "event 2: its line does not begin with a time",
        ),
        ("UPDATE run_snapshots SET body = x'00'".into(), Some(2), "the snapshot of run_"),
        ("UPDATE run_snapshots SET seq = 1".into(), Some(2), "its snapshot of event 1"),
        ("UPDATE run_snapshots SET seq = 9".into(), Some(2), "its snapshot is of event 9, which is missing"),
        ("UPDATE run_snapshots SET run_id = x'00'".into(), None, "it has a snapshot but no events"),
        ("DELETE FROM meta".into(), None, "the store's secret is gone"),
        ("UPDATE meta SET value = x'00' WHERE key = 'secret'".into(), None, "the store's secret has 1 bytes"),
        (
            format!(
                "UPDATE runs SET summary = replace(CAST(summary AS TEXT), '\"completed\"', '\"failed\"') WHERE {two}"
            ),
            Some(2),
            "status is \"failed\", not \"completed\"",
        ),
        (format!("UPDATE runs SET summary = '{{}}' WHERE {two}"), Some(2), "its summary cannot be read"),
        ("DELETE FROM payloads".into(), Some(2), "its payload at /step_computed/output is missing"),
        ("UPDATE payloads SET body = '1'".into(), Some(2), "does not match its hash"),
        ("DELETE FROM payload_refs".into(), None, "nothing refers to the payload"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "it has events but no row"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "`orders.create 17` is pinned to it"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "it has claimed a retry key"),
        (format!("UPDATE runs SET pinned = 0 WHERE {two}"), Some(2), "its row does not say so"),
        (format!("UPDATE locks SET {two}"), Some(2), "the queue of the lock `sku:1`"),
        (format!("UPDATE orders SET {two}"), Some(2), "to it is unanswered"),
        (format!("UPDATE births SET {two}"), Some(2), "a run that is to begin, but has begun"),
        (
            "DELETE FROM runs WHERE run_id IN (SELECT parent FROM births)".into(),
            Some(1),
            "is to begin for it, but it does not exist",
        ),
        (
            format!("INSERT INTO run_keys SELECT run_id, x'00' FROM pins WHERE id = '17' AND {two}"),
            Some(2),
            "the key to its",
        ),
        (format!("UPDATE runs SET owner = x'00' WHERE {two}"), Some(2), "has an owner or is due"),
        ("DELETE FROM plans".into(), Some(1), "its plan plan_1 is missing"),
    ];
    for (text, run, what) in cases {
        let (_dir, path) = undamaged().await;
        edit(&path, &text).await;
        let checked = check(&path).await;
        let found = checked.findings.iter().find(|finding| finding.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("{text}: {:?}", checked.findings));
        assert_eq!(found.run, run.map(run_id), "{text}");
        assert!(!found.todo.is_empty());
    }
}

#[tokio::test]
async fn each_kind_of_damage_in_postgresql_is_found_and_named() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let two = "run_id = (SELECT run_id FROM pins WHERE id = '17')";
    let changed = |column: &str, from: &str, to: &str| {
        format!("convert_to(replace(convert_from({column}, 'UTF8'), '{from}', '{to}'), 'UTF8')")
    };
    let cases = [
        (
            format!("DELETE FROM appends WHERE first = 2 AND {two}"),
            Some(2),
            "event 3 is stored where event 2 should be",
        ),
        (format!("DELETE FROM appends WHERE first = 3 AND {two}"), Some(2), "counts 4 events, but there are 2"),
        (
            format!("UPDATE appends SET last = 5 WHERE first = 3 AND {two}"),
            Some(2),
            "event 3: its append should hold 3 events, but holds 2",
        ),
        (
            format!("UPDATE appends SET events = '0 {{' WHERE first = 1 AND {two}"),
            Some(2),
            "event 1: an event cannot be read",
        ),
        (format!("UPDATE appends SET version = 99 WHERE first = 3 AND {two}"), Some(2), "event 3 has version 99"),
        (
            format!("UPDATE appends SET events = '0 {{\"completed\":{{}}}}' WHERE first = 1 AND {two}"),
            Some(2),
            "contradict each other",
        ),
        (
            format!("UPDATE runs SET summary = {} WHERE {two}", changed("summary", "\"completed\"", "\"failed\"")),
            Some(2),
            "status is \"failed\", not \"completed\"",
        ),
        (format!("UPDATE runs SET summary = '{{}}' WHERE {two}"), Some(2), "its summary cannot be read"),
        ("DELETE FROM payloads".into(), Some(2), "its payload at /step_computed/output is missing"),
        ("UPDATE payloads SET body = '1'".into(), Some(2), "does not match its hash"),
        ("DELETE FROM payload_refs".into(), Some(2), "its append refers to 1 payloads, but there are 0"),
        ("DELETE FROM payload_refs".into(), None, "nothing refers to the payload"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "it has events but no row"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "`orders.create 17` is pinned to it"),
        (format!("DELETE FROM runs WHERE {two}"), Some(2), "it has claimed a retry key"),
        (format!("UPDATE runs SET pinned = false WHERE {two}"), Some(2), "its row does not say so"),
        ("UPDATE run_snapshots SET body = '\\x00'".into(), Some(2), "the snapshot of run_"),
        ("UPDATE run_snapshots SET seq = 1".into(), Some(2), "its snapshot of event 1"),
        ("UPDATE run_snapshots SET seq = 9".into(), Some(2), "its snapshot is of event 9, which is missing"),
        ("UPDATE run_snapshots SET run_id = '\\x00'".into(), None, "it has a snapshot but no events"),
        ("DELETE FROM meta WHERE key = 'secret'".into(), None, "the store's secret is gone"),
        ("UPDATE meta SET value = '\\x00' WHERE key = 'secret'".into(), None, "the store's secret has 1 bytes"),
        (format!("UPDATE locks SET {two}"), Some(2), "the queue of the lock `sku:1`"),
        (format!("UPDATE orders SET {two}"), Some(2), "to it is unanswered"),
        (format!("UPDATE births SET {two}"), Some(2), "a run that is to begin, but has begun"),
        (
            "DELETE FROM runs WHERE run_id IN (SELECT parent FROM births)".into(),
            Some(1),
            "is to begin for it, but it does not exist",
        ),
        (
            format!("INSERT INTO run_keys SELECT run_id, '' FROM pins WHERE {two} AND id = '17'"),
            Some(2),
            "the key to its",
        ),
        (format!("UPDATE runs SET owner = '' WHERE {two}"), Some(2), "has an owner or is due"),
        ("DELETE FROM plans".into(), Some(1), "its plan plan_1 is missing"),
    ];
    let database = super::cluster::shared().unwrap().database();
    let url = Secret::new(database.url());
    let store = PostgresStore::open(&url, None, &Limits::default()).await.unwrap();
    fill(&store).await;
    let check = async || PostgresStore::check(&url, None, &Limits::default()).await.unwrap();
    let (undamaged, shown) = check().await;
    assert_eq!(undamaged.findings, []);
    assert_eq!((undamaged.runs, undamaged.purged, undamaged.events, undamaged.payloads), (4, 1, 6, 1));
    assert!(shown.starts_with("postgres://"), "{shown}");
    // The store stays open while it is checked. Before each damage the rows are restored from copies of the tables.
    database.query("CREATE SCHEMA copies");
    let tables = [
        "meta",
        "appends",
        "payloads",
        "payload_refs",
        "runs",
        "plans",
        "run_keys",
        "pins",
        "locks",
        "orders",
        "births",
        "run_snapshots",
    ];
    for table in tables {
        database.query(&format!("CREATE TABLE copies.{table} AS TABLE pointsman.{table}"));
    }
    for (text, run, what) in cases {
        database.query(&format!("SET search_path = pointsman; {text}"));
        let (checked, _) = check().await;
        let found = checked.findings.iter().find(|finding| finding.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("{text}: {:?}", checked.findings));
        assert_eq!(found.run, run.map(run_id), "{text}");
        assert!(!found.todo.is_empty());
        let restored = tables.map(|table| {
            let overriding =
                if matches!(table, "pins" | "locks" | "orders" | "births") { "OVERRIDING SYSTEM VALUE" } else { "" };
            format!("DELETE FROM pointsman.{table}; INSERT INTO pointsman.{table} {overriding} TABLE copies.{table}; ")
        });
        database.query(&restored.concat());
    }
    let (restored, _) = check().await;
    assert_eq!(restored, undamaged);
    store.close().await;
}

#[tokio::test]
async fn damage_to_the_file_is_a_finding_and_a_file_that_is_no_store_is_refused() {
    let (dir, path) = undamaged().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xab);
    let damaged = dir.path().join("damaged.db");
    std::fs::write(&damaged, bytes).unwrap();
    assert!(!check(&damaged).await.findings.is_empty());
    // Damage to the first page: the list of tables cannot be read.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200..4_096].fill(0xab);
    std::fs::write(&damaged, bytes).unwrap();
    assert!(check(&damaged).await.findings[0].what.contains("the file is damaged"));

    let refused = async |path: &Path| SqliteStore::check(path, WINDOW).await.unwrap_err().0;
    assert!(refused(&dir.path().join("nowhere.db")).await.contains("there is no database"));
    std::fs::write(dir.path().join("empty.db"), "").unwrap();
    assert!(refused(&dir.path().join("empty.db")).await.contains("no pointsman ever wrote to it"));
    std::fs::write(dir.path().join("text.db"), "something else altogether".repeat(100)).unwrap();
    assert!(refused(&dir.path().join("text.db")).await.contains("not a database"));
    assert!(refused(&dir.path().join("text.db")).await.contains("restore a backup"));
    let start = SqliteStore::open(&dir.path().join("text.db"), &Limits::default()).await.map(|_| ()).unwrap_err().0;
    assert!(start.contains("not a database") && start.contains("restore a backup"), "{start}");
    edit(&path, "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)").await;
    assert!(refused(&path).await.contains("start it once with `serve`"));
}

#[tokio::test]
async fn the_incomplete_copy_of_a_killed_backup_is_overwritten() {
    let (dir, path) = undamaged().await;
    let (copy, part) = (dir.path().join("copy.db"), dir.path().join("copy.db.part"));
    for name in ["copy.db.part", "copy.db.part-journal"] {
        std::fs::write(dir.path().join(name), "half of something").unwrap();
    }
    // Another backup to the same target is in progress: it holds the lock.
    let held = std::fs::File::open(&part).unwrap();
    held.try_lock().unwrap();
    let refused = back_up(&path, &copy).await.unwrap_err().0;
    assert!(refused.contains("another backup"), "{refused}");
    drop(held);
    back_up(&path, &copy).await.unwrap();
    assert_eq!(check(&copy).await.findings, []);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("part")), "{left:?}");
    // A backup that fails leaves no file with the target's name.
    std::fs::write(dir.path().join("torn.db"), &std::fs::read(&path).unwrap()[..8192]).unwrap();
    assert!(back_up(dir.path().join("torn.db"), dir.path().join("none.db")).await.is_err());
    assert!(!dir.path().join("none.db").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn the_files_of_a_store_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("a.db"), &Limits::default()).await.unwrap();
    fill(&store).await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_during_appends_is_consistent_and_overwrites_no_file() {
    let (dir, path) = undamaged().await;
    let store = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    let appends = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 100.. {
                store.append(completed_run(run_id(n), at(3)).into()).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    let mut before = 0;
    for n in 0..5 {
        let copy = dir.path().join(format!("it's a copy {n}.db"));
        let bytes = back_up(&path, &copy).await.unwrap();
        assert_eq!(bytes, std::fs::metadata(&copy).unwrap().len());
        let original = check(&path).await;
        assert_eq!(original.findings, [], "checked while a process appends");
        let checked = check(&copy).await;
        assert_eq!(checked.findings, []);
        assert!(checked.runs > before && checked.runs <= original.runs);
        before = checked.runs;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = back_up(&path, &copy).await.unwrap_err().0;
        assert!(again.contains("exists already"), "{again}");
        assert_eq!(check(&copy).await, checked, "the existing copy is unchanged");
    }
    appends.abort();
    store.close().await;

    // The copy opens as a store.
    let copy = SqliteStore::open(dir.path().join("it's a copy 0.db"), &Limits::default()).await.unwrap();
    assert_eq!(copy.secret().await.unwrap(), store.secret().await.unwrap());
    assert_eq!(copy.events(run_id(2), Seq::FIRST).await.unwrap().len(), 4);
    copy.close().await;
    let nowhere = back_up(&path, dir.path().join("no/folder.db")).await.unwrap_err().0;
    assert!(nowhere.contains("cannot write"), "{nowhere}");
}
