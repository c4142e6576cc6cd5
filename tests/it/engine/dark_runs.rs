//! Dark runs: private steps are performed, probed and undone for real; shared steps and their undo are only recorded.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, RUN, step};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const DARK: &str = "
workflow: dark
steps:
  draft:
    effect: private
    call: POST ${services.plain}/drafts
    undo: DELETE ${services.plain}/drafts/${output.id}
    probe:
      call: GET ${services.plain}/found/${key}
      after: 5ms
      done: ${output.found}
      output: '${{\"id\": output.id}}'
  charge:
    needs: [draft]
    call: POST ${services.works}/charges
    undo: DELETE ${services.works}/charges/${output.id}
    rehearse: { id: c1 }
  stop: { needs: [charge], if: '${request.body.stop}', fail: { status: 402, body: {} } }
respond: { status: 200, body: { id: '${steps.draft.output.id}' } }
";

const ROUTE: &str = "
routes:
- { id: dark, match: { method: POST, path: /dark }, legacy: plain, workflow: dark, state: dark, force: { reason: a test } }
";

/// Sends a request that legacy answers; returns its dark run.
async fn dark_run_of_request(test: &EngineTest, stop: bool) -> String {
    let list = async || test.pointsman.get("/api/v2/orchestrate/runs?mode=dark").await["runs"].clone();
    let before = list().await.as_array().expect("a list").len();
    let url = format!("{}/dark", test.pointsman.url());
    let reply = test.client.json(Method::POST, &url, &[], &json!({ "stop": stop })).await.expect("legacy answers");
    assert!(reply.status.is_success(), "{}", reply.status);
    until("the dark run", || async {
        let runs = list().await;
        let run = runs.as_array().filter(|runs| runs.len() > before)?[0]["run_id"].as_str()?.to_owned();
        Some(format!("{RUN}/{run}"))
    })
    .await
}

fn state<'a>(data: &'a Value, step: &str) -> &'a Value {
    let rows = data["undone"].as_array().expect("a list");
    rows.iter().find(|row| row["step_id"] == step).map_or(&Value::Null, |row| &row["state"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dark_run_probes_and_undoes_its_private_steps_only() {
    let test = EngineTest::with_settings("", &[DARK], |flags| flags.write("routes/dark.yaml", ROUTE)).await;
    // The reply of the private step is lost; the probe is sent, and answers that the step was done.
    test.step_service.script("POST /drafts", ScriptedReply::LoseReply, 1);
    test.step_service.script("GET /found", ScriptedReply::Done(200, json!({ "found": true, "id": 7 })), 1);
    let run = dark_run_of_request(&test, true).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!((state(&data, "draft"), state(&data, "charge")), (&json!("undone"), &json!("rehearsed")), "{data}");
    assert_eq!(test.step_service.seen("DELETE /drafts")[0].path, "/drafts/7", "what the probe found is undone");
    // The probe gives no clear answer: a dark run does not pause for a person, but fails.
    test.step_service.script("POST /drafts", ScriptedReply::LoseReply, 1);
    test.step_service.script("GET /found", ScriptedReply::Done(200, json!({ "found": "perhaps" })), 1);
    let run = dark_run_of_request(&test, false).await;
    let data = test.wait_for_status(&run, "failed").await;
    assert_eq!((&data["error"]["kind"], &data["conflicts"]), (&json!("would_pause"), &json!([])), "{data}");
    let statuses = ["draft", "charge"].map(|name| &step(&data, name)["status"]);
    assert_eq!(statuses, [&json!("unknown"), &json!("not_run")], "{data}");
    assert_eq!(
        (test.step_service.count("POST /charges"), test.step_service.count("DELETE /charges")),
        (0, 0),
        "shared: never"
    );
    assert_eq!((test.step_service.effects("POST /drafts"), test.step_service.effects("DELETE /drafts")), (2, 1));
    test.finish().await;
}
