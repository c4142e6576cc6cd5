//! What a flip by force accepts: a pin collision shuts a gate until then.

use super::*;

/// Shuts the gates to `live` and `only` of the route `plain` until it is accepted.
#[derive(Default)]
struct Collision {
    since: Mutex<Option<Timestamp>>,
    accepted: Mutex<Vec<(RouteId, Timestamp)>>,
}

impl Collision {
    fn happen(&self) {
        *self.since.lock().unwrap() = Some(clock::now());
    }
    fn stands(&self) -> bool {
        self.since.lock().unwrap().is_some()
    }
    fn accepted(&self) -> Vec<(RouteId, Timestamp)> {
        std::mem::take(&mut *self.accepted.lock().unwrap())
    }
}

impl GateCondition for Collision {
    fn unmet(&self, route: &Route, _from: State, to: State) -> Vec<Unmet> {
        let since = self.since.lock().unwrap().filter(|_| to >= State::Live && route.id.as_str() == "plain");
        since.map(|since| Unmet { why: "a collision".into(), since: Some(since) }).into_iter().collect()
    }
    fn awaits_acceptance(&self, route: &Route) -> bool {
        self.stands() && route.id.as_str() == "plain"
    }
    fn accept(&self, route: &Route, at: Timestamp) {
        self.accepted.lock().unwrap().push((route.id.clone(), at));
        let mut since = self.since.lock().unwrap();
        *since = since.filter(|since| *since > at || route.id.as_str() != "plain");
    }
}

async fn fixture(collision: &Arc<Collision>, files: DeclaredFiles) -> Fixture {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let ladder = open_with(files, &store, &evidence, vec![collision.clone()]).await.unwrap();
    Fixture { store, evidence, ladder }
}

#[tokio::test]
async fn a_flip_by_force_to_live_or_only_accepts_a_collision_also_if_the_route_is_there_already() {
    let collision = Arc::new(Collision::default());
    let fixture = fixture(&collision, files(&[])).await;
    let first = fixture.flip("plain", forced(State::Live)).await.unwrap();
    assert_eq!(collision.accepted(), [("plain".into(), first.flip.at)]);
    let repeated = fixture.flip("plain", forced(State::Live)).await.unwrap();
    assert_eq!((repeated.changed, collision.accepted()), (false, vec![]), "nothing waits for it");

    collision.happen();
    assert!(!fixture.flip("plain", to(State::Live)).await.unwrap().changed);
    assert!(collision.accepted().is_empty());
    assert!(fixture.flip("bare", forced(State::Live)).await.unwrap().changed);
    assert!(!fixture.flip("bare", forced(State::Live)).await.unwrap().changed);
    assert!(collision.stands() && collision.accepted().len() == 1, "another route");
    for (state, reason) in [(State::Live, "new ids"), (State::Only, "newer ids"), (State::Only, "newest ids")] {
        collision.happen();
        let request = MoveRequest { reason: Some(reason.into()), ..forced(state) };
        let done = fixture.flip("plain", request).await.unwrap();
        assert!(done.changed && done.recorded && done.flip.forced && done.flip.number > 0, "{done:?}");
        assert_eq!(done.flip.overridden.as_ref().map(|overridden| overridden.reason.as_str()), Some(reason));
        assert!(!collision.stands());
        assert_eq!(collision.accepted(), [("plain".into(), done.flip.at)]);
        assert_eq!(fixture.flips().await as u64, done.flip.number);
    }
    collision.happen();
    let down = MoveRequest { acknowledge: true, ..forced(State::Live) };
    fixture.flip("plain", down).await.unwrap();
    assert!(!collision.stands(), "also on the way down to `live`");
}

#[tokio::test]
async fn in_dark_a_collision_is_accepted_without_a_move() {
    let collision = Arc::new(Collision::default());
    let fixture = fixture(&collision, files(&[])).await;
    collision.happen();
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    assert!(collision.stands(), "the gate to `dark` does not ask for it");
    fixture.record_pairs("plain");
    assert!(fixture.refusal("plain", to(State::Live)).await.contains("a collision"));
    let done = fixture.flip("plain", forced(State::Dark)).await.unwrap();
    assert!(done.changed && !collision.stands());
    assert_eq!(fixture.status("plain").forced, None);
    fixture.flip("plain", to(State::Live)).await.unwrap();
    collision.happen();
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    assert!(collision.stands(), "a flip down to `dark` accepts nothing");
}

#[tokio::test]
async fn an_unrecorded_flip_and_a_flip_by_file_accept_no_collision() {
    let collision = Arc::new(Collision::default());
    let fixture = fixture(&collision, files(&[])).await;
    collision.happen();
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    fixture.flip("plain", forced(State::Live)).await.unwrap_err();
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    assert!(collision.stands() && collision.accepted().is_empty());

    let by_file = edited(files(&[("plain", State::Live)]), "plain", |route| route.force = Some("a file".into()));
    fixture.ladder.reload(by_file, || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Live);
    assert!(collision.stands() && collision.accepted().is_empty());
}
