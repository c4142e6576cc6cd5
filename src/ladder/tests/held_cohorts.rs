//! Routes on a restored backup, cohorts whose `force` is older than what holds them, and cohorts below `live`.

use super::held::{Unnoted, elsewhere, expire_soon, release_until, restart_with};
use super::*;
use crate::expression::Expression;
use crate::flag::Cohort;
use crate::limits::COHORT_REASONS_MAX;

/// Starts on a restored backup, which a process starts for the first time.
async fn restart_on_copy(files: DeclaredFiles, fixture: Fixture) -> Fixture {
    let Fixture { store, evidence, ladder: _ } = fixture;
    let parts = LadderParts {
        store: store.clone(),
        evidence: evidence.clone(),
        conditions: Vec::new(),
        conditions_of_moves: Vec::new(),
        retry_window: Duration::from_secs(86_400),
        copy_started: Some(clock::now()),
        answer_within: Duration::from_secs(5),
        others: None,
    };
    let ladder = Ladder::open(files, parts).await.unwrap();
    Fixture { store, evidence, ladder }
}

#[tokio::test]
async fn a_route_that_goes_down_from_only_to_live_on_a_copy_is_held_at_once() {
    for by_force in [false, true] {
        let fixture = Fixture::open(files(&[])).await;
        fixture.flip("bare", forced(State::Only)).await.unwrap();
        let fixture = restart_on_copy(files(&[]), fixture).await;
        assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
        let down = if by_force { forced(State::Live) } else { to(State::Live) };
        let flipped = fixture.flip("bare", MoveRequest { acknowledge: true, ..down }).await.unwrap();
        let expected = if by_force {
            effective(State::Live, EffectiveReason::Requested)
        } else {
            effective(State::Dark, EffectiveReason::Gate)
        };
        assert_eq!(flipped.effective, expected);
        assert!(flipped.flip.forced, "the gates below are overridden by the first flip");
        fixture.ladder.reload(files(&[]), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), expected, "a force from before the copy was started accepts nothing of it");
    }
}

/// A flip that lowered the route after the backup was made would not be in it.
#[tokio::test]
async fn a_live_route_goes_down_for_good_on_a_copy() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let fixture = restart_on_copy(files(&[]), fixture).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested));
    let last = fixture.status("bare").last.unwrap();
    assert!(last.by == "file" && last.reason.unwrap().contains("the store is a copy"));
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(
        fixture.state("bare"),
        effective(State::Dark, EffectiveReason::Requested),
        "no retries may come any more"
    );

    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let by_force = || edited(files(&[]), "bare", |route| route.force = Some("its flips are checked".into()));
    let fixture = restart_on_copy(by_force(), fixture).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    let reads = || DeclaredFiles { read_only: ["bare".into()].into(), ..files(&[]) };
    let fixture = restart_on_copy(reads(), fixture).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested), "a repeat does no harm");
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested), "from now on it does");
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(
        fixture.state("bare"),
        effective(State::Live, EffectiveReason::Requested),
        "this flip is one of the copy"
    );
}

/// The flip that lowers the route does not put the share of the backup in the place of the one in the file: whoever
/// flips the route up again would give the engine more callers than the file says.
#[tokio::test]
async fn a_share_that_was_edited_since_the_backup_is_in_force_on_it() {
    let with_share = |percent: f64| {
        let live = Percent::new(percent).unwrap();
        edited(files(&[]), "plain", |route| route.shares = route.shares.with(State::Live, live))
    };
    let mut fixture = Fixture::open(with_share(100.0)).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    fixture = restart_on_copy(with_share(10.0), fixture).await;
    for when in ["at the first start", "at the second start"] {
        assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested), "{when}");
        let status = fixture.status("plain");
        assert_eq!(status.shares.of(State::Live), Percent::new(10.0).unwrap(), "{when}");
        let last = status.last.unwrap();
        assert!(last.reason.unwrap().contains("the store is a copy"), "{when}");
        assert_eq!(last.shares, Some(status.shares), "{when}: the record says what is in force");
        assert_eq!(status.refused, [""; 0], "{when}");
        fixture = fixture.restart(with_share(10.0)).await;
    }
}

/// On a restored backup the route is in `dark` too, by the flip of the files.
#[tokio::test]
async fn of_shares_that_are_edited_at_once_only_the_larger_one_waits_for_its_gate() {
    let percent = |percent| Percent::new(percent).unwrap();
    let with_shares = |dark, live| {
        edited(files(&[]), "plain", |route| {
            route.shares = route.shares.with(State::Dark, percent(dark)).with(State::Live, percent(live));
        })
    };
    for on_copy in [true, false] {
        let fixture = Fixture::open(with_shares(20.0, 100.0)).await;
        fixture.flip("plain", forced(State::Live)).await.unwrap();
        let next = || with_shares(50.0, 10.0);
        let mut fixture = if on_copy {
            restart_on_copy(next(), fixture).await
        } else {
            fixture.flip("plain", to(State::Dark)).await.unwrap();
            fixture.ladder.reload(next(), || {}).await.unwrap();
            fixture
        };
        let flips = fixture.flips().await;
        for _ in 0..2 {
            assert_eq!(fixture.state("plain").state, State::Dark);
            let status = fixture.status("plain");
            assert_eq!((status.shares.dark, status.shares.live), (percent(20.0), percent(10.0)), "copy: {on_copy}");
            assert!(!status.refused.is_empty() && status.last.unwrap().shares == Some(status.shares));
            fixture = fixture.restart(next()).await;
            assert_eq!(fixture.flips().await, flips);
        }
        fixture.record_pairs("plain");
        fixture.ladder.reload(next(), || {}).await.unwrap();
        let status = fixture.status("plain");
        assert_eq!((status.shares.dark, status.refused.len()), (percent(50.0), 0), "copy: {on_copy}");
    }
}

