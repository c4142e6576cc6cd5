//! What a dark run and its samples store of sensitive values in other forms and from other sources: values from a
//! header of legacy's reply, values in JSON that is sent as plain text, numbers, URLs with credentials, short texts.

use serde_json::json;

use super::sealed::is_in_files;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::{FlagsDir, PROMOTE, Pointsman, until};

const LINK: &str = "https://annuser:pw@shop.example/login/PRIVPATH4-8899?token=abc123&order=ORDER4-998877";
const SESSION: &str = "LEGSESS-40-aabbccdd";

const MAKE: &str = r#"workflow: make
input: { sensitive: [$.link, $.short, $.num], sensitive_headers: [x-session] }
steps:
  charge:
    call: POST ${services.shop}/charges
    body: { all: "${request.body}" }
    rehearse: { session: "${legacy.headers['x-session']}", note: "${legacy.body.note}" }
respond: { status: 200, body: { id: 1, plain: "${steps.charge.output.note}" } }
"#;

const ROUTES: &str = "routes:
- id: things
  match: { method: POST, path: /things }
  legacy: shop
  workflow: make
  state: dark
  force: { reason: a test }
";

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_and_sources_of_sensitive_values_are_neither_stored_nor_shown() {
    let quoted = json!({
        "id": 1, "quote": LINK, "code": "4417", "kunde": { "code": "4417" }, "arr": ["4417", 8812], "n": 8812.0,
        "note": "plain-note", "session": format!("in {SESSION}"),
    });
    let body = quoted.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
    let head = format!("{head}\r\nx-session: {SESSION}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let legacy = Origin::start(OriginReply::Bytes(head.into_bytes())).await;
    let flags = FlagsDir::empty();
    let settings =
        format!("services:\n  shop: {}\ndefault_legacy: shop\nstore_key: {{ env: KEY }}\n{PROMOTE}", legacy.url());
    flags.write("pointsman.yaml", &settings);
    flags.write("workflows/make.yaml", MAKE);
    flags.write("routes/things.yaml", ROUTES);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", dir.path().join("db").display()),
        log: dir.path().join("log"),
        env: vec![("KEY".into(), "ab".repeat(32))],
    };
    let mut pointsman = Pointsman::start(&start).await;
    let body = json!({ "link": LINK, "short": "4417", "num": 8812, "plain": "plain-request" }).to_string();
    let mut shown = String::new();
    for (sent, kind) in ["application/json", "text/plain"].into_iter().enumerate() {
        let head = format!("host: a\r\ncontent-type: {kind}\r\ncontent-length: {}", body.len());
        let request = format!("POST /things HTTP/1.1\r\n{head}\r\n\r\n{body}");
        let reply = RawConnection::connect(pointsman.listen).await.send(&request).await.reply().await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        shown += &until("the run", || async {
            let runs = pointsman.get("/api/v2/orchestrate/runs?limit=20").await;
            let ended = runs["runs"].as_array()?.iter().filter(|run| run["status"] == "completed");
            (ended.count() == sent + 1).then(|| runs.to_string())
        })
        .await;
        let diffs = until("a sample", || async {
            let diffs = pointsman.get("/api/v2/routes/things/diffs").await;
            (diffs["pairs"] == sent + 1 && diffs["groups"][0]["count"] == sent + 1).then_some(diffs)
        })
        .await;
        shown += &diffs.to_string();
        // In plain text the places of the declared values are not known, so nothing of such a pair is shown. The sample
        // of the group may be that of either pair.
        if kind != "application/json" {
            continue;
        }
        let differences = diffs["groups"][0]["differences"].as_array().expect("a list");
        let of = |path: &str| differences.iter().find(|found| found["path"] == path).cloned().unwrap_or_default();
        assert_eq!(of("$.quote")["legacy"], r#""***""#, "{diffs}");
        assert_eq!(of("$.code")["legacy"], r#""***""#, "{diffs}");
        assert_eq!(of("$.kunde")["legacy"], r#"{"code":"***"}"#, "{diffs}");
        assert_eq!(of("$.arr")["legacy"], r#"["***","***"]"#, "{diffs}");
        assert_eq!(of("$.n")["legacy"], r#""***""#, "{diffs}");
    }
    assert_eq!(pointsman.stop().await, Some(0));
    for text in ["PRIVPATH4", "ORDER4", SESSION, "LEGSESS", "4417\\\"", ":8812"] {
        assert!(!shown.contains(text), "{text} is shown: {shown}");
        assert!(!is_in_files(dir.path(), "db", text), "{text} is in the store");
    }
    assert!(is_in_files(dir.path(), "db", "plain-note"), "this test reads the right files");
}
