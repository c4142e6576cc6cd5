//! Which arm owns an instance, and which took a first try.
//!
//! The question it answers: "legacy or engine, for this follow-up, for this retry?" Always true: a family in which
//! nobody has pinned anything is answered at once, without the store and without a lock; what the engine's appends
//! pinned in this process is known here before their answer leaves, because the engine says so ([`StoreAffinity::pinned`]);
//! a first try is one arm's from the moment it is taken, before anything of it is on disk; a key that legacy takes is in
//! a file ([`KeyLog`]) before legacy is called, or that is said; what the engine took and owns stands in sets without false
//! negatives (`sets`), so that the store is asked only where they say "perhaps".
//! Who asks, and what becomes of the request, is `proxy`'s and `flag`'s business.
//!
//! When the store is slow, a question about what the engine may have waits for it, and no longer than a bound; when it is
//! gone, the answer to that is that it cannot be told. Nobody else waits for it.

mod behind;
mod cache;
mod families;
mod filter;
mod key_dir;
mod key_file;
mod key_file_tag;
mod key_files;
mod key_list;
mod key_log;
mod key_ring;
mod newer_files;
mod sets;
mod take;
#[cfg(test)]
mod tests;
mod tries;
mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready, try_join_all};
use jiff::Timestamp;

use self::behind::{Behind, Note};
use self::cache::Cache;
use self::families::Families;
pub use self::key_dir::default_dir;
pub use self::key_file::KeyFileError;
pub use self::key_files::{KeyFilePlace, open_key_log, read_key_files};
pub use self::key_log::KeyLog;
use self::newer_files::NewerFiles;
use self::sets::Sets;
pub use self::tries::Took;
use self::tries::Tries;
use self::turns::Turns;
use crate::clock;
use crate::exchange::{Affinity, EarlierKeys, KnownBody, LegacyTake, OwnerUnknown, Remembered};
use crate::flag::{Arm, Family, InstanceKey, Owner, PinKey, RetryKey, RetryKeys};
use crate::limits::Limits;
use crate::names::{RouteId, RunId};
use crate::store::{NewPin, SharedStore, StoreError};

/// A look into the store takes no longer; the caller's request waits for it.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Pins and retry keys over the store.
pub struct StoreAffinity {
    store: SharedStore,
    families: Arc<Families>,
    cache: Cache,
    tries: Tries,
    turns: Turns,
    newer_files: NewerFiles,
    keys: Arc<KeyLog>,
    sets: Arc<Sets>,
    behind: Behind,
}

