//! Flips to the state that a route already has in a process that does not know what the others have recorded.

use super::followed::TwoProcesses;
use super::*;
use crate::ladder::mover::ChangeOrigin;
use crate::store::FlipRecord;

fn set_cut_off(fixture: &Fixture, is_cut_off: bool) {
    fixture.store.fail_reads.store(is_cut_off, Ordering::SeqCst);
    fixture.store.refuse_flips.store(is_cut_off, Ordering::SeqCst);
}

/// `plain` is in `dark` in both. Then the second process is cut off, and the first one moves the route.
async fn cut_off(moved_to: State) -> TwoProcesses {
    let both = TwoProcesses::open(files(&[])).await;
    both.one.flip("plain", forced(State::Dark)).await.unwrap();
    both.follow(&both.two).await;
    let last = both.one.store.flips(None, 1).await.unwrap().remove(0);
    let at = last.at + jiff::SignedDuration::from_secs(1);
    set_cut_off(&both.two, true);
    let moved = FlipRecord { from: "dark".into(), to: moved_to.as_str().to_owned(), by: "bob".into(), at, ..last };
    both.one.store.put(vec![moved], None).await;
    both
}

/// The first process has raised the route.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_state_is_recorded_later_if_the_moves_of_others_are_not_known() {
    let both = cut_off(State::Live).await;
    let TwoProcesses { one, two, .. } = &both;
    let before = two.ladder.mover.in_force().inputs().positions;
    let down = two.flip("plain", to(State::Dark)).await.unwrap();
    assert_eq!((down.changed, down.recorded, down.flip.number), (true, false, 0));
    let again = two.flip("plain", to(State::Dark)).await.unwrap();
    assert!(!again.recorded && two.ladder.unrecorded_flips() == 1);
    // A move that was computed before does not make it superfluous.
    two.ladder.mover.put_in_force(before, ChangeOrigin::Own);
    assert_eq!(two.ladder.unrecorded_flips(), 1);
    set_cut_off(two, false);
    while two.ladder.unrecorded_flips() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("plain").state, State::Dark);
    }
    let newest = one.store.flips(None, 1).await.unwrap().remove(0);
    assert_eq!((newest.to.as_str(), newest.by.as_str()), ("dark", "ann"));
}

/// The first process has lowered the route, which is read when the flip is to be recorded: before the answer is given.
#[tokio::test(start_paused = true)]
async fn a_superseded_flip_is_answered_with_the_number_of_the_flip_that_supersedes_it() {
    let both = cut_off(State::Shadow).await;
    let TwoProcesses { one, two, .. } = &both;
    let read_again = async {
        while two.ladder.unrecorded_flips() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        two.store.fail_reads.store(false, Ordering::SeqCst);
    };
    let (down, ()) = tokio::join!(two.flip("plain", to(State::Dark)), read_again);
    let down = down.unwrap();
    set_cut_off(two, false);
    let newest = one.newest().await;
    assert_eq!((down.changed, down.recorded, down.flip.number, down.newest_flip), (true, true, 0, newest));
    assert_eq!(one.flips().await, 2, "it would raise the route");
    both.follow(two).await;
    assert_eq!(two.state("plain").state, State::Shadow);
}

/// Another process can only have lowered it.
#[tokio::test(start_paused = true)]
async fn a_flip_to_only_is_not_answered_if_the_moves_of_others_are_not_known() {
    let both = TwoProcesses::open(files(&[])).await;
    both.one.flip("plain", forced(State::Only)).await.unwrap();
    both.follow(&both.two).await;
    set_cut_off(&both.two, true);
    let unknown = both.two.flip("plain", to(State::Only)).await;
    assert!(matches!(unknown, Err(FlipError::Store(_) | FlipError::Unconfirmed(_))), "{unknown:?}");
    assert_eq!(both.two.ladder.unrecorded_flips(), 0);
}

#[tokio::test]
async fn a_flip_that_changes_nothing_is_answered_with_the_number_of_the_newest_one() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("plain", forced(State::Dark)).await.unwrap();
    both.follow(two).await;
    let unchanged = two.flip("plain", to(State::Dark)).await.unwrap();
    assert_eq!((unchanged.changed, unchanged.flip.number, unchanged.newest_flip), (false, 0, one.newest().await));
}

/// The first process has made the share smaller. The second one follows that after its own flip, to the share that it
/// still has, was made, and before it is recorded.
#[tokio::test(start_paused = true)]
async fn a_flip_to_the_present_share_does_not_enlarge_a_share_that_was_made_smaller_meanwhile() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    let half = || MoveRequest { force: true, reason: Some("we know".into()), ..percent(State::Live, 50.0) };
    one.flip("plain", forced(State::Live)).await.unwrap();
    one.flip("plain", half()).await.unwrap();
    both.follow(two).await;
    one.flip("plain", percent(State::Live, 20.0)).await.unwrap();
    let moves = two.ladder.newer_moves().await.unwrap().unwrap();
    let mover = &two.ladder.mover;
    let followed = moves.apply_to(&mover.in_force().inputs().positions);
    set_cut_off(two, true);
    let stays = two.flip("plain", half()).await.unwrap();
    assert!(!stays.recorded && two.ladder.unrecorded_flips() == 1);
    mover.put_in_force(followed, ChangeOrigin::OtherProcess(&moves));
    assert_eq!(two.ladder.unrecorded_flips(), 0);
    let flags = two.ladder.flags().load();
    assert_eq!(flags.route(&"plain".into()).unwrap().shares.of(State::Live), Percent::new(20.0).unwrap());
}
