//! Messages to webhooks: each receiver has its own queue. A dead receiver delays no other; its messages are kept.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{EngineTest, RUN, id};
use crate::support::step_service::{ReceivedCall, ScriptedReply};
use crate::support::until;

/// A workflow that opens a checkpoint at once, with this `notify:`.
fn asks(name: &str, notify: &str) -> String {
    format!(
        "workflow: {name}
notify: {notify}
steps:
  ask: {{ checkpoint: {{ question: Go on? }} }}
respond: {{ status: 200, body: done }}
"
    )
}

const ALIVE: &str = "POST /alive";
const DEAD: &str = "POST /dead";

async fn test(more: &str) -> EngineTest {
    let alive = asks("alive", "${services.works}/alive/${run.id}");
    EngineTest::with_settings(more, &[&alive, &asks("dead", "${services.works}/dead")], |_| {}).await
}

/// Starts this many runs one after the other; returns their ids.
async fn start_runs(test: &EngineTest, workflow: &str, count: usize) -> Vec<String> {
    let mut runs = Vec::new();
    for _ in 0..count {
        let run = test.start_run(workflow, json!({})).await;
        test.wait_for_events(&run, "checkpoint_opened", 1).await;
        runs.push(id(&run).to_owned());
    }
    runs
}

/// The runs named in the messages to an endpoint, in order of arrival; a message that is repeated at once counts once.
fn notified_runs(seen: &[ReceivedCall]) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    for message in seen {
        let run = message.json()["run_id"].as_str().unwrap_or_default().to_owned();
        if runs.last() != Some(&run) {
            runs.push(run);
        }
    }
    runs
}

