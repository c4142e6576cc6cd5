//! `expose: true`: each answer says which arm gave it, and comparisons do not see that.

use pointsman::demo::http::Client;
use serde_json::{Value, json};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX};

/// Legacy's reply, which has a header `pointsman-arm` of its own.
const REPLY: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\npointsman-arm: siding\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";

const WORKFLOW: &str = "workflow: same
steps: { one: { set: { a: 1 } } }
respond: { status: 200, headers: { pointsman-arm: siding }, body: { a: '${steps.one.output.a}' } }
";

/// Routes: among them one that is compared, one that the engine answers, and one with `expose: false`.
fn routes(exposed: &str) -> String {
    format!(
        "routes:
  - {{ id: plain, match: {{ method: GET, path: /plain }}, legacy: shop{exposed} }}
  - {{ id: hidden, match: {{ method: GET, path: /hidden }}, legacy: shop, expose: false }}
  - id: compared
    match: {{ method: POST, path: /compared }}
    legacy: shop
    workflow: same
    state: shadow
    compare: {{ headers: [pointsman-arm] }}
  - id: engines
    match: {{ method: POST, path: /engines }}
    legacy: shop
    workflow: same
    state: live
    force: {{ reason: a test }}
"
    )
}

struct ExposeSystem {
    pointsman: Pointsman,
    origin: Origin,
    flags: FlagsDir,
    client: Client,
    _dir: tempfile::TempDir,
}

impl ExposeSystem {
    async fn start(more: &str, exposed: &str) -> Self {
        let origin = Origin::start(OriginReply::Bytes(REPLY.to_vec())).await;
        let flags = FlagsDir::passthrough(&origin.url());
        flags.edit("pointsman.yaml", |text| text + more);
        flags.write("workflows/same.yaml", WORKFLOW);
        flags.write("routes/all.yaml", &routes(exposed));
        let dir = tempfile::tempdir().expect("a directory");
        let (store, log) = ("memory:".to_owned(), dir.path().join("log"));
        let start = Start { flags: flags.path().to_owned(), store, log, env: Vec::new() };
        let pointsman = Pointsman::start(&start).await;
        Self { pointsman, origin, flags, client: Client::new(WAIT_MAX), _dir: dir }
    }
    /// Every value of the header in the answer.
    async fn arms(&self, method: &str, path: &str) -> Vec<String> {
        let url = format!("{}{path}", self.pointsman.url());
        let body = if method == "POST" { json!({ "x": 1 }) } else { Value::Null };
        let reply = self.client.json(method.parse().expect("a method"), &url, &[], &body).await.expect("an answer");
        let values = reply.headers.get_all("pointsman-arm").iter();
        values.map(|value| value.to_str().expect("text").to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_names_its_arm_only_where_the_files_ask_for_it() {
    let mut system = ExposeSystem::start("expose: true\n", "").await;
    for (method, path, arm) in [
        ("GET", "/plain", "legacy"),
        ("GET", "/no-route", "legacy"),
        ("POST", "/compared", "legacy"),
        ("POST", "/engines", "engine"),
        // Not exposed: the header is the one that legacy sent.
        ("GET", "/hidden", "siding"),
        // Refused before its route is known.
        ("TRACE", "/plain", "proxy"),
    ] {
        assert_eq!(system.arms(method, path).await, [arm], "{method} {path}");
    }
    system.origin.script(OriginReply::Close, 1);
    assert_eq!(system.arms("POST", "/plain").await, ["proxy"], "legacy gave no reply");
    let matched = [("route", "compared"), ("outcome", "matched")];
    let compared = |metrics: &crate::support::Metrics| metrics.sum("pointsman_comparisons_total", &matched) == 1.0;
    system.pointsman.until_metric("the comparison, of the headers that legacy sent", compared).await;
    assert_eq!(system.pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_name_their_arm_by_default() {
    let mut system = ExposeSystem::start("", ", expose: true").await;
    assert_eq!(system.arms("GET", "/plain").await, ["legacy"], "the route asks for it");
    for (method, path, values) in
        [("GET", "/no-route", vec!["siding"]), ("POST", "/engines", vec!["siding"]), ("TRACE", "/plain", vec![])]
    {
        assert_eq!(system.arms(method, path).await, values, "{method} {path}");
    }
    // A changed file takes effect without a restart.
    system.flags.write("routes/all.yaml", &routes(""));
    let reload = system.pointsman.cli(&["reload"]).await;
    assert!(reload.status.success(), "{}", crate::support::process::output_text(&reload));
    assert_eq!(system.arms("GET", "/plain").await, ["siding"]);
    assert_eq!(system.pointsman.stop().await, Some(0));
}
