//! Which arm owns an instance, and which took a first try.
//!
//! The question it answers: "legacy or engine, for this follow-up, for this retry?" Always true: a family in which
//! nobody has pinned anything is answered at once, without the store and without a lock; what the engine's appends
//! pinned in this process is known here before their answer leaves, because the engine says so ([`StoreAffinity::pinned`]);
//! a first try is one arm's from the moment it is taken, before anything of it is on disk, and what the engine took is
//! known without the store but for routes of which more was taken than is kept.
//! Who asks, and what becomes of the request, is `proxy`'s and `flag`'s business.
//!
//! When the store is slow, a question about a family with pins waits for it, and no longer than a bound; when it is
//! gone, the answer is that it cannot be told, where the engine owns something, and legacy's where it owns nothing.
//! What legacy took is kept in memory at once and written behind; what does not fit in the queue is kept in memory
//! only.

mod behind;
mod cache;
mod families;
#[cfg(test)]
mod tests;
mod tries;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use self::behind::{Behind, Note};
use self::cache::Cache;
use self::families::Families;
pub use self::tries::Took;
use self::tries::Tries;
use crate::clock;
use crate::exchange::{Affinity, OwnerUnknown, Remembered};
use crate::flag::{Arm, Owner, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::{RouteId, RunId};
use crate::store::{EngineTries, NewPin, SharedStore, StoreError};

/// A look into the store takes no longer; the caller's request waits for it.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The same where legacy answers whatever it says, and only the other arm depends on it.
const GLANCE_MAX: Duration = Duration::from_millis(20);

/// Pins and retry keys over the store.
pub struct StoreAffinity {
    store: SharedStore,
    families: Arc<Families>,
    cache: Cache,
    tries: Tries,
    behind: Behind,
}

impl StoreAffinity {
    /// Counts what is pinned, and starts what writes behind on the current runtime.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(store: SharedStore, limits: &Limits) -> Result<Arc<Self>, StoreError> {
        let families = Arc::new(Families::new(store.pin_counts().await?));
        let behind = Behind::start(store.clone(), families.clone());
        let tries = Tries::new(Duration::from_secs(limits.retry_window_s), limits.retry_keys_max);
        let keys_max = usize::try_from(limits.retry_keys_max).unwrap_or(usize::MAX);
        let EngineTries { keys, beyond } = store.engine_tries(keys_max).await?;
        beyond.into_iter().for_each(|route| tries.forget(route));
        let now = clock::now();
        for (key, route, at) in keys.into_iter().rev() {
            let ago = Duration::try_from(now.duration_since(at)).unwrap_or_default();
            tries.taken_by_engine(key, &route, Instant::now(), ago);
        }
        Ok(Arc::new(Self { store, families, cache: Cache::default(), tries, behind }))
    }

    /// A run has pinned an instance: said after its append, before its answer leaves. Saying it again for the same
    /// instance does no harm.
    pub fn pinned(&self, pin: &NewPin, run: RunId) {
        if self.cache.pinned(&pin.key, pin.arm, Some(run)) {
            self.families.count(&pin.key.family, pin.arm);
        }
    }

    /// A run could not pin an instance, because the id is the other arm's already: a collision seen from this side.
    pub fn collision(&self, key: &PinKey, run: RunId) {
        if let Some(family) = self.families.get(&key.family) {
            family.collide(key, Some(run));
        }
    }

    /// Whether both arms have given out one id: no new instances of that family are to be made by the engine.
    pub fn collided(&self, family: &RouteId) -> bool {
        self.families.get(family).is_some_and(|family| family.collided())
    }

    /// Writes what was noted until now, or gives up where the store does not take it.
    pub async fn flush(&self) {
        self.behind.flush().await;
    }

    /// Takes a first try for the engine, before its run begins, unless legacy has it.
    pub fn take_for_engine(&self, key: RetryKey, route: &RouteId) -> Took {
        self.tries.take_for_engine(key, route, Instant::now())
    }

    /// The engine made nothing of a first try that it had taken, and nobody else was told to.
    pub fn release(&self, key: &RetryKey) {
        self.tries.release(key);
    }

    async fn look(&self, key: &PinKey) -> Result<(Owner, Option<RunId>), OwnerUnknown> {
        let before = self.cache.epoch();
        let engine_owns = self.families.get(&key.family).is_some_and(|family| family.engine_owns());
        let within = if engine_owns { LOOK_MAX } else { GLANCE_MAX };
        let found = tokio::time::timeout(within, self.store.pin(key.clone())).await;
        match found {
            Ok(Ok(pin)) => {
                let known = pin.map(|pin| (pin.arm, pin.run));
                self.cache.looked_up(key, known, before);
                Ok(owner_of(known))
            }
            // Where the engine owns nothing, legacy answers; only the twin is not found.
            Ok(Err(_)) | Err(_) if !self.families.get(&key.family).is_some_and(|family| family.engine_owns()) => {
                Ok((Owner::Nobody, None))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, family = %key.family, "cannot tell who owns an instance");
                Err(OwnerUnknown)
            }
            Err(_) => {
                tracing::error!(family = %key.family, waited = ?LOOK_MAX, "cannot tell who owns an instance");
                Err(OwnerUnknown)
            }
        }
    }
}

