//! The kill switch, as the engine checks and obeys it.
//!
//! The question it answers: "may this begin now?" It is asked at the last moment at which an operation can still be
//! stopped: right before a run is made, and right before the first byte of a request is sent.
//!
//! Always true: once [`KillSwitch::set`] has returned, no thread begins an operation that the new freeze forbids,
//! however long ago it was decided. An operation holds a [`Permit`] while it begins, and `set` waits until every permit
//! that was granted under the old freeze has been dropped. Freezes carry versions: an older one never replaces a newer
//! one.
//!
//! A permit is held only over code that waits for nothing outside, so `set` returns within a few polls.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::flag::Freeze;

/// What a freeze can forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A run for a request that a rung below `only` gives to the engine.
    Run,
    /// An attempt of a private or shared step, or of its undo.
    Effect,
}

/// The freeze in force, and the operations that are beginning.
pub(super) struct KillSwitch {
    /// The rank of `freeze`, which permits are checked against.
    rank: AtomicU8,
    /// How many permits for [`Operation::Run`] are held.
    run_permits: AtomicUsize,
    /// How many permits for [`Operation::Effect`] are held.
    effect_permits: AtomicUsize,
    /// The version of the freeze in force. Locked while it changes.
    version: Mutex<u64>,
    /// The freeze in force, for the tasks of runs.
    freeze: watch::Sender<Freeze>,
}

/// Held while an operation begins; to be dropped as soon as it has begun.
pub(super) struct Permit<'a>(&'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many times `set` yields between checks for permits, before it sleeps between them.
const YIELDS_MAX: usize = 20;
const CHECK_PAUSE: Duration = Duration::from_millis(1);

impl KillSwitch {
    /// A kill switch without a freeze.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            rank: AtomicU8::new(rank(Freeze::No)),
            run_permits: AtomicUsize::new(0),
            effect_permits: AtomicUsize::new(0),
            version: Mutex::new(0),
            freeze: watch::Sender::new(Freeze::No),
        })
    }

    /// Lets an operation begin; `None` where the freeze in force forbids it.
    pub fn begin(&self, operation: Operation) -> Option<Permit<'_>> {
        let (permits, forbidden_from) = match operation {
            Operation::Run => (&self.run_permits, rank(Freeze::Instances)),
            Operation::Effect => (&self.effect_permits, rank(Freeze::Effects)),
        };
        // `begin` counts the permit, then reads the rank; `set` writes the rank, then reads the count. In the total
        // order of these four operations, either `begin` sees the new rank or `set` sees the permit.
        permits.fetch_add(1, Ordering::SeqCst);
        let permit = Permit(permits);
        (self.rank.load(Ordering::SeqCst) < forbidden_from).then_some(permit)
    }

    /// The freeze in force.
    pub fn freeze(&self) -> Freeze {
        *self.freeze.borrow()
    }

    /// Receives changes of the freeze in force.
    pub fn subscribe(&self) -> watch::Receiver<Freeze> {
        self.freeze.subscribe()
    }

    /// Puts a freeze in force, unless a newer one is in force. Then waits until no operation that it forbids is
    /// beginning. Returns whether it was put in force.
    pub async fn set(&self, version: u64, freeze: Freeze) -> bool {
        let is_newest = {
            let mut newest = self.version.lock().unwrap_or_else(PoisonError::into_inner);
            let is_newest = version >= *newest;
            if is_newest {
                *newest = version;
                self.rank.store(rank(freeze), Ordering::SeqCst);
                self.freeze.send_if_modified(|current| std::mem::replace(current, freeze) != freeze);
            }
            is_newest
        };
        // Waits even if a newer freeze is in force: a freeze is acknowledged only once it is obeyed.
        if freeze >= Freeze::Instances {
            wait_for_none(&self.run_permits).await;
        }
        if freeze >= Freeze::Effects {
            wait_for_none(&self.effect_permits).await;
        }
        is_newest
    }
}

/// Waits until no permit is held.
async fn wait_for_none(permits: &AtomicUsize) {
    for _ in 0..YIELDS_MAX {
        if permits.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    while permits.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(CHECK_PAUSE).await;
    }
}

/// A higher rank forbids all that a lower one does, and more.
fn rank(freeze: Freeze) -> u8 {
    match freeze {
        Freeze::No => 0,
        Freeze::Instances => 1,
        Freeze::Effects => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn each_freeze_forbids_its_operations_and_an_older_one_is_ignored() {
        let switch = KillSwitch::new();
        let may_begin = |operation| switch.begin(operation).is_some();
        for (version, freeze, instances, effects) in
            [(1, Freeze::Instances, false, true), (2, Freeze::Effects, false, false), (3, Freeze::No, true, true)]
        {
            assert!(switch.set(version, freeze).await);
            let allowed = (may_begin(Operation::Run), may_begin(Operation::Effect));
            assert_eq!(allowed, (instances, effects), "{freeze:?}");
        }
        switch.set(5, Freeze::Effects).await;
        assert!(!switch.set(4, Freeze::No).await);
        assert_eq!((switch.freeze(), may_begin(Operation::Effect)), (Freeze::Effects, false));
    }

    /// Threads begin operations without a pause while the freeze changes thousands of times, with outdated ones among
    /// the new: no operation begins while a freeze that forbids it is acknowledged.
    #[test]
    fn nothing_forbidden_begins_after_the_acknowledgement_in_thousands_of_races() {
        const ROUNDS: u64 = 2_000;
        let switch = KillSwitch::new();
        // Whether a freeze is acknowledged.
        let (frozen, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let begun = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..3 {
                let (switch, frozen, done, begun) = (&switch, &frozen, &done, &begun);
                scope.spawn(move || {
                    let operation = if worker == 0 { Operation::Run } else { Operation::Effect };
                    while !done.load(Ordering::SeqCst) {
                        let Some(permit) = switch.begin(operation) else {
                            thread::yield_now();
                            continue;
                        };
                        // The operation begins here, while its permit is held.
                        assert!(!frozen.load(Ordering::SeqCst), "{operation:?} begins after the acknowledgement");
                        begun.fetch_add(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
            // A thread that always sets an outdated version.
            {
                let (switch, done) = (&switch, &done);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    while !done.load(Ordering::SeqCst) {
                        runtime.block_on(switch.set(1, Freeze::No));
                        thread::yield_now();
                    }
                });
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut version = 1;
            for _ in 0..ROUNDS {
                version += 2;
                runtime.block_on(switch.set(version, Freeze::Effects));
                frozen.store(true, Ordering::SeqCst);
                let before = begun.load(Ordering::SeqCst);
                thread::yield_now();
                assert_eq!(begun.load(Ordering::SeqCst), before);
                frozen.store(false, Ordering::SeqCst);
                runtime.block_on(switch.set(version + 1, Freeze::No));
                // At least one operation begins in each round, so that the next freeze has something to race with.
                let until = std::time::Instant::now() + Duration::from_secs(10);
                while begun.load(Ordering::SeqCst) == before && std::time::Instant::now() < until {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(begun.load(Ordering::SeqCst) >= 2_000, "operations began between the freezes");
    }
}
