//! Releases and ends of freezes that another process has recorded, together with flips or alone.

use super::followed::TwoProcesses;
use super::guard::{crossing, guarded};
use super::*;

impl TwoProcesses {
    /// `bare` is requested `live`, and held at `dark` by its guard, in both.
    async fn with_a_latch() -> Self {
        let both = Self::open(guarded("bare", |_| {})).await;
        both.one.flip("bare", forced(State::Live)).await.unwrap();
        both.one.ladder.act_on_crossing(&crossing("bare", State::Live));
        both.one.ladder.mover.in_force().wait_guard_recorded().await;
        both.follow(&both.two).await;
        assert_eq!(both.two.state("bare"), effective(State::Dark, EffectiveReason::Guard));
        both
    }
    /// Both are frozen, and `bare` is requested `live`.
    async fn frozen() -> Self {
        let both = Self::open(files(&[])).await;
        both.one.flip("bare", forced(State::Live)).await.unwrap();
        both.one.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
        both.follow(&both.two).await;
        assert_eq!(both.two.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
        both
    }
}

fn freeze(fixture: &Fixture) -> Freeze {
    fixture.ladder.flags().load().freeze
}

#[tokio::test]
async fn the_release_by_a_flip_down_is_recorded_after_the_flip() {
    for to_state in [State::Dark, State::Off] {
        let both = TwoProcesses::with_a_latch().await;
        let down = both.one.flip("bare", to(to_state)).await.unwrap();
        both.one.ladder.mover.in_force().wait_guard_recorded().await;
        let newest = both.one.store.flips(None, 1).await.unwrap().remove(0);
        let released = newest.guard.as_ref().is_some_and(|guard| guard.action == crate::store::GuardAction::Released);
        assert!(released && down.flip.number > 0 && newest.number > down.flip.number, "{newest:?}");
    }
}

/// At no moment the second process is where the guard does not let it be.
#[tokio::test]
async fn a_release_comes_into_force_together_with_the_flip_down_before_it() {
    let both = TwoProcesses::with_a_latch().await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("bare", to(State::Off)).await.unwrap();
    one.ladder.mover.in_force().wait_guard_recorded().await;
    // Read before the flip is in force.
    let _moves = two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!(two.state("bare").state, State::Dark);
    both.follow(two).await;
    assert_eq!(two.state("bare"), effective(State::Off, EffectiveReason::Requested));
    assert!(two.status("bare").guard.is_none());
}

#[tokio::test]
async fn the_end_of_a_freeze_comes_into_force_together_with_the_flip_down_before_it() {
    let both = TwoProcesses::frozen().await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("bare", to(State::Off)).await.unwrap();
    one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    let _moves = two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!(freeze(two), Freeze::Instances);
    both.follow(two).await;
    assert_eq!(two.state("bare"), effective(State::Off, EffectiveReason::Requested));
    assert_eq!(freeze(two), Freeze::No);
}

/// Nothing is waited for, not even for the files to be prepared.
#[tokio::test]
async fn a_release_or_an_end_of_a_freeze_that_comes_alone_is_in_force_at_once() {
    let both = TwoProcesses::with_a_latch().await;
    let release = GuardRelease { reason: "it is mended".into(), by: "ann".into(), force: true };
    both.one.ladder.release_guard(&"bare".into(), release).await.unwrap();
    both.two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!(both.two.state("bare"), effective(State::Live, EffectiveReason::Requested));
    let both = TwoProcesses::frozen().await;
    both.one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    both.two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!(both.two.state("bare"), effective(State::Live, EffectiveReason::Requested));
    both.follow(&both.two).await;
}

#[tokio::test]
async fn what_lowers_is_in_force_at_once_also_together_with_flips() {
    let both = TwoProcesses::open(guarded("bare", |_| {})).await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(two).await;
    one.flip("plain", forced(State::Shadow)).await.unwrap();
    one.ladder.act_on_crossing(&crossing("bare", State::Live));
    one.ladder.mover.in_force().wait_guard_recorded().await;
    two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!(two.state("bare"), effective(State::Dark, EffectiveReason::Guard));
    one.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    two.ladder.newer_moves().await.unwrap().unwrap();
    assert_eq!((two.state("plain").state, freeze(two)), (State::Off, Freeze::Effects));
    both.follow(two).await;
}

/// The route went to `only` after the freeze: that is not reverted where both are followed at the same time.
#[tokio::test]
async fn a_flip_to_only_after_the_end_of_a_freeze_is_followed() {
    let both = TwoProcesses::frozen().await;
    let TwoProcesses { one, two, .. } = &both;
    one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    one.flip("bare", forced(State::Only)).await.unwrap();
    let before = one.flips().await;
    both.follow(two).await;
    assert_eq!((two.state("bare").state, freeze(two)), (State::Only, Freeze::No));
    assert_eq!(two.flips().await, before, "to follow records nothing");
}

/// What was read first is put in force last: the freeze that came in between is not lifted by it.
#[tokio::test]
async fn an_end_of_a_freeze_does_not_lift_a_weaker_freeze_that_was_read_since() {
    let both = TwoProcesses::frozen().await;
    let TwoProcesses { one, two, files } = &both;
    one.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    both.follow(two).await;
    one.flip("bare", to(State::Off)).await.unwrap();
    one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    let older = two.ladder.newer_moves().await.unwrap().unwrap();
    one.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
    two.ladder.newer_moves().await.unwrap().unwrap();
    two.ladder.follow(older, files.clone(), || {}).await.unwrap();
    assert_eq!(freeze(two), Freeze::Effects, "what comes next is known, and is weaker");
    both.follow(two).await;
    assert_eq!(freeze(two), Freeze::Instances);
}

/// The last change of the kill switch in the store.
async fn stored_freeze(fixture: &Fixture) -> String {
    let flips = fixture.store.flips(None, 100).await.unwrap();
    flips.into_iter().find(|flip| flip.route.is_none()).map_or_else(|| "none".to_owned(), |flip| flip.to)
}

/// The second process freezes while the store takes nothing from it, and the first one more.
#[tokio::test(start_paused = true)]
async fn a_freeze_that_is_recorded_late_does_not_take_the_place_of_a_stronger_one() {
    for follows_first in [true, false] {
        let both = TwoProcesses::open(files(&[])).await;
        let TwoProcesses { one, two, .. } = &both;
        one.store.refuse_flips.store(true, Ordering::SeqCst);
        let late = two.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
        assert!(!late.recorded);
        let stronger = crate::store::FlipRecord { to: "effects".into(), by: "bob".into(), ..late.flip };
        one.store.put(vec![stronger], None).await;
        if follows_first {
            both.follow(two).await;
            assert_eq!((freeze(two), two.ladder.freeze_is_unrecorded()), (Freeze::Effects, false));
        }
        one.store.refuse_flips.store(false, Ordering::SeqCst);
        super::freezes::wait_until_recorded(two).await;
        assert_eq!((stored_freeze(one).await.as_str(), one.flips().await), ("effects", 1));
        for of in [one, two] {
            both.follow(of).await;
            assert_eq!(freeze(of), Freeze::Effects, "{follows_first}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_is_recorded_late_takes_the_place_of_a_weaker_one() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    let late = two.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    let weaker = crate::store::FlipRecord { to: "instances".into(), by: "bob".into(), ..late.flip };
    one.store.put(vec![weaker], None).await;
    both.follow(two).await;
    assert!(two.ladder.freeze_is_unrecorded());
    one.store.refuse_flips.store(false, Ordering::SeqCst);
    super::freezes::wait_until_recorded(two).await;
    assert_eq!(stored_freeze(one).await, "effects");
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(freeze(of), Freeze::Effects);
    }
}

/// The process that recorded the flip had it in force before the freeze.
#[tokio::test]
async fn a_flip_to_only_before_a_freeze_is_followed() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(two).await;
    one.flip("bare", forced(State::Only)).await.unwrap();
    one.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
    let before = one.flips().await;
    both.follow(two).await;
    assert_eq!((two.state("bare").state, freeze(two)), (State::Only, Freeze::Instances));
    assert_eq!(two.flips().await, before, "to follow records nothing");
}

/// The freeze of the second process is as strong as the one that is in force already.
#[tokio::test]
async fn an_end_of_a_freeze_does_not_end_one_that_another_process_has_set_since() {
    let both = TwoProcesses::frozen().await;
    let TwoProcesses { one, two, .. } = &both;
    let mover = &one.ladder.mover;
    let prepare = |request| mover.kill_switch().prepare_end(mover.in_force(), request, None, "ann".into());
    let request = || (mover.kill_switch().request_end(), *one.ladder.newest_in_force().borrow());
    let early = request();
    two.ladder.freeze(Freeze::Instances, None, "bob".into()).await.unwrap();
    both.follow(one).await;
    assert!(matches!(prepare(early), Err(FreezeError::Superseded)));
    // It is recorded, and the reply comes after the next freeze was followed.
    let late = request();
    let end = prepare(late).unwrap();
    one.store.put(vec![end.flip], None).await;
    let recorded = one.store.flips(None, 1).await.unwrap().remove(0);
    two.ladder.freeze(Freeze::Instances, None, "bob".into()).await.unwrap();
    both.follow(one).await;
    assert_eq!(mover.kill_switch().apply_recorded_end(mover.in_force(), late.0, &recorded), None);
    assert_eq!(freeze(one), Freeze::Instances);
    one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(freeze(of), Freeze::No);
    }
}

/// The freeze was set by a process that knew of no end. Whoever asks for the end again knows of that freeze.
#[tokio::test]
async fn an_end_of_a_freeze_does_not_end_one_that_comes_into_force_while_the_end_waits() {
    let both = TwoProcesses::frozen().await;
    let TwoProcesses { one, two, .. } = &both;
    two.ladder.freeze(Freeze::Instances, None, "bob".into()).await.unwrap();
    let ending = one.ladder.freeze(Freeze::No, None, "ann".into());
    let (ended, ()) = tokio::join!(ending, both.follow(one));
    assert!(matches!(ended, Err(FreezeError::Superseded)), "{ended:?}");
    assert_eq!(freeze(one), Freeze::Instances);
    one.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(freeze(of), Freeze::No);
    }
}

