//! Files against flips.

use super::*;

#[tokio::test]
async fn without_flips_the_file_is_taken_as_it_is_unproven() {
    let house = House::open(files(&[("bare", State::Live), ("plain", State::Only)])).await;
    assert_eq!(house.state("bare"), stands(State::Live, Why::Unproven));
    assert_eq!(house.state("plain"), stands(State::Only, Why::Unproven));
    assert_eq!(house.flips().await, 0);
    let house = house.restarted(files(&[("bare", State::Live), ("plain", State::Only)])).await;
    assert_eq!(house.state("bare"), stands(State::Live, Why::Unproven));

    let done = house.flip("bare", forced(State::Live)).await.unwrap();
    assert!(done.changed && done.flip.forced, "standing by it is a flip, where it is forced");
    assert_eq!(house.status("bare").forced.as_deref(), Some("a drill"));
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
}

#[tokio::test]
async fn only_a_change_of_the_file_is_a_flip() {
    let house = House::open(files(&[("plain", State::Off)])).await;
    house.flip("plain", to(State::Shadow)).await.unwrap();
    house.ladder.reload(files(&[("plain", State::Off)])).await.unwrap();
    assert_eq!(house.state("plain").state, State::Shadow, "the file says what it said before");
    let house = house.restarted(files(&[("plain", State::Off)])).await;
    assert_eq!(house.state("plain").state, State::Shadow, "also over a restart");

    house.ladder.reload(files(&[("plain", State::Shadow)])).await.unwrap();
    assert_eq!(house.flips().await, 1, "the file comes to say what is in force");
    house.ladder.reload(files(&[("plain", State::Off)])).await.unwrap();
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
    house.ladder.reload(asks.clone()).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Gate));
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    let status = house.status("plain");
    assert_eq!((status.requested, status.declared), (State::Live, State::Live));
    assert!(status.refused[0].contains("one rung at a time"), "{:?}", status.refused);
    assert_eq!(house.flips().await, 1);

    // It is still asked for after a restart, and forgotten when the file takes it back.
    let house = house.restarted(asks.clone()).await;
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Gate));
    house.ladder.reload(files(&[])).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
    assert!(house.status("plain").refused.is_empty());

    // A flip ends it, also over a restart.
    house.ladder.reload(asks.clone()).await.unwrap();
    assert!(house.flip("plain", to(State::Shadow)).await.unwrap().changed);
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Requested));
    house.ladder.reload(asks.clone()).await.unwrap();
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
    house.ladder.reload(files(&[("bare", State::Live)])).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    house.ladder.reload(force("we know")).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
    let last = house.status("bare").last.unwrap();
    assert!(last.forced && last.by == "file" && last.reason.as_deref() == Some("we know"));
    house.ladder.reload(force("another word")).await.unwrap();
    assert_eq!(house.flips().await, 1);
}

#[tokio::test]
async fn files_raise_followers_before_their_creator() {
    let house = House::open(files(&[])).await;
    house.ladder.reload(files(&[("create", State::Shadow), ("follow", State::Shadow)])).await.unwrap();
    assert_eq!(house.state("create"), stands(State::Shadow, Why::Requested));
    // The follower passes, the creator does not.
    house.ladder.reload(files(&[("create", State::Dark), ("follow", State::Dark)])).await.unwrap();
    assert_eq!(house.state("follow"), stands(State::Dark, Why::Requested));
    assert_eq!(house.state("create"), stands(State::Shadow, Why::Gate));
}

#[tokio::test]
async fn files_go_down_from_only_without_being_asked() {
    let house = House::open(files(&[("bare", State::Only)])).await;
    house.ladder.reload(files(&[("bare", State::Off)])).await.unwrap();
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
    house.ladder.reload(without(files(&[]))).await.unwrap();
    assert!(house.ladder.flags().load().route(&"bare".into()).is_none());
    assert!(matches!(house.flip("bare", to(State::Off)).await, Err(FlipError::UnknownRoute(..))));
    house.ladder.reload(files(&[])).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Requested), "put in anew it declares anew: a flip by file");
    assert_eq!(house.status("bare").last.unwrap().by, "file");
}

#[tokio::test]
async fn a_route_that_loses_its_workflow_is_off_until_it_has_one_again() {
    let house = House::open(files(&[])).await;
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.ladder.reload(edited(files(&[]), "bare", |route| route.workflow = None)).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Off, Why::Gate));
    assert_eq!(house.status("bare").requested, State::Live);
    house.ladder.reload(files(&[])).await.unwrap();
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
