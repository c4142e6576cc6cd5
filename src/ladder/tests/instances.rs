//! The gate to `only` of a family, with instances that legacy still has.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures_util::future::BoxFuture;

use super::*;
use crate::flag::Family;

/// Says what legacy has, once it was asked.
#[derive(Default)]
struct Legacy {
    has: Mutex<InstancesAtLegacy>,
    answered: Mutex<InstancesAtLegacy>,
    asked: AtomicUsize,
}

impl Legacy {
    fn set(&self, has: InstancesAtLegacy) {
        *self.has.lock().unwrap() = has;
    }
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl GateCondition for Legacy {
    fn instances_at_legacy(&self, family: &Family, creator: &Route) -> Option<InstancesAtLegacy> {
        assert_eq!((family.id().as_str(), creator.id.as_str()), ("create", "create"));
        Some(self.answered.lock().unwrap().clone())
    }
    fn ask_about_instances<'a>(&'a self, _: &'a Family, _: &'a Route) -> BoxFuture<'a, ()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.answered.lock().unwrap() = self.has.lock().unwrap().clone();
        Box::pin(std::future::ready(()))
    }
}

/// A family in `live`, whose evidence opens the gates to `only`.
async fn in_live(legacy: &Arc<Legacy>) -> Fixture {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let conditions: Vec<Arc<dyn GateCondition>> = vec![legacy.clone()];
    let ladder = open_with(files(&[]), &store, &evidence, conditions).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Live)).await.unwrap();
        fixture.record_engine_answers(route);
    }
    fixture
}

#[tokio::test]
async fn a_family_does_not_go_to_only_while_legacy_has_instances() {
    let legacy = Arc::new(Legacy::default());
    let fixture = in_live(&legacy).await;
    assert_eq!(legacy.asked(), 0, "only the gate to `only` asks");
    legacy.set(InstancesAtLegacy { alive: 147, ..InstancesAtLegacy::default() });
    let refused = fixture.refusal("follow", to(State::Only)).await;
    assert!(refused.contains("legacy still has 147 instances of `create` that have not ended"), "{refused}");
    assert!(refused.contains("no route of the family says when an instance ends"), "{refused}");
    assert_eq!(legacy.asked(), 1);
    let missing = fixture.status("follow").next.unwrap().missing;
    assert!(missing.iter().any(|why| why.contains("147 instances")), "{missing:?}");
    legacy.set(InstancesAtLegacy { has_unknown: true, ..InstancesAtLegacy::default() });
    assert!(fixture.refusal("follow", to(State::Only)).await.contains("legacy still has instances whose ids"));
    let inconclusive = Some("the store did not say".to_owned());
    legacy.set(InstancesAtLegacy { inconclusive, ..InstancesAtLegacy::default() });
    let refused = fixture.refusal("follow", to(State::Only)).await;
    assert!(
        refused.contains("whether legacy still has instances of `create` is not known: the store did"),
        "{refused}"
    );
    legacy.set(InstancesAtLegacy::default());
    fixture.flip("follow", to(State::Only)).await.unwrap();
    // A fallback of the creator has made one meanwhile.
    legacy.set(InstancesAtLegacy { alive: 1, ..InstancesAtLegacy::default() });
    assert!(fixture.refusal("create", to(State::Only)).await.contains("legacy still has 1 instance of `create`"));
    fixture.flip("create", forced(State::Only)).await.unwrap();
    assert!(fixture.status("create").forced.is_some(), "it is shown as forced until they have ended");
    let asked = legacy.asked();
    for route in ["create", "follow"] {
        fixture.flip(route, MoveRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    }
    assert_eq!(legacy.asked(), asked, "the way down asks nobody");
}

#[tokio::test]
async fn a_follower_does_not_go_to_only_while_its_creator_is_not_live_for_all() {
    let legacy = Arc::new(Legacy::default());
    let fixture = in_live(&legacy).await;
    fixture.flip("create", to(State::Dark)).await.unwrap();
    let refused = fixture.refusal("follow", to(State::Only)).await;
    assert!(refused.contains("`create`, which creates the instances, is in `dark`"), "{refused}");
    fixture.flip("create", forced(State::Live)).await.unwrap();
    fixture.flip("follow", to(State::Only)).await.unwrap();
}

/// A route in the state that its file asks for is not judged again, so legacy is asked only about the one that moves.
#[tokio::test]
async fn files_that_ask_for_only_pass_the_same_gate() {
    let legacy = Arc::new(Legacy::default());
    let fixture = in_live(&legacy).await;
    legacy.set(InstancesAtLegacy { alive: 2, ..InstancesAtLegacy::default() });
    fixture.ladder.reload(files(&[("follow", State::Only)]), || {}).await.unwrap();
    assert_eq!((fixture.state("follow").state, legacy.asked()), (State::Live, 1));
    let refused = fixture.status("follow").refused.join("; ");
    assert!(refused.contains("legacy still has 2 instances of `create`"), "{refused}");
}
