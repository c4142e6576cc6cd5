//! What is known of instances: which of them legacy has, and which have ended.

use std::time::Duration;

use super::*;
use crate::store::{InstanceChange, InstanceCount, LegacyInstance};

on_every_store! {
    an_instance_that_has_ended_stays_ended,
    the_engines_instances_are_alive_until_they_end,
    old_instances_end,
    ended_instances_of_legacy_are_forgotten_beyond_a_number,
    unknown_instances_are_told_apart,
    twins_that_are_incomplete_are_counted_until_their_instances_end,
    legacys_instances_are_listed_in_pages,
}

fn key(id: &str) -> PinKey {
    PinKey { family: "f".into(), id: id.into() }
}

async fn change(fixture: &StoreFixture, changes: &[InstanceChange]) {
    // Twice: a repeated change changes nothing.
    for _ in 0..2 {
        fixture.store.change_instances(changes.to_vec()).await.unwrap();
    }
}

async fn count(fixture: &StoreFixture, arm: Arm) -> InstanceCount {
    let found = fixture.store.instance_counts(vec!["other".into(), "f".into()]).await.unwrap();
    assert_eq!(found.len(), 4);
    found.into_iter().find(|count| count.family.as_str() == "f" && count.arm == arm).unwrap()
}

fn counted(arm: Arm, alive: u64, oldest: Option<Timestamp>, last_ended: Option<Timestamp>) -> InstanceCount {
    InstanceCount { family: "f".into(), arm, alive, twins_incomplete: 0, has_unknown: false, oldest, last_ended }
}

async fn an_instance_that_has_ended_stays_ended(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    assert_eq!(count(&fixture, Arm::Legacy).await, counted(Arm::Legacy, 0, None, None));
    let seen = |id: &str, n| InstanceChange::LegacySeen(key(id), at(n));
    change(&fixture, &[seen("1", 1), seen("2", 2), seen("1", 9)]).await;
    assert_eq!(count(&fixture, Arm::Legacy).await, counted(Arm::Legacy, 2, Some(at(1)), None));
    change(&fixture, &[InstanceChange::LegacyEnded(key("1"), at(5)), seen("1", 6)]).await;
    // One that no request showed before.
    change(&fixture, &[InstanceChange::LegacyEnded(key("3"), at(4)), InstanceChange::LegacyEnded(key("1"), at(8))])
        .await;
    fixture.reopen().await;
    change(&fixture, &[seen("1", 7), seen("3", 7)]).await;
    assert_eq!(count(&fixture, Arm::Legacy).await, counted(Arm::Legacy, 1, Some(at(2)), Some(at(5))));
    let listed = InstanceChange::LegacyListed(key("3"), at(9));
    change(&fixture, &[listed]).await;
    assert_eq!(count(&fixture, Arm::Legacy).await.alive, 2, "legacy says that it has not ended");
    let known = fixture.store.legacy_instance(key("3")).await.unwrap().unwrap();
    assert_eq!((known.seen, known.ended), (at(9), None), "it counts from now on");
    let ended_later = [InstanceChange::LegacyListed(key("9"), at(10)), InstanceChange::LegacyEnded(key("9"), at(11))];
    change(&fixture, &ended_later).await;
    let known = fixture.store.legacy_instance(key("9")).await.unwrap().unwrap();
    assert!(known.ended.is_some(), "in their order");
    let known = fixture.store.legacy_instance(key("1")).await.unwrap();
    let ended = LegacyInstance {
        id: "1".into(),
        seen: at(1),
        ended: Some(at(5)),
        is_twin_incomplete: false,
        is_created: false,
    };
    assert_eq!(known, Some(ended));
    assert_eq!(fixture.store.legacy_instance(key("4")).await.unwrap(), None);
    // Created, after a follow-up showed it, and after it had ended.
    for id in ["5", "1"] {
        change(&fixture, &[seen(id, 11), InstanceChange::LegacyCreated(key(id), at(12)), seen(id, 13)]).await;
    }
    fixture.reopen().await;
    for (id, since) in [("5", 11), ("1", 12)] {
        let known = fixture.store.legacy_instance(key(id)).await.unwrap().unwrap();
        assert_eq!((known.seen, known.ended, known.is_created), (at(since), None, true), "{id}");
    }
}

