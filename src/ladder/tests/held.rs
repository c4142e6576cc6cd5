//! New files may give a route requests that legacy served without a record of their keys, and whose retries may come.
//! Then a route in `live` is held at `dark`, and for a route in `only` the files are refused.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::captured_log::capture_log;
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Puts `bare` in `live` by force.
async fn bare_in_live() -> Fixture {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture
}

/// The files with `bare` on another path.
pub(super) fn elsewhere() -> DeclaredFiles {
    edited(files(&[]), "bare", |route| route.matches.path = "/elsewhere".into())
}

#[tokio::test]
async fn a_live_route_whose_match_changes_is_held_until_no_retry_may_come() {
    let mut fixture = bare_in_live().await;
    for _ in 0..2 {
        fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
        let status = fixture.status("bare");
        assert_eq!(status.requested, State::Live);
        let could_be_live = fixture.ladder.flags().load().route(&"bare".into()).unwrap().could_be_live();
        assert!(could_be_live, "it returns without a gate, so no request may be served whose key cannot be noted");
        for part in ["held at `dark`", "the route's retry keys are recorded since", "force: { reason", "--force"] {
            assert!(status.refused.iter().any(|why| why.contains(part)), "{part}: {:?}", status.refused);
        }
        assert!(fixture.refusal("bare", to(State::Live)).await.contains("the route's retry keys are recorded since"));
        fixture = fixture.restart(elsewhere()).await;
    }
    // A person may override it.
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    let fixture = fixture.restart(elsewhere()).await;
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    // The way back is a change, too.
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested));
    assert!(fixture.status("bare").refused.is_empty());
}

/// A log line says that a route is held only once the files are in force.
#[tokio::test]
async fn a_route_is_logged_as_held_only_when_the_files_are_in_force() {
    let fixture = bare_in_live().await;
    fixture.flip("plain", forced(State::Only)).await.unwrap();
    let both = || edited(elsewhere(), "plain", |route| route.matches.path = "/plain/elsewhere".into());
    let (log, _guard) = capture_log();
    let held = || String::from_utf8_lossy(&log.lock().unwrap()).matches("held below its requested state").count();
    fixture.ladder.reload(both(), || {}).await.unwrap_err();
    assert_eq!(held(), 0, "the files were refused because of `plain`, and `bare` stays in `live`");
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap_err();
    assert_eq!(held(), 0, "the files were not recorded");
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    assert_eq!(held(), 1);
}

/// Legacy is never called for a route in `only`, so it is not held at `dark`.
#[tokio::test]
async fn files_are_refused_if_they_give_requests_with_unknown_keys_to_a_route_in_only() {
    let fixture = bare_in_live().await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let refused = fixture.ladder.reload(elsewhere(), || panic!("it is not recorded")).await.unwrap_err().to_string();
    assert!(refused.contains("`bare` is in `only`") && refused.contains("force: { reason"), "{refused}");
    let at_start = open_ladder(elsewhere(), &fixture.store, &fixture.evidence).await.err().unwrap().to_string();
    let without_time = |text: &str| text.split("until").next().unwrap().to_owned();
    assert_eq!(without_time(&at_start), without_time(&refused));
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested), "nothing changed");
    assert_eq!(fixture.status("bare").requested, State::Only);

    // By force they are accepted once and for all.
    let by_force = edited(elsewhere(), "bare", |route| route.force = Some("no client retries".into()));
    fixture.ladder.reload(by_force, || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
    assert!(fixture.status("bare").forced.is_some());
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    let fixture = fixture.restart(elsewhere()).await;
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
    let renamed = edited(elsewhere(), "bare", |route| (route.id, route.was) = ("renamed".into(), vec!["bare".into()]));
    fixture.ladder.reload(renamed, || {}).await.unwrap();
    assert_eq!(fixture.state("renamed"), effective(State::Only, EffectiveReason::Requested));
}

