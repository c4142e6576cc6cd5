//! A store that refuses, loses replies, or does not answer: what is in force is what a restart finds.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// TwoProcesses routes raised and one lowered in one change of the files.
fn three_moves() -> DeclaredFiles {
    let force = |route: &mut Route| route.force = Some("a drill".into());
    let all = files(&[("plain", State::Live), ("bare", State::Dark), ("follow", State::Off)]);
    edited(edited(all, "plain", force), "bare", force)
}

async fn fixture_before_the_moves() -> Fixture {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("follow", to(State::Shadow)).await.unwrap();
    fixture.ladder.reload(files(&[("follow", State::Shadow)]), || {}).await.unwrap();
    fixture
}

fn states(fixture: &Fixture) -> [State; 3] {
    ["plain", "bare", "follow"].map(|route| fixture.state(route).state)
}

const BEFORE: [State; 3] = [State::Off, State::Off, State::Shadow];
const AFTER: [State; 3] = [State::Live, State::Dark, State::Off];

#[tokio::test]
async fn files_that_the_store_refuses_change_nothing_also_after_a_restart() {
    let fixture = fixture_before_the_moves().await;
    let generation = fixture.ladder.flags().load().set_number;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    let called = Arc::new(AtomicBool::new(false));
    let on_recorded = called.clone();
    let refused = fixture.ladder.reload(three_moves(), move || on_recorded.store(true, Ordering::SeqCst)).await;
    assert!(refused.is_err() && !called.load(Ordering::SeqCst), "workflows and rules stay as they are too");
    assert_eq!((states(&fixture), fixture.ladder.flags().load().set_number), (BEFORE, generation));
    assert_eq!(fixture.flips().await, 1);
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    let fixture = fixture.restart(files(&[("follow", State::Shadow)])).await;
    assert_eq!((states(&fixture), fixture.flips().await), (BEFORE, 1));
    // The same files again, with a store that records them: all moves are in force.
    fixture.ladder.reload(three_moves(), || {}).await.unwrap();
    assert_eq!((states(&fixture), fixture.flips().await), (AFTER, 4));
    let fixture = fixture.restart(three_moves()).await;
    assert_eq!((states(&fixture), fixture.flips().await), (AFTER, 4));
}

#[tokio::test]
async fn files_whose_reply_was_lost_are_in_force_as_a_whole() {
    let fixture = fixture_before_the_moves().await;
    fixture.store.lose_replies.store(true, Ordering::SeqCst);
    let called = Arc::new(AtomicBool::new(false));
    let on_recorded = called.clone();
    fixture.ladder.reload(three_moves(), move || on_recorded.store(true, Ordering::SeqCst)).await.unwrap();
    assert!(called.load(Ordering::SeqCst));
    assert_eq!((states(&fixture), fixture.flips().await), (AFTER, 4));
    fixture.store.lose_replies.store(false, Ordering::SeqCst);
    let fixture = fixture.restart(three_moves()).await;
    assert_eq!((states(&fixture), fixture.flips().await), (AFTER, 4));
}

/// The store's reply is lost and nothing can be read back for a while: the caller is not told that nothing changed,
/// nothing else moves meanwhile, and once the store answers, what it recorded is in force.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_reported_as_unknown_until_it_is_known() {
    for taken in [true, false] {
        let fixture = fixture_before_the_moves().await;
        fixture.store.fail_reads.store(true, Ordering::SeqCst);
        (if taken { &fixture.store.lose_replies } else { &fixture.store.refuse_flips }).store(true, Ordering::SeqCst);
        let pending = fixture.flip("plain", forced(State::Live)).await.unwrap_err();
        assert!(matches!(pending, FlipError::Unconfirmed(Unconfirmed::Pending)), "{pending}");
        assert!(!pending.to_string().contains("nothing changed"), "{pending}");
        assert_eq!(states(&fixture), BEFORE, "not in force before the store says that it is recorded");
        let busy = fixture.flip("bare", to(State::Shadow)).await.unwrap_err();
        assert!(matches!(busy, FlipError::Unconfirmed(Unconfirmed::Busy)), "{busy}");
        let lifted = fixture.ladder.freeze(Freeze::No, None, "ann".into()).await;
        assert!(matches!(lifted, Err(FreezeError::Unconfirmed(Unconfirmed::Busy))), "{lifted:?}");

        fixture.store.fail_reads.store(false, Ordering::SeqCst);
        fixture.store.lose_replies.store(false, Ordering::SeqCst);
        fixture.store.refuse_flips.store(false, Ordering::SeqCst);
        // Waits for the move before it: by then the outcome is known.
        fixture.flip("bare", to(State::Shadow)).await.unwrap();
        let plain = if taken { State::Live } else { State::Off };
        assert_eq!(states(&fixture), [plain, State::Shadow, State::Shadow]);
        let flips = if taken { 3 } else { 2 };
        let fixture = fixture.restart(files(&[("follow", State::Shadow)])).await;
        assert_eq!((states(&fixture), fixture.flips().await), ([plain, State::Shadow, State::Shadow], flips));
    }
}