async fn the_engines_instances_are_alive_until_they_end(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    // A run pins an instance under each spelling of its id.
    for (n, ids) in [(1, &["1", "1.0"][..]), (2, &["2"])] {
        let pins = ids.iter().map(|id| pin(id, Arm::Engine)).collect();
        fixture.store.append(Append { pins, ..append(run_id(n), 1, 1) }.into()).await.unwrap();
    }
    let twins = vec![pin("3", Arm::Legacy)];
    fixture.store.append(Append { pins: twins, ..append(run_id(3), 1, 1) }.into()).await.unwrap();
    let family = pin("1", Arm::Engine).key.family;
    let engine = async |fixture: &StoreFixture| {
        let found = fixture.store.instance_counts(vec![family.clone()]).await.unwrap();
        found.into_iter().find(|count| count.arm == Arm::Engine).unwrap()
    };
    let before = engine(&fixture).await;
    assert_eq!((before.alive, before.last_ended), (2, None));
    assert!(before.oldest.is_some());
    let end = |n, time| InstanceChange::EngineEnded {
        family: vec!["x".into(), family.clone()],
        run: run_id(n),
        at: at(time),
    };
    change(&fixture, &[end(1, 5), end(1, 6), end(3, 7), end(4, 8)]).await;
    fixture.reopen().await;
    let after = engine(&fixture).await;
    assert_eq!((after.alive, after.last_ended), (1, Some(at(5))));
    let pinned = fixture.store.pin(pin("1.0", Arm::Engine).key).await.unwrap();
    assert!(pinned.is_some_and(|pin| pin.arm == Arm::Engine), "a pin outlives its instance");
}

async fn old_instances_end(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let seen = |id: &str, n| InstanceChange::LegacySeen(key(id), at(n));
    change(
        &fixture,
        &[seen("1", 1), seen("2", 3), InstanceChange::LegacySeen(PinKey { family: "g".into(), id: "1".into() }, at(1))],
    )
    .await;
    change(&fixture, &[InstanceChange::Aged { family: "f".into(), before: at(3), at: at(10) }]).await;
    assert_eq!(count(&fixture, Arm::Legacy).await, counted(Arm::Legacy, 1, Some(at(3)), Some(at(10))));
    let other = fixture.store.instance_counts(vec!["g".into()]).await.unwrap();
    assert!(other.iter().any(|count| count.arm == Arm::Legacy && count.alive == 1), "{other:?}");
    fixture.store.append(Append { pins: vec![pin("9", Arm::Engine)], ..append(run_id(9), 1, 1) }.into()).await.unwrap();
    let family = pin("9", Arm::Engine).key.family;
    let created = fixture.store.pin(pin("9", Arm::Engine).key).await.unwrap().unwrap().at;
    for (before, alive) in [(created, 1), (created + Duration::from_nanos(1), 0)] {
        change(&fixture, &[InstanceChange::Aged { family: family.clone(), before, at: at(20) }]).await;
        let found = fixture.store.instance_counts(vec![family.clone()]).await.unwrap();
        assert!(found.iter().any(|count| count.arm == Arm::Engine && count.alive == alive), "{found:?}");
    }
}

async fn ended_instances_of_legacy_are_forgotten_beyond_a_number(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let ended = |id: &str, n| InstanceChange::LegacyEnded(key(id), at(n));
    let seen = InstanceChange::LegacySeen(key("alive"), at(1));
    change(&fixture, &[ended("1", 1), ended("2", 2), ended("3", 3), seen]).await;
    let forget = |keep| InstanceChange::ForgetEnded { family: "f".into(), keep };
    let known = async || {
        let mut known = Vec::new();
        for id in ["1", "2", "3", "alive"] {
            known.extend(fixture.store.legacy_instance(key(id)).await.unwrap().map(|_| id));
        }
        known
    };
    change(&fixture, &[forget(3)]).await;
    assert_eq!(known().await, ["1", "2", "3", "alive"]);
    change(&fixture, &[forget(2)]).await;
    assert_eq!(known().await, ["2", "3", "alive"]);
}

async fn unknown_instances_are_told_apart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let unknown = |n| InstanceChange::LegacyUnknown("f".into(), at(n));
    change(&fixture, &[unknown(3)]).await;
    let with_unknown = InstanceCount { has_unknown: true, ..counted(Arm::Legacy, 0, Some(at(3)), None) };
    assert_eq!(count(&fixture, Arm::Legacy).await, with_unknown);
    assert_eq!(fixture.store.legacy_instances("f".into(), None, 10).await.unwrap(), []);
    change(&fixture, &[InstanceChange::LegacyKnown("f".into(), at(4))]).await;
    fixture.reopen().await;
    assert_eq!(count(&fixture, Arm::Legacy).await, counted(Arm::Legacy, 0, None, Some(at(4))));
    // There may be unknown ones again.
    change(&fixture, &[unknown(5)]).await;
    assert_eq!(count(&fixture, Arm::Legacy).await.oldest, Some(at(5)));
}

