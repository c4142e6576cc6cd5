//! Flips to `only` that wait for the store while a freeze comes into force.

use super::freezes::{freeze, wait_until_recorded};
use super::*;

/// While it is silent, the store records flips, but the replies are lost, and nothing can be read from it.
pub(super) fn silence(fixture: &Fixture, is_silent: bool) {
    fixture.store.lose_replies.store(is_silent, Ordering::SeqCst);
    fixture.store.fail_reads.store(is_silent, Ordering::SeqCst);
}

pub(super) async fn stored(fixture: &Fixture) -> Vec<(String, String)> {
    let flips = fixture.store.flips(None, 9).await.unwrap();
    flips.into_iter().rev().map(|flip| (flip.from, flip.to)).collect()
}

pub(super) fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

/// The file asks for `only` by force.
fn only_by_file() -> DeclaredFiles {
    edited(files(&[("bare", State::Only)]), "bare", |route| route.force = Some("we know".into()))
}

/// A flip of `bare` from `live` to `only` waits for the store.
async fn pending_flip() -> Fixture {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", MoveRequest { percent: Percent::new(100.0), ..forced(State::Live) }).await.unwrap();
    silence(&fixture, true);
    let pending = fixture.flip("bare", forced(State::Only)).await.unwrap_err();
    assert!(matches!(pending, FlipError::Unconfirmed(Unconfirmed::Pending)), "{pending}");
    fixture
}

#[tokio::test(start_paused = true)]
async fn a_flip_to_only_that_a_freeze_overtakes_is_reverted() {
    let fixture = pending_flip().await;
    freeze(&fixture, Freeze::Instances).await.unwrap();
    silence(&fixture, false);
    wait_until_recorded(&fixture).await;
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    let expected = pairs(&[("off", "live"), ("live", "only"), ("only", "live"), ("no", "instances")]);
    assert_eq!(stored(&fixture).await, expected, "so a restart finds no route in `only` during a recorded freeze");
    assert_eq!(fixture.status("bare").forced.as_deref(), Some("a drill"), "of the flip to `live`");
    assert!(!fixture.ladder.flags().load().route(&"bare".into()).unwrap().returns_at_restart);
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    freeze(&fixture, Freeze::No).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Live, EffectiveReason::Requested));
    fixture.flip("bare", forced(State::Only)).await.unwrap();
    freeze(&fixture, Freeze::Instances).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Only, "it was there before the freeze");
    fixture.ladder.reload(files(&[]), || {}).await.unwrap();
    let fixture = fixture.restart(files(&[])).await;
    assert_eq!(fixture.state("bare").state, State::Only);
}

/// The caller of the flip still waits when the store answers.
#[tokio::test(start_paused = true)]
async fn whoever_flips_to_only_is_told_that_a_freeze_overtook_it() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    silence(&fixture, true);
    let ladder = fixture.ladder.clone();
    let flip = tokio::spawn(async move { ladder.flip(&"bare".into(), forced(State::Only)).await });
    // The caller waits for five seconds.
    tokio::time::sleep(Duration::from_secs(1)).await;
    freeze(&fixture, Freeze::Effects).await.unwrap();
    silence(&fixture, false);
    let refused = flip.await.unwrap().unwrap_err();
    assert!(
        matches!(refused, FlipError::Refused { .. }) && refused.to_string().contains("stays in `live`"),
        "{refused}"
    );
}

/// The store refuses the flip down that reverts the flip to `only`: the route is below `only` all the same, and the
/// freeze is recorded after that flip down.
#[tokio::test(start_paused = true)]
async fn a_flip_to_only_is_reverted_though_the_store_refuses_it() {
    let fixture = pending_flip().await;
    freeze(&fixture, Freeze::Instances).await.unwrap();
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    silence(&fixture, false);
    while fixture.ladder.unrecorded_flips() == 0 {
        assert_ne!(fixture.state("bare").state, State::Only);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.state("bare"), effective(State::Shadow, EffectiveReason::Freeze));
    let flag = fixture.ladder.flags().load().route(&"bare".into()).unwrap().clone();
    assert!(flag.returns_at_restart && fixture.ladder.freeze_is_unrecorded());
    fixture.store.refuse_flips.store(false, Ordering::SeqCst);
    wait_until_recorded(&fixture).await;
    let expected = pairs(&[("off", "live"), ("live", "only"), ("only", "live"), ("no", "instances")]);
    assert_eq!(stored(&fixture).await, expected);
}

