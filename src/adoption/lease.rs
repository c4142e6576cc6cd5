//! In a store that processes share: reads again, each time this process gets a lease, which families have pins.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::Adoptions;

/// How often it is checked whether this process has got a new lease.
const LEASE_EVERY: Duration = Duration::from_millis(250);

impl Adoptions {
    /// In a store that processes share: each time this process gets a lease, reads which families have pins. Until they
    /// are read, this process does not know what the others have moved.
    pub async fn follow_lease(self: Arc<Self>) {
        if !self.store.is_shared() {
            return;
        }
        loop {
            if !self.is_current()
                && let Some(tenure) = self.engine.lease_tenure()
                && self.affinity.reload_families().await.is_ok()
            {
                self.pins_read_in_tenure.store(tenure + 1, Ordering::Release);
            }
            sleep(LEASE_EVERY).await;
        }
    }
}
