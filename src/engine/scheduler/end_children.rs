//! Orders the runs that an ended run had started to end: a row of the store's outbox, delivered at least once.
//!
//! Always true: a run that its own driver ends has no open child, because the core concludes a run only after all of its
//! children. Only a run that was cancelled unread ends before them. The append that ends it holds the row, and the row is
//! removed after each child has ended, or has taken or refused the order. A child that gets the order twice refuses the
//! second one; what a child has started itself, its own driver orders to end.
//!
//! When a child's process or the store does not answer, the row stays, and `outbox` delivers it again.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::engine::api::children;
use crate::engine::context::Core;
use crate::engine::machine::{Delivery, PendingRunRecord};
use crate::names::RunId;
use crate::store::{PendingRun, RunFilter, StoreError};
use crate::workflow::{Order, RunStatus};

/// Runs that are read with one request.
const PAGE: usize = 500;
/// Orders that are under way at the same time.
const ORDERS_MAX: usize = 16;

/// The row for the children of a run that ends now. It stands for no run: its id is new and no run gets it.
pub(in crate::engine) fn row(core: &Core, parent: RunId, at: Timestamp) -> PendingRun {
    // Serializing it cannot fail: it is a word.
    let record = serde_json::to_value(PendingRunRecord::EndChildren).unwrap_or_default();
    PendingRun { run: RunId(core.process.new_id()), parent: Some(parent), record, at }
}

/// Sends the open children of an ended run the order to cancel without undoing; removes the row where all of them got it.
pub(in crate::engine) async fn deliver(core: &Arc<Core>, row: RunId, parent: RunId) -> Result<(), StoreError> {
    let mut filter =
        RunFilter { parent: Some(parent), statuses: RunStatus::OPEN.to_vec(), limit: PAGE, ..RunFilter::default() };
    let mut all_delivered = true;
    loop {
        let page = core.ports.store.runs(filter.clone()).await?;
        let children: Vec<RunId> = page.iter().map(|child| child.run_id).collect();
        let deliveries = stream::iter(children).map(|child| {
            let reason = Some("the run that began it was cancelled".to_owned());
            children::send_order(core.clone(), child, Order::Cancel { compensate: false, reason }, parent)
        });
        let deliveries: Vec<Delivery> = deliveries.buffer_unordered(ORDERS_MAX).collect().await;
        // A child that is not stored any more was purged, after its end.
        all_delivered &= deliveries.iter().all(|delivery| *delivery != Delivery::Unknown);
        match page.last() {
            Some(last) if page.len() == PAGE => filter.before = Some(last.run_id),
            _ => break,
        }
    }
    match all_delivered {
        true => core.ports.store.remove_pending_run(row).await,
        false => Ok(()),
    }
}