#[tokio::test(start_paused = true)]
async fn files_with_an_unknown_outcome_come_into_force_as_a_whole_once_it_is_known() {
    let fixture = fixture_before_the_moves().await;
    fixture.store.fail_reads.store(true, Ordering::SeqCst);
    fixture.store.lose_replies.store(true, Ordering::SeqCst);
    let ladder = fixture.ladder.clone();
    let reload = tokio::spawn(async move { ladder.reload(three_moves(), || {}).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!reload.is_finished());
    assert_eq!(states(&fixture), BEFORE);
    fixture.store.fail_reads.store(false, Ordering::SeqCst);
    reload.await.unwrap().unwrap();
    assert_eq!(states(&fixture), AFTER);
}

/// A database may get a write long after it timed out here, when the flip counts as not recorded.
#[tokio::test(start_paused = true)]
async fn a_flip_that_reaches_the_store_late_is_never_the_last_one() {
    for comes_after_the_newer_one in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Dark)).await.unwrap();
        fixture.store.delay_flips.store(true, Ordering::SeqCst);
        let refused = fixture.flip("bare", forced(State::Live)).await.unwrap_err();
        assert!(matches!(refused, FlipError::Store(_)), "{refused}");
        fixture.store.delay_flips.store(false, Ordering::SeqCst);
        if !comes_after_the_newer_one {
            fixture.store.deliver_delayed().await;
        }
        let down = fixture.flip("bare", to(State::Off)).await.unwrap();
        assert!(down.recorded);
        fixture.store.deliver_delayed().await;
        assert_eq!(fixture.flips().await, if comes_after_the_newer_one { 2 } else { 3 });
        let fixture = fixture.restart(files(&[])).await;
        assert_eq!(fixture.state("bare").state, State::Off);
        fixture.flip("bare", to(State::Shadow)).await.unwrap();
    }
}

#[tokio::test]
async fn files_that_move_nothing_need_no_store() {
    let fixture = fixture_before_the_moves().await;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    let with_deadline =
        edited(files(&[("follow", State::Shadow)]), "bare", |route| route.deadline = Some(Duration::ZERO));
    fixture.ladder.reload(with_deadline, || {}).await.unwrap();
    assert!(fixture.ladder.flags().load().route(&"bare".into()).unwrap().route.deadline.is_some());
}

/// Evidence of older files does not count for new files, also before these are in force.
#[tokio::test]
async fn the_gate_looks_at_evidence_of_the_files_that_it_judges() {
    let based = |basis: &str, declared: State| {
        let mut files = files(&[("plain", declared)]);
        files.bases.insert("plain".into(), basis.into());
        files
    };
    let fixture = Fixture::open(based("one", State::Off)).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture.evidence.set_basis(0, &[("plain".into(), "one".into())]);
    fixture.record_engine_answers("plain");
    fixture.ladder.reload(based("two", State::Only), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Live, EffectiveReason::Gate));
    fixture.ladder.reload(based("one", State::Only), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Requested));
}

/// A condition other than evidence keeps a gate shut too.
#[tokio::test]
async fn other_conditions_keep_a_gate_shut() {
    struct Keys(AtomicBool);
    impl GateCondition for Keys {
        fn unmet(&self, route: &Route, from: State, to: State) -> Vec<Unmet> {
            let shut = self.0.load(Ordering::SeqCst) && (from, to) == (State::Live, State::Only);
            shut.then(|| format!("a key of {} was not noted", route.id).into()).into_iter().collect()
        }
    }
    let keys = Arc::new(Keys(AtomicBool::new(true)));
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let parts = LadderParts {
        store: store.clone(),
        evidence: evidence.clone(),
        conditions: vec![keys.clone()],
        conditions_of_moves: Vec::new(),
        retry_window: Duration::from_secs(86_400),
        copy_started: None,
        answer_within: Duration::from_secs(5),
        others: None,
    };
    let ladder = Ladder::open(files(&[]), parts).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture.record_engine_answers("plain");
    assert!(fixture.refusal("plain", to(State::Only)).await.contains("a key of plain was not noted"));
    assert_eq!(fixture.status("plain").next.unwrap().missing, ["a key of plain was not noted"]);
    let done = fixture.flip("plain", forced(State::Only)).await.unwrap();
    assert!(done.flip.forced);
    keys.0.store(false, Ordering::SeqCst);
    fixture.flip("plain", MoveRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    fixture.flip("plain", to(State::Only)).await.unwrap();
}

/// A pin collision shuts a gate in this way.
#[tokio::test]
async fn an_earlier_force_is_not_shown_as_the_reason_for_a_gate_that_was_shut_later() {
    #[derive(Default)]
    struct Collision(std::sync::OnceLock<Timestamp>);
    impl GateCondition for Collision {
        fn unmet(&self, _route: &Route, _from: State, to: State) -> Vec<Unmet> {
            let since = self.0.get().copied().filter(|_| to >= State::Live);
            since.map(|since| Unmet { why: "a collision".into(), since: Some(since) }).into_iter().collect()
        }
    }
    let collision = Arc::new(Collision::default());
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let ladder = open_with(files(&[]), &store, &evidence, vec![collision.clone()]).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let shown = || fixture.status("bare").forced;
    assert_eq!(shown().as_deref(), Some("a drill"));
    fixture.record_pairs("bare");
    assert_eq!(shown(), None, "the evidence has opened the gates");
    collision.0.set(clock::now()).unwrap();
    assert_eq!(shown(), None);
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    assert!(fixture.refusal("bare", to(State::Live)).await.contains("a collision"));
    let known = MoveRequest { reason: Some("no id was used twice".into()), ..forced(State::Live) };
    fixture.flip("bare", known).await.unwrap();
    assert_eq!(shown().as_deref(), Some("no id was used twice"));
}
