//! Flips by people.

use std::sync::atomic::Ordering;

use super::*;
use crate::store::AdoptionState;

/// What was forced for a few callers is not proven for the others.
#[tokio::test]
async fn a_share_of_a_forced_rung_is_raised_by_force_only() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    assert!(fixture.refusal("plain", percent(State::Live, 100.0)).await.contains("pairs"));
    fixture.flip("plain", percent(State::Live, 5.0)).await.unwrap();
    assert!(fixture.status("plain").forced.is_some(), "a smaller share proves nothing");
    assert!(fixture.refusal("plain", percent(State::Live, 100.0)).await.contains("pairs"));
    let request = MoveRequest { percent: Percent::new(100.0), ..forced(State::Live) };
    assert!(fixture.flip("plain", request).await.unwrap().flip.forced);
}

#[tokio::test]
async fn a_route_goes_up_one_rung_at_a_time_and_only_through_the_gate() {
    let fixture = Fixture::open(files(&[])).await;
    assert_eq!(fixture.state("plain"), effective(State::Off, EffectiveReason::Unproven));
    let done = fixture.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!(
        (done.changed, done.flip.number, done.effective),
        (true, 1, effective(State::Shadow, EffectiveReason::Requested))
    );
    assert_eq!((done.flip.by.as_str(), done.flip.from.as_str(), done.flip.to.as_str()), ("ann", "off", "shadow"));
    assert_eq!(fixture.state("plain"), done.effective);

    assert!(
        fixture.refusal("plain", to(State::Dark)).await.starts_with("the gate is shut: needs 20 more compared pairs")
    );
    assert!(
        fixture.refusal("plain", to(State::Live)).await.contains("goes up one rung at a time, and `shadow` to `live`")
    );
    assert!(fixture.refusal("plain", MoveRequest { force: true, ..to(State::Dark) }).await.contains("needs a reason"));

    let done = fixture.flip("plain", forced(State::Live)).await.unwrap();
    assert!(done.flip.forced && done.flip.evidence.is_object());
    assert_eq!(fixture.state("plain"), effective(State::Live, EffectiveReason::Requested));
    let status = fixture.status("plain");
    assert_eq!(status.forced.as_deref(), Some("a drill"));
    let next = status.next.unwrap();
    assert!(next.to == State::Only && next.missing.len() == 1, "{next:?}");

    fixture.record_engine_answers("plain");
    let done = fixture
        .flip("plain", MoveRequest { force: true, reason: Some("no need".into()), ..to(State::Only) })
        .await
        .unwrap();
    let overridden = done.flip.overridden.unwrap();
    assert_eq!((overridden.from, overridden.reason.as_str()), (State::Shadow, "a drill"), "this gate was open");
    assert_eq!(fixture.status("plain").forced.as_deref(), Some("a drill"));
    assert_eq!(fixture.status("plain").next, None);
}

/// What was forced stays marked on the way up and down, until the evidence would have allowed it.
#[tokio::test]
async fn a_forced_rung_stays_marked_whatever_moves_after_it() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture.record_engine_answers("plain");
    for (request, marked) in [
        (to(State::Only), true),
        (MoveRequest { acknowledge: true, ..to(State::Live) }, true),
        (percent(State::Live, 50.0), true),
        (to(State::Dark), true),
        (to(State::Shadow), false),
    ] {
        let done = fixture.flip("plain", request).await.unwrap();
        assert_eq!(done.flip.forced, marked, "{}", done.flip.to);
        assert_eq!(fixture.status("plain").forced.as_deref(), marked.then_some("a drill"), "{}", done.flip.to);
    }
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.status("plain").forced, None);
}

/// Above `proven`, and above `shadow`, a cohort needs `force`.
#[tokio::test]
async fn a_rung_is_proven_by_evidence_and_for_all_callers() {
    let fixture = Fixture::open(files(&[])).await;
    let proven = |route: &str| fixture.ladder.flags().load().route(&route.into()).unwrap().proven;
    assert_eq!(proven("plain"), State::Off);
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!(proven("plain"), State::Shadow);
    fixture.flip("plain", MoveRequest { percent: Percent::new(1.0), ..forced(State::Live) }).await.unwrap();
    assert_eq!(proven("plain"), State::Shadow, "the gate to `dark` would be shut");
    fixture.record_pairs("plain");
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.status("plain").forced, None, "the evidence caught up");
    assert_eq!(proven("plain"), State::Dark, "`live` is for a few");
    fixture.flip("plain", percent(State::Live, 100.0)).await.unwrap();
    assert_eq!(proven("plain"), State::Live);
    fixture.flip("plain", percent(State::Dark, 99.0)).await.unwrap();
    assert_eq!(proven("plain"), State::Shadow, "no higher rung is for all");
}

