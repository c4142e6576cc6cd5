//! Temporary failures: attempts, pauses, deadlines, and timers that survive the process.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EngineTest, id, step};
use crate::support::step_service::ScriptedReply;

const PAY: &str = "
workflow: pay
steps:
  charge:
    call: POST ${services.works}/charges
    retry: { attempts: 3, base: 5ms, max: 20ms }
respond: { status: 200, body: '${steps.charge.output}' }
";

const LONG_PAUSE: &str = "
workflow: long-pause
steps:
  charge:
    call: POST ${services.works}/charges
    retry: { attempts: 3, base: 2h, max: 2h }
respond: { status: 200, body: paid }
";

const RETRY_AFTER: &str = "
workflow: retry-after
steps:
  charge:
    call: POST ${services.works}/charges
    retry: { attempts: 3, base: 1ms, max: 1500ms }
respond: { status: 200, body: paid }
";

const PICKY: &str = "
workflow: picky
steps:
  charge:
    call: POST ${services.plain}/charges
    not_done: [404]
    accept: [2xx, 402]
    retry: { attempts: 3, base: 1ms, max: 2ms }
respond: { status: 200, body: '${steps.charge.status}' }
";

const BOUNDED: &str = "
workflow: bounded
steps:
  reserve:
    call: POST ${services.works}/stock
    undo: DELETE ${services.works}/stock/1
  charge:
    needs: [reserve]
    call: POST ${services.works}/charges
    retry: { attempts: 9, base: 1ms, max: 10s }
    deadline: 1s
respond: { status: 200, body: paid }
";

const HURRIED: &str = "
workflow: hurried
deadline: 1s
steps:
  reserve:
    call: POST ${services.works}/stock
    undo: DELETE ${services.works}/stock/1
  paid: { needs: [reserve], wait: { signal: paid } }
respond: { status: 200, body: paid }
";

fn busy_for(seconds: u64) -> ScriptedReply {
    ScriptedReply::RefuseWith(429, vec![("retry-after", seconds.to_string())], json!({ "error": "not so fast" }))
}