async fn twins_that_are_incomplete_are_counted_until_their_instances_end(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    let mark = |id: &str, n| InstanceChange::TwinIncomplete(key(id), at(n));
    change(&fixture, &[InstanceChange::LegacySeen(key("1"), at(1)), mark("1", 2), mark("2", 3)]).await;
    fixture.reopen().await;
    let marked = InstanceCount { twins_incomplete: 2, ..counted(Arm::Legacy, 2, Some(at(1)), None) };
    assert_eq!(count(&fixture, Arm::Legacy).await, marked);
    change(&fixture, &[InstanceChange::LegacyEnded(key("1"), at(4))]).await;
    let marked = InstanceCount { twins_incomplete: 1, ..counted(Arm::Legacy, 1, Some(at(3)), Some(at(4))) };
    assert_eq!(count(&fixture, Arm::Legacy).await, marked);
}

async fn legacys_instances_are_listed_in_pages(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let ids: Vec<String> = (0..25).map(|n| format!("order {n} \u{e9}")).collect();
    let seen = ids.iter().map(|id| InstanceChange::LegacySeen(key(id), at(1)));
    change(&fixture, &seen.collect::<Vec<_>>()).await;
    change(&fixture, &[InstanceChange::LegacyEnded(key(&ids[7]), at(2))]).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.legacy_instances("f".into(), after, 10).await.unwrap();
        after = page.last().map(|last| last.id.clone());
        found.extend(page.iter().map(|instance| instance.id.to_string()));
        if page.len() < 10 {
            break;
        }
    }
    found.sort();
    let mut expected = ids.clone();
    expected.remove(7);
    expected.sort();
    assert_eq!(found, expected);
}

/// The pins that a store of the version before had, of which the twins are instances of legacy.
fn older_pins(hex: impl Fn(&str) -> String) -> Vec<String> {
    let upper = "0198AAAA-0000-7000-8000-000000000001";
    let lower = upper.to_ascii_lowercase();
    [("legacy", "1"), ("engine", "2"), ("legacy", upper), ("legacy", lower.as_str()), ("legacy", "Bill-1")]
        .map(|(arm, id)| format!("INSERT INTO pins (family, id, arm, at) VALUES ('f', {}, '{arm}', 7)", hex(id)))
        .into()
}

async fn assert_older_twins_are_known(store: &StoreHandle) {
    let found = store.instance_counts(vec!["f".into()]).await.unwrap();
    let legacy = found.iter().find(|count| count.arm == Arm::Legacy).unwrap();
    assert_eq!((legacy.alive, legacy.twins_incomplete), (3, 3), "a UUID counts once: {found:?}");
    assert_eq!(legacy.oldest, Some(Timestamp::from_nanosecond(7).unwrap()));
    assert!(store.legacy_instance(key("Bill-1")).await.unwrap().is_some());
    assert!(store.legacy_instance(key("0198aaaa-0000-7000-8000-000000000001")).await.unwrap().is_some());
}

#[tokio::test]
async fn the_twins_in_an_older_file_are_instances_of_legacy() {
    use sqlx::{ConnectOptions, Connection};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let mut conn = crate::store::sqlite::setup_options(&path).connect().await.unwrap();
    crate::store::sqlite::migrate_to(&mut conn, &path, 12).await.unwrap();
    for text in older_pins(|id| format!("'{id}'")) {
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
    let store: StoreHandle = Arc::new(SqliteStore::open(&path, &Limits::default()).await.unwrap());
    assert_older_twins_are_known(&store).await;
}

#[tokio::test]
async fn the_twins_in_an_older_database_are_instances_of_legacy() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let url = Secret::new(database.url());
    PostgresStore::create_older_tables(&url, 13).await;
    let hex = |id: &str| format!("'\\x{}'", id.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let mut pins = older_pins(hex);
    // An id that is no text for PostgreSQL.
    pins.push(format!("INSERT INTO pins (family, id, arm, at) VALUES ('g', '\\x{}', 'legacy', 7)", "00".repeat(36)));
    database.query(&format!("SET search_path = pointsman; {}", pins.join("; ")));
    let store: StoreHandle = Arc::new(PostgresStore::open(&url, None, &Limits::default()).await.unwrap());
    assert_older_twins_are_known(&store).await;
    store.close().await;
}
