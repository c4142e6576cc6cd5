//! The kill switch while the store takes nothing.

use super::*;
use crate::store::FlipRecord;

async fn freeze(house: &House, to: Freeze) -> Result<Frozen, FreezeError> {
    house.ladder.freeze(to, None, "ann".into()).await
}

/// Waits until the store has the newest freeze.
async fn recorded(house: &House) {
    while house.ladder.freeze_is_unrecorded() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn words(flips: &[FlipRecord]) -> Vec<(&str, &str)> {
    flips.iter().rev().map(|flip| (flip.from.as_str(), flip.to.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_freeze_is_in_force_though_the_store_refuses_it_and_is_recorded_when_it_can_be() {
    let house = House::open(files(&[])).await;
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.store.refuse.store(true, Ordering::SeqCst);
    let frozen = freeze(&house, Freeze::Instances).await.unwrap();
    assert_eq!((frozen.recorded, frozen.flip.number), (false, 0));
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Freeze));
    assert!(house.ladder.freeze_is_unrecorded());
    assert!(!freeze(&house, Freeze::Effects).await.unwrap().recorded);
    assert!(matches!(freeze(&house, Freeze::Instances).await, Err(FreezeError::Weaker)));
    // Its end cannot be recorded either: it is refused.
    let lifted = freeze(&house, Freeze::No).await;
    assert!(matches!(lifted, Err(FreezeError::Store(_))), "{lifted:?}");
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Effects);

    house.store.refuse.store(false, Ordering::SeqCst);
    recorded(&house).await;
    let flips = house.store.flips(None, 9).await.unwrap();
    assert_eq!(words(&flips), [("off", "live"), ("no", "effects")], "the newest, as it was before the first");
    let house = house.restarted(files(&[])).await;
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Effects);
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_a_freeze_that_was_not_recorded() {
    let house = House::open(files(&[])).await;
    house.store.refuse.store(true, Ordering::SeqCst);
    freeze(&house, Freeze::Effects).await.unwrap();
    let house = house.restarted(files(&[])).await;
    assert_eq!(house.ladder.flags().load().freeze, Freeze::No);
}

/// Both are recorded together, so that the history has the freeze.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_freeze_that_waits_is_recorded_with_it() {
    let house = House::open(files(&[])).await;
    house.store.refuse.store(true, Ordering::SeqCst);
    freeze(&house, Freeze::Instances).await.unwrap();
    house.store.refuse.store(false, Ordering::SeqCst);
    let lifted = freeze(&house, Freeze::No).await.unwrap();
    assert!(lifted.recorded && !house.ladder.freeze_is_unrecorded());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let flips = house.store.flips(None, 9).await.unwrap();
    assert_eq!(words(&flips), [("no", "instances"), ("instances", "no")]);
    assert_eq!(lifted.flip.number, flips[0].number);
}

/// The end of a freeze waits for the store, a new freeze comes: it is in force, and the end does not lift it.
#[tokio::test(start_paused = true)]
async fn a_freeze_is_not_lifted_by_an_end_that_was_asked_for_before() {
    let house = House::open(files(&[])).await;
    assert!(freeze(&house, Freeze::Instances).await.unwrap().recorded);
    house.store.silent.store(true, Ordering::SeqCst);
    house.store.lose.store(true, Ordering::SeqCst);
    let lifted = freeze(&house, Freeze::No).await;
    assert!(matches!(lifted, Err(FreezeError::NotKnown(NotKnown::Pending))), "{lifted:?}");
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Instances, "until the end is known to be recorded");
    assert!(!freeze(&house, Freeze::Effects).await.unwrap().recorded, "the end still waits for the store");
    house.store.silent.store(false, Ordering::SeqCst);
    house.store.lose.store(false, Ordering::SeqCst);
    recorded(&house).await;
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Effects);
    let flips = house.store.flips(None, 9).await.unwrap();
    assert_eq!(words(&flips), [("no", "instances"), ("instances", "no"), ("instances", "effects")]);
    let house = house.restarted(files(&[])).await;
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Effects);
}
