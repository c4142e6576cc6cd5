//! Calls that wait for their turn at a service (`calls_max`) are not sent after the run was cancelled or paused, or
//! after the process was told to stop.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::EngineTest;
use crate::support::step_service::ScriptedReply;
use crate::support::{until, until_true};

const NARROW: &str = "POST /narrow";

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

const FAILING: &str = "
workflow: failing
steps:
  charge: { call: 'POST ${services.narrow}/narrow/one', timeout: 20s }
  refused: { call: 'POST ${services.works}/refused' }
respond: { status: 200, body: done }
";

const SHORT: &str = "
workflow: short
steps:
  charge: { call: 'POST ${services.narrow}/narrow/short', timeout: 20s, deadline: 8s }
respond: { status: 200, body: done }
";

/// A test whose service performs two calls at a time and holds their replies.
async fn with_narrow_service() -> EngineTest {
    let services = "  narrow: { urls: [\"WORKS\"], calls_max: 2 }";
    let test = EngineTest::with_settings(services, &[MANY, ONE, FAILING, SHORT], |_| {}).await;
    test.step_service.hold(NARROW);
    test
}

async fn with_four_calls_that_wait() -> (EngineTest, String) {
    let test = with_narrow_service().await;
    let run = test.start_run("many", json!({})).await;
    test.wait_for_calls(NARROW, 2).await;
    test.wait_for_explanation(&run, "waits for a permit").await;
    (test, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_sends_no_call_that_waits_for_its_turn() {
    for compensate in [false, true] {
        let (test, run) = with_four_calls_that_wait().await;
        test.post_accepted(&format!("{run}/cancel"), json!({ "compensate": compensate })).await;
        test.step_service.release_all(NARROW);
        let data = test.wait_for_status(&run, "cancelled").await;
        assert_eq!(test.step_service.count(NARROW), 2, "{data}");
        assert_eq!(test.step_service.count("DELETE /narrow"), if compensate { 2 } else { 0 }, "{data}");
        test.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_sends_no_call_that_waits_for_its_turn_until_it_is_resumed() {
    let (test, run) = with_four_calls_that_wait().await;
    test.post_accepted(&format!("{run}/pause"), json!({})).await;
    test.step_service.release_all(NARROW);
    let replied = async || test.events_of_kind(&run, "step_finished").await.len();
    while replied().await < 2 {
        tokio::task::yield_now().await;
    }
    // The calls that were not sent are scheduled again.
    test.wait_for_events(&run, "retry_scheduled", 4).await;
    assert_eq!(test.step_service.count(NARROW), 2);
    test.post_accepted(&format!("{run}/resume"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!((test.step_service.count(NARROW), test.step_service.effects(NARROW)), (6, 6));
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
    test.wait_for_calls(NARROW, 2).await;
    for run in &runs {
        test.wait_for_events(run, "step_started", 1).await;
    }
    test.pointsman.terminate();
    // The calls that were not sent are scheduled again.
    until("four calls to be scheduled again", || async {
        let mut count = 0;
        for run in &runs {
            count += test.events_of_kind(run, "retry_scheduled").await.len();
        }
        (count == 4).then_some(())
    })
    .await;
    test.step_service.release_all(NARROW);
    assert_eq!(test.pointsman.wait_for_exit().await, Some(0));
    assert_eq!(test.step_service.count(NARROW), 2);
    test.restart().await;
    for run in &runs {
        let data = test.wait_for_status(run, "completed").await;
        assert_eq!(data["conflicts"], Value::Array(Vec::new()), "{data}");
    }
    assert_eq!((test.step_service.count(NARROW), test.step_service.effects(NARROW)), (6, 6));
    test.finish().await;
}

/// The run fails, and it is unknown whether `charge` was done. A person asks for another attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_a_person_asks_for_is_sent_in_a_run_that_fails() {
    let test = EngineTest::with_settings("  narrow: { urls: [\"WORKS\"] }", &[FAILING], |_| {}).await;
    test.step_service.script(NARROW, ScriptedReply::Close, 1);
    test.step_service.set_default("POST /refused", ScriptedReply::Refuse(400));
    let run = test.start_run("failing", json!({})).await;
    test.wait_for_calls("POST /refused", 1).await;
    test.wait_for_status(&run, "paused").await;
    test.post_accepted(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    let data = test.wait_for_status(&run, "failed").await;
    assert_eq!(test.step_service.count(NARROW), 2, "{data}");
    test.finish().await;
}

/// The repeat waits for its turn when the process is told to stop. It is not withdrawn, as a person would have to ask
/// for it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_a_person_asked_for_is_not_withdrawn() {
    let mut test = with_narrow_service().await;
    test.step_service.release(NARROW, 1);
    test.step_service.script(NARROW, ScriptedReply::Close, 1);
    let unknown = test.start_run("one", json!({})).await;
    test.wait_for_status(&unknown, "paused").await;
    for _ in 0..2 {
        test.start_run("one", json!({})).await;
    }
    test.wait_for_calls(NARROW, 3).await;
    test.post_accepted(&format!("{unknown}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    test.wait_for_explanation(&unknown, "waits for a permit").await;
    test.pointsman.terminate();
    until_true("the stop to have begun", || test.pointsman.log().contains("the proxy is drained")).await;
    test.step_service.release_all(NARROW);
    assert_eq!(test.pointsman.wait_for_exit().await, Some(0));
    test.restart().await;
    let data = test.wait_for_status(&unknown, "completed").await;
    assert_eq!(test.step_service.count(NARROW), 4, "{data}");
    test.finish().await;
}

/// The person who asked for the repeat then cancels the run without undoing.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_waits_is_not_sent_after_a_cancel_without_undoing() {
    let test = with_narrow_service().await;
    test.step_service.release(NARROW, 1);
    test.step_service.script(NARROW, ScriptedReply::Close, 1);
    let unknown = test.start_run("one", json!({})).await;
    test.wait_for_status(&unknown, "paused").await;
    for _ in 0..2 {
        test.start_run("one", json!({})).await;
    }
    test.wait_for_calls(NARROW, 3).await;
    test.post_accepted(&format!("{unknown}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    test.wait_for_explanation(&unknown, "waits for a permit").await;
    test.post_accepted(&format!("{unknown}/cancel"), json!({ "compensate": false })).await;
    let data = test.wait_for_status(&unknown, "cancelled").await;
    test.step_service.release_all(NARROW);
    assert_eq!(test.step_service.count(NARROW), 3, "{data}");
    test.finish().await;
}

/// The time for which the run is paused does not count towards the deadline of a call that was not sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_a_withdrawn_call_begins_anew() {
    let test = with_narrow_service().await;
    for _ in 0..2 {
        test.start_run("one", json!({})).await;
    }
    test.wait_for_calls(NARROW, 2).await;
    let (run, started) = (test.start_run("short", json!({})).await, Instant::now());
    test.wait_for_explanation(&run, "waits for a permit").await;
    test.post_accepted(&format!("{run}/pause"), json!({})).await;
    test.wait_for_events(&run, "retry_scheduled", 1).await;
    let scheduled = test.events_of_kind(&run, "retry_scheduled").await;
    assert_eq!(scheduled[0]["withdrawn"], json!(true), "{scheduled:?}");
    test.step_service.release_all(NARROW);
    until_true("its first deadline to be over", || started.elapsed() > Duration::from_secs(8)).await;
    test.post_accepted(&format!("{run}/resume"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    test.finish().await;
}
