//! What other rooms ask of the log of retry keys that legacy took.

use super::{RequestsWithUnknownKeys, StoreAffinity};
use crate::names::RouteId;

impl StoreAffinity {
    /// The requests that legacy served although their keys could not be noted. The ids are the present and the earlier
    /// ones of one route. `None` if no retry of one may come.
    pub fn unnoted_requests<'a>(&self, ids: impl Iterator<Item = &'a RouteId>) -> Option<RequestsWithUnknownKeys> {
        ids.filter_map(|id| self.keys.unnoted(id)).max_by_key(|unknown| unknown.served)
    }

    /// If keys that legacy took are lost and their routes are not known: why they are lost, and which requests had
    /// them.
    pub fn lost_keys_of_unknown_routes(&self) -> Option<(String, RequestsWithUnknownKeys)> {
        self.keys.lost_keys_of_unknown_routes()
    }

    /// Notes in the store's list that the store has all keys of this process's file, if it has. For the end of a
    /// process: nothing can be noted in the file afterwards. Returns whether the list says so: if not, retries may come
    /// of requests that legacy served and whose keys the store does not have.
    pub async fn finish_key_file(&self) -> bool {
        self.keys.finish(&self.store).await
    }

    /// Unlocks the file of retry keys for another process; nothing can be noted afterwards. Returns whether the file
    /// was unlocked `within` this time.
    pub async fn release_key_file(&self, within: std::time::Duration) -> bool {
        self.keys.release(within).await
    }

    /// How many keys that legacy took are neither in their file nor in the store: if the process ends now, they are
    /// lost.
    pub fn unwritten_keys(&self) -> usize {
        self.keys.unwritten()
    }

    /// Waits until the store has all keys that were noted before, or has refused some.
    pub async fn flush(&self) {
        self.keys.flush().await;
    }

    /// Simulates a kill of the process: the file stays as it is and is unlocked, and what is in memory is lost.
    #[cfg(test)]
    pub fn kill_key_log(&self) {
        self.keys.kill();
    }
}
