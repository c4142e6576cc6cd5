//! The basis of a route's evidence changes while the route, or a cohort of it, is in `live` or above: it stays there
//! and is marked. A route that was held does not return without its gate.

use super::captured_log::capture_log;
use super::held::{elsewhere, expire_soon, release_until};
use super::held_cohorts::with_staff;
use super::*;

/// These files with a basis of the evidence of `bare`.
fn based(files: DeclaredFiles, basis: &str) -> DeclaredFiles {
    DeclaredFiles { bases: BTreeMap::from([("bare".into(), basis.into())]), ..files }
}

fn version(basis: &str) -> DeclaredFiles {
    based(files(&[]), basis)
}

impl Fixture {
    /// Puts files in force as the process does: the evidence gets its new basis once they are recorded.
    async fn put(&self, declared: DeclaredFiles) {
        let (evidence, bases) = (Arc::clone(&self.evidence), declared.bases.clone());
        let set_basis = move || {
            evidence.set_basis(0, &bases.into_iter().map(|(id, hash)| (id, hash.as_str().into())).collect::<Vec<_>>());
        };
        self.ladder.reload(declared, set_basis).await.unwrap();
    }

    /// A fixture with the first version of the files, in which `bare` has reached `live` by its evidence, not by force.
    async fn proven_in_live() -> Self {
        let fixture = Self::open(version("one")).await;
        fixture.put(version("one")).await;
        fixture.record_pairs("bare");
        for state in [State::Shadow, State::Dark, State::Live] {
            fixture.flip("bare", to(state)).await.unwrap();
        }
        fixture
    }

    fn is_marked(&self) -> bool {
        let status = self.status("bare");
        let is_marked = status.effective.why == EffectiveReason::Unproven;
        assert_eq!(status.changed.is_some(), is_marked, "{status:?}");
        is_marked
    }

    fn record_mismatch(&self) {
        let (status, body) = (http::StatusCode::OK, Body::Whole(bytes::Bytes::new()));
        let reply = Observation::new(status, http::HeaderMap::new(), body, Duration::ZERO, Vec::new());
        let comparison = Comparison {
            verdict: Verdict::Mismatch,
            differences: Vec::new(),
            elements: Default::default(),
            truncated: false,
            ignored_by: Vec::new(),
            compares_replies: true,
            fingerprint: "one".into(),
            effects: None,
            intents: Default::default(),
            calls: Vec::new(),
            orders_not_kept: Vec::new(),
            unparsable: Vec::new(),
            not_known: Vec::new(),
        };
        let route = RouteId::from("bare");
        let generation = self.evidence.generation(&route, 0);
        self.evidence.record_pair(&route, generation, State::Dark, &comparison, &reply, &reply);
    }
}

#[tokio::test]
async fn an_edit_in_live_is_marked_and_shuts_the_gate_to_only() {
    let mut fixture = Fixture::proven_in_live().await;
    assert!(!fixture.is_marked());
    let (log, _guard) = capture_log();
    let logged = || String::from_utf8_lossy(&log.lock().unwrap()).matches("the files change a route in `live`").count();
    fixture.put(version("two")).await;
    fixture.put(version("two")).await;
    assert_eq!(logged(), 1, "when it is changed, and not at each reload");
    fixture.put(version("another")).await;
    fixture.put(version("two")).await;
    assert_eq!(logged(), 3);
    fixture.record_engine_answers("bare");
    for _ in 0..2 {
        assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Unproven));
        let why = fixture.status("bare").changed.unwrap();
        assert!(why.contains("`bare` is in `live`") && why.contains("was not compared"), "{why}");
        let refused = fixture.refusal("bare", to(State::Only)).await;
        assert!(refused.contains("flip `bare` to `dark` or lower"), "{refused}");
        fixture = fixture.restart(version("two")).await;
    }
    // This is again the version that was compared.
    fixture.put(version("one")).await;
    assert!(!fixture.is_marked());
    fixture.put(version("two")).await;
    assert!(fixture.is_marked());
    // The way down and up again is through the gate.
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    assert!(!fixture.is_marked());
    assert!(fixture.refusal("bare", to(State::Live)).await.contains("20 more compared pairs in dark"));
    fixture.record_pairs("bare");
    fixture.flip("bare", to(State::Live)).await.unwrap();
    let fixture = fixture.restart(version("two")).await;
    assert!(!fixture.is_marked());
    fixture.record_engine_answers("bare");
    fixture.flip("bare", to(State::Only)).await.unwrap();
    fixture.put(version("three")).await;
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Unproven));
    assert!(fixture.status("bare").changed.unwrap().contains("flip bare only --force"));
    assert!(fixture.flip("bare", forced(State::Only)).await.unwrap().changed);
    let fixture = fixture.restart(version("three")).await;
    assert!(!fixture.is_marked());
    // On the way down, too.
    fixture.put(version("four")).await;
    fixture.flip("bare", MoveRequest { acknowledge: true, ..forced(State::Live) }).await.unwrap();
    let fixture = fixture.restart(version("four")).await;
    assert!(!fixture.is_marked());
}

