//! Files against flips.

use super::*;

/// The same files with `force` at these routes.
fn forcing(states: &[(&str, State)], routes: &[&str]) -> Declared {
    let force = |files, id: &&str| edited(files, id, |route| route.force = Some("we know".into()));
    routes.iter().fold(files(states), force)
}

#[tokio::test]
async fn without_a_flip_a_file_counts_up_to_shadow() {
    let asks = [("bare", State::Live), ("plain", State::Shadow), ("follow", State::Only)];
    let mut house = House::open(files(&asks)).await;
    for _ in 0..3 {
        assert_eq!(house.state("bare"), stands(State::Shadow, Why::Gate));
        assert_eq!(house.state("plain"), stands(State::Shadow, Why::Unproven));
        assert_eq!(house.state("follow"), stands(State::Shadow, Why::Gate));
        let status = house.status("bare");
        assert_eq!((status.requested, status.declared, status.forced), (State::Live, State::Live, None));
        assert!(status.refused.iter().any(|why| why.contains("force: { reason")), "{:?}", status.refused);
        assert_eq!(house.flips().await, 0);
        house.ladder.reload(files(&asks), || {}).await.unwrap();
        assert_eq!(house.state("bare"), stands(State::Shadow, Why::Gate));
        house = house.restarted(files(&asks)).await;
    }
    // Neither does what the file said then lead anywhere else.
    house = house.restarted(files(&[("bare", State::Dark)])).await;
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Gate));
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Requested));
}

#[tokio::test]
async fn by_force_a_file_counts_without_a_flip_and_is_unproven() {
    let asks = forcing(&[("bare", State::Live), ("plain", State::Only)], &["bare", "plain"]);
    let house = House::open(asks.clone()).await;
    assert_eq!(house.state("bare"), stands(State::Live, Why::Unproven));
    assert_eq!(house.state("plain"), stands(State::Only, Why::Unproven));
    assert_eq!((house.status("bare").forced.as_deref(), house.flips().await), (Some("we know"), 0));
    let house = house.restarted(asks).await;
    assert_eq!(house.state("bare"), stands(State::Live, Why::Unproven));

    let done = house.flip("bare", forced(State::Live)).await.unwrap();
    assert!(done.changed && done.flip.forced, "standing by it is a flip, where it is forced");
    assert_eq!(house.status("bare").forced.as_deref(), Some("a drill"));
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
    house.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested), "a flip stands behind it");
    assert_eq!(house.state("plain").state, State::Off, "and the file of the other has changed");
}

#[tokio::test]
async fn a_new_route_stands_at_shadow_and_a_renamed_one_where_it_was() {
    let without = |mut files: Declared, id: &str| {
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    let house = House::open(without(files(&[]), "bare")).await;
    house.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Gate), "it is new");

    house.flip("plain", forced(State::Live)).await.unwrap();
    let renamed = |was: &[&str]| {
        let was = was.iter().map(|id| RouteId::from(*id)).collect();
        edited(files(&[("plain", State::Live)]), "plain", |route| (route.id, route.was) = ("new".into(), was))
    };
    house.ladder.reload(renamed(&["plain"]), || {}).await.unwrap();
    assert_eq!(house.state("new"), stands(State::Live, Why::Requested));
    assert_eq!(house.status("new").forced.as_deref(), Some("a drill"));
    let house = house.restarted(renamed(&["plain"])).await;
    assert_eq!(house.state("new"), stands(State::Live, Why::Requested));
    house.ladder.reload(renamed(&[]), || {}).await.unwrap();
    assert_eq!(house.state("new"), stands(State::Shadow, Why::Gate), "without `was` it is a new route");
}

