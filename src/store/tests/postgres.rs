//! Tests that need a server, a connection to it, and other processes on it.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::cluster::{Database, shared};
use super::*;
use crate::store::{AcquireResult, AppendError, LockChange, OwnedRun, RunFilter, StoreError, StoreNotification};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A database, where there is a server.
fn database() -> Option<Database> {
    StoreKind::Postgres.is_installed().then(|| shared().unwrap().database())
}

async fn try_open(url: &str, limits: &Limits) -> Result<StoreHandle, StoreError> {
    Ok(Arc::new(PostgresStore::open(&Secret::new(url), None, limits).await?))
}

async fn open(database: &Database) -> StoreHandle {
    try_open(&database.url(), &Limits::default()).await.unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("waited {TIMEOUT:?} for {what}"))
}

fn by(append: Append, n: u128, fence: u64) -> Append {
    Append { worker: worker(n), fence: Fence(fence), ..append }
}

#[tokio::test]
async fn a_run_is_acquired_from_a_process_whose_lease_expired_and_that_process_is_fenced() {
    let Some(database) = database() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    assert_eq!(one.secret().await.unwrap(), two.secret().await.unwrap());
    one.heartbeat(worker(1), "one".into(), Duration::from_secs(600)).await.unwrap();
    two.heartbeat(worker(2), "two".into(), Duration::from_secs(600)).await.unwrap();
    one.append(by(append(run_id(1), 1, 1), 1, 1).into()).await.unwrap();
    let elsewhere = AcquireResult::Elsewhere { worker: worker(1), name: "one".into() };
    assert_eq!(two.acquire(worker(2), run_id(1)).await.unwrap(), elsewhere);
    assert_eq!(two.owner(run_id(1)).await.unwrap().map(|(_, name)| name).as_deref(), Some("one"));
    assert_eq!(two.owner(run_id(2)).await.unwrap(), None);
    assert_eq!(two.acquire_due(worker(2), 9).await.unwrap(), []);

    // The lease of the first process expires, by the server's clock.
    one.heartbeat(worker(1), "one".into(), Duration::ZERO).await.unwrap();
    assert_eq!(two.owner(run_id(1)).await.unwrap(), None);
    let taken = two.acquire_due(worker(2), 9).await.unwrap();
    assert_eq!(taken, [OwnedRun { summary: summary(run_id(1), 1), fence: Fence(2) }]);
    two.append(by(append(run_id(1), 2, 1), 2, 2).into()).await.unwrap();
    assert_eq!(one.append(by(append(run_id(1), 2, 1), 1, 1).into()).await, Err(AppendError::Fenced(run_id(1))));
    assert_eq!(seqs(&one, run_id(1)).await, [1, 2]);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn two_processes_never_hold_the_same_lock_or_pin_the_same_instance() {
    let Some(database) = database() else { return };
    let stores = [open(&database).await, open(&database).await];
    let tasks: Vec<_> = (0..40_u64)
        .map(|n| {
            let store = stores[(n % 2) as usize].clone();
            tokio::spawn(async move {
                let locks = vec![LockChange::Queue { name: "l".into(), step: "s".into(), item: None }];
                let pins = vec![pin(&(n / 4).to_string(), Arm::Engine)];
                store.append(Arc::new(Append { locks, ..append(run_id(n), 1, 1) })).await.unwrap();
                // Once its append is acknowledged, a process sees all steps that are queued before its own.
                let before = store.locks(None, 99).await.unwrap();
                let position = before.iter().position(|row| row.run == run_id(n)).unwrap();
                let ahead: Vec<RunId> = before[..position].iter().map(|row| row.run).collect();
                let pinned = store.append(Arc::new(Append { pins, ..append(run_id(n), 2, 1) })).await;
                (ahead, pinned)
            })
        })
        .collect();
    let (mut queues, mut pinned) = (Vec::new(), 0);
    for task in tasks {
        let (ahead, done) = within("an append", task).await.unwrap();
        queues.push(ahead);
        match done {
            Ok(()) => pinned += 1,
            Err(error) => assert!(matches!(error, AppendError::Conflict(_)), "{error}"),
        }
    }
    assert_eq!(pinned, 10, "each instance has one owner");
    let whole: Vec<RunId> = stores[0].locks(None, 99).await.unwrap().iter().map(|row| row.run).collect();
    assert!(queues.iter().all(|ahead| whole.starts_with(ahead)), "no step is queued before one that was acknowledged");
}

#[tokio::test]
async fn notifications_reach_the_other_process() {
    let Some(database) = database() else { return };
    let (one, two) = (open(&database).await, open(&database).await);
    let mut notifications = two.notifications();
    let mut run = 0;
    // The other process may not listen yet: then it receives a later notification.
    within("a notification", async {
        loop {
            run += 1;
            one.append(with_status(append(run_id(run), 1, 1), RunStatus::Completed).into()).await.unwrap();
            if let Ok(Ok(received)) = tokio::time::timeout(Duration::from_millis(100), notifications.recv()).await {
                break assert!(matches!(received, StoreNotification::Ended { by_this_process: false, .. }));
            }
        }
    })
    .await;
    // Its connection is terminated: it opens another one and listens again.
    database.query("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'");
    within("a further notification", async {
        loop {
            run += 1;
            one.append(with_status(append(run_id(run), 1, 1), RunStatus::Completed).into()).await.unwrap();
            let received = tokio::time::timeout(Duration::from_millis(100), async {
                let ended = Ok(StoreNotification::Ended { run: run_id(run), by_this_process: false });
                while notifications.recv().await != ended {}
            });
            if received.await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn names_with_unusual_characters_are_read_as_they_were_written() {
    let Some(database) = database() else { return };
    let store = open(&database).await;
    let odd = "a\0b\u{1a}c\n\"";
    let queue = LockChange::Queue { name: odd.into(), step: "s".into(), item: Some(u32::MAX) };
    let pins = vec![pin(odd, Arm::Engine)];
    store.append(Arc::new(Append { pins, locks: vec![queue], ..append(run_id(1), 1, 1) })).await.unwrap();
    let row = store.locks(Some(vec![odd.into()]), 9).await.unwrap().remove(0);
    assert_eq!((row.name.as_str(), row.item), (odd, Some(u32::MAX)));
    assert_eq!(store.pin(pin(odd, Arm::Engine).key).await.unwrap().unwrap().key, pin(odd, Arm::Engine).key);
    assert!(
        store.append(Arc::new(Append { pins: vec![pin(odd, Arm::Legacy)], ..append(run_id(2), 1, 1) })).await.is_err()
    );
}

#[tokio::test]
async fn long_names_are_stored_and_a_check_finds_damage() {
    let Some(database) = database() else { return };
    let url = Secret::new(database.url());
    assert!(PostgresStore::check(&url, None, &Limits::default()).await.unwrap_err().0.contains("no store"));
    let store = open(&database).await;
    store.put_plan("plan_1".into(), json!({})).await.unwrap();
    let long: String = (0..9_000).map(|_| fastrand::alphanumeric()).collect();
    let queue = LockChange::Queue { name: long.clone(), step: "s".into(), item: None };
    let events = vec![(at(1), run_started(run_id(1), at(1)))];
    let summary = fold([&events[0].1]).unwrap().summary(at(1));
    let opening = Append { events, summary, locks: vec![queue], ..append(run_id(1), 1, 1) };
    store.append(Arc::new(opening)).await.unwrap();
    let mut large = completed_run(run_id(2), at(2));
    let output = Arc::new(json!("x".repeat(50_000)));
    large.events[1].1 = Event::Step(StepEvent::Computed { step: "a".into(), output: output.into() });
    large.pins = vec![pin(&long, Arm::Engine)];
    store.append(large.clone().into()).await.unwrap();
    assert_eq!(store.events(run_id(2), Seq(2)).await.unwrap()[0].event, large.events[1].1);
    assert_eq!(store.locks(Some(vec![long.clone()]), 9).await.unwrap()[0].name, long);
    assert_eq!(store.pin(pin(&long, Arm::Engine).key).await.unwrap().unwrap().run, Some(run_id(2)));

    let check = async || PostgresStore::check(&url, None, &Limits::default()).await.unwrap().0;
    let undamaged = check().await;
    assert_eq!(undamaged.findings, []);
    assert_eq!((undamaged.runs, undamaged.payloads), (2, 1));
    database.query("UPDATE pointsman.payloads SET body = '1'; DELETE FROM pointsman.runs WHERE NOT ended");
    let found: Vec<String> = check().await.findings.into_iter().map(|finding| finding.what).collect();
    assert!(found[0].contains("does not match its hash"), "{found:?}");
    assert!(found[1].contains("has events but no row"), "{found:?}");
    assert!(found[2].contains("queue of the lock"), "{found:?}");
    assert_eq!(found.len(), 3, "{found:?}");
}

#[tokio::test]
async fn tables_of_another_program_or_a_newer_version_are_refused_without_showing_the_password() {
    let Some(database) = database() else { return };
    let limits = Limits { store_connect_ms: 500, ..Limits::default() };
    let refused = async |url: String| try_open(&url, &limits).await.err().unwrap().0;
    database.query("CREATE SCHEMA pointsman; CREATE TABLE pointsman.theirs (n int)");
    assert!(refused(database.url()).await.contains("another program"));
    database.query("DROP SCHEMA pointsman CASCADE");
    open(&database).await.close().await;
    database.query("UPDATE pointsman.meta SET value = '99' WHERE key = 'event_version'");
    assert!(refused(database.url()).await.contains("events of version 99,"));
    database.query("UPDATE pointsman.meta SET value = '1' WHERE key = 'event_version'");
    let store = open(&database).await;
    store.append(append(run_id(1), 1, 3).into()).await.unwrap();
    store.close().await;
    database.query("UPDATE pointsman.appends SET version = 98 WHERE first = 1");
    let newer = refused(database.url()).await;
    assert!(newer.contains(&format!("events of version 98 (such as event 1 of {})", run_id(1))), "{newer}");
    database.query("UPDATE pointsman.appends SET version = 2");
    database.query(
        "INSERT INTO pointsman._sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (77, 'later', true, '', 1)",
    );
    assert!(refused(database.url()).await.contains("tables of version 77"));
    database.query(
        "ALTER DATABASE CURRENT SET default_transaction_read_only = on".replace("CURRENT", database.name()).as_str(),
    );
    assert!(refused(database.url()).await.contains("read-only"));
    let error = refused("postgres://ada:s3cret@127.0.0.1:1/none".into()).await;
    assert!(error.contains("postgres://ada@127.0.0.1:1/none") && !error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_neither_lost_nor_repeated_when_sessions_are_terminated() {
    let Some(database) = database() else { return };
    let store = open(&database).await;
    let ended = Arc::new(AtomicU64::new(0));
    let stop = tokio_util::sync::CancellationToken::new();
    let tasks: Vec<_> = (0..8_u64)
        .map(|n| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut next = 1;
                let mut results: BTreeMap<&str, u64> = BTreeMap::new();
                while !stop.is_cancelled() {
                    let one = append(run_id(n), next, 2);
                    loop {
                        let done = store.append(one.clone().into()).await;
                        let name = match &done {
                            Ok(()) => "ok",
                            Err(AppendError::Refused(_)) => "refused",
                            Err(AppendError::Unavailable(_)) => "unavailable",
                            Err(error) => panic!("run {n} at {next}: {error}"),
                        };
                        *results.entry(name).or_default() += 1;
                        if done.is_ok() {
                            break;
                        }
                    }
                    next += 2;
                    if next % 40 == 1 {
                        let read = store.runs(RunFilter { limit: 5, ..RunFilter::default() }).await;
                        *results.entry(if read.is_ok() { "read" } else { "not read" }).or_default() += 1;
                    }
                }
                (next - 1, results)
            })
        })
        .collect();
    for _ in 0..25 {
        let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        ended.fetch_add(database.query(text).trim().parse().unwrap_or(0), Ordering::Relaxed);
    }
    stop.cancel();
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (n, task) in (0..).zip(tasks) {
        let (last, results) = within("a caller", task).await.unwrap();
        assert_eq!(seqs(&store, run_id(n)).await, (1..=last).collect::<Vec<_>>());
        results.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count);
    }
    let ended = ended.load(Ordering::Relaxed);
    assert!(ended > 0);
    println!("sessions ended {ended}, results of appends {all:?}, lost or repeated 0");
    store.close().await;
}

/// Starts a proxy that loses replies of the server; returns the URL of the database through it.
async fn start_lossy_proxy(database: &Database, seed: u64, cuts: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = database.socket().join(".s.PGSQL.5432");
    tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(seed);
        while let Ok((client, _)) = listener.accept().await {
            // The first replies let a connection come up.
            let (replies, cuts) = (random.u64(10..60), cuts.clone());
            let server = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { forward(client, server, replies, &cuts).await });
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/{}?sslmode=disable", database.name())
}

async fn forward(client: TcpStream, server: UnixStream, mut replies: u64, cuts: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
        if replies == 0 {
            cuts.fetch_add(1, Ordering::Relaxed);
            break;
        }
        replies -= 1;
        if to_client.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    requests.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_result_of_an_append_is_true_when_replies_are_lost() {
    let Some(database) = database() else { return };
    let seed = fastrand::u64(..);
    let cuts = Arc::new(AtomicU64::new(0));
    let direct = open(&database).await;
    let url = start_lossy_proxy(&database, seed, cuts.clone()).await;
    let limits = Limits { store_connect_ms: 2_000, store_statement_ms: 2_000, ..Limits::default() };
    // The first connections may be cut while they come up.
    let store = within("the store to open", async {
        loop {
            if let Ok(store) = try_open(&url, &limits).await {
                return store;
            }
        }
    })
    .await;
    let tasks: Vec<_> = (0..4_u64)
        .map(|n| {
            let (store, direct) = (store.clone(), direct.clone());
            tokio::spawn(async move {
                let (mut next, mut refused, mut unavailable) = (1, 0, 0);
                while next < 240 {
                    let one = append(run_id(n), next, 1);
                    loop {
                        match store.append(one.clone().into()).await {
                            Ok(()) => break,
                            Err(AppendError::Refused(_)) => {
                                refused += 1;
                                let found = direct.events(run_id(n), Seq(next)).await.unwrap();
                                assert_eq!(found, [], "run {n} at {next} was refused and is stored (seed {seed})");
                            }
                            Err(AppendError::Unavailable(_)) => unavailable += 1,
                            Err(error) => panic!("run {n} at {next}: {error} (seed {seed})"),
                        }
                    }
                    next += 1;
                }
                (refused, unavailable)
            })
        })
        .collect();
    let (mut refused, mut unavailable) = (0, 0);
    for (n, task) in (0..).zip(tasks) {
        let (r, u) = within("a caller", task).await.unwrap();
        (refused, unavailable) = (refused + r, unavailable + u);
        assert_eq!(seqs(&direct, run_id(n)).await, (1..240).collect::<Vec<_>>(), "seed {seed}");
    }
    let cuts = cuts.load(Ordering::Relaxed);
    assert!(cuts > 10, "{cuts} replies were lost");
    println!("replies lost {cuts}, refused {refused}, unavailable {unavailable}, false results 0 (seed {seed})");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_on_a_hanging_session_times_out_as_unknown() {
    let Some(database) = database() else { return };
    let direct = open(&database).await;
    let limits = Limits { store_connect_ms: 500, store_statement_ms: 500, store_lock_ms: 300, ..Limits::default() };
    let store = try_open(&database.url(), &limits).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    let text = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = 28781 \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let all = database.query(text);
    for pid in all.lines() {
        signal(pid, "STOP");
    }
    let begun = std::time::Instant::now();
    let two = append(run_id(1), 2, 1);
    let results = within("an answer", store.append(two.clone().into())).await;
    assert!(matches!(results, Err(AppendError::Unavailable(_))), "{results:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!store.healthy());
    // On a new session nothing is written while the old one may still execute its statement.
    let three = within("an answer", store.append(append(run_id(2), 1, 1).into())).await;
    assert!(matches!(three, Err(AppendError::Refused(_))), "{three:?}");
    assert_eq!(seqs(&direct, run_id(2)).await, [0; 0]);
    for pid in all.lines() {
        signal(pid, "CONT");
    }
    within("the store to be healthy again", async {
        while !store.healthy() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    store.append(two.into()).await.unwrap();
    assert_eq!(seqs(&direct, run_id(1)).await, [1, 2]);
    store.close().await;
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args(["-s", name, pid.trim()]).status().unwrap().success());
}
