//! Ids of instances of two families whose creators become one.

use super::collisions::family;
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
