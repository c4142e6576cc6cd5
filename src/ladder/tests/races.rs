//! The kill switch, health, the guard and flips at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::guard::{crossing, guarded};
use super::*;

/// Obeys at once, and records the newest freeze.
#[derive(Default)]
struct RecordingListener {
    version: AtomicU64,
    holds: AtomicBool,
}

impl KillSwitchListener for RecordingListener {
    fn apply_freeze(&self, version: u64, freeze: Freeze) -> BoxFuture<'_, ()> {
        if self.version.fetch_max(version, Ordering::SeqCst) <= version {
            self.holds.store(freeze != Freeze::No, Ordering::SeqCst);
        }
        std::future::ready(()).boxed()
    }
}

/// Thousands of times and at the same time, health and guard change, routes flip, files are read again, and freezes are
/// set and lifted. After an acknowledged freeze no set is in force that lets the engine begin anything new; each set
/// has a higher number than the one before; what is in force at the end follows from the newest of each input.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_races_never_put_an_older_input_in_force() {
    const FREEZES: u64 = 1_500;
    let fixture = Fixture::open(guarded("plain", |_| {})).await;
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    let listener = Arc::new(RecordingListener::default());
    fixture.ladder.connect_to_kill_switch(listener.clone()).await;
    // What was acknowledged to callers.
    let (frozen, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let ladder = &fixture.ladder;
    thread::scope(|scope| {
        for n in 0..2 {
            // Checks that end late and in any order.
            let (ladder, done, runtime) = (ladder, &done, &runtime);
            scope.spawn(move || {
                let _entered = runtime.enter();
                let mut begun = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    begun.push(ladder.begin_check());
                    let number = begun.swap_remove(fastrand::usize(..begun.len()));
                    match n {
                        0 => ladder.set_health(number, fastrand::bool()),
                        _ if fastrand::bool() => ladder.act_on_crossing(&crossing("plain", State::Live)),
                        _ => ladder.mover.end_guard_by_flip(&"plain".into(), State::Dark, "ann", None),
                    }
                    begun.truncate(8);
                    thread::yield_now();
                }
            });
        }
        let (reader_frozen, reader_done) = (frozen.clone(), done.clone());
        scope.spawn(move || {
            let mut last = 0;
            while !reader_done.load(Ordering::SeqCst) {
                // Read before and after the set is loaded: if the freeze is acknowledged at both times, it is in force
                // in the set.
                let before = reader_frozen.load(Ordering::SeqCst);
                let set = ladder.flags().load_full();
                let flag = set.route(&"plain".into()).unwrap();
                if before && reader_frozen.load(Ordering::SeqCst) && set.set_number >= last {
                    assert!(flag.effective.state <= State::Shadow, "{:?} while frozen", flag.effective);
                }
                assert!(set.set_number >= last, "sets come in order");
                last = set.set_number;
            }
        });
        let (moving_done, moving) = (done.clone(), fixture.ladder.clone());
        let mover = runtime.spawn(async move {
            while !moving_done.load(Ordering::SeqCst) {
                let state = if fastrand::bool() { State::Live } else { State::Off };
                moving.flip(&"plain".into(), forced(state)).await.unwrap();
                moving.reload(guarded("plain", |_| {}), || {}).await.unwrap();
            }
        });
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for n in 0..FREEZES {
                    let to = if n % 2 == 0 { Freeze::Instances } else { Freeze::Effects };
                    ladder.freeze(to, None, "ann".into()).await.unwrap();
                    assert!(listener.holds.load(Ordering::SeqCst), "acknowledged before it is obeyed");
                    frozen.store(true, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    let set = ladder.flags().load_full();
                    assert_eq!(set.freeze, to);
                    assert!(set.route(&"plain".into()).unwrap().effective.state <= State::Shadow);
                    frozen.store(false, Ordering::SeqCst);
                    ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
                }
                done.store(true, Ordering::SeqCst);
                mover.await.unwrap();
            });
        });
    });
    fixture.ladder.set_health(fixture.ladder.begin_check(), true);
    fixture.flip("plain", forced(State::Live)).await.unwrap();
    assert_eq!(fixture.state("plain"), effective(State::Live, EffectiveReason::Requested));
    let numbers = (fixture.ladder.begin_check(), fixture.ladder.begin_check());
    fixture.ladder.set_health(numbers.1, false);
    fixture.ladder.set_health(numbers.0, true);
    assert_eq!(fixture.state("plain"), effective(State::Shadow, EffectiveReason::Health), "the later check counts");
}

#[tokio::test]
async fn a_weaker_freeze_is_refused_and_changes_nothing() {
    let fixture = Fixture::open(files(&[])).await;
    fixture.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    let weaker = fixture.ladder.freeze(Freeze::Instances, None, "ann".into()).await;
    assert!(matches!(weaker, Err(FreezeError::Weaker)), "{weaker:?}");
    assert_eq!((fixture.ladder.flags().load().freeze, fixture.flips().await), (Freeze::Effects, 1));
    fixture.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    fixture.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
}
