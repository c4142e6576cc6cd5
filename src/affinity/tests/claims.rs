//! Keys that legacy takes in a store that several processes share.

use super::*;
use crate::clock::Moment;
use crate::exchange::{KeysOfOtherEngines, KnownKeysOfOtherEngines};
use crate::flag::{Route, RouteMatch, Service};
use crate::store::Claim;
use crate::workflow::RunStatus;

/// A memory store that several processes share, and the affinity of one of them, which claims the keys of its route.
async fn claiming() -> (Arc<CountingStore>, Arc<StoreAffinity>) {
    let store = CountingStore::new();
    store.inner.set_shared();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    affinity.set_claiming(ClaimingRoutes { always: [ROUTE.clone()].into(), ..ClaimingRoutes::default() });
    (store, affinity)
}

fn route(id: &RouteId) -> Route {
    let matches = RouteMatch { method: http::Method::POST, path: "/".into(), host: None };
    let service = Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]);
    Route::without_workflow(id.clone(), matches, Arc::new(service))
}

/// The engine of another process takes the key.
async fn engine_takes(store: &CountingStore, run: u64, key: RetryKey) {
    let claim = Some(Claim::new(key, [0; 32]));
    store.inner.append(Arc::new(Append { claim, ..append(run_id(run), 1, 1) })).await.unwrap();
}

/// While the store does not answer, a claim fails; meanwhile the engine of another process takes the key. The route
/// goes down before the client tries again.
#[tokio::test]
async fn a_key_whose_claim_failed_is_claimed_at_the_next_try() {
    let (store, affinity) = claiming().await;
    let [engines, legacys] = [numbered(1), numbered(2)];
    store.is_gone.store(true, Ordering::Relaxed);
    for key in [engines, legacys] {
        assert_eq!(legacy_takes(&affinity, key).await, LegacyTake::Unknown);
    }
    engine_takes(&store, 1, engines).await;
    affinity.set_claiming(ClaimingRoutes::default());
    for key in [engines, legacys] {
        assert_eq!(legacy_takes(&affinity, key).await, LegacyTake::Unknown, "the store does not answer yet");
    }
    store.is_gone.store(false, Ordering::Relaxed);
    while !affinity.flush_taken().await {}
    assert_eq!(legacy_takes(&affinity, engines).await, LegacyTake::HeldByEngine);
    assert!(matches!(legacy_takes(&affinity, legacys).await, LegacyTake::Taken { noted: true, .. }));
    let look_ups = store.look_ups();
    assert!(matches!(legacy_takes(&affinity, legacys).await, LegacyTake::Taken { noted: true, .. }));
    assert_eq!(store.look_ups(), look_ups, "once is enough");
}

/// As after a restart: nothing but the file says that legacy took the key.
#[tokio::test]
async fn a_key_that_a_run_has_in_the_store_is_not_legacys_any_more() {
    let (store, affinity) = claiming().await;
    store.is_gone.store(true, Ordering::Relaxed);
    affinity.set_claiming(ClaimingRoutes::default());
    assert_eq!(legacy_takes(&affinity, numbered(1)).await, LegacyTake::FIRST, "no engine answers on the route");
    engine_takes(&store, 1, numbered(1)).await;
    assert_eq!(affinity.first_try(&numbered(1)).await, Ok(Some(Arm::Legacy)));
    store.is_gone.store(false, Ordering::Relaxed);
    while !affinity.flush_taken().await {}
    while !affinity.tries.is_unclaimed(&numbered(1)) {
        tokio::task::yield_now().await;
    }
    assert_eq!(legacy_takes(&affinity, numbered(1)).await, LegacyTake::HeldByEngine);
    assert_eq!(affinity.first_try(&numbered(1)).await, Ok(Some(Arm::Engine)));
}

/// The earlier process may have refused that try, because its claim failed, and the engine of another process took it.
#[tokio::test]
async fn what_an_earlier_process_noted_for_legacy_is_the_engines_if_a_run_has_it() {
    let (store, affinity) = claiming().await;
    for n in 1..=3 {
        affinity.tries.record_taken_by_legacy(numbered(n), Instant::now(), Duration::ZERO);
    }
    engine_takes(&store, 1, numbered(1)).await;
    assert_eq!(affinity.first_try(&numbered(1)).await, Ok(Some(Arm::Engine)));
    assert_eq!(affinity.take_for_engine(numbered(1)), KeyTakeResult::First, "its retry is answered from the run");
    assert_eq!(affinity.first_try(&numbered(2)).await, Ok(Some(Arm::Legacy)), "the store does not have it yet");
    engine_takes(&store, 3, numbered(3)).await;
    let recorded = EarlierKeys { legacy_has_own: true, ..EarlierKeys::none() };
    let take = async |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &recorded, KnownBody::Unread).await;
    assert!(matches!(take(2).await, LegacyTake::Taken { noted: true, .. }));
    assert_eq!(store.inner.first_try(numbered(2)).await.unwrap().map(|first| first.arm), Some(Arm::Legacy), "claimed");
    assert_eq!(take(3).await, LegacyTake::HeldByEngine);
    store.is_gone.store(true, Ordering::Relaxed);
    affinity.tries.record_taken_by_legacy(numbered(4), Instant::now(), Duration::ZERO);
    assert_eq!(affinity.first_try(&numbered(4)).await, Err(ArmUnknown));
}

