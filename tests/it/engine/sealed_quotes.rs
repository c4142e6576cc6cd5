//! A service returns a declared sensitive value at a place that is not declared: values that a workflow computes from
//! the reply are sealed too, in the run, its child runs, its parent, runs that follow up its instance, and the table of
//! locks.

use http::Method;
use serde_json::{Value, json};

use super::sealed::is_in_store;
use super::{EngineTest, RUN};
use crate::support::FlagsDir;
use crate::support::step_service::ScriptedReply;

const TOKEN: &str = "token-5521-of-a-service";
const NUMBER: u64 = 4_111_222_233_334_444;

const ABOVE: &str = r#"
workflow: above
input: { sensitive: [$.card] }
steps:
  token: { call: "POST ${services.works}/tokens", body: { card: "${request.body.card}" }, sensitive: [$.access_token] }
  echo: { needs: [token], call: "POST ${services.works}/echoes" }
  own:
    run: middle
    input: { reply: "${steps.echo.output}", note: "${request.body.note}" }
respond: { status: 200, body: { own: "${steps.own.output}" } }
"#;

const MIDDLE: &str = r#"
workflow: middle
steps:
  below: { run: below, input: { list: ["${request.body}"] } }
respond: { status: 200, body: { auth: "${request.body.reply.auth}" } }
"#;

const BELOW: &str = r#"
workflow: below
steps:
  use:
    call: POST ${services.works}/uses
    headers: { authorization: "${request.body.list[0].reply.auth}" }
    body: { numbers: "${request.body.list[0].reply.numbers}", note: "${request.body.list[0].note}" }
respond: { status: 200, body: { plain: "${request.body.list[0].reply.plain}" } }
"#;

const LOCKS: &str = r#"
workflow: locks
steps:
  token: { call: "POST ${services.works}/tokens", sensitive: [$.access_token] }
  echo: { needs: [token], call: "POST ${services.works}/echoes" }
  use: { lock: { key: "${steps.echo.output.auth}" }, call: "POST ${services.works}/uses" }
respond: { status: 200 }
"#;

async fn test_of(workflows: &[&str]) -> EngineTest {
    let key = |flags: &FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    let test = EngineTest::with_settings("store_key: { file: store.key }\n", workflows, key).await;
    test.step_service.set_default("POST /tokens", ScriptedReply::Done(200, json!({ "access_token": TOKEN })));
    let echo = json!({ "auth": format!("Bearer {TOKEN}"), "numbers": [1, NUMBER], "plain": "readable" });
    test.step_service.set_default("POST /echoes", ScriptedReply::Done(200, echo));
    test
}

