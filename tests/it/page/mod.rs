//! The page in a real browser: Chromium, driven by the scripts in `scripts/` through playwright-core, against the real
//! binary on the files in `flags/`.
//!
//! A test prepares a [`PageTest`], runs one script, and then looks at what the services received and what the store
//! holds. A script does what a person does: it finds buttons, links and fields by their role and name. It prints a line
//! for each thing that it checked, so that a test can tell a script that checked nothing.

mod access;
mod acting;
mod differences;
mod hostile;
mod keyboard;
mod live;
mod moving;
mod names;
mod views;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::checker::{self, Allowed};
use crate::support::process::Start;
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

const RUN: &str = "/api/v2/orchestrate/run";
/// The longest that a script may take, in milliseconds: generous, since all tests run at once.
const SCRIPT_MS_MAX: u64 = 420_000;
/// The longest wait for a script. It ends earlier by itself, and says what it waited for.
const SCRIPT_WAIT_MAX: Duration = Duration::from_millis(SCRIPT_MS_MAX + 30_000);
/// The people who look at the page, each with a token. The last may only read.
const PEOPLE: [&str; 3] = ["ann", "bea", "eve"];
const ANN: (&str, &str) = ("authorization", "Bearer ann-0123456789abcdef");

/// Two services and the binary: `works` is what steps call, `shop` is the legacy.
struct PageTest {
    works: StepService,
    _shop: StepService,
    _flags: FlagsDir,
    pointsman: Pointsman,
    /// Runs by the name that the test gave them.
    runs: Map<String, Value>,
    dir: TempDir,
    finished: bool,
}