/// The store does not answer, so that the engine of this process gives the request back, and the claim for legacy
/// fails. The engine of another process takes the request under another credential. Then the route goes down, and the
/// client tries again.
#[tokio::test]
async fn a_request_that_was_given_back_and_not_claimed_is_claimed_at_the_next_try() {
    let (store, affinity) = claiming().await;
    let keys = |n: u32| RetryKeys { any_caller: Some(numbered(n)), ..numbered(n + 10).into() };
    let body = KnownBody::Digest([1; 32]);
    store.is_gone.store(true, Ordering::Relaxed);
    for n in [1, 2] {
        affinity.give_to_legacy_without_waiting(keys(n));
        assert_eq!(affinity.give_to_legacy(keys(n), body).await, LegacyTake::Unknown);
    }
    store.is_gone.store(false, Ordering::Relaxed);
    engine_takes(&store, 1, numbered(1).of_request(&[1; 32])).await;
    while !affinity.flush_taken().await {}
    affinity.set_claiming(ClaimingRoutes::default());
    let take = async |n| affinity.take_for_legacy(&ROUTE, keys(n), &EarlierKeys::none(), body).await;
    assert_eq!(take(1).await, LegacyTake::HeldUnderAnotherCredential);
    assert!(matches!(take(2).await, LegacyTake::Taken { noted: true, .. }));
}

/// The engine of this process, or of another one, had the request and gave it back.
#[tokio::test]
async fn legacy_gets_a_request_that_the_engine_gave_back() {
    let (store, affinity) = claiming().await;
    for run in [1, 2] {
        let key = numbered(u32::try_from(run).unwrap());
        engine_takes(&store, run, key).await;
        let mut abandoned = append(run_id(run), 2, 1);
        abandoned.summary.status = RunStatus::Abandoned;
        store.inner.append(abandoned.into()).await.unwrap();
    }
    let give = async |n| affinity.give_to_legacy(numbered(n).into(), KnownBody::Digest([0; 32])).await;
    assert_eq!(give(1).await, LegacyTake::FIRST);
    assert_eq!(legacy_takes(&affinity, numbered(2)).await, LegacyTake::FIRST);
    engine_takes(&store, 3, numbered(3)).await;
    assert_eq!(give(3).await, LegacyTake::HeldByEngine);
}

/// The engine of this process could not begin its run, while that of another one took the same request under another
/// credential.
#[tokio::test]
async fn legacy_gets_no_request_back_that_another_engine_has_under_another_credential() {
    let (store, affinity) = claiming().await;
    let keys = |n: u32| RetryKeys { any_caller: Some(numbered(n)), ..numbered(n + 10).into() };
    let digest = |n: u8| [n; 32];
    let give = async |n, of| affinity.give_to_legacy(keys(n), KnownBody::Digest(digest(of))).await;
    engine_takes(&store, 1, numbered(1).of_request(&digest(1))).await;
    assert_eq!(give(1, 1).await, LegacyTake::HeldUnderAnotherCredential);
    assert_eq!(give(1, 1).await, LegacyTake::HeldUnderAnotherCredential);
    assert_eq!(give(2, 1).await, LegacyTake::FIRST);
    engine_takes(&store, 3, numbered(3).of_request(&digest(1))).await;
    assert_eq!(give(3, 2).await, LegacyTake::FIRST, "another request with the same retry key");
}

/// Another process stored the key as legacy's, and refused the try because it did not get an answer to its look-up.
#[tokio::test]
async fn a_stored_key_of_legacy_is_confirmed_where_an_engine_may_answer() {
    let (store, affinity) = claiming().await;
    let keys = |n: u32| RetryKeys { any_caller: Some(numbered(n)), ..numbered(n + 10).into() };
    let confirm = async |affinity: &StoreAffinity, n| {
        let recorded = EarlierKeys { legacy_has_own: true, ..EarlierKeys::none() };
        affinity.take_for_legacy(&ROUTE, keys(n), &recorded, KnownBody::Digest([1; 32])).await
    };
    for n in 1..=3 {
        store
            .inner
            .note_legacy_tries(keys(n).of_legacy().map(|key| (key, crate::clock::now())).collect())
            .await
            .unwrap();
    }
    engine_takes(&store, 1, numbered(1).of_request(&[1; 32])).await;
    assert_eq!(confirm(&affinity, 1).await, LegacyTake::HeldUnderAnotherCredential);
    assert_eq!(confirm(&affinity, 2).await, LegacyTake::FIRST);
    // Of the key for any caller the other process had not stored anything yet: no engine takes the request after this.
    store.inner.note_legacy_tries(vec![(numbered(14), crate::clock::now())]).await.unwrap();
    assert_eq!(confirm(&affinity, 4).await, LegacyTake::FIRST);
    assert_eq!(store.inner.first_try(numbered(4)).await.unwrap().map(|first| first.arm), Some(Arm::Legacy));
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(confirm(&affinity, 3).await, LegacyTake::Unknown);
    affinity.set_claiming(ClaimingRoutes::default());
    assert_eq!(confirm(&affinity, 3).await, LegacyTake::FIRST, "no engine answers on the route");
}

