//! Services that fail or are limited: fallbacks, breakers, probes, rates.

use serde_json::json;

use super::{EngineTest, id, step};
use crate::support::step_service::ScriptedReply;

const CHAIN: &str = "
workflow: chain
steps:
  charge:
    call: POST ${services.works}/charges
    retry: { attempts: 2, base: 1ms, max: 2ms }
    fallback: invoice
  invoice:
    fallback_only: true
    call: POST ${services.works}/invoices
    retry: { attempts: 1 }
    fallback: cash
  cash:
    fallback_only: true
    call: POST ${services.works}/cash
respond: { status: 200, body: { by: '${has(steps.charge.by) ? steps.charge.by : \"itself\"}', id: '${steps.charge.output.id}' } }
";

const BROKEN: &str = "
workflow: broken
steps:
  charge:
    call: POST ${services.frail}/charges
    not_done: [503]
    retry: { attempts: 2, base: 1ms, max: 2ms }
respond: { status: 200, body: { attempts: 2 } }
";

const BYPASS: &str = "
workflow: bypass
steps:
  charge:
    call: POST ${services.frail}/charges
    fallback: cash
  cash: { fallback_only: true, call: 'POST ${services.works}/cash' }
respond: { status: 200, body: { by: '${steps.charge.by}' } }
";

const PROBED: &str = "
workflow: probed
steps:
  charge:
    call: POST ${services.plain}/charges
    timeout: 500ms
    retry: { attempts: 2, base: 1ms, max: 2ms }
    fallback: cash
    probe:
      call: GET ${services.plain}/found/${key}
      after: 5ms
      settles: 500ms
      done: ${output.found}
      output: '${{\"id\": output.id}}'
  cash: { fallback_only: true, call: 'POST ${services.works}/cash' }
respond: { status: 200, body: '${steps.charge.output}' }
";

const ONE: &str = "
workflow: one
steps:
  charge: { call: 'POST ${services.narrow}/narrow', timeout: 20s }
respond: { status: 200, body: done }
";

