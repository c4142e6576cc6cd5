//! The response envelope, bounded waits, paged lists, and who may start runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{EngineTest, RUN, path};

const PAY: &str = "
workflow: pay
steps:
  charge: { call: 'POST ${services.works}/charges' }
  ask: { needs: [charge], if: '${default(request.body.ask, false)}', checkpoint: { question: Sure? } }
respond: { status: 200, body: { id: '${steps.charge.output.id}' } }
";

fn names(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_has_the_documented_form() {
    let test = EngineTest::with(&[PAY]).await;
    let request = json!({ "workflow": "pay", "input": { "ask": true } });
    let reply = test.call(Method::POST, RUN, &[], &request).await;
    let envelope = reply.json();
    assert_eq!((reply.status, names(&envelope)), (StatusCode::OK, vec!["object", "data"]));
    assert_eq!(reply.headers["content-type"], "application/json");
    let data = &envelope["data"];
    let promised = [
        "job_id",
        "run_id",
        "plan_id",
        "status",
        "job",
        "run",
        "steps",
        "pending_checkpoint",
        "output",
        "audit_receipt",
    ];
    assert!(promised.iter().all(|name| names(data).contains(name)), "{data}");
    let text = |value: &Value, start: &str| value.as_str().is_some_and(|text| text.starts_with(start));
    assert!(
        text(&data["job_id"], "job_") && text(&data["run_id"], "run_") && text(&data["plan_id"], "plan_"),
        "{data}"
    );
    assert_eq!(data["status"], "waiting_checkpoint");
    assert_eq!(
        data["job"],
        json!({ "object": "job", "id": data["job_id"], "kind": "orchestration", "status": "waiting_checkpoint",
            "mode": "sync", "durability": "persisted", "run_id": data["run_id"] })
    );
    let run = &data["run"];
    assert_eq!((&run["object"], &run["id"], &run["job_id"]), (&json!("run"), &data["run_id"], &data["job_id"]));
    assert_eq!((&run["status"], &run["plan_id"]), (&data["status"], &data["plan_id"]));
    assert!(run["mode"].is_string(), "{run}");
    let charge = &data["steps"][0];
    assert_eq!(
        (&charge["step_id"], &charge["status"], &charge["attempts"]),
        (&json!("charge"), &json!("done"), &json!(1))
    );
    assert!(charge["started"].is_string() && charge["duration_ms"].is_u64(), "{charge}");
    assert!(text(&data["pending_checkpoint"]["id"], "chk_"), "{data}");
    let receipt = &data["audit_receipt"];
    assert_eq!(names(receipt), ["object", "request_id", "auth_mode", "source"]);
    assert_eq!((&receipt["object"], &receipt["auth_mode"]), (&json!("audit_receipt"), &json!("loopback")));
    assert!(text(&receipt["request_id"], "req_"), "{receipt}");
    assert_eq!(receipt["source"], json!({ "method": "POST", "route": RUN }));
    let answer = data["pending_checkpoint"]["answer"].as_str().unwrap();
    assert_eq!(answer, format!("{}/checkpoints/{}", path(data), data["pending_checkpoint"]["id"].as_str().unwrap()));
    test.post_accepted(answer, json!({ "approve": true })).await;
    let done = test.wait_for_status(&path(data), "completed").await;
    assert_eq!((&done["pending_checkpoint"], &done["output"]), (&Value::Null, &json!({ "id": "POST /charges 1" })));
    // The deprecated path gives the same response, with deprecation headers.
    let older = test.call(Method::POST, "/api/maestro/produce", &[], &json!({ "workflow": "pay" })).await;
    assert_eq!(names(&older.json()["data"]), names(data));
    assert!(older.headers.contains_key("deprecation") && older.headers.contains_key("sunset"), "{:?}", older.headers);
    assert_eq!(older.json()["data"]["output"], json!({ "id": "POST /charges 2" }));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_answered_within_its_bound() {
    let test = EngineTest::with_settings("limits: { api_wait_ms: 300 }", &[PAY], |_| {}).await;
    test.step_service.hold("POST /charges");
    let sent_at = Instant::now();
    let reply = test.call(Method::POST, RUN, &[("prefer", "wait=60")], &json!({ "workflow": "pay" })).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.json());
    assert!((Duration::from_millis(290)..Duration::from_secs(20)).contains(&sent_at.elapsed()));
    let data = reply.json()["data"].clone();
    assert_eq!((&data["status"], &data["steps"][0]["status"]), (&json!("running"), &json!("running")), "{data}");
    assert_eq!(reply.headers["location"], path(&data).as_str());
    test.step_service.release_all("POST /charges");
    test.wait_for_status(&path(&data), "completed").await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_without_gap_or_repetition_while_runs_are_started() {
    let test = EngineTest::with(&[PAY]).await;
    let mut known = BTreeSet::new();
    for _ in 0..7 {
        let data = test.run("pay", json!({})).await;
        known.insert(data["run_id"].as_str().unwrap().to_owned());
    }
    let (mut seen, mut before, mut sizes) = (Vec::new(), None::<String>, Vec::new());
    loop {
        let cursor = before.as_ref().map_or(String::new(), |before| format!("&before={before}"));
        let page = test.pointsman.get(&format!("/api/v2/orchestrate/runs?workflow=pay&limit=3{cursor}")).await;
        let runs = page["runs"].as_array().unwrap();
        sizes.push(runs.len());
        seen.extend(runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()));
        test.run("pay", json!({})).await; // a run that is started meanwhile shifts no page
        before = page["next"].as_str().map(str::to_owned);
        if before.is_none() {
            break;
        }
    }
    assert_eq!((sizes, seen.len()), (vec![3, 3, 1], 7));
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first: {seen:?}");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), known);
    let listed = test.cli(&["runs", "list", "--workflow", "pay", "--limit", "2", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap_or_else(|_| panic!("{listed}"));
    assert_eq!(listed["runs"].as_array().unwrap().len(), 2);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deprecated_path_accepts_only_local_callers_and_tokens_that_may_run() {
    let tokens = |flags: &crate::support::FlagsDir| {
        let mut rows = Vec::new();
        for (name, may) in [("app", "run"), ("desk", "decide")] {
            flags.write(&format!("{name}.token"), &format!("{name}-0123456789abcdef"));
            let file = flags.file(&format!("{name}.token"));
            rows.push(format!("{{ name: {name}, file: \"{}\", may: [read, {may}] }}", file.display()));
        }
        flags.edit("pointsman.yaml", |text| format!("{text}admin: {{ tokens: [ {} ] }}\n", rows.join(", ")));
    };
    let test = EngineTest::with_settings("", &[PAY], tokens).await;
    let produce = async |headers: &[(&str, &str)]| {
        let reply = test.call(Method::POST, "/api/maestro/produce", headers, &json!({ "workflow": "pay" })).await;
        assert!(reply.headers.contains_key("deprecation"), "a refusal has the deprecation header too");
        reply.status.as_u16()
    };
    let (app, desk) =
        (("authorization", "Bearer app-0123456789abcdef"), ("authorization", "Bearer desk-0123456789abcdef"));
    let elsewhere = ("x-forwarded-for", "203.0.113.7");
    assert_eq!(produce(&[elsewhere, app]).await, 200, "the service's token");
    assert_eq!(produce(&[elsewhere]).await, 403);
    assert_eq!(produce(&[elsewhere, desk]).await, 403, "a token that may not start runs");
    assert_eq!(produce(&[elsewhere, ("authorization", "Bearer app")]).await, 403);
    assert_eq!(produce(&[]).await, 200, "a caller on this machine");
    test.finish().await;
}