/// A route goes down from `live` after the engine of another process has taken keys.
#[tokio::test]
async fn keys_of_other_engines_are_in_the_set_before_it_is_relied_on() {
    let (store, affinity) = claiming().await;
    affinity.set_lease_end(Moment::now().later(Duration::from_secs(60)), Some(1));
    let known = async || {
        loop {
            match affinity.keys_of_other_engines(&route(&ROUTE)) {
                of_others if of_others.are_all_known => return of_others.version,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let goes_down = || {
        affinity.set_claiming(ClaimingRoutes::default());
        let of_others = affinity.keys_of_other_engines(&route(&ROUTE));
        assert!(!of_others.are_all_known && of_others.is_unread, "the store is not read yet");
    };
    engine_takes(&store, 1, numbered(1)).await;
    goes_down();
    let version = known().await;
    assert_eq!([1, 2].map(|n| affinity.remembered(&numbered(n))), [Remembered::Unknown, Remembered::NotEngineHere]);
    // A request that is looked up now is taken for legacy only after the route was in `live` and went down again.
    affinity.set_claiming(ClaimingRoutes { always: [ROUTE.clone()].into(), ..ClaimingRoutes::default() });
    assert!(!affinity.keys_of_other_engines(&route(&ROUTE)).are_all_known);
    assert!(affinity.keys_of_other_engines(&route(&"other".into())).are_all_known);
    engine_takes(&store, 2, numbered(2)).await;
    goes_down();
    known().await;
    let earlier = EarlierKeys { keys_of_other_engines: KeysOfOtherEngines::Known(version), ..EarlierKeys::none() };
    let takes = async |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &earlier, KnownBody::Unread).await;
    assert_eq!(takes(2).await, LegacyTake::HeldByEngine);
    assert_eq!(takes(3).await, LegacyTake::FIRST);
}

/// While a look-up waits for a store that does not answer, the route goes up and down again, and the engine of another
/// process takes the key.
#[tokio::test]
async fn a_key_whose_look_up_failed_is_claimed_if_its_route_went_down_meanwhile() {
    let (store, affinity) = claiming().await;
    affinity.set_claiming(ClaimingRoutes::default());
    affinity.set_lease_end(Moment::now().later(Duration::from_secs(60)), Some(1));
    while !affinity.keys_of_other_engines(&route(&ROUTE)).are_all_known {
        tokio::task::yield_now().await;
    }
    let KnownKeysOfOtherEngines { version, is_unread: false, .. } = affinity.keys_of_other_engines(&route(&ROUTE))
    else {
        panic!("all were read");
    };
    let unanswered = KeysOfOtherEngines::Unanswered(version);
    let earlier = EarlierKeys { keys_of_other_engines: unanswered, ..EarlierKeys::none() };
    let takes = async |n| affinity.take_for_legacy(&ROUTE, numbered(n).into(), &earlier, KnownBody::Unread).await;
    store.is_gone.store(true, Ordering::Relaxed);
    assert_eq!(takes(1).await, LegacyTake::FIRST);
    affinity.set_claiming(ClaimingRoutes { always: [ROUTE.clone()].into(), ..ClaimingRoutes::default() });
    engine_takes(&store, 1, numbered(2)).await;
    affinity.set_claiming(ClaimingRoutes::default());
    assert_eq!(takes(2).await, LegacyTake::Unknown);
    store.is_gone.store(false, Ordering::Relaxed);
    while !affinity.flush_taken().await {}
    assert_eq!(takes(2).await, LegacyTake::HeldByEngine);
}

/// As above, but the store answered the look-up before the engine took the key, and its answer came late.
#[tokio::test]
async fn a_key_that_the_store_did_not_have_is_claimed_if_its_route_went_down_since() {
    let (store, affinity) = claiming().await;
    let version = affinity.keys_of_other_engines(&route(&ROUTE)).version;
    let asked = KeysOfOtherEngines::Asked { version, claim_may_fail: true };
    let earlier = EarlierKeys { keys_of_other_engines: asked, ..EarlierKeys::none() };
    engine_takes(&store, 1, numbered(1)).await;
    affinity.set_claiming(ClaimingRoutes::default());
    store.is_gone.store(true, Ordering::Relaxed);
    let takes = affinity.take_for_legacy(&ROUTE, numbered(1).into(), &earlier, KnownBody::Unread).await;
    assert_eq!(takes, LegacyTake::Unknown);
}
