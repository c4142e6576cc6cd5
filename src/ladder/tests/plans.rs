//! The plans in force of routes in `live` and `only`, whatever the files say, and their candidates.

use std::sync::atomic::Ordering;

use super::*;
use crate::ladder::{CandidateMove, CandidateStatus, DeclaredPlans};
use crate::names::PlanSet;
use crate::store::CandidateAction;

pub(super) fn set(plan: &str) -> Arc<PlanSet> {
    Arc::new(PlanSet { workflow: "work".into(), plans: [("work".into(), plan.into())].into() })
}

/// The files in which `bare` has this plan; read while `in_force` was the plan in force.
fn with_plan(plan: &str, in_force: Option<&str>) -> DeclaredFiles {
    let route = RouteId::from("bare");
    let plans = DeclaredPlans {
        of_files: [(route.clone(), set(plan))].into(),
        in_force: in_force.map(|plan| (route.clone(), set(plan))).into_iter().collect(),
        sources: [(plan.into(), Arc::new(serde_json::json!({ "plan": plan })))].into(),
        ..DeclaredPlans::default()
    };
    DeclaredFiles { plans, ..files(&[]) }
}

pub(super) fn promoting(plan: &str, force: bool) -> DeclaredFiles {
    let mut files = with_plan(plan, None);
    let reason = force.then(|| "a drill".to_owned());
    files.plans.candidate_move = Some(CandidateMove {
        route: "bare".into(),
        candidate: set(plan),
        share: None,
        force,
        reason,
        by: "ann".into(),
    });
    files
}

impl Fixture {
    pub(super) async fn in_live_with(plan: &str) -> Self {
        let fixture = Self::open(with_plan(plan, None)).await;
        fixture.flip("bare", forced(State::Live)).await.unwrap();
        fixture
    }
    fn plans(&self) -> (Option<Arc<PlanSet>>, Option<Arc<PlanSet>>) {
        let status = self.status("bare");
        (status.plans, status.candidate.map(|CandidateStatus { candidate, .. }| candidate))
    }
    async fn stored(&self) -> Option<PlanSet> {
        let rows = self.store.declared().await.unwrap();
        rows.into_iter().find(|row| row.route.as_str() == "bare")?.in_force
    }
    async fn candidate_actions(&self) -> Vec<CandidateAction> {
        let mut flips = self.store.flips(None, 1_000).await.unwrap();
        flips.reverse();
        flips.into_iter().filter_map(|flip| Some(flip.candidate?.action)).collect()
    }
}

#[tokio::test]
async fn a_changed_plan_is_a_candidate_in_live_and_over_a_restart() {
    let fixture = Fixture::in_live_with("one").await;
    assert_eq!(fixture.stored().await.as_ref(), Some(&*set("one")), "recorded with the flip");
    assert!(fixture.store.plan("one".into()).await.unwrap().is_some(), "its definition too");
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    assert_eq!(fixture.plans(), (Some(set("one")), Some(set("two"))));
    let flags = fixture.ladder.flags().load_full();
    let plans = flags.route(&"bare".into()).unwrap().plans.clone().unwrap();
    assert_eq!((plans.in_force, plans.candidate.map(|candidate| candidate.plans)), (set("one"), Some(set("two"))));
    let fixture = fixture.restart(with_plan("two", Some("one"))).await;
    assert_eq!(fixture.plans(), (Some(set("one")), Some(set("two"))));
    assert_eq!(fixture.candidate_actions().await, [CandidateAction::Appeared], "recorded once");
    fixture.ladder.reload(with_plan("one", Some("one")), || {}).await.unwrap();
    assert_eq!(fixture.plans(), (Some(set("one")), None));
    assert_eq!(fixture.candidate_actions().await, [CandidateAction::Appeared, CandidateAction::Dropped]);
}

#[tokio::test]
async fn below_live_a_route_has_the_plan_of_its_files_and_no_candidate() {
    let fixture = Fixture::open(with_plan("one", None)).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    fixture.ladder.reload(with_plan("two", None), || {}).await.unwrap();
    assert_eq!((fixture.plans(), fixture.stored().await), ((None, None), None));
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(with_plan("three", Some("two")), || {}).await.unwrap();
    assert_eq!(fixture.plans(), (Some(set("two")), Some(set("three"))));
    fixture.flip("bare", to(State::Shadow)).await.unwrap();
    assert!(fixture.ladder.has_plans_to_drop());
    assert!(fixture.ladder.plans_in_force(&files(&[]).routes, None).in_force.is_empty());
    fixture.ladder.reload(with_plan("three", None), || {}).await.unwrap();
    assert!(!fixture.ladder.has_plans_to_drop());
    assert_eq!((fixture.plans(), fixture.stored().await), ((None, None), None));
}

