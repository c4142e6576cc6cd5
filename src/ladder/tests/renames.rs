//! New and renamed routes, and those that take the place or the id of another one: whose flips count for them.

use super::*;
use crate::store::{FlipRecord, GuardAction, GuardRecord, guard_key};

#[tokio::test]
async fn a_new_route_is_in_shadow_and_a_renamed_one_keeps_its_state() {
    let without = |mut files: DeclaredFiles, id: &str| {
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    let fixture = Fixture::open(without(files(&[]), "bare")).await;
    fixture.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Gate), "it is new");

    fixture.flip("plain", forced(State::Live)).await.unwrap();
    let renamed = |was: &[&str]| {
        let was = was.iter().map(|id| RouteId::from(*id)).collect();
        edited(files(&[("plain", State::Live)]), "plain", |route| (route.id, route.was) = ("new".into(), was))
    };
    fixture.ladder.reload(renamed(&["plain"]), || {}).await.unwrap();
    assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested));
    assert_eq!(fixture.status("new").forced.as_deref(), Some("a drill"));
    let fixture = fixture.restart(renamed(&["plain"])).await;
    assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested));
    let other = edited(renamed(&[]), "new", |route| route.id = "other".into());
    fixture.ladder.reload(other, || {}).await.unwrap();
    assert_eq!(
        fixture.state("other"),
        effective(State::Shadow, EffectiveReason::Gate),
        "without `was` it is a new route"
    );
}

/// A start with such files is not refused, since every other route would be without service.
#[tokio::test]
async fn files_that_change_the_oldest_id_of_a_route_with_a_share_are_refused() {
    let was = |was: &[&str]| {
        let was = was.iter().map(|id| RouteId::from(*id)).collect();
        edited(files(&[]), "plain", |route| {
            (route.id, route.was) = ("new".into(), was);
            // A share of `dark` does not count while the route is in `live` for all.
            route.shares.dark = Percent::new(20.0).unwrap();
        })
    };
    let fixture = Fixture::open(files(&[])).await;
    fixture.ladder.reload(was(&["middle", "plain"]), || {}).await.unwrap();
    fixture.flip("new", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    let older = || was(&["middle", "plain", "older"]);
    let refused = fixture.ladder.reload(older(), || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("chosen by a hash of its oldest id, which is `plain` and would be"), "{refused}");
    // An id that is no longer listed stays the oldest.
    for trimmed in [was(&["middle"]), was(&[]), was(&["plain"])] {
        fixture.ladder.reload(trimmed, || {}).await.unwrap();
    }
    let fixture = fixture.restart(was(&[])).await.restart(was(&["plain"])).await;
    assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested));
    fixture.flip("new", MoveRequest { percent: Percent::new(100.0), ..forced(State::Live) }).await.unwrap();
    fixture.ladder.reload(older(), || {}).await.unwrap();
    assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested));
}

