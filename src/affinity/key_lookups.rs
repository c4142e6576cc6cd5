//! Look-ups of retry keys in the store, shared by simultaneous tries of one request.
//!
//! Always true: a look-up begins after the call for it, so that it finds whatever was stored before. Of any number of
//! simultaneous tries of one key (or range of keys), at most two look-ups are under way: one that has begun, and one
//! that begins after it and answers all who came meanwhile.
//!
//! When the store is slow or gone, a look-up ends at its timeout as [`ArmUnknown`], for all who wait for it.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::exchange::ArmUnknown;
use crate::flag::{Arm, RetryKey};
use crate::store::{StoreError, StoreHandle};

type LookUp = Shared<BoxFuture<'static, Result<Option<Arm>, ArmUnknown>>>;

/// The look-ups under way.
#[derive(Default)]
pub(super) struct KeyLookups(Mutex<HashMap<KeyQuery, Entry>>);

#[derive(Clone, PartialEq, Eq, Hash)]
enum KeyQuery {
    /// Which arm took the first try with this key.
    FirstTry(RetryKey),
    /// Whether a run claimed any key in this range.
    EngineTookAny(RangeInclusive<RetryKey>),
    /// The same, asked once every append under way that may not have seen this key, which is legacy's, has ended.
    EngineTookAnyAfter(RetryKey, RangeInclusive<RetryKey>),
}

struct Entry {
    newest: LookUp,
    /// Whether `newest` has asked the store.
    has_begun: Arc<AtomicBool>,
    /// How many callers wait for `newest`, or for the look-up before it.
    waiting: usize,
}

/// One caller that waits for an entry. Dropping the last one removes the entry.
struct Waiting<'a> {
    look_ups: &'a KeyLookups,
    query: KeyQuery,
}

impl KeyLookups {
    /// Returns which arm took a first try, according to the store. Waits at most `at_most`, and as long again where an
    /// earlier look-up of the same key is under way.
    pub(super) async fn first_try(
        &self,
        store: &StoreHandle,
        key: RetryKey,
        at_most: Duration,
    ) -> Result<Option<Arm>, ArmUnknown> {
        let (look_up, _waiting) = self.join(store, KeyQuery::FirstTry(key), at_most);
        look_up.await
    }

    /// Returns whether a run claimed any key in this range, according to the store. Waits like
    /// [`KeyLookups::first_try`].
    pub(super) async fn engine_took_any(
        &self,
        store: &StoreHandle,
        range: RangeInclusive<RetryKey>,
        at_most: Duration,
    ) -> Result<bool, ArmUnknown> {
        let (look_up, _waiting) = self.join(store, KeyQuery::EngineTookAny(range), at_most);
        Ok(look_up.await? == Some(Arm::Engine))
    }

    /// Like [`KeyLookups::engine_took_any`], but waits for appends under way that may not have seen `legacy_key`, a key
    /// that the store has as legacy's.
    pub(super) async fn engine_took_any_after(
        &self,
        store: &StoreHandle,
        legacy_key: RetryKey,
        range: RangeInclusive<RetryKey>,
        at_most: Duration,
    ) -> Result<bool, ArmUnknown> {
        let (look_up, _waiting) = self.join(store, KeyQuery::EngineTookAnyAfter(legacy_key, range), at_most);
        Ok(look_up.await? == Some(Arm::Engine))
    }

    fn join(&self, store: &StoreHandle, query: KeyQuery, at_most: Duration) -> (LookUp, Waiting<'_>) {
        let mut under_way = self.lock();
        let known = under_way.remove(&query);
        let waiting = known.as_ref().map_or(0, |entry| entry.waiting) + 1;
        let entry = match known {
            Some(entry) if !entry.has_begun.load(Ordering::SeqCst) => Entry { waiting, ..entry },
            known => {
                let (store, has_begun) = (store.clone(), Arc::new(AtomicBool::new(false)));
                let (earlier, begins) = (known.map(|entry| entry.newest), Arc::clone(&has_begun));
                let asked = query.clone();
                let look_up = async move {
                    if let Some(earlier) = earlier {
                        // The result of the look-up under way may be older than the calls that the new one is for.
                        let _ = earlier.await;
                    }
                    begins.store(true, Ordering::SeqCst);
                    ask(&store, asked, at_most).await
                };
                Entry { newest: look_up.boxed().shared(), has_begun, waiting }
            }
        };
        let newest = entry.newest.clone();
        under_way.insert(query.clone(), entry);
        (newest, Waiting { look_ups: self, query })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyQuery, Entry>> {
        // A poisoned lock is usable: at worst there is a superfluous entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no look-up is under way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut under_way = self.look_ups.lock();
        if let Some(entry) = under_way.get_mut(&self.query) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                under_way.remove(&self.query);
            }
        }
    }
}

async fn ask(store: &StoreHandle, query: KeyQuery, at_most: Duration) -> Result<Option<Arm>, ArmUnknown> {
    Ok(match query {
        KeyQuery::FirstTry(key) => bounded(store.first_try(key), at_most).await?.map(|first| first.arm),
        KeyQuery::EngineTookAny(range) => bounded(store.engine_took_any(range), at_most).await?.then_some(Arm::Engine),
        KeyQuery::EngineTookAnyAfter(legacy_key, range) => {
            bounded(store.engine_took_any_after(legacy_key, range), at_most).await?.then_some(Arm::Engine)
        }
    })
}

/// The store's answer, waited for at most this long.
async fn bounded<T>(answer: impl Future<Output = Result<T, StoreError>>, at_most: Duration) -> Result<T, ArmUnknown> {
    match tokio::time::timeout(at_most, answer).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "the store could not say which arm took a first try");
            Err(ArmUnknown)
        }
        Err(_) => {
            tracing::error!(waited = ?at_most, "the store did not say in time which arm took a first try");
            Err(ArmUnknown)
        }
    }
}
