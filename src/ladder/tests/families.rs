//! Moves of the routes of one family.

use super::*;

#[tokio::test]
async fn a_family_moves_together_and_followers_go_first() {
    let fixture = Fixture::open(files(&[])).await;
    assert!(fixture.refusal("create", to(State::Shadow)).await.contains("followers"));
    fixture.flip("follow", to(State::Shadow)).await.unwrap();
    fixture.flip("create", to(State::Shadow)).await.unwrap();
    // A follower has nothing to be compared on until its creator is dark.
    fixture.flip("follow", to(State::Dark)).await.unwrap();
    assert!(fixture.refusal("create", to(State::Dark)).await.contains("needs 20 more"));
    assert!(fixture.refusal("follow", to(State::Live)).await.contains("needs 20 more"));
    fixture.flip("follow", to(State::Off)).await.unwrap();
}

/// Runs of the follower fail after it went to `live`, so it would not pass the gate to `live` now.
#[tokio::test]
async fn a_creator_goes_to_live_only_if_its_followers_would_too() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.record_pairs(route);
        fixture.flip(route, to(State::Shadow)).await.unwrap();
        fixture.flip(route, to(State::Dark)).await.unwrap();
    }
    fixture.flip("follow", to(State::Live)).await.unwrap();
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("follow"), ComparisonOutcome::Failed("timeout"));
    }
    let refused = fixture.refusal("create", to(State::Live)).await;
    assert!(refused.contains("of its follower `follow`: ") && refused.contains("more errors than legacy"), "{refused}");
    fixture.flip("follow", to(State::Dark)).await.unwrap();
    fixture.flip("follow", forced(State::Live)).await.unwrap();
    fixture.flip("create", to(State::Live)).await.unwrap();
}

/// Nothing is compared in `only`, so the evidence that is asked for would never come.
#[tokio::test]
async fn a_follower_in_only_has_to_go_down_before_its_creator_goes_to_live() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.record_pairs(route);
        fixture.flip(route, to(State::Shadow)).await.unwrap();
        fixture.flip(route, to(State::Dark)).await.unwrap();
    }
    fixture.flip("follow", to(State::Live)).await.unwrap();
    fixture.flip("follow", forced(State::Only)).await.unwrap();
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("follow"), ComparisonOutcome::Failed("timeout"));
    }
    let refused = fixture.refusal("create", to(State::Live)).await;
    assert!(refused.contains("nothing is compared in `only`: flip it down to `live` first"), "{refused}");
}

/// The flips of one edit are recorded after all routes were judged.
#[tokio::test]
async fn force_of_a_follower_in_the_files_holds_for_its_creator_in_the_same_edit() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("follow", forced(State::Dark)).await.unwrap();
    fixture.flip("create", forced(State::Dark)).await.unwrap();
    fixture.record_pairs("create");
    let in_live = |forced: bool| {
        let files = files(&[("follow", State::Live), ("create", State::Live)]);
        edited(files, "follow", |route| route.force = forced.then(|| "we know".into()))
    };
    fixture.ladder.reload(in_live(true), || {}).await.unwrap();
    let states = ["follow", "create"].map(|route| fixture.state(route).state);
    assert_eq!(states, [State::Live; 2], "{:?}", fixture.status("create").refused);
}

/// That force overrides the follower's gate to `only`, not its gate to `live`.
#[tokio::test]
async fn force_of_a_follower_to_only_does_not_open_the_gate_of_its_creator_to_live() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.record_pairs(route);
        fixture.flip(route, to(State::Shadow)).await.unwrap();
        fixture.flip(route, to(State::Dark)).await.unwrap();
    }
    fixture.flip("follow", to(State::Live)).await.unwrap();
    let in_only = files(&[("follow", State::Only)]);
    let in_only = edited(in_only, "follow", |route| route.force = Some("we know".into()));
    fixture.ladder.reload(in_only, || {}).await.unwrap();
    assert_eq!(fixture.state("follow").state, State::Only, "{:?}", fixture.status("follow").refused);
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("follow"), ComparisonOutcome::Failed("timeout"));
    }
    let refused = fixture.refusal("create", to(State::Live)).await;
    assert!(refused.contains("of its follower `follow`: "), "{refused}");
}

#[tokio::test]
async fn force_of_a_creator_over_what_its_followers_lack_stays_visible() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.record_pairs(route);
        fixture.flip(route, to(State::Shadow)).await.unwrap();
        fixture.flip(route, to(State::Dark)).await.unwrap();
    }
    fixture.flip("follow", to(State::Live)).await.unwrap();
    let fail =
        || (0..3).for_each(|_| fixture.evidence.settle(&in_dark("follow"), ComparisonOutcome::Failed("timeout")));
    fail();
    fixture.flip("create", forced(State::Live)).await.unwrap();
    assert_eq!(fixture.status("create").forced.as_deref(), Some("a drill"));
    // A creator that went up by evidence stays where it is by evidence.
    fixture.flip("create", to(State::Dark)).await.unwrap();
    fixture.record_pairs("follow");
    fixture.flip("create", to(State::Live)).await.unwrap();
    fail();
    assert_eq!(fixture.status("create").forced, None);
}

/// The commands of a refusal pass one after the other, with no more force than that needs.
#[tokio::test]
async fn the_creator_needs_no_force_of_its_own_after_that_of_its_follower() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("follow", forced(State::Dark)).await.unwrap();
    fixture.flip("create", forced(State::Dark)).await.unwrap();
    fixture.record_pairs("create");
    let refused = fixture.flip("create", to(State::Live)).await.unwrap_err();
    let FlipError::Refused { commands, .. } = refused else { panic!("{refused}") };
    let forced: Vec<bool> = commands.iter().map(|command| command.force.is_some()).collect();
    assert_eq!(forced, [true, false]);
}

/// Who asks for more than one rung at once, without a reason, is told how to reach the next one, not to use force.
#[tokio::test]
async fn a_refused_jump_proposes_the_next_rung_if_it_needs_no_force() {
    let fixture = Fixture::open(files(&[])).await;
    let commands = async |request: MoveRequest| {
        let refused = fixture.flip("create", request).await.unwrap_err();
        let FlipError::Refused { commands, .. } = refused else { panic!("{refused}") };
        commands.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let to_shadow = ["pointsman flip follow shadow", "pointsman flip create shadow"];
    assert_eq!(commands(to(State::Dark)).await, to_shadow);
    assert_eq!(commands(to(State::Only)).await, to_shadow);
    let with_reason = MoveRequest { reason: Some("a drill".into()), ..to(State::Dark) };
    assert!(commands(with_reason).await.iter().all(|command| command.contains("--force --reason 'a drill'")));
    for id in ["follow", "create"] {
        fixture.flip(id, to(State::Shadow)).await.unwrap();
    }
    let shut = commands(to(State::Live)).await;
    assert!(shut.iter().all(|command| command.contains(" live --force")), "the gate to dark is shut: {shut:?}");
}
