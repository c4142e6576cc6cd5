//! Requests in flight by their retry key, and who waits for which run.
//!
//! Always true: of all requests in flight with one retry key, one makes a run and the others wait for what becomes of
//! it, so that no two arms can take one request. Bounded by the runs in flight: a registration ends with its run's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::affinity::StoreAffinity;
use crate::engine::machine::Announcement;
use crate::exchange::Affinity;
use crate::flag::RetryKey;
use crate::names::RunId;
use crate::store::Claim;

/// Receives what becomes of a run; closed without a value where its task ended or it never began.
pub(in crate::engine) type Announced = watch::Receiver<Option<Announcement>>;

#[derive(Default)]
pub(in crate::engine) struct Registry(Mutex<Registrations>);

#[derive(Default)]
struct Registrations {
    runs: HashMap<RunId, Announced>,
    keys: HashMap<RetryKey, Taken>,
}

#[derive(Clone)]
struct Taken {
    run: RunId,
    request: [u8; 32],
    kept: watch::Receiver<bool>,
}

/// The key is another run's.
pub(in crate::engine) struct Held {
    pub run: RunId,
    pub same_request: bool,
    pub announced: Option<Announced>,
    /// Whether its first event is on disk; closed where its task ended before.
    pub kept: watch::Receiver<bool>,
}

/// A run's entry, with its retry key; dropping it removes both.
pub(in crate::engine) struct Registration {
    registry: Arc<Registry>,
    run: RunId,
    key: Option<RetryKey>,
    announced: watch::Sender<Option<Announcement>>,
    kept: watch::Sender<bool>,
    /// The keys that are held against others for as long as nothing of the run may be on disk.
    held: Vec<(Arc<StoreAffinity>, RetryKey)>,
}

impl Registry {
    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes a place for a run, and with it its retry key.
    ///
    /// # Errors
    /// The key is taken.
    pub fn take(self: &Arc<Self>, run: RunId, claim: Option<Claim>) -> Result<Registration, Held> {
        let mut registrations = self.registrations();
        if let Some(Taken { run, request, kept }) = claim.and_then(|claim| registrations.keys.get(&claim.key)).cloned()
        {
            let same_request = claim.is_some_and(|claim| claim.request == request);
            return Err(Held { run, same_request, announced: registrations.runs.get(&run).cloned(), kept });
        }
        let kept = watch::Sender::new(false);
        if let Some(claim) = claim {
            registrations.keys.insert(claim.key, Taken { run, request: claim.request, kept: kept.subscribe() });
        }
        let (announced, receiver) = watch::channel(None);
        registrations.runs.insert(run, receiver);
        Ok(Registration {
            registry: self.clone(),
            run,
            key: claim.map(|claim| claim.key),
            announced,
            kept,
            held: Vec::new(),
        })
    }
    /// What becomes of a run that is moving now.
    pub fn announced(&self, run: RunId) -> Option<Announced> {
        self.registrations().runs.get(&run).cloned()
    }
}

impl Registration {
    /// The key was taken for this run; it is released with this, unless it is kept or given back before.
    pub fn hold(&mut self, pins: Arc<StoreAffinity>, key: RetryKey) {
        self.held.push((pins, key));
    }
    /// The run's first event is on disk.
    pub fn born(&self) {
        if !*self.kept.borrow() {
            self.kept.send_replace(true);
        }
    }
    /// Something of the run may be on disk: the key stays the engine's.
    pub fn keep(&mut self) {
        self.held.clear();
    }
    /// The request is legacy's from now on: said before anybody is told, so that no third one begins in between.
    pub fn give_back(&mut self, pins: &StoreAffinity) {
        if let Some(key) = self.key {
            // Whether it could be noted is asked again by whoever calls legacy.
            pins.give_to_legacy(key);
        }
        for (pins, key) in self.held.drain(..).filter(|(_, key)| Some(*key) != self.key) {
            pins.release(&key);
        }
    }
    /// Withdraws what was announced: the run continues.
    pub fn unsettle(&self) {
        self.announced.send_if_modified(|announced| announced.take().is_some());
    }
    /// Tells those who wait; only the first word counts.
    pub fn settle(&self, announcement: impl FnOnce() -> Announcement) {
        if self.announced.borrow().is_none() {
            self.announced.send_replace(Some(announcement()));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for (pins, key) in self.held.drain(..) {
            pins.release(&key);
        }
        let mut registrations = self.registry.registrations();
        registrations.runs.remove(&self.run);
        if let Some(key) = &self.key {
            registrations.keys.remove(key);
        }
    }
}