#[tokio::test]
async fn a_larger_share_passes_the_gate_of_its_rung_again() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.record_pairs("plain");
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    fixture.flip("plain", percent(State::Dark, 50.0)).await.unwrap();
    fixture.flip("plain", percent(State::Live, 10.0)).await.unwrap();
    fixture.flip("plain", percent(State::Live, 20.0)).await.unwrap();
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
    }
    let refused = fixture.refusal("plain", percent(State::Live, 30.0)).await;
    assert!(refused.contains("more errors than legacy"), "{refused}");
    fixture.flip("plain", percent(State::Live, 15.0)).await.unwrap();
    assert_eq!(fixture.status("plain").forced, None, "a smaller share needs no force");
    fixture.flip("plain", MoveRequest { percent: Percent::new(30.0), ..forced(State::Live) }).await.unwrap();
    assert_eq!(fixture.status("plain").forced.as_deref(), Some("a drill"));
    fixture.record_pairs("plain");
    assert_eq!(fixture.status("plain").forced, None, "fewer than 10 % have failed again");
    fixture.flip("plain", percent(State::Live, 40.0)).await.unwrap();
    // The files pass the same gate.
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
    }
    let larger = edited(files(&[("plain", State::Live)]), "plain", |route| {
        route.shares = Shares { live: Percent::new(50.0).unwrap(), ..route.shares };
    });
    fixture.ladder.reload(larger, || {}).await.unwrap();
    assert_eq!(fixture.status("plain").shares.live, Percent::new(40.0).unwrap());
}

/// Private steps would be sent for more callers.
#[tokio::test]
async fn a_larger_share_passes_the_gate_on_the_way_down_too() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.record_pairs("plain");
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    fixture.flip("plain", percent(State::Dark, 20.0)).await.unwrap();
    fixture.flip("plain", percent(State::Live, 10.0)).await.unwrap();
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
    }
    let refused = fixture.refusal("plain", percent(State::Dark, 100.0)).await;
    assert!(refused.contains("more errors than legacy"), "{refused}");
    // A file lowers it all the same, with the share that it has, and asks again at each reading.
    let lower = || edited(files(&[("plain", State::Dark)]), "plain", |route| route.shares = Shares::default());
    let shares = |fixture: &Fixture| fixture.status("plain").shares.dark;
    for _ in 0..2 {
        fixture.ladder.reload(lower(), || {}).await.unwrap();
        assert_eq!((fixture.state("plain").state, shares(&fixture)), (State::Dark, Percent::new(20.0).unwrap()));
        let why = fixture.status("plain").refused.join("; ");
        assert!(why.contains("more errors than legacy"), "{why}");
    }
    fixture.record_pairs("plain");
    fixture.ladder.reload(lower(), || {}).await.unwrap();
    assert_eq!(shares(&fixture), Percent::ALL);
    // No more callers than were in `live`: the way down needs no gate.
    fixture.flip("plain", percent(State::Live, 100.0)).await.unwrap();
    fixture.flip("plain", MoveRequest { percent: Percent::new(50.0), ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    for _ in 0..6 {
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
    }
    fixture.flip("plain", percent(State::Dark, 100.0)).await.unwrap();
}

#[tokio::test]
async fn a_larger_share_that_is_forced_on_the_way_down_stays_marked() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.record_pairs("plain");
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    fixture.flip("plain", percent(State::Dark, 20.0)).await.unwrap();
    fixture.flip("plain", percent(State::Live, 10.0)).await.unwrap();
    for _ in 0..3 {
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
    }
    let request = MoveRequest { percent: Percent::new(100.0), ..forced(State::Dark) };
    let done = fixture.flip("plain", request).await.unwrap();
    assert_eq!(done.flip.overridden.map(|overridden| overridden.from), Some(State::Shadow));
    assert_eq!(fixture.status("plain").forced.as_deref(), Some("a drill"));
    let proven = |fixture: &Fixture| fixture.ladder.flags().load().route(&"plain".into()).unwrap().proven;
    assert_eq!(proven(&fixture), State::Shadow);
    fixture.record_pairs("plain");
    assert_eq!(fixture.status("plain").forced, None, "the evidence caught up");
}

#[tokio::test]
async fn the_gate_to_only_requires_a_share_of_100_percent_in_live() {
    let fixture = Fixture::open(files(&[])).await;
    let request = MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) };
    fixture.flip("plain", request).await.unwrap();
    fixture.record_engine_answers("plain");
    assert!(fixture.refusal("plain", to(State::Only)).await.contains("needs a share of 100 % in live"));
    let request = MoveRequest { percent: Percent::new(100.0), ..forced(State::Live) };
    let done = fixture.flip("plain", request).await.unwrap();
    assert!(done.changed, "a share alone is a flip too");
    fixture.flip("plain", to(State::Only)).await.unwrap();
}

