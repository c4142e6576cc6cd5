//! Routes that become one (`was`) and are separated again: ids of instances that they have in common, retry keys, and
//! why the joined route is as low as it is.

use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::captured_log::capture_log;
use super::*;
use crate::flag::PinKey;

/// Knows the pin of an instance of the engine under `create` and another instance with that id under `other`.
#[derive(Default)]
struct SharedIds {
    recorded: Mutex<Vec<SharedInstanceId>>,
}

fn shared_id() -> SharedInstanceId {
    SharedInstanceId { pin: PinKey { family: "create".into(), id: "17".into() }, run: None, other: "other".into() }
}

impl GateCondition for SharedIds {
    fn shared_instance_ids<'a>(
        &'a self,
        groups: &'a [Vec<RouteId>],
    ) -> BoxFuture<'a, Result<Vec<SharedInstanceId>, StoreError>> {
        let group_of = |id: &str| groups.iter().position(|group| group.iter().any(|other| other.as_str() == id));
        let are_apart = group_of("create").zip(group_of("other")).is_some_and(|(one, other)| one != other);
        Box::pin(std::future::ready(Ok(are_apart.then(shared_id).into_iter().collect())))
    }
    fn record_shared_ids<'a>(&'a self, found: &'a [SharedInstanceId]) -> BoxFuture<'a, ()> {
        self.recorded.lock().unwrap().extend_from_slice(found);
        Box::pin(std::future::ready(()))
    }
}

/// `create`, and another creator.
fn two_creators() -> DeclaredFiles {
    let mut files = files(&[]);
    let mut other = (**files.routes.iter().find(|route| route.id.as_str() == "create").unwrap()).clone();
    (other.id, other.matches.path) = ("other".into(), "/others".into());
    files.routes.push(Arc::new(other));
    files
}

/// One creator in place of both.
fn one_creator(id: &str, was: &[&str]) -> DeclaredFiles {
    let mut files = two_creators();
    files.routes.retain(|route| route.id.as_str() != "other");
    let files = edited(files, "create", |route| {
        (route.id, route.was) = (id.into(), was.iter().map(|id| RouteId::from(*id)).collect());
    });
    edited(files, "follow", |route| {
        let key = crate::flag::InstanceKeySource::Path("id".into());
        route.instance = Some(Instance::Follows { creator: id.into(), key });
    })
}

#[tokio::test]
async fn creators_with_an_id_in_common_are_not_joined_by_a_reload() {
    for (id, was) in [("new", &["create", "other"][..]), ("create", &["other"]), ("other", &["create"])] {
        let store = Arc::new(FailingStore::default());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let shared = Arc::new(SharedIds::default());
        let ladder = open_with(two_creators(), &store, &evidence, vec![shared.clone()]).await.unwrap();
        // A rename joins nothing.
        let renamed =
            edited(two_creators(), "other", |route| (route.id, route.was) = ("o".into(), vec!["other".into()]));
        ladder.reload(renamed, || {}).await.unwrap();
        ladder.reload(two_creators(), || {}).await.unwrap();

        let refused =
            ladder.reload(one_creator(id, was), || panic!("it is not recorded")).await.unwrap_err().to_string();
        let expected = "the id `17` is that of an instance of the engine under `create` and may be that of another \
                        instance under `other`";
        let way_out = format!("say so with `force: {{ reason: … }}` in the file of `{id}`");
        assert!(refused.contains(&way_out), "{refused}");
        assert!(refused.contains(expected) && refused.contains(&format!("`{id}` joins several")), "{refused}");
        assert_eq!(shared.recorded.lock().unwrap().len(), 0);

        // A start is not refused, and the collision is recorded. Afterwards the routes are one.
        drop(ladder);
        for start in 1..=2 {
            let (log, _guard) = capture_log();
            let ladder = open_with(one_creator(id, was), &store, &evidence, vec![shared.clone()]).await.unwrap();
            ladder.reload(one_creator(id, was), || {}).await.unwrap();
            assert_eq!(*shared.recorded.lock().unwrap(), [shared_id()], "start {start}");
            let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            assert_eq!(log.contains(expected), start == 1, "{log}");
        }
    }
}

/// The files say that the ids come from one space: an id is that of one instance.
#[tokio::test]
async fn the_force_of_a_joined_creator_says_that_the_ids_come_from_one_space() {
    let accepting =
        || edited(one_creator("new", &["create", "other"]), "new", |route| route.force = Some("one".into()));
    for is_start in [false, true] {
        let store = Arc::new(FailingStore::default());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let shared = Arc::new(SharedIds::default());
        let ladder = open_with(two_creators(), &store, &evidence, vec![shared.clone()]).await.unwrap();
        let fixture = Fixture { store, evidence, ladder };
        fixture.begin_run("other", Some("other")).await;
        let (log, _guard) = capture_log();
        let Fixture { store, evidence, mut ladder } = fixture;
        if is_start {
            drop(ladder);
            ladder = open_with(accepting(), &store, &evidence, vec![shared.clone()]).await.unwrap();
        } else {
            ladder.reload(accepting(), || {}).await.unwrap();
        }
        // They are one route now, also without `force`.
        ladder.reload(one_creator("new", &["create", "other"]), || {}).await.unwrap();
        assert_eq!(shared.recorded.lock().unwrap().len(), 0, "start: {is_start}");
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert_eq!(log.matches("it is not examined whether an id is that of two instances").count(), 1, "{log}");
    }
}

