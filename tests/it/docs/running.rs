//! The calls of the API as they are shown, and commands that show something, against a running process.

use super::{document, shown_file};
use crate::orchestrate::BankTest;
use crate::support::process::output_text;
use crate::support::test_system::TestSystem;
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_api_work() {
    let runs = document("runs");
    let blocks = runs.blocks("yaml");
    let refund = blocks.iter().find(|block| shown_file(block) == Some("workflows/refund.yaml")).expect("a workflow");
    let scripts = runs.blocks("sh");
    let script = scripts.iter().find(|script| script.contains("curl")).expect("a script");
    let test = BankTest::with_workflow("workflows/refund.yaml", refund).await;
    let script = script.replace("http://127.0.0.1:8081", &test.pointsman.admin_url());
    assert!(script.contains(&test.pointsman.admin_url()));
    let script = format!("set -eu\n{script}\ncurl -sf $api/run/$run\n");
    let bash = tokio::process::Command::new("bash").args(["-c", &script]).kill_on_drop(true).output();
    let done = tokio::time::timeout(crate::support::WAIT_MAX, bash).await.expect("in time").expect("bash starts");
    let printed = output_text(&done);
    assert!(done.status.success(), "{printed}\n{}", test.pointsman.log());
    assert!(printed.contains("event: end") && printed.contains("\"refunded\":15"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_show_something_work_against_a_running_process() {
    let system = TestSystem::start().await;
    system.climb_to("dark").await;
    system.create_read_cancel_many(1).await;
    let run = until("a dark run", || async {
        let listed = system.pointsman.cli(&["runs", "list", "--json"]).await;
        let runs: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON on stdout");
        runs["runs"][0]["run_id"].as_str().map(str::to_owned)
    })
    .await;
    for command in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["diffs", "orders.create"],
        vec!["diffs", "orders.create", "--json"],
        vec!["runs", "list"],
        vec!["runs", "show", &run],
        vec!["runs", "show", &run, "--json"],
        vec!["schema"],
    ] {
        let output = system.pointsman.cli(&command).await;
        assert!(output.status.success() && !output.stdout.is_empty(), "{command:?}: {}", output_text(&output));
        if command.contains(&"--json") {
            serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON on stdout");
        }
    }
    // A change of `state:` in a file is a flip through the same gate.
    system.flags.edit("routes/campaigns.yaml", |text| text.replace("state: off", "state: shadow"));
    until("the file's flip", || async {
        let row = system.pointsman.get("/api/v2/routes/campaigns.create").await;
        (row["row"]["effective"]["state"] == "shadow").then_some(())
    })
    .await;
    let flips = system.pointsman.get("/api/v2/flips?route=campaigns.create&limit=5").await;
    assert_eq!(flips[0]["by"], "file");
    system.finish().await;
}
