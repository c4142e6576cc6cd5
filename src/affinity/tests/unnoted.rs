//! Requests that legacy serves although their keys cannot be noted.

use super::super::key_ring::{Ring, Stall, Written};
use super::super::key_writer::NoteStatus;
use super::*;

/// A forced flip accepts the unnoted requests before it. So the recorded time must not be later than the real one, also
/// after a restart.
#[tokio::test]
async fn the_recorded_time_of_a_request_served_unnoted_is_not_later_than_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let (limits, route) = (Limits::default(), RouteId::new("orders.create"));
    let open = || KeyLog::open(&dir.path().join("s.keys"), &limits);
    let log = open().unwrap();
    log.record_served_unnoted(&[numbered(1)], &route);
    let now = clock::now();
    let RequestsWithUnknownKeys { served, until } = log.unnoted(&route).unwrap();
    assert!(served <= now && until <= clock::window_end(now, log.window()), "{served} {until} {now}");
    drop(log);
    let log = open_when_unlocked(open).await;
    assert!(log.unnoted(&route).unwrap().served <= clock::now());
}

/// A forced flip after that request accepts it, so the time that a later process finds must be before the flip.
#[tokio::test]
async fn a_later_process_knows_the_exact_time_of_the_last_request_served_unnoted() {
    let dir = tempfile::tempdir().unwrap();
    let (limits, route) = (Limits::default(), RouteId::new("orders.create"));
    let open = || KeyLog::open(&dir.path().join("s.keys"), &limits);
    let log = open().unwrap();
    log.record_served_unnoted(&[numbered(1)], &route);
    let served = log.unnoted(&route).unwrap().served;
    // The file stores times in milliseconds.
    while clock::now() <= served + Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    let forced_at = clock::now();
    log.end_move_to_store();
    drop(log);
    let known = open_when_unlocked(open).await.unnoted(&route).unwrap().served;
    assert!(served <= known && known <= forced_at, "{served} {known} {forced_at}");
}

/// A process that starts after the files rename the route back does not know the id that it had meanwhile.
#[tokio::test]
async fn a_request_of_a_renamed_route_is_recorded_under_its_oldest_id_too() {
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    let [later, oldest, other] = ["orders.make", "orders.create", "other"].map(RouteId::new);
    affinity.record_served_unnoted(&numbered(1).into(), &later, &oldest).await;
    for (id, is_known) in [(&later, true), (&oldest, true), (&other, false)] {
        assert_eq!(affinity.unnoted_requests(std::iter::once(id)).is_some(), is_known, "{id}");
    }
}

/// The keys of the request are in the store, so that the next process knows them.
#[tokio::test]
async fn a_retry_of_a_noted_request_counts_as_noted_while_no_key_can_be_noted() {
    let (store, [noted, expired, new]) = (CountingStore::new(), [1, 2, 3].map(numbered));
    let soon_over = clock::now() - jiff::SignedDuration::from_hours(24) + jiff::SignedDuration::from_secs(2);
    store.inner.note_legacy_tries(vec![(expired, soon_over)]).await.unwrap();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let take =
        |key: RetryKey| now(affinity.take_for_legacy(&ROUTE, key.into(), &EarlierKeys::none(), KnownBody::Unread));
    assert_eq!([take(noted), take(expired)], [LegacyTake::FIRST; 2]);
    affinity.flush().await;
    while store.inner.first_try(expired).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    affinity.finish_key_file().await; // from now on no key can be noted
    for (key, again, expected) in [(noted, true, true), (expired, true, false), (new, false, false)] {
        assert_eq!(take(key), LegacyTake::Taken { noted: false, is_retry: again }, "{key:?}");
        assert_eq!(affinity.noted_earlier(&key.into()).await, expected, "{key:?}");
    }
    let asked = store.look_ups.load(Ordering::Relaxed);
    assert!(!affinity.noted_earlier(&new.into()).await);
    assert_eq!(
        store.look_ups.load(Ordering::Relaxed),
        asked,
        "nobody waits for the store for a key that was never noted"
    );
    store.is_gone.store(true, Ordering::Relaxed);
    assert!(!affinity.noted_earlier(&noted.into()).await);
}

async fn affinity_with_file(store: &Arc<CountingStore>, dir: &std::path::Path) -> Arc<StoreAffinity> {
    let keys = KeyLog::open(&dir.join("s.keys"), &Limits::default()).unwrap();
    StoreAffinity::open(store.clone(), &Limits::default(), keys).await.unwrap()
}

