//! Cohorts that go up by the evidence of their own requests, and down while nothing else moves; and what is only asked
//! of moves up.

use std::sync::atomic::AtomicBool;

use super::held_cohorts::rung_of_staff;
use super::plans::{promoting, sharing};
use super::*;
use crate::exchange::ComparisonTicket;
use crate::expression::Expression;
use crate::flag::{Cohort, SkipReason};

/// Long enough that nothing passes because this is over.
const LONG: Duration = Duration::from_secs(600);

/// `bare` in `shadow`, with a cohort that goes up to `dark` by its own evidence.
fn with_staff(reason: &str) -> DeclaredFiles {
    let when = Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap();
    let staff = Cohort { name: "staff".into(), when, state: State::Dark, force: None };
    let files = edited(files(&[("bare", State::Shadow)]), "bare", |route| {
        (route.cohorts, route.force) = (vec![staff], Some(reason.to_owned()));
    });
    DeclaredFiles { pairs_within: LONG, ..files }
}

fn request() -> OfferedRequest {
    let (cohort, legacy_status) = (Some("staff".into()), Some(http::StatusCode::OK));
    OfferedRequest { cohort, legacy_status, method: Method::POST, ..OfferedRequest::new("bare", 0) }
}

/// While it is set, nothing goes up.
#[derive(Default)]
struct Differing(AtomicBool);

impl Differing {
    fn set(&self, differ: bool) {
        self.0.store(differ, Ordering::SeqCst);
    }
}

impl GateCondition for Differing {
    fn unmet(&self, _route: &Route, _from: State, to: State) -> Vec<Unmet> {
        let differ = to > State::Shadow && self.0.load(Ordering::SeqCst);
        differ.then(|| "other processes have other files".to_owned().into()).into_iter().collect()
    }
}

impl Fixture {
    async fn asking(condition: &Arc<Differing>, files: DeclaredFiles) -> Self {
        let store = Arc::new(FailingStore::default());
        let evidence = Evidence::load(store.clone()).await.unwrap();
        Self::on(condition, files, store, evidence).await
    }
    async fn on(
        condition: &Arc<Differing>,
        files: DeclaredFiles,
        store: Arc<FailingStore>,
        evidence: Arc<Evidence>,
    ) -> Self {
        let conditions_of_moves: Vec<Arc<dyn GateCondition>> = vec![condition.clone()];
        let parts = LadderParts { conditions_of_moves, ..ladder_parts(&store, &evidence, Vec::new()) };
        let ladder = Ladder::open(files, parts).await.unwrap();
        Self { store, evidence, ladder }
    }
    /// Evidence by which the cohort may go to `dark`.
    fn record_pairs_of_staff(&self) {
        let route = self.ladder.flags().load().route(&"bare".into()).unwrap().route.clone();
        self.evidence.set_cohorts(&route.id, &route.cohort_rules());
        self.record_pairs("bare");
        (0..20).for_each(|_| self.evidence.settle(&request(), ComparisonOutcome::Matched));
    }
    fn rung_of_staff_now(&self) -> State {
        self.ladder.judge_cohorts_again();
        rung_of_staff(self, "bare")
    }
}

#[tokio::test]
async fn a_cohort_passes_no_gate_while_its_pairs_are_under_way_and_goes_down_when_one_differs() {
    let fixture = Fixture::asking(&Arc::default(), with_staff("a pilot")).await;
    let mut ticket = ComparisonTicket::new(request(), fixture.evidence.clone());
    ticket.begin();
    fixture.record_pairs_of_staff();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow);
    fixture.ladder.reload(with_staff("another pilot"), || {}).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow);
    let missing = &fixture.status("bare").cohorts_below[0].missing;
    assert!(missing[0].contains("still being compared"), "{missing:?}");
    ticket.settle(ComparisonOutcome::Matched);
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    // Requests go on coming, and nothing moves: what has passed stays until one differs.
    let mut another = ComparisonTicket::new(request(), fixture.evidence.clone());
    another.begin();
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    fixture.ladder.reload(with_staff("a pilot"), || {}).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    another.settle(ComparisonOutcome::Mismatched);
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow);
}

#[tokio::test]
async fn figures_of_other_callers_lower_no_cohort_that_has_passed_the_gate() {
    let files = edited(with_staff("a pilot"), "bare", |route| route.promote.coverage_at_least = 0.9);
    let fixture = Fixture::asking(&Arc::default(), files).await;
    fixture.record_pairs_of_staff();
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    let skip_others = || {
        let other = OfferedRequest { cohort: None, ..request() };
        (0..500).for_each(|_| fixture.evidence.settle(&other, ComparisonOutcome::Skipped(SkipReason::QueueFull)));
    };
    skip_others();
    assert!(fixture.refusal("bare", to(State::Dark)).await.contains("requests were compared"));
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    fixture.evidence.settle(&request(), ComparisonOutcome::Mismatched);
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow, "its own pair differs");
}

/// As long as the route is in `off`, no gate of a cohort is about to open.
#[tokio::test]
async fn a_gate_that_was_passed_waits_for_pairs_again() {
    let at_once = DeclaredFiles { pairs_within: Duration::ZERO, ..with_staff("a pilot") };
    let fixture = Fixture::asking(&Arc::default(), at_once).await;
    let mut ticket = ComparisonTicket::new(request(), fixture.evidence.clone());
    ticket.begin();
    fixture.record_pairs_of_staff();
    assert_eq!(fixture.rung_of_staff_now(), State::Dark, "it waits for no time");
    fixture.flip("bare", to(State::Off)).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow);
    fixture.ladder.reload(with_staff("another pilot"), || {}).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow);
    // A flip without force would wait for the pairs.
    fixture.flip("bare", forced(State::Shadow)).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow, "pairs are under way");
    ticket.settle(ComparisonOutcome::Matched);
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
}

/// Such as while a deployment brings new files to one process after the other.
#[tokio::test]
async fn conditions_of_moves_lower_no_cohort() {
    let differing = Arc::new(Differing::default());
    let fixture = Fixture::asking(&differing, with_staff("a pilot")).await;
    differing.set(true);
    fixture.record_pairs_of_staff();
    assert_eq!(fixture.rung_of_staff_now(), State::Shadow, "it would go up");
    differing.set(false);
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    differing.set(true);
    fixture.ladder.reload(with_staff("another pilot"), || {}).await.unwrap();
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    assert_eq!(fixture.rung_of_staff_now(), State::Dark);
    assert!(fixture.refusal("bare", to(State::Dark)).await.contains("other processes have other files"));
}

#[tokio::test]
async fn conditions_of_moves_apply_to_candidates() {
    let differing = Arc::new(Differing::default());
    let Fixture { store, evidence, ladder } = Fixture::in_live_with("one").await;
    drop(ladder);
    let fixture = Fixture::on(&differing, sharing("two", None), store, evidence).await;
    fixture.record_pairs(crate::store::candidate_key(&"bare".into()).as_str());
    differing.set(true);
    let asked = |share: Option<f64>| {
        let mut asked = promoting("two", false);
        if share.is_some() {
            asked.plans.in_force = sharing("two", None).plans.in_force;
        }
        asked.plans.candidate_move.as_mut().unwrap().share = share.and_then(Percent::new);
        asked
    };
    for share in [Some(5.0), None] {
        let refused = fixture.ladder.apply_files_again(asked(share), || panic!("it is not recorded")).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("other processes have other files"), "{share:?}: {refused}");
    }
    differing.set(false);
    fixture.ladder.apply_files_again(asked(Some(5.0)), || {}).await.unwrap();
    assert_eq!(fixture.share_of("bare"), Some(5.0));
}
