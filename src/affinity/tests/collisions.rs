//! Pin collisions, which a background task finds and stores.

use super::*;
use crate::exchange::NotedInstance;
use crate::store::tests::rerun_of;
use crate::store::{
    AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, InstanceChange, InstanceStore, NewAdoption,
    PinCollision, PinCollisionStore,
};

impl PinCollisionStore for CountingStore {
    fn put_pin_collisions(&self, collisions: Vec<PinCollision>) -> BoxFuture<'_, Stored<()>> {
        match self.is_gone.load(Ordering::Relaxed) {
            true => ready(Err(StoreError("gone".into()))).boxed(),
            // Takes effect when it is called.
            false => self.inner.put_pin_collisions(collisions),
        }
    }
    fn pin_collisions(&self) -> BoxFuture<'_, Stored<Vec<PinCollision>>> {
        self.inner.pin_collisions()
    }
}

/// The family `orders.create`, under this id and earlier ones.
pub(super) fn family() -> Family {
    Family::from(RouteId::new("orders.create"))
}

/// What a reply of legacy shows that came just now: it created the instance with this id.
pub(super) fn created(id: &str) -> CreatedByLegacy {
    CreatedByLegacy { key: pin(id, Arm::Legacy).key.into(), replied_at: clock::now(), is_retry: false }
}

/// When the stored collision of the family was found and accepted.
async fn stored(store: &CountingStore) -> Option<(Timestamp, Option<Timestamp>)> {
    let stored = store.inner.pin_collisions().await.unwrap();
    assert!(stored.len() < 2 && stored.iter().all(|stored| stored.family.as_str() == "orders.create"));
    stored.first().map(|stored| (stored.since, stored.accepted))
}

/// Two processes share the store: what one of them finds, and what a person accepts there, holds in the other.
#[tokio::test]
async fn a_collision_holds_in_the_other_process_until_a_person_accepts_it_in_either() {
    let store = CountingStore::new();
    let first = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let second = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let family = family();
    create(&store, &first, 1, pin("17", Arm::Engine)).await;
    let changes = first.stored_collision_changes();
    first.record_legacy_instance(created("17"));
    first.finish_collision_checks().await;
    assert!(first.stored_collision_changes() > changes, "the other one is told");
    assert!(!second.collided(&family));
    second.follow_collisions().await.unwrap();
    assert!(second.collided(&family));
    assert_eq!(second.stored_collision_changes(), 0, "it stores nothing of that again");
    second.accept_collisions(&family, clock::now());
    second.finish_collision_checks().await;
    first.follow_collisions().await.unwrap();
    assert!(!first.collided(&family) && !second.collided(&family));
}

#[tokio::test]
async fn an_id_from_legacy_that_the_engine_owns_is_a_collision() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let family = family();
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    affinity.record_legacy_instance(created("18"));
    affinity.finish_collision_checks().await;
    assert!(!affinity.collided(&family));
    affinity.record_legacy_instance(created("17"));
    assert!(affinity.collided(&family));

    // Without the collision that the first process found.
    let store = CountingStore::new();
    store.append(Arc::new(Append { pins: vec![pin("17", Arm::Engine)], ..append(run_id(1), 1, 1) })).await.unwrap();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    affinity.record_legacy_instance(created("17"));
    affinity.finish_collision_checks().await;
    assert!(affinity.collided(&family), "found in the store");
    assert!(!affinity.collided(&RouteId::new("other").into()));

    let store = CountingStore::new();
    store.append(Arc::new(Append { pins: vec![pin("17", Arm::Engine)], ..append(run_id(1), 1, 1) })).await.unwrap();
    let affinity = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    let before = store.look_ups();
    affinity.record_legacy_instance(created("17"));
    while store.look_ups() == before {
        tokio::task::yield_now().await;
    }
    assert!(!affinity.collided(&family), "the store does not answer");
    store.is_gone.store(false, Ordering::Relaxed);
    affinity.finish_collision_checks().await;
    assert!(affinity.collided(&family), "found when the store answers again");
}

