//! Routes whose file no longer has the `key` that a share below 100 % needs.

use super::*;

#[tokio::test]
async fn a_route_goes_down_to_a_share_whose_key_was_removed() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(20.0), ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    let without_key = || edited(files(&[]), "plain", |route| route.key = None);
    fixture.ladder.reload(without_key(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Live, EffectiveReason::Requested));
    // A share that the flip itself asks for is refused as before.
    let why = fixture.refusal("plain", percent(State::Dark, 30.0)).await;
    assert!(why.contains("needs a `key`"), "{why}");
    let done = fixture.flip("plain", to(State::Dark)).await.unwrap();
    assert_eq!(done.effective, effective(State::Shadow, EffectiveReason::Gate), "no caller is in the share of `dark`");
    let why = fixture.status("plain").refused.join("; ");
    assert!(why.contains("`plain` has no `key` any more"), "{why}");
    let fixture = fixture.restart(without_key()).await;
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
}

/// Without a `key` no caller is in such a share.
#[tokio::test]
async fn a_route_with_a_share_by_flip_goes_down_when_its_key_is_removed() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    let without_key = || edited(files(&[]), "plain", |route| route.key = None);
    fixture.ladder.reload(without_key(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Gate));
    let why = fixture.status("plain").refused.join("; ");
    assert!(why.contains("`plain` has no `key` any more"), "{why}");
    let fixture = fixture.restart(without_key()).await;
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Gate));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Live, EffectiveReason::Requested));
    fixture.flip("plain", percent(State::Dark, 20.0)).await.unwrap();
    fixture.ladder.reload(without_key(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
    fixture.flip("plain", MoveRequest { percent: Percent::new(100.0), ..forced(State::Dark) }).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
}

/// The gate of the share that the file asks for is shut, so the route keeps the share of a flip, which needs the key.
#[tokio::test]
async fn a_file_lowers_a_route_to_a_share_by_flip_and_takes_its_key_away() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(20.0), ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", MoveRequest { percent: Percent::new(50.0), ..forced(State::Live) }).await.unwrap();
    let lowered = || edited(files(&[("plain", State::Dark)]), "plain", |route| route.key = None);
    fixture.ladder.reload(lowered(), || {}).await.unwrap();
    assert_eq!(
        fixture.state("plain"),
        effective(State::Shadow, EffectiveReason::Gate),
        "no caller is in the share of `dark`"
    );
    let status = fixture.status("plain");
    assert_eq!((status.requested, status.last.unwrap().by.as_str()), (State::Dark, "file"));
    let why = status.refused.join("; ");
    assert!(why.contains("its share of `dark` stays 20") && why.contains("has no `key` any more"), "{why}");
    let fixture = fixture.restart(lowered()).await;
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
}
