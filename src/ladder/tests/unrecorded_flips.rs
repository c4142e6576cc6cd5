//! Flips down while the store refuses them.

use super::captured_log::capture_log;
use super::held::elsewhere;
use super::overtaken::silence;
use super::*;

fn acknowledged(state: State) -> MoveRequest {
    MoveRequest { acknowledge: true, ..to(state) }
}

fn refuse(fixture: &Fixture, refuses: bool) {
    fixture.store.refuse_flips.store(refuses, Ordering::SeqCst);
}

async fn stored(fixture: &Fixture) -> Vec<(u64, String, String)> {
    let flips = fixture.store.flips(Some("bare".into()), 9).await.unwrap();
    flips.into_iter().rev().map(|flip| (flip.number, flip.from, flip.to)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_flip_down_is_in_force_though_the_store_refuses_it_and_is_recorded_when_it_can_be() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    refuse(&fixture, true);
    let live = fixture.flip("bare", acknowledged(State::Live)).await.unwrap();
    assert_eq!((live.recorded, live.changed, live.flip.number), (false, true, 0));
    assert_eq!(fixture.state("bare").state, State::Live);
    let off = fixture.flip("bare", to(State::Off)).await.unwrap();
    assert!(!off.recorded);
    assert_eq!((fixture.state("bare").state, fixture.ladder.unrecorded_flips()), (State::Off, 1));
    // A restart would return it to `only`, so no request may be served whose key cannot be noted.
    let could_be_live =
        |fixture: &Fixture| fixture.ladder.flags().load().route(&"bare".into()).unwrap().could_be_live();
    assert!(could_be_live(&fixture));
    let again = fixture.flip("bare", to(State::Off)).await.unwrap();
    assert_eq!((again.changed, again.recorded), (false, false));
    // Nothing else is recorded before it, and files that need nothing recorded come into force.
    let up = fixture.flip("plain", forced(State::Shadow)).await;
    assert!(matches!(up, Err(FlipError::Store(_))), "{up:?}");
    let with_deadline = edited(files(&[]), "bare", |route| route.deadline = Some(Duration::ZERO));
    fixture.ladder.reload(with_deadline, || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Off);
    assert!(fixture.ladder.reload(files(&[("plain", State::Shadow)]), || {}).await.is_err());
    assert_eq!(fixture.state("bare").state, State::Off);

    refuse(&fixture, false);
    while fixture.ladder.unrecorded_flips() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let flips = [(1, "off".to_owned(), "only".to_owned()), (2, "only".to_owned(), "off".to_owned())];
    assert_eq!(stored(&fixture).await, flips, "one record, from the state before the first");
    assert!(!could_be_live(&fixture));
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
}

/// The flip up first records the unrecorded flip down, and does not wait for the task that records.
#[tokio::test(start_paused = true)]
async fn a_flip_up_comes_after_the_unrecorded_flip_down() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    refuse(&fixture, true);
    fixture.flip("bare", to(State::Off)).await.unwrap();
    refuse(&fixture, false);
    let up = fixture.flip("bare", to(State::Shadow)).await.unwrap();
    assert_eq!((up.recorded, up.flip.number, fixture.ladder.unrecorded_flips()), (true, 3, 0));
    let flips = [(1, "off", "live"), (2, "live", "off"), (3, "off", "shadow")];
    assert_eq!(stored(&fixture).await, flips.map(|(number, from, to)| (number, from.to_owned(), to.to_owned())));
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Requested));
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_a_flip_down_that_was_not_recorded() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    refuse(&fixture, true);
    fixture.flip("bare", to(State::Off)).await.unwrap();
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare").state, State::Live);
}

/// The store has `live` for a route that is held at `dark`, and it would return there by itself.
#[tokio::test(start_paused = true)]
async fn a_held_route_goes_down_for_good_though_the_store_refuses_it() {
    for state in [State::Dark, State::Shadow] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Live)).await.unwrap();
        fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
        refuse(&fixture, true);
        let down = fixture.flip("bare", to(state)).await.unwrap();
        assert_eq!((down.recorded, down.effective), (false, effective(state, EffectiveReason::Requested)));
        let could_be_live = || fixture.ladder.flags().load().route(&"bare".into()).unwrap().could_be_live();
        assert!(could_be_live(), "{state}: after a restart, until it is recorded");
        refuse(&fixture, false);
        while fixture.ladder.unrecorded_flips() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!could_be_live());
        let fixture = fixture.restart(elsewhere()).await;
        assert_eq!(fixture.state("bare"), effective(state, EffectiveReason::Requested));
    }
}