/// The other process does not know of the freeze. A route that it flipped to `only` before the freeze was set stays
/// there, as routes in `only` do in a freeze. To set the freeze once more does not change since when it holds.
#[tokio::test(start_paused = true)]
async fn a_flip_to_only_of_another_process_is_capped_by_an_earlier_freeze_that_is_not_recorded() {
    let second = 1_000_000_000;
    for (nanoseconds, repeats, becomes) in [
        (second, false, effective(State::Shadow, EffectiveReason::Freeze)),
        (-second, false, effective(State::Only, EffectiveReason::Requested)),
        (1, true, effective(State::Shadow, EffectiveReason::Freeze)),
    ] {
        let both = TwoProcesses::open(files(&[])).await;
        let TwoProcesses { one, two, .. } = &both;
        one.flip("bare", forced(State::Live)).await.unwrap();
        both.follow(two).await;
        let live = one.store.flips(None, 1).await.unwrap().remove(0);
        one.store.refuse_flips.store(true, Ordering::SeqCst);
        let freeze = two.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
        assert!(!freeze.recorded);
        if repeats {
            let again = two.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
            assert!(!again.recorded && again.flip.at > freeze.flip.at);
        }
        let (from, to) = ("live".to_owned(), "only".to_owned());
        let at = freeze.flip.at + jiff::SignedDuration::from_nanos(nanoseconds);
        one.store.put(vec![crate::store::FlipRecord { from, to, at, by: "bob".into(), ..live }], None).await;
        both.follow(two).await;
        assert_eq!(two.state("bare"), becomes, "{nanoseconds} ns after the freeze");
    }
}
