//! Calls that wait for their turn at a service (`calls_max`) are not sent after the run was cancelled or paused, or
//! after the process was told to stop.

use serde_json::{Value, json};

use super::EngineTest;
use crate::support::until_true;

const MANY: &str = "
workflow: many
steps:
  charge:
    for_each: ${[1, 2, 3, 4, 5, 6]}
    concurrency: 6
    call: POST ${services.narrow}/narrow/${item}
    undo: DELETE ${services.works}/narrow/${item}
    timeout: 20s
respond: { status: 200, body: done }
";

const ONE: &str = "
workflow: one
steps:
  charge: { call: 'POST ${services.narrow}/narrow/one', timeout: 20s }
respond: { status: 200, body: done }
";

/// A test whose service performs two calls at a time and holds their replies.
async fn with_narrow_service() -> EngineTest {
    let services = "  narrow: { urls: [\"WORKS\"], calls_max: 2 }";
    let test = EngineTest::with_settings(services, &[MANY, ONE], |_| {}).await;
    test.step_service.hold("POST /narrow");
    test
}

async fn with_four_calls_that_wait() -> (EngineTest, String) {
    let test = with_narrow_service().await;
    let run = test.start_run("many", json!({})).await;
    test.wait_for_calls("POST /narrow", 2).await;
    test.wait_for_explanation(&run, "waits for a permit").await;
    (test, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_sends_no_call_that_waits_for_its_turn() {
    for compensate in [false, true] {
        let (test, run) = with_four_calls_that_wait().await;
        test.post_accepted(&format!("{run}/cancel"), json!({ "compensate": compensate })).await;
        test.step_service.release_all("POST /narrow");
        let data = test.wait_for_status(&run, "cancelled").await;
        assert_eq!(test.step_service.count("POST /narrow"), 2, "{data}");
        assert_eq!(test.step_service.count("DELETE /narrow"), if compensate { 2 } else { 0 }, "{data}");
        test.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_sends_no_call_that_waits_for_its_turn_until_it_is_resumed() {
    let (test, run) = with_four_calls_that_wait().await;
    test.post_accepted(&format!("{run}/pause"), json!({})).await;
    test.step_service.release_all("POST /narrow");
    let replied = async || test.events_of_kind(&run, "step_finished").await.len();
    while replied().await < 2 {
        tokio::task::yield_now().await;
    }
    // The calls that were not sent are scheduled again.
    test.wait_for_events(&run, "retry_scheduled", 4).await;
    assert_eq!(test.step_service.count("POST /narrow"), 2);
    test.post_accepted(&format!("{run}/resume"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!((test.step_service.count("POST /narrow"), test.step_service.effects("POST /narrow")), (6, 6));
    test.finish().await;
}

/// The stop ends as soon as the calls that were sent have ended, and the next process sends the others: the outcome of
/// none is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_no_call_that_waits_for_its_turn() {
    let mut test = with_narrow_service().await;
    let mut runs = Vec::new();
    for _ in 0..6 {
        runs.push(test.start_run("one", json!({})).await);
    }
    test.wait_for_calls("POST /narrow", 2).await;
    for run in &runs {
        test.wait_for_events(run, "step_started", 1).await;
    }
    test.pointsman.terminate();
    until_true("the stop to have begun", || test.pointsman.log().contains("the proxy is drained")).await;
    test.step_service.release_all("POST /narrow");
    assert_eq!(test.pointsman.wait_for_exit().await, Some(0));
    assert_eq!(test.step_service.count("POST /narrow"), 2);
    test.restart().await;
    for run in &runs {
        let data = test.wait_for_status(run, "completed").await;
        assert_eq!(data["conflicts"], Value::Array(Vec::new()), "{data}");
    }
    assert_eq!((test.step_service.count("POST /narrow"), test.step_service.effects("POST /narrow")), (6, 6));
    test.finish().await;
}
