//! Tests of what is known of instances, with a store in memory.

use super::recorded::{RECORDED_REMEMBERED_MAX, Recorded, Report};
use super::*;
use crate::exchange::NotedInstance;
use crate::flag::InstanceKey;
use crate::store::{
    AdoptionClaim, AdoptionOutcome, AdoptionState, AdoptionStore, InstanceStore, MemoryStore, NewAdoption, Store,
};

fn key(id: &str) -> InstanceKey {
    InstanceKey { family: family(), id: id.into() }
}

fn family() -> Family {
    Family::from(RouteId::from("orders.create"))
}

fn seen(id: &str, has_ended: bool) -> NotedInstance {
    NotedInstance { key: key(id), arm: Arm::Legacy, run: None, is_created: false, has_ended }
}

fn instances(store: &Arc<MemoryStore>) -> Arc<Instances> {
    let instances = Instances::new(store.clone());
    instances.set_families(vec![TrackedFamily { family: family(), ends_after: None }]);
    instances
}

#[tokio::test]
async fn what_requests_show_is_counted_and_outlasts_the_process() {
    let store = Arc::new(MemoryStore::new());
    let first = instances(&store);
    assert!(!first.of(&family()).is_counted, "nothing was counted yet");
    for (id, has_ended) in [("1", false), ("2", false), ("1", false), ("2", true), ("2", false)] {
        first.note(seen(id, has_ended));
    }
    assert_eq!(first.of(&family()).legacy_waiting, 2, "each is reported once");
    first.refresh(None).await.unwrap();
    let found = first.of(&family());
    assert_eq!((found.legacy.alive, found.is_counted, found.legacy_waiting), (1, true, 0));
    assert!(found.legacy.drained().is_none() && found.legacy.last_ended.is_some());
    let next = instances(&store);
    next.note(seen("2", false));
    next.note(seen("1", true));
    next.refresh(None).await.unwrap();
    let found = next.of(&family());
    assert!(found.legacy.alive == 0 && found.legacy.drained().is_some(), "{found:?}");
}

#[tokio::test]
async fn an_id_that_legacy_gives_out_again_is_alive() {
    let store = Arc::new(MemoryStore::new());
    let first = instances(&store);
    let created = || NotedInstance { is_created: true, ..seen("1", false) };
    let alive = async |instances: &Instances| {
        instances.refresh(None).await.unwrap();
        instances.of(&family()).legacy.alive
    };
    for (noted, expected) in [
        (created(), 1),
        (seen("1", true), 0),
        (seen("1", false), 0),
        (created(), 1),
        (created(), 1),
        (seen("1", true), 0),
        (created(), 1),
        (seen("1", true), 0),
    ] {
        let shown = format!("{} {}", noted.is_created, noted.has_ended);
        first.note(noted);
        assert_eq!(alive(&first).await, expected, "{shown}");
    }
    let next = instances(&store);
    next.note(created());
    assert_eq!(alive(&next).await, 1, "only the store knew that it had ended");
    for noted in [seen("1", true), created(), seen("1", true)] {
        next.note(noted);
    }
    assert_eq!(alive(&next).await, 0, "in order, also if they are written together");
}

#[tokio::test]
async fn an_upper_case_uuid_is_one_instance() {
    let store = Arc::new(MemoryStore::new());
    let instances = instances(&store);
    let id = "0198AAAA-0000-7000-8000-000000000001";
    instances.note(seen(id, false));
    instances.note(seen(&id.to_lowercase(), true));
    instances.refresh(None).await.unwrap();
    assert_eq!(instances.of(&family()).legacy.alive, 0);
}

/// While the store takes nothing, reports wait, and beyond their bound the family has unknown instances.
#[tokio::test]
async fn reports_for_which_there_is_no_room_make_the_family_one_with_unknown_instances() {
    let store = Arc::new(MemoryStore::new());
    let first = instances(&store);
    first.note(seen(&"x".repeat(ID_BYTES_MAX + 1), false));
    assert!(first.of(&family()).legacy.has_unknown, "too long");
    let other = instances(&store);
    for n in 0..=CHANGES_WAITING_MAX {
        other.note(seen(&n.to_string(), false));
    }
    assert!(other.of(&family()).legacy.has_unknown, "too many wait");
    assert_eq!(other.state().waiting.len(), CHANGES_WAITING_MAX);
    other.refresh(None).await.unwrap();
    let found = other.of(&family()).legacy;
    assert_eq!((found.alive, found.has_unknown), (CHANGES_WAITING_MAX as u64, true));
    let next = instances(&store);
    next.refresh(None).await.unwrap();
    assert!(next.of(&family()).legacy.has_unknown, "it outlasts the process");
    next.apply(&family(), vec![InstanceChange::LegacyKnown("orders.create".into(), clock::now())]).await.unwrap();
    assert!(!next.of(&family()).legacy.has_unknown, "legacy has listed all");
}

