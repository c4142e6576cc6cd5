//! Shares that grow by themselves within a state.

use super::guard::{crossing, guard_settings};
use super::*;
use crate::flag::Auto;

const EACH: Duration = Duration::from_secs(600);

/// The files, in which `plain` grows by steps.
fn growing() -> DeclaredFiles {
    let steps = [1.0, 5.0, 25.0, 100.0].into_iter().filter_map(Percent::new).collect();
    edited(files(&[]), "plain", |route| {
        route.guard = Some(guard_settings());
        route.auto = Some(Auto { steps, each: EACH, at_least: 50 });
    })
}

impl Fixture {
    /// `plain` in `live`, with evidence that opens the gate of a larger share.
    async fn growing() -> Self {
        let fixture = Self::open(growing()).await;
        fixture.record_pairs("plain");
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        fixture
    }
    /// Looks after a time; returns the share of `live` then.
    async fn share_after(&self, time: Duration) -> f64 {
        self.ladder.raise_due_shares().await;
        tokio::time::advance(time).await;
        self.ladder.raise_due_shares().await;
        self.status("plain").shares.of(State::Live).as_f64()
    }
    fn held(&self) -> String {
        self.status("plain").auto.unwrap().blocked_by.join("; ")
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_grows_step_by_step_after_its_time_and_its_requests() {
    let fixture = Fixture::growing().await;
    assert_eq!(fixture.share_after(Duration::ZERO).await, 1.0, "a flip up begins with the first step");
    for next in [5.0, 25.0, 100.0] {
        let share = fixture.status("plain").shares.of(State::Live).as_f64();
        assert_eq!(fixture.share_after(EACH).await, share, "nothing grows over no requests");
        assert_eq!(fixture.status("plain").auto.unwrap().due_in, Duration::ZERO);
        fixture.record_engine_answers("plain");
        assert_eq!(fixture.share_after(Duration::ZERO).await, next);
        // The requests with the earlier share do not count for this one, nor does its time.
        assert_eq!(fixture.share_after(EACH - Duration::from_secs(1)).await, next);
        fixture.evidence.served(&"plain".into(), 0, Served::Answered);
        assert_eq!(fixture.share_after(Duration::ZERO).await, next);
    }
    assert!(fixture.status("plain").auto.is_none(), "there is no larger step");
    let flips = fixture.store.flips(Some("plain".into()), 100).await.unwrap();
    let by_auto: Vec<_> = flips.iter().filter(|flip| flip.by == "auto").collect();
    assert_eq!(by_auto.len(), 3);
    assert!(by_auto.iter().all(|flip| !flip.forced && flip.from == "live" && flip.to == "live"));
    assert!(by_auto[0].reason.as_deref().is_some_and(|why| why.contains("requests with 25%")), "{:?}", by_auto[0]);
    assert_eq!(fixture.share_after(EACH * 10).await, 100.0);
    assert_eq!(fixture.state("plain").state, State::Live, "it never takes a route to another state");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_engine_starts_the_count_again() {
    let fixture = Fixture::growing().await;
    fixture.share_after(EACH).await;
    for _ in 0..49 {
        fixture.evidence.served(&"plain".into(), 0, Served::Answered);
    }
    fixture.evidence.served(&"plain".into(), 0, Served::Error);
    fixture.evidence.served(&"plain".into(), 0, Served::Answered);
    assert_eq!(fixture.share_after(Duration::ZERO).await, 1.0);
    assert_eq!(fixture.status("plain").auto.unwrap().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_shut_gate_holds_the_share_and_is_named() {
    let fixture = Fixture::open(growing()).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture.record_engine_answers("plain");
    let before = fixture.flips().await;
    fixture.share_after(Duration::ZERO).await;
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(EACH).await, 1.0);
    assert!(fixture.held().contains("pairs"), "{}", fixture.held());
    assert_eq!(fixture.flips().await, before, "nothing is recorded");
    fixture.record_pairs("plain");
    assert_eq!(fixture.share_after(Duration::ZERO).await, 5.0);
}

#[tokio::test(start_paused = true)]
async fn nothing_grows_while_another_state_is_in_force() {
    let fixture = Fixture::growing().await;
    fixture.share_after(Duration::ZERO).await;
    fixture.record_engine_answers("plain");
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!(fixture.share_after(EACH).await, 1.0);
    assert!(fixture.held().contains("`dark` is in force, not `live` (guard)"), "{}", fixture.held());
    let release = GuardRelease { reason: "mended".into(), force: true, by: "ann".into() };
    fixture.ladder.release_guard(&"plain".into(), release).await.unwrap();
    assert_eq!(fixture.share_after(EACH - Duration::from_secs(1)).await, 1.0, "the time counts from the release");
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(Duration::from_secs(1)).await, 5.0);
}

#[tokio::test(start_paused = true)]
async fn a_share_that_a_person_made_smaller_stays_until_a_person_makes_it_larger() {
    let fixture = Fixture::growing().await;
    fixture.share_after(EACH).await;
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(Duration::ZERO).await, 5.0);
    fixture.flip("plain", percent(State::Live, 2.0)).await.unwrap();
    fixture.share_after(Duration::ZERO).await;
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(EACH * 3).await, 2.0);
    assert!(fixture.held().contains("a person has set the share of 2%"), "{}", fixture.held());
    // Also after a restart.
    let fixture = fixture.restart(growing()).await;
    fixture.share_after(Duration::ZERO).await;
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(EACH).await, 2.0);
    fixture.flip("plain", MoveRequest { percent: Percent::new(3.0), ..forced(State::Live) }).await.unwrap();
    fixture.share_after(Duration::ZERO).await;
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(EACH).await, 5.0);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_share_begins_anew_with_the_process() {
    let fixture = Fixture::growing().await;
    fixture.share_after(EACH).await;
    fixture.record_engine_answers("plain");
    let fixture = fixture.restart(growing()).await;
    assert_eq!(fixture.share_after(EACH - Duration::from_secs(1)).await, 1.0);
    fixture.record_engine_answers("plain");
    assert_eq!(fixture.share_after(Duration::from_secs(1)).await, 5.0);
}