/// Otherwise a plan that nobody has compared would answer: the route was in `dark` when the files were read.
#[tokio::test]
async fn files_are_read_again_if_a_route_went_to_live_meanwhile() {
    let fixture = Fixture::open(with_plan("one", None)).await;
    let read = with_plan("two", None);
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let refused = fixture.ladder.reload(read, || panic!("it is not recorded")).await;
    assert!(matches!(refused, Err(FilesError::FlippedMeanwhile)), "{refused:?}");
    assert_eq!(fixture.plans(), (Some(set("one")), None));
}

#[tokio::test]
async fn a_candidate_comes_into_force_through_its_gate_or_by_force() {
    let fixture = Fixture::in_live_with("one").await;
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    let refused = fixture.ladder.reload(promoting("two", false), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("more compared pairs"), "{refused}");
    let refused = fixture.ladder.reload(promoting("three", true), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("another one now"), "{refused}");
    fixture.ladder.reload(promoting("two", true), || {}).await.unwrap();
    assert_eq!(fixture.plans(), (Some(set("two")), None));
    assert_eq!(fixture.stored().await.as_ref(), Some(&*set("two")));
    let last = fixture.store.flips(None, 1).await.unwrap().remove(0);
    assert_eq!((last.by.as_str(), last.forced, last.to.as_str()), ("ann", true, "in_force"));
    let positions = fixture.ladder.mover.in_force().inputs().positions;
    assert!(positions.declared.plans.candidate_move.is_none(), "recorded once, however often the ladder judges anew");
    let fixture = fixture.restart(with_plan("one", Some("two"))).await;
    assert_eq!(fixture.plans(), (Some(set("two")), Some(set("one"))), "whatever the files of this process say");
}

/// A promotion through the gate keeps the plans whose evidence goes on; a promotion by force ends that.
#[tokio::test]
async fn the_plans_whose_evidence_goes_on_are_kept_through_gates_and_restarts_and_end_with_force() {
    let evidence_from = |fixture: &Fixture, asked: Option<&CandidateMove>| {
        let kept = fixture.ladder.plans_in_force(&files(&[]).routes, asked);
        kept.evidence_from.get(&RouteId::from("bare")).cloned()
    };
    let asked = |plan: &str, force: bool| promoting(plan, force).plans.candidate_move.unwrap();
    let mut fixture = Fixture::in_live_with("one").await;
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    assert_eq!(evidence_from(&fixture, None), None);
    assert_eq!(evidence_from(&fixture, Some(&asked("two", true))), None);
    assert_eq!(evidence_from(&fixture, Some(&asked("two", false))), Some(set("one")));
    // As a promotion through the gate leaves it.
    let mut rows = fixture.store.declared().await.unwrap();
    rows.iter_mut().filter(|row| row.in_force.is_some()).for_each(|row| {
        (row.in_force, row.evidence_from) = (Some(PlanSet::clone(&set("two"))), Some(PlanSet::clone(&set("one"))));
    });
    fixture.store.put(Vec::new(), Some(rows)).await;
    for _ in 0..2 {
        fixture = fixture.restart(with_plan("three", Some("two"))).await;
        assert_eq!(evidence_from(&fixture, None), Some(set("one")));
        fixture.ladder.reload(with_plan("three", Some("two")), || {}).await.unwrap();
        assert_eq!(evidence_from(&fixture, Some(&asked("three", false))), Some(set("one")), "the first of them");
    }
    fixture.ladder.reload(promoting("three", true), || {}).await.unwrap();
    assert_eq!(evidence_from(&fixture, None), None);
    let rows = fixture.store.declared().await.unwrap();
    assert!(rows.iter().all(|row| row.evidence_from.is_none()));
}

