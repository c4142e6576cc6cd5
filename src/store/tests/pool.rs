//! The connections for reads.

use std::time::Duration;

use super::cluster::shared;
use super::*;

/// The server executes what callers asked for who have stopped waiting. Their connections are in use until it is done.
#[tokio::test(flavor = "multi_thread")]
async fn statements_that_nobody_waits_for_do_not_accumulate() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = Arc::new(shared().unwrap().database());
    let limits = Limits { store_connections_max: 2, store_lock_ms: 30_000, ..Limits::default() };
    let store: StoreHandle = Arc::new(PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap());
    let read = || store.pin(pin("1", Arm::Engine).key);
    read().await.unwrap();
    let of_lock = database.clone();
    let locked = tokio::task::spawn_blocking(move || {
        of_lock.query("BEGIN; LOCK TABLE pointsman.pins IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(2); ROLLBACK")
    });
    let count = |what: &str| {
        let text = format!("SELECT count(*) FROM {what}");
        tokio::task::block_in_place(|| database.query(&text)).trim().parse::<u64>().unwrap()
    };
    let granted = "pg_locks WHERE relation = 'pointsman.pins'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    while count(granted) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(20), read()).await.is_err());
    }
    let waiting = count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'");
    assert!((1..=2).contains(&waiting), "{waiting} statements wait");
    locked.await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), read()).await.unwrap().unwrap();
    store.close().await;
}

/// While their statements wait in the server, a connection is left for callers.
#[tokio::test(flavor = "multi_thread")]
async fn key_reads_of_threads_of_lower_priority_do_not_use_all_connections() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = Arc::new(shared().unwrap().database());
    let limits = Limits { store_connections_max: 2, store_lock_ms: 60_000, ..Limits::default() };
    let store: StoreHandle = Arc::new(PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap());
    let count = |what: &str| {
        let text = format!("SELECT count(*) FROM {what}");
        tokio::task::block_in_place(|| database.query(&text)).trim().parse::<u64>().unwrap()
    };
    tokio::task::block_in_place(|| database.query("CREATE SEQUENCE go_on"));
    let of_lock = database.clone();
    let locked = tokio::task::spawn_blocking(move || {
        of_lock.query(
            "BEGIN; LOCK TABLE pointsman.retry_keys IN ACCESS EXCLUSIVE MODE; \
             DO $$ BEGIN WHILE (SELECT NOT is_called FROM go_on) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$; ROLLBACK",
        )
    });
    let granted =
        "pg_locks WHERE relation = 'pointsman.retry_keys'::regclass AND mode = 'AccessExclusiveLock' AND granted";
    while count(granted) == 0 {
        tokio::task::yield_now().await;
    }
    let (has_asked, asked) = tokio::sync::oneshot::channel();
    let of_thread = store.clone();
    let thread = std::thread::spawn(move || {
        crate::priority::lower();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reads = (0..20).map(|n| {
                let store = of_thread.clone();
                tokio::spawn(async move { store.first_try(RetryKey([n; 32])).await })
            });
            let reads: Vec<_> = reads.collect();
            tokio::task::yield_now().await;
            has_asked.send(()).unwrap();
            for read in reads {
                assert_eq!(read.await.unwrap().unwrap().map(|first| first.arm), None);
            }
        });
    });
    asked.await.unwrap();
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while count(waiting) == 0 {
        tokio::task::yield_now().await;
    }
    // More often than there are connections.
    for _ in 0..10 {
        let pin = tokio::time::timeout(Duration::from_secs(30), store.pin(pin("1", Arm::Engine).key));
        assert_eq!(pin.await.expect("a connection is free").unwrap().map(|pin| pin.arm), None);
    }
    assert_eq!(count(waiting), 1, "the statements of all reads");
    tokio::task::block_in_place(|| database.query("SELECT nextval('go_on')"));
    locked.await.unwrap();
    thread.join().unwrap();
    store.close().await;
}

/// A thread of lower priority asks the database first, which opens a connection, and then does not run any more, as on
/// a busy machine. Neither the connection that it has opened nor, with `still_asks`, what it has asked for meanwhile
/// makes another thread wait.
async fn nobody_waits_for_a_thread_of_lower_priority(store: StoreHandle, still_asks: bool) {
    let (has_asked, asked) = tokio::sync::oneshot::channel();
    let (go_on, suspended) = std::sync::mpsc::channel::<()>();
    let of_thread = store.clone();
    let thread = std::thread::spawn(move || {
        crate::priority::lower();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            of_thread.pin(pin("1", Arm::Engine).key).await.unwrap();
            let mut pins: Vec<_> =
                (0..if still_asks { 4 } else { 0 }).map(|_| of_thread.pin(pin("1", Arm::Engine).key)).collect();
            let mut first_tries: Vec<_> =
                pins.first().map(|_| of_thread.first_try(RetryKey([2; 32]))).into_iter().collect();
            std::future::poll_fn(|cx| {
                assert!(pins.iter_mut().all(|pin| pin.as_mut().poll(cx).is_pending()));
                assert!(first_tries.iter_mut().all(|read| read.as_mut().poll(cx).is_pending()));
                std::task::Poll::Ready(())
            })
            .await;
            has_asked.send(()).unwrap();
            suspended.recv().unwrap();
        });
    });
    asked.await.unwrap();
    for n in [2, 3] {
        let read = tokio::time::timeout(Duration::from_secs(60), store.first_try(RetryKey([n; 32])));
        assert_eq!(read.await.expect("nothing was waited for").unwrap().map(|first| first.arm), None);
    }
    go_on.send(()).unwrap();
    thread.join().unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_thread_of_lower_priority_that_reads_from_a_database() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = shared().unwrap().database();
    let limits = Limits { store_connections_max: 2, ..Limits::default() };
    for still_asks in [false, true] {
        let store = PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap();
        nobody_waits_for_a_thread_of_lower_priority(Arc::new(store), still_asks).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_thread_of_lower_priority_that_reads_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    for still_asks in [false, true] {
        let store = SqliteStore::open(dir.path().join("a.db"), &Limits::default()).await.unwrap();
        nobody_waits_for_a_thread_of_lower_priority(Arc::new(store), still_asks).await;
    }
}
