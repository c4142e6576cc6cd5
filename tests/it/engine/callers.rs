//! Runs that need a person: webhooks are notified, and callers do not wait.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{EngineTest, RUN, id};
use crate::support::step_service::ScriptedReply;

const NOTIFIES: &str = "
workflow: notifies
notify: ${services.works}/hooks
steps:
  charge: { call: 'POST ${services.works}/charges', body: '${request.body}' }
  ask: { needs: [charge], checkpoint: { question: Go on?, who: [ada] } }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_notified_of_pauses_and_questions_over_a_restart() {
    let mut test = EngineTest::with(&[NOTIFIES]).await;
    test.step_service.set_default("POST /hooks", ScriptedReply::Refuse(503));
    test.step_service.script("POST /charges", ScriptedReply::Refuse(409), 1);
    let run = test.start_run("notifies", json!({ "note": "hunter2" })).await;
    test.wait_for_status(&run, "paused").await;
    test.wait_for_calls("POST /hooks", 1).await;
    test.kill().await;
    test.step_service.set_default("POST /hooks", ScriptedReply::Done(200, json!({})));
    test.restart().await;
    let delivered = test.step_service.count("POST /hooks");
    test.wait_for_calls("POST /hooks", delivered + usize::from(test.step_service.effects("POST /hooks") == 0)).await;
    test.post_accepted(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    test.wait_for_status(&run, "waiting_checkpoint").await;
    crate::support::until("both messages", || async { (test.step_service.effects("POST /hooks") == 2).then_some(()) })
        .await;
    let seen = test.step_service.seen("POST /hooks");
    let (first, last) = (seen[0].json(), seen.last().unwrap().json());
    assert_eq!(
        (&first["event"], &first["run_id"], &first["step"]),
        (&json!("paused"), &json!(id(&run)), &json!("charge"))
    );
    assert_eq!(first["id"], seen[1].json()["id"], "the repeated message has the id of the first");
    assert_eq!((&last["event"], &last["question"]), (&json!("checkpoint_opened"), &json!("Go on?")), "{last}");
    assert!(seen.iter().all(|hook| !hook.text.contains("hunter2")), "no bodies");
    let pending = test.data(&run).await["pending_checkpoint"].clone();
    assert_eq!(last["checkpoint_id"], pending["id"]);
    test.post_accepted(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    test.wait_for_status(&run, "completed").await;
    test.finish().await;
}

const PAUSES: &str = "
workflow: pauses
steps:
  charge: { call: 'POST ${services.works}/charges', on_conflict: pause }
respond: { status: 201, body: { id: '${steps.charge.output.id}' } }
";

const ASKS: &str = "
workflow: asks
steps:
  ask: { checkpoint: { question: May it? } }
respond:
  - { status: 201, body: { by: '${steps.ask.by}' } }
  - pending: { status: 202, body: { state: 'somebody looks at it' } }
";

const ROUTES: &str = "
routes:
- id: pays
  match: { method: POST, path: /pays }
  legacy: plain
  workflow: pauses
  state: only
  force: { reason: a test }
  retry_key: ${request.headers[\"idempotency-key\"]}
- id: asked
  match: { method: POST, path: /asked }
  legacy: plain
  workflow: asks
  state: only
  force: { reason: a test }
  retry_key: ${request.headers[\"idempotency-key\"]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_never_waits_for_a_person() {
    let test = EngineTest::with_settings("", &[PAUSES, ASKS], |flags| flags.write("routes/all.yaml", ROUTES)).await;
    let send = async |path: &str, key: &str| {
        let url = format!("{}{path}", test.pointsman.url());
        let sent = Instant::now();
        let reply = test.client.json(Method::POST, &url, &[("idempotency-key", key)], &json!({})).await;
        assert!(sent.elapsed() < Duration::from_secs(10), "it does not wait for a person");
        reply.expect("an answer")
    };
    let only_run_of = async |workflow: &str| {
        let list = test.pointsman.get(&format!("/api/v2/orchestrate/runs?workflow={workflow}")).await;
        let runs = list["runs"].as_array().unwrap().clone();
        assert_eq!(runs.len(), 1, "one run for one key: {list}");
        format!("{RUN}/{}", runs[0]["run_id"].as_str().unwrap())
    };
    // Without a declared answer the caller gets a problem that names the run.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(409), 1);
    let reply = send("/pays", "a").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.json());
    assert!(reply.headers.contains_key("retry-after"), "{:?}", reply.headers);
    let (problem, run) = (reply.json(), only_run_of("pauses").await);
    assert!(problem.to_string().contains(id(&run).trim_start_matches("run_")), "{problem}");
    assert_eq!(send("/pays", "a").await.status, StatusCode::SERVICE_UNAVAILABLE, "and again, while it is paused");
    test.post_accepted(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    test.wait_for_status(&run, "completed").await;
    let reply = send("/pays", "a").await;
    assert_eq!((reply.status, reply.json()["id"].is_string()), (StatusCode::CREATED, true), "the run's own answer");

    let reply = send("/asked", "b").await;
    assert_eq!((reply.status, reply.json()), (StatusCode::ACCEPTED, json!({ "state": "somebody looks at it" })));
    let run = only_run_of("asks").await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["pending_checkpoint"].clone();
    test.post_accepted(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    test.wait_for_status(&run, "completed").await;
    let reply = send("/asked", "b").await;
    assert_eq!((reply.status, reply.json()["by"].clone()), (StatusCode::CREATED, Value::from("ada (unverified)")));
    assert_eq!(test.step_service.effects("POST /charges"), 1);
    test.finish().await;
}

const WAITS: &str = "
workflow: waits
steps:
  go: { wait: { signal: go } }
  charge: { needs: [go], call: 'POST ${services.works}/charges' }
respond:
  - { status: 201, body: { id: '${steps.charge.output.id}' } }
  - pending: { status: 202, body: { run: '${run.id}' } }
";

const LIVE: &str = "
routes:
- id: waits
  match: { method: POST, path: /waits }
  legacy: plain
  workflow: waits
  state: live
  force: { reason: a test }
  deadline: 500ms
  retry_key: ${request.headers[\"idempotency-key\"]}
";

/// Nothing was done when the deadline passes. The request still does not fall back to legacy, because the run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_live_whose_run_outlives_the_deadline_gets_the_pending_answer() {
    let mut test = EngineTest::with_settings("", &[WAITS], |flags| flags.write("routes/all.yaml", LIVE)).await;
    let send = async |test: &EngineTest| {
        let url = format!("{}/waits", test.pointsman.url());
        test.client.json(Method::POST, &url, &[("idempotency-key", "a")], &json!({})).await.expect("an answer")
    };
    let reply = send(&test).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.json());
    let run = format!("{RUN}/{}", reply.json()["run"].as_str().expect("an id"));
    test.kill().await;
    test.restart().await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(send(&test).await.status, StatusCode::CREATED);
    assert_eq!((test.step_service.effects("POST /charges"), test.step_service.count("POST /waits")), (1, 0));
    assert_eq!(test.pointsman.metrics().await.sum("pointsman_fallbacks_total", &[("route", "waits")]), 0.0);
    test.finish().await;
}
