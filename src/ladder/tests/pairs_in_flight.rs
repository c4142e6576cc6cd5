//! Moves up wait for pairs that are under way.

use super::plans::{promoting, set};
use super::*;
use crate::exchange::ComparisonTicket;
use crate::store::candidate_key;

/// Long enough that nothing passes because this is over.
const LONG: Duration = Duration::from_secs(600);

/// `bare` in this state, pairs being waited for so long.
fn asking(state: State, within: Duration) -> DeclaredFiles {
    DeclaredFiles { pairs_within: within, candidate_pairs_within: within, ..files(&[("bare", state)]) }
}

impl Fixture {
    /// `bare` in `shadow`, with evidence that opens the gate to `dark`.
    async fn before_dark() -> Self {
        let fixture = Self::open(asking(State::Off, LONG)).await;
        fixture.flip("bare", forced(State::Shadow)).await.unwrap();
        fixture.record_pairs("bare");
        fixture
    }
    fn rung(&self) -> State {
        self.ladder.mover.rung(&"bare".into()).unwrap()
    }
    /// A request that is being compared.
    fn begun(&self, route: &RouteId) -> ComparisonTicket {
        let request = OfferedRequest { rung: State::Shadow, ..OfferedRequest::new(route.clone(), 0) };
        let mut ticket = ComparisonTicket::new(request, self.evidence.clone());
        ticket.set_legacy_status(http::StatusCode::OK);
        ticket.begin();
        ticket
    }
}

#[tokio::test]
async fn a_state_from_a_file_is_judged_again_when_the_pairs_under_way_have_settled() {
    let fixture = Fixture::before_dark().await;
    let pair = fixture.begun(&"bare".into());
    fixture.ladder.reload(asking(State::Dark, LONG), || {}).await.unwrap();
    let status = fixture.status("bare");
    assert_eq!((fixture.rung(), status.requested), (State::Shadow, State::Dark));
    assert!(status.refused[0].contains("still being compared"), "{:?}", status.refused);
    assert!(!fixture.ladder.has_moves_to_judge_again());
    // Files that are read meanwhile change nothing about it.
    fixture.ladder.reload(asking(State::Dark, LONG), || {}).await.unwrap();
    assert_eq!(fixture.rung(), State::Shadow);
    pair.settle(ComparisonOutcome::Matched);
    assert!(fixture.ladder.has_moves_to_judge_again());
    fixture.ladder.apply_files_again(asking(State::Dark, LONG), || {}).await.unwrap();
    assert_eq!((fixture.rung(), fixture.ladder.has_moves_to_judge_again()), (State::Dark, false));
    let last = fixture.store.flips(Some("bare".into()), 1).await.unwrap().remove(0);
    assert_eq!((last.by.as_str(), last.to.as_str(), last.forced), ("file", "dark", false));
}

#[tokio::test]
async fn a_state_from_a_file_is_refused_if_the_pairs_under_way_shut_the_gate() {
    let fixture = Fixture::before_dark().await;
    let pair = fixture.begun(&"bare".into());
    fixture.ladder.reload(asking(State::Dark, LONG), || {}).await.unwrap();
    pair.settle(ComparisonOutcome::Failed("timeout"));
    (0..200).for_each(|_| fixture.begun(&"bare".into()).settle(ComparisonOutcome::Failed("timeout")));
    fixture.ladder.apply_files_again(asking(State::Dark, LONG), || {}).await.unwrap();
    let status = fixture.status("bare");
    assert_eq!((fixture.rung(), fixture.ladder.has_moves_to_judge_again()), (State::Shadow, false));
    assert!(!status.refused[0].contains("still being compared"), "{:?}", status.refused);
}

#[tokio::test]
async fn a_file_with_force_or_that_lowers_a_route_does_not_wait_and_no_move_waits_for_ever() {
    let fixture = Fixture::before_dark().await;
    let _pair = fixture.begun(&"bare".into());
    let by_force = edited(asking(State::Dark, LONG), "bare", |route| route.force = Some("a drill".into()));
    fixture.ladder.reload(by_force, || {}).await.unwrap();
    assert_eq!(fixture.rung(), State::Dark);
    fixture.ladder.reload(asking(State::Shadow, LONG), || {}).await.unwrap();
    assert_eq!(fixture.rung(), State::Shadow);
    // Requests go on coming.
    fixture.ladder.reload(asking(State::Dark, Duration::ZERO), || {}).await.unwrap();
    assert_eq!(fixture.rung(), State::Dark);
}

