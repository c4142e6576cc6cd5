//! What guards do, how it is recorded, and how it is released.

use std::sync::atomic::Ordering;

use super::*;
use crate::evidence::GuardCrossing;
use crate::exchange::EngineAnswer;
use crate::flag::{Cohort, Guard, GuardCondition, GuardRelease as ReleaseBy};
use crate::store::{FlipRecord, GuardAction};

pub(super) fn guard_settings() -> Guard {
    Guard {
        mismatch: Some(0.01),
        errors: Some(0.01),
        p99_ratio: None,
        over: 500,
        at_least: 5,
        in_dark: false,
        release: ReleaseBy::Hand,
        notify: None,
    }
}

/// The files, in which one route has a guard.
pub(super) fn guarded(id: &str, edit: impl FnOnce(&mut Guard)) -> DeclaredFiles {
    let mut guard = guard_settings();
    edit(&mut guard);
    edited(files(&[]), id, |route| route.guard = Some(guard))
}

pub(super) fn crossing(route: &str, rung: State) -> GuardCrossing {
    GuardCrossing {
        route: route.into(),
        condition: GuardCondition::Errors,
        rung,
        bad: 5,
        of: 5,
        accepted: 0.01,
        detail: "5 of the last 5 requests failed".to_owned(),
        runs: Vec::new(),
    }
}

fn release(reason: &str) -> GuardRelease {
    GuardRelease { reason: reason.to_owned(), force: false, by: "ann".to_owned() }
}

impl Fixture {
    pub(super) async fn live(files: DeclaredFiles, route: &str) -> Self {
        let guard = files.routes.iter().find(|at| at.id.as_str() == route).and_then(|at| at.guard.clone());
        let fixture = Self::open(files).await;
        fixture.evidence.set_guards([(&RouteId::from(route), guard.as_ref())].into_iter());
        fixture.flip(route, forced(State::Live)).await.unwrap();
        fixture
    }
    async fn release(&self, route: &str) -> Result<GuardReleased, FlipError> {
        self.ladder.release_guard(&route.into(), release("it is mended")).await
    }
    /// The records of a guard, the oldest first, once the store has all.
    async fn actions(&self, route: &str) -> Vec<FlipRecord> {
        self.ladder.mover.in_force().wait_guard_recorded().await;
        let mut actions = self.store.flips(Some(crate::store::guard_key(&route.into())), 100).await.unwrap();
        actions.reverse();
        actions
    }
}

fn kinds(actions: &[FlipRecord]) -> Vec<GuardAction> {
    actions.iter().filter_map(|action| Some(action.guard.as_ref()?.action)).collect()
}

#[tokio::test]
async fn the_guard_lowers_what_is_in_force_and_not_what_was_requested() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
    let status = fixture.status("plain");
    assert_eq!((status.requested, status.guard.as_ref().and_then(|at| at.limit)), (State::Live, Some(State::Dark)));
    let actions = fixture.actions("plain").await;
    let record = &actions[0];
    assert_eq!(
        (actions.len(), record.from.as_str(), record.to.as_str(), record.by.as_str()),
        (1, "live", "dark", "guard")
    );
    assert!(record.reason.as_deref() == Some("5 of the last 5 requests failed") && record.evidence.is_object());
    assert!(fixture.status("plain").guard.unwrap().is_recorded);
    // Nothing is left to lower.
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.ladder.act_on_crossing(&crossing("plain", State::Shadow));
    fixture.ladder.reload(guarded("plain", |_| {}), || {}).await.unwrap();
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard), "files do not lift it");
    assert_eq!(fixture.actions("plain").await.len(), 1);
    assert_eq!(fixture.status("plain").last.unwrap().to, "live", "it is no flip of the route");
    // A route without a guard, and one that is not there.
    fixture.ladder.act_on_crossing(&crossing("bare", State::Live));
    fixture.ladder.act_on_crossing(&crossing("gone", State::Live));
}