fn owner_of(pin: Option<(Arm, Option<RunId>)>) -> (Owner, Option<RunId>) {
    match pin {
        None => (Owner::Nobody, None),
        Some((Arm::Engine, run)) => (Owner::Engine, run),
        Some((Arm::Legacy, run)) => (Owner::LegacyWithTwin, run),
    }
}

impl Affinity for StoreAffinity {
    fn owner<'a>(&'a self, key: &'a PinKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), OwnerUnknown>> {
        if self.families.get(&key.family).is_none() {
            return ready(Ok((Owner::Nobody, None))).boxed();
        }
        if let Some(known) = self.cache.get(key) {
            return ready(Ok(owner_of(known))).boxed();
        }
        self.look(key).boxed()
    }

    fn engine_owns_any(&self, family: &RouteId) -> bool {
        self.families.get(family).is_some_and(|family| family.engine_owns())
    }

    fn remembered(&self, route: &RouteId, key: &RetryKey) -> Remembered {
        match self.tries.arm(key, Instant::now()) {
            Some(arm) => Remembered::By(arm),
            None if self.tries.forgot(route) => Remembered::Unknown,
            None => Remembered::NotEngine,
        }
    }

    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, OwnerUnknown>> {
        if let Some(arm) = self.tries.arm(key, Instant::now()) {
            return ready(Ok(Some(arm))).boxed();
        }
        async move {
            match tokio::time::timeout(LOOK_MAX, self.store.first_try(*key)).await {
                Ok(Ok(first)) => Ok(first.map(|first| first.arm)),
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot tell who took a first try");
                    Err(OwnerUnknown)
                }
                Err(_) => {
                    tracing::error!(waited = ?LOOK_MAX, "cannot tell who took a first try");
                    Err(OwnerUnknown)
                }
            }
        }
        .boxed()
    }

    fn take_for_legacy(&self, key: RetryKey) -> bool {
        match self.tries.take_for_legacy(key, Instant::now()) {
            Took::Fresh => self.behind.note(Note::Try(key)),
            Took::Again => {}
            Took::Others => return false,
        }
        true
    }

    fn note_legacy(&self, key: RetryKey) {
        if self.tries.note(key, Instant::now()) {
            self.behind.note(Note::Try(key));
        }
    }

    fn note_legacy_instance(&self, key: PinKey) {
        let Some(family) = self.families.get(&key.family) else { return };
        if !family.engine_owns() {
            return;
        }
        match self.cache.get(&key) {
            Some(Some((Arm::Engine, run))) => family.collide(&key, run),
            Some(Some((Arm::Legacy, _)) | None) => {}
            None => self.behind.note(Note::Instance(key)),
        }
    }
}