/// An append of a run that pins an instance now.
fn pinning(new: &NewPin, run: RunId) -> Arc<Append> {
    let mut append = Append { pins: vec![new.clone()], ..append(run, 1, 1) };
    append.events.iter_mut().for_each(|(at, _)| *at = clock::now());
    Arc::new(append)
}

/// The id of a run that begins later than what legacy shows now. Its time is in whole milliseconds, hence a later
/// second.
fn later() -> RunId {
    let second = clock::now().as_second().cast_unsigned() + 2;
    RunId(uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, second, 0)))
}

/// The id of a run that began long ago.
fn earlier() -> RunId {
    RunId(uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_000, 0)))
}

/// Both arms count on their own, and legacy was first: in `shadow`, or in a fallback.
#[tokio::test]
async fn an_id_from_the_engine_that_legacy_gave_out_before_is_a_collision() {
    let family = family();
    let store = Arc::new(crate::store::MemoryStore::new());
    let pinned = async |affinity: &StoreAffinity, id: &str, run: RunId| {
        let new = pin(id, Arm::Engine);
        store.append(pinning(&new, run)).await.unwrap();
        affinity.record_pin(&new, run, affinity.pins_version());
        affinity.finish_collision_checks().await;
        affinity.collided(&family)
    };
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let by_legacy = |id: &str| NotedInstance {
        key: pin(id, Arm::Legacy).key.into(),
        arm: Arm::Legacy,
        run: None,
        is_created: true,
        has_ended: false,
    };
    affinity.note_instance(by_legacy("17"));
    assert!(!pinned(&affinity, "18", later()).await);
    assert!(pinned(&affinity, "17", later()).await, "reported by this process");
    affinity.accept_collisions(&family, clock::now());
    affinity.finish_collision_checks().await;

    affinity.note_instance(by_legacy("19"));
    affinity.instances().refresh(None).await.unwrap();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    assert!(!pinned(&affinity, "20", later()).await);
    assert!(pinned(&affinity, "19", later()).await, "found in the store");
    affinity.accept_collisions(&family, clock::now());
    affinity.finish_collision_checks().await;
    // What legacy shows first while the run is under way may be the run's own work there.
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    store.change_instances(vec![InstanceChange::LegacyListed(pin("21", Arm::Legacy).key, clock::now())]).await.unwrap();
    assert!(!pinned(&affinity, "21", earlier()).await);
    let followed_up = |id: &str| NotedInstance { is_created: false, ..by_legacy(id) };
    affinity.note_instance(followed_up("22"));
    assert!(!pinned(&affinity, "22", earlier()).await, "the store does not have it yet");
    affinity.note_instance(followed_up("23"));
    assert!(pinned(&affinity, "23", later()).await);
    affinity.accept_collisions(&family, clock::now());
    // The run calls services: a reply of legacy to a create is about another instance.
    affinity.note_instance(by_legacy("24"));
    assert!(pinned(&affinity, "24", earlier()).await);
}

/// The first run of the job created the instance at legacy and was rerun before it answered: legacy showed the instance
/// before the rerun began.
#[tokio::test]
async fn what_an_earlier_run_of_the_job_created_at_legacy_is_no_collision() {
    let (listed, created) =
        (InstanceChange::LegacyListed as fn(_, _) -> _, InstanceChange::LegacyCreated as fn(_, _) -> _);
    // A create through this proxy is none of the run's.
    for (shown, shown_at_s, expected) in [(listed, 2_000, false), (listed, 500, true), (created, 2_000, true)] {
        let store = Arc::new(crate::store::MemoryStore::new());
        let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
        let shown = shown(pin("17", Arm::Legacy).key, Timestamp::from_second(shown_at_s).unwrap());
        store.change_instances(vec![shown]).await.unwrap();
        let (new, first, rerun) = (pin("17", Arm::Engine), earlier(), later());
        store.append(Arc::new(Append { pins: vec![new.clone()], ..rerun_of(first, rerun) })).await.unwrap();
        affinity.record_pin(&new, rerun, affinity.pins_version());
        affinity.finish_collision_checks().await;
        assert_eq!(affinity.collided(&family()), expected, "shown at {shown_at_s} s");
    }
}