#[tokio::test]
async fn a_flip_to_the_present_state_is_not_recorded() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", percent(State::Shadow, 50.0)).await.unwrap();
    for request in [to(State::Shadow), percent(State::Shadow, 50.0), forced(State::Shadow)] {
        let done = fixture.flip("plain", request).await.unwrap();
        assert!(!done.changed && done.flip.number == 0);
        assert_eq!(done.flip.reason.as_deref(), Some("`plain` is `shadow` already"));
    }
    assert_eq!(fixture.flips().await, 1);
    assert!(fixture.flip("plain", percent(State::Shadow, 51.0)).await.unwrap().changed);
}

#[tokio::test]
async fn impossible_moves_are_refused_also_with_force() {
    let fixture = Fixture::open(files(&[])).await;
    for (route, request, sentence) in [
        ("list", forced(State::Shadow), "`list` has no workflow"),
        (
            "bare",
            MoveRequest { percent: Percent::new(5.0), ..forced(State::Live) },
            "a share below 100 % in `live` needs a `key`",
        ),
        ("plain", percent(State::Off, 5.0), "`off` has no share"),
        ("create", forced(State::Dark), "`create` cannot go above its followers, they go first: `follow` is `off`"),
    ] {
        assert!(fixture.refusal(route, request).await.contains(sentence), "{sentence}");
    }
    let error = fixture.flip("plian", to(State::Shadow)).await.unwrap_err();
    assert!(matches!(error, FlipError::UnknownRoute(_, Some(near)) if near == "plain"));
}

/// An adopted instance is pinned to the engine from the claim on; which arm owns it is decided when the adoption ends.
#[tokio::test]
async fn the_horizon_leaves_out_instances_whose_adoption_is_undecided() {
    let fixture = Fixture::open(files(&[])).await;
    let count = |state| (RouteId::from("create"), state, 1);
    let states = [AdoptionState::Adopted, AdoptionState::Unknown, AdoptionState::GivenBack];
    *fixture.store.adoptions.lock().unwrap() = states.map(count).into();
    // The store counts two pins of the engine.
    let horizon = fixture.ladder.horizon(&"create".into()).await.unwrap();
    assert!(
        horizon[0].starts_with("the engine owns 1 instance of `create` that it adopted from legacy;"),
        "{horizon:?}"
    );
    let unknown = "whether legacy has released 1 more instance of `create` is not known";
    assert!(horizon.last().unwrap().starts_with(unknown), "{horizon:?}");
    // All of them are undecided.
    *fixture.store.adoptions.lock().unwrap() = [AdoptionState::Moving, AdoptionState::Unknown].map(count).into();
    let horizon = fixture.ladder.horizon(&"create".into()).await.unwrap();
    assert_eq!(horizon.len(), 2, "{horizon:?}");
    assert!(horizon[0].starts_with(unknown) && horizon[1].starts_with("the engine is adopting 1 more"), "{horizon:?}");
}

#[tokio::test]
async fn the_way_down_shows_the_horizon() {
    let fixture = Fixture::open(files(&[])).await;
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Only)).await.unwrap();
    }
    let known = "the engine owns 2 instances of `create` that legacy does not know; they stay with the engine";
    let refusal = fixture.refusal("create", to(State::Live)).await;
    assert!(refusal.contains("needs an acknowledgement") && refusal.contains(known), "{refusal}");
    let done = fixture.flip("create", MoveRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    assert!(done.horizon[1].starts_with(known), "{:?}", done.horizon);
    assert_eq!(done.horizon[2], "`list` (GET /orders) is answered by legacy and will not show them");

    assert_eq!(fixture.ladder.unanswered_instances(), None);
    let left = "`follow` is in `only`, where nobody answers for the instances that legacy creates";
    let down = fixture.flip("create", to(State::Off)).await.unwrap();
    assert!(down.horizon[0].starts_with(left) && down.horizon.len() == 3, "no acknowledgement is required: {down:?}");
    let unanswered = fixture.ladder.unanswered_instances().unwrap();
    assert!(
        unanswered.ends_with("nobody answers: `follow` is in `only`; lower these, or raise the creator"),
        "{unanswered}"
    );
    fixture.flip("follow", MoveRequest { acknowledge: true, ..to(State::Live) }).await.unwrap();
    assert_eq!(fixture.ladder.unanswered_instances(), None);
    let done = fixture.flip("follow", to(State::Off)).await.unwrap();
    assert_eq!(done.horizon.len(), 2, "from `live` the horizon is shown, and no acknowledgement is required");
    assert_eq!(fixture.ladder.horizon(&"follow".into()).await.unwrap().len(), 2);
    assert_eq!(fixture.ladder.horizon(&"plain".into()).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn flips_and_the_kill_switch_survive_a_restart() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", percent(State::Shadow, 25.0)).await.unwrap();
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.freeze(Freeze::Effects, Some("fire".into()), "ann".into()).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));

    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.ladder.flags().load().freeze, Freeze::Effects);
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    assert_eq!(fixture.status("plain").shares.shadow, Percent::new(25.0).unwrap());
    assert!(!fixture.status("plain").has_no_flip && fixture.status("create").has_no_flip);
    assert_eq!(fixture.status("bare").forced.as_deref(), Some("a drill"));
    let thaw = fixture.ladder.freeze(Freeze::No, None, "bob".into()).await.unwrap().flip;
    assert_eq!((thaw.from.as_str(), thaw.to.as_str(), thaw.route), ("effects", "no", None));
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    assert_eq!(fixture.flips().await, 4);
}

