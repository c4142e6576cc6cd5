//! Who waits for which run.
//!
//! Always true: of all requests in flight with one retry key, one makes a run and the others wait for what becomes of
//! it, so that no two arms can take one request. Bounded by the runs in flight: a place is given back with its run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::affinity::StoreAffinity;
use crate::exchange::{Affinity, ArmReply};
use crate::flag::RetryKey;
use crate::names::RunId;
use crate::store::Claim;
use crate::workflow::Run;

/// What became of a run, for those who wait for it.
#[derive(Clone)]
pub(super) enum Verdict {
    /// It has an answer, has ended, or waits for a person.
    Run(Arc<Run>),
    /// Nothing of it is kept, and this was said.
    Said(Box<ArmReply>),
}

/// Hears what becomes of a run; closed without a word where its task ended or it never began.
pub(super) type Word = watch::Receiver<Option<Verdict>>;

#[derive(Default)]
pub(super) struct Registry(Mutex<Places>);

#[derive(Default)]
struct Places {
    runs: HashMap<RunId, Word>,
    keys: HashMap<RetryKey, Taken>,
}

#[derive(Clone)]
struct Taken {
    run: RunId,
    request: [u8; 32],
    kept: watch::Receiver<bool>,
}

/// The key is another run's.
pub(super) struct Held {
    pub run: RunId,
    pub same_request: bool,
    pub word: Option<Word>,
    /// Whether its birth is on disk; closed where its task ended before.
    pub kept: watch::Receiver<bool>,
}

/// A run's place; dropping it gives it back.
pub(super) struct Place {
    registry: Arc<Registry>,
    run: RunId,
    key: Option<RetryKey>,
    word: watch::Sender<Option<Verdict>>,
    kept: watch::Sender<bool>,
    /// The first try that is held against legacy for as long as nothing of the run may be on disk.
    held: Option<(Arc<StoreAffinity>, RetryKey)>,
}

impl Registry {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes a place for a run, and with it its retry key.
    ///
    /// # Errors
    /// The key is taken.
    pub fn take(self: &Arc<Self>, run: RunId, claim: Option<Claim>) -> Result<Place, Held> {
        let mut places = self.places();
        if let Some(Taken { run, request, kept }) = claim.and_then(|claim| places.keys.get(&claim.key)).cloned() {
            let same_request = claim.is_some_and(|claim| claim.request == request);
            return Err(Held { run, same_request, word: places.runs.get(&run).cloned(), kept });
        }
        let kept = watch::Sender::new(false);
        if let Some(claim) = claim {
            places.keys.insert(claim.key, Taken { run, request: claim.request, kept: kept.subscribe() });
        }
        let (word, receiver) = watch::channel(None);
        places.runs.insert(run, receiver);
        Ok(Place { registry: self.clone(), run, key: claim.map(|claim| claim.key), word, kept, held: None })
    }
    /// What becomes of a run that is moving now.
    pub fn word(&self, run: RunId) -> Option<Word> {
        self.places().runs.get(&run).cloned()
    }
}

impl Place {
    /// The key was taken from legacy for this run; it goes back with the place, unless it is kept or given back before.
    pub fn hold(&mut self, pins: Arc<StoreAffinity>, key: RetryKey) {
        self.held = Some((pins, key));
    }
    /// The run's birth is on disk.
    pub fn born(&self) {
        if !*self.kept.borrow() {
            self.kept.send_replace(true);
        }
    }
    /// Something of the run may be on disk: the key stays the engine's.
    pub fn keep(&mut self) {
        self.held = None;
    }
    /// The request is legacy's from now on: said before anybody is told, so that no third one begins in between.
    pub fn give_back(&mut self, pins: &StoreAffinity) {
        self.held = None;
        if let Some(key) = self.key {
            // Whether it could be noted is asked again by whoever calls legacy.
            pins.give_to_legacy(key);
        }
    }
    /// What was said holds no more: the run goes on.
    pub fn unsettle(&self) {
        self.word.send_if_modified(|word| word.take().is_some());
    }
    /// Tells those who wait; only the first word counts.
    pub fn settle(&self, verdict: impl FnOnce() -> Verdict) {
        if self.word.borrow().is_none() {
            self.word.send_replace(Some(verdict()));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((pins, key)) = self.held.take() {
            pins.release(&key);
        }
        let mut places = self.registry.places();
        places.runs.remove(&self.run);
        if let Some(key) = &self.key {
            places.keys.remove(key);
        }
    }
}
