//! A person is needed: webhooks are told, and a caller never waits for that.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Plant, RUN, id};
use crate::support::works::Say;

const TOLD: &str = "
workflow: told
notify: ${services.works}/hooks
steps:
  charge: { call: 'POST ${services.works}/charges', body: '${request.body}' }
  ask: { needs: [charge], checkpoint: { question: Go on?, who: [ada] } }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_told_of_pauses_and_questions_over_a_restart() {
    let mut plant = Plant::with(&[TOLD]).await;
    plant.works.otherwise("POST /hooks", Say::Refuse(503));
    plant.works.next("POST /charges", Say::Refuse(409), 1);
    let run = plant.begun("told", json!({ "note": "hunter2" })).await;
    plant.comes_to(&run, "paused").await;
    plant.arrives("POST /hooks", 1).await;
    plant.kill().await;
    plant.works.otherwise("POST /hooks", Say::Done(200, json!({})));
    plant.back().await;
    let delivered = plant.works.count("POST /hooks");
    plant.arrives("POST /hooks", delivered + usize::from(plant.works.done("POST /hooks") == 0)).await;
    plant.taken(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    plant.comes_to(&run, "waiting_checkpoint").await;
    crate::support::until("both messages", || async { (plant.works.done("POST /hooks") == 2).then_some(()) }).await;
    let seen = plant.works.seen("POST /hooks");
    let (first, last) = (seen[0].json(), seen.last().unwrap().json());
    assert_eq!(
        (&first["event"], &first["run_id"], &first["step"]),
        (&json!("paused"), &json!(id(&run)), &json!("charge"))
    );
    assert_eq!(first["id"], seen[1].json()["id"], "the same message comes again, and says so");
    assert_eq!((&last["event"], &last["question"]), (&json!("checkpoint_opened"), &json!("Go on?")), "{last}");
    assert!(seen.iter().all(|hook| !hook.text.contains("hunter2")), "no bodies");
    let pending = plant.data(&run).await["pending_checkpoint"].clone();
    assert_eq!(last["checkpoint_id"], pending["id"]);
    plant.taken(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    plant.comes_to(&run, "completed").await;
    plant.finish().await;
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
    let plant = Plant::made("", &[PAUSES, ASKS], |flags| flags.write("routes/all.yaml", ROUTES)).await;
    let send = async |path: &str, key: &str| {
        let url = format!("{}{path}", plant.pointsman.url());
        let sent = Instant::now();
        let reply = plant.client.json(Method::POST, &url, &[("idempotency-key", key)], &json!({})).await;
        assert!(sent.elapsed() < Duration::from_secs(10), "it waits for nobody");
        reply.expect("an answer")
    };
    let of = async |workflow: &str| {
        let list = plant.pointsman.get(&format!("/api/v2/orchestrate/runs?workflow={workflow}")).await;
        let runs = list["runs"].as_array().unwrap().clone();
        assert_eq!(runs.len(), 1, "one run for one key: {list}");
        format!("{RUN}/{}", runs[0]["run_id"].as_str().unwrap())
    };
    // Without a declared answer it gets a problem that says which run, and that it may have been charged.
    plant.works.next("POST /charges", Say::Refuse(409), 1);
    let reply = send("/pays", "a").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.json());
    assert!(reply.headers.contains_key("retry-after"), "{:?}", reply.headers);
    let (problem, run) = (reply.json(), of("pauses").await);
    assert!(problem.to_string().contains(id(&run).trim_start_matches("run_")), "{problem}");
    assert_eq!(send("/pays", "a").await.status, StatusCode::SERVICE_UNAVAILABLE, "and again, while it is paused");
    plant.taken(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    plant.comes_to(&run, "completed").await;
    let reply = send("/pays", "a").await;
    assert_eq!((reply.status, reply.json()["id"].is_string()), (StatusCode::CREATED, true), "the run's own answer");

    let reply = send("/asked", "b").await;
    assert_eq!((reply.status, reply.json()), (StatusCode::ACCEPTED, json!({ "state": "somebody looks at it" })));
    let run = of("asks").await;
    let pending = plant.comes_to(&run, "waiting_checkpoint").await["pending_checkpoint"].clone();
    plant.taken(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    plant.comes_to(&run, "completed").await;
    let reply = send("/asked", "b").await;
    assert_eq!((reply.status, reply.json()["by"].clone()), (StatusCode::CREATED, Value::from("ada (unverified)")));
    assert_eq!(plant.works.done("POST /charges"), 1);
    plant.finish().await;
}