/// Files may list an older id of a creator, or join several: legacy's instances are stored under the one that was the
/// oldest when a request showed them.
#[tokio::test]
async fn an_id_that_legacy_gave_out_is_found_under_every_id_of_the_family() {
    let family = renamed("now", &["before", "orders.create"]);
    for is_stored in [false, true] {
        let store = Arc::new(crate::store::MemoryStore::new());
        let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
        affinity.instances().set_families(vec![TrackedFamily { family: family.clone(), ends_after: None }]);
        let key = InstanceKey { family: RouteId::new("before").into(), id: "17".into() };
        if is_stored {
            let listed = vec![InstanceChange::LegacyListed(key.stored_key(), clock::now())];
            store.change_instances(listed).await.unwrap();
        } else {
            let (arm, run, is_created, has_ended) = (Arm::Legacy, None, false, false);
            affinity.note_instance(NotedInstance { key, arm, run, is_created, has_ended });
        }
        let (new, run) = (pin("17", Arm::Engine), later());
        store.append(pinning(&new, run)).await.unwrap();
        affinity.record_pin(&new, run, affinity.pins_version());
        affinity.finish_collision_checks().await;
        assert!(affinity.collided(&family), "stored: {is_stored}");
    }
}

/// The last process was killed before the store had the collision that it had found.
#[tokio::test]
async fn a_start_checks_the_newest_pins_of_the_engine() {
    let accepted = |at: Timestamp| PinCollision { family: "orders.create".into(), since: at, accepted: Some(at) };
    let hour = jiff::SignedDuration::from_hours(1);
    for (collision, expected) in [
        (None, true),
        (Some(accepted(clock::now() - hour)), true),
        // The pin was made before that.
        (Some(accepted(clock::now() + hour)), false),
    ] {
        let store = Arc::new(crate::store::MemoryStore::new());
        let listed = vec![InstanceChange::LegacyListed(pin("17", Arm::Legacy).key, clock::now())];
        store.change_instances(listed).await.unwrap();
        for id in ["16", "17", "18"] {
            store.append(pinning(&pin(id, Arm::Engine), later())).await.unwrap();
        }
        store.put_pin_collisions(collision.clone().into_iter().collect()).await.unwrap();
        let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
        affinity.finish_collision_checks().await;
        assert_eq!(affinity.collided(&family()), expected, "{collision:?}");
        let stored = store.pin_collisions().await.unwrap();
        assert_eq!(stored.iter().any(|stored| stored.accepted.is_none()), expected, "{collision:?}");
    }
}

/// The wait itself has no bound; a stop bounds it by `drain_ms`.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_process_waits_for_collision_checks_until_an_outage_is_over() {
    let store = CountingStore::new();
    let family = family();
    let affinity = affinity_with_built_sets(&store).await;
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    let affinity = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    affinity.record_legacy_instance(created("17"));
    let ended = tokio::spawn({
        let affinity = affinity.clone();
        async move { affinity.finish_collision_checks().await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!ended.is_finished() && !affinity.collided(&family));
    store.is_gone.store(false, Ordering::Relaxed);
    ended.await.unwrap();
    assert!(affinity.collided(&family));
}

#[tokio::test]
async fn a_collision_stands_over_restarts_until_a_person_accepts_it() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let (before, key) = (clock::now(), pin("17", Arm::Legacy).key);
    affinity.record_collision(&key, run_id(1));
    let since = affinity.collided_since(&family()).unwrap();
    affinity.finish_collision_checks().await;
    assert_eq!(stored(&store).await, Some((since, None)));

    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    assert_eq!(affinity.collided_since(&renamed("orders.make", &["orders.create"])), Some(since));
    affinity.record_collision(&pin("18", Arm::Legacy).key, run_id(2));
    affinity.finish_collision_checks().await;
    assert_eq!(stored(&store).await, Some((since, None)), "the first one counts");
    let at = clock::now();
    affinity.accept_collisions(&renamed("orders.make", &["orders.create"]), at);
    assert!(!affinity.collided(&family()));
    affinity.finish_collision_checks().await;
    assert_eq!(stored(&store).await, Some((since, Some(at))));

    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    assert!(!affinity.collided(&family()));
    affinity.record_collision(&key, run_id(3));
    let again = affinity.collided_since(&family()).unwrap();
    affinity.accept_collisions(&family(), before);
    assert!(again > at && affinity.collided(&family()), "what was accepted before it does not count");
    affinity.finish_collision_checks().await;
    assert_eq!(stored(&store).await, Some((again, None)));
}

