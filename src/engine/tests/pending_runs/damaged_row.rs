//! A row of the outbox that cannot be delivered.

use super::*;
use crate::store::OutboxRow;
use crate::store::tests::{at, completed_run, run_id};

/// The row of a child of `parent`, written `second` seconds after the epoch.
fn row(child: u64, parent: u64, second: i64) -> OutboxRow {
    OutboxRow {
        run: run_id(child),
        parent: Some(run_id(parent)),
        record: json!({ "kind": "child" }),
        at: jiff::Timestamp::from_second(second).unwrap(),
    }
}

/// Stores a parent that has completed, with such a row: a row that is delivered is removed.
async fn put_row(store: &SlowStore, child: u64, parent: u64, second: i64) {
    let pending_runs = vec![row(child, parent, second)];
    store.inner.append(Append { pending_runs, ..completed_run(run_id(parent), at(0)) }.into()).await.unwrap();
}

/// The outbox row of a run whose summary is damaged does not keep the rows after it from being delivered.
#[tokio::test]
async fn a_row_of_the_outbox_that_cannot_be_delivered_does_not_delay_the_others() {
    let store = SlowStore::new(false, false, 0);
    put_row(&store, 11, 1, 0).await;
    put_row(&store, 12, 2, 0).await;
    *store.unreadable.lock().unwrap() = [run_id(1)].into();
    let (_world, harness) = harness(&store, &calls()).await;
    let core = harness.engine.core.clone();
    let delivers = tokio::spawn(async move { crate::engine::scheduler::outbox::deliver(&core).await });
    let removed = async {
        while store.inner.pending_runs(9).await.unwrap() != [row(11, 1, 0)] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.expect("the second row is delivered");
    delivers.abort();
}

/// More rows fail than one pass tries, and they are due again before the next pass.
#[tokio::test]
async fn outbox_rows_that_always_fail_do_not_keep_the_others_from_being_delivered() {
    const FAILING: u64 = 25;
    let store = SlowStore::new(false, false, 0);
    for parent in 1..=FAILING + 1 {
        put_row(&store, 100 + parent, parent, i64::try_from(parent).unwrap()).await;
    }
    let failing: Vec<RunId> = (1..=FAILING).map(run_id).collect();
    *store.unreadable.lock().unwrap() = failing.iter().copied().collect();
    let (_world, harness) = harness(&store, &calls()).await;
    let core = harness.engine.core.clone();
    // From here on the pauses between passes end as soon as all tasks are idle.
    tokio::time::pause();
    let delivers = tokio::spawn(async move { crate::engine::scheduler::outbox::deliver(&core).await });
    let delivered = async {
        while store.inner.pending_runs(99).await.unwrap().len() > failing.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, delivered).await.expect("the last row is delivered");
    let parents: Vec<RunId> = (1..=FAILING + 1).map(run_id).collect();
    let mut tried = store.runs_read.lock().unwrap().clone();
    tried.retain(|run| parents.contains(run));
    assert_eq!(tried[..parents.len()], parents, "each row is tried once before one is tried again");
    delivers.abort();
}
