//! Ids of instances of two families whose creators become one.

use super::collisions::{earlier, family, later, pinning};
use super::*;
use crate::exchange::NotedInstance;
use crate::store::PinCollisionStore;

/// Creators that each count from 1 become one.
#[tokio::test]
async fn ids_that_instances_of_several_families_have_are_found_and_recorded() {
    let store = Arc::new(crate::store::MemoryStore::new());
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    for (n, id) in [(1, "17"), (2, "18"), (3, "19")] {
        let new = pin(id, Arm::Engine);
        store.append(Arc::new(Append { pins: vec![new.clone()], ..append(run_id(n), 1, 1) })).await.unwrap();
        affinity.record_pin(&new, run_id(n), affinity.pins_version());
    }
    // The store does not have it yet.
    let (arm, run, is_created, has_ended) = (Arm::Legacy, None, true, false);
    let key = |family: &str, id: &str| InstanceKey { family: RouteId::new(family).into(), id: id.into() };
    for key in [key("bills.create", "18"), key("orders.create", "19"), key("orders.make", "17")] {
        affinity.note_instance(NotedInstance { key, arm, run, is_created, has_ended });
    }
    let group = |ids: &[&str]| ids.iter().map(|id| RouteId::new(*id)).collect::<Vec<_>>();
    let groups = [group(&["orders.make", "orders.create"]), group(&["bills.make", "bills.create"])];
    let found = affinity.ids_of_two_instances(&groups).await.unwrap();
    let expected =
        IdOfTwoInstances { pin: pin("18", Arm::Engine).key, run: Some(run_id(2)), other: "bills.create".into() };
    assert_eq!(found, [expected]);
    assert!(!affinity.collided(&family()));
    affinity.record_ids_of_two_instances(found.iter().map(|found| (&found.pin, found.run))).await;
    assert!(affinity.collided(&family()));
    assert_eq!(store.pin_collisions().await.unwrap().len(), 1, "a restart finds it");
}

/// What a follow-up shows at legacy under another creator's id may be what the engine's run has created there.
#[tokio::test]
async fn ids_that_only_follow_ups_have_shown_since_the_run_began_are_not_those_of_two_instances() {
    let store = Arc::new(crate::store::MemoryStore::new());
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    let groups = ["bills.create", "orders.create"].map(|id| vec![RouteId::new(id)]);
    let found = async |affinity: &StoreAffinity| {
        let found = affinity.ids_of_two_instances(&groups).await.unwrap();
        found.into_iter().map(|found| found.pin.id.to_string()).collect::<Vec<_>>()
    };
    let pinned = async |id: &str, run: RunId| {
        let new = pin(id, Arm::Engine);
        store.append(pinning(&new, run)).await.unwrap();
        affinity.record_pin(&new, run, affinity.pins_version());
    };
    let noted = |id: &str, is_created: bool| {
        let key = PinKey { family: "bills.create".into(), id: id.into() };
        let (arm, run, has_ended) = (Arm::Legacy, None, false);
        affinity.note_instance(NotedInstance { key: key.into(), arm, run, is_created, has_ended });
    };
    pinned("31", earlier()).await;
    noted("31", false);
    assert!(found(&affinity).await.is_empty(), "the run may have created it at legacy");
    // Before the run began.
    noted("32", false);
    pinned("32", later()).await;
    // In a reply to a create.
    pinned("33", earlier()).await;
    noted("33", true);
    pinned("34", earlier()).await;
    noted("34", false);
    noted("34", true);
    // Legacy has created it: another run is its twin.
    pinned("35", earlier()).await;
    noted("35", false);
    let other = NewPin { key: PinKey { family: "bills.create".into(), id: "35".into() }, arm: Arm::Legacy };
    store.append(pinning(&other, run_id(1))).await.unwrap();
    assert_eq!(found(&affinity).await, ["32", "33", "34", "35"]);
    // Another process does not know what showed them.
    let affinity = StoreAffinity::load(store.clone(), &Limits::default()).await.unwrap();
    assert_eq!(found(&affinity).await, ["31", "32", "33", "34", "35"]);
}
