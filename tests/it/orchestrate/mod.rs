//! Runs through the API and its commands, against the real binary.

mod access;
mod commands;
mod deciding;
mod reading;
mod starting;
mod streaming;

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const RUN: &str = "/api/v2/orchestrate/run";

/// What the workflows do: a call with an effect, a question, a signal, a computation.
const WORKFLOWS: &[(&str, &str)] = &[
    (
        "order",
        "workflow: order
input: { schema: { type: object, required: [sku], properties: { sku: { type: string } } } }
steps:
  charge:
    call: POST ${services.bank}/charges
    body: { sku: '${request.body.sku}' }
    retry: { attempts: 1 }
  total: { set: { id: '${steps.charge.output.id}' } }
respond: { status: 201, body: { id: '${steps.total.output.id}' } }
",
    ),
    (
        "pick",
        "workflow: pick
steps:
  choose:
    checkpoint: { question: Which one?, schema: { type: object, required: [selected_asset_id] } }
  chosen: { set: '${steps.choose.output.selected_asset_id}' }
respond: { status: 200, body: { picked: '${steps.chosen.output}' } }
",
    ),
    (
        "payment",
        "workflow: payment
steps:
  paid: { wait: { signal: paid } }
respond: { status: 200, body: { amount: '${steps.paid.output.amount}' } }
",
    ),
];

/// A bank service and the binary.
pub struct BankTest {
    bank: Origin,
    flags: FlagsDir,
    pub pointsman: Pointsman,
    start: Start,
    client: Client,
    numbers: AtomicU64,
    _dir: TempDir,
}

impl BankTest {
    /// A bank that charges at once.
    async fn open() -> Self {
        Self::with("").await
    }
    /// Like [`BankTest::open`], with more in pointsman.yaml.
    async fn with(more: &str) -> Self {
        Self::with_settings(more, |_| {}).await
    }
    /// Like [`BankTest::open`], with another workflow.
    pub async fn with_workflow(name: &str, text: &str) -> Self {
        Self::with_settings("", |flags| flags.write(name, text)).await
    }
    async fn with_settings(more: &str, change: impl FnOnce(&FlagsDir)) -> Self {
        let bank = Origin::start(OriginReply::Json(r#"{"id":"c1"}"#)).await;
        let flags = FlagsDir::empty();
        let url = bank.url();
        flags.write("pointsman.yaml", &format!("services: {{ bank: \"{url}\" }}\ndefault_legacy: bank\n{more}\n"));
        for (name, text) in WORKFLOWS {
            flags.write(&format!("workflows/{name}.yaml"), text);
        }
        change(&flags);
        let dir = tempfile::tempdir().expect("a directory");
        let start = Start::on_sqlite(flags.path(), dir.path());
        let pointsman = Pointsman::start(&start).await;
        let client = Client::new(WAIT_MAX);
        Self { bank, flags, pointsman, start, client, numbers: AtomicU64::new(0), _dir: dir }
    }
    /// Sends a request with headers.
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.admin_url());
        let reply = self.client.json(method, &url, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.pointsman.log()))
    }
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let reply = self.call(Method::POST, path, &[], &body).await;
        (reply.status.as_u16(), reply.json())
    }
    /// Starts a workflow; returns the status and the envelope of the answer.
    async fn run(&self, workflow: &str, input: Value) -> (u16, Value) {
        self.post(RUN, json!({ "workflow": workflow, "input": input })).await
    }
    /// Starts a workflow, which has to be accepted; returns the run's path.
    async fn start_run(&self, workflow: &str, input: Value) -> String {
        let (status, envelope) = self.run(workflow, input).await;
        assert!(status == 200 || status == 202, "{status} {envelope}\n{}", self.pointsman.log());
        path(&envelope)
    }
    /// Waits until a run has a status.
    async fn wait_for_status(&self, path: &str, status: &str) -> Value {
        until(&format!("{path} to be {status}"), || async {
            let envelope = self.pointsman.get(path).await;
            (envelope["data"]["status"] == status).then_some(envelope)
        })
        .await
    }
    /// A key that no other call has.
    fn new_key(&self) -> String {
        format!("key-{}", self.numbers.fetch_add(1, Ordering::Relaxed))
    }
    /// Kills the process (SIGKILL), and starts another one on the same store.
    async fn kill_and_restart(&mut self) {
        self.pointsman.kill().await;
        self.pointsman = Pointsman::start(&self.start).await;
    }
}

fn path(envelope: &Value) -> String {
    format!("{RUN}/{}", envelope["data"]["run_id"].as_str().expect("an envelope"))
}
