//! The OpenAPI document compared with a running process by a third-party tester (schemathesis).

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman};

/// The bound on the whole run; it usually takes half a minute.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Settings of the tester. They accept 501, since there is no planner, and 422, since a schema cannot express every
/// contradiction between fields; the document describes both.
const CONFIG: &str = r#"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "501"]
"#;

const TOKEN: &str = "tester-0123456789abcdef";

/// Where `tests/run` has installed it.
fn schemathesis() -> PathBuf {
    if let Some(binary) = std::env::var_os("POINTSMAN_SCHEMATHESIS") {
        return binary.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).expect("a home");
    cache.join("pointsman-tests/schemathesis/bin/schemathesis")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_party_tester_finds_no_undescribed_behaviour() {
    let binary = schemathesis();
    assert!(binary.is_file(), "schemathesis is not installed: run tests/run");
    let flags = FlagsDir::empty();
    std::fs::write(flags.file("token"), TOKEN).expect("written");
    flags.write(
        "pointsman.yaml",
        "services: { shop: \"http://127.0.0.1:9\" }
default_legacy: shop
admin: { tokens: [ { name: tester, file: token, may: [read, run, decide, flip] } ] }
limits: { api_wait_ms: 300 }
",
    );
    flags.write(
        "workflows/greet.yaml",
        "workflow: greet
steps:
  greet: { set: { hello: '${request.body}' } }
  ask: { checkpoint: { question: Go on? } }
respond: { status: 200, body: { said: '${steps.greet.output.hello}' } }
",
    );
    flags.write(
        "routes/greet.yaml",
        "routes: [ { id: greet, match: { method: POST, path: /greet }, legacy: shop, workflow: greet, state: off } ]\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("schemathesis.toml"), CONFIG).expect("written");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let seed = std::env::var("POINTSMAN_SEED").unwrap_or_else(|_| "1".to_owned());
    let run = Command::new(&binary)
        .args(["run", &format!("{}/openapi.json", pointsman.admin_url())])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--checks", "all", "--max-examples", "6", "--seed", &seed])
        // The tester reads each answer to its end, and this stream has none.
        .args(["--exclude-operation-id", "changes"])
        .args(["--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure", "--no-color"])
        .current_dir(dir.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIME_MAX, run).await.expect("in time").expect("it starts");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = report.find("SUMMARY").map_or(report.as_str(), |at| &report[at..]);
    println!("seed {seed} (POINTSMAN_SEED)\n{summary}");
    assert!(output.status.success(), "seed {seed}\n{report}\n{}", pointsman.log());
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
}
