//! What a person is told before a move that lets the engine perform retries a second time, and on a flip down while it
//! cannot be read what the engine owns.

use super::held::Unnoted;
use super::*;

/// `bare` is in `dark`, by force.
async fn bare_in_dark(unnoted: &Arc<Unnoted>, copy_started: Option<jiff::Timestamp>) -> Fixture {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let parts = LadderParts {
        store: store.clone(),
        evidence: evidence.clone(),
        conditions: vec![unnoted.clone()],
        conditions_of_moves: Vec::new(),
        retry_window: Duration::from_secs(86_400),
        copy_started,
        answer_within: Duration::from_secs(5),
        others: None,
    };
    let ladder = Ladder::open(files(&[]), parts).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    fixture
}

/// `--force` overrides all gates on the way.
#[tokio::test]
async fn the_refusal_of_more_than_one_rung_names_what_is_unsafe_on_the_way() {
    let unnoted = Arc::new(Unnoted::default());
    let fixture = bare_in_dark(&unnoted, Some(clock::now())).await;
    unnoted.serve("bare");
    let why = fixture.refusal("bare", to(State::Only)).await;
    for part in ["`dark` to `only` is more than one", "a key of `bare` was not noted", "the store is a copy"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    fixture.flip("bare", to(State::Off)).await.unwrap();
    let why = fixture.refusal("bare", to(State::Live)).await;
    assert!(why.contains("more than one") && why.contains("a key of `bare` was not noted"), "{why}");
    let why = fixture.refusal("bare", to(State::Dark)).await;
    assert!(why.ends_with("is more than one"), "the way to `dark` lets the engine perform no retry: {why}");
}

/// A route in `only` is not held, so the gate to it stays shut while the route is held.
#[tokio::test]
async fn a_route_that_is_held_goes_to_only_by_force_alone() {
    let unnoted = Arc::new(Unnoted::default());
    let fixture = bare_in_dark(&unnoted, None).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.record_engine_answers("bare");
    unnoted.serve("bare");
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    let why = fixture.refusal("bare", to(State::Only)).await;
    assert!(why.contains("a key of `bare` was not noted"), "{why}");
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    fixture.flip("bare", to(State::Only)).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
}

/// Nothing may stop a flip down.
#[tokio::test]
async fn a_route_goes_down_while_the_horizon_cannot_be_read() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Only)).await.unwrap();
    }
    fixture.store.fail_pin_counts.store(true, Ordering::SeqCst);
    let refused = fixture.refusal("create", to(State::Off)).await;
    assert!(
        refused.contains("acknowledgement") && refused.contains("that only the engine has is unknown now"),
        "{refused}"
    );
    let acknowledged = MoveRequest { acknowledge: true, ..to(State::Live) };
    for down in [acknowledged, to(State::Off)] {
        let flipped = fixture.flip("create", down).await.unwrap();
        assert!(
            flipped.horizon.len() == 2 && flipped.horizon[1].contains("that only the engine has is unknown now"),
            "{flipped:?}"
        );
    }
    assert_eq!(fixture.state("create").state, State::Off);
}
