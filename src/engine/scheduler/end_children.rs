//! Commands the open children of an ended run to end, by a row of the store's outbox that is delivered at least once.
//!
//! Always true: a run that ends by its own driver has no open child, because `workflow` ends a run only after all
//! of its children have ended. Only a run that was cancelled although it cannot be read ends before its children. The
//! append that ends such a run contains the row, and the row is removed after each child has ended, or has accepted or
//! refused the command. A child that gets the command twice refuses the second one; the children of a child are
//! requested to end by the child's own driver.
//!
//! When the process that executes a child or the store does not answer, the row stays, and `outbox` delivers it again.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::engine::context::Core;
use crate::engine::machine::{CommandDelivery, PendingRunRecord};
use crate::engine::scheduler::children;
use crate::names::RunId;
use crate::store::{OutboxRow, RunFilter, StoreError};
use crate::workflow::{ControlCommand, RunStatus};

/// How many runs one request reads.
const PAGE: usize = 500;
/// How many commands are under way at the same time.
const COMMANDS_MAX: usize = 16;

/// The outbox row that commands the children of a run that ends now to end. The row's id belongs to no run.
pub(in crate::engine) fn outbox_row(core: &Core, parent: RunId, at: Timestamp) -> OutboxRow {
    // Serializing it cannot fail: it is a string.
    let record = serde_json::to_value(PendingRunRecord::EndChildren).unwrap_or_default();
    OutboxRow { run: RunId(core.process.new_id()), parent: Some(parent), record, at }
}

/// Sends the open children of an ended run the command to cancel without undoing; removes the row once each of them has
/// received the command.
pub(in crate::engine) async fn deliver(core: &Arc<Core>, row: RunId, parent: RunId) -> Result<(), StoreError> {
    let mut filter =
        RunFilter { parent: Some(parent), statuses: RunStatus::OPEN.to_vec(), limit: PAGE, ..RunFilter::default() };
    let mut all_delivered = true;
    loop {
        let page = core.ports.store.runs(filter.clone()).await?;
        let children: Vec<RunId> = page.iter().map(|child| child.run_id).collect();
        let deliveries = stream::iter(children).map(|child| {
            let reason = Some("the run that began it was cancelled".to_owned());
            children::send_command(
                core.clone(),
                child,
                ControlCommand::Cancel { compensate: false, reason, automatic: false },
                parent,
            )
        });
        let deliveries: Vec<CommandDelivery> = deliveries.buffer_unordered(COMMANDS_MAX).collect().await;
        // `NoRun` counts as delivered: a child that is no longer stored has ended and was purged.
        all_delivered &= deliveries.iter().all(|delivery| *delivery != CommandDelivery::Unknown);
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