#[tokio::test(start_paused = true)]
async fn a_flip_that_names_a_share_and_a_route_without_steps_are_as_before() {
    let fixture = Fixture::open(growing()).await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(40.0), ..forced(State::Live) }).await.unwrap();
    assert_eq!(fixture.share_after(Duration::ZERO).await, 40.0);
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let bare = fixture.status("bare");
    assert_eq!((bare.shares.of(State::Live), bare.auto), (Percent::ALL, None));
}

/// Somebody moves the route between the look at its share and the step.
#[tokio::test(start_paused = true)]
async fn a_step_that_comes_after_a_flip_by_a_person_changes_nothing() {
    for moved in [percent(State::Live, 0.5), percent(State::Live, 50.0), to(State::Dark)] {
        let fixture = Fixture::growing().await;
        fixture.share_after(EACH).await;
        fixture.record_engine_answers("plain");
        let asked = std::time::Instant::now();
        let due = fixture.ladder.mover.due_steps(tokio::time::Instant::now());
        assert_eq!(due.len(), 1);
        let moved = MoveRequest { force: true, reason: Some("a drill".into()), ..moved };
        fixture.flip("plain", moved).await.unwrap();
        let before = (fixture.state("plain"), fixture.status("plain").shares);
        fixture.ladder.mover.raise_share(asked, &due[0]).await.unwrap();
        assert_eq!((fixture.state("plain"), fixture.status("plain").shares), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_was_flipped_down_does_not_grow_there() {
    let fixture = Fixture::growing().await;
    fixture.flip("plain", percent(State::Dark, 1.0)).await.unwrap();
    fixture.ladder.raise_due_shares().await;
    for _ in 0..3 {
        fixture.record_pairs("plain");
    }
    tokio::time::advance(EACH).await;
    fixture.ladder.raise_due_shares().await;
    assert_eq!(fixture.status("plain").shares.of(State::Dark), Percent::new(1.0).unwrap());
    assert!(fixture.held().contains("a person has set the share"), "{}", fixture.held());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_the_store_refuses_is_shown_and_tried_again() {
    let fixture = Fixture::growing().await;
    fixture.share_after(EACH).await;
    fixture.record_engine_answers("plain");
    fixture.store.refuse_flips.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(fixture.share_after(Duration::ZERO).await, 1.0);
    assert!(fixture.held().contains("the step to 5% failed"), "{}", fixture.held());
    fixture.store.refuse_flips.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(fixture.share_after(Duration::ZERO).await, 5.0);
}
