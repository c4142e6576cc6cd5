//! A long run is loaded from its latest snapshot, not from its first event.

use serde_json::{Value, json};

use super::{EngineTest, id};

const ITEMS: usize = 1_100;
const WRITTEN: &[(&str, &str)] = &[("outcome", "written")];
const READ: &[(&str, &str)] = &[("outcome", "read")];

const LONG: &str = "
workflow: long
steps:
  each: { for_each: '${request.body.items}', concurrency: 32, call: 'POST ${services.works}/items', body: { n: '${item}' } }
  go: { needs: [each], wait: { signal: go } }
  tell: { needs: [go], call: 'POST ${services.works}/tells', body: { all: '${size(steps.each.output)}' } }
respond: { status: 200, body: { all: '${size(steps.each.output)}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_is_loaded_from_its_snapshot_after_a_kill() {
    let mut test = EngineTest::with(&[LONG]).await;
    let run = test.start_run("long", json!({ "items": (0..ITEMS).collect::<Vec<_>>() })).await;
    test.wait_for_status(&run, "waiting_signal").await;
    let written = |metrics: &crate::support::Metrics| metrics.sum("pointsman_run_snapshots_total", WRITTEN) > 0.0;
    test.pointsman.until_metric("a snapshot", written).await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.seen("POST /tells")[0].json(), json!({ "all": ITEMS }));
    assert_eq!(test.step_service.count("POST /items"), ITEMS, "nothing is done twice");
    let metrics = test.pointsman.metrics().await;
    // The writer of the next snapshot loads the run from the last snapshot too.
    assert!(metrics.sum("pointsman_run_snapshots_total", READ) >= 1.0);
    // A request for the events returns all of them.
    let events: Vec<Value> = test.pointsman.get(&format!("{run}/events?limit=1000")).await.as_array().cloned().unwrap();
    assert_eq!((events.len(), &events[0]["kind"]), (1_000, &json!("run_started")));
    let store = format!("sqlite:{}", test.dir.path().join("pointsman.db").display());
    assert!(test.cli(&["store", "check", "--store", &store]).await.contains("no faults"), "{}", id(&run));
    test.finish().await;
}