#[tokio::test]
async fn only_a_change_of_the_file_is_a_flip() {
    let house = House::open(files(&[("plain", State::Off)])).await;
    house.flip("plain", to(State::Shadow)).await.unwrap();
    house.ladder.reload(files(&[("plain", State::Off)]), || {}).await.unwrap();
    assert_eq!(house.state("plain").state, State::Shadow, "the file says what it said before");
    let house = house.restarted(files(&[("plain", State::Off)])).await;
    assert_eq!(house.state("plain").state, State::Shadow, "also over a restart");

    house.ladder.reload(files(&[("plain", State::Shadow)]), || {}).await.unwrap();
    assert_eq!(house.flips().await, 1, "the file comes to say what is in force");
    house.ladder.reload(files(&[("plain", State::Off)]), || {}).await.unwrap();
    let last = house.status("plain").last.unwrap();
    assert_eq!((last.by.as_str(), last.from.as_str(), last.to.as_str()), ("file", "shadow", "off"));
    assert_eq!(house.state("plain").state, State::Off);

    house.flip("plain", to(State::Shadow)).await.unwrap();
    let house = house.restarted(files(&[("plain", State::Off)])).await;
    assert_eq!(house.state("plain").state, State::Shadow, "the last flip wins");
    let house = house.restarted(edited(files(&[("plain", State::Off)]), "plain", |route| {
        route.shares.shadow = Percent::new(5.0).unwrap();
    }));
    let house = house.await;
    assert_eq!(house.state("plain").state, State::Off, "a share is part of what is declared");
}

#[tokio::test]
async fn what_the_gate_refuses_loads_and_stays() {
    let house = House::open(files(&[])).await;
    house.flip("plain", to(State::Shadow)).await.unwrap();
    let asks = files(&[("plain", State::Live), ("bare", State::Dark)]);
    house.ladder.reload(asks.clone(), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Gate));
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    let status = house.status("plain");
    assert_eq!((status.requested, status.declared), (State::Live, State::Live));
    assert!(status.refused[0].contains("one rung at a time"), "{:?}", status.refused);
    assert_eq!(house.flips().await, 1);

    // It is still asked for after a restart, and forgotten when the file takes it back.
    let house = house.restarted(asks.clone()).await;
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Gate));
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
    assert!(house.status("plain").refused.is_empty());

    // A flip ends it, also over a restart.
    house.ladder.reload(asks.clone(), || {}).await.unwrap();
    assert!(house.flip("plain", to(State::Shadow)).await.unwrap().changed);
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
    house.ladder.reload(asks.clone(), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
    let house = house.restarted(asks).await;
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
}