impl StoreAffinity {
    /// As [`StoreAffinity::open`], with retry keys in memory only until the store has them.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(store: SharedStore, limits: &Limits) -> Result<Arc<Self>, StoreError> {
        Self::open(store, limits, KeyLog::in_memory(limits)).await
    }

    /// Counts what is pinned, and starts on the current runtime what moves retry keys to the store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(store: SharedStore, limits: &Limits, keys: Arc<KeyLog>) -> Result<Arc<Self>, StoreError> {
        let families = Arc::new(Families::new(store.pin_counts().await?));
        let behind = Behind::start(store.clone(), families.clone());
        let tries = Tries::new(Duration::from_secs(limits.retry_window_s), limits.retry_keys_max);
        let now = clock::now();
        let ago = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        for (key, at) in keys.waiting() {
            tries.taken_by_legacy(key, Instant::now(), ago(at));
        }
        tokio::spawn(keys.clone().move_to_store(store.clone()));
        let sets = Arc::new(Sets::new(limits, Instant::now()));
        tokio::spawn(sets.clone().build(store.clone()));
        Ok(Arc::new(Self {
            store,
            families,
            cache: Cache::default(),
            tries,
            turns: Turns::default(),
            newer_files: NewerFiles::new(limits),
            keys,
            sets,
            behind,
        }))
    }

    /// A run has pinned an instance: said after its append, before its answer leaves. Saying it again for the same
    /// instance does no harm.
    pub fn pinned(&self, pin: &NewPin, run: RunId) {
        self.sets.pinned(&pin.key, pin.arm);
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
    pub fn collided(&self, family: &Family) -> bool {
        family.ids().any(|id| self.families.get(id).is_some_and(|family| family.collided()))
    }

    /// Sets the metrics of these families to what is pinned now.
    pub fn publish<'a>(&self, families: impl Iterator<Item = &'a Family>) {
        self.families.publish(families);
    }

    /// Until when a retry may come of a request that legacy served though its key could not be noted, of a route that has
    /// or had one of these ids.
    pub fn unnoted_until<'a>(&self, ids: impl Iterator<Item = &'a RouteId>) -> Option<Timestamp> {
        ids.filter_map(|id| self.keys.unnoted_until(id)).max()
    }

    /// The files whose keys are unknown though the store lists them, each with why, and until when a retry of one of its
    /// keys may come.
    pub fn unread_key_files(&self) -> Vec<(String, Timestamp)> {
        let (now, window) = (clock::now(), self.keys.window());
        let unread = self.keys.list.unread().into_iter().filter_map(|(record, since)| {
            let until = since.checked_add(window).ok().filter(|until| *until > now)?;
            let why = record.unread.map(|unread| unread.why).unwrap_or_default();
            Some((format!("the file of retry keys {} {why}", record.path), until))
        });
        unread.collect()
    }

    /// Says in the store that this process's file holds nothing that the store does not have, if that is so. Nothing is
    /// noted in it after that: for a process that ends.
    pub async fn unlist_key_file(&self) {
        self.keys.unlist(&self.store).await;
    }

    /// Waits until the store has what was noted until now, or does not take it.
    pub async fn flush(&self) {
        self.behind.flush().await;
        self.keys.flush().await;
    }

    /// Whether the store has to be asked if the engine took this before.
    pub fn may_have_been_taken(&self, key: &RetryKey) -> bool {
        self.remembered(key) != Remembered::NotEngine
    }

    /// The same of this process alone.
    fn may_have_been_taken_here(&self, key: &RetryKey) -> bool {
        !matches!(self.remembered(key), Remembered::NotEngine | Remembered::NotEngineHere)
    }

    /// The engine made nothing of a first try that it had taken, and nobody else was told to.
    pub fn release(&self, key: &RetryKey) {
        self.tries.release(key);
    }

    /// Whether the engine may own an instance of a family. Other processes pin in a store that they share: there only the
    /// store can tell.
    fn engine_may_own(&self, key: &PinKey) -> bool {
        let owns_any = self.families.get(&key.family).is_some_and(|family| family.engine_owns());
        owns_any && (self.store.is_shared() || self.sets.engine_may_own(key))
    }

    /// What can be told of a pin without the store; `None` where only the store can tell.
    fn owner_in_memory(&self, key: &PinKey) -> Option<(Owner, Option<RunId>)> {
        if self.families.get(&key.family).is_none() {
            return Some((Owner::Nobody, None));
        }
        if let Some(known) = self.cache.get(key) {
            return Some(owner_of(known));
        }
        if self.engine_may_own(key) {
            return None;
        }
        // Legacy answers; which run is the twin the engine looks up when it is asked for it, and nobody waits.
        let may_have_twin = self.store.is_shared() || self.sets.may_have_twin(key);
        Some((if may_have_twin { Owner::LegacyWithTwin } else { Owner::Nobody }, None))
    }

    async fn look(&self, key: PinKey) -> Result<(Owner, Option<RunId>), OwnerUnknown> {
        let before = self.cache.epoch();
        match tokio::time::timeout(LOOK_MAX, self.store.pin(key.clone())).await {
            Ok(Ok(pin)) => {
                let known = pin.map(|pin| (pin.arm, pin.run));
                self.cache.looked_up(&key, known, before);
                Ok(owner_of(known))
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

/// Whose an instance is of which pins under several ids of its family say this: the engine's where one says so, since
/// legacy knows nothing of that.
fn stronger(one: (Owner, Option<RunId>), other: (Owner, Option<RunId>)) -> (Owner, Option<RunId>) {
    let rank = |(owner, run): &(Owner, Option<RunId>)| match owner {
        Owner::Unknown => 4,
        Owner::Engine => 3,
        Owner::LegacyWithTwin => 1 + u8::from(run.is_some()),
        Owner::Nobody => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

fn owner_of(pin: Option<(Arm, Option<RunId>)>) -> (Owner, Option<RunId>) {
    match pin {
        None => (Owner::Nobody, None),
        Some((Arm::Engine, run)) => (Owner::Engine, run),
        Some((Arm::Legacy, run)) => (Owner::LegacyWithTwin, run),
    }
}

impl Affinity for StoreAffinity {
    fn owner<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), OwnerUnknown>> {
        let mut known = (Owner::Nobody, None);
        let mut unknown = Vec::new();
        for key in key.pin_keys() {
            match self.owner_in_memory(&key) {
                Some(owner) => known = stronger(known, owner),
                None => unknown.push(key),
            }
        }
        if unknown.is_empty() || known.0 == Owner::Engine {
            return ready(Ok(known)).boxed();
        }
        async move {
            let found = try_join_all(unknown.into_iter().map(|key| self.look(key))).await?;
            Ok(found.into_iter().fold(known, stronger))
        }
        .boxed()
    }

    fn engine_owns_any(&self, family: &Family) -> bool {
        family.ids().any(|id| self.families.get(id).is_some_and(|family| family.engine_owns()))
    }

    fn remembered(&self, key: &RetryKey) -> Remembered {
        let now = Instant::now();
        match self.tries.arm(key, now) {
            Some(arm) => Remembered::By(arm),
            None if self.sets.engine_may_have_taken(key, now) => Remembered::Unknown,
            // What another process's engine took after this one started stands in no set here.
            None if self.store.is_shared() => Remembered::NotEngineHere,
            None => Remembered::NotEngine,
        }
    }

    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, OwnerUnknown>> {
        if let Some(arm) = self.tries.arm(key, Instant::now()) {
            return ready(Ok(Some(arm))).boxed();
        }
        // Asked before the store, to which it may be on its way.
        if self.keys.is_waiting(key) {
            return ready(Ok(Some(Arm::Legacy))).boxed();
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

    fn take_for_legacy(&self, keys: RetryKeys, earlier: &EarlierKeys, body: KnownBody) -> LegacyTake {
        self.take_request_for_legacy(keys, earlier, body)
    }

    fn give_to_legacy(&self, keys: RetryKeys) -> LegacyTake {
        self.give_request_to_legacy(keys)
    }

    fn serve_unnoted(&self, route: &RouteId) {
        metrics::counter!("pointsman_retry_keys_unnoted_total", "route" => route.to_string()).increment(1);
        self.keys.serve_unnoted(route);
    }

    fn note_legacy_instance(&self, key: InstanceKey) {
        for key in key.pin_keys() {
            let Some(family) = self.families.get(&key.family).filter(|family| family.engine_owns()) else { continue };
            match self.cache.get(&key) {
                Some(Some((Arm::Engine, run))) => family.collide(&key, run),
                Some(Some((Arm::Legacy, _)) | None) => {}
                None if self.engine_may_own(&key) => self.behind.note(Note::Instance(key)),
                None => {}
            }
        }
    }
}

impl Drop for StoreAffinity {
    fn drop(&mut self) {
        self.keys.close();
    }
}
