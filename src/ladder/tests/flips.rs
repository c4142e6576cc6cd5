//! Flips by people.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn up_one_rung_at_a_time_and_only_through_the_gate() {
    let house = House::open(files(&[])).await;
    assert_eq!(house.state("plain"), stands(State::Off, Why::Unproven));
    let done = house.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!((done.changed, done.flip.number, done.effective), (true, 1, stands(State::Shadow, Why::Requested)));
    assert_eq!((done.flip.by.as_str(), done.flip.from.as_str(), done.flip.to.as_str()), ("ann", "off", "shadow"));
    assert_eq!(house.state("plain"), done.effective);

    assert!(
        house.refused("plain", to(State::Dark)).await.starts_with("the gate is shut: needs 20 more compared pairs")
    );
    assert!(
        house.refused("plain", to(State::Live)).await.contains("goes up one rung at a time, and `shadow` to `live`")
    );
    assert!(house.refused("plain", FlipRequest { force: true, ..to(State::Dark) }).await.contains("wants a reason"));

    let done = house.flip("plain", forced(State::Live)).await.unwrap();
    assert!(done.flip.forced && done.flip.evidence.is_object());
    assert_eq!(house.state("plain"), stands(State::Live, Why::Requested));
    let status = house.status("plain");
    assert_eq!(status.forced.as_deref(), Some("a drill"));
    let next = status.next.unwrap();
    assert!(next.to == State::Only && next.missing.len() == 1, "{next:?}");

    house.answers("plain");
    let done = house
        .flip("plain", FlipRequest { force: true, reason: Some("no need".into()), ..to(State::Only) })
        .await
        .unwrap();
    assert!(!done.flip.forced, "the gate was open");
    assert_eq!(house.status("plain").next, None);
}

#[tokio::test]
async fn only_wants_everybody_live() {
    let house = House::open(files(&[])).await;
    let ask = FlipRequest { percent: Percent::new(10.0), ..forced(State::Live) };
    house.flip("plain", ask).await.unwrap();
    house.answers("plain");
    assert!(house.refused("plain", to(State::Only)).await.contains("needs a share of 100 % in live"));
    let done = house.flip("plain", percent(State::Live, 100.0)).await.unwrap();
    assert!(done.changed, "a share alone is a flip too");
    house.flip("plain", to(State::Only)).await.unwrap();
}

#[tokio::test]
async fn where_it_stands_already_nothing_is_recorded() {
    let house = House::open(files(&[])).await;
    house.flip("plain", percent(State::Shadow, 50.0)).await.unwrap();
    for ask in [to(State::Shadow), percent(State::Shadow, 50.0), forced(State::Shadow)] {
        let done = house.flip("plain", ask).await.unwrap();
        assert!(!done.changed && done.flip.number == 0);
        assert_eq!(done.flip.reason.as_deref(), Some("`plain` is `shadow` already"));
    }
    assert_eq!(house.flips().await, 1);
    assert!(house.flip("plain", percent(State::Shadow, 51.0)).await.unwrap().changed);
}

#[tokio::test]
async fn what_makes_no_sense_no_force_passes() {
    let house = House::open(files(&[])).await;
    for (route, ask, sentence) in [
        ("list", forced(State::Shadow), "`list` has no workflow"),
        (
            "bare",
            FlipRequest { percent: Percent::new(5.0), ..forced(State::Live) },
            "a share below 100 % in `live` wants a `key`",
        ),
        ("plain", percent(State::Off, 5.0), "`off` has no share"),
        ("create", forced(State::Dark), "`create` cannot go above its followers, they go first: `follow` is `off`"),
    ] {
        assert!(house.refused(route, ask).await.contains(sentence), "{sentence}");
    }
    let error = house.flip("plian", to(State::Shadow)).await.unwrap_err();
    assert!(matches!(error, FlipError::UnknownRoute(_, Some(near)) if near == "plain"));
}

#[tokio::test]
async fn a_family_moves_together_and_followers_go_first() {
    let house = House::open(files(&[])).await;
    assert!(house.refused("create", to(State::Shadow)).await.contains("followers"));
    house.flip("follow", to(State::Shadow)).await.unwrap();
    house.flip("create", to(State::Shadow)).await.unwrap();
    // A follower has nothing to be compared on until its creator is dark.
    house.flip("follow", to(State::Dark)).await.unwrap();
    assert!(house.refused("create", to(State::Dark)).await.contains("needs 20 more"));
    assert!(house.refused("follow", to(State::Live)).await.contains("needs 20 more"));
    house.flip("follow", to(State::Off)).await.unwrap();
}

