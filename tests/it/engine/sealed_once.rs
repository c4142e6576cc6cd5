//! Sensitive values that several declarations cover, or that people type, are sealed once and sent as they are.

use serde_json::{Value, json};

use super::sealed::is_in_store;
use super::{EngineTest, RUN};
use crate::support::step_service::ScriptedReply;
use crate::support::{FlagsDir, until};

const KEY: &str = "store_key: { file: store.key }\n";

async fn start(workflows: &[&str]) -> EngineTest {
    let key = |flags: &FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    EngineTest::with_settings(KEY, workflows, key).await
}

/// Each value is sensitive for more than one reason.
const OVERLAPS: &str = r#"
workflow: overlaps
input: { sensitive: [$.card, $.card.number] }
steps:
  token: { call: "POST ${services.works}/tokens", sensitive: [$.card, $.card.number, "$.card[*]"] }
  ask: { needs: [token], checkpoint: { question: "Pay with ${request.body.card.number}?" }, sensitive: [$.pin] }
  go: { needs: [ask], wait: { signal: go }, sensitive: [$.otp, $.otp.code] }
  pay:
    needs: [go]
    call: POST ${services.works}/pays
    body:
      given: "${request.body.card}"
      made: "${steps.token.output.card}"
      pin: "${steps.ask.output.pin}"
      code: "${steps.go.output.otp.code}"
  below: { needs: [pay], run: part, input: { card: "${request.body.card}" } }
respond: { status: 200, body: "${request.body.card}" }
"#;

/// A workflow that declares a part of the input that it is handed.
const PART: &str = r#"
workflow: part
input: { sensitive: [$.card.number] }
steps:
  go: { wait: { signal: go } }
  send: { needs: [go], call: "POST ${services.works}/sends", body: { card: "${request.body.card}" } }
respond: { status: 200 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_several_declarations_cover_is_sent_unchanged_after_a_restart() {
    let mut test = start(&[OVERLAPS, PART]).await;
    let card = json!({ "number": "4111-2222-3333", "cvc": "cvc-7788-99", "n": 1234567 });
    test.step_service.set_default("POST /tokens", ScriptedReply::Done(200, json!({ "card": card })));
    let run = test.start_run("overlaps", json!({ "card": card })).await;
    let data = test.wait_for_status(&run, "waiting_checkpoint").await;
    test.kill_and_restart().await;
    let checkpoint = data["pending_checkpoint"]["id"].as_str().expect("an id");
    let answer = json!({ "approve": true, "values": { "pin": "pin-90210-typed" } });
    test.post_accepted(&format!("{run}/checkpoints/{checkpoint}"), answer).await;
    // A run that waits for a signal has no task: the signal makes the process read it from the store again.
    test.wait_for_status(&run, "waiting_signal").await;
    let payload = json!({ "otp": { "code": "otp-331-771" } });
    test.post_accepted(&format!("{run}/signals/go"), json!({ "payload": payload })).await;
    let child = until("a child run", || async {
        let list = test.pointsman.get("/api/v2/orchestrate/runs?workflow=part").await;
        list["runs"][0]["run_id"].as_str().map(|id| format!("{RUN}/{id}"))
    })
    .await;
    test.wait_for_status(&child, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{child}/signals/go"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    let paid = json!({ "given": card, "made": card, "pin": "pin-90210-typed", "code": "otp-331-771" });
    assert_eq!(test.step_service.seen("POST /pays")[0].json(), paid);
    assert_eq!(test.step_service.seen("POST /sends")[0].json(), json!({ "card": card }));
    for text in ["4111-2222", "cvc-7788", "1234567", "pin-90210", "otp-331"] {
        assert!(!is_in_store(&test, text), "{text} is in the store");
    }
    test.finish().await;
}

/// The call has a sensitive value in its request only; a person enters the output of the step.
const TAKES: &str = r#"
workflow: takes
input: { sensitive: [$.card] }
steps:
  conf: { call: "POST ${services.works}/confs", body: { card: "${request.body.card}" }, on_conflict: pause }
  made: { set: "${steps.conf.output.t.upperAscii()}" }
  go: { needs: [made], wait: { signal: go } }
  send: { needs: [go], call: "POST ${services.works}/sends", body: { t: "${steps.conf.output.t}", made: "${steps.made.output}" } }
respond: { status: 200 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_types_as_the_output_of_a_step_that_reads_a_sensitive_value_is_sealed() {
    let mut test = start(&[TAKES]).await;
    test.step_service.script("POST /confs", ScriptedReply::Refuse(409), 1);
    let run = test.start_run("takes", json!({ "card": "4111-2222-3333" })).await;
    test.wait_for_status(&run, "paused").await;
    // `typed-9` is too short to be searched for by value: it is sealed because of where it comes from.
    let take = json!({ "step": "conf", "choice": "take", "output": { "t": "typed-9", "more": "entered-by-hand" } });
    test.post_accepted(&format!("{run}/resolve"), take).await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    test.wait_for_status(&run, "completed").await;
    let (status, again) = test.post(&format!("{run}/rerun"), json!({ "from": "send" })).await;
    assert!((200..300).contains(&status), "{again}");
    let again = super::path(&again["data"]);
    test.wait_for_status(&again, "completed").await;
    let sent = test.step_service.seen("POST /sends");
    let expected = json!({ "t": "typed-9", "made": "TYPED-9" });
    assert_eq!(sent.iter().map(|call| call.json()).collect::<Vec<_>>(), [expected.clone(), expected]);
    for run in [&run, &again] {
        let shown = format!("{} {}", test.data(run).await, Value::from(test.events(run).await));
        for text in ["typed-9", "TYPED-9", "entered-by-hand", "4111-2222"] {
            assert!(!shown.contains(text), "{text} is shown: {shown}");
        }
    }
    for text in ["typed-9", "TYPED-9", "entered-by-hand", "4111-2222"] {
        assert!(!is_in_store(&test, text), "{text} is in the store");
    }
    test.finish().await;
}

/// Workflows whose runs wait for a person, with a note that is made from a sensitive value.
const NOTES: [&str; 3] = [
    r#"
workflow: asks
input: { sensitive: [$.card] }
steps: { ask: { checkpoint: { question: "Pay with ${request.body.card}?" } } }
respond: { status: 200 }
"#,
    r#"
workflow: pauses
input: { sensitive: [$.card] }
steps: { bad: { set: "${ {'a': 1}[request.body.card] }" } }
respond: { status: 200 }
"#,
    r#"
workflow: refused
input: { sensitive: [$.card] }
steps: { pay: { call: "POST ${services.works}/pays", body: { card: "${request.body.card}" }, on_conflict: pause } }
respond: { status: 200 }
"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_notes_made_from_sensitive_values_has_no_faults() {
    let test = start(&NOTES).await;
    test.step_service.script("POST /pays", ScriptedReply::Refuse(409), 1);
    for (workflow, status) in [("asks", "waiting_checkpoint"), ("pauses", "paused"), ("refused", "paused")] {
        let run = test.start_run(workflow, json!({ "card": "4111-2222-3333" })).await;
        test.wait_for_status(&run, status).await;
    }
    // The checker runs `store check` over the sealed values.
    test.finish().await;
}