/// The flip to `only` is reverted after the process has begun to stop.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_waits_for_a_flip_to_only_that_is_reverted() {
    for is_recorded in [true, false] {
        let fixture = pending_flip().await;
        freeze(&fixture, Freeze::Instances).await.unwrap();
        let (log, _guard) = super::captured_log::capture_log();
        let ladder = fixture.ladder.clone();
        let end = tokio::spawn(async move { ladder.end_moves(Duration::from_secs(20)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!end.is_finished(), "it is not known yet whether it has to be reverted");
        fixture.store.refuse_flips.store(!is_recorded, Ordering::SeqCst);
        silence(&fixture, false);
        end.await.unwrap();
        assert_eq!(fixture.ladder.unrecorded_flips(), usize::from(!is_recorded));
        let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        let is_named = log.contains("the flips down of these routes, which are lost") && log.contains("bare");
        assert_eq!(is_named, !is_recorded, "{log}");
        if is_recorded {
            assert_eq!(stored(&fixture).await[..3], pairs(&[("off", "live"), ("live", "only"), ("only", "live")]));
        }
    }
}

/// The flip and the freeze are made after the end of the process has waited for moves.
#[tokio::test(start_paused = true)]
async fn a_stop_that_loses_a_late_flip_that_reverts_names_its_route_in_the_log() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.flip("bare", forced(State::Live)).await.unwrap();
    fixture.ladder.end_moves(Duration::from_secs(20)).await;
    silence(&fixture, true);
    let pending = fixture.flip("bare", forced(State::Only)).await.unwrap_err();
    assert!(matches!(pending, FlipError::Unconfirmed(Unconfirmed::Pending)), "{pending}");
    freeze(&fixture, Freeze::Instances).await.unwrap();
    let (log, _guard) = super::captured_log::capture_log();
    fixture.store.refuse_flips.store(true, Ordering::SeqCst);
    silence(&fixture, false);
    fixture.ladder.end_freezes(tokio::time::Instant::now() + Duration::from_secs(20)).await;
    assert_eq!(fixture.ladder.unrecorded_flips(), 1);
    let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
    let is_named =
        |line: &str| line.contains("the flips down of these routes, which are lost") && line.contains("bare");
    assert!(log.lines().any(is_named), "{log}");
}

/// Neither a route with a flip nor a new one. Both are in `only` once the freeze has ended and the files are read
/// again.
#[tokio::test(start_paused = true)]
async fn files_that_a_freeze_overtakes_put_no_route_in_only() {
    for is_new in [false, true] {
        let mut before = files(&[]);
        if is_new {
            before.routes.retain(|route| route.id.as_str() != "bare");
        }
        let fixture = Fixture::open(before).await;
        if !is_new {
            fixture.flip("bare", forced(State::Live)).await.unwrap();
        }
        silence(&fixture, true);
        let ladder = fixture.ladder.clone();
        let reload = tokio::spawn(async move { ladder.reload(only_by_file(), || {}).await });
        tokio::time::sleep(Duration::from_secs(9)).await;
        freeze(&fixture, Freeze::Instances).await.unwrap();
        silence(&fixture, false);
        reload.await.unwrap().unwrap();
        assert_eq!(fixture.state("bare").state, State::Shadow, "new: {is_new}");
        let last = fixture.status("bare").last.unwrap();
        let to = if is_new { "shadow" } else { "live" };
        assert_eq!((last.from.as_str(), last.to.as_str(), last.by.as_str()), ("only", to, "file"));
        wait_until_recorded(&fixture).await;
        let fixture = fixture.restart(only_by_file()).await;
        fixture.ladder.reload(only_by_file(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare").state, State::Shadow, "new: {is_new}");
        freeze(&fixture, Freeze::No).await.unwrap();
        fixture.ladder.reload(only_by_file(), || {}).await.unwrap();
        assert_eq!(fixture.state("bare").state, State::Only, "new: {is_new}");
    }
}

/// The route was refused `only` before the freeze, for want of evidence.
#[tokio::test(start_paused = true)]
async fn force_that_a_file_gets_during_a_freeze_puts_no_route_in_only() {
    let fixture = Fixture::open(files(&[("bare", State::Only)])).await;
    assert_eq!(fixture.state("bare").state, State::Shadow);
    freeze(&fixture, Freeze::Instances).await.unwrap();
    fixture.ladder.reload(only_by_file(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare").state, State::Shadow);
    assert!(fixture.status("bare").refused.iter().any(|why| why.contains("`pointsman freeze --off`")));
    let fixture = fixture.restart(only_by_file()).await;
    assert_eq!((fixture.state("bare").state, fixture.flips().await), (State::Shadow, 1));
    freeze(&fixture, Freeze::No).await.unwrap();
    fixture.ladder.reload(only_by_file(), || {}).await.unwrap();
    assert_eq!(fixture.state("bare"), effective(State::Only, EffectiveReason::Unproven));
    // It was there before a later freeze.
    freeze(&fixture, Freeze::Instances).await.unwrap();
    fixture.ladder.reload(only_by_file(), || {}).await.unwrap();
    let fixture = fixture.restart(only_by_file()).await;
    assert_eq!(fixture.state("bare").state, State::Only);
}

/// The creator's follower is below the state that the creator's file forces.
#[tokio::test]
async fn force_that_a_file_gets_puts_no_creator_above_its_followers() {
    let live = || files(&[("create", State::Live)]);
    let by_force = |files: DeclaredFiles| edited(files, "create", |route| route.force = Some("we know".into()));
    let without = |mut files: DeclaredFiles| {
        files.routes.retain(|route| route.id.as_str() != "follow");
        files
    };
    let fixture = Fixture::open(without(live())).await;
    fixture.ladder.reload(live(), || {}).await.unwrap();
    fixture.ladder.reload(by_force(live()), || {}).await.unwrap();
    assert_eq!(fixture.state("create").state, State::Shadow);
    fixture.flip("follow", forced(State::Live)).await.unwrap();
    fixture.ladder.reload(by_force(live()), || {}).await.unwrap();
    assert_eq!(fixture.state("create").state, State::Live);
}