/// A caller has the same arm on the whole family.
#[tokio::test]
async fn the_share_of_a_follower_is_drawn_by_the_oldest_id_of_its_creator() {
    let family = |creator: (&str, &[&str]), follower: (&str, &[&str])| {
        let was = |ids: &[&str]| ids.iter().map(|id| RouteId::from(*id)).collect();
        let files = edited(files(&[]), "create", |route| (route.id, route.was) = (creator.0.into(), was(creator.1)));
        edited(files, "follow", |route| {
            (route.id, route.was) = (follower.0.into(), was(follower.1));
            route.instance = Some(Instance::Follows {
                creator: creator.0.into(),
                key: crate::flag::InstanceKeySource::Path("id".into()),
            });
            route.key = Some(crate::expression::Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
        })
    };
    let fixture = Fixture::open(family(("create", &[]), ("follow", &[]))).await;
    fixture.store.owns_none.store(true, std::sync::atomic::Ordering::SeqCst);
    fixture.ladder.reload(family(("make", &["create"]), ("read", &["follow"])), || {}).await.unwrap();
    fixture.flip("read", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    let older = family(("make", &["create", "older"]), ("read", &["follow"]));
    let refused = fixture.ladder.reload(older, || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(
        refused.contains("share of `read` are chosen") && refused.contains("is `create` and would be `older`"),
        "{refused}"
    );
    fixture.ladder.reload(family(("make", &["create"]), ("read", &[])), || {}).await.unwrap();
    fixture.ladder.reload(family(("make", &[]), ("read", &[])), || {}).await.unwrap();
}

/// Whether it was renamed, or renamed back. If it left the files in between, it is `off`, as its file says.
#[tokio::test]
async fn a_renamed_route_keeps_its_last_flip() {
    let renamed = |declared: State| {
        let files = files(&[("plain", declared)]);
        edited(files, "plain", |route| (route.id, route.was) = ("new".into(), vec!["plain".into()]))
    };
    let back = || edited(files(&[]), "plain", |route| route.was = vec!["new".into()]);
    let without = || {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != "plain");
        files
    };
    for restarts in [false, true] {
        for (steps, id, expected) in [
            (vec![renamed(State::Off), renamed(State::Off)], "new", State::Dark),
            // The gate refuses what the file asks for at the same time.
            (vec![renamed(State::Only), renamed(State::Only)], "new", State::Dark),
            (vec![renamed(State::Off), without(), renamed(State::Off)], "new", State::Off),
            (vec![renamed(State::Off), without(), without(), renamed(State::Off)], "new", State::Off),
            (vec![renamed(State::Off), back(), back()], "plain", State::Dark),
        ] {
            let mut fixture = Fixture::open(files(&[])).await;
            fixture.flip("plain", forced(State::Dark)).await.unwrap();
            let count = steps.len();
            for files in steps {
                if restarts {
                    fixture = fixture.restart(files).await;
                } else {
                    fixture.ladder.reload(files, || {}).await.unwrap();
                }
            }
            assert_eq!(fixture.state(id).state, expected, "{id} after {count}, restarts: {restarts}");
        }
    }
}

/// A route takes the place of another one that was in the files too: it has not passed that one's gates.
#[tokio::test]
async fn a_route_that_takes_the_place_of_another_one_keeps_its_own_state() {
    for own in [None, Some(State::Shadow)] {
        let fixture = Fixture::open(files(&[])).await;
        if let Some(state) = own {
            fixture.flip("bare", to(state)).await.unwrap();
        }
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        let mut merged = edited(files(&[]), "bare", |route| route.was = vec!["plain".into()]);
        merged.routes.retain(|route| route.id.as_str() != "plain");
        fixture.ladder.reload(merged.clone(), || {}).await.unwrap();
        let expected = own.unwrap_or(State::Off);
        assert_eq!(fixture.state("bare").state, expected);
        let flips = fixture.flips().await;
        fixture.ladder.reload(merged.clone(), || {}).await.unwrap();
        assert_eq!((fixture.state("bare").state, fixture.flips().await), (expected, flips));
        let fixture = fixture.restart(merged).await;
        assert_eq!((fixture.state("bare").state, fixture.flips().await), (expected, flips));
    }
}

/// `plain` and `bare` become `new`, by a reload or over a restart.
fn joined(files: DeclaredFiles, force: Option<&str>) -> DeclaredFiles {
    let mut files = edited(files, "bare", |route| {
        (route.id, route.was) = ("new".into(), vec!["plain".into(), "bare".into()]);
        (route.key, route.force) = (None, force.map(str::to_owned));
    });
    files.routes.retain(|route| route.id.as_str() != "plain");
    files
}

/// The requests of one of them have passed no gate.
#[tokio::test]
async fn a_route_that_joins_several_gets_the_lowest_of_their_states() {
    // These routes count as read-only, so that no route is held because of retries, which would do no harm.
    let all = || DeclaredFiles { read_only: ["bare", "plain", "new"].map(RouteId::from).into(), ..files(&[]) };
    for restarts in [false, true] {
        for (of_bare, expected) in [
            (None, State::Off),
            (Some(State::Off), State::Off),
            (Some(State::Shadow), State::Shadow),
            (Some(State::Live), State::Live),
        ] {
            let case = format!("{of_bare:?}, restarts: {restarts}");
            let mut fixture = Fixture::open(all()).await;
            if let Some(state) = of_bare {
                fixture.flip("bare", forced(State::Dark)).await.unwrap();
                fixture.flip("bare", forced(state)).await.unwrap();
            }
            fixture.flip("plain", forced(State::Live)).await.unwrap();
            for _ in 0..2 {
                fixture = fixture.next(joined(all(), None), restarts).await;
                assert_eq!(fixture.state("new"), effective(expected, EffectiveReason::Requested), "{case}");
            }
            let flips = 1 + of_bare.map_or(0, |_| 2);
            let by_file = usize::from(expected < State::Live);
            assert_eq!(fixture.flips().await, flips + by_file, "{case}");
            let why = fixture.status("new").last.unwrap().reason.unwrap_or_default();
            assert_eq!(why.contains("it joins `plain` (`live`) and `bare`"), by_file == 1, "{case}: {why}");
        }
        let fixture = Fixture::open(all()).await;
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        let fixture = fixture.next(joined(all(), Some("one handler")), restarts).await;
        assert_eq!(fixture.state("new"), effective(State::Live, EffectiveReason::Requested), "restarts: {restarts}");
    }
}

/// It was in the files before, and gets the requests of the other one too.
#[tokio::test]
async fn a_route_in_live_that_takes_the_place_of_a_lower_one_goes_down_to_its_state() {
    for restarts in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Live)).await.unwrap();
        let mut merged = edited(files(&[]), "bare", |route| route.was = vec!["plain".into()]);
        merged.routes.retain(|route| route.id.as_str() != "plain");
        let mut fixture = fixture;
        for _ in 0..2 {
            fixture = fixture.next(merged.clone(), restarts).await;
            assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
        }
    }
}

