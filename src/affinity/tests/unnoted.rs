//! Requests that legacy serves although their keys cannot be noted.

use super::*;

/// A flip by force after a request accepts it, also if it comes soon after, and after a restart.
#[tokio::test]
async fn the_time_of_a_request_served_unnoted_is_not_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (limits, route) = (Limits::default(), RouteId::new("orders.create"));
    let open = || KeyLog::open(&dir.path().join("s.keys"), &limits);
    let log = open().unwrap();
    log.record_served_unnoted(&route);
    let now = clock::now();
    let UnknownKeys { served, until } = log.unnoted(&route).unwrap();
    assert!(served <= now && until <= clock::window_end(now, log.window()), "{served} {until} {now}");
    drop(log);
    let log = open_when_unlocked(open).await;
    assert!(log.unnoted(&route).unwrap().served <= clock::now());
}

/// A person who flips the route by force afterwards knows of it.
#[tokio::test]
async fn a_later_process_knows_the_exact_time_of_the_last_request_served_unnoted() {
    let dir = tempfile::tempdir().unwrap();
    let (limits, route) = (Limits::default(), RouteId::new("orders.create"));
    let open = || KeyLog::open(&dir.path().join("s.keys"), &limits);
    let log = open().unwrap();
    log.record_served_unnoted(&route);
    let served = log.unnoted(&route).unwrap().served;
    // The file has milliseconds.
    while clock::now() <= served + Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    let forced_at = clock::now();
    log.close();
    drop(log);
    let known = open_when_unlocked(open).await.unnoted(&route).unwrap().served;
    assert!(served <= known && known <= forced_at, "{served} {known} {forced_at}");
}

/// After the files take a rename back, the next process but one does not know the later id.
#[tokio::test]
async fn a_request_of_a_renamed_route_is_recorded_under_its_oldest_id_too() {
    let pins = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    let [later, oldest, other] = ["orders.make", "orders.create", "other"].map(RouteId::new);
    pins.record_served_unnoted(&later, &oldest);
    for (id, is_known) in [(&later, true), (&oldest, true), (&other, false)] {
        assert_eq!(pins.unnoted(std::iter::once(id)).is_some(), is_known, "{id}");
    }
}

/// Its keys are in the store, so that the next process knows them.
#[tokio::test]
async fn a_retry_of_a_noted_request_counts_as_noted_while_no_key_can_be_noted() {
    let (store, [noted, expired, new]) = (CountingStore::new(), [1, 2, 3].map(numbered));
    let soon_over = clock::now() - jiff::SignedDuration::from_hours(24) + jiff::SignedDuration::from_secs(2);
    store.inner.note_legacy_tries(vec![(expired, soon_over)]).await.unwrap();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let take = |key: RetryKey| pins.take_for_legacy(key.into(), &EarlierKeys::none(), KnownBody::Unread);
    assert_eq!([take(noted), take(expired)], [LegacyTake::FIRST; 2]);
    pins.flush().await;
    while store.inner.first_try(expired).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pins.finish_key_file().await; // from now on no key can be noted
    for (key, again, expected) in [(noted, true, true), (expired, true, false), (new, false, false)] {
        assert_eq!(take(key), LegacyTake::Taken { noted: false, again }, "{key:?}");
        assert_eq!(pins.noted_earlier(&key.into()).await, expected, "{key:?}");
    }
    let asked = store.look_ups.load(Ordering::Relaxed);
    assert!(!pins.noted_earlier(&new.into()).await);
    assert_eq!(
        store.look_ups.load(Ordering::Relaxed),
        asked,
        "nobody waits for the store for a key that was never noted"
    );
    store.is_gone.store(true, Ordering::Relaxed);
    assert!(!pins.noted_earlier(&noted.into()).await);
}
