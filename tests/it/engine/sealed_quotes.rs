//! A service returns a declared sensitive value at a place that is not declared: what a workflow makes of that is sealed
//! too, in the run, in a run that it begins, and in the table of locks.

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

/// What no expression reads is not kept of the request.
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
async fn a_lock_with_such_a_value_in_its_name_is_stored_as_a_hash_and_let_go() {
    let mut test = test_of(&[LOCKS]).await;
    test.step_service.hold("POST /uses");
    let first = test.start_run("locks", json!({})).await;
    test.wait_for_calls("POST /uses", 1).await;
    let second = test.start_run("locks", json!({})).await;
    test.wait_for_events(&second, "lock_queued", 1).await;
    let shown = shown(&test).await;
    assert!(!shown.contains(TOKEN) && !is_in_store(&test, TOKEN), "{shown}");
    // The next process releases the locks that this one has stored.
    test.kill().await;
    test.step_service.release_all("POST /uses");
    test.restart().await;
    for run in [&first, &second] {
        test.wait_for_status(run, "completed").await;
    }
    assert!(!is_in_store(&test, TOKEN));
    test.finish().await;
}