#[tokio::test]
async fn the_way_down_shows_the_horizon() {
    let house = House::open(files(&[])).await;
    for route in ["follow", "create"] {
        house.flip(route, forced(State::Only)).await.unwrap();
    }
    let known = "the engine owns 2 instances of `create` that legacy does not know; they stay with the engine";
    let refusal = house.refused("create", to(State::Live)).await;
    assert!(refusal.contains("wants an acknowledgement") && refusal.contains(known), "{refusal}");
    let done = house.flip("create", FlipRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    assert!(done.horizon[0].starts_with(known), "{:?}", done.horizon);
    assert_eq!(done.horizon[1], "`list` (GET /orders) is answered by legacy and will not show them");

    let done = house.flip("create", to(State::Off)).await.unwrap();
    assert_eq!(done.horizon.len(), 2, "from live it is shown, and nothing is asked");
    assert_eq!(house.ladder.horizon(&"follow".into()).await.unwrap().len(), 2);
    assert_eq!(house.ladder.horizon(&"plain".into()).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn flips_and_the_kill_switch_survive_a_restart() {
    let house = House::open(files(&[])).await;
    house.flip("plain", percent(State::Shadow, 25.0)).await.unwrap();
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.ladder.freeze(Freeze::Effects, Some("fire".into()), "ann".into()).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Freeze));

    let house = house.restarted(files(&[])).await;
    assert_eq!(house.ladder.flags().load().freeze, Freeze::Effects);
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Freeze));
    assert_eq!(house.status("plain").shares.shadow, Percent::new(25.0).unwrap());
    assert!(!house.status("plain").unproven && house.status("create").unproven);
    assert_eq!(house.status("bare").forced.as_deref(), Some("a drill"));
    let thaw = house.ladder.freeze(Freeze::No, None, "bob".into()).await.unwrap().flip;
    assert_eq!((thaw.from.as_str(), thaw.to.as_str(), thaw.route), ("effects", "no", None));
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
    assert_eq!(house.flips().await, 4);
}

#[tokio::test]
async fn health_lowers_and_lets_go_without_a_flip() {
    let house = House::open(files(&[])).await;
    house.flip("bare", forced(State::Live)).await.unwrap();
    house.flip("plain", forced(State::Only)).await.unwrap();
    house.ladder.set_health(house.ladder.look(), false);
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Health));
    assert_eq!(house.state("plain"), stands(State::Only, Why::Requested));
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("bare"), stands(State::Shadow, Why::Health));
    house.ladder.set_health(house.ladder.look(), true);
    assert_eq!(house.state("bare"), stands(State::Live, Why::Requested));
    assert_eq!(house.flips().await, 2);
}

#[tokio::test]
async fn when_the_store_fails_nothing_changes() {
    let house = House::open(files(&[])).await;
    house.flip("plain", to(State::Shadow)).await.unwrap();
    let generation = house.ladder.flags().load().generation;
    house.store.refuse.store(true, Ordering::SeqCst);
    let error = house.flip("plain", forced(State::Live)).await.unwrap_err();
    assert!(matches!(error, FlipError::Store(_)), "{error}");
    assert!(house.ladder.reload(files(&[("bare", State::Shadow)]), || {}).await.is_err());
    let set = house.ladder.flags().load_full();
    assert_eq!((set.generation, set.freeze), (generation, Freeze::No));
    assert_eq!(house.state("plain").state, State::Shadow);
    assert_eq!(house.state("bare").state, State::Off);

    house.store.refuse.store(false, Ordering::SeqCst);
    house.flip("plain", forced(State::Live)).await.unwrap();
}

#[tokio::test]
async fn a_flip_whose_answer_was_lost_is_found() {
    let house = House::open(files(&[])).await;
    house.store.lose.store(true, Ordering::SeqCst);
    let done = house.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!((done.flip.number, house.state("plain").state), (1, State::Shadow));
}

#[tokio::test]
async fn flips_at_the_same_time_are_judged_one_after_the_other() {
    let house = House::open(files(&[])).await;
    let flips = (0..20).map(|n| {
        let ladder = house.ladder.clone();
        let ask = if n % 2 == 0 { to(State::Shadow) } else { to(State::Off) };
        tokio::spawn(async move { ladder.flip(&"plain".into(), ask).await.unwrap() })
    });
    let flips: Vec<_> = flips.collect();
    let mut changed = 0;
    for flip in flips {
        changed += usize::from(flip.await.unwrap().changed);
    }
    let recorded = house.store.flips(Some("plain".into()), 100).await.unwrap();
    assert_eq!(recorded.len(), changed);
    for pair in recorded.windows(2) {
        assert_eq!(pair[0].from, pair[1].to, "each starts where the one before it ended");
    }
    assert_eq!(recorded[0].to, house.state("plain").state.as_str());
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_leave_a_flip_half_done() {
    let house = House::open(files(&[])).await;
    let route = "plain".into();
    let mut flip = Box::pin(house.ladder.flip(&route, to(State::Shadow)));
    let waker = std::task::Waker::noop();
    assert!(flip.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    drop(flip);
    // The next move waits for its turn behind the one that was given up.
    assert!(!house.flip("plain", to(State::Shadow)).await.unwrap().changed);
    assert_eq!(house.flips().await, 1);
}