#[tokio::test]
async fn a_file_passes_the_gate_by_force() {
    let house = House::open(files(&[])).await;
    let force = |reason: &str| {
        let reason = Some(reason.to_owned());
        edited(files(&[("bare", State::Live)]), "bare", |route| route.force = reason)
    };
    house.ladder.reload(files(&[("bare", State::Live)]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    house.ladder.reload(force("we know"), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
    let last = house.status("bare").last.unwrap();
    assert!(last.forced && last.by == "file" && last.reason.as_deref() == Some("we know"));
    house.ladder.reload(force("another word"), || {}).await.unwrap();
    assert_eq!(house.flips().await, 1);
}

#[tokio::test]
async fn files_raise_followers_before_their_creator() {
    let house = House::open(files(&[])).await;
    house.ladder.reload(files(&[("create", State::Shadow), ("follow", State::Shadow)]), || {}).await.unwrap();
    assert_eq!(house.state("create"), stands(State::Shadow, Why::Requested));
    // The follower passes, the creator does not.
    house.ladder.reload(files(&[("create", State::Dark), ("follow", State::Dark)]), || {}).await.unwrap();
    assert_eq!(house.state("follow"), stands(State::Dark, Why::Requested));
    assert_eq!(house.state("create"), stands(State::Shadow, Why::Gate));
}

#[tokio::test]
async fn files_go_down_from_only_without_being_asked() {
    let house = House::open(forcing(&[("bare", State::Only)], &["bare"])).await;
    assert_eq!(house.state("bare"), stands(State::Only, Why::Unproven));
    house.ladder.reload(files(&[("bare", State::Off)]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Requested));
}

#[tokio::test]
async fn routes_come_and_go() {
    let without = |mut files: Declared| {
        files.routes.retain(|route| route.id.as_str() != "bare");
        files
    };
    let house = House::open(files(&[])).await;
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.ladder.reload(without(files(&[])), || {}).await.unwrap();
    assert!(house.ladder.flags().load().route(&"bare".into()).is_none());
    assert!(matches!(house.flip("bare", to(State::Off)).await, Err(FlipError::UnknownRoute(..))));
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Requested), "put in anew it declares anew: a flip by file");
    assert_eq!(house.status("bare").last.unwrap().by, "file");
}

#[tokio::test]
async fn a_route_that_loses_its_workflow_is_off_until_it_has_one_again() {
    let house = House::open(files(&[])).await;
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.ladder.reload(edited(files(&[]), "bare", |route| route.workflow = None), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    assert_eq!(house.status("bare").requested, State::Live);
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
}

#[tokio::test]
async fn files_that_orphan_what_the_engine_owns_are_told() {
    let house = House::open(files(&[])).await;
    assert_eq!(house.ladder.orphans(&files(&[])).await.unwrap(), Vec::<String>::new());
    let gone = |id: &str| {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != id);
        files
    };
    assert!(house.ladder.orphans(&gone("plain")).await.unwrap().is_empty(), "it has to do with no instance");
    for id in ["create", "follow"] {
        let told = house.ladder.orphans(&gone(id)).await.unwrap();
        assert!(told.len() == 1 && told[0].contains("owns 2 of `create`") && told[0].contains(id), "{told:?}");
        let idle = edited(files(&[]), id, |route| route.workflow = None);
        assert_eq!(house.ladder.orphans(&idle).await.unwrap().len(), 1, "{id} without its workflow");
    }
}

/// Pins stay under the id that the creator had when they were made.
#[tokio::test]
async fn a_rename_orphans_nothing_where_the_files_say_it() {
    let house = House::open(files(&[])).await;
    let named = |creator: (&str, &[&str]), follower: (&str, &[&str])| {
        let was = |ids: &[&str]| ids.iter().map(|id| RouteId::from(*id)).collect();
        let mut files =
            edited(files(&[]), "create", |route| (route.id, route.was) = (creator.0.into(), was(creator.1)));
        files = edited(files, "follow", |route| (route.id, route.was) = (follower.0.into(), was(follower.1)));
        edited(files, follower.0, |route| {
            route.instance = Some(Instance::Follows { creator: creator.0.into(), param: "id".into() });
        })
    };
    let told = async |house: &House, files: &Declared| house.ladder.orphans(files).await.unwrap();
    let told_of_both = told(&house, &named(("make", &[]), ("read", &[]))).await;
    assert!(told_of_both.len() == 2 && told_of_both[0].contains("`was: [create]`"), "{told_of_both:?}");
    let told_of_one = told(&house, &named(("make", &["create"]), ("read", &[]))).await;
    assert!(told_of_one.len() == 1 && told_of_one[0].contains("`was: [follow]`"), "{told_of_one:?}");
    // A chain; then the first name again; and one under which nothing stands.
    for (creator, follower) in [
        (("make", &["create"][..]), ("read", &["follow"][..])),
        (("new", &["make", "create"]), ("read", &["follow"])),
        (("create", &["new", "make"]), ("follow", &["read"])),
        (("create", &["new", "make", "older"]), ("follow", &["read"])),
    ] {
        let files = named(creator, follower);
        assert_eq!(told(&house, &files).await, Vec::<String>::new(), "{creator:?}");
        house.ladder.reload(files, || {}).await.unwrap();
        let horizon = house.ladder.horizon(&creator.0.into()).await.unwrap();
        assert!(horizon[0].contains("the engine owns 2 instances"), "{horizon:?}");
    }
    let dropped = told(&house, &named(("other", &["create"]), ("other.read", &["read"]))).await;
    assert!(dropped.len() == 1 && dropped[0].contains("`follow` leads to them no more"), "{dropped:?}");
}

/// A rename and a move in one change of the files: the gate looks at what stands under the earlier id.
#[tokio::test]
async fn a_route_is_renamed_and_moved_at_once() {
    let house = House::open(files(&[])).await;
    house.flip("plain", forced(State::Live)).await.unwrap();
    house.evidence.set_basis(&[("plain".into(), "one".into())]);
    house.answers("plain");
    let mut next = edited(files(&[("plain", State::Only)]), "plain", |route| {
        (route.id, route.was) = ("new".into(), vec!["plain".into()]);
    });
    next.bases.insert("new".into(), "one".into());
    house.ladder.reload(next, || {}).await.unwrap();
    assert_eq!(house.state("new"), stands(State::Only, Why::Requested));
}
