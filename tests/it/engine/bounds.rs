//! What bad input gets: a bound with a name, a clear error, a run that failed or waits for a person, and flat memory.

use std::io::{Seek, SeekFrom, Write};

use bytes::Bytes;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Plant, RUN};
use crate::support::Pointsman;
use crate::support::process::{cli, said};
use crate::support::works::Say;

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
async fn what_is_too_large_too_deep_or_too_many_hits_a_bound_with_a_name() {
    let plant = Plant::with(&[READS, WRITES]).await;
    plant.run("writes", json!({})).await;
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
        for (body, bound) in &cases[4 * round..] {
            plant.works.next("GET /looks", Say::Bytes("application/json", body.clone()), 1);
            let data = plant.run("reads", json!({})).await;
            let message = data["run"]["note"].as_str().unwrap_or_default();
            assert!(message.contains(bound) && matches!(data["status"].as_str(), Some("failed" | "paused")), "{data}");
            if *bound != "items_max" {
                assert!(plant.pointsman.peak_kib() < 150 << 10, "neither 100 MiB nor a million values are taken in");
            }
        }
        peaks.push(plant.pointsman.peak_kib() >> 10);
    }
    eprintln!("peaks after each round: {peaks:?} MiB");
    // What was done and cannot be read is a person's to decide.
    plant.works.next("POST /charges", Say::Bytes("application/json", cases[0].0.clone()), 1);
    let data = plant.run("writes", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("schema")), "{data}");
    assert!(conflict["message"].as_str().unwrap().contains("output_bytes_max"), "{conflict}");
    let take = json!({ "step": "charge", "choice": "take", "output": { "id": 1 } });
    plant.taken(&format!("{}/resolve", super::path(&data)), take).await;
    plant.comes_to(&super::path(&data), "completed").await;
    assert_eq!(plant.works.count("POST /each"), 0);
    // A value of a million numbers is many times what came; however often it comes, it is no more than once.
    assert!(peaks[1] < peaks[0] + peaks[0] / 2, "nothing of it stays: {peaks:?} MiB");
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_what_is_wrong_and_where() {
    let plant = Plant::with(&[READS, WRITES]).await;
    let (status, problem) = plant.post(RUN, json!({ "workflow": "reads", "input": { "sku": 5 } })).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/input/sku")), "{problem}");
    let (status, problem) = plant.post(RUN, json!({ "workflow": "raeds" })).await;
    assert_eq!((status, &problem["hint"]), (404, &json!("did you mean `reads`?")), "{problem}");
    for levels in [101, 1_000, 100_000] {
        let url = format!("{}{RUN}", plant.pointsman.admin_url());
        let body = format!("{{\"workflow\":\"reads\",\"input\":{}}}", nested(levels));
        let request = http::Request::post(url).header("content-type", "application/json");
        let request = request.body(http_body_util::Full::new(Bytes::from(body))).expect("a request");
        let reply = plant.client.send(request).await.expect("an answer");
        let problem = reply.json();
        assert_eq!(reply.status, 422, "{levels}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("output_depth_max"), "{levels}: {problem}");
    }
    let large = json!({ "workflow": "reads", "input": { "text": "a".repeat(2 << 20) } });
    let (status, problem) = plant.post(RUN, large).await;
    assert_eq!(status, 413, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("api_body_bytes_max"), "{problem}");
    let list = plant.pointsman.get("/api/v2/orchestrate/runs").await;
    assert_eq!(list["runs"], json!([]), "nothing of it left a run");
    plant.finish().await;
}

async fn spoil(plant: &Plant, statement: &'static str) {
    let path = plant.dir.path().join("pointsman.db");
    let mut store = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
    let done = sqlx::query(statement).execute(&mut store).await.expect("it is spoilt");
    assert!(done.rows_affected() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_newer_damaged_or_killed_is_never_a_silent_loss() {
    let mut plant = Plant::with(&[READS, WRITES]).await;
    plant.works.hold("POST /charges");
    let run = plant.begun("writes", json!({})).await;
    plant.arrives("POST /charges", 1).await;
    // Killed in the middle of something: it opens, and goes on.
    plant.killed_and_back().await;
    plant.works.open("POST /charges");
    plant.comes_to(&run, "completed").await;
    assert_eq!(plant.pointsman.stop().await, Some(0));
    let store = plant.start.store.clone();
    let checked = cli(&["store", "check", "--store", &store], &[]).await;
    assert!(checked.status.success(), "{}", said(&checked));
    // Written by a newer program: it says which run, and does not start.
    spoil(&plant, "UPDATE appends SET version = 99 WHERE last > 1").await;
    spoil(&plant, "UPDATE meta SET value = CAST('99' AS BLOB) WHERE key = 'event_version'").await;
    let Err(log) = Pointsman::try_start(&plant.start).await else {
        panic!("it starts over events that it cannot read")
    };
    assert!(log.contains("99") && log.contains(super::id(&run)) && log.contains("newer"), "{log}");
    let checked = cli(&["store", "check", "--store", &store], &[]).await;
    assert!(!checked.status.success() && said(&checked).contains(super::id(&run)), "{}", said(&checked));
    spoil(&plant, "UPDATE appends SET version = 2 WHERE version = 99").await;
    spoil(&plant, "UPDATE meta SET value = CAST('2' AS BLOB) WHERE key = 'event_version'").await;
    plant.back().await;
    plant.comes_to(&run, "completed").await;
    assert_eq!(plant.pointsman.stop().await, Some(0));
    // No database at all any more.
    let path = plant.dir.path().join("pointsman.db");
    let whole = std::fs::read(&path).expect("it is readable");
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).expect("it opens");
    file.seek(SeekFrom::Start(0)).expect("the beginning");
    file.write_all(&[7; 4_096]).expect("written");
    drop(file);
    let Err(log) = Pointsman::try_start(&plant.start).await else { panic!("it starts over what is no database") };
    assert!(log.contains("pointsman.db"), "it names the file: {log}");
    std::fs::write(&path, whole).expect("written");
    plant.back().await;
    assert_eq!(plant.data(&run).await["output"]["number"], Value::from(1));
    plant.finish().await;
}