fn at(event: &Value) -> jiff::Timestamp {
    event["at"].as_str().expect("a time").parse().expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_failed_for_now_are_repeated_with_the_same_key() {
    let mut test = EngineTest::with(&[PAY]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(503), 1);
    test.step_service.script("POST /charges", ScriptedReply::Close, 1);
    let data = test.run("pay", json!({})).await;
    assert_eq!((&data["status"], &step(&data, "charge")["attempts"]), (&json!("completed"), &json!(3)), "{data}");
    let seen = test.step_service.seen("POST /charges");
    assert!(seen[0].key.is_some() && seen.iter().all(|call| call.key == seen[0].key), "{seen:?}");
    // The service refuses every attempt as not done: the run fails, and the failure names the reason.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(429), 3);
    let data = test.run("pay", json!({})).await;
    assert_eq!((&data["status"], &data["error"]["step_id"]), (&json!("failed"), &json!("charge")), "{data}");
    assert_eq!((&data["error"]["status"], test.step_service.count("POST /charges")), (&json!(429), 6));
    // A lost reply: the service recognises the repetition by its key.
    test.step_service.script("POST /charges", ScriptedReply::LoseReply, 1);
    test.allowed.lost_replies = 1;
    let data = test.run("pay", json!({})).await;
    assert_eq!(data["output"]["number"], json!(2), "the answer of the first delivery: {data}");
    assert_eq!(test.step_service.effects("POST /charges"), 2);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_a_service_is_respected() {
    let test = EngineTest::with(&[RETRY_AFTER]).await;
    test.step_service.script("POST /charges", busy_for(1), 1);
    test.step_service.script("POST /charges", busy_for(86_400), 1);
    let data = test.run("retry-after", json!({})).await;
    assert_eq!(data["status"], "completed", "{data}");
    let run = super::path(&data);
    let events = test.events(&run).await;
    let retries: Vec<&Value> = events.iter().filter(|event| event["kind"] == "retry_scheduled").collect();
    let pauses: Vec<_> = retries
        .iter()
        .map(|event| {
            let next: jiff::Timestamp = event["event"]["retry_scheduled"]["at"].as_str().unwrap().parse().unwrap();
            next.duration_since(at(event)).as_millis()
        })
        .collect();
    // An event has the time of its decision, from which the pause is counted. A little less is tolerated.
    let within = |pause: i128, wanted: i128| (wanted - 100..=wanted).contains(&pause);
    assert!(pauses.len() == 2 && within(pauses[0], 1_000) && within(pauses[1], 1_500), "within `max`: {pauses:?}");
    let seen = test.step_service.seen("POST /charges");
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(990), "not before `retry-after`");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_survives_the_process() {
    let mut test = EngineTest::with(&[LONG_PAUSE, RETRY_AFTER]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(503), 1);
    let far = test.start_run("long-pause", json!({})).await;
    let before = test.wait_for_events(&far, "retry_scheduled", 1).await;
    test.step_service.script("POST /charges", busy_for(1), 1);
    let near = test.start_run("retry-after", json!({})).await;
    test.wait_for_events(&near, "retry_scheduled", 1).await;
    test.kill_and_restart().await;
    // The run with the near timer completes; the other one still waits for the same time as before.
    test.wait_for_status(&near, "completed").await;
    let seen = test.step_service.seen("POST /charges");
    assert!(seen[2].at - seen[1].at >= Duration::from_millis(990), "not sooner than before the kill");
    assert_eq!((seen.len(), &seen[2].key), (3, &seen[1].key));
    let explained = test.explanation(&far).await;
    let next = &before["at"].as_str().unwrap()[..19];
    assert!(explained.contains("`charge` is tried again") && explained.contains(next), "{explained}");
    let listed = test.cli(&["runs", "show", id(&far)]).await;
    assert!(listed.contains("retrying"), "{listed}");
    // A person starts the next attempt now.
    test.cli(&["runs", "retry", id(&far), "charge"]).await;
    test.wait_for_status(&far, "completed").await;
    assert_eq!(test.step_service.count("POST /charges"), 4);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_classified_as_the_step_declares() {
    let test = EngineTest::with(&[PICKY]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(404), 1);
    test.step_service.script("POST /charges", ScriptedReply::Refuse(429), 1);
    test.step_service.script("POST /charges", ScriptedReply::Done(402, json!({ "error": "declined" })), 1);
    let data = test.run("picky", json!({})).await;
    assert_eq!((&data["status"], &data["output"]), (&json!("completed"), &json!(402)), "{data}");
    // Any other 4xx is final. An attempt with an unknown outcome is not sent again automatically, since the service
    // does not honour keys and the step has no probe.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(400), 1);
    let data = test.run("picky", json!({})).await;
    assert_eq!((&data["status"], &data["error"]["status"]), (&json!("failed"), &json!(400)), "{data}");
    for reply in [ScriptedReply::Refuse(500), ScriptedReply::Close] {
        test.step_service.script("POST /charges", reply, 1);
        let data = test.run("picky", json!({})).await;
        assert_eq!((&data["status"], &data["conflicts"][0]["kind"]), (&json!("paused"), &json!("outcome_unknown")));
    }
    assert_eq!(test.step_service.count("POST /charges"), 6);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_end_steps_and_runs_even_across_a_restart() {
    let mut test = EngineTest::with(&[BOUNDED, HURRIED]).await;
    // A `Retry-After` beyond the step's deadline is not waited for.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(429), 1);
    test.step_service.script("POST /charges", busy_for(2), 1);
    let data = test.run("bounded", json!({})).await;
    let run = super::path(&data);
    let data = test.wait_for_status(&run, "failed").await;
    assert!(data["error"]["message"].as_str().unwrap().contains("its deadline"), "{data}");
    assert_eq!(
        (test.step_service.count("POST /charges"), &data["undone"][0]["state"]),
        (2, &json!("undone")),
        "{data}"
    );

    let run = test.start_run("hurried", json!({})).await;
    test.wait_for_events(&run, "wait_began", 1).await;
    test.kill_and_restart().await;
    let data = test.wait_for_status(&run, "failed").await;
    assert!(data["run"]["note"].as_str().unwrap().contains("deadline"), "{data}");
    assert_eq!(
        (test.step_service.effects("POST /stock"), test.step_service.effects("DELETE /stock")),
        (2, 2),
        "both were undone"
    );
    let events = test.events(&run).await;
    let passed = events.iter().find(|event| event["kind"] == "deadline_passed").expect("in the trail");
    assert!(at(passed).duration_since(at(&events[0])).as_millis() >= 1_000, "not early");
    test.finish().await;
}
