//! Flips down while the store does not answer, or while another move waits for it.

use super::overtaken::{pairs, silence, stored};
use super::*;

/// To `off`, also from `only`.
fn off() -> MoveRequest {
    MoveRequest { acknowledge: true, ..to(State::Off) }
}

async fn wait_until_recorded(fixture: &Fixture) {
    while fixture.ladder.unrecorded_flips() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn could_be_live(fixture: &Fixture, route: &str) -> bool {
    fixture.ladder.flags().load().route(&route.into()).unwrap().could_be_live()
}

/// A flip of `bare` from `dark` to `live` waits for the store. `is_taken`: the store performs it.
async fn pending_raise(is_taken: bool) -> (Fixture, tokio::task::JoinHandle<Result<Flipped, FlipError>>) {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    fixture.store.fail_reads.store(true, Ordering::SeqCst);
    (if is_taken { &fixture.store.lose_replies } else { &fixture.store.refuse_flips }).store(true, Ordering::SeqCst);
    let ladder = fixture.ladder.clone();
    let raise = tokio::spawn(async move { ladder.flip(&"bare".into(), forced(State::Live)).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    (fixture, raise)
}

fn answer(fixture: &Fixture) {
    silence(fixture, false);
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn a_flip_down_is_in_force_at_once_while_the_store_is_silent() {
    for is_taken in [true, false] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Only)).await.unwrap();
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        fixture.store.fail_reads.store(true, Ordering::SeqCst);
        let writes = if is_taken { &fixture.store.lose_replies } else { &fixture.store.refuse_flips };
        writes.store(true, Ordering::SeqCst);
        let unread = fixture.flip("bare", to(State::Off)).await.unwrap_err();
        assert!(unread.to_string().contains("needs an acknowledgement"), "{unread}");
        for (route, number) in [("bare", 1), ("plain", 2)] {
            let began = tokio::time::Instant::now();
            let down = fixture.flip(route, off()).await.unwrap();
            assert!(began.elapsed() <= Duration::from_millis(1_001), "{:?}", began.elapsed());
            assert_eq!((down.changed, down.recorded, down.flip.number), (true, false, 0));
            assert_eq!(down.effective, effective(State::Off, EffectiveReason::Requested));
            let status = fixture.status(route);
            assert!(status.is_unrecorded && could_be_live(&fixture, route), "a restart would return it");
            assert_eq!((status.last.unwrap().number, fixture.ladder.unrecorded_flips()), (0, number));
        }
        let again = fixture.flip("plain", off()).await.unwrap();
        assert_eq!((again.changed, again.recorded), (false, false));
        for (route, state) in [("bare", State::Shadow), ("list", State::Off)] {
            let up = fixture.flip(route, percent(state, 50.0)).await;
            assert!(up.is_err(), "{up:?}");
        }
        assert!(
            !freezes::freeze(&fixture, Freeze::Instances).await.unwrap().recorded,
            "the kill switch waits for nothing"
        );
        answer(&fixture);
        wait_until_recorded(&fixture).await;
        assert!(!could_be_live(&fixture, "bare") && !fixture.status("bare").is_unrecorded);
        let flips = fixture.store.flips(Some("bare".into()), 9).await.unwrap();
        assert_eq!((flips[0].from.as_str(), flips[0].to.as_str(), flips.len()), ("only", "off", 2));
        let fixture = fixture.restart(files(&[])).await;
        for route in ["bare", "plain"] {
            assert_eq!(fixture.status(route).requested, State::Off);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_raise_that_waits_for_the_store_does_not_undo_a_later_flip_down() {
    for is_taken in [true, false] {
        let (fixture, raise) = pending_raise(is_taken).await;
        assert!(!could_be_live(&fixture, "bare"));
        assert!(!fixture.flip("bare", off()).await.unwrap().recorded);
        assert_eq!(fixture.state("bare").state, State::Off);
        assert!(could_be_live(&fixture, "bare"), "a restart may find the raise");
        answer(&fixture);
        let raised = raise.await.unwrap();
        assert_eq!(raised.is_ok(), is_taken, "{raised:?}");
        if let Ok(raised) = raised {
            assert_eq!(raised.effective, effective(State::Off, EffectiveReason::Requested));
        }
        assert_eq!(fixture.state("bare").state, State::Off);
        wait_until_recorded(&fixture).await;
        let expected: &[_] = match is_taken {
            true => &[("off", "dark"), ("dark", "live"), ("live", "off")],
            false => &[("off", "dark"), ("dark", "off")],
        };
        assert_eq!(stored(&fixture).await, pairs(expected));
        assert!(!could_be_live(&fixture, "bare"));
        let fixture = fixture.restart(files(&[])).await;
        assert_eq!(fixture.state("bare").state, State::Off);
    }
}

/// The route is in the requested state, which it would leave by the pending raise.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_stops_a_pending_raise() {
    for is_taken in [true, false] {
        let (fixture, raise) = pending_raise(is_taken).await;
        let stays = fixture.flip("bare", to(State::Dark)).await.unwrap();
        assert!(stays.changed && !stays.recorded);
        answer(&fixture);
        assert_eq!(raise.await.unwrap().is_ok(), is_taken);
        wait_until_recorded(&fixture).await;
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested));
        let fixture = fixture.restart(files(&[])).await;
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested));
    }
}

