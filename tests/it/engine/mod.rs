//! The engine part by part, through its API and its commands: the real binary, a real step service, and the checker
//! over store and ledger after each test.

mod bodies;
mod bounds;
mod callers;
mod checkpoints;
mod child_effects;
mod clock;
mod conflicts;
mod dark_retries;
mod dark_runs;
mod decisions;
mod envelope;
mod flowcharts;
mod https;
mod items;
mod keep_none;
mod keys;
mod killed_pending_children;
mod locks;
mod long_runs;
mod missing_services;
mod moved_keys;
mod moved_services;
mod not_done;
mod older_store;
mod pinned_answers;
mod pinned_numbers;
mod removed_families;
mod restored_runs;
mod retries;
mod risk;
mod run_commands;
mod run_information;
mod sealed;
mod sealed_answers;
mod sealed_copies;
mod sealed_cuts;
mod sealed_forms;
mod sealed_once;
mod sealed_quotes;
mod sealed_samples;
mod service_failures;
mod streamed_limits;
mod streamed_replies;
mod structure;
mod undoing;
mod unknown;
mod unreadable_runs;
mod webhook_addresses;
mod webhooks;
mod withdrawn_calls;

use std::time::Duration;

use http::Method;
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::checker::{self, Allowed};
use crate::support::process::{Start, output_text};
use crate::support::step_service::StepService;
use crate::support::{FlagsDir, PROMOTE, Pointsman, WAIT_MAX, until};

const RUN: &str = "/api/v2/orchestrate/run";

/// A step service and the binary. The service `works` is declared `keyed`; `plain` is the same step service declared
/// without `keyed`, so that unknown outcomes stay unknown.
pub struct EngineTest {
    step_service: StepService,
    flags: FlagsDir,
    pointsman: Pointsman,
    allowed: Allowed,
    start: Start,
    client: Client,
    dir: TempDir,
    finished: bool,
}

