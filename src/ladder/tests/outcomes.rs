//! A store that refuses, loses answers, or says nothing: what is in force is what a restart finds.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Two routes raised and one lowered in one change of the files.
fn three_moves() -> Declared {
    let force = |route: &mut Route| route.force = Some("a drill".into());
    let all = files(&[("plain", State::Live), ("bare", State::Dark), ("follow", State::Off)]);
    edited(edited(all, "plain", force), "bare", force)
}

async fn before() -> House {
    let house = House::open(files(&[])).await;
    house.flip("follow", to(State::Shadow)).await.unwrap();
    house.ladder.reload(files(&[("follow", State::Shadow)]), || {}).await.unwrap();
    house
}

fn states(house: &House) -> [State; 3] {
    ["plain", "bare", "follow"].map(|route| house.state(route).state)
}

const BEFORE: [State; 3] = [State::Off, State::Off, State::Shadow];
const AFTER: [State; 3] = [State::Live, State::Dark, State::Off];

#[tokio::test]
async fn files_that_the_store_refuses_change_nothing_also_after_a_restart() {
    let house = before().await;
    let generation = house.ladder.flags().load().generation;
    house.store.refuse.store(true, Ordering::SeqCst);
    let told = Arc::new(AtomicBool::new(false));
    let recorded = told.clone();
    let refused = house.ladder.reload(three_moves(), move || recorded.store(true, Ordering::SeqCst)).await;
    assert!(refused.is_err() && !told.load(Ordering::SeqCst), "workflows and rules stay as they are too");
    assert_eq!((states(&house), house.ladder.flags().load().generation), (BEFORE, generation));
    assert_eq!(house.flips().await, 1);
    house.store.refuse.store(false, Ordering::SeqCst);
    let house = house.restarted(files(&[("follow", State::Shadow)])).await;
    assert_eq!((states(&house), house.flips().await), (BEFORE, 1));
    // The same files again, with a store that takes them: all of it.
    house.ladder.reload(three_moves(), || {}).await.unwrap();
    assert_eq!((states(&house), house.flips().await), (AFTER, 4));
    let house = house.restarted(three_moves()).await;
    assert_eq!((states(&house), house.flips().await), (AFTER, 4));
}

#[tokio::test]
async fn files_whose_answer_was_lost_are_in_force_whole() {
    let house = before().await;
    house.store.lose.store(true, Ordering::SeqCst);
    let told = Arc::new(AtomicBool::new(false));
    let recorded = told.clone();
    house.ladder.reload(three_moves(), move || recorded.store(true, Ordering::SeqCst)).await.unwrap();
    assert!(told.load(Ordering::SeqCst));
    assert_eq!((states(&house), house.flips().await), (AFTER, 4));
    house.store.lose.store(false, Ordering::SeqCst);
    let house = house.restarted(three_moves()).await;
    assert_eq!((states(&house), house.flips().await), (AFTER, 4));
}

/// The answer is lost and nothing can be read back for a while: nobody says that nothing changed, nothing else moves
/// meanwhile, and once the store answers, what it took is in force.
#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_said_as_not_known_until_it_is() {
    for taken in [true, false] {
        let house = before().await;
        house.store.silent.store(true, Ordering::SeqCst);
        (if taken { &house.store.lose } else { &house.store.refuse }).store(true, Ordering::SeqCst);
        let pending = house.flip("plain", forced(State::Live)).await.unwrap_err();
        assert!(matches!(pending, FlipError::NotKnown(NotKnown::Pending)), "{pending}");
        assert!(!pending.to_string().contains("nothing changed"), "{pending}");
        assert_eq!(states(&house), BEFORE, "not in force before the store says that it is recorded");
        let busy = house.flip("bare", to(State::Shadow)).await.unwrap_err();
        assert!(matches!(busy, FlipError::NotKnown(NotKnown::Busy)), "{busy}");
        let lifted = house.ladder.freeze(Freeze::No, None, "ann".into()).await;
        assert!(matches!(lifted, Err(FreezeError::NotKnown(NotKnown::Busy))), "{lifted:?}");

        house.store.silent.store(false, Ordering::SeqCst);
        house.store.lose.store(false, Ordering::SeqCst);
        house.store.refuse.store(false, Ordering::SeqCst);
        // Waits its turn: by then the outcome is known.
        house.flip("bare", to(State::Shadow)).await.unwrap();
        let plain = if taken { State::Live } else { State::Off };
        assert_eq!(states(&house), [plain, State::Shadow, State::Shadow]);
        let flips = if taken { 3 } else { 2 };
        let house = house.restarted(files(&[("follow", State::Shadow)])).await;
        assert_eq!((states(&house), house.flips().await), ([plain, State::Shadow, State::Shadow], flips));
    }
}

