//! Values that never change for a run: keys of starts and of calls, ids, random numbers and times in expressions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{EngineTest, RUN, id, path};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const DRAWN: &str = "
workflow: drawn
steps:
  draw:
    set:
      id: '${run.id}'
      started: '${run.started}'
      one: '${uuid(\"one\")}'
      again: '${uuid(\"one\")}'
      two: '${uuid(\"two\")}'
      lot: '${random(\"lot\")}'
      now: '${now}'
  use:
    needs: [draw]
    call: POST ${services.works}/uses
    body: { drawn: '${steps.draw.output}', one: '${uuid(\"one\")}', at: '${now}' }
    retry: { attempts: 3, base: 1ms, max: 2s }
  each:
    needs: [use]
    for_each: ${[1, 2, 3]}
    call: POST ${services.works}/each
    body: { item: '${item}' }
respond: { status: 200, body: '${steps.draw.output}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn pseudo_random_values_and_call_keys_stay_the_same() {
    let mut test = EngineTest::with(&[DRAWN]).await;
    let refuse = ScriptedReply::RefuseWith(503, vec![("retry-after", "1".to_owned())], json!({}));
    test.step_service.script("POST /uses", refuse, 1);
    test.step_service.hold("POST /each");
    let run = test.start_run("drawn", json!({})).await;
    test.wait_for_events(&run, "retry_scheduled", 1).await;
    test.kill_and_restart().await;
    test.wait_for_calls("POST /each", 3).await;
    test.kill_and_restart().await;
    test.wait_for_calls("POST /each", 6).await;
    test.step_service.release_all("POST /each");
    let data = test.wait_for_status(&run, "completed").await;
    let drawn = &data["output"];
    assert_eq!((&drawn["one"], drawn["one"] == drawn["two"]), (&drawn["again"], false), "{drawn}");
    assert_eq!(format!("run_{}", drawn["id"].as_str().unwrap()), id(&run));
    assert!(drawn["lot"].as_f64().is_some_and(|lot| (0.0..1.0).contains(&lot)), "{drawn}");
    assert!(drawn["now"].is_string() || drawn["now"].is_number(), "{drawn}");
    let uses = test.step_service.seen("POST /uses");
    assert_eq!((uses.len(), &uses[0].text, &uses[0].key), (2, &uses[1].text, &uses[1].key), "the very same bytes");
    assert_eq!((&uses[0].json()["drawn"], &uses[0].json()["one"]), (drawn, &drawn["one"]));
    let each = test.step_service.seen("POST /each");
    let keys: BTreeSet<(String, Option<String>)> =
        each.iter().map(|call| (call.json()["item"].to_string(), call.key.clone())).collect();
    assert_eq!((each.len(), keys.len()), (6, 3), "one key for each item, whatever restarts: {keys:?}");
    let others: BTreeSet<&Option<String>> = keys.iter().map(|(_, key)| key).chain([&uses[0].key]).collect();
    assert_eq!(others.len(), 4, "and no two are equal");
    // A replay gives the same random values; another run has others.
    let replayed = test.cli(&["replay", id(&run), "--json"]).await;
    assert!(replayed.contains("completed"), "{replayed}");
    let other = test.run("drawn", json!({})).await;
    assert_ne!((&other["output"]["one"], &other["output"]["lot"]), (&drawn["one"], &drawn["lot"]));
    test.finish().await;
}

const QUICK: &str = "
workflow: quick
steps: { use: { call: 'POST ${services.works}/uses', body: '${request.body}' } }
respond: { status: 200, body: '${steps.use.output}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_run_for_as_long_as_the_limit_says() {
    let mut test = EngineTest::with_settings("limits: { retry_window_s: 2 }", &[QUICK], |_| {}).await;
    let request = json!({ "workflow": "quick", "input": { "a": 1, "b": 2 }, "idempotency_key": "k" });
    let (status, first) = test.post(RUN, request.clone()).await;
    assert_eq!(status, 200, "{first}");
    test.kill_and_restart().await;
    let same = json!({ "workflow": "quick", "input": { "b": 2, "a": 1 }, "idempotency_key": "k" });
    let (status, again) = test.post(RUN, same).await;
    assert_eq!((status, &again), (200, &first), "the order of the members makes no difference");
    let other = json!({ "workflow": "quick", "input": { "a": 2 }, "idempotency_key": "k" });
    let (status, problem) = test.post(RUN, other).await;
    assert_eq!((status, &problem["run_id"]), (422, &first["data"]["run_id"]), "{problem}");
    assert_eq!(test.step_service.count("POST /uses"), 1);
    let later = until("the key to be free again", || async {
        let (status, later) = test.post(RUN, request.clone()).await;
        (status == 200 && later["data"]["run_id"] != first["data"]["run_id"]).then_some(later)
    })
    .await;
    let started_at = |data: &Value| data["run"]["started"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(started_at(&later["data"]).duration_since(started_at(&first["data"])).as_millis() >= 1_990, "not sooner");
    test.wait_for_status(&path(&later["data"]), "completed").await;
    test.finish().await;
}