fn forced_percent(state: State, percent: f64) -> MoveRequest {
    MoveRequest { percent: Percent::new(percent), ..forced(state) }
}

/// `plain` is in `live` with 10 %, and its share of `dark` is 20 %.
async fn with_a_tenth_in_live() -> Fixture {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", forced_percent(State::Dark, 20.0)).await.unwrap();
    fixture.flip("plain", forced_percent(State::Live, 10.0)).await.unwrap();
    fixture
}

/// The share of `dark` that `plain` has, in percent.
fn dark_share(fixture: &Fixture) -> f64 {
    fixture.ladder.flags().load().route(&"plain".into()).unwrap().shares.dark.as_f64()
}

/// A flip of `plain` to `dark` with 50 %, which the store has refused once. The flip down is in force when this
/// returns.
async fn flip_to_a_larger_share(fixture: &Fixture) -> tokio::task::JoinHandle<Result<Flipped, FlipError>> {
    refuse(fixture, true);
    let ladder = fixture.ladder.clone();
    let flip = tokio::spawn(async move { ladder.flip(&"plain".into(), forced_percent(State::Dark, 50.0)).await });
    while fixture.state("plain").state != State::Dark {
        tokio::task::yield_now().await;
    }
    flip
}

async fn wait_for_log(log: &std::sync::Mutex<Vec<u8>>, line: &str) {
    let logged = async {
        while !String::from_utf8_lossy(&log.lock().unwrap()).contains(line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), logged).await.unwrap_or_else(|_| panic!("not logged: {line}"));
}

/// In the first case (`takes`) the store records the flip down in time, in the second it does not.
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_stop_the_larger_share() {
    for takes in [true, false] {
        let fixture = with_a_tenth_in_live().await;
        let (log, _guard) = capture_log();
        let flip = flip_to_a_larger_share(&fixture).await;
        flip.abort();
        assert!(flip.await.unwrap_err().is_cancelled());
        wait_for_log(&log, "is set once the flip down is recorded").await;
        refuse(&fixture, !takes);
        if takes {
            let raised = async {
                while dark_share(&fixture) < 50.0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(60), raised).await.expect("the larger share");
        } else {
            wait_for_log(&log, "the store has not recorded the flip down yet").await;
            assert_eq!(dark_share(&fixture), 20.0);
        }
        assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
    }
}

/// The store has recorded the flip down, and does not answer when it gets the larger share, which it records if
/// `is_taken`.
#[tokio::test(start_paused = true)]
async fn a_larger_share_whose_outcome_is_unknown_is_answered_as_unknown() {
    for is_taken in [true, false] {
        let fixture = with_a_tenth_in_live().await;
        let (log, _guard) = capture_log();
        let flip = flip_to_a_larger_share(&fixture).await;
        let moves = fixture.ladder.mover.lock_moves().await;
        refuse(&fixture, false);
        fixture.ladder.mover.record_unrecorded_flips().await.unwrap();
        fixture.store.fail_reads.store(true, Ordering::SeqCst);
        (if is_taken { &fixture.store.lose_replies } else { &fixture.store.refuse_flips })
            .store(true, Ordering::SeqCst);
        drop(moves);
        let down = flip.await.unwrap().unwrap();
        assert_eq!((down.changed, down.recorded, down.share_is_pending), (true, false, true));
        assert_eq!((down.flip.from.as_str(), down.flip.to.as_str(), down.flip.number), ("live", "dark", 3));
        assert_eq!(down.effective, effective(State::Dark, EffectiveReason::Requested));
        let says = |words: &str| down.horizon.iter().any(|line| line.contains(words));
        assert!(
            says("its share of `dark` may still be raised to 50%: the store has not answered"),
            "{:?}",
            down.horizon
        );
        assert!(!says("is not raised") && !says("Flip it again"), "{:?}", down.horizon);
        assert_eq!(dark_share(&fixture), 20.0);
        silence(&fixture, false);
        refuse(&fixture, false);
        // The lock is held until the outcome is known.
        drop(fixture.ladder.mover.lock_moves().await);
        assert_eq!(dark_share(&fixture), if is_taken { 50.0 } else { 20.0 });
        if !is_taken {
            wait_for_log(&log, "the larger share that was asked for together with a flip down is not set").await;
        }
    }
}