#[tokio::test(start_paused = true)]
async fn files_whose_outcome_is_not_known_come_in_force_whole_when_it_is() {
    let house = before().await;
    house.store.silent.store(true, Ordering::SeqCst);
    house.store.lose.store(true, Ordering::SeqCst);
    let ladder = house.ladder.clone();
    let reload = tokio::spawn(async move { ladder.reload(three_moves(), || {}).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!reload.is_finished());
    assert_eq!(states(&house), BEFORE);
    house.store.silent.store(false, Ordering::SeqCst);
    reload.await.unwrap().unwrap();
    assert_eq!(states(&house), AFTER);
}

#[tokio::test]
async fn files_that_move_nothing_need_no_store() {
    let house = before().await;
    house.store.refuse.store(true, Ordering::SeqCst);
    let rekeyed = edited(files(&[("follow", State::Shadow)]), "bare", |route| route.deadline = Some(Duration::ZERO));
    house.ladder.reload(rekeyed, || {}).await.unwrap();
    assert!(house.ladder.flags().load().route(&"bare".into()).unwrap().route.deadline.is_some());
}

/// Evidence of older files proves nothing for the new ones, before they are in force too.
#[tokio::test]
async fn the_gate_looks_at_evidence_of_the_files_that_it_judges() {
    let house = House::open(files(&[])).await;
    house.flip("plain", forced(State::Live)).await.unwrap();
    house.evidence.set_basis(&[("plain".into(), "one".into())]);
    house.answers("plain");
    let based = |basis: &str| {
        let mut files = files(&[("plain", State::Only)]);
        files.bases.insert("plain".into(), basis.into());
        files
    };
    house.ladder.reload(based("two"), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Live, Why::Gate));
    house.ladder.reload(based("one"), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Only, Why::Requested));
}

/// What stands beside evidence keeps a gate shut like evidence that lacks.
#[tokio::test]
async fn other_conditions_keep_a_gate_shut() {
    struct Keys(AtomicBool);
    impl GateCondition for Keys {
        fn missing(&self, route: &Route, from: State, to: State) -> Vec<String> {
            let shut = self.0.load(Ordering::SeqCst) && (from, to) == (State::Live, State::Only);
            shut.then(|| format!("a key of {} was not noted", route.id)).into_iter().collect()
        }
    }
    let keys = Arc::new(Keys(AtomicBool::new(true)));
    let store = Arc::new(Faulty::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let parts = LadderParts {
        store: store.clone(),
        evidence: evidence.clone(),
        conditions: vec![keys.clone()],
        retry_window: Duration::from_secs(86_400),
        answer_within: Duration::from_secs(5),
    };
    let ladder = Ladder::open(files(&[]), parts).await.unwrap();
    let house = House { store, evidence, ladder };
    house.flip("plain", forced(State::Live)).await.unwrap();
    house.answers("plain");
    assert!(house.refused("plain", to(State::Only)).await.contains("a key of plain was not noted"));
    assert_eq!(house.status("plain").next.unwrap().missing, ["a key of plain was not noted"]);
    let done = house.flip("plain", forced(State::Only)).await.unwrap();
    assert!(done.flip.forced);
    keys.0.store(false, Ordering::SeqCst);
    house.flip("plain", FlipRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    house.flip("plain", to(State::Only)).await.unwrap();
}
