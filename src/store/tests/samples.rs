//! Samples: their bounds, and that one is found by each run of which it has events.

use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::compare::{Difference, DifferenceKind};
use crate::store::sqlite::migrate_to;
use crate::store::{RehearsedChild, RehearsedEvent, SampleRecord, Store};

on_every_store! {
    samples_are_limited_by_fingerprint_and_by_route,
    a_sample_that_is_put_again_is_stored_once,
    a_sample_is_found_by_the_runs_whose_events_it_has,
    old_samples_are_removed,
}

fn sample(route: &str, fingerprint: &str, n: i64) -> SampleRecord {
    SampleRecord {
        route: route.into(),
        fingerprint: fingerprint.into(),
        at: at(n),
        run: Some(run_id(1)),
        differences: vec![Difference {
            path: "$.total".into(),
            kind: DifferenceKind::Value,
            legacy: Some("1".into()),
            engine: None,
            contradicts: Vec::new(),
        }],
        legacy: "{}".into(),
        engine: "{}".into(),
        request: format!("POST /orders {n}"),
        kept: None,
        events: vec![RehearsedEvent { seq: 1, at: at(n), kind: "run_started".into(), event: json!({ "n": n }) }],
        events_not_kept: 0,
        children: Vec::new(),
        children_not_kept: 0,
    }
}

/// The fingerprint and the second of each stored sample, newest first.
async fn stored_samples(store: &StoreHandle, route: &str, limit: usize) -> Vec<String> {
    let samples = store.samples(route.into(), limit).await.unwrap();
    samples.iter().map(|s| format!("{}{}", s.fingerprint, s.at.as_second() % 100)).collect()
}

async fn samples_are_limited_by_fingerprint_and_by_route(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let stored = async |route: &str, limit| stored_samples(store, route, limit).await;
    store.put_samples((1..=4).map(|n| sample("r", "x", n)).collect(), 2, 2).await.unwrap();
    assert_eq!(stored("r", 9).await, ["x4", "x3"]);
    store.put_samples(vec![sample("r", "y", 5), sample("other", "z", 6)], 2, 2).await.unwrap();
    assert_eq!(stored("r", 9).await, ["y5", "x4", "x3"]);
    assert_eq!(stored("r", 1).await, ["y5"]);
    store.put_samples(vec![sample("r", "x", 7), sample("r", "w", 8)], 2, 2).await.unwrap();
    assert_eq!(stored("r", 9).await, ["w8", "x7", "x4"], "the least recent fingerprint was removed");
    store.clear_samples("r".into()).await.unwrap();
    assert_eq!(stored("r", 9).await, [""; 0]);
    assert_eq!(stored("other", 9).await, ["z6"]);
    assert_eq!(store.samples("other".into(), 1).await.unwrap(), [sample("other", "z", 6)]);
}

/// A write whose outcome is unknown is repeated.
async fn a_sample_that_is_put_again_is_stored_once(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let put = async |samples: &[SampleRecord], per_fingerprint, fingerprints| {
        store.put_samples(samples.to_vec(), per_fingerprint, fingerprints).await.unwrap();
        stored_samples(store, "r", 99).await
    };
    let two = [sample("r", "x", 1), sample("r", "y", 2)];
    assert_eq!(put(&two, 9, 9).await, ["y2", "x1"]);
    assert_eq!(put(&two, 9, 9).await, ["y2", "x1"]);
    let twice_in_one_write = [sample("r", "x", 3), sample("r", "x", 3)];
    assert_eq!(put(&twice_in_one_write, 9, 9).await, ["x3", "y2", "x1"]);

    // Only a sample that is equal in everything is the same.
    let others = [SampleRecord { request: "POST /other".into(), ..sample("r", "x", 1) }, sample("s", "x", 1)];
    assert_eq!(put(&others, 9, 9).await, ["x1", "x3", "y2", "x1"]);
    assert_eq!(stored_samples(store, "s", 9).await, ["x1"]);

    // The first write exceeds both limits; its repetition removes nothing more.
    let many = [("a", 10), ("b", 11), ("c", 12), ("b", 13), ("b", 14)];
    let many = many.map(|(fingerprint, n)| sample("r", fingerprint, n));
    for time in ["first", "second"] {
        assert_eq!(put(&many, 2, 2).await, ["b14", "b13", "c12"], "the {time} time");
    }
}

