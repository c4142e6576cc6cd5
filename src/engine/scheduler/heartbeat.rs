//! Renews this process's lease in a shared store.
//!
//! Always true: the store answers with its time, which this process's clock follows. Successful renewals are recorded
//! in `lease`. When the store is slow or silent, the lease runs out, and other processes may take this process's runs.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::engine::context::Core;
use crate::limits::Limits;

/// Renews the lease now.
pub(in crate::engine) async fn renew(core: &Core) -> Result<(), crate::store::StoreError> {
    let duration = Limits::ms(core.files.limits.lease_ms);
    let sent_at = Moment::now();
    let (worker, name) = (core.schedule.worker, core.schedule.worker_name.clone());
    if let Some(store_time) = core.ports.store.heartbeat(worker, name, duration).await? {
        core.process.clock.follow(store_time, sent_at);
    }
    core.schedule.lease.record_renewal(sent_at);
    Ok(())
}

/// Renews the lease three times within its duration, for ever.
pub(in crate::engine) async fn renew_repeatedly(core: &Arc<Core>) {
    let pause = (Limits::ms(core.files.limits.lease_ms) / 3).max(Duration::from_millis(10));
    loop {
        match tokio::time::timeout(pause * 2, renew(core)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease was not renewed; other processes may take this one's runs")
            }
            Err(_) => tracing::warn!("the store does not answer; other processes may take this one's runs"),
        }
        tokio::time::sleep(pause).await;
    }
}
