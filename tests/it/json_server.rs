//! A third-party legacy (json-server from npm) through all five states and back, moved by the CLI.

use std::path::PathBuf;
use std::process::Stdio;

use http::Method;
use pointsman::demo::http::{Client, Reply};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, PROMOTE, Pointsman, WAIT_MAX, checker};

const SERVER: &str = "const s = require('json-server'), app = s.create(); app.use(s.defaults({ logger: false })); \
    app.use(s.router({ posts: [], entries: [] })); \
    const l = app.listen(0, '127.0.0.1', () => console.log(l.address().port));";

/// Where `tests/run` has installed it.
fn modules() -> PathBuf {
    if let Some(binary) = std::env::var_os("POINTSMAN_JSON_SERVER") {
        let binary = PathBuf::from(binary);
        return binary.parent().and_then(|bin| bin.parent()).expect("node_modules/.bin/json-server").to_owned();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).expect("a home");
    cache.join("pointsman-tests/node_modules")
}

async fn json_server() -> (Child, String) {
    let modules = modules();
    assert!(modules.join("json-server").is_dir(), "json-server is not installed: run tests/run");
    let mut node = Command::new("node")
        .args(["-e", SERVER])
        .env("NODE_PATH", &modules)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node starts");
    let mut lines = BufReader::new(node.stdout.take().expect("a pipe")).lines();
    let port =
        tokio::time::timeout(WAIT_MAX, lines.next_line()).await.expect("in time").expect("text").expect("a port");
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (node, format!("http://127.0.0.1:{port}"))
}

const ROUTES: &str = r#"
routes:
  - id: posts.create
    match: { method: POST, path: /posts }
    legacy: shop
    workflow: create-post
    state: off
    instance: { creates: $.id }
    compare: { headers: [content-type], ids: [{ path: $.id, any_type: true }] }
  - id: posts.get
    match: { method: GET, path: "/posts/{id}" }
    legacy: shop
    workflow: get-post
    state: off
    instance: { follows: posts.create, key: path.id, ends: "${reply.status == 200}" } # a post that was read is done with
    compare: { headers: [content-type], ids: [{ path: $.id, any_type: true }] }
"#;
const CREATE: &str = r#"
workflow: create-post
steps:
  entry:
    call: POST ${services.shop}/entries
    body: { by: "${run.id}", title: "${request.body.title}", views: "${request.body.views}" }
    rehearse: { title: "${request.body.title}", views: "${request.body.views}" }
respond:
  status: 201
  body: { title: "${steps.entry.output.title}", views: "${steps.entry.output.views}", id: "${run.id}" }
"#;
const GET: &str = r#"
workflow: get-post
steps:
  post: { set: "${instance.output}" }
respond: { status: 200, body: { title: "${steps.post.output.title}", views: "${steps.post.output.views}", id: "${instance.id}" } }
"#;

struct JsonServerSystem {
    pointsman: Pointsman,
    legacy: String,
    client: Client,
    made: Vec<Value>,
}

impl JsonServerSystem {
    async fn send_ok(&self, method: Method, path: &str, body: &Value) -> Reply {
        let url = format!("{}{path}", self.pointsman.url());
        let reply = self.client.json(method.clone(), &url, &[], body).await;
        let reply = reply.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.pointsman.log()));
        assert!(reply.status.is_success(), "{method} {path}: {:?}\n{}", reply, self.pointsman.log());
        reply
    }
    /// Creates one post, and reads it back twice.
    async fn create_and_read_twice(&mut self) -> Value {
        let n = self.made.len();
        let post = json!({ "title": format!("post {n}, \u{e9}"), "views": n });
        let made = self.send_ok(Method::POST, "/posts", &post).await.json();
        assert_eq!((&made["title"], &made["views"]), (&post["title"], &post["views"]));
        self.made.push(made.clone());
        // A follow-up that arrives before the dark twin of its instance exists cannot be compared.
        self.pointsman
            .until_metric("the shadow executor to be idle", |metrics| {
                let busy = |name: &str| metrics.sum(name, &[]);
                busy("pointsman_shadow_queue_depth")
                    + busy("pointsman_shadow_in_flight")
                    + busy("pointsman_followups_pending")
                    == 0.0
            })
            .await;
        for _ in 0..2 {
            self.read(&made).await;
        }
        made
    }
    async fn read(&self, made: &Value) {
        let id = made["id"].as_str().map_or_else(|| made["id"].to_string(), str::to_owned);
        let read = self.send_ok(Method::GET, &format!("/posts/{id}"), &Value::Null).await.json();
        assert_eq!(&read, made);
    }
    /// Raises a route: sends traffic until its gate opens.
    async fn raise(&mut self, route: &str, to: &str) {
        for _ in 0..40 {
            let output = self.pointsman.cli(&["flip", route, to, "--reason", "the walk"]).await;
            if output.status.success() {
                return;
            }
            for _ in 0..10 {
                self.create_and_read_twice().await;
            }
        }
        let output = self.pointsman.cli(&["flip", route, to, "--reason", "the walk"]).await;
        panic!(
            "{route} to {to}: {}\n{}",
            output_text(&output),
            output_text(&self.pointsman.cli(&["diffs", route]).await)
        );
    }
    async fn entries(&self) -> Vec<Value> {
        let url = format!("{}/entries", self.legacy);
        let all = self.client.json(Method::GET, &url, &[], &Value::Null).await.expect("a reply").json();
        all.as_array().cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_five_states_up_and_down() {
    let (_node, legacy) = json_server().await;
    let flags = FlagsDir::passthrough(&legacy);
    flags.edit("pointsman.yaml", |text| text + PROMOTE);
    flags.write("routes/posts.yaml", ROUTES);
    flags.write("workflows/create-post.yaml", CREATE);
    flags.write("workflows/get-post.yaml", GET);
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("db");
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", store.display()),
        log: dir.path().join("log"),
        env: vec![],
    };
    let pointsman = Pointsman::start(&start).await;
    let mut system = JsonServerSystem { pointsman, legacy, client: Client::new(WAIT_MAX), made: Vec::new() };

    let mut by_state = Vec::new();
    for state in ["off", "shadow", "dark", "live", "only"] {
        if state != "off" {
            system.raise("posts.get", state).await;
            system.raise("posts.create", state).await;
        }
        by_state.push(system.create_and_read_twice().await);
        checker::check_balance(&system.pointsman.metrics().await);
    }
    let by_engine: Vec<bool> = by_state.iter().map(|made| made["id"].is_string()).collect();
    assert_eq!(by_engine, [false, false, false, true, true]);
    for state in ["live", "dark", "shadow", "off"] {
        for route in ["posts.create", "posts.get"] {
            let flip = ["flip", route, state, "--reason", "back again", "--acknowledge"];
            let output = system.pointsman.cli(&flip).await;
            assert!(output.status.success(), "{}", output_text(&output));
        }
        system.create_and_read_twice().await;
        checker::check_balance(&system.pointsman.metrics().await);
    }
    for made in &by_state {
        system.read(made).await;
    }
    // For one request the shared effect comes from exactly one arm: an entry for each post of the engine, no other.
    let mut wanted: Vec<&Value> = system.made.iter().map(|made| &made["id"]).filter(|id| id.is_string()).collect();
    let entries = system.entries().await;
    let mut written: Vec<&Value> = entries.iter().map(|entry| &entry["by"]).collect();
    wanted.sort_by_key(|id| id.to_string());
    written.sort_by_key(|id| id.to_string());
    assert_eq!(written, wanted);
    assert_eq!(system.pointsman.stop().await, Some(0));
    checker::check_runs(&store, &system.made).await;
}