/// The requests that come when a write begins to hang wait for a bounded time, later ones not at all. The records are
/// written when the write ends, and until then the route counts as one that served requests unnoted.
#[tokio::test]
async fn a_write_that_hangs_delays_nobody_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed); // so that the keys stay in the file
    let affinity = affinity_with_file(&store, dir.path()).await;
    let (none, route) = (EarlierKeys::none(), RouteId::new("orders.create"));
    let take = |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread);
    let is_unnoted = || affinity.unnoted_requests(std::iter::once(&route)).is_some();
    assert_eq!(take(0).await, LegacyTake::FIRST);
    let write_hangs = affinity.keys.hold_file();
    let both = tokio::join!(take(1), take(2));
    assert_eq!(both, (LegacyTake::NOT_NOTED, LegacyTake::NOT_NOTED));
    assert_eq!(now(take(3)), LegacyTake::NOT_NOTED, "at once");
    assert_eq!(now(take(1)), LegacyTake::Taken { noted: false, is_retry: true }, "not yet");
    assert_eq!(affinity.take_for_engine(numbered(3)), KeyTakeResult::OtherArmHasIt);
    for n in 1..4 {
        now(affinity.record_served_unnoted(&numbered(n).into(), &route, &route));
    }
    assert!(is_unnoted());
    assert_eq!(affinity.unwritten_keys(), 3);
    drop(write_hangs);
    while affinity.unwritten_keys() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(!is_unnoted(), "they are noted after all");
    assert_eq!(take(4).await, LegacyTake::FIRST, "keys can be noted again");
    assert_eq!(take(1).await, LegacyTake::Taken { noted: true, is_retry: true });
}

/// The store takes keys while the file's disk hangs, as on PostgreSQL, where the two are on different disks.
#[tokio::test]
async fn a_key_that_the_store_has_counts_as_noted_while_its_write_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    let affinity = affinity_with_file(&store, dir.path()).await;
    let (none, route) = (EarlierKeys::none(), RouteId::new("orders.create"));
    let take = |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread);
    let write_hangs = affinity.keys.hold_file();
    let first = take(1).await;
    assert!(matches!(first, LegacyTake::Taken { is_retry: false, .. }), "{first:?}");
    now(affinity.record_served_unnoted(&numbered(1).into(), &route, &route));
    while affinity.unwritten_keys() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(2).await, LegacyTake::FIRST, "the store takes it");
    assert_eq!(take(1).await, LegacyTake::Taken { noted: true, is_retry: true });
    for n in 1..3 {
        assert_eq!(store.inner.first_try(numbered(n)).await.unwrap().unwrap().arm, Arm::Legacy);
    }
    assert_eq!(affinity.unnoted_requests(std::iter::once(&route)), None);
    affinity.flush().await;
    affinity.finish_key_file().await;
    assert_eq!(take(3).await, LegacyTake::NOT_NOTED, "the stop has not waited for the disk");
    drop(write_hangs);
}

/// The store takes a key from the file while a write to the file hangs: a retry does not wait for that write.
#[tokio::test]
async fn a_key_that_the_store_took_from_the_file_is_noted_while_writes_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed); // so that the key stays in the file
    let affinity = affinity_with_file(&store, dir.path()).await;
    let (none, keys) = (EarlierKeys::none(), &affinity.keys);
    let take = |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread);
    assert_eq!(take(0).await, LegacyTake::FIRST);
    let write_hangs = keys.hold_file();
    assert_eq!(take(1).await, LegacyTake::NOT_NOTED);
    store.is_gone.store(false, Ordering::Relaxed);
    while keys.is_unstored(&numbered(0)) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(keys.note(numbered(0)), NoteStatus::Noted));
    drop(write_hangs);
}

/// A stop during a short hang waits for the keys that are not written yet.
#[tokio::test]
async fn a_flush_waits_for_a_write_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed);
    let affinity = affinity_with_file(&store, dir.path()).await;
    let write_hangs = affinity.keys.hold_file();
    assert_eq!(
        affinity.take_for_legacy(&ROUTE, numbered(1).into(), &EarlierKeys::none(), KnownBody::Unread).await,
        LegacyTake::NOT_NOTED
    );
    let mut flush = Box::pin(affinity.flush());
    assert!((&mut flush).now_or_never().is_none());
    store.is_gone.store(false, Ordering::Relaxed);
    drop(write_hangs);
    flush.await;
    affinity.flush().await;
    assert_eq!(store.inner.first_try(numbered(1)).await.unwrap().unwrap().arm, Arm::Legacy);
}

/// Clients that go away within a second do not hide that the disk hangs.
#[tokio::test]
async fn a_write_that_hangs_is_noticed_although_nobody_waits_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    let affinity = affinity_with_file(&store, dir.path()).await;
    let write_hangs = affinity.keys.hold_file();
    let none = EarlierKeys::none();
    let mut n = 0;
    while store.inner.first_try(numbered(1)).await.unwrap().is_none() {
        n += 1;
        let take = affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread);
        let _went_away = take.now_or_never();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    affinity.flush().await;
    assert_eq!(affinity.unwritten_keys(), 0, "the store has all");
    drop(write_hangs);
}

