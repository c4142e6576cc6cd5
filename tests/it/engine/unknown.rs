//! The effect was done, and the answer says otherwise: nothing is done twice.

use serde_json::json;

use super::{Plant, step};
use crate::support::works::Say;

const SAID_503: &str = "
workflow: said-503
steps:
  charge:
    call: POST ${services.plain}/charges
    retry: { attempts: 3, base: 1ms, max: 2ms }
    fallback: invoice
  invoice: { fallback_only: true, call: 'POST ${services.plain}/invoices' }
respond: { status: 200, body: '${steps.charge.output}' }
";

/// A mesh's proxy says 503 also of a service that was cut off after it had the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_503_is_neither_sent_again_nor_done_another_way() {
    let keyed = SAID_503.replace("said-503", "keyed-503").replace("services.plain", "services.works");
    let knows = SAID_503.replace("said-503", "knows").replace("    fallback:", "    not_done: [503]\n    fallback:");
    let plant = Plant::with(&[SAID_503, &keyed, &knows]).await;
    let performed = Say::Done(503, json!({ "error": "upstream connect error" }));
    plant.works.next("POST /charges", performed, 4);
    let data = plant.run("said-503", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("outcome_unknown")), "{data}");
    assert!(!conflict["choices"].as_array().unwrap().contains(&json!("fallback")), "{conflict}");
    let effects = (plant.works.count("POST /charges"), plant.works.count("POST /invoices"));
    assert_eq!(effects, (1, 0), "one effect, and nothing in its place");
    // Where the service honours keys it is sent again under the same one, and the fallback is still no way out.
    let data = plant.run("keyed-503", json!({})).await;
    assert_eq!((&data["status"], &step(&data, "charge")["attempts"]), (&json!("paused"), &json!(3)), "{data}");
    assert_eq!((plant.works.done("POST /charges"), plant.works.count("POST /invoices")), (2, 0));
    // A step that knows better says so.
    plant.works.otherwise("POST /charges", Say::Refuse(503));
    let data = plant.run("knows", json!({})).await;
    assert_eq!((&data["status"], &data["output"]["number"]), (&json!("completed"), &json!(1)), "{data}");
    let flags = plant.flags.path().display().to_string();
    let (code, said) = plant.cli_said(&["check", &flags]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("a 503 does not lead to the fallback").count(), 2, "of the two that do not say: {said}");
    assert!(said.contains("not_done: [503]"), "{said}");
    plant.finish().await;
}