#[tokio::test]
async fn the_move_of_a_candidate_waits_for_its_own_pairs_if_its_gate_is_open() {
    let fixture = Fixture::with_share(50.0).await;
    let key = candidate_key(&"bare".into());
    fixture.record_pairs(key.as_str());
    let pair = fixture.begun(&key);
    let mut asked = promoting("two", false).plans.candidate_move.unwrap();
    assert_eq!(asked.candidate, set("two"));
    let waits = async |asked: &CandidateMove| {
        let waiting = fixture.ladder.wait_for_pairs_of_candidate(asked);
        tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err()
    };
    let mut long = fixture.ladder.mover.in_force().inputs().positions.declared.clone();
    long.candidate_pairs_within = LONG;
    long.plans.in_force = [("bare".into(), set("one"))].into();
    fixture.ladder.apply_files_again(long, || {}).await.unwrap();
    assert!(waits(&asked).await);
    asked.force = true;
    assert!(!waits(&asked).await, "by force");
    (asked.force, asked.share) = (false, Percent::new(10.0));
    assert!(!waits(&asked).await, "a smaller share");
    asked.share = None;
    pair.settle(ComparisonOutcome::Matched);
    assert!(!waits(&asked).await, "they have settled");
}

/// What was begun under the earlier id ends under the present one.
#[tokio::test]
async fn pairs_under_way_are_waited_for_after_a_rename_too() {
    let (old, new) = (RouteId::from("bare"), RouteId::from("new"));
    let kinds: [fn(&RouteId) -> RouteId; 2] = [RouteId::clone, candidate_key];
    for of in kinds {
        let fixture = Fixture::before_dark().await;
        let first = fixture.begun(&of(&old));
        let was = [of(&old)];
        fixture.evidence.set_renames([(&of(&new), was.as_slice())].into_iter());
        assert_eq!(fixture.evidence.in_flight(&of(&new)), 1);
        let second = fixture.begun(&of(&new));
        first.settle(ComparisonOutcome::Mismatched);
        assert_eq!(fixture.evidence.in_flight(&of(&new)), 1, "the one of the present id is still under way");
        second.settle(ComparisonOutcome::Matched);
        assert_eq!(fixture.evidence.in_flight(&of(&new)), 0);
    }
    // Also where the route keeps evidence of its own.
    let fixture = Fixture::before_dark().await;
    fixture.evidence.set_basis(0, &[("plain".into(), "one".into())]);
    let _pair = fixture.begun(&old);
    let was = [old];
    fixture.evidence.set_renames([(&RouteId::from("plain"), was.as_slice())].into_iter());
    assert_eq!(fixture.evidence.in_flight(&"plain".into()), 1);
}

#[tokio::test]
async fn a_flip_down_with_a_larger_share_is_in_force_before_pairs_are_waited_for() {
    let within = |files: DeclaredFiles| DeclaredFiles { pairs_within: LONG, ..files };
    let fixture = Fixture::open(within(files(&[]))).await;
    fixture.flip("plain", forced(State::Shadow)).await.unwrap();
    fixture.flip("plain", MoveRequest { percent: Percent::new(10.0), ..forced(State::Dark) }).await.unwrap();
    fixture.flip("plain", MoveRequest { percent: Percent::new(10.0), ..forced(State::Live) }).await.unwrap();
    fixture.record_pairs("plain");
    let pair = fixture.begun(&"plain".into());
    let ladder = fixture.ladder.clone();
    let flip = tokio::spawn(async move { ladder.flip(&"plain".into(), percent(State::Dark, 50.0)).await });
    while fixture.state("plain").state == State::Live {
        tokio::task::yield_now().await;
    }
    let share = || fixture.status("plain").shares.of(State::Dark).as_f64();
    assert!((share() - 10.0).abs() < 1e-9 && !flip.is_finished(), "only the larger share waits");
    pair.settle(ComparisonOutcome::Matched);
    flip.await.unwrap().unwrap();
    assert!((share() - 50.0).abs() < 1e-9, "{}", share());
}

/// A differing pair may be under way when the others have opened the gate.
#[tokio::test]
async fn a_guard_that_clean_evidence_releases_waits_for_pairs_under_way() {
    use super::guard::{crossing, guarded};
    use crate::flag::GuardRelease;
    let files = || DeclaredFiles { pairs_within: LONG, ..guarded("plain", |of| of.release = GuardRelease::Evidence) };
    let fixture = Fixture::live(files(), "plain").await;
    fixture.ladder.act_on_crossing(&crossing("plain", State::Live));
    fixture.record_pairs("plain");
    let pair = fixture.begun(&"plain".into());
    let release = async || fixture.ladder.mover.release_by_evidence().await.unwrap();
    release().await;
    assert_eq!(fixture.state("plain").state, State::Dark);
    pair.settle(ComparisonOutcome::Matched);
    release().await;
    assert_eq!(fixture.state("plain").state, State::Live);
}
