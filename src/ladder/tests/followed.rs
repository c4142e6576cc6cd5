//! TwoProcesses ladders on one store, as those of two processes.

use std::sync::atomic::Ordering;

use super::guard::{crossing, guarded};
use super::plans::sharing;
use super::*;
use crate::ladder::record::{RecordBatch, is_outdated_judgement};

/// TwoProcesses processes with the same files.
pub(super) struct TwoProcesses {
    pub(super) one: Fixture,
    pub(super) two: Fixture,
    pub(super) files: DeclaredFiles,
}

impl TwoProcesses {
    pub(super) async fn open(files: DeclaredFiles) -> Self {
        let one = Fixture::open(files.clone()).await;
        one.store.inner.set_shared();
        let evidence = Evidence::load(one.store.clone()).await.unwrap();
        let ladder = open_ladder(files.clone(), &one.store, &evidence).await.unwrap();
        Self { two: Fixture { store: one.store.clone(), evidence, ladder }, one, files }
    }
    /// One follows what the other has recorded.
    pub(super) async fn follow(&self, follower: &Fixture) {
        while let Some(moves) = follower.ladder.newer_moves().await.unwrap() {
            let mut files = self.files.clone();
            files.plans.candidate_move = None;
            files.plans.in_force = follower.ladder.plans_after(&moves, &files.routes).in_force;
            follower.ladder.follow(moves, files, || {}).await.unwrap();
        }
        assert_eq!(*follower.ladder.newest_in_force().borrow(), follower.newest().await);
    }
}