/// What the run creates may get an id that an instance of the other route has.
#[tokio::test]
async fn creators_are_not_joined_by_a_reload_while_one_of_them_has_an_open_run() {
    let mut fixture = Fixture::open(two_creators()).await;
    fixture.begin_run("other", Some("other")).await;
    let refused = fixture.ladder.reload(one_creator("new", &["create", "other"]), || {}).await.unwrap_err().to_string();
    let sentence = "`new` joins several routes that create instances, and open runs may still create some (1 run of \
                    `other`)";
    assert!(refused.contains(sentence) && refused.contains("Wait until they have ended, or cancel them"), "{refused}");
    // A start is not refused. Afterwards the routes are one.
    for start in 1..=2 {
        let (log, _guard) = capture_log();
        fixture = fixture.restart(one_creator("new", &["create", "other"])).await;
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert_eq!(log.contains(sentence), start == 1, "{log}");
    }
    fixture.ladder.reload(one_creator("new", &["create", "other"]), || {}).await.unwrap();

    // Runs that create nothing.
    let fixture = Fixture::open(two_creators()).await;
    fixture.begin_run("other", None).await;
    fixture.ladder.reload(one_creator("new", &["create", "other"]), || {}).await.unwrap();
}

#[tokio::test]
async fn a_creator_with_an_open_run_is_renamed_by_a_reload() {
    for force in [None, Some("a drill".to_owned())] {
        let fixture = Fixture::open(two_creators()).await;
        fixture.begin_run("other", Some("other")).await;
        let renamed = edited(two_creators(), "other", |route| {
            (route.id, route.was, route.force) = ("o".into(), vec!["other".into()], force.clone());
        });
        let (log, _guard) = capture_log();
        fixture.ladder.reload(renamed, || {}).await.unwrap();
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert!(!log.contains("joins several routes"), "{log}");
    }
}

/// `plain` and `bare` become one route with this id.
fn joined_as(id: &str) -> DeclaredFiles {
    let was = ["plain", "bare"].iter().filter(|was| **was != id).map(|id| RouteId::from(*id)).collect();
    let mut files = files(&[]);
    files.routes.retain(|route| route.id.as_str() != "plain");
    edited(files, "bare", |route| (route.id, route.was, route.key) = (id.into(), was, None))
}

/// The keys of the joined time are looked up for both, whatever the id of the joined route was.
#[tokio::test]
async fn routes_that_were_joined_are_separated_by_a_reload_as_by_a_start() {
    for restarts in [false, true] {
        for id in ["new", "plain", "bare"] {
            let mut fixture = Fixture::open(files(&[])).await;
            fixture = fixture.next(joined_as(id), restarts).await;
            // Again, as by another edit.
            fixture = fixture.next(joined_as(id), restarts).await;
            let (log, _guard) = capture_log();
            let sentence = "`bare` and `plain` were one route before";
            let logged = || String::from_utf8_lossy(&log.lock().unwrap()).matches(sentence).count();
            fixture = fixture.next(files(&[]), restarts).await;
            assert_eq!(logged(), 1, "joined as `{id}`, restarts: {restarts}");
            let text = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            assert!(!text.contains("Give the other route another id"), "{text}");
            fixture.next(files(&[]), restarts).await;
            assert_eq!(logged(), 1, "once");
        }
    }
}

/// The state of a joined route is not the lowest of theirs, but where it would be held.
#[tokio::test]
async fn the_flip_of_a_joined_route_that_is_held_says_so() {
    for restarts in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        for (route, percent) in [("plain", 10.0), ("bare", 100.0)] {
            for rung in [State::Dark, State::Live] {
                let percent = (rung == State::Live).then(|| Percent::new(percent).unwrap());
                fixture.flip(route, MoveRequest { percent, ..forced(rung) }).await.unwrap();
            }
        }
        let key = crate::expression::Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap();
        let joined = edited(joined_as("new"), "new", |route| {
            (route.key, route.matches.path) = (Some(key), "/all".into());
        });
        let fixture = fixture.next(joined, restarts).await;
        let flip = fixture.status("new").last.unwrap();
        assert_eq!((flip.from.as_str(), flip.to.as_str(), flip.by.as_str()), ("live", "dark", "file"));
        let reason = flip.reason.unwrap();
        let hold = "and it is at most in `dark`, because the route's retry keys are recorded since";
        assert!(reason.contains("it joins `plain` (`live`) and `bare` (`live`)") && reason.contains(hold), "{reason}");
    }
}
