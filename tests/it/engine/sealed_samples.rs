//! Samples show no declared sensitive value: not of a request that the workflow refuses, of a part that nothing reads,
//! or of a header, nor a part of a value before the cut of a long text. Asserts are evaluated with the real values.

use serde_json::{Value, json};

use super::sealed::is_in_files;
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::raw_connection::RawConnection;
use crate::support::{FlagsDir, PROMOTE, Pointsman, until};

const MEMO: &str = "memo-0123456789-ABCDEFGHIJKLMNOPQRSTUVWXYZ-memo";
const LONG_MEMO: &str = "long-memo-of-a-request-that-the-schema-refuses-because-it-is-long";
const EXTRA: &str = "extra-5521-nothing-reads-it";
const MARK: &str = "mark-31337-of-a-reply";

const MAKE: &str = r#"workflow: make
input:
  schema: { properties: { memo: { maxLength: 60 } } }
  sensitive: [$.memo, $.extra]
  sensitive_headers: [x-mark]
steps:
  charge:
    call: POST ${services.shop}/charges
    body: { full: "${request.body.memo}", part: "${request.body.memo.substring(0, 9)}" }
    rehearse: { id: 1 }
respond:
  status: 200
  headers: { x-last: "last ${request.body.memo.substring(4)}" }
  body: { id: 1 }
"#;

const ROUTES: &str = r#"routes:
- id: things
  match: { method: POST, path: /things }
  legacy: shop
  workflow: make
  state: shadow
  compare:
    headers: [x-mark, x-last]
    assert:
    - "${intents.charge.body.full == request.body.memo}"
    - "${intents.charge.body.full == intents.charge.body.part}"
    - "${int(intents.charge.body.part) == 1}"
"#;

/// Legacy's reply, which quotes the request.
fn reply(body: &Value) -> OriginReply {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
    OriginReply::Bytes(format!("{head}\r\nx-mark: {MARK}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_hide_all_that_is_declared_and_asserts_judge_the_values_themselves() {
    let quoted = json!({
        "id": 1,
        "echo": { "extra": EXTRA, "note": "plain-note" },
        "doc": { "pad": "x".repeat(454), "v": MEMO },
    });
    let legacy = Origin::start(reply(&quoted)).await;
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
        env: vec![("KEY".into(), "ab".repeat(32)), ("POINTSMAN_LOG".into(), "debug".into())],
    };
    let mut pointsman = Pointsman::start(&start).await;
    let post = async |body: Value| {
        let body = body.to_string();
        let head = format!("host: a\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        let request = format!("POST /things HTTP/1.1\r\n{head}\r\n\r\n{body}");
        let reply = RawConnection::connect(pointsman.listen).await.send(&request).await.reply().await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    };
    post(json!({ "memo": MEMO, "extra": EXTRA })).await;
    let groups = async |count: usize| {
        until("the samples", || async {
            let shown = pointsman.get("/api/v2/routes/things/diffs").await;
            (shown["groups"].as_array()?.len() == count).then_some(shown)
        })
        .await
    };
    let shown = groups(1).await;
    let differences = shown["groups"][0]["differences"].as_array().expect("a list").clone();
    let of = |path: &str| differences.iter().find(|found| found["path"] == path).cloned().unwrap_or_default();
    assert_eq!((&of("headers.x-mark")["legacy"], &of("headers.x-last")["engine"]), (&json!("***"), &json!("***")));
    assert_eq!(of("$.echo")["legacy"], r#"{"extra":"***","note":"plain-note"}"#);
    assert!(of("$.doc")["legacy"].as_str().is_some_and(|text| text.ends_with(r#"xx","v":"***"}"#)), "{differences:?}");
    let judged = |source: &str| of(&format!("assert ${{{source}}}"))["engine"].clone();
    assert_eq!(judged("intents.charge.body.full == request.body.memo"), Value::Null, "it holds");
    assert_eq!(judged("intents.charge.body.full == intents.charge.body.part"), "does not hold");
    assert_eq!(
        judged("int(intents.charge.body.part) == 1"),
        "cannot be evaluated: int(): the text is not a whole number"
    );
    // The workflow's schema refuses this request, legacy does not.
    legacy.script(reply(&json!({ "echo": LONG_MEMO, "note": "plain-refused" })), 1);
    post(json!({ "memo": LONG_MEMO, "extra": EXTRA })).await;
    let shown = groups(2).await.to_string();
    assert!(shown.contains("plain-refused"), "only what is sensitive is hidden: {shown}");
    let printed = output_text(&pointsman.cli(&["diffs", "things"]).await);
    assert_eq!(pointsman.stop().await, Some(0));
    for value in [&MEMO[..8], &MEMO[4..15], &LONG_MEMO[..12], &EXTRA[..10], &MARK[..10]] {
        assert!(!shown.contains(value) && !printed.contains(value), "{value} is shown: {shown}");
        assert!(!is_in_files(dir.path(), "db", value), "{value} is in the store");
        assert!(!pointsman.log().contains(value), "{value} is in the log");
    }
    assert!(is_in_files(dir.path(), "db", "plain-note"), "this test reads the right files");
}
