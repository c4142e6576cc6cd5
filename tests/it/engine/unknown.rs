//! An effect was performed although the answer says otherwise: nothing is done twice.

use std::time::Duration;

use serde_json::json;

use super::{EngineTest, id, step};
use crate::support::step_service::ScriptedReply;
use crate::support::until_true;

const ANSWERS_503: &str = "
workflow: answers-503
steps:
  charge:
    call: POST ${services.plain}/charges
    retry: { attempts: 3, base: 1ms, max: 2ms }
    fallback: invoice
  invoice: { fallback_only: true, call: 'POST ${services.plain}/invoices' }
respond: { status: 200, body: '${steps.charge.output}' }
";

/// The proxy of a service mesh also answers 503 if it lost the connection after the service had the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_503_is_neither_repeated_nor_replaced_by_a_fallback() {
    let keyed = ANSWERS_503.replace("answers-503", "keyed-503").replace("services.plain", "services.works");
    let declared = ANSWERS_503
        .replace("answers-503", "declares-503")
        .replace("    fallback:", "    not_done: [503]\n    fallback:");
    let mut test = EngineTest::with(&[ANSWERS_503, &keyed, &declared]).await;
    let performed = ScriptedReply::Done(503, json!({ "error": "upstream connect error" }));
    test.step_service.script("POST /charges", performed, 4);
    let data = test.run("answers-503", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("outcome_unknown")), "{data}");
    assert!(!conflict["choices"].as_array().unwrap().contains(&json!("fallback")), "{conflict}");
    let effects = (test.step_service.count("POST /charges"), test.step_service.count("POST /invoices"));
    assert_eq!(effects, (1, 0), "one effect, and no fallback");
    // If the service honours keys, the call is sent again with the same key; the fallback is not taken here either.
    let data = test.run("keyed-503", json!({})).await;
    assert_eq!((&data["status"], &step(&data, "charge")["attempts"]), (&json!("paused"), &json!(3)), "{data}");
    assert_eq!((test.step_service.effects("POST /charges"), test.step_service.count("POST /invoices")), (2, 0));
    // The second and third attempt of `keyed-503`: the service counts them as repeated deliveries of one key.
    test.allowed.lost_replies = 2;
    // A step may declare that 503 means "not done".
    test.step_service.set_default("POST /charges", ScriptedReply::Refuse(503));
    let data = test.run("declares-503", json!({})).await;
    assert_eq!((&data["status"], &data["output"]["number"]), (&json!("completed"), &json!(1)), "{data}");
    let flags = test.flags.path().display().to_string();
    let (code, output) = test.cli_output(&["check", &flags]).await;
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(
        output.matches("a 503 does not lead to the fallback").count(),
        2,
        "of the two workflows without `not_done`: {output}"
    );
    assert!(output.contains("not_done: [503]"), "{output}");
    test.finish().await;
}

/// The service performs each attempt and answers 503. What a person decides about the first attempt must not decide
/// about the second, which nobody has looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_is_delivered_twice_decides_once() {
    let mut test = EngineTest::with(&[ANSWERS_503]).await;
    test.step_service.set_default("POST /charges", ScriptedReply::Done(503, json!({ "error": "cut off" })));
    for (number, path) in [(0, "resolve"), (1, "retry")] {
        let data = test.run("answers-503", json!({})).await;
        assert_eq!(data["conflicts"][0]["attempt"], json!(1), "{data}");
        let run = super::path(&data);
        let mut decision = json!({ "step": "charge", "attempt": 1 });
        if path == "resolve" {
            decision["choice"] = json!("retry");
        }
        let decide = format!("{run}/{path}");
        test.post_accepted(&decide, decision.clone()).await;
        test.wait_for_calls("POST /charges", 3 * number + 2).await;
        let data = test.wait_for_status(&run, "paused").await;
        assert_eq!(data["conflicts"][0]["attempt"], json!(2), "{data}");
        let problem = test.post_refused(&decide, decision).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("about attempt 2, and this decision is about attempt 1"), "{problem}");
        let refused = test.cli_refused(&["runs", "resolve", id(&run), "charge", "retry", "--attempt", "1"]).await;
        assert!(refused.contains("about attempt 2"), "{refused}");
        assert_eq!(test.step_service.count("POST /charges"), 3 * number + 2);
        // A command without `--attempt` decides about the conflict that is open when it begins.
        let (code, output) = test.cli_output(&["runs", "resolve", id(&run), "charge", "retry"]).await;
        assert_eq!(code, Some(0), "{output}");
        test.wait_for_calls("POST /charges", 3 * number + 3).await;
    }
    test.allowed.lost_replies = 4;
    test.finish().await;
}

const SETTLES: &str = "
workflow: settles
steps:
  charge:
    call: POST ${services.plain}/charges
    timeout: 1s
    retry: { attempts: 3, base: 1ms, max: 2ms }
    probe:
      call: GET ${services.plain}/found/${key}
      after: 200ms
      settles: 5s
      done: ${output.found}
      output: '${{\"id\": output.id}}'
respond: { status: 200, body: '${steps.charge.output}' }
";

/// The service has the request, and commits after the probe was answered "no": the card is charged once.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_asked_too_early_asks_again_also_over_a_restart() {
    let mut test = EngineTest::with(&[SETTLES]).await;
    test.step_service.set_default("GET /found", ScriptedReply::Done(200, json!({ "found": false })));
    test.step_service.script("POST /charges", ScriptedReply::Late(Duration::from_millis(3_500)), 1);
    let run = test.start_run("settles", json!({})).await;
    // The attempt times out, and two probes find nothing.
    test.wait_for_calls("GET /found", 2).await;
    let explained = test.wait_for_explanation(&run, "its probe says no").await;
    assert!(explained.contains("the probe of `charge` is asked again"), "{explained}");
    test.kill_and_restart().await;
    test.wait_for_calls("GET /found", 3).await;
    until_true("the late commit", || test.step_service.effects("POST /charges") == 1).await;
    test.step_service.set_default("GET /found", ScriptedReply::Done(200, json!({ "found": true, "id": "late" })));
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(data["output"], json!({ "id": "late" }), "{data}");
    assert_eq!(
        (test.step_service.count("POST /charges"), test.step_service.effects("POST /charges")),
        (1, 1),
        "sent once"
    );

    // A call that was never performed is sent again once that is certain, and not before.
    test.step_service.script("POST /charges", ScriptedReply::Close, 1);
    test.step_service.set_default("GET /found", ScriptedReply::Done(200, json!({ "found": false })));
    let run = test.start_run("settles", json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(step(&data, "charge")["attempts"], json!(2), "{data}");
    let sent = test.step_service.seen("POST /charges");
    assert!(sent[2].at - sent[1].at >= Duration::from_secs(5), "not before it settles");
    let probes = test.step_service.seen("GET /found").into_iter().filter(|probe| probe.at > sent[1].at).count();
    assert!((2..=12).contains(&probes), "{probes} times, with back-off");
    // `settles` shorter than the step's timeout is refused.
    test.flags.edit("workflows/settles.yaml", |text| text.replace("settles: 5s", "settles: 400ms"));
    let flags = test.flags.path().display().to_string();
    let (code, refused) = test.cli_output(&["check", &flags]).await;
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("shorter than the step's timeout (1000 ms)"), "{}: {refused}", id(&run));
    test.finish().await;
}
