//! Edits of the shares in a file.

use super::*;

/// The files with these shares of `plain`, in `off`.
fn with_shares(shares: &[(State, f64)]) -> DeclaredFiles {
    edited(files(&[("plain", State::Off)]), "plain", |route| {
        for (rung, percent) in shares {
            route.shares = route.shares.with(*rung, Percent::new(*percent).unwrap());
        }
    })
}

#[tokio::test]
async fn an_edit_of_the_shares_alone_keeps_the_state_and_the_other_shares_of_the_last_flip() {
    let (live, dark) = (|share| (State::Live, share), |share| (State::Dark, share));
    let mut fixture = Fixture::open(with_shares(&[live(50.0)])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    let shares = |fixture: &Fixture| {
        let shares = fixture.status("plain").shares;
        (fixture.state("plain").state, shares.of(State::Dark), shares.of(State::Live))
    };
    let live_with = |dark, live| (State::Live, Percent::new(dark).unwrap(), Percent::new(live).unwrap());
    fixture.ladder.reload(with_shares(&[live(50.0), dark(60.0)]), || {}).await.unwrap();
    assert_eq!(shares(&fixture), live_with(60.0, 10.0));
    fixture = fixture.restart(with_shares(&[live(5.0), dark(60.0)])).await;
    assert_eq!(shares(&fixture), live_with(60.0, 5.0));
    // A larger share of `live` is refused by its gate and changes nothing.
    fixture.ladder.reload(with_shares(&[live(20.0), dark(60.0)]), || {}).await.unwrap();
    assert_eq!(shares(&fixture), live_with(60.0, 5.0));
    assert!(!fixture.status("plain").refused.is_empty());
    fixture.flip("plain", to(State::Off)).await.unwrap();
    fixture.ladder.reload(with_shares(&[live(30.0), dark(60.0)]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Off, "an edit of a share does not undo a flip");
}

#[tokio::test]
async fn an_edit_of_the_shares_alone_leaves_a_route_in_only() {
    let fixture = Fixture::open(with_shares(&[(State::Live, 100.0)])).await;
    fixture.flip("plain", forced(State::Only)).await.unwrap();
    fixture.ladder.reload(with_shares(&[(State::Live, 40.0)]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain").state, State::Only);
    let fixture = fixture.restart(with_shares(&[(State::Live, 70.0)])).await;
    assert_eq!(fixture.state("plain").state, State::Only);
    assert!(fixture.status("plain").refused.is_empty(), "{:?}", fixture.status("plain").refused);
}

/// In `live`, callers outside its share are in `dark`, up to the share of `dark`.
#[tokio::test]
async fn in_live_a_larger_share_of_dark_passes_the_gate_of_dark() {
    let declared = |live, dark| with_shares(&[(State::Live, live), (State::Dark, dark)]);
    let fixture = Fixture::open(declared(10.0, 50.0)).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    let shares = || [State::Live, State::Dark].map(|rung| fixture.status("plain").shares.of(rung));
    let expected = |live, dark| [Percent::new(live).unwrap(), Percent::new(dark).unwrap()];
    // Together with a smaller share of `live`, which is taken; then alone.
    for (live, dark) in [(5.0, 60.0), (5.0, 70.0)] {
        fixture.ladder.reload(declared(live, dark), || {}).await.unwrap();
        assert_eq!((fixture.state("plain").state, shares()), (State::Live, expected(5.0, 50.0)));
        assert!(
            fixture.status("plain").refused.iter().any(|why| why.contains("0 of")),
            "{:?}",
            fixture.status("plain")
        );
    }
    fixture.ladder.reload(declared(5.0, 50.0), || {}).await.unwrap();
    assert!(fixture.status("plain").refused.is_empty());
    let flip = |percent| MoveRequest { percent: Percent::new(percent), ..to(State::Dark) };
    assert!(fixture.flip("plain", flip(60.0)).await.is_err(), "on the way down too");
    fixture.flip("plain", flip(50.0)).await.unwrap();
    assert_eq!(shares()[1], Percent::new(50.0).unwrap());
}

/// An edit that only drops `force` lowers it too: without a flip, nothing else supports a state above `shadow`.
#[tokio::test]
async fn an_edit_of_a_share_that_drops_force_lowers_a_route_without_a_flip_at_once() {
    let declared = |share, force: Option<&str>| {
        edited(files(&[("plain", State::Live)]), "plain", |route| {
            route.shares = route.shares.with(State::Live, Percent::new(share).unwrap());
            route.force = force.map(Into::into);
        })
    };
    for share in [0.5, 100.0] {
        let fixture = Fixture::open(declared(1.0, Some("we know"))).await;
        assert_eq!(fixture.state("plain").state, State::Live);
        fixture.ladder.reload(declared(share, None), || {}).await.unwrap();
        assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
        assert!(fixture.status("plain").refused.iter().any(|why| why.contains("force")), "{share}");
        let fixture = fixture.restart(declared(share, None)).await;
        assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate), "as before the restart");
        fixture.ladder.reload(declared(share, Some("again")), || {}).await.unwrap();
        assert_eq!(fixture.state("plain").state, State::Live);
    }
}