impl PageTest {
    /// Without any run or request yet.
    async fn start() -> Self {
        Self::with(|_| {}).await
    }
    /// Like [`PageTest::start`], with changed files.
    async fn with(change: impl FnOnce(&FlagsDir)) -> Self {
        let (works, shop) = (StepService::start().await, StepService::start().await);
        shop.set_default("POST /same", ScriptedReply::Done(200, json!({ "id": 1 })));
        let text = hostile()["text"].clone();
        let different = json!({ "id": 1, "text": "legacy's <i>text</i>", "note": text });
        shop.set_default("POST /things", ScriptedReply::Done(200, different));
        let flags = flags(&works.url(), &shop.url());
        change(&flags);
        let dir = tempfile::tempdir().expect("a directory");
        let token = |name: &&str| (name.to_uppercase(), token(name));
        let start = Start { env: PEOPLE.iter().map(token).collect(), ..Start::on_sqlite(flags.path(), dir.path()) };
        let pointsman = Pointsman::start(&start).await;
        Self { works, _shop: shop, _flags: flags, pointsman, runs: Map::new(), dir, finished: false }
    }
    /// With a run of each kind, a route that differs, and a route that was moved.
    async fn filled() -> Self {
        let mut test = Self::start().await;
        let text = hostile()["text"].clone();
        test.request("/things", 4, &json!({ "text": text })).await;
        test.post("/api/v2/routes/same/flip", json!({ "to": "shadow", "reason": "to see what differs" })).await;
        test.works.script("POST /charges", ScriptedReply::Refuse(409), 1);
        test.works.hold("POST /exports");
        let people = ["ada", "bob", "cyd", "dan", "eli", "fay", "gus", "hal"];
        let numbers: Vec<Value> = (0..60).map(|n| json!({ "n": n })).collect();
        for (name, workflow, input, status) in [
            ("pick", "pick", json!({ "product": "tea" }), "waiting_checkpoint"),
            ("refund", "refund", json!({ "amount": 12.5 }), "waiting_checkpoint"),
            ("declined", "refund", json!({ "amount": 99 }), "waiting_checkpoint"),
            ("mails", "mails", json!({ "people": people }), "waiting_checkpoint"),
            ("charge", "charge", json!({}), "paused"),
            ("payment", "payment", json!({}), "waiting_signal"),
            ("cancelled", "payment", json!({}), "waiting_signal"),
            ("export", "export", json!({}), "running"),
            ("below", "below", json!({ "n": 1 }), "completed"),
            ("many", "many", json!({ "numbers": numbers }), "waiting_signal"),
        ] {
            test.start_run(name, workflow, input, status).await;
        }
        let asked = test.data("declined").await;
        let answer = asked["pending_checkpoint"]["answer"].as_str().expect("it asks");
        test.post(answer, json!({ "approve": false, "note": "too much" })).await;
        test.wait_for_status("declined", "failed").await;
        let path = format!("{RUN}/{}/cancel", test.id("cancelled"));
        test.post(&path, json!({ "reason": "the customer said no" })).await;
        test.wait_for_status("cancelled", "cancelled").await;
        until("differences of `things`", || async {
            let differences = test.get("/api/v2/routes/things/diffs").await;
            differences["groups"].as_array().is_some_and(|groups| !groups.is_empty()).then_some(())
        })
        .await;
        test
    }
    /// Starts a run and waits until it has this status.
    async fn start_run(&mut self, name: &str, workflow: &str, input: Value, status: &str) {
        let headers = [ANN, ("prefer", "respond-async")];
        let body = json!({ "workflow": workflow, "input": input });
        let reply = self.pointsman.api_with(Method::POST, RUN, &headers, body).await;
        assert!(reply.status.is_success(), "{workflow}: {}", reply.json());
        self.runs.insert(name.to_owned(), reply.json()["data"]["run_id"].clone());
        self.wait_for_status(name, status).await;
    }
    /// The id of a run.
    fn id(&self, name: &str) -> &str {
        self.runs[name].as_str().expect("an id")
    }
    /// What the API says of a run.
    async fn data(&self, name: &str) -> Value {
        self.get(&format!("{RUN}/{}", self.id(name))).await["data"].clone()
    }
    /// Waits until a run has a status.
    async fn wait_for_status(&self, name: &str, status: &str) -> Value {
        until(&format!("`{name}` to be {status}"), || async {
            let data = self.data(name).await;
            (data["status"] == status).then_some(data)
        })
        .await
    }
    /// A GET of the API that has to succeed.
    async fn get(&self, path: &str) -> Value {
        let reply = self.pointsman.api_with(Method::GET, path, &[ANN], Value::Null).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.json());
        reply.json()
    }
    /// A POST to the API that has to succeed.
    async fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.pointsman.api_with(Method::POST, path, &[ANN], body).await;
        assert!(reply.status.is_success(), "{path}: {}", reply.json());
        reply.json()
    }
    /// Sends this request through the proxy, several times.
    async fn request(&self, path: &str, times: usize, body: &Value) {
        let client = Client::new(WAIT_MAX);
        for number in 0..times {
            let tenant = format!("tenant-{number}");
            let url = format!("{}{path}", self.pointsman.url());
            let reply = client.json(Method::POST, &url, &[("x-tenant", tenant.as_str())], body).await;
            assert!(reply.expect("a reply").status.is_success(), "{path}");
        }
    }
    /// Runs a script, which gets `more` beside what every script gets. Fails with all that it found wrong, or if it
    /// checked fewer than `checks_min` things.
    async fn run(&self, script: &str, checks_min: usize, more: Value) {
        let tokens: Map<String, Value> = PEOPLE.iter().map(|name| ((*name).to_owned(), token(name).into())).collect();
        let mut given = json!({
            "url": self.pointsman.admin_url(),
            "proxy": self.pointsman.url(),
            "tokens": tokens,
            "runs": self.runs,
            "hostile": hostile(),
            "script_ms_max": SCRIPT_MS_MAX,
        });
        let given_more = more.as_object().cloned().unwrap_or_default();
        given.as_object_mut().expect("a map").extend(given_more);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/page/scripts").join(script);
        let output = Command::new("node")
            .arg(file)
            .env("POINTSMAN_PAGE_TEST", given.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(SCRIPT_WAIT_MAX, output).await.expect("the script ends");
        let output = output.expect("node starts; tests/run installs it");
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let failed: Vec<String> =
            lines.iter().filter(|line| !line["failed"].is_null()).map(|line| format!("{line:#}")).collect();
        assert!(
            output.status.success() && failed.is_empty(),
            "{script}:\n{}\n{}",
            failed.join("\n"),
            String::from_utf8_lossy(&output.stderr)
        );
        let checked = lines.iter().filter(|line| line["checked"].is_string()).count();
        assert!(checked >= checks_min, "{script} checked only {checked} things:\n{text}");
    }
    /// Lets the calls that a filled test holds be answered, waits until their run has ended, and finishes.
    async fn release_and_finish(self) {
        self.works.release_all("POST /exports");
        self.wait_for_status("export", "completed").await;
        self.finish().await;
    }
    /// Stops the binary and runs the checker over its store and what `works` did.
    async fn finish(mut self) {
        self.finished = true;
        assert_eq!(self.pointsman.stop().await, Some(0), "it ends with exit code 0:\n{}", self.pointsman.log());
        let allowed = Allowed { unacknowledged: true, ..Allowed::default() };
        checker::check(&self.dir.path().join("db"), self.works.ledger(), &[], &allowed).await;
    }
}

impl Drop for PageTest {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("a test ended without `finish`: nothing was checked");
        }
    }
}

/// The text of a person's token.
fn token(name: &str) -> String {
    format!("{name}-0123456789abcdef")
}

/// Texts that would do something if they became markup.
fn hostile() -> Value {
    serde_json::from_str(include_str!("hostile.json")).expect("JSON")
}

/// The files in `flags/`, with the addresses of these services.
fn flags(works: &str, shop: &str) -> FlagsDir {
    let flags = FlagsDir::empty();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/page/flags");
    for part in ["", "routes", "workflows"] {
        let entries = std::fs::read_dir(source.join(part)).expect("readable").map(|entry| entry.expect("readable"));
        for entry in entries.filter(|entry| entry.path().is_file()) {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            let name = Path::new(part).join(entry.file_name());
            flags.write(&name.to_string_lossy(), &text.replace("WORKS", works).replace("SHOP", shop));
        }
    }
    flags
}