#[tokio::test]
async fn evidence_on_the_new_basis_ends_the_mark_for_good() {
    let fixture = Fixture::proven_in_live().await;
    fixture.put(version("two")).await;
    fixture.ladder.release_held().await.unwrap();
    assert!(fixture.is_marked());
    let flips = fixture.flips().await;
    // Evidence on the new basis, such as of callers outside the share of `live`.
    fixture.record_pairs("bare");
    fixture.ladder.release_held().await.unwrap();
    assert!(!fixture.is_marked());
    fixture.record_mismatch();
    let fixture = fixture.restart(version("two")).await;
    assert!(!fixture.is_marked());
    fixture.record_engine_answers("bare");
    fixture.flip("bare", to(State::Only)).await.unwrap();
    assert_eq!(fixture.flips().await, flips + 1);
}

#[tokio::test]
async fn force_after_the_edit_accepts_it() {
    let fixture = Fixture::proven_in_live().await;
    fixture.put(version("two")).await;
    assert!(!fixture.flip("bare", to(State::Live)).await.unwrap().changed, "a flip without force accepts nothing");
    assert!(fixture.is_marked());
    let done = fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert!(done.changed && done.flip.forced);
    let fixture = fixture.restart(version("two")).await;
    assert!(!fixture.is_marked());
    assert_eq!(fixture.status("bare").forced.as_deref(), Some("a drill"), "until evidence opens the gate to `live`");
    // That force is older than the next edit. `force` that comes with the edit is not.
    fixture.put(version("three")).await;
    assert!(fixture.is_marked());
    let by_file = || edited(version("four"), "bare", |route| route.force = Some("an urgent fix".into()));
    fixture.put(by_file()).await;
    assert!(!fixture.is_marked());
    fixture.put(based(by_file(), "five")).await;
    assert!(fixture.is_marked(), "it was written for another version");
}

#[tokio::test]
async fn an_edit_while_a_cohort_is_in_live_is_marked_until_the_cohort_has_a_new_reason() {
    let fixture = Fixture::open(based(with_staff(files(&[]), "our own people"), "one")).await;
    assert_eq!(fixture.status("bare").changed, None);
    for _ in 0..2 {
        fixture.put(based(with_staff(files(&[]), "our own people"), "two")).await;
        let why = fixture.status("bare").changed.unwrap();
        assert!(why.contains("by the cohort `staff`") && why.contains("`force` of `staff` a new reason"), "{why}");
    }
    let fixture = fixture.restart(based(with_staff(files(&[]), "our own people"), "two")).await;
    assert!(fixture.status("bare").changed.is_some());
    fixture.put(based(with_staff(files(&[]), "they know of the fix"), "two")).await;
    assert_eq!(fixture.status("bare").changed, None);
}

#[tokio::test]
async fn a_held_route_whose_basis_changed_returns_only_through_its_gate() {
    for by_flip in [true, false] {
        let mut fixture = Fixture::proven_in_live().await;
        let edited = || based(elsewhere(), "two");
        fixture.put(edited()).await;
        expire_soon(&fixture.store).await;
        fixture = fixture.restart(edited()).await;
        let why = || fixture.status("bare").refused.join("; ");
        assert!(why().contains("held at `dark`: the route's retry keys are recorded since"), "{}", why());
        release_until(&fixture, || why().contains("does not return to `live` by itself")).await;
        assert!(why().contains("20 more compared pairs in dark"), "{}", why());
        let mut fixture = fixture.restart(edited()).await;
        fixture.put(edited()).await;
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
        assert_eq!(fixture.status("bare").requested, State::Live);
        fixture.record_pairs("bare");
        match by_flip {
            true => assert!(fixture.flip("bare", to(State::Live)).await.unwrap().changed),
            false => fixture = fixture.restart(edited()).await,
        }
        assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
        assert!(!fixture.is_marked() && fixture.status("bare").refused.is_empty());
    }
}

#[tokio::test]
async fn a_held_route_does_not_return_over_open_mismatches() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    expire_soon(&fixture.store).await;
    fixture.record_mismatch();
    let fixture = fixture.restart(elsewhere()).await;
    let why = || fixture.status("bare").refused.join("; ");
    release_until(&fixture, || why().contains("does not return to `live` by itself: has 1 open mismatch")).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let fixture = fixture.restart(elsewhere()).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
}
