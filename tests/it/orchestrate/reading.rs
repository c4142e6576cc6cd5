//! Requests that read runs take nearly no time of the threads that execute runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::BankTest;

/// A workflow with large events that waits.
const REPORT: &str = "workflow: report
steps:
  rows: { set: '${request.body.rows}' }
  more: { needs: [rows], wait: { signal: more } }
respond: { status: 200, body: { done: true } }
";
const ROWS: usize = 2_000;
const LOOKS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn reads_for_people_use_threads_that_execute_no_runs() {
    let test = BankTest::with_workflow("workflows/report.yaml", REPORT).await;
    let rows: Vec<Value> = (0..ROWS).map(|n| json!({ "n": n, "text": format!("row {n}") })).collect();
    let run = test.start_run("report", json!({ "rows": rows })).await;
    let cpu_of = |threads: &str| test.pointsman.cpu_of_threads(threads);
    let before = (cpu_of("engine"), cpu_of("admin"));
    for _ in 0..LOOKS {
        for what in ["", "/events", "/explain", "/plan", "/steps/rows/output"] {
            test.pointsman.get(&format!("{run}{what}")).await;
        }
        test.pointsman.get("/api/v2/orchestrate/runs?limit=1000").await;
        test.pointsman.metrics().await;
    }
    let (engine, admin) = (cpu_of("engine") - before.0, cpu_of("admin") - before.1);
    println!("{LOOKS} looks at everything: {admin:?} on the threads of the listener, {engine:?} on the engine's");
    assert!(admin > Duration::from_millis(100), "it was read somewhere else: {admin:?}");
    assert!(engine * 10 < admin, "{engine:?} on the threads that execute runs, {admin:?} on those of the listener");
}