impl Fixture {
    pub(super) async fn newest(&self) -> u64 {
        self.store.flips(None, 1).await.unwrap().first().map_or(0, |flip| flip.number)
    }
    /// The store takes everything again: waits until it has what is in force here. For a paused clock.
    pub(super) async fn record_all(&self) {
        self.store.refuse_flips.store(false, Ordering::SeqCst);
        self.ladder.mover.in_force().wait_guard_recorded().await;
        while self.ladder.unrecorded_flips() > 0 || self.ladder.freeze_is_unrecorded() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn flips_shares_and_freezes_of_another_process_come_into_force() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    for request in [
        forced(State::Shadow),
        forced(State::Live),
        MoveRequest { force: true, reason: Some("less".into()), ..percent(State::Live, 20.0) },
        to(State::Dark),
    ] {
        one.flip("plain", request).await.unwrap();
        let before = one.flips().await;
        both.follow(two).await;
        let shown =
            |of: &Fixture| of.ladder.flags().load().route(&"plain".into()).map(|flag| (flag.effective, flag.shares));
        assert_eq!(shown(one), shown(two));
        assert_eq!(one.flips().await, before, "to follow records nothing");
    }
    for freeze in [Freeze::Effects, Freeze::No] {
        one.ladder.freeze(freeze, None, "ann".into()).await.unwrap();
        both.follow(two).await;
        assert_eq!(two.ladder.flags().load().freeze, freeze);
    }
    // Back to the first one.
    two.flip("plain", to(State::Off)).await.unwrap();
    assert_eq!(one.state("plain").state, State::Dark);
    both.follow(one).await;
    assert_eq!(one.state("plain").state, State::Off);
}

#[tokio::test]
async fn what_a_guard_did_in_another_process_and_its_release_come_into_force() {
    let both = TwoProcesses::open(guarded("bare", |_| {})).await;
    let TwoProcesses { one, two, .. } = &both;
    // The gauge of the process that follows; the other one's is not recorded here.
    let follow_and_read_gauge = async |follower: &Fixture| {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let of_follower = metrics::set_default_local_recorder(&recorder);
        both.follow(follower).await;
        drop(of_follower);
        let text = recorder.handle().render();
        let gauge = |line: &str| line.strip_prefix(r#"pointsman_guard_latched{route="bare"} "#).map(str::to_owned);
        text.lines().find_map(gauge)
    };
    one.flip("bare", forced(State::Live)).await.unwrap();
    assert_eq!(follow_and_read_gauge(two).await.as_deref(), Some("0"));
    one.ladder.act_on_crossing(&crossing("bare", State::Live));
    one.ladder.mover.in_force().wait_guard_recorded().await;
    assert_eq!(follow_and_read_gauge(two).await.as_deref(), Some("1"));
    assert_eq!(
        (one.state("bare"), two.state("bare")),
        (two.state("bare"), effective(State::Dark, EffectiveReason::Guard))
    );
    let release = GuardRelease { reason: "it is mended".into(), by: "ann".into(), force: true };
    two.ladder.release_guard(&"bare".into(), release).await.unwrap();
    assert_eq!(follow_and_read_gauge(one).await.as_deref(), Some("0"));
    assert_eq!(
        (one.state("bare"), two.state("bare")),
        (two.state("bare"), effective(State::Live, EffectiveReason::Requested))
    );
}

#[tokio::test]
async fn a_candidate_has_the_share_that_another_process_gave_it() {
    let one = Fixture::with_share(30.0).await;
    one.store.inner.set_shared();
    let evidence = Evidence::load(one.store.clone()).await.unwrap();
    let ladder = open_ladder(sharing("two", None), &one.store, &evidence).await.unwrap();
    let two = Fixture { store: one.store.clone(), evidence, ladder };
    let both = TwoProcesses { one, two, files: sharing("two", None) };
    assert_eq!(both.two.share_of("bare"), Some(30.0));
    both.one.ladder.reload(sharing("two", Some(60.0)), || {}).await.unwrap();
    both.follow(&both.two).await;
    assert_eq!(both.two.share_of("bare"), Some(60.0));
}

/// The first process has it in force while the store takes nothing.
#[tokio::test(start_paused = true)]
async fn a_flip_down_that_is_not_recorded_stays_above_what_another_process_recorded_before() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("plain", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    let less = MoveRequest { force: true, reason: Some("less".into()), ..percent(State::Live, 20.0) };
    two.flip("plain", less).await.unwrap();
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    let down = one.flip("plain", to(State::Shadow)).await.unwrap();
    assert!(!down.recorded);
    let moves = one.ladder.newer_moves().await.unwrap().unwrap();
    one.ladder.follow(moves, both.files.clone(), || {}).await.unwrap();
    assert_eq!(one.state("plain").state, State::Shadow);
    one.store.refuse_flips.store(false, Ordering::SeqCst);
    while one.ladder.unrecorded_flips() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("plain").state, State::Shadow);
    }
}

/// The first process lowers the route to `dark` while the store takes nothing, and the other one further. Recorded
/// after that, the first flip would raise the route.
#[tokio::test(start_paused = true)]
async fn a_flip_down_is_not_recorded_after_a_lower_one_of_another_process() {
    for follows_first in [false, true] {
        let both = TwoProcesses::open(files(&[])).await;
        let TwoProcesses { one, two, .. } = &both;
        two.flip("plain", forced(State::Live)).await.unwrap();
        both.follow(one).await;
        one.store.refuse_flips.store(true, Ordering::SeqCst);
        assert!(!one.flip("plain", to(State::Dark)).await.unwrap().recorded);
        let last = one.store.flips(None, 1).await.unwrap().remove(0);
        let lower = crate::store::FlipRecord { number: 0, from: "live".into(), to: "shadow".into(), ..last };
        one.store.put(vec![lower], None).await;
        if follows_first {
            one.store.refuse_flips.store(false, Ordering::SeqCst);
            both.follow(one).await;
        }
        one.store.refuse_flips.store(false, Ordering::SeqCst);
        while one.ladder.unrecorded_flips() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for of in [one, two] {
            both.follow(of).await;
            assert_eq!(of.state("plain").state, State::Shadow, "{follows_first}");
        }
    }
}

