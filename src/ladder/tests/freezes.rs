//! The kill switch while the store takes nothing.

use tokio::time::Instant as TokioInstant;

use super::*;
use crate::store::FlipRecord;

pub(super) async fn freeze(fixture: &Fixture, to: Freeze) -> Result<Frozen, FreezeError> {
    fixture.ladder.freeze(to, None, "ann".into()).await
}

/// Waits until the store has the newest freeze.
pub(super) async fn wait_until_recorded(fixture: &Fixture) {
    while fixture.ladder.freeze_is_unrecorded() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_process_a_freeze_is_recorded_or_the_log_says_that_it_is_lost() {
    for is_recorded in [true, false] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.store.refuse_flips.store(true, Ordering::SeqCst);
        assert!(!freeze(&fixture, Freeze::Effects).await.unwrap().recorded);
        let (log, _guard) = super::captured_log::capture_log();
        fixture.ladder.log_unrecorded();
        let ladder = fixture.ladder.clone();
        let end = tokio::spawn(async move { ladder.end_moves(Duration::from_secs(20)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!end.is_finished());
        fixture.store.refuse_flips.store(!is_recorded, Ordering::SeqCst);
        end.await.unwrap();
        assert_eq!(fixture.ladder.freeze_is_unrecorded(), !is_recorded);
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert!(log.contains("if the process ends before it does, it is lost"), "{log}");
        assert_eq!(log.contains("the freeze, which is lost"), !is_recorded, "{log}");
        let fixture = fixture.restart(files(&[])).await;
        assert_eq!(fixture.ladder.flags().load().freeze != Freeze::No, is_recorded);
    }
}

/// The end of the process has recorded what there was, and still waits for something else.
#[tokio::test(start_paused = true)]
async fn a_freeze_that_is_set_late_in_a_stop_is_recorded_or_the_log_says_that_it_is_lost() {
    for is_recorded in [true, false] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.ladder.end_moves(Duration::from_secs(20)).await;
        fixture.store.refuse_flips.store(true, Ordering::SeqCst);
        assert!(!freeze(&fixture, Freeze::Effects).await.unwrap().recorded);
        let (log, _guard) = super::captured_log::capture_log();
        let (ladder, until) = (fixture.ladder.clone(), TokioInstant::now() + Duration::from_secs(20));
        let end = tokio::spawn(async move { ladder.end_freezes(until).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!end.is_finished());
        fixture.store.refuse_flips.store(!is_recorded, Ordering::SeqCst);
        end.await.unwrap();
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        assert_eq!(log.contains("the freeze, which is lost"), !is_recorded, "{log}");
    }
}

/// The log has named the first one as lost before the second one comes.
#[tokio::test(start_paused = true)]
async fn of_two_freezes_that_a_stop_loses_the_log_names_each_once() {
    for is_replaced in [true, false] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.store.refuse_flips.store(true, Ordering::SeqCst);
        assert!(!freeze(&fixture, Freeze::Instances).await.unwrap().recorded);
        let (log, _guard) = super::captured_log::capture_log();
        fixture.ladder.end_moves(Duration::from_secs(2)).await;
        if is_replaced {
            assert!(!freeze(&fixture, Freeze::Effects).await.unwrap().recorded);
        }
        fixture.ladder.end_freezes(TokioInstant::now() + Duration::from_secs(20)).await;
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        let lost = log.lines().filter(|line| line.contains("the freeze, which is lost"));
        let names: Vec<_> = lost.map(|line| line.contains("effects")).collect();
        assert_eq!(names, if is_replaced { vec![false, true] } else { vec![false] }, "{log}");
    }
}

fn from_and_to(flips: &[FlipRecord]) -> Vec<(&str, &str)> {
    flips.iter().rev().map(|flip| (flip.from.as_str(), flip.to.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_freeze_is_in_force_though_the_store_refuses_it_and_is_recorded_when_it_can_be() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    let frozen = freeze(&fixture, Freeze::Instances).await.unwrap();
    assert_eq!((frozen.recorded, frozen.flip.number), (false, 0));
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    assert!(fixture.ladder.freeze_is_unrecorded());
    assert!(!freeze(&fixture, Freeze::Effects).await.unwrap().recorded);
    assert!(matches!(freeze(&fixture, Freeze::Instances).await, Err(FreezeError::Weaker)));
    // Its end cannot be recorded either: it is refused.
    let lifted = freeze(&fixture, Freeze::No).await;
    assert!(matches!(lifted, Err(FreezeError::Store(_))), "{lifted:?}");
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Effects);

    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    wait_until_recorded(&fixture).await;
    let flips = fixture.store.flips(None, 9).await.unwrap();
    assert_eq!(
        from_and_to(&flips),
        [("off", "live"), ("no", "effects")],
        "one record: the newest freeze, and the state before the first"
    );
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Effects);
}

/// A freeze does not lower a route in `only`, so a route that went there would escape it.
#[tokio::test(start_paused = true)]
async fn no_route_goes_to_only_during_a_freeze() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    freeze(&fixture, Freeze::Instances).await.unwrap();
    for requested in [to(State::Only), forced(State::Only)] {
        let refusal = fixture.refusal("bare", requested).await;
        assert!(refusal.contains("`pointsman freeze --off`"), "{refusal}");
    }
    let by_file = || edited(files(&[("bare", State::Only)]), "bare", |route| route.force = Some("we know".into()));
    fixture.ladder.reload(by_file(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    wait_until_recorded(&fixture).await;
    let fixture = fixture.restart(by_file()).await;
    assert_ne!(fixture.state("bare").state, State::Only);
    freeze(&fixture, Freeze::No).await.unwrap();
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
}

/// It counts as new until the freeze ends.
#[tokio::test(start_paused = true)]
async fn a_new_route_does_not_begin_in_only_during_a_freeze() {
    let mut without = files(&[]);
    without.routes.retain(|route| route.id.as_str() != "bare");
    let fixture = Fixture::open(without).await;
    freeze(&fixture, Freeze::Instances).await.unwrap();
    let by_file = || edited(files(&[("bare", State::Only)]), "bare", |route| route.force = Some("we know".into()));
    for _ in 0..2 {
        fixture.ladder.reload(by_file(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare").state, State::Shadow);
    }
    freeze(&fixture, Freeze::No).await.unwrap();
    fixture.ladder.reload(by_file(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Only);
}

/// The file gets its `force` while the process is stopped, also together with another id. A route whose file had it
/// before stays in `only`.
#[tokio::test(start_paused = true)]
async fn force_that_is_added_before_a_start_puts_no_route_in_only_during_a_freeze() {
    let by_file = |id: &str| {
        edited(files(&[("bare", State::Only)]), "bare", |route| {
            route.force = Some("we know".into());
            if id != "bare" {
                (route.id, route.was) = (id.into(), vec!["bare".into()]);
            }
        })
    };
    for (had_force, id) in [(false, "bare"), (true, "bare"), (false, "new"), (true, "new")] {
        let first = if had_force { by_file("bare") } else { files(&[("bare", State::Only)]) };
        let fixture = Fixture::open(first).await;
        freeze(&fixture, Freeze::Instances).await.unwrap();
        let mut fixture = fixture.restart(by_file(id)).await;
        for _ in 0..2 {
            assert_eq!(fixture.state(id).state == State::Only, had_force, "{id}");
            fixture = fixture.restart(by_file(id)).await;
        }
        freeze(&fixture, Freeze::No).await.unwrap();
        fixture.ladder.reload(by_file(id), || {}).await.unwrap();
        assert_eq!(fixture.state(id).state, State::Only);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_a_freeze_that_was_not_recorded() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    freeze(&fixture, Freeze::Effects).await.unwrap();
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::No);
}

/// The freeze and its end are recorded together, so that the history has the freeze.
#[tokio::test(start_paused = true)]
async fn the_end_of_an_unrecorded_freeze_is_recorded_with_it() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    freeze(&fixture, Freeze::Instances).await.unwrap();
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    let lifted = freeze(&fixture, Freeze::No).await.unwrap();
    assert!(lifted.recorded && !fixture.ladder.freeze_is_unrecorded());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let flips = fixture.store.flips(None, 9).await.unwrap();
    assert_eq!(from_and_to(&flips), [("no", "instances"), ("instances", "no")]);
    assert_eq!(lifted.flip.number, flips[0].number);
}

/// While the end of a freeze waits for the store, a new freeze is set: it stays in force, and the end does not lift it.
#[tokio::test(start_paused = true)]
async fn a_freeze_is_not_lifted_by_an_end_that_was_asked_for_before() {
    let fixture = Fixture::open(files(&[])).await;
    assert!(freeze(&fixture, Freeze::Instances).await.unwrap().recorded);
    fixture.store.fail_reads.store(true, Ordering::SeqCst);
    fixture.store.lose_replies.store(true, Ordering::SeqCst);
    let lifted = freeze(&fixture, Freeze::No).await;
    assert!(matches!(lifted, Err(FreezeError::Unconfirmed(Unconfirmed::Pending))), "{lifted:?}");
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Instances, "until the end is known to be recorded");
    assert!(!freeze(&fixture, Freeze::Effects).await.unwrap().recorded, "the end still waits for the store");
    fixture.store.fail_reads.store(false, Ordering::SeqCst);
    fixture.store.lose_replies.store(false, Ordering::SeqCst);
    wait_until_recorded(&fixture).await;
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Effects);
    let flips = fixture.store.flips(None, 9).await.unwrap();
    assert_eq!(from_and_to(&flips), [("no", "instances"), ("instances", "no"), ("instances", "effects")]);
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Effects);
}
