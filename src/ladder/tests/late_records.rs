//! What the store has although it counted as not recorded, and what another process has recorded after it: it is not
//! recorded a second time.

use super::followed::TwoProcesses;
use super::*;
use crate::store::FlipRecord;

/// Puts a record of another process into the store after this one: a copy of it, a second later, changed by `change`.
async fn put_after(fixture: &Fixture, before: &FlipRecord, change: impl FnOnce(&mut FlipRecord)) {
    let at = before.at + jiff::SignedDuration::from_secs(1);
    let mut next = FlipRecord { at, by: "bob".into(), from: before.to.clone(), ..before.clone() };
    change(&mut next);
    fixture.store.put(vec![next], None).await;
}

#[tokio::test(start_paused = true)]
async fn a_flip_down_that_was_recorded_does_not_lower_a_route_that_another_process_has_raised_since() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("plain", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    let down = one.flip("plain", to(State::Dark)).await.unwrap();
    assert!(!down.recorded);
    one.store.put(vec![down.flip.clone()], None).await;
    put_after(one, &down.flip, |up| up.to = "live".into()).await;
    let before = one.flips().await;
    one.record_all().await;
    assert_eq!(one.state("plain").state, State::Dark, "until the other flip is followed");
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("plain").state, State::Live);
    }
    assert_eq!(one.flips().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_was_recorded_does_not_freeze_again_what_another_process_has_ended() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    let freeze = one.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    assert!(!freeze.recorded);
    one.store.put(vec![freeze.flip.clone()], None).await;
    put_after(one, &freeze.flip, |end| end.to = "no".into()).await;
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.ladder.flags().load().freeze, Freeze::No);
    }
    assert_eq!(one.flips().await, 2);
}

/// It was to change nothing, so nobody has acknowledged what leaving `only` costs.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_does_not_take_a_route_out_of_only_that_another_process_has_raised() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    for fails in [&one.store.refuse_flips, &one.store.fail_reads] {
        fails.store(true, Ordering::SeqCst);
    }
    let unchanged = one.flip("bare", to(State::Live)).await.unwrap();
    assert!(!unchanged.recorded);
    put_after(one, &unchanged.flip, |up| up.to = "only".into()).await;
    one.store.fail_reads.store(false, Ordering::SeqCst);
    let before = one.flips().await;
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare").state, State::Only);
    }
    assert_eq!(one.flips().await, before);
}

/// The other flip is followed first: the reads that would find it fail when the unrecorded flip is to be recorded.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_does_not_take_a_route_out_of_only_that_is_followed_before_it_is_recorded() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    let live = one.store.flips(None, 1).await.unwrap().remove(0);
    put_after(one, &live, |up| up.to = "only".into()).await;
    let only = one.ladder.newer_moves().await.unwrap().unwrap();
    for fails in [&one.store.refuse_flips, &one.store.fail_reads] {
        fails.store(true, Ordering::SeqCst);
    }
    assert!(!one.flip("bare", to(State::Live)).await.unwrap().recorded);
    let mut declared = both.files.clone();
    declared.plans.candidate_move = None;
    declared.plans.in_force = one.ladder.plans_after(&only, &declared.routes).in_force;
    one.ladder.follow(only, declared, || {}).await.unwrap();
    assert_eq!(one.state("bare").state, State::Only);
    one.store.fail_reads.store(false, Ordering::SeqCst);
    let before = one.flips().await;
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare").state, State::Only);
    }
    assert_eq!(one.flips().await, before);
}

/// It is asked for twice, and the second time changes nothing.
#[tokio::test(start_paused = true)]
async fn a_flip_down_that_is_repeated_is_recorded_also_after_another_process_has_raised_the_route_to_only() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    for fails in [&one.store.refuse_flips, &one.store.fail_reads] {
        fails.store(true, Ordering::SeqCst);
    }
    let down = one.flip("bare", to(State::Off)).await.unwrap();
    let again = one.flip("bare", to(State::Off)).await.unwrap();
    assert_eq!((down.recorded, again.recorded, one.ladder.unrecorded_flips()), (false, false, 1));
    put_after(one, &down.flip, |up| up.to = "only".into()).await;
    one.store.fail_reads.store(false, Ordering::SeqCst);
    one.record_all().await;
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("bare").state, State::Off);
    }
}
