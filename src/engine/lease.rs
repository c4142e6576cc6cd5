//! This process lives: said to a store that several share, so that nobody takes its runs.
//!
//! The store says what time it is there, and that is this process's time from then on.
//!
//! Always true: correctness rests on fences; what is said here only spares others the trouble. When the store does not
//! hear it for a whole lease, others take this process's runs, and its appends are refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Core;
use crate::limits::Limits;

/// Says so now.
pub(super) async fn renew(core: &Core) -> Result<(), crate::store::StoreError> {
    let lives = Limits::ms(core.limits.lease_ms);
    let asked = Instant::now();
    if let Some(there) = core.store.beat(core.worker, core.worker_name.clone(), lives).await? {
        core.wall.heard(there, asked);
    }
    Ok(())
}

/// Says so three times a lease.
pub(super) async fn beat(core: &Arc<Core>) {
    let pause = (Limits::ms(core.limits.lease_ms) / 3).max(Duration::from_millis(10));
    loop {
        match tokio::time::timeout(pause * 2, renew(core)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store did not hear that this process lives"),
            Err(_) => tracing::warn!("the store does not answer; others may take this process's runs"),
        }
        tokio::time::sleep(pause).await;
    }
}
