//! The kill switch as the engine obeys it.
//!
//! The question it answers: "may this begin now?" It is asked at the last moment at which a beginning can still be
//! stopped: right before a run is made, right before a request's first byte.
//!
//! Always true: once [`KillSwitch::set`] has returned, nothing begins that the new word forbids, in whatever thread and
//! however long ago it was decided: a beginning holds a [`Pass`] while it happens, and `set` waits until every pass
//! given out under the older word is back. A word never replaces a newer one: words carry versions.
//!
//! A pass is held over code that does not wait for anything outside, so `set` returns within the time of a few polls.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::flag::Freeze;

/// What can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// A run for a request that a rung below `only` gives to the engine.
    Instance,
    /// An attempt of a private or shared step, or of its undo.
    Effect,
}

/// See the module.
pub(super) struct KillSwitch {
    /// What the passes are checked against; the same as `word`.
    in_force: AtomicU8,
    /// Passes that are out, by what begins.
    instances: AtomicUsize,
    effects: AtomicUsize,
    /// The version of the word in force. Locked while it changes.
    version: Mutex<u64>,
    /// Tells the tasks of runs.
    word: watch::Sender<Freeze>,
}

/// Something begins now. Dropped as soon as it has begun.
pub(super) struct Pass<'a>(&'a AtomicUsize);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long `set` waits between two looks at the passes that are out, once looking at once did not suffice.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// Looks before it waits.
const LOOKS_AT_ONCE: usize = 20;

impl KillSwitch {
    /// Nothing is forbidden.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            in_force: AtomicU8::new(strength(Freeze::No)),
            instances: AtomicUsize::new(0),
            effects: AtomicUsize::new(0),
            version: Mutex::new(0),
            word: watch::Sender::new(Freeze::No),
        })
    }

    /// Lets something begin, unless the word in force forbids it.
    pub fn begin(&self, what: Beginning) -> Option<Pass<'_>> {
        let (out, forbidden_from) = match what {
            Beginning::Instance => (&self.instances, strength(Freeze::Instances)),
            Beginning::Effect => (&self.effects, strength(Freeze::Effects)),
        };
        // First counted, then the word is read; `set` writes the word, then reads the count. In one total order of the
        // four, either this sees the new word or `set` sees this pass.
        out.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(out);
        (self.in_force.load(Ordering::SeqCst) < forbidden_from).then_some(pass)
    }

    /// The word in force.
    pub fn word(&self) -> Freeze {
        *self.word.borrow()
    }

    /// Follows the word in force.
    pub fn subscribe(&self) -> watch::Receiver<Freeze> {
        self.word.subscribe()
    }

    /// Puts a word in force unless a newer one is, and waits until nothing begins any more that it forbids. Whether the
    /// word was taken.
    pub async fn set(&self, version: u64, word: Freeze) -> bool {
        let taken = {
            let mut newest = self.version.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = version >= *newest;
            if taken {
                *newest = version;
                self.in_force.store(strength(word), Ordering::SeqCst);
                self.word.send_if_modified(|now| std::mem::replace(now, word) != word);
            }
            taken
        };
        // Also where a newer word was there before: whoever set this one hears no sooner that it is obeyed.
        if word >= Freeze::Instances {
            none_is_out(&self.instances).await;
        }
        if word >= Freeze::Effects {
            none_is_out(&self.effects).await;
        }
        taken
    }
}

/// Waits until it has seen that no pass is out.
async fn none_is_out(out: &AtomicUsize) {
    for _ in 0..LOOKS_AT_ONCE {
        if out.load(Ordering::SeqCst) == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    while out.load(Ordering::SeqCst) > 0 {
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Ordered: each forbids what the one before does, and more.
fn strength(freeze: Freeze) -> u8 {
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
    async fn each_word_forbids_its_own_and_an_older_one_is_not_taken() {
        let switch = KillSwitch::new();
        let may = |what| switch.begin(what).is_some();
        for (version, word, instances, effects) in
            [(1, Freeze::Instances, false, true), (2, Freeze::Effects, false, false), (3, Freeze::No, true, true)]
        {
            assert!(switch.set(version, word).await);
            assert_eq!((may(Beginning::Instance), may(Beginning::Effect)), (instances, effects), "{word:?}");
        }
        switch.set(5, Freeze::Effects).await;
        assert!(!switch.set(4, Freeze::No).await);
        assert_eq!((switch.word(), may(Beginning::Effect)), (Freeze::Effects, false));
    }

    /// Threads begin things without a pause while the word changes thousands of times, stale words among the new ones:
    /// what one of them has begun is never begun under a word that forbids it and was acknowledged before.
    #[test]
    fn nothing_begins_after_it_was_acknowledged_in_thousands_of_races() {
        const ROUNDS: u64 = 2_000;
        let switch = KillSwitch::new();
        // What is acknowledged, as the outside knows it.
        let (frozen, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let begun = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..3 {
                let (switch, frozen, done, begun) = (&switch, &frozen, &done, &begun);
                scope.spawn(move || {
                    let what = if worker == 0 { Beginning::Instance } else { Beginning::Effect };
                    while !done.load(Ordering::SeqCst) {
                        let Some(pass) = switch.begin(what) else {
                            thread::yield_now();
                            continue;
                        };
                        // The beginning itself, while its pass is out.
                        assert!(!frozen.load(Ordering::SeqCst), "{what:?} begins after the acknowledgement");
                        begun.fetch_add(1, Ordering::SeqCst);
                        drop(pass);
                    }
                });
            }
            // Somebody who is always late.
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
                // Each round races with something.
                let until = std::time::Instant::now() + Duration::from_secs(10);
                while begun.load(Ordering::SeqCst) == before && std::time::Instant::now() < until {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        assert!(begun.load(Ordering::SeqCst) >= 2_000, "something began in between");
    }
}