const RARE: &str = "
workflow: rare
steps:
  charge: { call: 'POST ${services.rated}/rated', timeout: 20s }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn fallbacks_replace_steps_that_were_not_done() {
    let test = EngineTest::with(&[CHAIN]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(429), 2);
    test.step_service.script("POST /invoices", ScriptedReply::Refuse(429), 1);
    let data = test.run("chain", json!({})).await;
    assert_eq!(data["output"], json!({ "by": "cash", "id": "POST /cash 1" }), "{data}");
    let (charge, invoice) = (step(&data, "charge"), step(&data, "invoice"));
    assert_eq!((&charge["status"], &charge["attempts"]), (&json!("replaced"), &json!(2)), "{charge}");
    assert_eq!(invoice["status"], "replaced", "{invoice}");
    // A step that was done takes no fallback.
    let data = test.run("chain", json!({})).await;
    assert_eq!(data["output"]["id"], "POST /charges 1", "{data}");
    // A step that may have been done takes no fallback either.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(500), 2);
    let data = test.run("chain", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("outcome_unknown")), "{data}");
    assert!(!conflict["choices"].as_array().unwrap().contains(&json!("fallback")), "{conflict}");
    assert_eq!((test.step_service.count("POST /invoices"), test.step_service.count("POST /cash")), (1, 1));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_an_open_breaker_and_says_so() {
    let frail = "  frail: { urls: [\"WORKS\"], keyed: true, breaker: { min: 2, failures: 50%, over: 10s, open: 1s } }";
    let mut test = EngineTest::with_settings(frail, &[BROKEN, BYPASS], |_| {}).await;
    test.step_service.set_default("POST /charges", ScriptedReply::Refuse(503));
    let data = test.run("broken", json!({})).await;
    assert_eq!(data["status"], "failed", "{data}");
    let run = test.start_run("broken", json!({})).await;
    let explained = test.wait_for_explanation(&run, "breaker has been open").await;
    assert!(explained.contains("frail") && explained.contains("next probe in"), "{explained}");
    let services = test.cli(&["services"]).await;
    assert!(services.contains("frail") && services.contains("open"), "{services}");
    // A step with a fallback takes it at once.
    let data = test.run("bypass", json!({})).await;
    assert_eq!(data["output"], json!({ "by": "cash" }), "{data}");
    assert_eq!(step(&data, "charge")["attempts"], json!(1), "{data}");
    assert_eq!(test.step_service.count("POST /charges"), 2, "an open breaker lets nothing through");
    test.step_service.set_default("POST /charges", ScriptedReply::Done(200, json!({ "id": "c" })));
    test.kill_and_restart().await;
    test.wait_for_status(&run, "completed").await;
    assert!(
        test.events_of_kind(&run, "retry_scheduled").await.iter().all(|retry| retry["free"] == true),
        "no attempt is lost"
    );
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_what_an_unknown_attempt_did() {
    let test = EngineTest::with(&[PROBED]).await;
    test.step_service.script("POST /charges", ScriptedReply::LoseReply, 1);
    test.step_service.script("GET /found", ScriptedReply::Done(200, json!({ "found": true, "id": "the first" })), 1);
    let data = test.run("probed", json!({})).await;
    assert_eq!((&data["status"], &data["output"]), (&json!("completed"), &json!({ "id": "the first" })), "{data}");
    let (charge, probe) = (test.step_service.seen("POST /charges"), test.step_service.seen("GET /found"));
    assert_eq!(format!("/found/{}", charge[0].key.as_ref().unwrap()), probe[0].path, "it is asked by the key");

    test.step_service.script("POST /charges", ScriptedReply::Close, 1);
    test.step_service.set_default("GET /found", ScriptedReply::Done(200, json!({ "found": false })));
    let data = test.run("probed", json!({})).await;
    assert_eq!(data["output"]["id"], "POST /charges 2", "it was not done, and so it is sent again: {data}");

    test.step_service.script("POST /charges", ScriptedReply::LoseReply, 1);
    test.step_service.script("GET /found", ScriptedReply::Done(200, json!({ "found": "perhaps" })), 1);
    let data = test.run("probed", json!({})).await;
    assert_eq!((&data["status"], &data["conflicts"][0]["kind"]), (&json!("paused"), &json!("outcome_unknown")));
    assert_eq!(
        (test.step_service.effects("POST /charges"), test.step_service.count("POST /cash")),
        (3, 0),
        "no fallback is taken after an unknown outcome"
    );
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_service_are_shared_and_explained() {
    let services = "  narrow: { urls: [\"WORKS\"], calls_max: 2 }\n  rated: { urls: [\"WORKS\"], rate: 1/s, burst: 1 }";
    let test = EngineTest::with_settings(services, &[ONE, RARE], |_| {}).await;
    test.step_service.hold("POST /narrow");
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(test.start_run("one", json!({})).await);
    }
    test.wait_for_calls("POST /narrow", 2).await;
    for run in &runs[..2] {
        test.wait_for_explanation(run, "is under way").await;
    }
    let explained = test.wait_for_explanation(&runs[3], "waits for a permit").await;
    assert!(explained.contains("narrow") && explained.contains("2 of 2"), "{explained}");
    let shown = test.cli(&["services"]).await;
    assert!(shown.contains("narrow"), "{shown}");
    test.step_service.release_all("POST /narrow");
    for run in &runs {
        test.wait_for_status(run, "completed").await;
    }
    assert_eq!(test.step_service.concurrent_max("POST /narrow"), 2, "never more at a time");

    let first = test.start_run("rare", json!({})).await;
    test.wait_for_status(&first, "completed").await;
    let second = test.start_run("rare", json!({})).await;
    let explained = test.wait_for_explanation(&second, "waits for a permit").await;
    assert!(explained.contains("rated") && explained.contains("1/s"), "{explained}");
    test.wait_for_status(&second, "completed").await;
    let shown = test.cli(&["runs", "show", id(&second)]).await;
    assert!(shown.contains("completed"), "{shown}");
    test.finish().await;
}
