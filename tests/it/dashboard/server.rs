//! Prometheus and Alertmanager as child processes, with the configurations of `dashboards/`.

use std::process::Stdio;
use std::time::Duration;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pointsman::demo::http::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::read;

/// The longest wait for a program's address.
const START_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running program; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    /// `HOST:PORT`
    pub address: String,
    client: Client,
    _dir: TempDir,
}

/// What follows `mark` in the first line that contains it; later lines are read and discarded in the background.
pub(super) async fn line_with(stream: impl AsyncRead + Send + Unpin + 'static, mark: &str) -> String {
    let mut lines = BufReader::new(stream).lines();
    let mut before = String::new();
    let found = tokio::time::timeout(START_WAIT_MAX, async {
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

pub(super) fn child(command: &mut Command) -> Child {
    let started = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
    started.unwrap_or_else(|e| panic!("{command:?}: {e}; tests/run installs what is missing"))
}

/// Replaces texts, each of which has to be there.
fn replaced(text: String, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in the file");
        text.replace(from, to)
    })
}

impl Server {
    async fn start(program: &str, arguments: &[String], dir: TempDir) -> Self {
        let mut child = child(Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()));
        let address = line_with(child.stderr.take().expect("a pipe"), "msg=\"Listening on\" address=").await;
        Self { child, address, client: Client::new(Duration::from_secs(10)), _dir: dir }
    }
    /// A Prometheus that scrapes one process every second, with these rules, and sends alerts to this address.
    pub(super) async fn prometheus(target: &str, rules: &str, alertmanager: &str) -> Self {
        let replacements = [("15s", "1s"), ("127.0.0.1:8081", target), ("127.0.0.1:9093", alertmanager)];
        Self::prometheus_with(&replaced(read("prometheus.yml"), &replacements), rules).await
    }
    /// A Prometheus with this configuration and these rules.
    pub(crate) async fn prometheus_with(config: &str, rules: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("alerts.yaml"), rules).expect("written");
        std::fs::write(dir.path().join("prometheus.yml"), config).expect("written");
        let arguments = [
            format!("--config.file={}", dir.path().join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        Self::start("prometheus", &arguments, dir).await
    }
    /// An Alertmanager that posts at once to this base URL.
    pub(super) async fn alertmanager(webhook: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let replacements = [
            ("group_wait: 30s", "group_wait: 0s"),
            ("group_interval: 5m", "group_interval: 1s"),
            ("http://127.0.0.1:9095", webhook),
        ];
        let config = replaced(read("alertmanager.yml"), &replacements);
        std::fs::write(dir.path().join("alertmanager.yml"), config).expect("written");
        let arguments = [
            format!("--config.file={}", dir.path().join("alertmanager.yml").display()),
            format!("--storage.path={}", dir.path().join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--cluster.listen-address=".to_owned(),
        ];
        Self::start("prometheus-alertmanager", &arguments, dir).await
    }
    /// The result of an instant query; it has to be valid. `None` if the server did not answer.
    pub(crate) async fn query(&self, query: &str) -> Option<Vec<Value>> {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let reply = self.get(&format!("/api/v1/query?query={encoded}")).await?;
        assert_eq!(reply["status"], "success", "{query}: {reply}");
        Some(reply["data"]["result"].as_array().cloned().unwrap_or_default())
    }
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}{path}", self.address);
        let reply = self.client.json(Method::GET, &url, &[], &Value::Null).await.ok()?;
        serde_json::from_slice(&reply.body).ok()
    }
    pub(crate) async fn stop(mut self) {
        self.child.kill().await.expect("it could be killed");
    }
}
