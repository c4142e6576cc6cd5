//! Dark runs: what is private is done, asked about and undone for real; what is shared is recorded, and so is its undoing.

use http::Method;
use serde_json::{Value, json};

use super::{Plant, RUN, step};
use crate::support::until;
use crate::support::works::Say;

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

/// A request that legacy answers; the run that came of it beside.
async fn beside(plant: &Plant, stop: bool) -> String {
    let list = async || plant.pointsman.get("/api/v2/orchestrate/runs?mode=dark").await["runs"].clone();
    let before = list().await.as_array().expect("a list").len();
    let url = format!("{}/dark", plant.pointsman.url());
    let reply = plant.client.json(Method::POST, &url, &[], &json!({ "stop": stop })).await.expect("legacy answers");
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
async fn a_dark_run_asks_about_and_undoes_what_it_did_and_nothing_else() {
    let plant = Plant::made("", &[DARK], |flags| flags.write("routes/dark.yaml", ROUTE)).await;
    // Its reply is lost; its probe is sent, and says that it was done.
    plant.works.next("POST /drafts", Say::LoseReply, 1);
    plant.works.next("GET /found", Say::Done(200, json!({ "found": true, "id": 7 })), 1);
    let run = beside(&plant, true).await;
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!((state(&data, "draft"), state(&data, "charge")), (&json!("undone"), &json!("rehearsed")), "{data}");
    assert_eq!(plant.works.seen("DELETE /drafts")[0].path, "/drafts/7", "what the probe found is taken back");
    // Its probe cannot say: the run pauses, as nobody asks people beside legacy it ends where somebody says so.
    plant.works.next("POST /drafts", Say::LoseReply, 1);
    plant.works.next("GET /found", Say::Done(200, json!({ "found": "perhaps" })), 1);
    let run = beside(&plant, false).await;
    let data = plant.comes_to(&run, "paused").await;
    assert_eq!(data["conflicts"][0]["kind"], "outcome_unknown", "{data}");
    plant.taken(&format!("{run}/resolve"), json!({ "step": "draft", "choice": "take", "output": { "id": 8 } })).await;
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!(step(&data, "charge")["status"], "rehearsed", "{data}");
    assert_eq!((plant.works.count("POST /charges"), plant.works.count("DELETE /charges")), (0, 0), "shared: never");
    assert_eq!((plant.works.done("POST /drafts"), plant.works.done("DELETE /drafts")), (2, 1));
    plant.finish().await;
}