/// The flip down is recorded when the process ends, and the larger share is to be set next.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_waits_for_a_larger_share_or_its_log_names_it() {
    for is_set in [true, false] {
        let fixture = with_a_tenth_in_live().await;
        let (log, _guard) = capture_log();
        let flip = flip_to_a_larger_share(&fixture).await;
        fixture.ladder.log_unrecorded();
        let moves = fixture.ladder.mover.lock_moves().await;
        refuse(&fixture, false);
        fixture.ladder.mover.record_unrecorded_flips().await.unwrap();
        // Its outcome is not known for as long as the store does not answer.
        fixture.store.fail_reads.store(!is_set, Ordering::SeqCst);
        refuse(&fixture, !is_set);
        drop(moves);
        fixture.ladder.end_moves(Duration::from_secs(2)).await;
        assert_eq!(dark_share(&fixture), if is_set { 50.0 } else { 20.0 });
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        let names = log.contains("the process ends before the larger share is set") && log.contains("50%");
        assert_eq!(names, !is_set, "{log}");
        assert!(
            log.contains("together with a flip down is not set yet")
                && log.contains("the flips down of these routes: if"),
            "{log}"
        );
        flip.abort();
    }
}

/// In the meantime another caller sets the same share.
#[tokio::test(start_paused = true)]
async fn the_answer_has_the_flip_down_if_another_caller_has_set_the_larger_share() {
    let fixture = with_a_tenth_in_live().await;
    let flip = flip_to_a_larger_share(&fixture).await;
    let moves = fixture.ladder.mover.lock_moves().await;
    refuse(&fixture, false);
    let mover = fixture.ladder.mover.clone();
    mover.flip(moves, Instant::now(), &"plain".into(), forced_percent(State::Dark, 50.0), None).await.unwrap();
    let down = flip.await.unwrap().unwrap();
    assert_eq!((down.changed, down.recorded, down.horizon), (true, true, Vec::new()));
    assert_eq!((down.flip.from.as_str(), down.flip.to.as_str(), down.flip.number), ("live", "dark", 3));
    assert_eq!((dark_share(&fixture), fixture.flips().await), (50.0, 4));
}

/// 10 % of the callers are in `live`, and the share of `dark` is 20 %.
#[tokio::test(start_paused = true)]
async fn a_larger_share_on_the_way_down_is_not_in_force_before_it_is_recorded() {
    let fixture = Fixture::open(files(&[])).await;
    let share = |fixture: &Fixture| fixture.ladder.flags().load().route(&"plain".into()).unwrap().shares.dark;
    let (fifth, half) = (Percent::new(20.0).unwrap(), Percent::new(50.0).unwrap());
    for refuses in [true, false] {
        fixture.flip("plain", forced_percent(State::Dark, 20.0)).await.unwrap();
        fixture.flip("plain", forced_percent(State::Live, 10.0)).await.unwrap();
        refuse(&fixture, refuses);
        let began = tokio::time::Instant::now();
        let down = fixture.flip("plain", forced_percent(State::Dark, 50.0)).await.unwrap();
        assert!(began.elapsed() <= Duration::from_millis(1_001), "{:?}", began.elapsed());
        assert_eq!((down.changed, down.recorded), (true, !refuses));
        assert_eq!((down.flip.from.as_str(), down.flip.number > 0), ("live", !refuses), "also if two flips made it");
        assert_eq!(down.effective, effective(State::Dark, EffectiveReason::Requested));
        let says_so = |line: &String| line.contains("its share of `dark` is not raised to 50%");
        assert_eq!(down.horizon.iter().any(says_so), refuses, "{:?}", down.horizon);
        assert_eq!(share(&fixture), if refuses { fifth } else { half });
        refuse(&fixture, false);
        while fixture.ladder.unrecorded_flips() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(share(&fixture), if refuses { fifth } else { half });
        assert_eq!(fixture.status("plain").forced.as_deref(), Some("a drill"));
    }
    fixture.flip("plain", forced_percent(State::Live, 10.0)).await.unwrap();
    let shut = fixture.flip("plain", percent(State::Dark, 60.0)).await;
    assert!(matches!(shut, Err(FlipError::GateShut { .. })), "{shut:?}");
    assert_eq!(fixture.state("plain").state, State::Live);
}

/// All callers are in `live`, above `dark`, so that any share of `dark` is smaller than theirs.
#[tokio::test(start_paused = true)]
async fn a_flip_down_to_a_share_of_the_callers_who_were_above_is_in_force_at_once() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(20.0), ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    refuse(&fixture, true);
    let down = fixture.flip("plain", percent(State::Dark, 50.0)).await.unwrap();
    assert!(!down.recorded && down.horizon.is_empty(), "{:?}", down.horizon);
    assert_eq!(fixture.ladder.flags().load().route(&"plain".into()).unwrap().shares.dark, Percent::new(50.0).unwrap());
}
