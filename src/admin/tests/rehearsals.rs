//! The events of rehearsals and of the runs below them, read from their samples.

use http::StatusCode;
use serde_json::{Value, json};

use super::rule_trials::sample;
use super::test_api::{TestApi, get};
use crate::names::{RouteId, RunId};
use crate::store::tests::{at, run_id};
use crate::store::{RehearsedChild, RehearsedEvent, SampleRecord, candidate_key};

fn event(seq: u64, kind: &str) -> RehearsedEvent {
    RehearsedEvent { seq, at: at(1), kind: kind.to_owned(), event: json!({ kind: {} }) }
}

fn events_path(run: RunId) -> String {
    format!("/api/v2/orchestrate/run/{run}/events")
}

/// The number and the kind of each row.
fn rows(events: &Value) -> Vec<(u64, &str)> {
    events.as_array().unwrap().iter().map(|row| (row["seq"].as_u64().unwrap(), row["kind"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn the_events_of_a_run_below_a_rehearsal_are_read_by_its_id_and_what_is_not_kept_is_said() {
    let api = TestApi::new().await;
    let (parent, child, cut) = (run_id(1), run_id(2), run_id(3));
    let of_route = SampleRecord {
        run: Some(parent),
        events: vec![event(1, "run_started"), event(2, "child_started")],
        children: vec![
            RehearsedChild { run: child, events: vec![event(1, "run_started")], events_not_kept: 0 },
            RehearsedChild { run: cut, events: Vec::new(), events_not_kept: 40 },
        ],
        children_not_kept: 2,
        ..sample(&json!({}), &json!({ "n": 1 }), &json!({ "n": 2 }), 1)
    };
    // A rehearsal of the route's candidate, whose samples are under a key of their own.
    let candidate = run_id(4);
    let of_candidate = SampleRecord {
        route: candidate_key(&RouteId::new("orders.create")),
        run: Some(candidate),
        events: vec![event(1, "run_started")],
        ..sample(&json!({}), &json!({ "n": 1 }), &json!({ "n": 2 }), 2)
    };
    api.store.put_samples(vec![of_route, of_candidate], 9, 9).await.unwrap();

    let read = async |path: String| api.call(get(&path)).await.json();
    assert_eq!(rows(&read(events_path(child)).await), [(1, "run_started")]);
    assert_eq!(rows(&read(events_path(candidate)).await), [(1, "run_started")]);
    let shown = read(events_path(parent)).await;
    assert_eq!(rows(&shown), [(1, "run_started"), (2, "child_started"), (3, "not_kept")]);
    let not_kept = &shown[2]["event"]["not_kept"];
    assert_eq!((&not_kept["events"], &not_kept["child_runs"]), (&json!(0), &json!(2)), "{shown}");
    let shown = read(events_path(cut)).await;
    assert_eq!(rows(&shown), [(1, "not_kept")]);
    assert_eq!(shown[0]["event"]["not_kept"]["events"], json!(40));
    assert!(shown[0]["event"]["not_kept"]["why"].as_str().unwrap().contains("200 events"), "{shown}");
    // Page by page, as the command reads.
    assert_eq!(rows(&read(format!("{}?from=3&limit=1", events_path(parent))).await), [(3, "not_kept")]);
    assert_eq!(rows(&read(format!("{}?from=4", events_path(parent))).await), []);
    assert_eq!(api.call(get(&events_path(run_id(9)))).await.status, StatusCode::NOT_FOUND);

    let diffs = read("/api/v2/routes/orders.create/diffs".to_owned()).await;
    let shown = &diffs["groups"][0]["sample"];
    assert_eq!(
        (&shown["run"], &shown["child_runs"]),
        (&json!(parent.to_string()), &json!([child, cut].map(|run| run.to_string())))
    );
}
