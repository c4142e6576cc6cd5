//! Routes that had become one (`was`) and are separated again: what each of them gets.

use std::sync::Mutex;

use futures_util::future::BoxFuture;

use super::joined::{one_creator, two_creators};
use super::*;

/// The creators of which legacy may have instances with unknown ids.
#[derive(Default)]
struct UnknownInstances(Mutex<Vec<RouteId>>);

impl GateCondition for UnknownInstances {
    fn note_unknown_instances<'a>(&'a self, creator: &'a RouteId) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().unwrap().push(creator.clone());
        Box::pin(std::future::ready(Ok(())))
    }
}

fn without_creators(mut files: DeclaredFiles) -> DeclaredFiles {
    files.routes.retain(|route| !["create", "follow", "other"].contains(&route.id.as_str()));
    files
}

/// Which instances legacy has created while they were one is known under the oldest id only.
#[tokio::test]
async fn a_separated_creator_without_the_oldest_id_may_have_unknown_instances_at_legacy() {
    for (restarts, leaves) in [(false, false), (true, false), (false, true), (true, true)] {
        for (id, was, part) in [
            ("new", &["create", "other"][..], "create"),
            ("create", &["other"], "create"),
            ("other", &["create"], "other"),
        ] {
            let store = Arc::new(FailingStore::default());
            store.owns_none.store(true, Ordering::SeqCst);
            let evidence = Evidence::load(store.clone()).await.unwrap();
            let condition = Arc::new(UnknownInstances::default());
            let open = |files: DeclaredFiles| open_with(files, &store, &evidence, vec![condition.clone()]);
            let joined = || edited(one_creator(id, was), id, |route| route.force = Some("one space".into()));
            let mut ladder = open(two_creators()).await.unwrap();
            // The joined route may leave in one edit, and its parts return in another one.
            let without = |_| without_creators(two_creators());
            let gone = (0..if leaves { 2 } else { 0 }).map(without);
            for files in [joined(), joined()].into_iter().chain(gone).chain([two_creators(), two_creators()]) {
                match restarts {
                    true => {
                        drop(ladder);
                        ladder = open(files).await.unwrap();
                    }
                    false => ladder.reload(files, || {}).await.unwrap(),
                }
            }
            assert_eq!(
                *condition.0.lock().unwrap(),
                [RouteId::from(part)],
                "{id}, restarts: {restarts}, leaves: {leaves}"
            );
        }
    }
}

/// `plain` and `bare` become `new`, or are two routes; no route is held because of retries.
fn one_route() -> DeclaredFiles {
    let mut files = edited(two_routes(State::Off), "bare", |route| {
        (route.id, route.was, route.key) = ("new".into(), vec!["plain".into(), "bare".into()], None);
        route.force = Some("one handler".into());
    });
    files.routes.retain(|route| route.id.as_str() != "plain");
    files
}

fn two_routes(plain: State) -> DeclaredFiles {
    DeclaredFiles { read_only: ["bare", "plain", "new"].map(RouteId::from).into(), ..files(&[("plain", plain)]) }
}

/// Legacy has got its requests meanwhile.
#[tokio::test]
async fn a_route_that_was_joined_returns_at_most_to_the_state_of_the_joined_route() {
    for restarts in [false, true] {
        for (last, joined, expected) in [
            (State::Only, State::Dark, State::Dark),
            (State::Only, State::Live, State::Dark),
            (State::Only, State::Shadow, State::Shadow),
            (State::Live, State::Dark, State::Dark),
            (State::Live, State::Off, State::Off),
            (State::Dark, State::Shadow, State::Shadow),
        ] {
            let case = format!("{last}, {joined}, restarts: {restarts}");
            let fixture = Fixture::open(two_routes(State::Off)).await;
            for rung in [State::Dark, State::Live, State::Only].into_iter().filter(|rung| *rung <= last) {
                fixture.flip("plain", forced(rung)).await.unwrap();
            }
            // The newest flip is that of the joined route.
            fixture.flip("bare", forced(State::Dark)).await.unwrap();
            let fixture = fixture.next(one_route(), restarts).await;
            if joined != State::Dark {
                fixture.flip("new", forced(joined)).await.unwrap();
            }
            assert_eq!(fixture.state("new").state, joined, "{case}");
            let mut fixture = fixture;
            for _ in 0..2 {
                fixture = fixture.next(two_routes(last), restarts).await;
                assert_eq!(fixture.state("plain").state, expected, "{case}");
            }
            let flip = fixture.status("plain").last.unwrap();
            assert_eq!((flip.to.as_str(), flip.by.as_str()), (expected.as_str(), "file"), "{case}");
            let reason = flip.reason.unwrap_or_default();
            let why = format!("it was a part of `new`, which was in `{joined}` when the files separated them");
            assert!(reason.contains(&why), "{case}: {reason}");
        }
    }
}

/// In `only` legacy gets no request of the joined route, so it lacks what was done for each of its parts.
#[tokio::test]
async fn no_part_of_a_joined_route_leaves_only_without_an_acknowledgement() {
    let fixture = Fixture::open(two_routes(State::Off)).await;
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    for rung in [State::Dark, State::Live, State::Only] {
        fixture.flip("bare", forced(rung)).await.unwrap();
    }
    fixture.ladder.reload(one_route(), || {}).await.unwrap();
    assert_eq!(fixture.state("new").state, State::Only);
    let bare_in_only = |plain: State| edited(two_routes(plain), "bare", |route| route.declared = State::Only);
    let apart = bare_in_only(State::Dark);
    let refused = fixture.ladder.reload(apart.clone(), || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("`new` is in `only`") && refused.contains("would put `plain` in `dark`"), "{refused}");
    let acknowledged = edited(apart, "plain", |route| route.force = Some("legacy has them again".into()));
    fixture.ladder.reload(acknowledged, || {}).await.unwrap();
    assert_eq!((fixture.state("plain").state, fixture.state("bare").state), (State::Dark, State::Only));
}

/// It and the joined route were in `only`: legacy has not got its requests.
#[tokio::test]
async fn a_route_returns_to_only_from_a_joined_route_in_only() {
    let fixture = Fixture::open(two_routes(State::Off)).await;
    for route in ["plain", "bare"] {
        for rung in [State::Dark, State::Live, State::Only] {
            fixture.flip(route, forced(rung)).await.unwrap();
        }
    }
    fixture.ladder.reload(one_route(), || {}).await.unwrap();
    let apart = edited(two_routes(State::Only), "bare", |route| route.declared = State::Only);
    fixture.ladder.reload(apart, || {}).await.unwrap();
    assert_eq!((fixture.state("plain").state, fixture.state("bare").state), (State::Only, State::Only));
}