#[tokio::test]
async fn an_edit_of_shares_of_which_one_was_refused_can_be_reverted() {
    let percent = |percent| Percent::new(percent).unwrap();
    let with_shares = |dark, live| {
        edited(files(&[]), "plain", |route| {
            route.shares = route.shares.with(State::Dark, percent(dark)).with(State::Live, percent(live));
        })
    };
    let fixture = Fixture::open(with_shares(20.0, 10.0)).await;
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    for (dark, live, expected) in [(50.0, 100.0, 100.0), (20.0, 10.0, 10.0), (50.0, 100.0, 100.0), (50.0, 10.0, 10.0)] {
        fixture.ladder.reload(with_shares(dark, live), || {}).await.unwrap();
        let status = fixture.status("plain");
        assert_eq!((status.shares.dark, status.shares.live), (percent(20.0), percent(expected)), "{dark} {live}");
        assert_eq!(status.refused.is_empty(), dark == 20.0, "{:?}", status.refused);
    }
}

/// Files with a cohort of `bare` that is in `live` by force.
pub(super) fn with_staff(files: DeclaredFiles, reason: &str) -> DeclaredFiles {
    let when = Expression::parse("request.headers[\"x-staff\"] == \"1\"").unwrap();
    let staff = Cohort { name: "staff".into(), when, state: State::Live, force: Some(reason.into()) };
    edited(files, "bare", |route| route.cohorts = vec![staff])
}

/// The rung of the cohort of this route.
pub(super) fn rung_of_staff(fixture: &Fixture, id: &str) -> State {
    let flags = fixture.ladder.flags().load();
    let flag = flags.route(&id.into()).unwrap();
    flag.rung_of(&flag.route.cohorts[0])
}

