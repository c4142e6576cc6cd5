//! This process lives: said to a store that several share, so that nobody takes its runs.
//!
//! The store says what time it is there, and that is this process's time from then on.
//!
//! Always true: what is kept rests on fences, and what is said here only spares others the trouble. What leaves for a
//! service rests on [`Hold`]: a private or shared call that waited for its turn leaves only where no lease can have run
//! out since the store took the event that began it. Only this process's steady clock is asked.
//!
//! When the store does not hear it for a whole lease, others take this process's runs, its appends are refused, and no
//! such call leaves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long this process's word holds, as far as it can know.
pub(in crate::engine) struct Lease {
    /// `None` where nobody else can take a run: it always holds.
    lives: Option<Duration>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Counts the times at which the lease may have run out.
    tenure: u64,
    /// When the last word that was heard was said.
    said: Option<Instant>,
}

impl Lease {
    /// Of a process that said nothing yet.
    pub fn new(lives: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { lives, heard: Mutex::default() })
    }
    fn state(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The store has heard what was said then.
    pub fn heard(&self, said: Instant) {
        let Some(lives) = self.lives else { return };
        let mut state = self.state();
        // It may have heard it only now: until then it went by the word before.
        if state.said.is_none_or(|before| before.elapsed() >= lives) {
            state.tenure += 1;
        }
        state.said = Some(said);
    }
    /// The lease may have run out.
    #[cfg(test)]
    pub fn lapse(&self) {
        self.state().tenure += 1;
    }
    /// What holds from now on, of what the store says after this to be this process's: asked before the store is, because
    /// the lease may run out while its answer is on the way.
    pub fn hold(self: &Arc<Self>) -> Hold {
        Hold { lease: self.clone(), tenure: self.state().tenure }
    }
}

/// The word of a process over a run, since the store last took something of it.
#[derive(Clone)]
pub(in crate::engine) struct Hold {
    lease: Arc<Lease>,
    tenure: u64,
}

impl Hold {
    /// Whether certainly nobody else owns the run now.
    pub fn is_good(&self) -> bool {
        let Some(lives) = self.lease.lives else { return true };
        let state = self.lease.state();
        state.tenure == self.tenure && state.said.is_some_and(|said| said.elapsed() < lives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_lapsed_once_holds_no_more() {
        let lease = Lease::new(Some(s(10)));
        assert!(!lease.hold().is_good(), "nobody has heard of it");
        lease.heard(Instant::now());
        let hold = lease.hold();
        tokio::time::sleep(s(9)).await;
        assert!(hold.is_good());
        let said = Instant::now();
        tokio::time::sleep(s(2)).await;
        assert!(!hold.is_good(), "the answer is still out");
        lease.heard(said);
        assert!(!hold.is_good(), "the store may have heard it too late, and others may have taken the run");
        let again = lease.hold();
        assert!(again.is_good(), "what the store took since is this process's");
        lease.heard(Instant::now());
        tokio::time::sleep(s(9)).await;
        lease.heard(Instant::now());
        tokio::time::sleep(s(9)).await;
        assert!(again.is_good(), "it was never silent for so long");
        tokio::time::sleep(s(1)).await;
        assert!(!again.is_good());
        assert!(Lease::new(None).hold().is_good(), "nobody else is there");
    }
}