/// The store may take a key between the end of the request's wait for it and the record that the route served the
/// request.
#[tokio::test]
async fn a_key_that_the_store_takes_before_its_request_is_recorded_counts_as_noted() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    store.is_gone.store(true, Ordering::Relaxed);
    let affinity = affinity_with_file(&store, dir.path()).await;
    let (none, route) = (EarlierKeys::none(), RouteId::new("orders.create"));
    let take = |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread);
    let record = |n| now(affinity.record_served_unnoted(&numbered(n).into(), &route, &route));
    let is_unnoted = || affinity.unnoted_requests(std::iter::once(&route)).is_some();
    let write_hangs = affinity.keys.hold_file();
    assert_eq!(take(1).await, LegacyTake::NOT_NOTED);
    assert_eq!(now(take(2)), LegacyTake::NOT_NOTED);
    store.is_gone.store(false, Ordering::Relaxed);
    while affinity.unwritten_keys() > 0 {
        tokio::task::yield_now().await;
    }
    record(1);
    record(2);
    assert!(!is_unnoted());
    assert_eq!(take(1).await, LegacyTake::Taken { noted: true, is_retry: true });
    drop(write_hangs);
    while affinity.keys.ring().pending.len() > 0 {
        tokio::task::yield_now().await;
    }
    affinity.flush().await;
    record(1);
    assert!(!is_unnoted(), "also if it was written and stored afterwards");
    affinity.record_served_unnoted(&numbered(3).into(), &route, &route).await;
    assert!(is_unnoted(), "nobody has it");
}

/// Each of the writes hangs. While `Ring::is_failing` is set, the newest log line says that keys cannot be noted; so it
/// must not be cleared, and the opposite logged, while another write hangs.
#[test]
fn keys_can_be_noted_again_only_when_the_last_write_that_hung_has_ended() {
    let mut ring = Ring::in_memory(960, metrics::Gauge::noop());
    ring.path = Some("s.keys".into());
    let written = |seq| Written { keys: vec![Ok(seq)], any: true, ..Written::default() };
    ring.add_pending(numbered(1), clock::now());
    let first = ring.take_outstanding().unwrap();
    ring.add_pending(numbered(2), clock::now());
    ring.record_stall(&numbered(1));
    ring.set_written(first, written(1));
    assert!(ring.is_failing && ring.is_stalled(), "the second key waits for the next write");
    let second = ring.take_outstanding().unwrap();
    ring.set_written(second, written(2));
    assert!(!ring.is_failing && !ring.is_stalled());

    // The write that hangs has no keys; meanwhile the store takes the key that waits behind it.
    ring.progress_to_write = true;
    let progress = ring.take_outstanding().unwrap();
    ring.add_pending(numbered(3), clock::now());
    ring.record_stall(&numbered(3));
    ring.set_pending_stored(&[(numbered(3), clock::now())], true);
    assert!(ring.is_failing && ring.stall == Stall::StoreTakesPending);
    ring.set_written(progress, Written::default());
    assert!(!ring.is_failing && !ring.is_stalled());
}

#[test]
fn requests_wait_for_the_store_only_if_it_takes_keys_quickly() {
    let mut ring = Ring::in_memory(960, metrics::Gauge::noop());
    ring.path = Some("s.keys".into());
    for (n, is_quick, expected) in
        [(1, false, Stall::Stalled), (2, true, Stall::StoreTakesPending), (3, false, Stall::Stalled)]
    {
        ring.add_pending(numbered(n), clock::now());
        ring.record_stall(&numbered(n));
        ring.set_pending_stored(&[(numbered(n), clock::now())], is_quick);
        assert!(ring.stall == expected, "{n}");
    }
}

/// The only request has gone away, and no other one comes.
#[tokio::test]
async fn a_flush_finds_that_a_write_hangs_and_the_store_takes_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = CountingStore::new();
    let affinity = affinity_with_file(&store, dir.path()).await;
    let write_hangs = affinity.keys.hold_file();
    let none = EarlierKeys::none();
    let _went_away = affinity.take_for_legacy(&ROUTE, numbered(1).into(), &none, KnownBody::Unread).now_or_never();
    affinity.flush().await;
    assert_eq!(affinity.unwritten_keys(), 0);
    assert!(store.inner.first_try(numbered(1)).await.unwrap().is_some());
    drop(write_hangs);
}

/// Clients go away before anybody has waited long, until there is no room.
#[tokio::test]
async fn a_write_that_hangs_is_noticed_although_the_file_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, none) = (CountingStore::new(), EarlierKeys::none());
    let limits = Limits { retry_keys_file_bytes_max: 65_536, ..Limits::default() };
    let keys = KeyLog::open(&dir.path().join("s.keys"), &limits).unwrap();
    let affinity = StoreAffinity::open(store.clone(), &limits, keys).await.unwrap();
    let write_hangs = affinity.keys.hold_file();
    let mut n = 0;
    while affinity.keys.ring().has_room() {
        n += 1;
        let _went_away = affinity.take_for_legacy(&ROUTE, numbered(n).into(), &none, KnownBody::Unread).now_or_never();
    }
    while store.inner.first_try(numbered(1)).await.unwrap().is_none() {
        let _refused =
            affinity.take_for_legacy(&ROUTE, numbered(n + 1).into(), &none, KnownBody::Unread).now_or_never();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(write_hangs);
}