/// The write of a flip down counted as lost, and reaches the store before it is tried again.
#[tokio::test(start_paused = true)]
async fn a_flip_down_whose_record_came_late_is_not_recorded_again() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("plain", forced(State::Live)).await.unwrap();
    both.follow(one).await;
    one.store.refuse_flips.store(true, Ordering::SeqCst);
    let down = one.flip("plain", to(State::Dark)).await.unwrap();
    assert!(!down.recorded);
    one.store.put(vec![down.flip], None).await;
    one.record_all().await;
    let flips = one.store.flips(None, 100).await.unwrap();
    assert_eq!(flips.iter().filter(|flip| flip.to == "dark").count(), 1, "{flips:?}");
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("plain").state, State::Dark);
    }
}

#[tokio::test]
async fn a_judged_move_is_not_recorded_after_one_that_is_not_in_force() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.flip("bare", forced(State::Shadow)).await.unwrap();
    let recorded = one.store.flips(None, 1).await.unwrap()[0].clone();
    let flip = crate::store::FlipRecord { at: recorded.at + jiff::SignedDuration::from_secs(1), ..recorded };
    let batch = |judged_by| RecordBatch { flips: vec![flip.clone()], declared: None, judged_by };
    let judged = || batch(Some(*two.ladder.newest_in_force().borrow()));
    // Twice: also once it knows of the other one.
    for _ in 0..2 {
        let error = two.ladder.mover.recorder.record(judged()).await.unwrap_err();
        assert!(is_outdated_judgement(&error), "{error}");
    }
    two.ladder.wait_until_behind().await;
    // A flip that is in force already is recorded after it.
    two.ladder.mover.recorder.record(batch(None)).await.unwrap();
    assert!(*two.ladder.newest_in_force().borrow() < two.newest().await);
    both.follow(two).await;
    two.ladder.mover.recorder.record(judged()).await.unwrap();
    assert_eq!(*two.ladder.newest_in_force().borrow(), two.newest().await);
}

/// A person asks the second process for what the first one did a moment ago, and for the next rung.
#[tokio::test]
async fn a_flip_is_judged_by_what_another_process_recorded() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    let following = async {
        loop {
            two.ladder.wait_until_behind().await;
            both.follow(two).await;
        }
    };
    let flips = async {
        one.flip("bare", forced(State::Live)).await.unwrap();
        // In the second process nothing would change.
        let down = two.flip("bare", to(State::Off)).await.unwrap();
        assert_eq!((down.changed, down.flip.from.as_str()), (true, "live"));
        both.follow(one).await;
        one.flip("bare", forced(State::Shadow)).await.unwrap();
        let up = two.flip("bare", forced(State::Dark)).await.unwrap();
        assert_eq!((up.flip.from.as_str(), up.flip.to.as_str()), ("shadow", "dark"));
    };
    tokio::select! {
        () = following => {}
        () = flips => {}
    }
}

/// This process has read what the other one recorded, and records a move of its own before that is in force.
#[tokio::test]
async fn what_is_older_than_a_move_of_this_process_changes_nothing() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    two.flip("plain", forced(State::Shadow)).await.unwrap();
    both.follow(one).await;
    two.flip("plain", forced(State::Live)).await.unwrap();
    let older = one.ladder.newer_moves().await.unwrap().unwrap();
    assert!(one.flip("plain", to(State::Off)).await.unwrap().recorded);
    one.ladder.follow(older, both.files.clone(), || {}).await.unwrap();
    assert_eq!(one.state("plain").state, State::Off);
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.state("plain").state, State::Off);
    }
}

#[tokio::test]
async fn the_end_of_a_freeze_does_not_end_a_newer_one() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    one.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    both.follow(two).await;
    let older = two.ladder.freeze(Freeze::No, None, "bob".into()).await.unwrap().flip;
    let newer = one.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    assert!(newer.recorded && newer.flip.number > older.number);
    let mover = &one.ladder.mover;
    mover.kill_switch().follow_stronger(mover.in_force(), &older);
    assert_eq!(mover.kill_switch().follow(mover.in_force(), Some(&older), |change, _| Some(change)), Some(None));
    assert_eq!(one.ladder.flags().load().freeze, Freeze::Effects);
    for of in [one, two] {
        both.follow(of).await;
        assert_eq!(of.ladder.flags().load().freeze, Freeze::Effects);
    }
}

