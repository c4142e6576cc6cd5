//! New and renamed routes, and those that take the place or the id of another one: whose flips count for them.

use super::*;

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