/// The definition is stored before the record that puts the plan in force: a process that ends between the two leaves
/// the plan that was in force.
#[tokio::test]
async fn a_promotion_that_is_not_recorded_changes_nothing_and_may_be_asked_for_again() {
    let fixture = Fixture::in_live_with("one").await;
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    fixture.store.refuse_flips.store(true, Ordering::Relaxed);
    let failed = fixture.ladder.reload(promoting("two", true), || panic!("it is not recorded")).await;
    assert!(matches!(failed, Err(FilesError::Store(_))), "{failed:?}");
    assert!(fixture.store.plan("two".into()).await.unwrap().is_some(), "stored before the record");
    assert_eq!(fixture.plans(), (Some(set("one")), Some(set("two"))));
    fixture.store.refuse_flips.store(false, Ordering::Relaxed);
    let fixture = fixture.restart(with_plan("two", Some("one"))).await;
    assert_eq!(fixture.plans(), (Some(set("one")), Some(set("two"))));
    fixture.ladder.reload(promoting("two", true), || {}).await.unwrap();
    assert_eq!((fixture.plans(), fixture.stored().await.as_ref()), ((Some(set("two")), None), Some(&*set("two"))));
}

/// The reply was lost and the record was not: the promotion is in force from the next start on.
#[tokio::test]
async fn a_promotion_whose_reply_was_lost_is_in_force_after_the_restart() {
    let fixture = Fixture::in_live_with("one").await;
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    fixture.store.lose_replies.store(true, Ordering::Relaxed);
    let _ = fixture.ladder.reload(promoting("two", true), || {}).await;
    fixture.store.lose_replies.store(false, Ordering::Relaxed);
    let fixture = fixture.restart(with_plan("two", Some("two"))).await;
    assert_eq!(fixture.plans(), (Some(set("two")), None));
}

/// A candidate with a share keeps it over a reload and a restart; another candidate begins without one.
#[tokio::test]
async fn the_share_of_a_candidate_is_its_own_and_only_a_larger_one_needs_the_gate() {
    let moving = |plan: &str, share: f64, force: bool| {
        let mut files = promoting(plan, force);
        files.plans.in_force = [("bare".into(), set("one"))].into();
        files.plans.candidate_move.as_mut().unwrap().share = Percent::new(share);
        files
    };
    let fixture = Fixture::in_live_with("one").await;
    let share = |fixture: &Fixture| fixture.status("bare").candidate.map(|candidate| candidate.share.as_f64());
    let of_flag = |fixture: &Fixture| {
        let flags = fixture.ladder.flags().load();
        let plans = flags.route(&"bare".into()).unwrap().plans.clone();
        plans.and_then(|plans| plans.candidate).map(|candidate| candidate.share.as_f64())
    };
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    let refused = fixture.ladder.reload(moving("two", 5.0, false), || panic!("it is not recorded")).await.unwrap_err();
    assert!(refused.to_string().contains("more compared pairs"), "{refused}");
    fixture.ladder.reload(moving("two", 5.0, true), || {}).await.unwrap();
    assert_eq!((share(&fixture), of_flag(&fixture)), (Some(5.0), Some(5.0)));
    assert_eq!(fixture.plans(), (Some(set("one")), Some(set("two"))), "the plan in force stays");
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    assert_eq!(share(&fixture), Some(5.0), "over a reload");
    let fixture = fixture.restart(with_plan("two", Some("one"))).await;
    assert_eq!((share(&fixture), of_flag(&fixture)), (Some(5.0), Some(5.0)), "over a restart");
    assert!(fixture.ladder.reload(moving("two", 6.0, false), || panic!("it is not recorded")).await.is_err());
    fixture.ladder.reload(moving("two", 1.0, false), || {}).await.unwrap();
    assert_eq!(share(&fixture), Some(1.0), "a smaller one needs no evidence");
    let last = fixture.store.flips(None, 1).await.unwrap().remove(0);
    assert_eq!((last.from.as_str(), last.to.as_str(), last.by.as_str()), ("live 5%", "live 1%", "ann"));
    fixture.ladder.reload(with_plan("three", Some("one")), || {}).await.unwrap();
    assert_eq!(share(&fixture), Some(0.0), "another candidate");
    fixture.ladder.reload(with_plan("two", Some("one")), || {}).await.unwrap();
    assert_eq!(share(&fixture), Some(0.0), "an earlier one begins anew too");
    use CandidateAction::{Appeared, Moved};
    assert_eq!(fixture.candidate_actions().await, [Appeared, Moved, Moved, Appeared, Appeared]);
}

