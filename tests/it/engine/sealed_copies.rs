//! The API shows sealed values, in their sealed form, to everybody who may read a run. A copy of one that somebody
//! gives to the run as a signal, as an output or as an answer is not opened: the run treats it as plain text.

use serde_json::json;

use super::EngineTest;
use super::sealed::is_in_store;
use crate::support::FlagsDir;
use crate::support::step_service::ScriptedReply;

const CARD: &str = "4111-2222-3333-of-a-caller";

const ORACLE: &str = r#"
workflow: oracle
input: { sensitive: [$.card] }
steps:
  a: { wait: { signal: a } }
  conf: { needs: [a], call: "POST ${services.works}/confs", on_conflict: pause }
  ask: { needs: [conf], checkpoint: { question: "Which one?" } }
  b: { needs: [ask], wait: { signal: b } }
  send:
    needs: [b]
    call: POST ${services.works}/sends
    body:
      signal: "${steps.a.output.x}"
      within: "${steps.a.output.y}"
      taken: "${steps.conf.output}"
      said: "${steps.ask.output.z}"
      card: "${request.body.card}"
respond: { status: 200, body: { x: "${steps.a.output.x}" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_sealed_value_that_somebody_hands_to_the_run_is_not_opened() {
    let key = |flags: &FlagsDir| flags.write("store.key", &"0123456789abcdef".repeat(4));
    let mut test = EngineTest::with_settings("store_key: { file: store.key }\n", &[ORACLE], key).await;
    test.step_service.script("POST /confs", ScriptedReply::Refuse(409), 1);
    let run = test.start_run("oracle", json!({ "card": CARD })).await;
    test.wait_for_status(&run, "waiting_signal").await;
    let started = test.events_of_kind(&run, "run_started").await.pop().expect("the first event").to_string();
    let from = started.find("«sealed:").expect("a sealed value");
    let copied = &started[from..from + started[from..].find('»').expect("its end") + '»'.len_utf8()];
    let within = format!("pre {copied} post");

    let payload = json!({ "x": copied, "y": within });
    test.post_accepted(&format!("{run}/signals/a"), json!({ "payload": payload })).await;
    test.wait_for_status(&run, "paused").await;
    test.kill_and_restart().await;
    let take = json!({ "step": "conf", "choice": "take", "output": copied, "reason": copied });
    test.post_accepted(&format!("{run}/resolve"), take).await;
    let data = test.wait_for_status(&run, "waiting_checkpoint").await;
    let checkpoint = data["pending_checkpoint"]["id"].as_str().expect("an id");
    let answer = json!({ "approve": true, "values": { "z": copied }, "note": copied });
    test.post_accepted(&format!("{run}/checkpoints/{checkpoint}"), answer).await;
    test.wait_for_status(&run, "waiting_signal").await;
    test.kill_and_restart().await;
    test.post_accepted(&format!("{run}/signals/b"), json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;

    let sent = json!({ "signal": copied, "within": within, "taken": copied, "said": copied, "card": CARD });
    assert_eq!(test.step_service.seen("POST /sends")[0].json(), sent);
    let shown = format!("{data} {:?}", test.events(&run).await);
    assert!(!shown.contains(CARD) && !is_in_store(&test, CARD), "{shown}");
    test.finish().await;
}