/// Whoever wrote the `force` of a cohort did not know of a later edit of the route's `match`.
#[tokio::test]
async fn a_cohort_is_held_in_spite_of_a_force_that_was_written_before_the_edit() {
    let fixture = Fixture::open(with_staff(files(&[]), "our own people")).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    fixture.ladder.reload(with_staff(elsewhere(), "our own people"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    let why = fixture.status("bare").refused.join("; ");
    assert!(why.contains("the cohort `staff` is held below `live`"), "{why}");
    let fixture = fixture.restart(with_staff(elsewhere(), "our own people")).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    fixture.ladder.reload(with_staff(elsewhere(), "they know of the new path"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    // The way back is an edit, too, and a forced flip of the route after it counts for its cohorts.
    fixture.ladder.reload(with_staff(files(&[]), "they know of the new path"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
}

/// Neither another name nor an absence shows that somebody knows of the edit.
#[tokio::test]
async fn a_held_cohort_is_not_released_by_another_name_or_by_an_absence() {
    let named = |name: &str| {
        edited(with_staff(elsewhere(), "our own people"), "bare", |route| route.cohorts[0].name = name.into())
    };
    for restarts in [false, true] {
        let mut fixture = Fixture::open(with_staff(files(&[]), "our own people")).await;
        for files in [named("staff"), named("employees"), elsewhere(), elsewhere(), named("staff")] {
            let has_cohort = files.routes.iter().any(|route| !route.cohorts.is_empty());
            fixture = match restarts {
                true => fixture.restart(files).await,
                false => {
                    fixture.ladder.reload(files, || {}).await.unwrap();
                    fixture
                }
            };
            if has_cohort {
                assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark, "restarts: {restarts}");
            }
        }
        fixture.ladder.reload(with_staff(elsewhere(), "they know of the new path"), || {}).await.unwrap();
        assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
        fixture.ladder.reload(with_staff(elsewhere(), "our own people"), || {}).await.unwrap();
        assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark, "this reason is the older one");
    }
}

/// The newest are kept, for as long as something may be held for what came before they were dropped.
#[tokio::test]
async fn the_number_of_dropped_reasons_is_bounded() {
    let fixture = Fixture::open(with_staff(files(&[]), "0")).await;
    for n in 1..=COHORT_REASONS_MAX + 2 {
        fixture.ladder.reload(with_staff(files(&[]), &n.to_string()), || {}).await.unwrap();
    }
    let dropped = async |fixture: &Fixture| {
        let rows = fixture.store.declared().await.unwrap();
        let row = rows.into_iter().find(|row| row.route.as_str() == "bare").unwrap();
        row.retry.unwrap().dropped_reasons.into_keys().collect::<std::collections::BTreeSet<_>>()
    };
    let expected = (2..COHORT_REASONS_MAX + 2).map(|n| n.to_string()).collect();
    assert_eq!(dropped(&fixture).await, expected);
    let mut rows = fixture.store.declared().await.unwrap();
    for dropped in rows.iter_mut().flat_map(|row| &mut row.retry).flat_map(|retry| retry.dropped_reasons.values_mut()) {
        dropped.at = jiff::Timestamp::UNIX_EPOCH;
    }
    fixture.store.put(Vec::new(), Some(rows)).await;
    let fixture = fixture.restart(with_staff(files(&[]), "the last")).await;
    assert_eq!(dropped(&fixture).await, [(COHORT_REASONS_MAX + 2).to_string()].into());
}

#[tokio::test]
async fn a_held_cohort_returns_by_itself() {
    let fixture = Fixture::open(with_staff(files(&[]), "our own people")).await;
    fixture.ladder.reload(with_staff(elsewhere(), "our own people"), || {}).await.unwrap();
    expire_soon(&fixture.store).await;
    let fixture = fixture.restart(with_staff(elsewhere(), "our own people")).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    release_until(&fixture, || rung_of_staff(&fixture, "bare") == State::Live).await;
}

#[tokio::test]
async fn a_cohort_is_held_on_a_copy() {
    let fixture = Fixture::open(with_staff(files(&[]), "our own people")).await;
    let fixture = restart_on_copy(with_staff(files(&[]), "our own people"), fixture).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    fixture.ladder.reload(with_staff(files(&[]), "their retries are checked"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
}

/// A reason that a start is the first to read was written before that start, so maybe before what was lost.
#[tokio::test]
async fn a_cohort_is_held_if_a_start_is_the_first_to_read_its_reason() {
    let since_backup = || with_staff(files(&[]), "written after the backup");
    let fixture = restart_on_copy(since_backup(), Fixture::open(files(&[])).await).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    let other = || with_staff(files(&[]), "their retries are checked");
    fixture.ladder.reload(other(), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);

    let unnoted = Arc::new(Unnoted::default());
    let fixture = restart_with(&unnoted, files(&[]), Fixture::open(files(&[])).await).await;
    unnoted.serve("bare");
    let fixture = restart_with(&unnoted, since_backup(), fixture).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    let fixture = restart_with(&unnoted, since_backup(), fixture).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    fixture.ladder.reload(other(), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    let fixture = restart_with(&unnoted, other(), fixture).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live, "this reason was read by a reload");

    let fixture = Fixture::open(files(&[])).await.restart(since_backup()).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live, "nothing was lost");
}

#[tokio::test]
async fn a_cohort_is_held_for_keys_that_are_not_known() {
    let unnoted = Arc::new(Unnoted::default());
    let staffed = || with_staff(files(&[]), "our own people");
    let fixture = restart_with(&unnoted, staffed(), Fixture::open(staffed()).await).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    unnoted.serve("bare");
    assert!(fixture.status("bare").refused.is_empty(), "it is not judged again yet");
    let fixture = restart_with(&unnoted, staffed(), fixture).await;
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    let why = fixture.status("bare").refused.join("; ");
    assert!(why.contains("the cohort `staff` is held below `live`"), "{why}");
    assert!(why.contains("a key of `bare` was not noted"), "{why}");
    fixture.ladder.reload(with_staff(files(&[]), "they know of these keys"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live);
    unnoted.serve("bare");
    fixture.ladder.reload(with_staff(files(&[]), "they know of these keys"), || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Dark);
    let only_reads =
        DeclaredFiles { read_only: ["bare".into()].into(), ..with_staff(files(&[]), "they know of these keys") };
    fixture.ladder.reload(only_reads, || {}).await.unwrap();
    assert_eq!(rung_of_staff(&fixture, "bare"), State::Live, "a repeat does no harm");
}

/// In `only` a cohort lowers nobody, so its callers would get the engine without having had it before.
#[tokio::test]
async fn no_route_goes_to_only_while_a_cohort_is_below_live() {
    let with_vip = |state: State| {
        let when = Expression::parse("request.headers[\"x-tier\"] == \"vip\"").unwrap();
        edited(files(&[]), "bare", |route| {
            route.cohorts = vec![Cohort { name: "vip".into(), when, state, force: None }];
        })
    };
    let fixture = Fixture::open(with_vip(State::Off)).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.record_engine_answers("bare");
    assert!(fixture.refusal("bare", to(State::Only)).await.contains("the cohort `vip` keeps callers in `off`"));
    fixture.ladder.reload(with_vip(State::Dark), || {}).await.unwrap();
    assert!(fixture.refusal("bare", to(State::Only)).await.contains("the cohort `vip` keeps callers in `dark`"));
    fixture.ladder.reload(with_vip(State::Live), || {}).await.unwrap();
    fixture.flip("bare", to(State::Only)).await.unwrap();
}