/// A person lowers the route further before the first flip is recorded, and wants it higher again.
#[tokio::test(start_paused = true)]
async fn a_lower_flip_down_replaces_an_unrecorded_one_and_a_higher_one_is_a_raise() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    silence(&fixture, true);
    for state in [State::Live, State::Shadow] {
        fixture.flip("bare", MoveRequest { acknowledge: true, ..to(state) }).await.unwrap();
        assert_eq!((fixture.state("bare").state, fixture.ladder.unrecorded_flips()), (state, 1));
    }
    let up = fixture.flip("bare", forced(State::Dark)).await;
    assert!(matches!(up, Err(FlipError::Unconfirmed(Unconfirmed::Busy))), "{up:?}");
    assert_eq!(fixture.state("bare").state, State::Shadow);
    silence(&fixture, false);
    wait_until_recorded(&fixture).await;
    // The first was under way when the second was made.
    assert_eq!(stored(&fixture).await, pairs(&[("off", "only"), ("only", "live"), ("live", "shadow")]));
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Dark);
}

/// The file asks for `live` by force and gives the route another id, and waits for the store.
#[tokio::test(start_paused = true)]
async fn pending_files_do_not_undo_a_later_flip_down() {
    let renamed = || {
        let files = edited(files(&[("bare", State::Live)]), "bare", |route| route.force = Some("we know".into()));
        edited(files, "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]))
    };
    for goes_down_itself in [false, true] {
        let fixture = Fixture::open(files(&[("bare", State::Shadow)])).await;
        fixture.flip("bare", forced(State::Dark)).await.unwrap();
        silence(&fixture, true);
        let ladder = fixture.ladder.clone();
        let read =
            if goes_down_itself { edited(renamed(), "new", |route| route.declared = State::Off) } else { renamed() };
        let given = read.clone();
        let reload = tokio::spawn(async move { ladder.reload(given, || {}).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!fixture.flip("bare", to(State::Shadow)).await.unwrap().recorded);
        silence(&fixture, false);
        reload.await.unwrap().unwrap();
        let state = if goes_down_itself { State::Off } else { State::Shadow };
        assert_eq!(fixture.state("new").state, state, "goes down itself: {goes_down_itself}");
        wait_until_recorded(&fixture).await;
        let last = stored(&fixture).await.pop();
        assert_eq!(last, pairs(&[if goes_down_itself { ("dark", "off") } else { ("live", "shadow") }]).pop());
        let fixture = fixture.restart(read).await;
        assert_eq!(fixture.state("new"), effective(state, EffectiveReason::Requested));
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_leaves_the_files_keeps_its_flip_down() {
    let without = || {
        let mut files = files(&[]);
        files.routes.retain(|route| route.id.as_str() != "bare");
        files
    };
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    silence(&fixture, true);
    let ladder = fixture.ladder.clone();
    let reload = tokio::spawn(async move { ladder.reload(without(), || {}).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.flip("bare", off()).await.unwrap();
    silence(&fixture, false);
    reload.await.unwrap().unwrap();
    wait_until_recorded(&fixture).await;
    assert_eq!(stored(&fixture).await, pairs(&[("off", "live"), ("live", "off")]));
    let fixture = fixture.restart(without()).await;
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Off);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_process_unrecorded_flips_are_recorded_or_named_in_the_log() {
    for is_recorded in [true, false] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Live)).await.unwrap();
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        silence(&fixture, true);
        assert!(!fixture.flip("bare", off()).await.unwrap().recorded);
        let (log, _guard) = super::captured_log::capture_log();
        let ladder = fixture.ladder.clone();
        let end = tokio::spawn(async move { ladder.end_moves(Duration::from_secs(20)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let late = fixture.flip("plain", off()).await.unwrap_err();
        assert!(late.to_string().contains("the process is stopping"), "{late}");
        assert_eq!(fixture.state("plain").state, State::Live);
        silence(&fixture, !is_recorded);
        end.await.unwrap();
        assert_eq!(fixture.ladder.unrecorded_flips(), usize::from(!is_recorded));
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        let names = log.contains("the flips down of these routes, which are lost") && log.contains("bare");
        assert_eq!(names, !is_recorded, "{log}");
    }
}

/// The answer to the flip says that it is not recorded.
#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_before_the_record_returns_to_what_the_store_has() {
    let (fixture, _raise) = pending_raise(true).await;
    assert!(!fixture.flip("bare", off()).await.unwrap().recorded);
    // The new process finds the raise, which the store has performed.
    silence(&fixture, false);
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare").state, State::Live);
}

/// The write of the flip down times out, is repeated, and reaches the store once more after a raise.
#[tokio::test(start_paused = true)]
async fn a_late_duplicate_of_a_flip_down_does_not_undo_a_later_raise() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.store.delay_flips.store(true, Ordering::SeqCst);
    assert!(!fixture.flip("bare", off()).await.unwrap().recorded);
    fixture.store.delay_flips.store(false, Ordering::SeqCst);
    wait_until_recorded(&fixture).await;
    fixture.flip("bare", to(State::Shadow)).await.unwrap();
    fixture.store.deliver_delayed().await;
    assert_eq!(stored(&fixture).await, pairs(&[("off", "live"), ("live", "off"), ("off", "shadow")]));
}

/// Unrecorded flips of `bare` and `plain` down. An attempt to record the first one alone timed out, and has reached the
/// store since.
async fn first_of_two_delivered_late() -> Fixture {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["bare", "plain"] {
        fixture.flip(route, forced(State::Live)).await.unwrap();
    }
    fixture.store.delay_flips.store(true, Ordering::SeqCst);
    for route in ["bare", "plain"] {
        assert!(!fixture.flip(route, off()).await.unwrap().recorded);
    }
    fixture.store.deliver_delayed().await;
    fixture.store.delay_flips.store(false, Ordering::SeqCst);
    fixture
}

#[tokio::test(start_paused = true)]
async fn a_flip_down_that_an_earlier_attempt_recorded_is_not_recorded_again() {
    let fixture = first_of_two_delivered_late().await;
    wait_until_recorded(&fixture).await;
    for route in ["bare", "plain"] {
        let flips = fixture.store.flips(Some(route.into()), 9).await.unwrap();
        assert_eq!(flips.iter().rev().map(|flip| flip.to.as_str()).collect::<Vec<_>>(), ["live", "off"]);
        assert_eq!(fixture.status(route).last.unwrap().number, flips[0].number);
    }
}

/// The attempt with both fails too.
#[tokio::test(start_paused = true)]
async fn what_an_attempt_finds_recorded_is_found_again_if_it_fails() {
    let fixture = first_of_two_delivered_late().await;
    fixture.store.refuse_after_newest.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(9)).await;
    fixture.store.refuse_after_newest.store(false, Ordering::SeqCst);
    wait_until_recorded(&fixture).await;
    let expected = [("off", "live"), ("off", "live"), ("live", "off"), ("live", "off")];
    assert_eq!(stored(&fixture).await, pairs(&expected));
}

/// The freeze caps the route below `only`, and the person's flip is recorded in place of a flip that only reverts the
/// raise.
#[tokio::test(start_paused = true)]
async fn a_flip_down_lowers_a_route_on_its_way_to_only_during_a_freeze() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", MoveRequest { percent: Percent::new(100.0), ..forced(State::Live) }).await.unwrap();
    silence(&fixture, true);
    let pending = fixture.flip("bare", forced(State::Only)).await.unwrap_err();
    assert!(matches!(pending, FlipError::Unconfirmed(Unconfirmed::Pending)), "{pending}");
    freezes::freeze(&fixture, Freeze::Instances).await.unwrap();
    fixture.flip("bare", off()).await.unwrap();
    silence(&fixture, false);
    freezes::wait_until_recorded(&fixture).await;
    let expected = pairs(&[("off", "live"), ("live", "only"), ("only", "off"), ("no", "instances")]);
    assert_eq!(stored(&fixture).await, expected);
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare"), effective(State::Off, EffectiveReason::Requested));
}
