//! Pin collisions, which a background task finds.

use super::*;

#[tokio::test]
async fn an_id_from_legacy_that_the_engine_owns_is_a_collision() {
    let store = CountingStore::new();
    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let family = Family::from(RouteId::new("orders.create"));
    create(&store, &pins, 1, pin("17", Arm::Engine)).await;
    pins.note_legacy_instance(pin("18", Arm::Legacy).key.into());
    pins.finish_collision_checks().await;
    assert!(!pins.collided(&family));
    pins.note_legacy_instance(pin("17", Arm::Legacy).key.into());
    assert!(pins.collided(&family));

    let pins = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    pins.note_legacy_instance(pin("17", Arm::Legacy).key.into());
    pins.finish_collision_checks().await;
    assert!(pins.collided(&family), "found in the store");
    assert!(!pins.collided(&RouteId::new("other").into()));

    let pins = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    let before = store.look_ups();
    pins.note_legacy_instance(pin("17", Arm::Legacy).key.into());
    while store.look_ups() == before {
        tokio::task::yield_now().await;
    }
    assert!(!pins.collided(&family), "the store does not answer");
    store.is_gone.store(false, Ordering::Relaxed);
    pins.finish_collision_checks().await;
    assert!(pins.collided(&family), "found when the store answers again");
}

/// The wait itself has no bound; a stop bounds it by `drain_ms`.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_process_waits_for_collision_checks_until_an_outage_is_over() {
    let store = CountingStore::new();
    let family = Family::from(RouteId::new("orders.create"));
    let pins = affinity_with_built_sets(&store).await;
    create(&store, &pins, 1, pin("17", Arm::Engine)).await;
    let pins = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    pins.note_legacy_instance(pin("17", Arm::Legacy).key.into());
    let ended = tokio::spawn({
        let pins = pins.clone();
        async move { pins.finish_collision_checks().await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert!(!ended.is_finished() && !pins.collided(&family));
    store.is_gone.store(false, Ordering::Relaxed);
    ended.await.unwrap();
    assert!(pins.collided(&family));
}