/// An older version held such a route at `dark` instead of refusing the files: its row has `since` and no `accepted`.
#[tokio::test]
async fn a_route_in_only_that_an_older_version_held_is_refused_at_the_start() {
    let fixture = bare_in_live().await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let by_force = || edited(elsewhere(), "bare", |route| route.force = Some("no client retries".into()));
    fixture.ladder.reload(by_force(), || {}).await.unwrap();
    let mut rows = fixture.store.declared().await.unwrap();
    let retry = rows.iter_mut().find(|row| row.route.as_str() == "bare").and_then(|row| row.retry.as_mut()).unwrap();
    assert!(retry.since.is_some() && retry.accepted.take() >= retry.since, "{retry:?}");
    fixture.store.put(Vec::new(), Some(rows)).await;
    let refused = open_ladder(elsewhere(), &fixture.store, &fixture.evidence).await.err().unwrap().to_string();
    assert!(refused.contains("`bare` is in `only`") && refused.contains("force: { reason"), "{refused}");
    // What is accepted is accepted for the later starts, too.
    let fixture = fixture.restart(by_force()).await.restart(elsewhere()).await;
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
}

#[tokio::test]
async fn files_that_take_a_route_out_of_only_and_reassign_requests_to_it_must_lower_it_below_live() {
    let fixture = bare_in_live().await;
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    let lower = |state| edited(elsewhere(), "bare", |route| route.declared = state);
    let refused = fixture.ladder.reload(lower(State::Live), || {}).await.unwrap_err().to_string();
    assert!(refused.contains("`bare` is in `only`, where legacy is never called"), "{refused}");
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Requested));
    let by_force = edited(lower(State::Dark), "bare", |route| route.force = Some("back to legacy".into()));
    let fixture = fixture.restart(by_force).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Requested));
    assert!(fixture.refusal("bare", to(State::Live)).await.contains("the route's retry keys are recorded since"));
}

