//! Tells a store that several processes share, again and again, that this process lives.
//!
//! Always true: the store answers with its time, which is this process's from then on; what holds after an answer is
//! `lease`'s business. When the store is slow or silent, others may take this process's runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;
use crate::engine::context::Core;
use crate::limits::Limits;

/// Says so now.
pub(in crate::engine) async fn renew(core: &Core) -> Result<(), crate::store::StoreError> {
    let lives = Limits::ms(core.files.limits.lease_ms);
    let (asked, moment) = (Instant::now(), Moment::now());
    if let Some(there) = core.ports.store.beat(core.schedule.worker, core.schedule.worker_name.clone(), lives).await? {
        core.process.clock.follow(there, moment);
    }
    core.schedule.lease.heard(asked);
    Ok(())
}

/// Says so three times a lease.
pub(in crate::engine) async fn beat(core: &Arc<Core>) {
    let pause = (Limits::ms(core.files.limits.lease_ms) / 3).max(Duration::from_millis(10));
    loop {
        match tokio::time::timeout(pause * 2, renew(core)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store did not hear that this process lives"),
            Err(_) => tracing::warn!("the store does not answer; others may take this process's runs"),
        }
        tokio::time::sleep(pause).await;
    }
}
