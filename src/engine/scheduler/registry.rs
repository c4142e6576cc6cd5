//! Runs in flight in this process, by id and by retry key.
//!
//! Always true: of all requests in flight with one retry key, one creates a run and the others wait for its result, so
//! that not both arms take the same request. The registry is bounded by the runs in flight: a registration ends with
//! its run's task.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::affinity::StoreAffinity;
use crate::engine::machine::Announcement;
use crate::exchange::SetInUse;
use crate::flag::{RetryKey, RetryKeys};
use crate::names::RunId;
use crate::store::Claim;

/// Receives the announced result of a run; closed without a value where the run's task ended before.
pub(in crate::engine) type AnnouncementReceiver = watch::Receiver<Option<Announcement>>;

#[derive(Default)]
pub(in crate::engine) struct Registry(Mutex<Registrations>);

#[derive(Default)]
struct Registrations {
    runs: HashMap<RunId, AnnouncementReceiver>,
    keys: HashMap<RetryKey, KeyHolder>,
}

#[derive(Clone)]
struct KeyHolder {
    run: RunId,
    request: [u8; 32],
    durable: watch::Receiver<bool>,
}

/// Another run in flight has the retry key.
pub(in crate::engine) struct KeyTaken {
    pub run: RunId,
    /// The digest of that run's request.
    pub request: [u8; 32],
    pub announcement: Option<AnnouncementReceiver>,
    /// Whether that run's first event is durable; closed if its task ended before.
    pub durable: watch::Receiver<bool>,
}

/// The registration of a run and its retry key. Dropping it removes both from the registry.
pub(in crate::engine) struct Registration {
    registry: Arc<Registry>,
    run: RunId,
    key: Option<RetryKey>,
    /// All retry keys of its request, once they are known.
    retry_keys: Option<RetryKeys>,
    announcement: watch::Sender<Option<Announcement>>,
    durable: watch::Sender<bool>,
    /// Keys that were taken for the engine by this run's request, to be released if certainly nothing of the run is
    /// stored.
    reserved: Vec<(Arc<StoreAffinity>, RetryKey)>,
    /// Keys that were reserved and stay with the engine, unless the request goes back to legacy.
    retained: Vec<(Arc<StoreAffinity>, RetryKey)>,
    /// Kept until the store has the key.
    set_in_use: Option<SetInUse>,
}

impl Registry {
    fn registrations(&self) -> MutexGuard<'_, Registrations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Registers a run with its retry key.
    ///
    /// # Errors
    /// Another run in flight has the key.
    pub fn register(self: &Arc<Self>, run: RunId, claim: Option<Claim>) -> Result<Registration, KeyTaken> {
        let mut registrations = self.registrations();
        let holder = claim.and_then(|claim| registrations.keys.get(&claim.key)).cloned();
        if let Some(KeyHolder { run, request, durable }) = holder {
            let announcement = registrations.runs.get(&run).cloned();
            return Err(KeyTaken { run, request, announcement, durable });
        }
        let durable = watch::Sender::new(false);
        if let Some(claim) = claim {
            let holder = KeyHolder { run, request: claim.request, durable: durable.subscribe() };
            registrations.keys.insert(claim.key, holder);
        }
        let (announcement, receiver) = watch::channel(None);
        registrations.runs.insert(run, receiver);
        Ok(Registration {
            registry: self.clone(),
            run,
            key: claim.map(|claim| claim.key),
            retry_keys: None,
            announcement,
            durable,
            reserved: Vec::new(),
            retained: Vec::new(),
            set_in_use: None,
        })
    }
    /// The receiver of the result of a run in flight; `None` where no task executes the run here.
    pub fn announcement(&self, run: RunId) -> Option<AnnouncementReceiver> {
        self.registrations().runs.get(&run).cloned()
    }
}

impl Registration {
    /// Adds a key that was taken for the engine for this run. It is released with the registration, unless
    /// [`Self::retain_keys`] or [`Self::give_to_legacy`] comes before.
    pub fn reserve(&mut self, affinity: Arc<StoreAffinity>, key: RetryKey) {
        self.reserved.push((affinity, key));
    }
    /// Whether no earlier request took the run's retry key, so that certainly nothing of an earlier try is stored.
    pub fn is_first_try(&self) -> bool {
        self.key.is_none_or(|key| self.reserved.iter().any(|(_, reserved)| *reserved == key))
    }
    /// Sets all retry keys of the run's request, which are given to legacy together.
    pub fn set_retry_keys(&mut self, keys: RetryKeys) {
        self.retry_keys = Some(keys);
    }
    /// The flag set that decided the request is in use until the run's first event is durable.
    pub fn keep_in_use(&mut self, set: Option<SetInUse>) {
        self.set_in_use = set;
    }
    /// Marks the run's first event as durable.
    pub fn mark_durable(&mut self) {
        self.set_in_use = None;
        if !*self.durable.borrow() {
            self.durable.send_replace(true);
        }
    }
    /// Leaves the reserved keys to the engine, because something of the run may be stored.
    pub fn retain_keys(&mut self) {
        for (affinity, key) in self.reserved.drain(..) {
            affinity.allow_eviction(key);
            self.retained.push((affinity, key));
        }
    }
    /// Gives the request and its keys to legacy. Must be called before the caller is answered: otherwise a further
    /// request with one of the keys could begin a run in between.
    pub fn give_to_legacy(&mut self, affinity: &StoreAffinity) {
        if let Some(keys) = self.retry_keys {
            // If this fails, the proxy notices it: it records all keys again before it calls legacy.
            affinity.give_to_legacy_without_waiting(keys);
        }
        self.release_other_keys();
    }
    /// Like [`Self::give_to_legacy`]. Returns `false`, and changes nothing, if the engine took one of the keys in these
    /// ranges for another run.
    #[must_use]
    pub fn give_to_legacy_unless_held(&mut self, affinity: &StoreAffinity, held: &[RangeInclusive<RetryKey>]) -> bool {
        let is_given = self.retry_keys.is_none_or(|keys| affinity.give_to_legacy_unless_held(keys, held));
        if is_given {
            self.release_other_keys();
        }
        is_given
    }
    fn release_other_keys(&mut self) {
        // The other keys are released only after legacy has the key for any caller, because otherwise a request under
        // another credential could take them.
        let all = self.reserved.drain(..).chain(self.retained.drain(..));
        for (affinity, key) in all.filter(|(_, key)| Some(*key) != self.key) {
            affinity.release(&key);
        }
    }
    /// Announces a result to those who wait for the run, unless one is announced already.
    pub fn announce(&self, announcement: impl FnOnce() -> Announcement) {
        if self.announcement.borrow().is_none() {
            self.announcement.send_replace(Some(announcement()));
        }
    }
    /// Withdraws the announcement: the run goes on.
    pub fn retract(&self) {
        self.announcement.send_if_modified(|announcement| announcement.take().is_some());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The run's own key is released last. If it were released first, a retry by the same caller would find only the
        // key for any caller taken, and would be refused as a request under another credential.
        for (affinity, key) in self.reserved.drain(..).rev() {
            affinity.release(&key);
        }
        let mut registrations = self.registry.registrations();
        registrations.runs.remove(&self.run);
        if let Some(key) = &self.key {
            registrations.keys.remove(key);
        }
    }
}