#[tokio::test(start_paused = true)]
async fn a_collision_and_its_acceptance_are_stored_once_the_store_answers_again() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    store.is_gone.store(true, Ordering::Relaxed);
    affinity.record_legacy_instance(created("17"));
    let since = affinity.collided_since(&family()).expect("known at once");
    let wait = tokio::time::timeout(std::time::Duration::from_secs(60), affinity.finish_collision_checks());
    assert!(wait.await.is_err(), "the end of the process waits until its own bound");
    assert_eq!(stored(&store).await, None);
    store.is_gone.store(false, Ordering::Relaxed);
    let is_stored = async |accepted: Option<Timestamp>| {
        while stored(&store).await != Some((since, accepted)) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let within = std::time::Duration::from_secs(60);
    tokio::time::timeout(within, is_stored(None)).await.expect("without anybody who waits for it");
    store.is_gone.store(true, Ordering::Relaxed);
    let at = clock::now();
    affinity.accept_collisions(&family(), at);
    assert!(!affinity.collided(&family()));
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    store.is_gone.store(false, Ordering::Relaxed);
    tokio::time::timeout(within, is_stored(Some(at))).await.expect("stored too");
}

/// A run that cannot pin an instance may be the first that shows this process that the family has pins.
#[tokio::test]
async fn a_collision_in_a_family_without_known_pins_counts() {
    let affinity = StoreAffinity::load(CountingStore::new(), &Limits::default()).await.unwrap();
    affinity.record_collision(&pin("17", Arm::Engine).key, run_id(1));
    assert!(affinity.collided(&family()));
}

/// Adopted by a run: claimed, and recorded in this process, in the store as it was after the claim.
async fn adopt(store: &CountingStore, affinity: &StoreAffinity, id: &str, run: RunId, state: AdoptionState) {
    let key = pin(id, Arm::Legacy).key;
    let claim = NewAdoption {
        key: key.clone(),
        id: id.into(),
        pins: vec![key.clone()],
        twins: vec![key.clone()],
        run,
        workflow: "adopt".into(),
        by: "a test".into(),
        at: clock::now(),
        worker: crate::names::WorkerId(uuid::Uuid::from_u128(1)),
        settles_s: 0,
    };
    assert_eq!(store.inner.claim_adoption(claim).await.unwrap(), AdoptionClaim::Claimed);
    affinity.record_adoption(std::slice::from_ref(&key), None);
    if state == AdoptionState::Moving {
        return;
    }
    let outcome = AdoptionOutcome { key: key.clone(), run, state, reason: None, by: None, at: clock::now() };
    assert!(store.inner.record_adoption_outcome(outcome).await.unwrap());
    affinity.record_adoption(&[key], Some(run));
}

/// Legacy's counter may start anew, after a restart or with a restored backup.
#[tokio::test]
async fn an_adopted_id_that_legacy_gives_out_again_is_a_collision() {
    for state in [AdoptionState::Adopted, AdoptionState::Moving] {
        let store = CountingStore::new();
        let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
        let first_reply = created("17");
        adopt(&store, &affinity, "17", run_id(1), state).await;
        let restarted = affinity_with_built_sets(&store).await;
        for affinity in [affinity, restarted] {
            affinity.record_legacy_instance(first_reply.clone());
            affinity.record_legacy_instance(CreatedByLegacy { is_retry: true, ..created("17") });
            affinity.finish_collision_checks().await;
            assert!(!affinity.collided(&family()), "{state:?}: it is the order that was adopted");
            affinity.record_legacy_instance(created("17"));
            affinity.finish_collision_checks().await;
            assert!(affinity.collided(&family()), "{state:?}: another order has its id");
            affinity.accept_collisions(&family(), clock::now());
            affinity.finish_collision_checks().await;
        }
    }
}