#[tokio::test]
async fn a_route_that_joins_several_gets_the_smallest_of_their_shares() {
    for restarts in [false, true] {
        let with_key = |files: DeclaredFiles, id: &str| {
            edited(files, id, |route| {
                route.key = Some(crate::expression::Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap());
            })
        };
        let fixture = Fixture::open(with_key(files(&[]), "bare")).await;
        fixture.flip("bare", MoveRequest { percent: Percent::new(10.0), ..forced(State::Dark) }).await.unwrap();
        fixture.flip("plain", forced(State::Dark)).await.unwrap();
        let fixture = fixture.next(with_key(joined(files(&[]), None), "new"), restarts).await;
        let shares = fixture.ladder.flags().load().route(&"new".into()).unwrap().shares;
        assert_eq!((fixture.state("new").state, shares.dark), (State::Dark, Percent::new(10.0).unwrap()));
    }
}

/// The requests of the absent one went to legacy, or to the other one.
#[tokio::test]
async fn a_route_that_was_in_no_file_raises_nothing_that_it_is_joined_with() {
    let all = || DeclaredFiles { read_only: ["bare", "plain", "new"].map(RouteId::from).into(), ..files(&[]) };
    let without_plain = || {
        let mut files = all();
        files.routes.retain(|route| route.id.as_str() != "plain");
        files
    };
    for restarts in [false, true] {
        for (of_bare, expected) in
            [(None, State::Off), (Some(State::Off), State::Off), (Some(State::Shadow), State::Shadow)]
        {
            for was in [["plain", "bare"], ["bare", "plain"]] {
                let mut fixture = Fixture::open(all()).await;
                if let Some(state) = of_bare {
                    fixture.flip("bare", forced(State::Dark)).await.unwrap();
                    fixture.flip("bare", forced(state)).await.unwrap();
                }
                fixture.flip("plain", forced(State::Live)).await.unwrap();
                fixture = fixture.next(without_plain(), restarts).await;
                let joined = edited(joined(all(), None), "new", |route| route.was = was.map(RouteId::from).into());
                for _ in 0..3 {
                    fixture = fixture.next(joined.clone(), restarts).await;
                    let case = format!("{of_bare:?}, {was:?}, restarts: {restarts}");
                    assert_eq!(fixture.state("new"), effective(expected, EffectiveReason::Requested), "{case}");
                }
                let last = fixture.status("new").last.expect("a flip of its own");
                assert_eq!((last.to.as_str(), last.by.as_str()), (expected.as_str(), "file"));
            }
        }
    }
}

/// What the guard of this route did: lowered it to this state, or, without one, the release of that.
fn guard_action(flip: &FlipRecord, route: &str, limit: Option<State>) -> FlipRecord {
    let route = RouteId::from(route);
    let action = if limit.is_some() { GuardAction::Lowered } else { GuardAction::Released };
    let guard = GuardRecord { route: route.clone(), action, limit, condition: None, bad: 5, of: 5, runs: Vec::new() };
    FlipRecord {
        number: 0,
        route: Some(guard_key(&route)),
        to: limit.unwrap_or(State::Live).to_string(),
        by: "guard".into(),
        guard: Some(guard),
        ..flip.clone()
    }
}

/// A later release of the other one's guard releases only that.
#[tokio::test]
async fn what_the_guard_of_one_of_several_joined_routes_did_stays() {
    let all = || DeclaredFiles { read_only: ["bare", "plain", "new"].map(RouteId::from).into(), ..files(&[]) };
    for restarts in [false, true] {
        for (force, expected) in [(None, State::Dark), (Some("it was fixed"), State::Live)] {
            let fixture = Fixture::open(all()).await;
            for route in ["bare", "plain"] {
                fixture.flip(route, forced(State::Live)).await.unwrap();
            }
            let flip = fixture.store.flips(None, 1).await.unwrap().remove(0);
            for (route, limit) in [("bare", Some(State::Dark)), ("plain", Some(State::Dark)), ("plain", None)] {
                fixture.store.put(vec![guard_action(&flip, route, limit)], None).await;
            }
            let mut fixture = fixture.restart(all()).await;
            assert_eq!((fixture.state("bare").state, fixture.state("plain").state), (State::Dark, State::Live));
            for _ in 0..2 {
                fixture = fixture.next(joined(all(), force), restarts).await;
                assert_eq!(fixture.state("new"), effective(expected, EffectiveReason::Requested), "{restarts}");
            }
            let why = fixture.status("new").last.unwrap().reason.unwrap_or_default();
            let says_so = why.contains("and `bare` (`live`, its guard keeps it at `dark`)");
            assert_eq!(says_so, expected == State::Dark, "{why}");
            // A person may flip it up again.
            fixture.flip("new", forced(State::Live)).await.unwrap();
            let fixture = fixture.next(joined(all(), force), restarts).await;
            assert_eq!(fixture.state("new").state, State::Live);
        }
    }
}