#[tokio::test]
async fn when_the_store_refuses_writes_reports_are_kept_and_refresh_fails() {
    let store = Arc::new(MemoryStore::new());
    let instances = instances(&store);
    instances.note(seen("1", false));
    store.close().await;
    assert!(instances.refresh(None).await.is_err());
    let found = instances.of(&family());
    assert_eq!((found.legacy_waiting, found.is_counted), (1, false));
}

#[tokio::test]
async fn what_a_caller_stops_waiting_for_is_written_later() {
    let store = Arc::new(MemoryStore::new());
    let instances = instances(&store);
    instances.note(seen("1", false));
    // A refresh that is dropped while it waits for the store.
    drop(instances.take());
    assert_eq!(instances.of(&family()).legacy_waiting, 1);
    instances.take().mark_stored();
    assert_eq!(instances.of(&family()).legacy_waiting, 0);
    instances.note(seen("2", false));
    instances.refresh(None).await.unwrap();
    assert_eq!(instances.of(&family()).legacy.alive, 1);
}

#[test]
fn what_was_recorded_recently_is_not_recorded_again() {
    let mut recorded = Recorded::default();
    let report = |n: usize| Report::LegacySeen(key(&n.to_string()).stored_key());
    let at = |n: usize| Timestamp::from_second(i64::try_from(n).unwrap()).unwrap();
    for n in 0..3 * RECORDED_REMEMBERED_MAX {
        assert!(recorded.insert(report(n), at(n)));
        assert!(!recorded.insert(report(n), at(n + 1)));
        assert_eq!(recorded.recorded_at(&report(n)), Some(at(n)), "the first time");
    }
    assert!(recorded.len() <= RECORDED_REMEMBERED_MAX);
}

/// Files list an older id of the creator, or have joined it with another one: what requests showed before is known
/// under the id that was the oldest then.
#[tokio::test]
async fn an_instance_that_is_known_under_another_id_of_its_family_ends() {
    let grown = || Family::new("orders.create".into(), ["older".into()].into());
    for is_counted in [false, true] {
        let store = Arc::new(MemoryStore::new());
        let instances = instances(&store);
        instances.note(seen("1", false));
        if is_counted {
            instances.refresh(None).await.unwrap();
        }
        instances.set_families(vec![TrackedFamily { family: grown(), ends_after: None }]);
        let key = InstanceKey { family: grown(), id: "1".into() };
        instances.note(NotedInstance { key: key.clone(), ..seen("1", false) });
        assert!(instances.of(&grown()).legacy_waiting > 0);
        instances.refresh(None).await.unwrap();
        assert!(instances.of(&grown()).legacy.alive > 0, "never too low");
        instances.note(NotedInstance { key, ..seen("1", true) });
        instances.refresh(None).await.unwrap();
        assert_eq!(instances.of(&grown()).legacy.alive, 0, "counted: {is_counted}");
    }
}

/// Legacy may go on listing what it has let go of.
#[tokio::test]
async fn what_was_adopted_under_another_id_of_the_family_is_not_legacys_again() {
    let store = Arc::new(MemoryStore::new());
    let instances = instances(&store);
    let (key, run) = (key("1").stored_key(), crate::names::RunId(uuid::Uuid::from_u128(1)));
    let claim = NewAdoption {
        key: key.clone(),
        id: "1".into(),
        pins: vec![key.clone()],
        twins: Vec::new(),
        run,
        workflow: "adopt".into(),
        by: "a test".into(),
        at: clock::now(),
        worker: crate::names::WorkerId(uuid::Uuid::from_u128(1)),
        settles_s: 0,
    };
    assert_eq!(store.claim_adoption(claim).await.unwrap(), AdoptionClaim::Claimed);
    let (state, at) = (AdoptionState::Adopted, clock::now());
    assert!(
        store.record_adoption_outcome(AdoptionOutcome { key, run, state, reason: None, by: None, at }).await.unwrap()
    );
    let grown = Family::new("orders.create".into(), ["older".into()].into());
    let listed = ["1", "2"].map(|id| InstanceKey { family: grown.clone(), id: id.into() }.stored_key());
    let listed = listed.map(|key| InstanceChange::LegacyListed(key, clock::now()));
    instances.apply(&grown, listed.into()).await.unwrap();
    assert_eq!(instances.of(&grown).legacy.alive, 1);
}

/// Its id is given out all the same: another arm must not give it out too.
#[tokio::test]
async fn an_instance_that_has_ended_when_it_is_created_is_recorded_as_created() {
    let store = Arc::new(MemoryStore::new());
    let instances = instances(&store);
    instances.note(NotedInstance { is_created: true, ..seen("1", true) });
    instances.refresh(None).await.unwrap();
    let known = store.legacy_instance(key("1").stored_key()).await.unwrap().unwrap();
    assert!(known.is_created && known.ended.is_some(), "{known:?}");
    // Created again.
    instances.note(NotedInstance { is_created: true, ..seen("1", false) });
    instances.refresh(None).await.unwrap();
    assert_eq!(instances.of(&family()).legacy.alive, 1);
}
