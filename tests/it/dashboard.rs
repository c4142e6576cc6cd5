//! A real Prometheus scrapes a running demo, and every panel's query of the dashboard returns data.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pointsman::demo::http::Client;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// The pause between two rounds of queries; a round ends as soon as all have data.
const QUERY_INTERVAL: Duration = Duration::from_millis(300);
/// The longest time until all queries have data: the whole demo, and a margin for a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Every query of the dashboard, its variables filled in.
fn queries() -> BTreeSet<String> {
    fn collect(panels: &Value, into: &mut BTreeSet<String>) {
        for panel in panels.as_array().into_iter().flatten() {
            collect(&panel["panels"], into);
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().expect("every target has a query");
                into.insert(query.replace("$route", ".*").replace("$__rate_interval", "10s"));
            }
        }
    }
    let dashboard: Value = serde_json::from_str(include_str!("../../dashboards/pointsman.json")).expect("JSON");
    assert!(dashboard["__inputs"][0]["name"].is_string(), "importable: the data source is an input");
    let mut queries = BTreeSet::new();
    collect(&dashboard["panels"], &mut queries);
    assert!(queries.len() > 20, "the panels were found");
    queries
}

/// What follows `mark` in the first line that contains it; later lines are read and discarded in the background.
async fn line_with(stream: impl AsyncRead + Send + Unpin + 'static, mark: &str) -> String {
    let mut lines = BufReader::new(stream).lines();
    let mut before = String::new();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(at) = line.find(mark) {
                return Some(line[at + mark.len()..].trim().trim_matches('"').to_owned());
            }
            before.push_str(&line);
            before.push('\n');
        }
        None
    })
    .await;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    found.ok().flatten().unwrap_or_else(|| panic!("`{mark}` was never printed:\n{before}"))
}

fn child(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_data() {
    let mut demo = child(
        Command::new(env!("CARGO_BIN_EXE_pointsman")).args(["demo"]).stdout(Stdio::piped()).stderr(Stdio::null()),
    );
    let admin = line_with(demo.stdout.take().expect("a pipe"), "API and metrics http://").await;

    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         scrape_configs:\n- {{ job_name: pointsman, static_configs: [{{ targets: ['{admin}'] }}] }}\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut prometheus = child(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let address = line_with(prometheus.stderr.take().expect("a pipe"), "msg=\"Listening on\" address=").await;

    let client = Client::new(Duration::from_secs(10));
    let mut missing = queries();
    let all = missing.len();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !missing.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "without data: {missing:#?}");
        for query in missing.clone() {
            let encoded = utf8_percent_encode(&query, NON_ALPHANUMERIC);
            let url = format!("http://{address}/api/v1/query?query={encoded}");
            let Ok(reply) = client.json(Method::GET, &url, &[], &Value::Null).await else { continue };
            let answer = reply.json();
            assert_ne!(answer["status"], "error", "{query}: {answer}");
            let result = answer["data"]["result"].as_array();
            if result.is_some_and(|r| r.iter().any(|s| s["value"][1].as_str().is_some_and(|v| v != "NaN"))) {
                missing.remove(&query);
            }
        }
        tokio::time::sleep(QUERY_INTERVAL).await;
    }
    eprintln!("{all} queries, all with data");
    // SIGTERM, so that it removes its directory.
    let pid = demo.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM).expect("the signal is sent");
    tokio::time::timeout(PATIENCE, demo.wait()).await.expect("it ends").expect("it ended");
    prometheus.kill().await.expect("it could be killed");
}
