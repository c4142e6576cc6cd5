//! What a guard did, and its release, while another process records what its own guard did.

use super::followed::TwoProcesses;
use super::guard::{crossing, guarded};
use super::*;
use crate::store::{FlipRecord, GuardAction, GuardRecord};

/// `bare` is requested `live`, and held at `dark` by its guard, in both. Then nothing of the first process reaches the
/// store.
async fn latched() -> TwoProcesses {
    let both = TwoProcesses::open(guarded("bare", |guard| guard.in_dark = true)).await;
    both.one.flip("bare", forced(State::Live)).await.unwrap();
    both.one.ladder.act_on_crossing(&crossing("bare", State::Live));
    both.one.ladder.mover.in_force().wait_guard_recorded().await;
    both.follow(&both.two).await;
    both.one.store.refuse_flips.store(true, Ordering::SeqCst);
    both
}

/// The guard of the second process lowers the route to `shadow`.
async fn lower_to_shadow(both: &TwoProcesses) {
    let mut last = last_action(&both.one).await;
    let guard = last.guard.take().unwrap();
    let guard = Some(GuardRecord { action: GuardAction::Lowered, limit: Some(State::Shadow), ..guard });
    let at = last.at + jiff::SignedDuration::from_secs(1);
    both.one.store.put(vec![FlipRecord { at, to: "shadow".into(), guard, ..last }], None).await;
}

async fn last_action(fixture: &Fixture) -> FlipRecord {
    fixture.store.flips(Some(crate::store::guard_key(&"bare".into())), 1).await.unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_recorded_late_does_not_end_a_newer_latch() {
    for follows_first in [false, true] {
        let both = latched().await;
        let TwoProcesses { one, two, .. } = &both;
        assert!(!one.flip("bare", to(State::Dark)).await.unwrap().recorded);
        assert!(one.status("bare").guard.is_none());
        lower_to_shadow(&both).await;
        if follows_first {
            // At once, also while the store takes nothing.
            one.ladder.newer_moves().await.unwrap().unwrap();
            assert_eq!(one.state("bare"), effective(State::Shadow, EffectiveReason::Guard));
        }
        one.record_all().await;
        assert_eq!(last_action(one).await.guard.unwrap().action, GuardAction::Lowered);
        for of in [one, two] {
            both.follow(of).await;
            assert_eq!(of.state("bare"), effective(State::Shadow, EffectiveReason::Guard), "{follows_first}");
            assert_eq!(of.status("bare").requested, State::Dark);
        }
    }
}

/// The action that is recorded late would limit the route less than the newer one does.
#[tokio::test(start_paused = true)]
async fn an_action_that_is_recorded_late_does_not_raise_a_lower_limit() {
    let both = latched().await;
    let TwoProcesses { one, two, .. } = &both;
    let release = GuardRelease { reason: "it is mended".into(), by: "ann".into(), force: true };
    one.store.refuse_flips.store(false, Ordering::SeqCst);
    one.ladder.release_guard(&"bare".into(), release).await.unwrap();
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    one.ladder.act_on_crossing(&crossing("bare", State::Live));
    lower_to_shadow(&both).await;
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare"), effective(State::Shadow, EffectiveReason::Guard));
    }
}

/// The write counted as lost, and reaches the store before it is tried again.
#[tokio::test(start_paused = true)]
async fn actions_whose_record_came_late_are_not_recorded_again() {
    let both = latched().await;
    let TwoProcesses { one, two, .. } = &both;
    // The latch is ended, and the guard acts again.
    assert!(!one.flip("bare", to(State::Dark)).await.unwrap().recorded);
    one.ladder.act_on_crossing(&crossing("bare", State::Dark));
    let unrecorded = one.ladder.mover.in_force().inputs();
    let flips = unrecorded.unrecorded.iter().map(|unrecorded| unrecorded.flip.clone());
    let all: Vec<_> = flips.chain(unrecorded.guards.unrecorded().into_iter().map(|(_, action)| action)).collect();
    assert_eq!(all.len(), 3);
    one.store.put(all, None).await;
    let before = one.flips().await;
    one.record_all().await;
    assert_eq!(one.flips().await, before);
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare"), effective(State::Shadow, EffectiveReason::Guard));
    }
}

/// The write of a latch counted as lost, and another process has released it since.
#[tokio::test(start_paused = true)]
async fn a_latch_that_was_recorded_is_not_recorded_again_after_its_release() {
    let both = latched().await;
    let TwoProcesses { one, two, .. } = &both;
    one.store.refuse_flips.store(false, Ordering::SeqCst);
    let release = GuardRelease { reason: "it is mended".into(), by: "ann".into(), force: true };
    one.ladder.release_guard(&"bare".into(), release).await.unwrap();
    both.follow(two).await;
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    one.ladder.act_on_crossing(&crossing("bare", State::Live));
    let (_, latch) = one.ladder.mover.in_force().inputs().guards.unrecorded().remove(0);
    let guard = GuardRecord { action: GuardAction::Released, limit: None, ..latch.guard.clone().unwrap() };
    let (at, to, from) = (latch.at + jiff::SignedDuration::from_secs(1), latch.from.clone(), latch.to.clone());
    let released = FlipRecord { at, to, from, by: "bob".into(), guard: Some(guard), ..latch.clone() };
    one.store.put(vec![latch, released], None).await;
    let before = one.flips().await;
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare"), effective(State::Live, EffectiveReason::Requested));
    }
    assert_eq!(one.flips().await, before);
}