async fn wait_for_notifications(test: &EngineTest, endpoint: &str, runs: &[String]) {
    let notified = || notified_runs(&test.step_service.seen(endpoint));
    // A kill before the receiver's answer is processed makes the next process send that message again: two effects.
    let are_all_sent = || test.step_service.effects(endpoint) >= runs.len() && notified().len() >= runs.len();
    until("every message", || async { are_all_sent().then_some(()) }).await;
    assert_eq!(notified(), runs, "each, and in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_delays_no_other_receiver() {
    let test = test("").await;
    test.step_service.hold(DEAD);
    let dead = start_runs(&test, "dead", 5).await;
    test.wait_for_calls(DEAD, 1).await;
    let since = Instant::now();
    let alive = start_runs(&test, "alive", 3).await;
    wait_for_notifications(&test, ALIVE, &alive).await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}, and one try at the dead one takes five seconds");
    assert_eq!(test.step_service.count(DEAD), 1, "one message at a time");
    let waiting = |wanted: f64| {
        move |metrics: &crate::support::Metrics| {
            (metrics.sum("pointsman_notices_waiting", &[("service", "works")]) - wanted).abs() < 0.5
        }
    };
    test.pointsman.until_metric("five wait", waiting(5.0)).await;
    test.step_service.release_all(DEAD);
    until("the rest", || async { (test.step_service.effects(DEAD) >= 5).then_some(()) }).await;
    let seen = test.step_service.seen(DEAD);
    let first = seen.iter().filter(|message| message.json()["run_id"] == json!(dead[0])).count();
    assert!(first >= 1, "the first may come twice: it was not answered in time");
    assert_eq!(notified_runs(&seen), dead);
    let metrics = test.pointsman.until_metric("nothing waits", waiting(0.0)).await;
    assert!(metrics.sum("pointsman_notices_total", &[("service", "works"), ("outcome", "sent")]) >= 8.0);
    assert_eq!(metrics.values("pointsman_notices_total", "service"), ["works"], "no path, and no run");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_messages_wait_and_none_is_lost_over_a_restart() {
    let mut test = test("").await;
    test.step_service.set_default(DEAD, ScriptedReply::Refuse(503));
    let dead = start_runs(&test, "dead", 120).await;
    let since = Instant::now();
    let alive = start_runs(&test, "alive", 10).await;
    wait_for_notifications(&test, ALIVE, &alive).await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(8), "behind 120 messages to another receiver it took {took:?}");
    test.kill_and_restart().await;
    let more = start_runs(&test, "alive", 110).await;
    let alive = [alive, more].concat();
    wait_for_notifications(&test, ALIVE, &alive).await;
    assert!(test.pointsman.log().contains("a message to a webhook was not delivered"), "{}", test.pointsman.log());
    test.step_service.set_default(DEAD, ScriptedReply::Done(200, json!({})));
    until("every message to the one that was dead", || async {
        (test.step_service.effects(DEAD) >= 120).then_some(())
    })
    .await;
    assert_eq!(notified_runs(&test.step_service.seen(DEAD)), dead, "each, and in order");
    let log = test.pointsman.log();
    assert!(log.contains("a webhook accepts messages again"), "{log}");
    let metrics = test.pointsman.metrics().await;
    assert!(metrics.sum("pointsman_notice_failures_total", &[("service", "works")]) >= 1.0);
    for lost in ["given_up", "dropped"] {
        assert!(metrics.sum("pointsman_notices_total", &[("outcome", lost)]) < 0.5, "{lost}");
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_the_oldest_messages_are_dropped_and_counted() {
    let test = test("limits: { notices_waiting_max: 4, notice_attempts_max: 2 }").await;
    test.step_service.set_default(DEAD, ScriptedReply::Refuse(503));
    let dead = start_runs(&test, "dead", 10).await;
    let dropped = |metrics: &crate::support::Metrics| {
        (metrics.sum("pointsman_notices_total", &[("service", "works"), ("outcome", "dropped")]) - 6.0).abs() < 0.5
    };
    test.pointsman.until_metric("six are dropped", dropped).await;
    let log = test.pointsman.log();
    let dropped: Vec<&str> = log.lines().filter(|line| line.contains("is dropped: too many")).collect();
    assert_eq!(dropped.len(), 6, "{log}");
    let named = dead.iter().filter(|run| dropped.iter().any(|line| line.contains(run.as_str()))).count();
    assert_eq!(named, 6, "each is named: {log}");
    // A receiver that refuses a message gets the next one soon.
    test.step_service.set_default(DEAD, ScriptedReply::Refuse(404));
    let given_up = |metrics: &crate::support::Metrics| {
        metrics.sum("pointsman_notices_total", &[("service", "works"), ("outcome", "given_up")]) >= 1.0
    };
    test.pointsman.until_metric("one is given up", given_up).await;
    test.step_service.set_default(DEAD, ScriptedReply::Done(200, json!({})));
    until("the newest", || async {
        let last = test.step_service.seen(DEAD).last().map_or(Value::Null, ReceivedCall::json);
        (last["run_id"] == json!(dead[9]) && test.step_service.effects(DEAD) >= 1).then_some(())
    })
    .await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reload_messages_go_to_the_new_url_of_the_receiver_also_those_that_wait() {
    let asks = asks("moved", "${services.ops}/moved");
    // Dropped at the end, so that no other test gets the port.
    let closed = crate::support::closed_port();
    let dead = format!("http://{}", closed.local_addr().expect("an address"));
    let mut test = EngineTest::with_settings(&format!("  ops: {dead}"), &[&asks], |_| {}).await;
    let mut runs = start_runs(&test, "moved", 3).await;
    // The pauses after failures are 1, 2, 4 s and more: without the reload, the next attempt is far away.
    let failed = |metrics: &crate::support::Metrics| {
        metrics.sum("pointsman_notice_failures_total", &[("service", "ops")]) >= 4.0
    };
    test.pointsman.until_metric("four failures", failed).await;
    let url = test.step_service.url();
    let since = Instant::now();
    test.reload(|| test.flags.edit("pointsman.yaml", |text| text.replace(&dead, &url))).await;
    runs.extend(start_runs(&test, "moved", 1).await);
    wait_for_notifications(&test, "POST /moved", &runs).await;
    assert!(since.elapsed() < Duration::from_secs(7), "after the reload it took {:?}", since.elapsed());

    // While the service is not in the files, messages are recorded; they are sent when it is there again.
    test.reload(|| {
        test.flags.edit("pointsman.yaml", |text| text.replace("  ops: ", "  other: "));
        std::fs::remove_file(test.flags.file("workflows/moved.yaml")).expect("it was there");
    })
    .await;
    test.kill_and_restart().await;
    let by = json!({ "reason": "for a drill", "as": "ann" });
    test.post_accepted(&format!("{RUN}/{}/pause", runs[0]), by).await;
    let waits = |metrics: &crate::support::Metrics| {
        (metrics.sum("pointsman_notices_waiting", &[("service", "ops")]) - 1.0).abs() < 0.5
    };
    test.pointsman.until_metric("one waits", waits).await;
    assert_eq!(notified_runs(&test.step_service.seen("POST /moved")).len(), 4, "there is no address to send it to");
    test.reload(|| test.flags.edit("pointsman.yaml", |text| text.replace("  other: ", "  ops: "))).await;
    runs.push(runs[0].clone());
    wait_for_notifications(&test, "POST /moved", &runs).await;
    test.finish().await;
}