/// Everything that the API shows of all runs.
async fn shown(test: &EngineTest) -> String {
    let list = test.pointsman.get("/api/v2/orchestrate/runs").await;
    let mut text = list.to_string();
    for row in list["runs"].as_array().expect("a list") {
        let run = format!("{RUN}/{}", row["run_id"].as_str().expect("an id"));
        let (data, explained) = (test.data(&run).await, test.pointsman.get(&format!("{run}/explain")).await);
        text += &format!("{data} {explained} {}", Value::from(test.events(&run).await));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_a_service_returned_is_sealed_in_runs_that_get_it_as_input() {
    let test = test_of(&[ABOVE, MIDDLE, BELOW]).await;
    let input = json!({ "card": NUMBER, "note": format!("bill {NUMBER} please") });
    let run = test.start_run("above", input).await;
    let data = test.wait_for_status(&run, "completed").await;
    let used = test.step_service.seen("POST /uses");
    assert_eq!(used[0].headers["authorization"], format!("Bearer {TOKEN}").as_str(), "{data}");
    let body = json!({ "numbers": [1, NUMBER], "note": format!("bill {NUMBER} please") });
    assert_eq!(used[0].json(), body, "the service gets it in clear");
    let shown = shown(&test).await;
    for secret in [TOKEN.to_owned(), NUMBER.to_string()] {
        assert!(!is_in_store(&test, &secret), "{secret} is in the store");
        assert!(!shown.contains(&secret), "{secret}: {shown}");
    }
    assert!(is_in_store(&test, "readable") && shown.contains("readable"), "{shown}");
    test.finish().await;
}

const UNREAD: &str = r#"
workflow: unread
input: { sensitive: [$.card] }
steps:
  use: { call: "POST ${services.works}/uses", body: { note: "${request.body.note}" } }
respond: { status: 200, body: { note: "${request.body.note}" } }
"#;

/// A run keeps only the parts of the request that an expression reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_s_quote_of_a_declared_value_is_sealed_also_if_nothing_reads_the_value_itself() {
    let test = test_of(&[UNREAD]).await;
    let run = test.start_run("unread", json!({ "card": NUMBER, "note": format!("bill {NUMBER} please") })).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.seen("POST /uses")[0].json(), json!({ "note": format!("bill {NUMBER} please") }));
    let shown = shown(&test).await;
    assert!(!shown.contains(&NUMBER.to_string()) && !is_in_store(&test, &NUMBER.to_string()), "{shown}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_with_such_a_value_in_its_name_is_stored_as_a_hash_and_released() {
    let mut test = test_of(&[LOCKS]).await;
    test.step_service.hold("POST /uses");
    let first = test.start_run("locks", json!({})).await;
    test.wait_for_calls("POST /uses", 1).await;
    let second = test.start_run("locks", json!({})).await;
    test.wait_for_events(&second, "lock_queued", 1).await;
    let shown = shown(&test).await;
    assert!(!shown.contains(TOKEN) && !is_in_store(&test, TOKEN), "{shown}");
    // The next process releases the locks that the killed one stored.
    test.kill().await;
    test.step_service.release_all("POST /uses");
    test.restart().await;
    for run in [&first, &second] {
        test.wait_for_status(run, "completed").await;
    }
    assert!(!is_in_store(&test, TOKEN));
    test.finish().await;
}

const BOTTOM: &str = r#"
workflow: bottom
steps:
  token: { call: "POST ${services.works}/tokens", sensitive: [$.access_token] }
respond: { status: 200, body: { t: "${steps.token.output.access_token}" } }
"#;

/// Declares nothing as sensitive, and gets the token from its child run.
const MID: &str = r#"
workflow: mid
steps:
  b: { run: bottom }
  echo: { needs: [b], call: "POST ${services.works}/echoes", body: { t: "${steps.b.output.t}" } }
  stop: { if: "${request.body.fails}", fail: { status: 402, body: { auth: "${steps.echo.output.auth}" } } }
respond: { status: 201, body: { id: "${run.id}", auth: "${steps.echo.output.auth}", plain: "${steps.echo.output.plain}" } }
"#;

const TOP: &str = r#"
workflow: top
steps:
  m: { run: mid, input: { fails: false } }
  use: { call: "POST ${services.works}/uses", body: { a: "${steps.m.output.auth}", plain: "${steps.m.output.plain}" } }
respond: { status: 200, body: { auth: "${steps.m.output.auth}" } }
"#;

const TOP_OF_FAILED: &str = r#"
workflow: topoffailed
steps:
  m: { run: mid, input: { fails: true } }
respond:
  - { when: "${failed.step == 'm'}", status: 402, body: { message: "${failed.message}" } }
  - { status: 200 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_sealed_in_the_parent_where_it_quotes_a_value_of_a_child_run() {
    let mut test = test_of(&[BOTTOM, MID, TOP, TOP_OF_FAILED]).await;
    let run = test.start_run("top", json!({})).await;
    test.wait_for_status(&run, "completed").await;
    let body = json!({ "a": format!("Bearer {TOKEN}"), "plain": "readable" });
    assert_eq!(test.step_service.seen("POST /uses")[0].json(), body, "the service gets it in clear");
    let failed = test.start_run("topoffailed", json!({})).await;
    test.wait_for_events(&failed, "child_ended", 1).await;
    let shown = shown(&test).await;
    assert!(!shown.contains(TOKEN) && !is_in_store(&test, TOKEN), "{shown}");
    let used = test.events_of_kind(&run, "step_started").await.pop().expect("the last call");
    assert!(used.to_string().contains("readable"), "only the part with the token is sealed: {used}");
    // A replay repeats no decision whose values are sealed, and finds no difference in the others.
    let flags = test.flags.path().display().to_string();
    for row in test.pointsman.get("/api/v2/orchestrate/runs").await["runs"].as_array().expect("a list") {
        let file = format!("workflows/{}.yaml", row["workflow"].as_str().expect("a name"));
        let (id, file) = (row["run_id"].as_str().expect("an id"), test.flags.file(&file).display().to_string());
        let text = test.cli(&["replay", id, "--with", &file, "--flags", &flags]).await;
        assert!(text.contains("the same"), "{file}: {text}");
    }
    test.kill_and_restart().await;
    assert!(!is_in_store(&test, TOKEN));
    test.finish().await;
}

const SHOW: &str = r#"
workflow: show
steps:
  use: { call: "POST ${services.works}/uses", body: { a: "${instance.output.auth}" } }
respond: { status: 200, body: { id: "${instance.id}" } }
"#;

const HEADER: &str = r#"
workflow: header
input: { sensitive_headers: [x-session] }
steps:
  use: { call: "POST ${services.works}/uses", body: { note: "${request.body.note}" } }
respond: { status: 200, body: { note: "${request.body.note}" } }
"#;

const ROUTES: &str = "routes:
- { id: mid.create, match: { method: POST, path: /mids }, legacy: plain, workflow: mid, state: live,
    force: { reason: a test }, instance: { creates: $.id } }
- { id: mid.show, match: { method: POST, path: '/mids/{id}/show' }, legacy: plain, workflow: show, state: live,
    force: { reason: a test }, instance: { follows: mid.create, key: path.id } }
- { id: header, match: { method: POST, path: /header }, legacy: plain, workflow: header, state: live,
    force: { reason: a test } }
";

async fn test_with_routes() -> EngineTest {
    let test = test_of(&[BOTTOM, MID, SHOW, HEADER]).await;
    let mut test = test;
    let flags = test.flags.path().to_owned();
    std::fs::create_dir_all(flags.join("routes")).expect("a directory");
    std::fs::write(flags.join("routes/r.yaml"), ROUTES).expect("written");
    test.kill_and_restart().await;
    test
}

async fn send(test: &EngineTest, path: &str, headers: &[(&str, &str)], body: Value) -> Value {
    let url = format!("http://{}{path}", test.pointsman.listen);
    let reply = test.client.json(Method::POST, &url, headers, &body).await.expect("an answer");
    assert!(reply.status.is_success(), "{} {}", reply.status, test.pointsman.log());
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_quotes_what_its_run_knows_is_sealed_in_runs_that_follow_up_its_instance() {
    let test = test_with_routes().await;
    let created = send(&test, "/mids", &[], json!({ "fails": false })).await;
    assert_eq!(created["auth"], format!("Bearer {TOKEN}"), "the caller gets it in clear");
    send(&test, &format!("/mids/{}/show", created["id"].as_str().expect("an id")), &[], json!({})).await;
    assert_eq!(test.step_service.seen("POST /uses")[0].json(), json!({ "a": format!("Bearer {TOKEN}") }));
    let shown = shown(&test).await;
    assert!(!shown.contains(TOKEN) && !is_in_store(&test, TOKEN), "{shown}");
    test.finish().await;
}

/// A run keeps only the headers that an expression reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_quote_of_a_declared_header_is_sealed_also_if_nothing_reads_the_header() {
    let test = test_with_routes().await;
    let session = "sess-99887766-abc";
    let note = json!({ "note": format!("session {session} expired") });
    let answer = send(&test, "/header", &[("x-session", session)], note.clone()).await;
    assert_eq!((&answer, &test.step_service.seen("POST /uses")[0].json()), (&note, &note));
    let shown = shown(&test).await;
    assert!(shown.contains("header") && !shown.contains(session) && !is_in_store(&test, session), "{shown}");
    test.finish().await;
}

const ECHOES: &str = r#"
workflow: echoes
input: { sensitive: [$.card], sensitive_headers: [x-session] }
steps:
  login: { call: "POST ${services.works}/logins" }
  sign:
    needs: [login]
    call: POST ${services.works}/signs
    headers: { x-sig: "${request.body.card.substring(2, 14)}-sig" }
  own: { needs: [sign], run: below, input: { list: [ { reply: "${steps.sign.output}", note: "" } ] } }
respond: { status: 200 }
"#;

/// The service quotes both headers at places that are not declared.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_a_reply_and_a_computed_header_are_sealed_where_a_child_run_gets_quotes_of_them() {
    let test = test_of(&[ECHOES, BELOW]).await;
    let (session, signature) = ("sess-99887766-abcdef", "112222333344-sig");
    let headers = vec![("x-session", session.to_owned())];
    test.step_service.set_default("POST /logins", ScriptedReply::RefuseWith(200, headers, json!({})));
    let echo =
        json!({ "auth": format!("Session {session}"), "numbers": format!("sent {signature}"), "plain": "readable" });
    test.step_service.set_default("POST /signs", ScriptedReply::Done(200, echo));
    let run = test.start_run("echoes", json!({ "card": NUMBER.to_string() })).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.seen("POST /signs")[0].headers["x-sig"], signature);
    assert_eq!(test.step_service.seen("POST /uses")[0].json()["numbers"], format!("sent {signature}"));
    let shown = shown(&test).await;
    for secret in [session, signature] {
        assert!(!shown.contains(secret) && !is_in_store(&test, secret), "{secret}: {shown}");
    }
    assert!(shown.contains("readable"), "{shown}");
    test.finish().await;
}
