//! A row of the outbox that cannot be delivered.

use super::*;
use crate::store::OutboxRow;
use crate::store::tests::{at, completed_run, run_id};

/// The outbox row of a run whose summary is damaged does not keep the rows after it from being delivered.
#[tokio::test]
async fn a_row_of_the_outbox_that_cannot_be_delivered_does_not_delay_the_others() {
    let store = SlowStore::new(false, false, 0);
    let row = |child, parent| OutboxRow {
        run: run_id(child),
        parent: Some(run_id(parent)),
        record: json!({ "kind": "child" }),
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    for (child, parent) in [(11, 1), (12, 2)] {
        let pending_runs = vec![row(child, parent)];
        store.inner.append(Append { pending_runs, ..completed_run(run_id(parent), at(0)) }.into()).await.unwrap();
    }
    *store.unreadable.lock().unwrap() = Some(run_id(1));
    let (_world, harness) = harness(&store, &calls()).await;
    let core = harness.engine.core.clone();
    let delivers = tokio::spawn(async move { crate::engine::scheduler::outbox::deliver(&core).await });
    let removed = async {
        while store.inner.pending_runs(9).await.unwrap() != [row(11, 1)] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.expect("the second row is delivered");
    delivers.abort();
}