#[tokio::test]
async fn a_latch_survives_a_restart_and_a_rename() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.actions("plain").await;
    let fixture = fixture.restart(guarded("plain", |_| {})).await;
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
    let renamed = || {
        edited(guarded("plain", |_| {}), "plain", |route| {
            (route.id, route.was) = ("other".into(), vec!["plain".into()]);
        })
    };
    fixture.ladder.reload(renamed(), || {}).await.unwrap();
    assert_eq!(fixture.state("other"), effective(State::Dark, EffectiveReason::Guard));
    let released = fixture.release("other").await.unwrap();
    assert_eq!(released.effective, effective(State::Live, EffectiveReason::Requested));
    let fixture = fixture.restart(renamed()).await;
    assert_eq!(fixture.state("other"), effective(State::Live, EffectiveReason::Requested));
}

#[tokio::test]
async fn a_route_in_only_is_not_lowered_and_raises_one_alarm() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.flip("plain", forced(State::Only)).await.unwrap();
    for _ in 0..3 {
        fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    }
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Requested));
    assert_eq!(kinds(&fixture.actions("plain").await), [GuardAction::Alerted]);
    assert_eq!(fixture.status("plain").guard.map(|at| (at.action, at.limit)), Some((GuardAction::Alerted, None)));
    fixture.release("plain").await.unwrap();
    assert!(fixture.status("plain").guard.is_none());
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Requested));
}

#[tokio::test]
async fn a_release_by_hand_wants_a_reason_and_is_recorded_first() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    let none = fixture.release("plain").await.unwrap_err().to_string();
    assert!(none.contains("neither lowered"), "{none}");
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.actions("plain").await;
    let without = fixture.ladder.release_guard(&"plain".into(), release(" ")).await.unwrap_err().to_string();
    assert!(without.contains("needs a reason"), "{without}");
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    assert!(fixture.release("plain").await.is_err());
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard), "a release raises");
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    let released = fixture.release("plain").await.unwrap();
    assert_eq!(released.effective, effective(State::Live, EffectiveReason::Requested));
    assert!(!released.still_shut.is_empty(), "there are no pairs: {:?}", released.still_shut);
    let actions = fixture.actions("plain").await;
    assert_eq!(kinds(&actions), [GuardAction::Lowered, GuardAction::Released]);
    let (by, reason) = (actions[1].by.as_str(), actions[1].reason.as_deref());
    assert_eq!((by, reason, actions[1].to.as_str()), ("ann", Some("it is mended"), "live"));
    // The next outage is acted on again.
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
}

#[tokio::test]
async fn a_store_that_takes_no_writes_delays_no_action() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
    assert!(!fixture.status("plain").guard.unwrap().is_recorded);
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    assert_eq!(kinds(&fixture.actions("plain").await), [GuardAction::Lowered]);
    assert!(fixture.status("plain").guard.unwrap().is_recorded);
}

#[tokio::test]
async fn a_flip_down_to_the_guards_limit_releases_the_guard() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.flip("plain", to(State::Dark)).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
    assert!(fixture.status("plain").guard.is_none());
    assert_eq!(kinds(&fixture.actions("plain").await), [GuardAction::Lowered, GuardAction::Released]);
    let refusal = fixture.refusal("plain", to(State::Live)).await;
    assert!(refusal.contains("gate is shut"), "on the way up the gates are asked: {refusal}");
    let fixture = fixture.restart(guarded("plain", |_| {})).await;
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
}

#[tokio::test]
async fn a_flip_up_or_to_the_same_state_wants_force_and_releases() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.flip("plain", MoveRequest { percent: Percent::new(50.0), ..forced(State::Live) }).await.unwrap();
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.actions("plain").await;
    for request in [to(State::Live), percent(State::Live, 60.0), to(State::Only)] {
        let refusal = fixture.refusal("plain", request.clone()).await;
        assert!(refusal.contains("the guard keeps `plain` at `dark`"), "{request:?}: {refusal}");
    }
    fixture.flip("plain", percent(State::Live, 20.0)).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard), "a smaller share passes");
    let flipped = fixture.flip("plain", forced(State::Live)).await.unwrap();
    assert_eq!((flipped.changed, flipped.effective), (true, effective(State::Live, EffectiveReason::Requested)));
    let actions = fixture.actions("plain").await;
    assert_eq!(kinds(&actions), [GuardAction::Lowered, GuardAction::Released]);
    assert!(actions[1].reason.as_deref().is_some_and(|reason| reason.contains("a drill")), "{:?}", actions[1].reason);
    let fixture = fixture.restart(guarded("plain", |_| {})).await;
    assert_eq!(fixture.state("plain").state, State::Live);
}

