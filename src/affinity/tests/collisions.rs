//! Pin collisions, which a background task finds.

use super::*;

#[tokio::test]
async fn an_id_from_legacy_that_the_engine_owns_is_a_collision() {
    let store = CountingStore::new();
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let family = Family::from(RouteId::new("orders.create"));
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    affinity.record_legacy_instance(pin("18", Arm::Legacy).key.into());
    affinity.finish_collision_checks().await;
    assert!(!affinity.collided(&family));
    affinity.record_legacy_instance(pin("17", Arm::Legacy).key.into());
    assert!(affinity.collided(&family));

    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    affinity.record_legacy_instance(pin("17", Arm::Legacy).key.into());
    affinity.finish_collision_checks().await;
    assert!(affinity.collided(&family), "found in the store");
    assert!(!affinity.collided(&RouteId::new("other").into()));

    let affinity = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    let before = store.look_ups();
    affinity.record_legacy_instance(pin("17", Arm::Legacy).key.into());
    while store.look_ups() == before {
        tokio::task::yield_now().await;
    }
    assert!(!affinity.collided(&family), "the store does not answer");
    store.is_gone.store(false, Ordering::Relaxed);
    affinity.finish_collision_checks().await;
    assert!(affinity.collided(&family), "found when the store answers again");
}

/// The wait itself has no bound; a stop bounds it by `drain_ms`.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_process_waits_for_collision_checks_until_an_outage_is_over() {
    let store = CountingStore::new();
    let family = Family::from(RouteId::new("orders.create"));
    let affinity = affinity_with_built_sets(&store).await;
    create(&store, &affinity, 1, pin("17", Arm::Engine)).await;
    let affinity = affinity_with_built_sets(&store).await;
    store.is_gone.store(true, Ordering::Relaxed);
    affinity.record_legacy_instance(pin("17", Arm::Legacy).key.into());
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
