//! Sensitive values, and values computed from them, are not in the store in clear, and are still sent after a restart.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::{EngineTest, step};
use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::raw_connection::RawConnection;
use crate::support::step_service::ScriptedReply;
use crate::support::{FlagsDir, PROMOTE, Pointsman, until};

const TOKEN: &str = "tok-4711/secret value";

const USES: &str = "
workflow: uses
input: { sensitive: [$.card.number] }
steps:
  token: { call: 'POST ${services.works}/tokens', sensitive: [$.access_token] }
  use:
    needs: [token]
    call: POST ${services.works}/uses/${steps.token.output.access_token}
    headers: { x-token: 'Bearer ${steps.token.output.access_token}' }
    body: { token: '${steps.token.output.access_token}', card: '${request.body.card.number}' }
  go: { needs: [use], wait: { signal: go } }
  again:
    needs: [go]
    call: POST ${services.works}/agains
    body: { token: '${steps.token.output.access_token}', card: '${request.body.card.number}' }
respond: { status: 200, body: { token: '${steps.token.output.access_token}' } }
";

/// Whether a text is in any of the store's files.
pub(super) fn is_in_store(test: &EngineTest, text: &str) -> bool {
    is_in_files(test.dir.path(), "pointsman.db", text)
}

/// Whether a text is in any file of this directory whose file name starts with `prefix`.
pub(super) fn is_in_files(dir: &Path, prefix: &str, text: &str) -> bool {
    let files = std::fs::read_dir(dir).expect("readable").flatten();
    // The socket for a successor stands beside the store.
    let files = files.filter(|file| file.file_type().expect("a type").is_file());
    let found = files.filter(|file| file.file_name().to_string_lossy().starts_with(prefix));
    found
        .map(|file| std::fs::read(file.path()).expect("readable"))
        .any(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_step_fetched_is_not_in_clear_in_the_store() {
    const KEY: &str = "store_key: { file: store.key }\n";
    let key = |flags: &crate::support::FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    let mut test = EngineTest::with_settings(KEY, &[USES], key).await;
    test.step_service
        .set_default("POST /tokens", ScriptedReply::Done(200, json!({ "access_token": TOKEN, "expires": 3600 })));
    let run = test.start_run("uses", json!({ "card": { "number": "4000-1234-5678-9010" } })).await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;
    // The services received the values in clear, before and after the restart.
    let (used, again) = (test.step_service.seen("POST /uses"), test.step_service.seen("POST /agains"));
    let body = json!({ "token": TOKEN, "card": "4000-1234-5678-9010" });
    assert_eq!((used[0].json(), again[0].json()), (body.clone(), body), "{data}");
    assert_eq!(used[0].headers["x-token"], format!("Bearer {TOKEN}").as_str());
    // The values are not in the run as shown nor in the store; everything else is readable.
    let shown = format!("{data} {}", serde_json::to_string(&test.events(&run).await).unwrap());
    for secret in [TOKEN, "tok-4711%2Fsecret", "4000-1234-5678-9010"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
        assert!(!is_in_store(&test, secret), "{secret} is in the store");
    }
    assert!(shown.contains("«sealed:") && shown.contains("3600"), "{shown}");
    assert!(is_in_store(&test, "expires"), "this test reads the right files");
    // Without a key nothing can be sealed, and the files are refused.
    test.flags.edit("pointsman.yaml", |text| text.replace(KEY, ""));
    let flags = test.flags.path().display().to_string();
    let (code, output) = test.cli_output(&["check", &flags]).await;
    assert_eq!((code, output.matches("there is no `store_key` to seal it with").count()), (Some(1), 2), "{output}");
    test.finish().await;
}

/// A workflow that uses sensitive values in many ways.
const COMPUTES: &str = r#"
workflow: computes
notify: ${services.works}/hooks
steps:
  token: { call: "POST ${services.works}/tokens", sensitive: [$.access_token] }
  made:
    set:
      upper: "${steps.token.output.access_token.upperAscii()}"
      part: "${steps.token.output.access_token.substring(4, 15)}"
      plain: "${steps.token.output.expires}"
  use:
    call: POST ${services.works}/uses/${steps.made.output.upper}
    headers: { x-token: "Bearer ${steps.made.output.upper}" }
    body: { part: "${steps.made.output.part}", plain: "${steps.made.output.plain}", nested: ["${steps.made.output.part}"] }
  form: { call: "POST ${services.works}/forms", form: { a: "${steps.made.output.part}", b: "plain" } }
  each:
    for_each: "${[steps.made.output.upper, steps.made.output.part]}"
    call: POST ${services.works}/eaches
    body: { x: "${item}" }
  below: { run: below, input: { secret: "${steps.made.output.upper}", plain: 7 } }
  above: { set: "${'above:' + steps.below.output.own.upperAscii()}" }
  bad:
    needs: [use, form, each, above]
    set: '${ {"a": 1}[steps.made.output.part] }'
  ask:
    needs: [bad]
    checkpoint: { question: "Is ${steps.made.output.upper} right?" }
  otp: { needs: [ask], wait: { signal: otp }, sensitive: [$.code] }
  late: { needs: [otp], call: "POST ${services.works}/lates", body: { part: "${steps.made.output.part}" } }
  more:
    needs: [late]
    call: POST ${services.works}/mores
    body: { pin: "${steps.ask.output.pin.upperAscii()}", code: "${'c' + steps.otp.output.code}", above: "${steps.above.output}" }
respond:
  status: 200
  headers: { x-upper: "${steps.made.output.upper}" }
  body: { upper: "${steps.made.output.upper}", parts: ["${steps.made.output.part}"], plain: "${steps.made.output.plain}" }
"#;

/// A child workflow that receives a sensitive value and has one of its own.
const BELOW: &str = r#"
workflow: below
steps:
  own: { call: "POST ${services.works}/owns", sensitive: [$.key] }
  mine: { set: "${'mine:' + request.body.secret.lowerAscii()}" }
  send:
    call: POST ${services.works}/belows
    body: { mine: "${steps.mine.output}", secret: "${request.body.secret}", plain: "${request.body.plain}" }
respond: { status: 200, body: { own: "${steps.own.output.key}", plain: "${request.body.plain}" } }
"#;

/// Texts that must not be in the store nor be shown: the token, the key that a child run gets from its service, values
/// computed from both, values that people typed.
const HIDDEN: [&str; 17] = [
    TOKEN,
    "4711/secret",
    "4711%2Fsecret",
    "TOK-4711",
    "tok-4711",
    "ownkey-5512-b",
    "OWNKEY-5512-B",
    "taken-6631-typed",
    "pin-90210-typed",
    "PIN-90210-TYPED",
    "note-7745-typed",
    "otp-331-771-9",
    "adjusted-8871-x",
    "reason-4410-typed",
    "secret value",
    "SECRET VALUE",
    "cotp",
];

async fn assert_hidden(test: &EngineTest, run: &str, at: &str) {
    let (data, events) = (test.data(run).await, test.events(run).await);
    let explained = test.pointsman.get(&format!("{run}/explain")).await;
    let hooks: Vec<String> = test.step_service.seen("POST /hooks").into_iter().map(|hook| hook.text).collect();
    let shown = format!("{data}\n{}\n{explained}\n{hooks:?}", Value::from(events));
    for text in HIDDEN {
        assert!(!is_in_store(test, text), "{at}: {text} is in the store");
        let around = shown.find(text).map(|start| shown.get(start.saturating_sub(300)..start + 60).unwrap_or(&shown));
        assert!(around.is_none(), "{at}: {text} is shown: {around:?}");
        assert!(!test.pointsman.log().contains(text), "{at}: {text} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_computed_from_a_sensitive_value_or_typed_in_its_place_are_not_in_clear_either() {
    const KEY: &str = "store_key: { file: store.key }\n";
    let key = |flags: &FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    let mut test = EngineTest::with_settings(KEY, &[COMPUTES, BELOW], key).await;
    let (works, upper, part) = (&test.step_service, TOKEN.to_ascii_uppercase(), "4711/secret");
    works.set_default("POST /tokens", ScriptedReply::Done(200, json!({ "access_token": TOKEN, "expires": 3600 })));
    works.set_default("POST /owns", ScriptedReply::Done(200, json!({ "key": "ownkey-5512-b" })));
    let run = test.start_run("computes", json!({})).await;
    // The error of an expression quotes the value that it read; the run pauses for a person's decision.
    let data = test.wait_for_status(&run, "paused").await;
    assert_hidden(&test, &run, "paused").await;
    assert_eq!(step(&data, "use")["status"], "done", "{data}");
    let used = &test.step_service.seen("POST /uses")[0];
    assert_eq!(used.json(), json!({ "part": part, "plain": 3600, "nested": [part] }));
    assert_eq!(used.headers["x-token"], format!("Bearer {upper}").as_str());
    assert_eq!(test.step_service.seen("POST /forms")[0].text, "a=4711%2Fsecret&b=plain");
    let below = json!({ "mine": "mine:tok-4711/secret value", "secret": upper, "plain": 7 });
    assert_eq!(test.step_service.seen("POST /belows")[0].json(), below);
    test.kill_and_restart().await;
    let children = test.pointsman.get("/api/v2/orchestrate/runs?workflow=below").await;
    let child = children["runs"][0]["run_id"].as_str();
    assert_hidden(&test, &format!("{}/{}", super::RUN, child.expect("an id")), "of the child").await;
    let take = json!({ "step": "bad", "choice": "take", "output": { "v": "taken-6631-typed" }, "reason": "reason-4410-typed" });
    test.post_accepted(&format!("{run}/resolve"), take).await;
    let data = test.wait_for_status(&run, "waiting_checkpoint").await;
    assert_hidden(&test, &run, "asked").await;
    let checkpoint = data["pending_checkpoint"]["id"].as_str().expect("an id");
    let answer_body = json!({ "approve": true, "values": { "pin": "pin-90210-typed" }, "note": "note-7745-typed" });
    let answer = format!("{run}/checkpoints/{checkpoint}");
    test.post_accepted(&answer, answer_body.clone()).await;
    let second = test.post(&answer, json!({ "approve": false })).await.1.to_string();
    assert!(!second.contains("typed"), "the reply to a second answer does not show what the first one typed: {second}");
    test.wait_for_status(&run, "waiting_signal").await;
    let adjusted = json!({ "part": "adjusted-8871-x", "n": 1 });
    test.post_accepted(&format!("{run}/adjust"), json!({ "step": "late", "input": adjusted })).await;
    test.kill_and_restart().await;
    test.step_service.hold("POST /mores");
    test.post_accepted(&format!("{run}/signals/otp"), json!({ "payload": { "code": "otp-331-771-9" } })).await;
    // The process is killed while a call is in flight: the same bytes are sent again.
    test.wait_for_calls("POST /mores", 1).await;
    assert_hidden(&test, &run, "under way").await;
    test.kill().await;
    test.step_service.release_all("POST /mores");
    test.restart().await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_hidden(&test, &run, "completed").await;
    assert_eq!(test.step_service.seen("POST /lates")[0].json(), adjusted, "{data}");
    let sent = test.step_service.seen("POST /mores");
    let more = json!({ "pin": "PIN-90210-TYPED", "code": "cotp-331-771-9", "above": "above:OWNKEY-5512-B" });
    assert!(sent.len() > 1 && sent.iter().all(|call| call.json() == more && call.text == sent[0].text), "{sent:?}");
    assert!(sent.iter().all(|call| call.key == sent[0].key), "{sent:?}");
    let shown = format!("{data} {}", Value::from(test.events(&run).await));
    assert!(shown.contains("3600") && shown.contains("«sealed:"), "the rest is as readable as ever: {shown}");
    test.finish().await;
}

/// A workflow without `sensitive:` that starts a child with it.
const OUTER: &str = r#"
workflow: outer
steps:
  below: { run: below, input: { secret: plain-input, plain: 1 } }
  made: { set: "${'o:' + steps.below.output.own.upperAscii()}" }
  go: { needs: [made], wait: { signal: go } }
  send: { needs: [go], call: "POST ${services.works}/sends", body: { v: "${steps.made.output}" } }
respond: { status: 200, body: { made: "${steps.made.output}" } }
"#;

const KEEPER: &str = r#"
workflow: keeper
input: { sensitive: [$.iban] }
steps:
  own: { call: "POST ${services.works}/owns", sensitive: [$.key] }
respond: { status: 201, body: { id: "${run.id}", key: "${steps.own.output.key}", iban: "${request.body.iban}" } }
"#;

/// A workflow without `sensitive:` that follows up an instance of a workflow with it.
const FOLLOWER: &str = r#"
workflow: follower
steps:
  made: { set: "${'f:' + instance.input.iban.upperAscii() + instance.output.key.upperAscii()}" }
  ping: { call: "POST ${services.works}/pings", body: { v: "${steps.made.output}" } }
respond: { status: 200, body: { id: "${instance.id}", made: "${steps.made.output}" } }
"#;

const ORDER_ROUTES: &str = "routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: plain, workflow: keeper, state: live,
    force: { reason: a test }, instance: { creates: $.id } }
- { id: orders.check, match: { method: POST, path: '/orders/{id}/check' }, legacy: plain, workflow: follower, state: live,
    force: { reason: a test }, instance: { follows: orders.create, key: path.id } }
";

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_hand_to_each_other_stays_sealed_where_only_one_of_them_declares_it() {
    let mut test =
        EngineTest::with_settings("store_key: { file: store.key }\n", &[OUTER, BELOW, KEEPER, FOLLOWER], |flags| {
            flags.write("store.key", &"0123456789abcdef".repeat(4));
            flags.write("routes/orders.yaml", ORDER_ROUTES);
        })
        .await;
    let hidden = ["ownkey-5512-b", "OWNKEY-5512-B", "iban-7702-typed", "IBAN-7702-TYPED"];
    test.step_service.set_default("POST /owns", ScriptedReply::Done(200, json!({ "key": "ownkey-5512-b" })));
    let run = test.start_run("outer", json!({})).await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.seen("POST /sends")[0].json(), json!({ "v": "o:OWNKEY-5512-B" }), "{data}");
    let mut shown = format!("{data} {}", Value::from(test.events(&run).await));
    assert!(shown.contains("plain-input"), "what is not sensitive is as readable as ever: {shown}");
    let url = |path: &str| format!("http://{}{path}", test.pointsman.listen);
    let order = json!({ "iban": "iban-7702-typed" });
    let created = test.client.json(Method::POST, &url("/orders"), &[], &order).await.expect("an answer");
    let answer = json!({ "id": created.json()["id"], "key": "ownkey-5512-b", "iban": "iban-7702-typed" });
    assert_eq!((created.status.as_u16(), created.json()), (201, answer), "{}", test.pointsman.log());
    let path = format!("/orders/{}/check", created.json()["id"].as_str().expect("an id"));
    let checked = test.client.json(Method::POST, &url(&path), &[], &json!({})).await.expect("an answer");
    let made = "f:IBAN-7702-TYPEDOWNKEY-5512-B";
    assert_eq!((checked.status.as_u16(), &checked.json()["made"]), (200, &json!(made)), "{}", test.pointsman.log());
    assert_eq!(test.step_service.seen("POST /pings")[0].json(), json!({ "v": made }));
    for workflow in ["keeper", "follower", "below"] {
        let list = test.pointsman.get(&format!("/api/v2/orchestrate/runs?workflow={workflow}")).await;
        let run = format!("{}/{}", super::RUN, list["runs"][0]["run_id"].as_str().expect("a run"));
        shown += &format!("{} {}", test.data(&run).await, Value::from(test.events(&run).await));
    }
    for text in hidden {
        assert!(!is_in_store(&test, text), "{text} is in the store");
        assert!(!shown.contains(text), "{text} is shown: {shown}");
    }
    test.finish().await;
}

/// The value of `memo` in the request. The engine returns it in upper case, legacy returns [`LEGACY_MEMO`].
const MEMO: &str = "memo-1187 of a caller";
const LEGACY_MEMO: &str = "legacy-memo-2298";
const LEGACY_NOTE: &str = "legacy-note-3309";
/// Sensitive values that no expression reads; legacy quotes them.
const PIN: &str = "pin-5567-of a caller";
const SESSION: &str = "sess-8891-of-a-caller";

#[tokio::test(flavor = "multi_thread")]
async fn samples_do_not_show_sensitive_values_of_either_arm() {
    let quote = format!("{PIN} in {SESSION}");
    let reply = json!({ "id": 1, "memo": LEGACY_MEMO, "note": LEGACY_NOTE, "total": 5, "quote": quote }).to_string();
    let legacy = Origin::start(OriginReply::Json(Box::leak(reply.into_boxed_str()))).await;
    let flags = FlagsDir::passthrough(&legacy.url());
    let shop = legacy.url();
    flags.write(
        "pointsman.yaml",
        &format!("services:\n  shop: {shop}\ndefault_legacy: shop\nstore_key: {{ env: KEY }}\n{PROMOTE}"),
    );
    flags.write(
        "workflows/make.yaml",
        r#"workflow: make
input: { sensitive: [$.memo, $.pin], sensitive_headers: [x-session] }
steps:
  note:
    call: POST ${services.shop}/notes/${request.body.memo}
    body: { memo: "${request.body.memo.upperAscii()}" }
    sensitive: [$.note]
    rehearse: { note: "${legacy.body.note}" }
  made: { set: "${request.body.memo.upperAscii()}" }
respond:
  status: 200
  body: { id: 2, memo: "${steps.made.output}", note: "${steps.note.output.note + '!'}", total: 6 }
"#,
    );
    flags.write(
        "routes/things.yaml",
        "routes:\n- id: things\n  match: { method: POST, path: /things }\n  legacy: shop\n  workflow: make\n  state: off\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", dir.path().join("db").display()),
        log: dir.path().join("log"),
        env: vec![("KEY".into(), "ab".repeat(32)), ("POINTSMAN_LOG".into(), "debug".into())],
    };
    let mut pointsman = Pointsman::start(&start).await;
    let body = json!({ "memo": MEMO, "name": "me", "pin": PIN }).to_string();
    let head = format!("POST /things HTTP/1.1\r\nhost: a\r\nx-session: {SESSION}\r\ncontent-type: application/json");
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for state in ["shadow", "dark"] {
        let flipped = pointsman.cli(&["flip", "things", state, "--force", "--reason", "only samples matter"]).await;
        assert!(flipped.status.success(), "{}", output_text(&flipped));
        for _ in 0..2 {
            let reply = RawConnection::connect(pointsman.listen).await.send(&request).await.reply().await;
            assert_eq!(reply.status, 200, "in {state}: {}", String::from_utf8_lossy(&reply.body));
        }
    }
    let shown = until("samples to be kept", || async {
        let text = pointsman.get("/api/v2/routes/things/diffs").await.to_string();
        (text.contains("$.memo") && text.contains("$.total")).then_some(text)
    })
    .await;
    until("a dark run", || async {
        let runs = pointsman.get("/api/v2/orchestrate/runs?limit=20").await.to_string();
        runs.contains("completed").then_some(())
    })
    .await;
    assert_eq!(pointsman.stop().await, Some(0));
    assert!(shown.contains("$.quote"), "{shown}");
    for text in [MEMO, "MEMO-1187", LEGACY_MEMO, LEGACY_NOTE, "memo-1187", PIN, SESSION] {
        assert!(!shown.contains(text), "{text} is shown: {shown}");
        assert!(!is_in_files(dir.path(), "db", text), "{text} is in the store");
        assert!(!pointsman.log().contains(text), "{text} is in the log");
    }
}

/// A service may quote what it was sent: in an error, or in a reply that the run goes on with.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_service_quotes_is_neither_stored_nor_shown() {
    const SECRET: &str = "bank-Key-7c1f-22d0";
    const QUOTED: &str = "
workflow: quoted
steps:
  fine: { call: 'POST ${services.works}/fine?key=${secrets.bank}', body: {} }
  refused:
    needs: [fine]
    call: POST ${services.works}/refused
    headers: { authorization: 'Bearer ${secrets.bank}' }
    body: { heard: '${steps.fine.output.heard}' }
    on_failure: pause
respond: { status: 200, body: {} }
";
    let settings = "secrets: { bank: { file: bank.secret } }\n";
    let test = EngineTest::with_settings(settings, &[QUOTED], |flags| flags.write("bank.secret", SECRET)).await;
    let quote = json!({ "heard": format!("/fine?key={SECRET}") });
    test.step_service.script("POST /fine", ScriptedReply::Done(200, quote), 1);
    let error = json!({ "error": format!("unknown token {SECRET}") });
    test.step_service.script("POST /refused", ScriptedReply::RefuseWith(401, Vec::new(), error), 1);
    let run = test.start_run("quoted", json!({})).await;
    let data = test.wait_for_status(&run, "paused").await;
    assert!(data.to_string().contains("unknown token ***"), "{data}");
    assert!(!data.to_string().contains(SECRET), "{data}");
    assert!(!is_in_store(&test, SECRET));
    let calls = test.step_service.seen("POST /refused");
    assert_eq!(calls[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(calls[0].json()["heard"], "/fine?key=***");
    test.finish().await;
}

/// A workflow that declares nothing as sensitive. Its lock is named after the input that it is handed.
const LOCKING: &str = r#"
workflow: locking
steps:
  use:
    call: POST ${services.works}/uses
    body: { card: "${request.body.card}" }
    lock: { key: "card:${request.body.card}" }
respond: { status: 200 }
"#;

const CARRYING: &str = r#"
workflow: carrying
input: { sensitive: [$.card] }
steps:
  sub: { run: locking, input: { card: "${request.body.card}" } }
respond: { status: 200 }
"#;

/// Writes the names of locks as versions before this one did: in clear, in the table of locks and in the events.
async fn write_lock_names_in_clear(test: &EngineTest, clear: &str) {
    let file = SqliteConnectOptions::new().filename(test.dir.path().join("pointsman.db"));
    let mut database = file.connect().await.expect("it opens");
    let renamed = sqlx::query("UPDATE locks SET name = ? WHERE name LIKE 'sensitive:%'").bind(clear);
    assert_eq!(renamed.execute(&mut database).await.expect("they are renamed").rows_affected(), 2);
    let appends = sqlx::query_as("SELECT pos, events FROM appends WHERE CAST(events AS TEXT) LIKE '%lock_queued%'");
    let appends: Vec<(i64, Vec<u8>)> = appends.fetch_all(&mut database).await.expect("the events");
    for (pos, events) in appends {
        let mut text = String::from_utf8(events).expect("text");
        // Each event of a lock ends with its name.
        while let Some(at) = text.find("\"name\":\"«sealed:") {
            let ends = at + text[at..].find('»').expect("its end") + '»'.len_utf8();
            text.replace_range(at..ends, &format!("\"name\":\"{clear}"));
        }
        assert!(text.contains(clear), "{text}");
        let write = sqlx::query("UPDATE appends SET events = ? WHERE pos = ?").bind(text.into_bytes()).bind(pos);
        write.execute(&mut database).await.expect("they are written");
    }
}

async fn rows_of_locks(test: &EngineTest) -> i64 {
    let file = SqliteConnectOptions::new().filename(test.dir.path().join("pointsman.db"));
    let mut database = file.connect().await.expect("it opens");
    sqlx::query_scalar("SELECT count(*) FROM locks").fetch_one(&mut database).await.expect("a number")
}

/// The name of a lock that is computed from a sensitive value of another run is nowhere in clear. The lock still
/// excludes other runs: after a restart, also if an earlier version wrote its rows in clear, and runs that compute the
/// same name from a value that is not sensitive.
#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_lock_is_not_in_clear_where_it_is_computed_from_a_sensitive_value() {
    const CARD: &str = "4000-1234-5678-9010";
    for is_old in [false, true] {
        let mut test = EngineTest::with_settings("store_key: { file: store.key }\n", &[LOCKING, CARRYING], |flags| {
            flags.write("store.key", &"0123456789abcdef".repeat(4));
        })
        .await;
        test.step_service.hold("POST /uses");
        let first = test.start_run("carrying", json!({ "card": CARD })).await;
        test.wait_for_calls("POST /uses", 1).await;
        let second = test.start_run("carrying", json!({ "card": CARD })).await;
        until("the second child to queue", || async { (rows_of_locks(&test).await == 2).then_some(()) }).await;
        let mut shown = String::new();
        let list = test.pointsman.get("/api/v2/orchestrate/runs?workflow=locking").await;
        for child in list["runs"].as_array().expect("a list") {
            let child = format!("{}/{}", super::RUN, child["run_id"].as_str().expect("an id"));
            let explained = test.pointsman.get(&format!("{child}/explain")).await;
            shown += &format!("{explained} {} {}", test.data(&child).await, Value::from(test.events(&child).await));
        }
        assert!(shown.contains("the lock `sensitive:") && shown.contains("lock_queued"), "{shown}");
        assert!(!shown.contains(CARD) && !test.pointsman.log().contains(CARD), "{shown}");
        assert!(!is_in_store(&test, CARD) && is_in_store(&test, "sensitive:"), "it is in the store");
        test.kill().await;
        if is_old {
            write_lock_names_in_clear(&test, &format!("card:{CARD}")).await;
        }
        test.restart().await;
        // The first call is sent again, since its service is `keyed`.
        test.wait_for_calls("POST /uses", 2).await;
        // This run computes the name from a value that is not sensitive.
        let third = test.start_run("locking", json!({ "card": CARD })).await;
        until("the third to queue", || async { (rows_of_locks(&test).await == 3).then_some(()) }).await;
        let explained = test.pointsman.get(&format!("{third}/explain")).await.to_string();
        assert!(explained.contains("queue of the lock") && explained.contains("1 is queued before it"), "{explained}");
        assert_eq!(test.step_service.count("POST /uses"), 2, "the others wait");
        test.step_service.release_all("POST /uses");
        for run in [&first, &second, &third] {
            test.wait_for_status(run, "completed").await;
        }
        assert_eq!((test.step_service.count("POST /uses"), rows_of_locks(&test).await), (4, 0));
        test.finish().await;
    }
}

/// A workflow that makes texts from a sensitive value, which is too short to be searched for within longer texts.
const SHORT: &str = r#"
workflow: short
notify: ${services.works}/hooks
input: { sensitive: [$.pin] }
steps:
  ask: { checkpoint: { question: "${request.body.pin}?" } }
  use:
    needs: [ask]
    call: POST ${services.works}/uses/${request.body.pin}
    lock: { key: "${request.body.pin}", busy: cancel }
respond: { status: 200, body: done }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_made_from_a_short_sensitive_value_is_shown_nowhere() {
    const PIN: &str = "#A7Q";
    let test = EngineTest::with_settings("store_key: { file: store.key }\n", &[SHORT], |flags| {
        flags.write("store.key", &"0123456789abcdef".repeat(4));
    })
    .await;
    test.step_service.hold("POST /uses");
    let first = test.start_run("short", json!({ "pin": PIN })).await;
    let waiting = test.wait_for_status(&first, "waiting_checkpoint").await;
    let list = test.pointsman.get("/api/v2/orchestrate/runs").await;
    assert_eq!(list["runs"][0]["note"], "`ask`: ***", "{list}");
    let (_, listed) = test.cli_output(&["runs", "list"]).await;
    let shown_run = test.cli(&["runs", "show", super::id(&first)]).await;
    assert!(shown_run.contains("asked in ask (question, risk medium): ***\n"), "{shown_run}");
    let (_, explained) = test.cli_output(&["explain", super::id(&first)]).await;
    assert!(explained.contains("`ask` waits for anybody who may decide: ***"), "{explained}");
    until("the webhook", || async { (test.step_service.effects("POST /hooks") >= 1).then_some(()) }).await;
    let notice = test.step_service.seen("POST /hooks")[0].json();
    assert_eq!((&notice["step"], &notice["question"]), (&json!("ask"), &json!("***")), "{notice}");
    let mut shown = format!("{waiting} {list} {listed} {explained} {notice}");

    let checkpoint = waiting["pending_checkpoint"]["id"].as_str().expect("a checkpoint").to_owned();
    test.post_accepted(&format!("{first}/checkpoints/{checkpoint}"), json!({ "approve": true })).await;
    test.wait_for_calls("POST /uses", 1).await;
    let explained = test.explanation(&first).await;
    assert!(explained.contains("is under way (POST ***)"), "{explained}");
    let second = test.start_run("short", json!({ "pin": PIN })).await;
    let waiting = test.wait_for_status(&second, "waiting_checkpoint").await;
    let checkpoint = waiting["pending_checkpoint"]["id"].as_str().expect("a checkpoint").to_owned();
    test.post_accepted(&format!("{second}/checkpoints/{checkpoint}"), json!({ "approve": true })).await;
    let cancelled = test.wait_for_status(&second, "cancelled").await;
    let list = test.pointsman.get("/api/v2/orchestrate/runs?status=cancelled").await;
    assert_eq!(list["runs"][0]["note"], "`use` cancelled it: ***", "{list}");
    test.step_service.release_all("POST /uses");
    let done = test.wait_for_status(&first, "completed").await;
    shown += &format!("{explained} {cancelled} {list} {done} {}", Value::from(test.events(&second).await));
    assert!(!shown.contains(PIN) && !test.pointsman.log().contains(PIN), "{shown}");
    assert!(!is_in_store(&test, PIN) && is_in_store(&test, "checkpoint_opened"), "it is in the store");
    let store = format!("sqlite:{}", test.dir.path().join("pointsman.db").display());
    let (code, checked) = test.cli_output(&["store", "check", "--store", &store]).await;
    assert_eq!(code, Some(0), "{checked}");
    test.finish().await;
}
