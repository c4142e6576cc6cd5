//! The kill switch, health, the guard and flips at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;

/// Obeys at once and knows the last word.
#[derive(Default)]
struct Obedient {
    version: AtomicU64,
    holds: AtomicBool,
}

impl Obey for Obedient {
    fn obey(&self, version: u64, freeze: Freeze) -> BoxFuture<'_, ()> {
        if self.version.fetch_max(version, Ordering::SeqCst) <= version {
            self.holds.store(freeze != Freeze::No, Ordering::SeqCst);
        }
        std::future::ready(()).boxed()
    }
}

/// Health flaps, the guard comes and goes, routes flip, files are read again, and somebody freezes and lifts it, thousands
/// of times. After an acknowledged freeze no set is in force that lets the engine take anything new; after each swap the
/// generation is higher; what is in force at the end follows from the newest of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_races_never_put_an_older_word_back() {
    const FREEZES: u64 = 1_500;
    let house = House::open(files(&[])).await;
    house.flip("plain", forced(State::Live)).await.unwrap();
    let obedient = Arc::new(Obedient::default());
    house.ladder.obeyed_by(obedient.clone()).await;
    // What is acknowledged, as the outside knows it.
    let (frozen, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let ladder = &house.ladder;
    thread::scope(|scope| {
        for n in 0..2 {
            // Looks that come back late and in any order.
            let (ladder, done) = (ladder, &done);
            scope.spawn(move || {
                let mut kept = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    kept.push(ladder.look());
                    let look = kept.swap_remove(fastrand::usize(..kept.len()));
                    match n {
                        0 => ladder.set_health(look, fastrand::bool()),
                        _ => ladder.set_guard(look, &"plain".into(), fastrand::bool().then_some(State::Dark)),
                    }
                    kept.truncate(8);
                    thread::yield_now();
                }
            });
        }
        let (reader_frozen, reader_done) = (frozen.clone(), done.clone());
        scope.spawn(move || {
            let mut last = 0;
            while !reader_done.load(Ordering::SeqCst) {
                // Read in this order: frozen before the set is loaded, and not lifted after.
                let before = reader_frozen.load(Ordering::SeqCst);
                let set = ladder.flags().load_full();
                let flag = set.route(&"plain".into()).unwrap();
                if before && reader_frozen.load(Ordering::SeqCst) && set.generation >= last {
                    assert!(flag.effective.state <= State::Shadow, "{:?} while frozen", flag.effective);
                }
                assert!(set.generation >= last, "sets come in order");
                last = set.generation;
            }
        });
        let runtime = tokio::runtime::Handle::current();
        let (moving_done, moving) = (done.clone(), house.ladder.clone());
        let mover = runtime.spawn(async move {
            while !moving_done.load(Ordering::SeqCst) {
                let state = if fastrand::bool() { State::Live } else { State::Off };
                moving.flip(&"plain".into(), forced(state)).await.unwrap();
                moving.reload(files(&[]), || {}).await.unwrap();
            }
        });
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for n in 0..FREEZES {
                    let to = if n % 2 == 0 { Freeze::Instances } else { Freeze::Effects };
                    ladder.freeze(to, None, "ann".into()).await.unwrap();
                    assert!(obedient.holds.load(Ordering::SeqCst), "acknowledged before it is obeyed");
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
    house.ladder.set_health(house.ladder.look(), true);
    house.ladder.set_guard(house.ladder.look(), &"plain".into(), None);
    house.flip("plain", forced(State::Live)).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Live, Why::Requested));
    let looks = (house.ladder.look(), house.ladder.look());
    house.ladder.set_health(looks.1, false);
    house.ladder.set_health(looks.0, true);
    assert_eq!(house.state("plain"), stands(State::Shadow, Why::Health), "the later look counts");
}

#[tokio::test]
async fn the_guard_limits_a_route_and_its_cohorts() {
    let house = House::open(files(&[])).await;
    house.flip("plain", forced(State::Live)).await.unwrap();
    house.ladder.set_guard(house.ladder.look(), &"plain".into(), Some(State::Dark));
    assert_eq!(house.state("plain"), stands(State::Dark, Why::Guard));
    assert_eq!(house.status("plain").effective, stands(State::Dark, Why::Guard));
    house.ladder.reload(files(&[]), || {}).await.unwrap();
    assert_eq!(house.state("plain"), stands(State::Dark, Why::Guard), "files do not lift it");
    house.ladder.set_guard(house.ladder.look(), &"plain".into(), None);
    assert_eq!(house.state("plain"), stands(State::Live, Why::Requested));
    house.ladder.set_guard(house.ladder.look(), &"gone".into(), Some(State::Off));
}

#[tokio::test]
async fn a_weaker_freeze_is_refused_and_changes_nothing() {
    let house = House::open(files(&[])).await;
    house.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    let weaker = house.ladder.freeze(Freeze::Instances, None, "ann".into()).await;
    assert!(matches!(weaker, Err(FreezeError::Weaker)), "{weaker:?}");
    assert_eq!((house.ladder.flags().load().freeze, house.flips().await), (Freeze::Effects, 1));
    house.ladder.freeze(Freeze::Effects, None, "ann".into()).await.unwrap();
    house.ladder.freeze(Freeze::No, None, "ann".into()).await.unwrap();
}