/// A sample of the rehearsal `run`, with the events of these runs below it.
fn rehearsed(route: &str, fingerprint: &str, n: i64, run: u128, below: &[u128]) -> SampleRecord {
    let child = |run: &u128| RehearsedChild {
        run: RunId(Uuid::from_u128(*run)),
        events: vec![RehearsedEvent { seq: 1, at: at(n), kind: "run_started".into(), event: json!({ "of": n }) }],
        events_not_kept: 3,
    };
    SampleRecord {
        run: Some(RunId(Uuid::from_u128(run))),
        children: below.iter().map(child).collect(),
        children_not_kept: 2,
        ..sample(route, fingerprint, n)
    }
}

async fn a_sample_is_found_by_the_runs_whose_events_it_has(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let first = rehearsed("r", "x", 1, 10, &[11, 12]);
    let other = rehearsed("other", "x", 2, 20, &[]);
    // A dark run, which has its events in the store.
    let dark = SampleRecord { events: Vec::new(), ..rehearsed("r", "x", 3, 30, &[]) };
    let all = vec![first.clone(), other.clone(), dark];
    fixture.store.put_samples(all.clone(), 2, 9).await.unwrap();
    fixture.store.put_samples(all, 2, 9).await.unwrap();
    fixture.reopen().await;
    let found = async |store: &StoreHandle, run: u128| store.sample_of_run(RunId(Uuid::from_u128(run))).await.unwrap();
    let store = &fixture.store;
    for run in [10, 11, 12] {
        assert_eq!(found(store, run).await.as_ref(), Some(&first), "{run}");
    }
    assert_eq!(found(store, 20).await, Some(other));
    for run in [30, 99] {
        assert_eq!(found(store, run).await, None, "{run}");
    }
    // The bound removes the sample, and with it what is known of its runs.
    store.put_samples(vec![rehearsed("r", "x", 4, 40, &[41])], 2, 9).await.unwrap();
    assert_eq!(found(store, 11).await, None);
    assert!(found(store, 41).await.is_some());
    store.clear_samples("r".into()).await.unwrap();
    assert_eq!(found(store, 41).await, None);
    assert!(found(store, 20).await.is_some(), "of another route");
}

/// The last version of the SQLite tables without the runs of samples.
const WITHOUT_RUNS: i64 = 16;

#[tokio::test]
async fn a_sample_that_an_earlier_version_stored_is_found_by_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let mut conn = crate::store::sqlite::setup_options(&path).connect().await.unwrap();
    migrate_to(&mut conn, &path, WITHOUT_RUNS).await.unwrap();
    let dark = SampleRecord { run: Some(run_id(2)), events: Vec::new(), ..sample("r", "x", 2) };
    let without_run = SampleRecord { run: None, ..sample("r", "x", 3) };
    for sample in [&sample("r", "x", 1), &dark, &without_run] {
        let record = serde_json::to_vec(sample).unwrap();
        let text = "INSERT INTO samples (route, fingerprint, record) VALUES ('r', 'x', ?)";
        sqlx::query(text).bind(record).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
    let store = SqliteStore::open(path, &Limits::default()).await.unwrap();
    assert_eq!(store.sample_of_run(run_id(1)).await.unwrap(), Some(sample("r", "x", 1)));
    assert_eq!(store.sample_of_run(run_id(2)).await.unwrap(), None);
    store.close().await;
}

async fn old_samples_are_removed(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let with_fraction = SampleRecord { at: at(3) + jiff::SignedDuration::from_millis(500), ..sample("r", "y", 3) };
    store.put_samples(vec![sample("r", "x", 1), with_fraction, sample("other", "z", 4)], 2, 2).await.unwrap();
    store.remove_samples_before(at(3)).await.unwrap();
    assert_eq!(stored_samples(store, "r", 9).await, ["y3"]);
    store.remove_samples_before(at(4)).await.unwrap();
    assert_eq!(stored_samples(store, "r", 9).await, [""; 0]);
    assert_eq!(stored_samples(store, "other", 9).await, ["z4"]);
}
