//! Look-ups of retry keys in the store, shared by simultaneous tries of one request.
//!
//! Always true: a look-up begins after the call for it, so that it finds whatever was stored before. Of any number of
//! simultaneous tries of one key, at most two look-ups are under way: one that has begun, and one that begins after it
//! and answers all who came meanwhile.
//!
//! When the store is slow or gone, a look-up ends at its timeout as [`ArmUnknown`], for all who wait for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::exchange::ArmUnknown;
use crate::flag::{Arm, RetryKey};
use crate::store::{StoreError, StoreHandle};

type LookUp = Shared<BoxFuture<'static, Result<Option<Arm>, ArmUnknown>>>;

/// The look-ups under way, by key.
#[derive(Default)]
pub(super) struct LookUps(Mutex<HashMap<RetryKey, Entry>>);

struct Entry {
    newest: LookUp,
    /// Whether `newest` has asked the store.
    has_begun: Arc<AtomicBool>,
    /// How many wait for a look-up of this key.
    waiting: usize,
}

/// Removes the entry of a key when nobody waits for it any more.
struct Waiting<'a> {
    look_ups: &'a LookUps,
    key: RetryKey,
}

impl LookUps {
    /// Which arm took a first try, according to the store; asked for at most this long, and as long again where a
    /// look-up of the same key is under way.
    pub(super) async fn first_try(
        &self,
        store: &StoreHandle,
        key: RetryKey,
        at_most: Duration,
    ) -> Result<Option<Arm>, ArmUnknown> {
        let (look_up, _waiting) = self.join(store, key, at_most);
        look_up.await
    }

    /// Whether a run claimed any key in the range of this key for any caller ([`RetryKey::range`]), in which the keys
    /// of its callers and of its requests are. Waits for the store for at most this long. Rare, so not shared.
    pub(super) async fn engine_took_any(
        &self,
        store: &StoreHandle,
        any_caller: RetryKey,
        at_most: Duration,
    ) -> Result<bool, ArmUnknown> {
        bounded(store.engine_took_any(any_caller.range()), at_most).await
    }

    fn join(&self, store: &StoreHandle, key: RetryKey, at_most: Duration) -> (LookUp, Waiting<'_>) {
        let mut by_key = self.lock();
        let known = by_key.remove(&key);
        let waiting = known.as_ref().map_or(0, |entry| entry.waiting) + 1;
        let entry = match known {
            Some(entry) if !entry.has_begun.load(Ordering::SeqCst) => Entry { waiting, ..entry },
            known => {
                let (store, has_begun) = (store.clone(), Arc::new(AtomicBool::new(false)));
                let (earlier, begins) = (known.map(|entry| entry.newest), Arc::clone(&has_begun));
                let look_up = async move {
                    if let Some(earlier) = earlier {
                        // Its result may be older than the calls that this look-up is for.
                        let _ = earlier.await;
                    }
                    begins.store(true, Ordering::SeqCst);
                    ask(&store, key, at_most).await
                };
                Entry { newest: look_up.boxed().shared(), has_begun, waiting }
            }
        };
        let newest = entry.newest.clone();
        by_key.insert(key, entry);
        (newest, Waiting { look_ups: self, key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RetryKey, Entry>> {
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
        let mut by_key = self.look_ups.lock();
        if let Some(entry) = by_key.get_mut(&self.key) {
            entry.waiting -= 1;
            if entry.waiting == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

async fn ask(store: &StoreHandle, key: RetryKey, at_most: Duration) -> Result<Option<Arm>, ArmUnknown> {
    Ok(bounded(store.first_try(key), at_most).await?.map(|first| first.arm))
}

/// The store's answer, waited for at most this long.
async fn bounded<T>(answer: impl Future<Output = Result<T, StoreError>>, at_most: Duration) -> Result<T, ArmUnknown> {
    match tokio::time::timeout(at_most, answer).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot tell who took a first try");
            Err(ArmUnknown)
        }
        Err(_) => {
            tracing::error!(waited = ?at_most, "cannot tell who took a first try");
            Err(ArmUnknown)
        }
    }
}