/// Files with this plan in which a candidate gets a share, or is only shown (`None`).
pub(super) fn sharing(plan: &str, share: Option<f64>) -> DeclaredFiles {
    let mut files = promoting(plan, true);
    files.plans.in_force = [("bare".into(), set("one"))].into();
    match share {
        Some(share) => files.plans.candidate_move.as_mut().unwrap().share = Percent::new(share),
        None => files.plans.candidate_move = None,
    }
    files
}

/// The same files with `bare` under another id and these earlier ones.
fn renamed(mut files: DeclaredFiles, id: &str, was: &[&str]) -> DeclaredFiles {
    for set in [&mut files.plans.of_files, &mut files.plans.in_force] {
        let plans = set.remove("bare").into_iter().map(|plans| (RouteId::from(id), plans));
        *set = plans.collect();
    }
    if let Some(asked) = &mut files.plans.candidate_move {
        asked.route = id.into();
    }
    let was = was.iter().map(|id| RouteId::from(*id)).collect();
    edited(files, "bare", |route| (route.id, route.was) = (id.into(), was))
}

impl Fixture {
    pub(super) async fn with_share(share: f64) -> Self {
        let fixture = Self::in_live_with("one").await;
        fixture.ladder.reload(sharing("two", None), || {}).await.unwrap();
        fixture.ladder.reload(sharing("two", Some(share)), || {}).await.unwrap();
        fixture
    }
    pub(super) fn share_of(&self, route: &str) -> Option<f64> {
        let flags = self.ladder.flags().load();
        let plans = flags.route(&route.into()).unwrap().plans.clone();
        plans.and_then(|plans| plans.candidate).map(|candidate| candidate.share.as_f64())
    }
    /// The last records of candidates, the newest first: route, what happened, to which stage.
    async fn last_records(&self, count: usize) -> Vec<(String, CandidateAction, String)> {
        let flips = self.store.flips(None, 1_000).await.unwrap();
        let of_candidates = flips.into_iter().filter_map(|flip| {
            let record = flip.candidate?;
            Some((record.route.to_string(), record.action, flip.to))
        });
        of_candidates.take(count).collect()
    }
}

/// A start tolerates files that a reload refuses. They must not keep a person, or the guard, from taking the share of a
/// failing candidate away.
#[tokio::test]
async fn a_share_is_taken_away_under_files_that_only_a_start_tolerates() {
    let lower = |files| edited(files, "bare", |route| route.declared = State::Shadow);
    let fixture = Fixture::with_share(50.0).await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let fixture = fixture.restart(lower(sharing("two", None))).await;
    assert_eq!((fixture.state("bare").state, fixture.share_of("bare")), (State::Only, Some(50.0)));
    let reloaded = fixture.ladder.reload(lower(sharing("two", None)), || panic!("it is not recorded")).await;
    assert!(reloaded.unwrap_err().to_string().contains("going down needs an acknowledgement"));
    let refused = fixture.ladder.apply_files_again(lower(sharing("three", Some(0.0))), || panic!("not recorded")).await;
    assert!(refused.unwrap_err().to_string().contains("another one now"), "the move itself is judged");
    fixture.ladder.apply_files_again(lower(sharing("two", Some(0.0))), || {}).await.unwrap();
    assert_eq!((fixture.state("bare").state, fixture.share_of("bare")), (State::Only, Some(0.0)));
}

#[tokio::test]
async fn a_renamed_route_keeps_the_share_of_its_candidate_and_what_was_taken_away_stays_so() {
    use CandidateAction::Moved;
    for restarts in [false, true] {
        let next = async |fixture: Fixture, files: DeclaredFiles| match restarts {
            true => fixture.restart(files).await,
            false => {
                fixture.ladder.reload(files, || {}).await.unwrap();
                fixture
            }
        };
        let fixture = next(Fixture::with_share(50.0).await, renamed(sharing("two", None), "new", &["bare"])).await;
        assert_eq!(fixture.share_of("new"), Some(50.0), "restarts: {restarts}");
        let carried = ("new".to_owned(), Moved, "live 50%".to_owned());
        assert_eq!(fixture.last_records(1).await, [carried], "under the present id too, restarts: {restarts}");
        let fixture = next(fixture, renamed(sharing("two", None), "new", &["bare"])).await;
        let carried = fixture.candidate_actions().await.len();
        fixture.ladder.reload(renamed(sharing("two", Some(0.0)), "new", &["bare"]), || {}).await.unwrap();
        assert_eq!(fixture.candidate_actions().await.len(), carried + 1, "and only once");
        for (id, was) in [("bare", &[][..]), ("new", &["bare"]), ("third", &["bare"]), ("third", &["new", "bare"])] {
            let files = match id {
                "bare" => sharing("two", None),
                id => renamed(sharing("two", None), id, was),
            };
            let fixture_of = next(
                Fixture {
                    store: fixture.store.clone(),
                    evidence: fixture.evidence.clone(),
                    ladder: fixture.ladder.clone(),
                },
                files,
            );
            assert_eq!(fixture_of.await.share_of(id), Some(0.0), "`{id}`, was {was:?}, restarts: {restarts}");
        }
    }
}

