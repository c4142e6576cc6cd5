//! How often an explanation reads the events of runs that hold locks.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use super::test_stores;
use crate::limits::Limits;

#[tokio::test]
async fn the_history_of_a_run_that_holds_a_lock_is_read_once_for_all_items_that_wait() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let definition = json!({
        "workflow": "w",
        "steps": {
            "a": {
                "for_each": "${request.body.items}",
                "concurrency": 8,
                "call": "POST ${services.world}/a/${item}",
                "lock": { "key": "shelf" },
            },
        },
        "respond": { "status": 200, "body": {} },
    });
    let store = test_stores::gated();
    let plan = checked_plan(&definition, false);
    let harness = Harness::with_store(&step_service, plan, store.clone(), Limits::default(), None).await;
    let holder = start(&harness, json!({ "items": [0] })).await.run;
    step_service.wait_for_calls(1).await;
    let waiting = start(&harness, json!({ "items": [1, 2, 3, 4, 5, 6] })).await.run;
    harness.wait_until_idle(waiting).await;
    let before = store.event_reads.load(Ordering::SeqCst);
    let explained = harness.engine.explain(waiting).await.unwrap();
    assert_eq!(store.event_reads.load(Ordering::SeqCst) - before, 2, "its own events, and those of the holder");
    let holds = format!("`a` of {holder} has held it for");
    assert_eq!(explained.waits.iter().filter(|wait| wait.contains(&holds)).count(), 6, "{explained:?}");
    step_service.open_gate();
    harness.wait_until_ended_or_awaits_input(waiting).await;
}
