//! The engine part by part, through its API and its commands: the real binary, a real step service, and the checker
//! over store and ledger after each test.

mod beside;
mod bodies;
mod bounds;
mod callers;
mod clock;
mod conflicts;
mod control;
mod elsewhere;
mod envelope;
mod items;
mod keys;
mod locks;
mod long_runs;
mod not_done;
mod questions;
mod renamed;
mod retries;
mod sealed;
mod stakes;
mod structure;
mod told;
mod undoing;
mod unknown;
mod webhooks;

use std::time::Duration;

use http::Method;
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::checker::{self, Allowed};
use crate::support::process::{Start, said};
use crate::support::works::Works;
use crate::support::{FlagsDir, PATIENCE, Pointsman, until};

const RUN: &str = "/api/v2/orchestrate/run";

/// A step service, the binary, and nothing else. `works` honours keys; `plain` is the same service without a word of
/// that, so that what is unknown stays unknown.
pub struct Plant {
    works: Works,
    flags: FlagsDir,
    pointsman: Pointsman,
    allowed: Allowed,
    start: Start,
    client: Client,
    dir: TempDir,
    finished: bool,
}

impl Plant {
    /// With these workflows; each text begins with its `workflow: NAME`.
    async fn with(workflows: &[&str]) -> Self {
        Self::made("", workflows, |_| {}).await
    }
    /// With more in pointsman.yaml; `more` may name services as `  NAME: …` lines in front of other keys.
    async fn made(more: &str, workflows: &[&str], change: impl FnOnce(&FlagsDir)) -> Self {
        let works = Works::start().await;
        let flags = FlagsDir::empty();
        let url = works.url();
        let services = format!("services:\n  works: {{ urls: [\"{url}\"], keyed: true }}\n  plain: {url}\n");
        flags.write("pointsman.yaml", &format!("{services}{}\ndefault_legacy: plain\n", more.replace("WORKS", &url)));
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
        // What a test begins and does not count as an order is nobody's promise here.
        let allowed = Allowed { unacknowledged: true, ..Allowed::default() };
        Self { works, flags, pointsman, allowed, start, client: Client::new(PATIENCE), dir, finished: false }
    }
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.admin_url());
        let reply = self.client.json(method, &url, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.pointsman.log()))
    }
    /// A POST; status and answer.
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let reply = self.call(Method::POST, path, &[], &body).await;
        (reply.status.as_u16(), reply.json())
    }
    /// A POST that is taken; `data` of the answer.
    async fn taken(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body.clone()).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer["data"].clone()
    }
    /// A POST that is refused with 409; the problem.
    async fn refused(&self, path: &str, body: Value) -> Value {
        let (status, problem) = self.post(path, body.clone()).await;
        assert_eq!(status, 409, "{path} {body}: {problem}");
        assert!(problem["run_status"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }
    /// Starts a run and waits until it rests; `data` of the envelope.
    async fn run(&self, workflow: &str, input: Value) -> Value {
        let (status, envelope) = self.post(RUN, json!({ "workflow": workflow, "input": input })).await;
        assert_eq!(status, 200, "{workflow}: {envelope}\n{}", self.pointsman.log());
        envelope["data"].clone()
    }
    /// Starts a run and does not wait for it; its path.
    async fn begun(&self, workflow: &str, input: Value) -> String {
        let ask = json!({ "workflow": workflow, "input": input });
        let reply = self.call(Method::POST, RUN, &[("prefer", "respond-async")], &ask).await;
        let envelope = reply.json();
        assert!(reply.status.is_success(), "{workflow}: {envelope}\n{}", self.pointsman.log());
        path(&envelope["data"])
    }
    /// A run as it stands.
    async fn data(&self, run: &str) -> Value {
        self.pointsman.get(run).await["data"].clone()
    }
    /// Waits until a run has a status.
    async fn comes_to(&self, run: &str, status: &str) -> Value {
        let looking = until(status, || async {
            let data = self.data(run).await;
            (data["status"] == status).then_some(data)
        });
        match tokio::time::timeout(Duration::from_secs(30), looking).await {
            Ok(data) => data,
            Err(_) => panic!("{run} is not {status} but {}\n{}", self.data(run).await, self.pointsman.log()),
        }
    }
    /// The audit trail.
    async fn events(&self, run: &str) -> Vec<Value> {
        let events = self.pointsman.get(&format!("{run}/events")).await;
        events.as_array().cloned().expect("a list")
    }
    /// What the events of one kind say.
    async fn told(&self, run: &str, kind: &str) -> Vec<Value> {
        let events = self.events(run).await.into_iter();
        events.filter(|event| event["kind"] == kind).map(|event| event["event"][kind].clone()).collect()
    }
    /// Waits until a run has so many events of a kind; the last of them.
    async fn until_told(&self, run: &str, kind: &str, count: usize) -> Value {
        until(&format!("{count} {kind} of {run}"), || async {
            let told = self.told(run, kind).await;
            (told.len() >= count).then(|| told.last().cloned().unwrap_or_default())
        })
        .await
    }
    /// Waits until so many calls have come to a place.
    async fn arrives(&self, place: &str, count: usize) {
        until(&format!("{count} × {place}"), || async { (self.works.count(place) >= count).then_some(()) }).await;
    }
    /// What a run waits for, in a sentence.
    async fn explained(&self, run: &str) -> String {
        let told = self.pointsman.get(&format!("{run}/explain")).await;
        assert_eq!(told["stuck"], false, "{told}");
        let waits: Vec<&str> = told["waits"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        format!("{}\n{}", told["sentence"].as_str().expect("a sentence"), waits.join("\n"))
    }
    /// Waits until the explanation of a run says something.
    async fn explains(&self, run: &str, part: &str) -> String {
        let looking = until(part, || async {
            let text = self.explained(run).await;
            text.contains(part).then_some(text)
        });
        match tokio::time::timeout(Duration::from_secs(30), looking).await {
            Ok(text) => text,
            Err(_) => panic!("`{part}` is not in: {}", self.explained(run).await),
        }
    }
    /// A command that succeeds; what it printed.
    async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.pointsman.cli(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
        said(&output)
    }
    /// Any command; its exit code, and what it printed.
    async fn cli_said(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.pointsman.cli(arguments).await;
        (output.status.code(), said(&output))
    }
    /// A command that is refused; what it printed.
    async fn cli_refused(&self, arguments: &[&str]) -> String {
        let output = self.pointsman.cli(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "a refusal is no data: {}", said(&output));
        said(&output)
    }
    /// SIGKILL.
    async fn kill(&mut self) {
        self.pointsman.kill().await;
        self.allowed.crashes += 1;
    }
    /// Another process on the same files and store.
    async fn back(&mut self) {
        self.pointsman = Pointsman::start(&self.start).await;
    }
    async fn killed_and_back(&mut self) {
        self.kill().await;
        self.back().await;
    }
    /// Stops the binary in order, and lets the checker look at everything.
    async fn finish(mut self) {
        self.finished = true;
        assert_eq!(self.pointsman.stop().await, Some(0), "it ends in order:\n{}", self.pointsman.log());
        checker::check(&self.dir.path().join("pointsman.db"), self.works.ledger(), &[], &self.allowed).await;
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("a test ended without `finish`: nothing was checked");
        }
    }
}

/// The path of a run.
fn path(data: &Value) -> String {
    format!("{RUN}/{}", data["run_id"].as_str().unwrap_or_else(|| panic!("no run in {data}")))
}

/// Its id.
fn id(run: &str) -> &str {
    run.rsplit('/').next().unwrap_or_default()
}

/// A step's row.
fn step<'a>(data: &'a Value, name: &str) -> &'a Value {
    let steps = data["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["step_id"] == name).unwrap_or_else(|| panic!("no {name} in {data}"))
}