#[tokio::test]
async fn a_freeze_and_the_guard_limit_independently() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.ladder.freeze(Freeze::Instances, None, "ann".into()).await.unwrap();
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Freeze));
    fixture.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
}

#[tokio::test]
async fn a_cohort_in_live_is_limited_too() {
    let when = crate::expression::Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap();
    let staff = Cohort { name: "staff".into(), when, state: State::Live, force: Some("our own people".into()) };
    let files = edited(guarded("plain", |_| {}), "plain", |route| route.cohorts = vec![staff.clone()]);
    let fixture = Fixture::open(files).await;
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    let rung = || fixture.ladder.flags().load().route(&"plain".into()).unwrap().rung_of(&staff);
    assert_eq!(rung(), State::Live);
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    assert_eq!((rung(), fixture.state("plain").state), (State::Dark, State::Dark));
}

#[tokio::test]
async fn only_a_guard_that_declares_in_dark_acts_in_dark() {
    for in_dark in [false, true] {
        let fixture = Fixture::open(guarded("plain", |guard| guard.in_dark = in_dark)).await;
        fixture.flip("plain", forced(State::Dark)).await.unwrap();
        fixture.ladder.act_on_crossing(&crossing("plain", State::Dark));
        let expected = if in_dark { State::Shadow } else { State::Dark };
        assert_eq!(fixture.state("plain").state, expected);
        // What the engine answers for instances that it owns lowers nothing in dark.
        fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
        assert_eq!(fixture.state("plain").state, expected);
    }
    // From `live` it takes two steps.
    let fixture = Fixture::live(guarded("plain", |guard| guard.in_dark = true), "plain").await;
    for expected in [State::Dark, State::Shadow, State::Shadow] {
        fixture.ladder.act_on_crossing(&crossing("plain", State::Shadow));
        assert_eq!(fixture.state("plain"), effective(expected, EffectiveReason::Guard));
    }
}

#[tokio::test]
async fn a_follower_that_goes_wrong_lowers_its_creator_too() {
    let fixture = Fixture::open(guarded("follow", |_| {})).await;
    for route in ["follow", "create"] {
        fixture.flip(route, forced(State::Live)).await.unwrap();
    }
    fixture.ladder.act_on_crossing(&crossing("follow", State::Live));
    for route in ["follow", "create"] {
        assert_eq!(fixture.state(route), effective(State::Dark, EffectiveReason::Guard), "{route}");
    }
    let of_creator = fixture.actions("create").await;
    assert!(of_creator[0].reason.as_deref().is_some_and(|reason| reason.contains("its follower `follow`")));
    assert!(of_creator[0].number < fixture.actions("follow").await[0].number, "the creator goes down first");
    let refused = fixture.release("create").await.unwrap_err().to_string();
    assert!(refused.contains("its follower `follow` too"), "{refused}");
    fixture.release("follow").await.unwrap();
    fixture.release("create").await.unwrap();
    assert_eq!(fixture.state("create").state, State::Live);
}