/// One process after the other gets the new files. Meanwhile a person moves the route.
#[tokio::test]
async fn an_edit_that_another_process_has_read_counts_once() {
    let both = TwoProcesses::open(files(&[])).await;
    let TwoProcesses { one, two, .. } = &both;
    let declaring = |state: State| {
        edited(files(&[]), "plain", |route| (route.declared, route.force) = (state, Some("a launch".to_owned())))
    };
    one.ladder.reload(declaring(State::Live), || {}).await.unwrap();
    both.follow(two).await;
    assert_eq!(two.state("plain").state, State::Live);
    one.flip("plain", to(State::Off)).await.unwrap();
    both.follow(two).await;
    let before = two.flips().await;
    two.ladder.reload(declaring(State::Live), || {}).await.unwrap();
    assert_eq!((two.state("plain").state, two.flips().await), (State::Off, before));
    // Further edits count.
    for state in [State::Shadow, State::Live] {
        two.ladder.reload(declaring(state), || {}).await.unwrap();
        assert_eq!(two.state("plain").state, state);
    }
}

/// The other process has newer files, in which the route has another id.
#[tokio::test]
async fn moves_under_a_new_id_are_followed_with_the_files_before() {
    let both = TwoProcesses::open(guarded("bare", |_| {})).await;
    let TwoProcesses { one, two, files } = &both;
    one.flip("bare", forced(State::Live)).await.unwrap();
    both.follow(two).await;
    let renamed = edited(files.clone(), "bare", |route| (route.id, route.was) = ("new".into(), vec!["bare".into()]));
    one.ladder.reload(renamed, || {}).await.unwrap();
    one.ladder.act_on_crossing(&crossing("new", State::Live));
    one.ladder.mover.in_force().wait_guard_recorded().await;
    both.follow(two).await;
    assert_eq!(two.state("bare"), effective(State::Dark, EffectiveReason::Guard));
    assert!(one.flip("new", to(State::Off)).await.unwrap().recorded);
    both.follow(two).await;
    assert_eq!(two.state("bare").state, State::Off);
}

/// The conditions of a process while others have other files.
struct OtherFiles;

impl GateCondition for OtherFiles {
    fn files_differ(&self) -> bool {
        true
    }
    fn unmet(&self, _route: &Route, _from: State, to: State) -> Vec<Unmet> {
        let unmet = Unmet { why: "others have other files".to_owned(), since: None };
        if to >= State::Dark { vec![unmet] } else { Vec::new() }
    }
}

/// A process that has the files of before restarts, after the new ones have lowered a route.
#[tokio::test]
async fn a_start_with_other_files_than_other_processes_raises_nothing() {
    let one = Fixture::open(files(&[])).await;
    let declaring = |state: State| {
        edited(files(&[]), "plain", |route| (route.declared, route.force) = (state, Some("a launch".to_owned())))
    };
    one.ladder.reload(declaring(State::Live), || {}).await.unwrap();
    one.ladder.reload(declaring(State::Off), || {}).await.unwrap();
    assert_eq!(one.state("plain").state, State::Off);
    let parts = ladder_parts(&one.store, &one.evidence, Vec::new());
    let parts = LadderParts { conditions_of_moves: vec![Arc::new(OtherFiles)], ..parts };
    let ladder = Ladder::open(declaring(State::Live), parts).await.unwrap();
    let state = |ladder: &Ladder| ladder.flags().load().route(&"plain".into()).map(|flag| flag.effective.state);
    assert_eq!(state(&ladder), Some(State::Off));
    ladder.apply_files_again(declaring(State::Live), || {}).await.unwrap();
    assert_eq!(state(&ladder), Some(State::Off), "nobody has read them again");
    ladder.reload(declaring(State::Live), || {}).await.unwrap();
    assert_eq!(state(&ladder), Some(State::Live));
}