#[tokio::test]
async fn health_lowers_a_route_and_releases_it_without_a_flip() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.flip("plain", forced(State::Only)).await.unwrap();
    fixture.ladder.set_health(fixture.ladder.begin_check(), false);
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Health));
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Requested));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Health));
    fixture.ladder.set_health(fixture.ladder.begin_check(), true);
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    assert_eq!(fixture.flips().await, 2);
}

#[tokio::test]
async fn when_the_store_fails_nothing_changes() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    let generation = fixture.ladder.flags().load().set_number;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    let error = fixture.flip("plain", forced(State::Live)).await.unwrap_err();
    assert!(matches!(error, FlipError::Store(_)), "{error}");
    assert!(fixture.ladder.reload(files(&[("bare", State::Shadow)]), || {}).await.is_err());
    let set = fixture.ladder.flags().load_full();
    assert_eq!((set.set_number, set.freeze), (generation, Freeze::No));
    assert_eq!(fixture.state("plain").state, State::Shadow);
    assert_eq!(fixture.state("bare").state, State::Off);

    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    fixture.flip("plain", forced(State::Live)).await.unwrap();
}

#[tokio::test]
async fn a_flip_whose_answer_was_lost_is_found() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.store.lose_replies.store(true, Ordering::SeqCst);
    let done = fixture.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!((done.flip.number, fixture.state("plain").state), (1, State::Shadow));
}

#[tokio::test]
async fn flips_at_the_same_time_are_judged_one_after_the_other() {
    let fixture = Fixture::open(files(&[])).await;
    let flips = (0..20).map(|n| {
        let ladder = fixture.ladder.clone();
        let request = if n % 2 == 0 { to(State::Shadow) } else { forced(State::Dark) };
        tokio::spawn(async move { ladder.flip(&"plain".into(), request).await.unwrap() })
    });
    let flips: Vec<_> = flips.collect();
    let mut changed = 0;
    for flip in flips {
        changed += usize::from(flip.await.unwrap().changed);
    }
    assert_eq!(changed, 20);
    let recorded = fixture.store.flips(Some("plain".into()), 100).await.unwrap();
    assert_eq!(recorded.len(), changed);
    for pair in recorded.windows(2) {
        assert_eq!(pair[0].from, pair[1].to, "each starts where the one before it ended");
    }
    assert_eq!(recorded[0].to, fixture.state("plain").state.as_str());
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_leave_a_flip_half_done() {
    let fixture = Fixture::open(files(&[])).await;
    let route = "plain".into();
    let mut flip = Box::pin(fixture.ladder.flip(&route, to(State::Shadow)));
    let waker = std::task::Waker::noop();
    assert!(flip.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    drop(flip);
    // The next move waits for the one whose caller went away.
    assert!(!fixture.flip("plain", to(State::Shadow)).await.unwrap().changed);
    assert_eq!(fixture.flips().await, 1);
}

#[tokio::test]
async fn a_blank_reason_is_not_in_the_commands_that_would_pass() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    let request = MoveRequest { reason: Some(" ".into()), ..forced(State::Dark) };
    let Err(FlipError::Refused { why, commands }) = fixture.flip("plain", request).await else {
        panic!("it is refused")
    };
    assert!(why.contains("needs a reason"), "{why}");
    let [command] = &commands[..] else { panic!("{commands:?}") };
    let reason = command.force.clone().unwrap();
    assert!(!reason.trim().is_empty(), "{command:?}");
    fixture.flip("plain", MoveRequest { reason: Some(reason), ..forced(State::Dark) }).await.unwrap();
}