#[tokio::test]
async fn nothing_is_lowered_below_a_follower_in_only() {
    let two = edited(guarded("follow", |_| {}), "create", |route| route.guard = Some(guard_settings()));
    let fixture = Fixture::open(two).await;
    for (route, to) in [("follow", State::Live), ("create", State::Live), ("follow", State::Only)] {
        fixture.flip(route, forced(to)).await.unwrap();
    }
    fixture.ladder.act_on_crossing(&crossing("follow", State::Live));
    assert_eq!(kinds(&fixture.actions("follow").await), [GuardAction::Alerted]);
    assert!(fixture.actions("create").await.is_empty(), "the creator has done nothing wrong");
    fixture.ladder.act_on_crossing(&crossing("create", State::Live));
    assert_eq!(kinds(&fixture.actions("create").await), [GuardAction::Alerted]);
    assert_eq!(fixture.state("create"), effective(State::Live, EffectiveReason::Requested));
}

#[tokio::test]
async fn a_file_that_declares_only_does_not_raise_what_the_guard_lowered() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    let only = || {
        edited(guarded("plain", |_| {}), "plain", |route| {
            (route.declared, route.force) = (State::Only, Some("it is urgent".into()));
        })
    };
    fixture.ladder.reload(only(), || {}).await.unwrap();
    let status = fixture.status("plain");
    assert_eq!((status.requested, status.effective), (State::Only, effective(State::Dark, EffectiveReason::Guard)));
    fixture.actions("plain").await;
    let fixture = fixture.restart(only()).await;
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Guard));
    fixture.release("plain").await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Only, EffectiveReason::Requested));
}

#[tokio::test]
async fn clean_evidence_releases_a_route_whose_guard_declares_it() {
    for by in [ReleaseBy::Hand, ReleaseBy::Evidence] {
        let fixture = Fixture::live(guarded("plain", |guard| guard.release = by), "plain").await;
        // Pairs from before do not count.
        fixture.record_pairs("plain");
        fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
        fixture.ladder.mover.release_by_evidence().await.unwrap();
        assert_eq!(fixture.state("plain").state, State::Dark);
        fixture.evidence.settle(&in_dark("plain"), ComparisonOutcome::Failed("timeout"));
        fixture.record_pairs("plain");
        fixture.ladder.mover.release_by_evidence().await.unwrap();
        let expected = if by == ReleaseBy::Evidence { State::Live } else { State::Dark };
        assert_eq!(fixture.state("plain").state, expected, "{by:?}");
        let last = fixture.actions("plain").await.pop().unwrap();
        assert_eq!(last.by, "guard");
    }
}

#[tokio::test]
async fn clean_evidence_releases_one_rung_at_a_time() {
    let settings = |guard: &mut Guard| (guard.in_dark, guard.release) = (true, ReleaseBy::Evidence);
    let fixture = Fixture::live(guarded("plain", settings), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Shadow));
    fixture.ladder.act_on_crossing(&crossing("plain", State::Shadow));
    assert_eq!(fixture.state("plain").state, State::Shadow);
    for expected in [State::Dark, State::Live] {
        fixture.record_pairs("plain");
        fixture.ladder.mover.release_by_evidence().await.unwrap();
        assert_eq!(fixture.state("plain").state, expected);
        fixture.ladder.mover.release_by_evidence().await.unwrap();
        assert_eq!(fixture.state("plain").state, expected, "the pairs are counted anew");
    }
}

/// From the counted answers to the lowered route, as the process does it.
#[tokio::test]
async fn errors_in_live_lower_the_route_at_the_named_request() {
    let fixture = Fixture::live(guarded("plain", |_| {}), "plain").await;
    let guarding = tokio::spawn(fixture.ladder.clone().guard_routes());
    let answer = |served| EngineAnswer { files_version: 0, rung: State::Live, served, took: None, run: None };
    let route = RouteId::from("plain");
    for _ in 0..1_000 {
        fixture.evidence.answered(&route, answer(Served::Answered));
    }
    for _ in 0..4 {
        fixture.evidence.answered(&route, answer(Served::Error));
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.state("plain").state, State::Live);
    fixture.evidence.answered(&route, answer(Served::FellBack));
    while fixture.state("plain").state == State::Live {
        tokio::task::yield_now().await;
    }
    let guard = fixture.status("plain").guard.unwrap();
    assert_eq!((guard.bad, guard.of, guard.condition), (5, 5, Some(GuardCondition::Errors)));
    guarding.abort();
}
