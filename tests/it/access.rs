//! Access control of the API; and recorded traffic: it contains no secret and is shown as inert text.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, cli, output_text};
use crate::support::raw_connection::{RawConnection, RawReply};
use crate::support::{FlagsDir, PROMOTE, Pointsman, until};

const LOOKER: &str = "looker-0123456789abcdef";
const MOVER: &str = "mover-0123456789abcdef";

/// Header fields of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

async fn send(to: &Pointsman, line: &str, headers: Headers<'_>, body: &Value) -> RawReply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let host = to.admin.to_string();
    let mut all = vec![("host", host.as_str()), ("content-type", "application/json")];
    for (name, value) in headers {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    let mut request = format!("{line} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in all {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("\r\n{body}");
    RawConnection::connect(to.admin).await.send(request).await.reply().await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_require_a_token_with_the_scope() {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| {
        text + "admin:\n  tokens:\n    - { name: looker, env: LOOKER, may: [read] }\n    - { name: mover, env: MOVER, may: [read, flip] }\n"
    });
    flags
        .write("workflows/make.yaml", "workflow: make\nsteps: { n: { set: 1 } }\nrespond: { status: 200, body: {} }\n");
    flags.write(
        "routes/things.yaml",
        "routes:\n- { id: things, match: { method: POST, path: /things }, legacy: shop, workflow: make, state: off }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let env = [("LOOKER", LOOKER), ("MOVER", MOVER)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let log = dir.path().join("log");
    let start = Start { flags: flags.path().to_owned(), store: "memory:".into(), log, env: env.to_vec() };
    let mut pointsman = Pointsman::start(&start).await;

    let (looker, mover) = (bearer(LOOKER), bearer(MOVER));
    let basic = format!("Basic {MOVER}");
    let evil = format!("evil.example:{}", pointsman.admin.port());
    let nearly = bearer(&MOVER[..MOVER.len() - 1]);
    let cases: [(&str, Headers<'_>, u16); 9] = [
        ("no token", &[], 401),
        ("an unknown token", &[("authorization", "Bearer mover")], 401),
        ("a truncated token", &[("authorization", &nearly)], 401),
        ("another scheme", &[("authorization", &basic)], 401),
        ("a token that may only look", &[("authorization", &looker)], 403),
        ("another site's page", &[("authorization", &mover), ("origin", "https://evil.example")], 403),
        ("a sandboxed page", &[("authorization", &mover), ("origin", "null")], 403),
        ("another host name (DNS rebinding)", &[("authorization", &mover), ("host", &evil)], 403),
        ("a form", &[("authorization", &mover), ("content-type", "text/plain")], 415),
    ];
    for (what, headers, status) in cases {
        let flip = send(&pointsman, "POST /api/v2/routes/things/flip", headers, &json!({ "to": "shadow" })).await;
        assert_eq!(flip.status, status, "flip with {what}: {}", String::from_utf8_lossy(&flip.body));
        let freeze = send(&pointsman, "POST /api/v2/freeze", headers, &json!({ "on": true })).await;
        assert_eq!(freeze.status, status, "freeze with {what}: {}", String::from_utf8_lossy(&freeze.body));
        let reload = send(&pointsman, "POST /api/v2/reload", headers, &json!({})).await;
        assert_eq!(reload.status, status, "reload with {what}: {}", String::from_utf8_lossy(&reload.body));
    }
    for path in ["status", "routes", "routes/things", "routes/things/diffs", "flips", "services", "orchestrate/runs"] {
        let line = format!("GET /api/v2/{path}");
        assert_eq!(send(&pointsman, &line, &[], &Value::Null).await.status, 401, "{path} without a token");
        assert_eq!(send(&pointsman, &line, &[("authorization", &looker)], &Value::Null).await.status, 200, "{path}");
    }
    let env = [("POINTSMAN_ADMIN", pointsman.admin_url()), ("POINTSMAN_TOKEN", LOOKER.to_owned())];
    let env = env.each_ref().map(|(k, v)| (*k, v.as_str()));
    let refused = cli(&["flip", "things", "shadow"], &env).await;
    assert_eq!(refused.status.code(), Some(1), "{}", output_text(&refused));
    assert!(!output_text(&refused).contains(LOOKER), "a token is never shown");
    let flips = send(&pointsman, "GET /api/v2/flips", &[("authorization", &looker)], &Value::Null).await;
    assert_eq!(flips.body, b"[]", "nothing was changed: {}", String::from_utf8_lossy(&flips.body));

    // With a token, its name is recorded, whatever name the request gives.
    let claims = [("authorization", mover.as_str()), ("x-pointsman-as", "root")];
    let flip = send(&pointsman, "POST /api/v2/routes/things/flip", &claims, &json!({ "to": "shadow" })).await;
    assert_eq!(flip.status, 200, "{}", String::from_utf8_lossy(&flip.body));
    let flips = send(&pointsman, "GET /api/v2/flips", &[("authorization", &looker)], &Value::Null).await;
    let flips: Value = serde_json::from_slice(&flips.body).expect("JSON");
    assert_eq!((&flips[0]["by"], &flips[0]["to"]), (&json!("mover"), &json!("shadow")));
    let log = pointsman.log();
    assert!(!log.contains(MOVER) && !log.contains(LOOKER), "no token in the log");
    assert_eq!(pointsman.stop().await, Some(0));
}

/// A secret that only legacy and, in a header, the service that a step calls may receive; nothing may record it.
const SECRET: &str = "hunter2-0d9f";

/// A reply of legacy that differs from the workflow's and contains secrets.
const REPLY: &str = r#"{"id":1,"token":"hunter2-0d9f","login":{"password":"hunter2-0d9f"},"next":"/x?api_key=hunter2-0d9f",
"session":["hunter2-0d9f"],"note":"<script>alert(1)</script>\u001b[2J"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_traffic_is_redacted_and_shown_as_inert_text() {
    let (legacy, who) =
        (Origin::start(OriginReply::Json(REPLY)).await, Origin::start(OriginReply::Json("{\"name\":\"a\"}")).await);
    let flags = FlagsDir::passthrough(&legacy.url());
    let key = "ab".repeat(32);
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:\n  shop: {}\n  who: {}\ndefault_legacy: shop\nstore_key: {{ env: KEY }}\n{PROMOTE}",
            legacy.url(),
            who.url()
        ),
    );
    flags.write(
        "workflows/make.yaml",
        "workflow: make\nsteps:\n  who:\n    call: GET ${services.who}/me\n    headers: { authorization: '${request.headers[\"authorization\"]}' }\n\
         respond: { status: 200, body: { id: 2, token: \"${run.id}\", note: \"<b>no</b>\", session: [1] } }\n",
    );
    flags.write(
        "routes/things.yaml",
        "routes:\n- id: things\n  match: { method: POST, path: /things }\n  legacy: shop\n  workflow: make\n  state: off\n  \
         compare: { headers: [set-cookie, content-type] }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", dir.path().join("db").display()),
        log: dir.path().join("log"),
        env: vec![("KEY".into(), key), ("POINTSMAN_LOG".into(), "debug".into())],
    };
    let mut pointsman = Pointsman::start(&start).await;
    let body = format!(r#"{{"password":"{SECRET}","card":{{"number":"{SECRET}"}},"name":"<i>me</i>"}}"#);
    let request = format!(
        "POST /things?access_token={SECRET}&page=2 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\ncookie: sid={SECRET}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for state in ["shadow", "dark", "live"] {
        let flipped = pointsman.cli(&["flip", "things", state, "--force", "--reason", "only secrets matter"]).await;
        assert!(flipped.status.success(), "{}", output_text(&flipped));
        for _ in 0..3 {
            let reply = RawConnection::connect(pointsman.listen).await.send(&request).await.reply().await;
            assert_eq!(reply.status, 200, "in {state}: {}", String::from_utf8_lossy(&reply.body));
        }
    }
    let shown = until("samples to be kept", || async {
        let reply = send(&pointsman, "GET /api/v2/routes/things/diffs", &[], &Value::Null).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        (text.contains("$.id") && text.contains("<script>")).then_some(text)
    })
    .await;
    assert!(!shown.contains(SECRET), "shown by the API: {shown}");
    let diffs = output_text(&pointsman.cli(&["diffs", "things"]).await);
    assert!(diffs.contains("$.id") && !diffs.contains(SECRET), "{diffs}");
    assert!(!diffs.contains('\u{1b}'), "recorded text cannot control a terminal: {diffs:?}");
    let runs = pointsman.get("/api/v2/orchestrate/runs?limit=20").await.to_string();
    assert!(!runs.contains(SECRET), "{runs}");
    assert_eq!(pointsman.stop().await, Some(0));
    let sent = who.seen();
    let bearer = bearer(SECRET);
    assert!(!sent.is_empty() && sent.iter().all(|seen| seen.header("authorization") == Some(&bearer)), "{sent:?}");
    assert!(!pointsman.log().contains(SECRET), "in the log");
    for file in files(dir.path()) {
        let bytes = std::fs::read(&file).expect("a readable file");
        let found = bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
        assert!(!found, "{} holds the secret", file.display());
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}