impl EngineTest {
    /// A test with these workflows; each text begins with its `workflow: NAME`.
    async fn with(workflows: &[&str]) -> Self {
        Self::with_settings("", workflows, |_| {}).await
    }
    /// A test with more in pointsman.yaml: `more` is written right after the services, so it may begin with more of
    /// them (`  NAME: …`); `WORKS` in it is the URL of the step service.
    async fn with_settings(more: &str, workflows: &[&str], change: impl FnOnce(&FlagsDir)) -> Self {
        let step_service = StepService::start().await;
        let flags = FlagsDir::empty();
        let url = step_service.url();
        let services = format!("services:\n  works: {{ urls: [\"{url}\"], keyed: true }}\n  plain: {url}\n");
        flags.write(
            "pointsman.yaml",
            &format!("{services}{}\ndefault_legacy: plain\n{PROMOTE}", more.replace("WORKS", &url)),
        );
        for text in workflows {
            let name = text.trim_start().lines().next().and_then(|line| line.strip_prefix("workflow: "));
            flags.write(&format!("workflows/{}.yaml", name.expect("a name").trim()), text.trim_start());
        }
        change(&flags);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start {
            flags: flags.path().to_owned(),
            store: format!("sqlite:{}", dir.path().join("pointsman.db").display()),
            log: dir.path().join("log"),
            env: Vec::new(),
        };
        let pointsman = Pointsman::start(&start).await;
        // These tests do not record their runs as orders, so the checker must tolerate effects of unknown orders.
        let allowed = Allowed { unacknowledged: true, ..Allowed::default() };
        Self { step_service, flags, pointsman, allowed, start, client: Client::new(WAIT_MAX), dir, finished: false }
    }
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.admin_url());
        let reply = self.client.json(method, &url, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.pointsman.log()))
    }
    /// Sends a POST; returns the status and the answer.
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let reply = self.call(Method::POST, path, &[], &body).await;
        (reply.status.as_u16(), reply.json())
    }
    /// Sends a POST that has to be accepted; returns `data` of the answer.
    async fn post_accepted(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body.clone()).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer["data"].clone()
    }
    /// Sends a POST that has to be refused with 409; returns the problem.
    async fn post_refused(&self, path: &str, body: Value) -> Value {
        let (status, problem) = self.post(path, body.clone()).await;
        assert_eq!(status, 409, "{path} {body}: {problem}");
        assert!(problem["run_status"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }
    /// Starts a run and waits until it has ended or awaits input; returns `data` of the envelope.
    async fn run(&self, workflow: &str, input: Value) -> Value {
        let (status, envelope) = self.post(RUN, json!({ "workflow": workflow, "input": input })).await;
        assert_eq!(status, 200, "{workflow}: {envelope}\n{}", self.pointsman.log());
        envelope["data"].clone()
    }
    /// Starts a run and does not wait for it; returns the run's path.
    async fn start_run(&self, workflow: &str, input: Value) -> String {
        let request = json!({ "workflow": workflow, "input": input });
        let reply = self.call(Method::POST, RUN, &[("prefer", "respond-async")], &request).await;
        let envelope = reply.json();
        assert!(reply.status.is_success(), "{workflow}: {envelope}\n{}", self.pointsman.log());
        path(&envelope["data"])
    }
    /// The current state of a run.
    async fn data(&self, run: &str) -> Value {
        self.pointsman.get(run).await["data"].clone()
    }
    /// Waits until a run has a status.
    async fn wait_for_status(&self, run: &str, status: &str) -> Value {
        let looking = until(status, || async {
            let data = self.data(run).await;
            (data["status"] == status).then_some(data)
        });
        match tokio::time::timeout(Duration::from_secs(30), looking).await {
            Ok(data) => data,
            Err(_) => panic!("{run} is not {status} but {}\n{}", self.data(run).await, self.pointsman.log()),
        }
    }
    /// The events of a run.
    async fn events(&self, run: &str) -> Vec<Value> {
        let events = self.pointsman.get(&format!("{run}/events")).await;
        events.as_array().cloned().expect("a list")
    }
    /// The contents of the events of one kind.
    async fn events_of_kind(&self, run: &str, kind: &str) -> Vec<Value> {
        let events = self.events(run).await.into_iter();
        events.filter(|event| event["kind"] == kind).map(|event| event["event"][kind].clone()).collect()
    }
    /// Waits until a run has this many events of a kind; returns the last of them.
    async fn wait_for_events(&self, run: &str, kind: &str, count: usize) -> Value {
        until(&format!("{count} {kind} of {run}"), || async {
            let events = self.events_of_kind(run, kind).await;
            (events.len() >= count).then(|| events.last().cloned().unwrap_or_default())
        })
        .await
    }
    /// Waits until this many calls have arrived at an endpoint.
    async fn wait_for_calls(&self, endpoint: &str, count: usize) {
        until(&format!("{count} × {endpoint}"), || async {
            (self.step_service.count(endpoint) >= count).then_some(())
        })
        .await;
    }
    /// The sentence of `explain` and the waits that it lists, for a run that is not stuck.
    async fn explanation(&self, run: &str) -> String {
        let explained = self.pointsman.get(&format!("{run}/explain")).await;
        assert_eq!(explained["stuck"], false, "{explained}");
        let waits: Vec<&str> =
            explained["waits"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        format!("{}\n{}", explained["sentence"].as_str().expect("a sentence"), waits.join("\n"))
    }
    /// Waits until the explanation of a run contains a text.
    async fn wait_for_explanation(&self, run: &str, part: &str) -> String {
        let looking = until(part, || async {
            let text = self.explanation(run).await;
            text.contains(part).then_some(text)
        });
        match tokio::time::timeout(Duration::from_secs(30), looking).await {
            Ok(text) => text,
            Err(_) => panic!("`{part}` is not in: {}", self.explanation(run).await),
        }
    }
    /// Changes the files, and waits until they are in force.
    async fn reload(&self, change: impl FnOnce()) {
        let generation = || async { self.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
        let before = generation().await;
        change();
        until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    }
    /// Runs a command that has to succeed; returns what it printed.
    async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.pointsman.cli(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", output_text(&output));
        output_text(&output)
    }
    /// Runs a command; returns its exit code and what it printed.
    async fn cli_output(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.pointsman.cli(arguments).await;
        (output.status.code(), output_text(&output))
    }
    /// Runs a command that has to be refused; returns what it printed.
    async fn cli_refused(&self, arguments: &[&str]) -> String {
        let output = self.pointsman.cli(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", output_text(&output));
        assert!(output.stdout.is_empty(), "a refused command prints nothing to stdout: {}", output_text(&output));
        output_text(&output)
    }
    /// Kills the process (SIGKILL).
    async fn kill(&mut self) {
        self.pointsman.kill().await;
        self.allowed.crashes += 1;
    }
    /// Starts another process on the same files and store.
    async fn restart(&mut self) {
        self.pointsman = Pointsman::start(&self.start).await;
    }
    async fn kill_and_restart(&mut self) {
        self.kill().await;
        self.restart().await;
    }
    /// Stops the binary gracefully and runs the checker.
    async fn finish(mut self) {
        self.finished = true;
        assert_eq!(self.pointsman.stop().await, Some(0), "it ends with exit code 0:\n{}", self.pointsman.log());
        checker::check(&self.dir.path().join("pointsman.db"), self.step_service.ledger(), &[], &self.allowed).await;
    }
}

impl Drop for EngineTest {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("a test ended without `finish`: nothing was checked");
        }
    }
}

/// The API path of a run.
fn path(data: &Value) -> String {
    format!("{RUN}/{}", data["run_id"].as_str().unwrap_or_else(|| panic!("no run in {data}")))
}

/// The id in the API path of a run.
fn id(run: &str) -> &str {
    run.rsplit('/').next().unwrap_or_default()
}

/// The row of a step in the data of a run.
fn step<'a>(data: &'a Value, name: &str) -> &'a Value {
    let steps = data["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["step_id"] == name).unwrap_or_else(|| panic!("no {name} in {data}"))
}
