//! A parent whose child is not in the store.

use super::*;

/// A parent is suspended and waits for a child that is not stored.
#[tokio::test]
async fn the_watchdog_wakes_a_parent_whose_child_is_missing() {
    let store = SlowStore::new(false, false, 0);
    let (_world, harness) = harness(&store, &child(json!({ "a": { "wait": "1h" } }))).await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    let lost = RunId(uuid::Uuid::now_v7());
    harness.engine.core.schedule.timers.watch_child(run, lost);
    crate::engine::scheduler::watchdog::check_all(&harness.engine.core).await.unwrap();
    let woken = async {
        while harness.engine.core.schedule.timers.parent_of(lost).is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, woken).await.expect("the parent is woken");
}
