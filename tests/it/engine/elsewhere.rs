//! A path that is not there: fallbacks, breakers, probes, and services that take only so much.

use serde_json::json;

use super::{Plant, id, step};
use crate::support::works::Say;

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
async fn fallbacks_take_the_place_of_what_was_not_done() {
    let plant = Plant::with(&[CHAIN]).await;
    plant.works.next("POST /charges", Say::Refuse(429), 2);
    plant.works.next("POST /invoices", Say::Refuse(429), 1);
    let data = plant.run("chain", json!({})).await;
    assert_eq!(data["output"], json!({ "by": "cash", "id": "POST /cash 1" }), "{data}");
    let (charge, invoice) = (step(&data, "charge"), step(&data, "invoice"));
    assert_eq!((&charge["status"], &charge["attempts"]), (&json!("replaced"), &json!(2)), "{charge}");
    assert_eq!(invoice["status"], "replaced", "{invoice}");
    // Nobody needs them where it was done.
    let data = plant.run("chain", json!({})).await;
    assert_eq!(data["output"]["id"], "POST /charges 1", "{data}");
    // What may have been done is never done another way.
    plant.works.next("POST /charges", Say::Refuse(500), 2);
    let data = plant.run("chain", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("outcome_unknown")), "{data}");
    assert!(!conflict["choices"].as_array().unwrap().contains(&json!("fallback")), "{conflict}");
    assert_eq!((plant.works.count("POST /invoices"), plant.works.count("POST /cash")), (1, 1));
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_an_open_breaker_and_says_so() {
    let frail = "  frail: { urls: [\"WORKS\"], keyed: true, breaker: { min: 2, failures: 50%, over: 10s, open: 1s } }";
    let mut plant = Plant::made(frail, &[BROKEN, BYPASS], |_| {}).await;
    plant.works.otherwise("POST /charges", Say::Refuse(503));
    let data = plant.run("broken", json!({})).await;
    assert_eq!(data["status"], "failed", "{data}");
    let run = plant.begun("broken", json!({})).await;
    let explained = plant.explains(&run, "breaker is open").await;
    assert!(explained.contains("frail") && explained.contains("next probe in"), "{explained}");
    let services = plant.cli(&["services"]).await;
    assert!(services.contains("frail") && services.contains("open"), "{services}");
    // Who has another way takes it at once.
    let data = plant.run("bypass", json!({})).await;
    assert_eq!(data["output"], json!({ "by": "cash" }), "{data}");
    assert_eq!(step(&data, "charge")["attempts"], json!(1), "{data}");
    assert_eq!(plant.works.count("POST /charges"), 2, "an open breaker lets nothing through");
    plant.works.otherwise("POST /charges", Say::Done(200, json!({ "id": "c" })));
    plant.killed_and_back().await;
    plant.comes_to(&run, "completed").await;
    assert!(plant.told(&run, "retry_scheduled").await.iter().all(|retry| retry["free"] == true), "no attempt is lost");
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_what_an_unknown_attempt_did() {
    let plant = Plant::with(&[PROBED]).await;
    plant.works.next("POST /charges", Say::LoseReply, 1);
    plant.works.next("GET /found", Say::Done(200, json!({ "found": true, "id": "the first" })), 1);
    let data = plant.run("probed", json!({})).await;
    assert_eq!((&data["status"], &data["output"]), (&json!("completed"), &json!({ "id": "the first" })), "{data}");
    let (charge, probe) = (plant.works.seen("POST /charges"), plant.works.seen("GET /found"));
    assert_eq!(format!("/found/{}", charge[0].key.as_ref().unwrap()), probe[0].path, "it is asked by the key");

    plant.works.next("POST /charges", Say::Close, 1);
    plant.works.otherwise("GET /found", Say::Done(200, json!({ "found": false })));
    let data = plant.run("probed", json!({})).await;
    assert_eq!(data["output"]["id"], "POST /charges 2", "it was not done, and so done again: {data}");

    plant.works.next("POST /charges", Say::LoseReply, 1);
    plant.works.next("GET /found", Say::Done(200, json!({ "found": "perhaps" })), 1);
    let data = plant.run("probed", json!({})).await;
    assert_eq!((&data["status"], &data["conflicts"][0]["kind"]), (&json!("paused"), &json!("outcome_unknown")));
    assert_eq!((plant.works.done("POST /charges"), plant.works.count("POST /cash")), (3, 0), "a fallback never is");
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_takes_is_shared_and_explained() {
    let services = "  narrow: { urls: [\"WORKS\"], calls_max: 2 }\n  rated: { urls: [\"WORKS\"], rate: 1/s, burst: 1 }";
    let plant = Plant::made(services, &[ONE, RARE], |_| {}).await;
    plant.works.hold("POST /narrow");
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(plant.begun("one", json!({})).await);
    }
    plant.arrives("POST /narrow", 2).await;
    for run in &runs[..2] {
        plant.explains(run, "is under way").await;
    }
    let explained = plant.explains(&runs[3], "waits for its turn").await;
    assert!(explained.contains("narrow") && explained.contains("2 of 2"), "{explained}");
    let shown = plant.cli(&["services"]).await;
    assert!(shown.contains("narrow"), "{shown}");
    plant.works.open("POST /narrow");
    for run in &runs {
        plant.comes_to(run, "completed").await;
    }
    assert_eq!(plant.works.at_once("POST /narrow"), 2, "never more at a time");

    let first = plant.begun("rare", json!({})).await;
    plant.comes_to(&first, "completed").await;
    let second = plant.begun("rare", json!({})).await;
    let explained = plant.explains(&second, "waits for its turn").await;
    assert!(explained.contains("rated") && explained.contains("1/s"), "{explained}");
    plant.comes_to(&second, "completed").await;
    let shown = plant.cli(&["runs", "show", id(&second)]).await;
    assert!(shown.contains("completed"), "{shown}");
    plant.finish().await;
}