#[tokio::test]
async fn a_route_is_not_held_while_its_file_has_force() {
    let fixture = bare_in_live().await;
    let by_force = edited(elsewhere(), "bare", |route| route.force = Some("a new path".into()));
    fixture.ladder.reload(by_force, || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    assert_eq!(
        fixture.state("bare"),
        effective(State::Dark, EffectiveReason::Gate),
        "without `force` it is held for the rest of the time"
    );
}

#[tokio::test]
async fn a_held_route_cannot_be_raised_by_its_file_and_can_be_lowered() {
    let fixture = bare_in_live().await;
    let declaring = |state| edited(elsewhere(), "bare", |route| route.declared = state);
    fixture.ladder.reload(declaring(State::Only), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    assert_eq!(fixture.flips().await, 1);
    for state in [State::Dark, State::Shadow] {
        fixture.ladder.reload(declaring(state), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(state, EffectiveReason::Requested));
        assert_eq!(fixture.status("bare").last.unwrap().by, "file");
    }
}

/// `bare` gets another path and, by `was`, takes the place of `plain`, whose last flip is newer.
#[tokio::test]
async fn a_held_route_that_takes_the_place_of_another_one_goes_down() {
    let fixture = bare_in_live().await;
    fixture.flip("plain", forced(State::Dark)).await.unwrap();
    let mut merged = edited(elsewhere(), "bare", |route| route.was = vec!["plain".into()]);
    merged.routes.retain(|route| route.id.as_str() != "plain");
    for _ in 0..2 {
        fixture.ladder.reload(merged.clone(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare").state, State::Dark);
    }
    assert!(fixture.refusal("bare", to(State::Live)).await.contains("the route's retry keys are recorded since"));
    let fixture = fixture.restart(merged).await;
    assert_eq!(fixture.state("bare").state, State::Dark);
}

/// A change of `match` and a move to `live` in one change of the files.
#[tokio::test]
async fn a_file_is_judged_by_the_match_that_it_has_now() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Dark)).await.unwrap();
    let declared = edited(elsewhere(), "bare", |route| route.declared = State::Live);
    fixture.ladder.reload(declared, || {}).await.unwrap();
    let why = fixture.status("bare").refused.join("; ");
    assert!(why.contains("the route's retry keys are recorded since"), "{why}");
}

#[tokio::test]
async fn a_route_whose_workflow_begins_to_write_is_held() {
    let reads =
        |reads: bool| DeclaredFiles { read_only: reads.then(|| "bare".into()).into_iter().collect(), ..elsewhere() };
    let fixture = bare_in_live().await;
    fixture.ladder.reload(reads(true), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested), "reading twice does no harm");
    // This flip by force comes before the next edit, so it does not accept what that edit exposes.
    fixture.flip("bare", to(State::Dark)).await.unwrap();
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    let fixture = fixture.restart(reads(true)).await;
    fixture.ladder.reload(reads(false), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    let fixture = fixture.restart(reads(false)).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(reads(false), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
}

/// The time in which retries may come is over.
#[tokio::test]
async fn a_held_route_returns_by_itself() {
    let mut fixture = bare_in_live().await;
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    fixture.ladder.release_held().await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    expire_soon(&fixture.store).await;
    fixture = fixture.restart(elsewhere()).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    release_until(&fixture, || fixture.state("bare") == effective(State::Live, EffectiveReason::Requested)).await;
    assert_eq!(fixture.flips().await, 1);
    assert!(fixture.status("bare").refused.is_empty());
}

/// Routes of which legacy served requests whose keys could not be noted, and when.
#[derive(Default)]
pub(super) struct Unnoted(Mutex<Vec<(RouteId, Timestamp)>>);

impl Unnoted {
    /// Legacy serves one now.
    pub(super) fn serve(&self, route: &str) {
        self.0.lock().unwrap().push((route.into(), clock::now()));
    }
}

impl GateCondition for Unnoted {
    fn unknown_retries(&self, routes: &[&RouteId]) -> Vec<UnknownRetries> {
        let all = self.0.lock().unwrap().clone();
        let of_routes = all.into_iter().filter(|(route, _)| routes.contains(&route));
        let unknown = |(route, cause_at)| UnknownRetries {
            cause_at,
            until: cause_at + Duration::from_secs(86_400),
            why: format!("a key of `{route}` was not noted"),
        };
        of_routes.map(unknown).collect()
    }
}

/// `bare` is in `live` by force, and gates ask for unnoted keys.
async fn bare_in_live_with(unnoted: &Arc<Unnoted>, files: DeclaredFiles) -> Fixture {
    let store = Arc::new(FailingStore::default());
    let evidence = Evidence::load(store.clone()).await.unwrap();
    let ladder = open_with(files, &store, &evidence, vec![unnoted.clone()]).await.unwrap();
    let fixture = Fixture { store, evidence, ladder };
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture
}

/// Starts again, with the same conditions.
pub(super) async fn restart_with(unnoted: &Arc<Unnoted>, files: DeclaredFiles, fixture: Fixture) -> Fixture {
    let Fixture { store, evidence, ladder: _ } = fixture;
    let ladder = open_with(files, &store, &evidence, vec![unnoted.clone()]).await.unwrap();
    Fixture { store, evidence, ladder }
}

#[tokio::test]
async fn a_reload_and_a_start_hold_a_live_route_for_keys_that_are_not_known() {
    let unnoted = Arc::new(Unnoted::default());
    unnoted.serve("bare");
    let fixture = bare_in_live_with(&unnoted, files(&[])).await;
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(
        fixture.state("bare"),
        effective(State::Live, EffectiveReason::Requested),
        "the flip by force accepted these"
    );
    unnoted.serve("bare");
    let why = |fixture: &Fixture| fixture.status("bare").refused.join("; ");
    let fixture = restart_with(&unnoted, files(&[]), fixture).await;
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    assert!(why(&fixture).contains("held at `dark`: a key of `bare` was not noted"), "{}", why(&fixture));
    assert!(fixture.refusal("bare", to(State::Live)).await.contains("a key of `bare` was not noted"));
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    unnoted.serve("bare");
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    // A workflow that only reads does no harm.
    let reads = DeclaredFiles { read_only: ["bare".into()].into(), ..files(&[]) };
    fixture.ladder.reload(reads, || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
}

/// `plain` had some of the requests of `bare` and is removed.
#[tokio::test]
async fn a_live_route_is_held_for_unnoted_keys_of_a_route_whose_requests_it_gets() {
    let wide = || edited(files(&[]), "bare", |route| route.matches.path = "/{any}".into());
    let unnoted = Arc::new(Unnoted::default());
    let fixture = bare_in_live_with(&unnoted, wide()).await;
    let without_plain = || {
        let mut files = wide();
        files.routes.retain(|route| route.id.as_str() != "plain");
        files
    };
    fixture.ladder.reload(without_plain(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested), "all keys were noted");
    fixture.ladder.reload(wide(), || {}).await.unwrap();
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    unnoted.serve("plain");
    fixture.ladder.reload(wide(), || {}).await.unwrap();
    fixture.ladder.reload(without_plain(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
}

#[tokio::test]
async fn a_live_route_is_held_when_a_scope_of_its_keys_is_dropped() {
    let fixture = bare_in_live().await;
    let scoped_by = |n: usize| {
        let name: http::HeaderName = format!("x-caller-{n}").parse().unwrap();
        edited(files(&[]), "bare", |route| route.caller = vec![name].into())
    };
    for n in 0..crate::limits::EARLIER_SCOPES_MAX {
        fixture.ladder.reload(scoped_by(n), || {}).await.unwrap();
        assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested), "{n}");
    }
    let last = crate::limits::EARLIER_SCOPES_MAX;
    fixture.ladder.reload(scoped_by(last), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
    let why = fixture.status("bare").refused.join("; ");
    assert!(why.contains("the scope of the retry keys changed more than"), "{why}");
}

/// Moves the time since which the keys of `bare` are recorded into the past, so that its hold, a day and ten minutes,
/// ends in 200 milliseconds.
pub(super) async fn expire_soon(store: &FailingStore) {
    let mut rows = store.declared().await.unwrap();
    let retry = rows.iter_mut().find(|row| row.route.as_str() == "bare").and_then(|row| row.retry.as_mut()).unwrap();
    retry.harmful_since = retry.since;
    retry.since = Some(retry.since.unwrap() - (25 * HOUR - HOUR * 5 / 6 - Duration::from_millis(200)));
    store.put(Vec::new(), Some(rows)).await;
}

/// Releases held routes until a condition is true.
pub(super) async fn release_until(fixture: &Fixture, is_true: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    while !is_true() {
        assert!(tokio::time::Instant::now() < until, "it is released");
        fixture.ladder.release_held().await.unwrap();
        tokio::task::yield_now().await;
    }
}

/// While it was held, legacy served a request whose key was not noted, and the gate is not asked when it returns.
#[tokio::test]
async fn a_held_route_does_not_return_while_keys_are_not_known() {
    let unnoted = Arc::new(Unnoted::default());
    let fixture = bare_in_live_with(&unnoted, files(&[])).await;
    fixture.ladder.reload(elsewhere(), || {}).await.unwrap();
    expire_soon(&fixture.store).await;
    let fixture = restart_with(&unnoted, elsewhere(), fixture).await;
    unnoted.serve("bare");
    let why = || fixture.status("bare").refused.join("; ");
    assert!(why().contains("the route's retry keys are recorded since"), "{}", why());
    release_until(&fixture, || !why().contains("the route's retry keys are recorded since")).await;
    assert!(why().contains("a key of `bare` was not noted"), "{}", why());
    assert_eq!(fixture.state("bare"), effective(State::Dark, EffectiveReason::Gate));
}

/// The file of `plain` asks for `dark`, whose gate is open now: only the next reload moves `plain`.
#[tokio::test]
async fn the_end_of_a_hold_moves_no_other_route() {
    let fixture = bare_in_live().await;
    fixture.flip("plain", to(State::Shadow)).await.unwrap();
    let asking = || edited(elsewhere(), "plain", |route| route.declared = State::Dark);
    fixture.ladder.reload(asking(), || {}).await.unwrap();
    expire_soon(&fixture.store).await;
    let fixture = fixture.restart(asking()).await;
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Gate));
    fixture.record_pairs("plain");
    let flips = fixture.flips().await;
    release_until(&fixture, || fixture.state("bare") == effective(State::Live, EffectiveReason::Requested)).await;
    assert_eq!(
        (fixture.state("plain"), fixture.flips().await),
        (effective(State::Shadow, EffectiveReason::Gate), flips)
    );
    fixture.ladder.reload(asking(), || {}).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Dark, EffectiveReason::Requested));
}
