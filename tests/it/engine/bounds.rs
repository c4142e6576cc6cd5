//! Bad input: it hits a named limit with a clear error, the run fails or waits for a person, and memory stays flat.

use std::io::{Seek, SeekFrom, Write};

use bytes::Bytes;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::{EngineTest, RUN};
use crate::support::Pointsman;
use crate::support::process::{cli, output_text};
use crate::support::step_service::ScriptedReply;

const READS: &str = "
workflow: reads
input: { schema: { type: object, properties: { sku: { type: string } }, additionalProperties: true } }
steps:
  look: { call: 'GET ${services.works}/looks', on_failure: fail }
  each: { needs: [look], for_each: '${steps.look.output}', call: 'POST ${services.works}/each' }
respond: { status: 200, body: done }
";

const WRITES: &str = "
workflow: writes
steps:
  charge: { call: 'POST ${services.works}/charges' }
respond: { status: 200, body: '${steps.charge.output}' }
";

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_too_large_too_deep_or_too_many_hit_a_named_limit() {
    let test = EngineTest::with(&[READS, WRITES]).await;
    test.run("writes", json!({})).await;
    let huge = Bytes::from([b"\"".as_slice(), &vec![b'a'; 100 << 20], b"\""].concat());
    let million = Bytes::from(format!("[{}0]", "0,".repeat(999_999)));
    let cases = [
        (huge, "output_bytes_max"),
        (Bytes::from(nested(1_000)), "output_depth_max"),
        (Bytes::from(nested(101)), "output_depth_max"),
        (million, "output_values_max"),
        (Bytes::from(format!("[{}0]", "0,".repeat(150_000))), "items_max"),
    ];
    let mut peaks = Vec::new();
    for round in 0..2 {
        // All cases in the first round, and only the last one in the second.
        for (body, bound) in &cases[4 * round..] {
            test.step_service.script("GET /looks", ScriptedReply::Bytes("application/json", body.clone()), 1);
            let data = test.run("reads", json!({})).await;
            let message = data["run"]["note"].as_str().unwrap_or_default();
            assert!(message.contains(bound) && matches!(data["status"].as_str(), Some("failed" | "paused")), "{data}");
            if *bound != "items_max" {
                assert!(test.pointsman.peak_kib() < 150 << 10, "neither 100 MiB nor a million values are taken in");
            }
        }
        peaks.push(test.pointsman.peak_kib() >> 10);
    }
    eprintln!("peaks after each round: {peaks:?} MiB");
    // A call was performed and its reply exceeds a limit: the run pauses for a person's decision.
    test.step_service.script("POST /charges", ScriptedReply::Bytes("application/json", cases[0].0.clone()), 1);
    let data = test.run("writes", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("schema")), "{data}");
    assert!(conflict["message"].as_str().unwrap().contains("output_bytes_max"), "{conflict}");
    let take = json!({ "step": "charge", "choice": "take", "output": { "id": 1 } });
    test.post_accepted(&format!("{}/resolve", super::path(&data)), take).await;
    test.wait_for_status(&super::path(&data), "completed").await;
    assert_eq!(test.step_service.count("POST /each"), 0);
    // A parsed value takes many times the bytes of its reply. A later reply must not add to the memory of earlier ones.
    assert!(peaks[1] < peaks[0] + peaks[0] / 2, "the memory is released: {peaks:?} MiB");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_starts_say_what_is_wrong_and_where() {
    let test = EngineTest::with(&[READS, WRITES]).await;
    let (status, problem) = test.post(RUN, json!({ "workflow": "reads", "input": { "sku": 5 } })).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/input/sku")), "{problem}");
    let (status, problem) = test.post(RUN, json!({ "workflow": "raeds" })).await;
    assert_eq!((status, &problem["hint"]), (404, &json!("did you mean `reads`?")), "{problem}");
    for levels in [101, 1_000, 100_000] {
        let url = format!("{}{RUN}", test.pointsman.admin_url());
        let body = format!("{{\"workflow\":\"reads\",\"input\":{}}}", nested(levels));
        let request = http::Request::post(url).header("content-type", "application/json");
        let request = request.body(http_body_util::Full::new(Bytes::from(body))).expect("a request");
        let reply = test.client.send(request).await.expect("an answer");
        let problem = reply.json();
        assert_eq!(reply.status, 422, "{levels}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("output_depth_max"), "{levels}: {problem}");
    }
    let large = json!({ "workflow": "reads", "input": { "text": "a".repeat(2 << 20) } });
    let (status, problem) = test.post(RUN, large).await;
    assert_eq!(status, 413, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("api_body_bytes_max"), "{problem}");
    let list = test.pointsman.get("/api/v2/orchestrate/runs").await;
    assert_eq!(list["runs"], json!([]), "none of these requests left a run");
    test.finish().await;
}

async fn edit_store(test: &EngineTest, statement: &'static str) {
    let path = test.dir.path().join("pointsman.db");
    let mut store = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
    let done = sqlx::query(statement).execute(&mut store).await.expect("it is edited");
    assert!(done.rows_affected() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_damaged_or_killed_store_never_loses_data_silently() {
    let mut test = EngineTest::with(&[READS, WRITES]).await;
    test.step_service.hold("POST /charges");
    let run = test.start_run("writes", json!({})).await;
    test.wait_for_calls("POST /charges", 1).await;
    // Killed during a call: the store opens, and the run continues.
    test.kill_and_restart().await;
    test.step_service.release_all("POST /charges");
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.pointsman.stop().await, Some(0));
    let store = test.start.store.clone();
    let checked = cli(&["store", "check", "--store", &store], &[]).await;
    assert!(checked.status.success(), "{}", output_text(&checked));
    // Events of a newer version: the process names the run and does not start.
    edit_store(&test, "UPDATE appends SET version = 99 WHERE last > 1").await;
    edit_store(&test, "UPDATE meta SET value = CAST('99' AS BLOB) WHERE key = 'event_version'").await;
    let Err(log) = Pointsman::try_start(&test.start).await else { panic!("it starts over events that it cannot read") };
    assert!(log.contains("99") && log.contains(super::id(&run)) && log.contains("newer"), "{log}");
    let checked = cli(&["store", "check", "--store", &store], &[]).await;
    assert!(!checked.status.success() && output_text(&checked).contains(super::id(&run)), "{}", output_text(&checked));
    edit_store(&test, "UPDATE appends SET version = 2 WHERE version = 99").await;
    edit_store(&test, "UPDATE meta SET value = CAST('2' AS BLOB) WHERE key = 'event_version'").await;
    test.restart().await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.pointsman.stop().await, Some(0));
    // A file that is no database any more.
    let path = test.dir.path().join("pointsman.db");
    let whole = std::fs::read(&path).expect("it is readable");
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("it opens");
    file.seek(SeekFrom::Start(0)).expect("the beginning");
    file.write_all(&[7; 4_096]).expect("written");
    drop(file);
    let Err(log) = Pointsman::try_start(&test.start).await else { panic!("it starts over what is no database") };
    assert!(log.contains("pointsman.db"), "it names the file: {log}");
    std::fs::write(&path, whole).expect("written");
    test.restart().await;
    assert_eq!(test.data(&run).await["output"]["number"], Value::from(1));
    test.finish().await;
}

/// A load balancer that took the process out would take its routes in `off` out too. The description says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_no_more_runs_is_still_ready() {
    const WAITS: &str = "
workflow: waits
steps: { charge: { call: 'POST ${services.works}/charges' } }
respond: { status: 200 }
";
    let test = EngineTest::with_settings("limits: { runs_in_flight_max: 1 }\n", &[WAITS], |_| {}).await;
    test.step_service.hold("POST /charges");
    let run = test.start_run("waits", json!({})).await;
    test.wait_for_calls("POST /charges", 1).await;
    let (status, refused) = test.post(RUN, json!({ "workflow": "waits", "input": {} })).await;
    assert_eq!(status, 503, "{refused}");
    assert!(refused.to_string().contains("runs_in_flight_max"), "{refused}");
    assert_eq!(test.pointsman.try_api("/readyz").await.expect("a reply").status, 200);
    let description = test.pointsman.get("/openapi.json").await["paths"]["/readyz"]["get"]["summary"].clone();
    assert!(description.as_str().is_some_and(|text| text.contains("runs_in_flight_max")), "{description}");
    test.step_service.release_all("POST /charges");
    test.wait_for_status(&run, "completed").await;
    test.finish().await;
}
