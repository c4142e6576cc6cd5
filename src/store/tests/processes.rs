//! Tests of what processes that share a database say about themselves.

use std::time::Duration;

use super::cluster::shared;
use super::*;
use crate::store::ProcessRecord;

#[tokio::test]
async fn each_process_sees_what_the_living_ones_say_about_themselves() {
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let open = async || {
        let store = PostgresStore::open(&Secret::new(database.url()), None, &Limits::default()).await.unwrap();
        Arc::new(store) as StoreHandle
    };
    let (one, two) = (open().await, open().await);
    let record = |pid| ProcessRecord { host: "a".into(), pid, edition: "e".into(), ..ProcessRecord::default() };
    let exchange = async |store: &StoreHandle, n: u128| {
        let living = store.exchange_processes(worker(n), record(n as u32)).await.unwrap().expect("a shared store");
        let records = living.processes.iter().map(|process| (process.worker, process.record.clone()));
        (living.at, records.collect::<Vec<_>>())
    };
    // Without a lease nothing is stored.
    assert_eq!(exchange(&one, 1).await.1, []);
    for n in [1, 2] {
        two.heartbeat(worker(n), format!("worker {n}"), Duration::from_secs(600)).await.unwrap();
    }
    assert_eq!(exchange(&two, 2).await.1, [(worker(1), None), (worker(2), Some(record(2)))]);
    let (at, records) = exchange(&one, 1).await;
    assert_eq!(records, [(worker(1), Some(record(1))), (worker(2), Some(record(2)))]);
    assert!(at.duration_since(jiff::Timestamp::now()).as_secs().abs() < 60, "{at}");
    // A renewal of the lease keeps what was said.
    two.heartbeat(worker(2), "worker 2".into(), Duration::from_secs(600)).await.unwrap();
    assert_eq!(exchange(&one, 1).await.1[1], (worker(2), Some(record(2))));
    // A field of a newer version is ignored; what cannot be read counts as not said.
    let stored = |text: &str| {
        database.query(&format!(
            "UPDATE pointsman.workers SET record = convert_to('{text}', 'UTF8') WHERE name = 'worker 2'"
        ))
    };
    stored(r#"{"host": "a", "pid": 2, "edition": "e", "mood": 7}"#);
    assert_eq!(exchange(&one, 1).await.1[1], (worker(2), Some(record(2))));
    stored("no JSON");
    assert_eq!(exchange(&one, 1).await.1[1], (worker(2), None));
    // The lease ends, by the server's clock.
    one.heartbeat(worker(2), "worker 2".into(), Duration::ZERO).await.unwrap();
    assert_eq!(exchange(&one, 1).await.1, [(worker(1), Some(record(1)))]);
    one.close().await;
    two.close().await;
}