/// The share is recorded under the present id, so that leaving out an earlier one does not lose it. Callers are chosen
/// by a hash of the oldest id, which stays the same.
#[tokio::test]
async fn an_earlier_id_that_is_left_out_does_not_lose_the_share() {
    let with_key = |files: DeclaredFiles, id: &str| {
        let key = Template::parse_str("${request.headers[\"x-tenant\"]}").unwrap();
        edited(files, id, |route| route.key = Some(key))
    };
    let fixture = Fixture::with_share(50.0).await;
    fixture.ladder.reload(renamed(sharing("two", None), "new", &["bare"]), || {}).await.unwrap();
    let keyed = with_key(renamed(sharing("two", None), "new", &["bare"]), "new");
    fixture.ladder.reload(keyed, || {}).await.unwrap();
    let trimmed = with_key(renamed(sharing("two", None), "new", &[]), "new");
    fixture.ladder.reload(trimmed, || {}).await.unwrap();
    assert_eq!(fixture.share_of("new"), Some(50.0));
    let older = with_key(renamed(sharing("two", None), "new", &["bare", "older"]), "new");
    let refused = fixture.ladder.reload(older, || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(
        refused.contains("the share of the candidate of `new`") && refused.contains("--candidate shadow"),
        "{refused}"
    );
    fixture.ladder.reload(renamed(sharing("two", None), "new", &["bare"]), || {}).await.unwrap();
    fixture.flip("new", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(renamed(sharing("two", None), "new", &[]), || {}).await.unwrap();
    assert_eq!(fixture.share_of("new"), Some(50.0), "by chance: no caller is in it");
}

#[tokio::test]
async fn the_candidate_of_a_route_that_leaves_the_files_is_dropped_with_its_share() {
    let without = |mut files: DeclaredFiles| {
        files.routes.retain(|route| route.id.as_str() != "bare");
        (files.plans.of_files, files.plans.in_force) = Default::default();
        files
    };
    let fixture = Fixture::with_share(50.0).await;
    fixture.ladder.reload(without(sharing("two", None)), || {}).await.unwrap();
    let dropped = ("bare".to_owned(), CandidateAction::Dropped, "none".to_owned());
    assert_eq!(fixture.last_records(1).await, [dropped]);
    let records = fixture.flips().await;
    fixture.ladder.reload(without(sharing("two", None)), || {}).await.unwrap();
    assert_eq!(fixture.flips().await, records, "once");
}

/// However fast: a share that nobody gave again must not come back.
#[tokio::test]
async fn a_route_that_went_below_live_returns_without_candidate_and_share() {
    let fixture = Fixture::with_share(50.0).await;
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    let ladder = fixture.ladder.clone();
    let up = tokio::spawn(async move { ladder.flip(&"bare".into(), forced(State::Live)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!up.is_finished(), "it waits for the files to be read again");
    fixture.ladder.apply_files_again(with_plan("two", None), || {}).await.unwrap();
    up.await.unwrap().unwrap();
    assert_eq!((fixture.plans(), fixture.share_of("bare")), ((Some(set("two")), None), None));
    fixture.ladder.reload(with_plan("three", Some("two")), || {}).await.unwrap();
    assert_eq!(fixture.share_of("bare"), Some(0.0), "a changed workflow begins anew");
}

/// The process does not read its files again: the flip says so, and changes nothing.
#[tokio::test(start_paused = true)]
async fn a_flip_up_that_waits_for_its_plans_in_vain_is_refused() {
    let fixture = Fixture::with_share(50.0).await;
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    let refused = fixture.refusal("bare", forced(State::Live)).await;
    assert!(refused.contains("went below `live` a moment ago"), "{refused}");
}
