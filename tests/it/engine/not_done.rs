//! A shared step that was certainly not done: the caller is told so, and in `live` legacy answers.

use http::Method;
use serde_json::json;

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const PAY: &str = "
workflow: pay
steps:
  charge: { call: 'POST ${services.works}/charges', retry: { attempts: 2, base: 1ms, max: 2ms } }
  sold: { needs: [charge], if: '${request.body.sold}', fail: { status: 410, body: { error: sold out } } }
respond: { status: 200, body: { by: engine } }
";

const ROUTE: &str = "
routes:
- { id: pay, match: { method: POST, path: /pay }, legacy: plain, workflow: pay, state: dark }
";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shared_step_that_was_certainly_not_done_legacy_answers() {
    let test = EngineTest::with_settings("", &[PAY], |flags| flags.write("routes/pay.yaml", ROUTE)).await;
    let pay = async |body: serde_json::Value| {
        let url = format!("{}/pay", test.pointsman.url());
        test.client.json(Method::POST, &url, &[], &body).await.expect("an answer")
    };
    test.cli(&["flip", "pay", "live", "--force", "--reason", "no pairs here"]).await;
    test.step_service.set_default("POST /charges", ScriptedReply::Refuse(429));
    let reply = pay(json!({})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["id"]), (200, &json!("POST /pay 1")), "{}", reply.json());
    assert_eq!((test.step_service.count("POST /charges"), test.step_service.effects("POST /charges")), (2, 0));
    // A request whose step may have been done is not given to legacy.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(404), 1);
    let reply = pay(json!({})).await;
    assert_eq!((reply.status.as_u16(), test.step_service.count("POST /pay")), (502, 1), "{}", reply.json());
    assert_eq!(reply.json()["shared_step_begun"], json!(true), "{}", reply.json());
    // In `only` there is no fallback: the caller is told that nothing was done.
    test.cli(&["flip", "pay", "only", "--force", "--reason", "no pairs here", "--acknowledge"]).await;
    let reply = pay(json!({})).await;
    let problem = reply.json();
    assert_eq!((reply.status.as_u16(), &problem["shared_step_begun"]), (503, &json!(false)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("Nothing but reads was done"), "{problem}");
    // A `fail:` step that the workflow declares is an answer, not a failure of the engine.
    test.step_service.set_default("POST /charges", ScriptedReply::Done(200, json!({})));
    let reply = pay(json!({ "sold": true })).await;
    assert_eq!(reply.status.as_u16(), 410);
    let completed = |m: &crate::support::metrics::Metrics| {
        m.sum("pointsman_runs_total", &[("workflow", "pay"), ("mode", "real"), ("outcome", "completed")]) == 1.0
    };
    test.pointsman.until_metric("it is counted as completed", completed).await;
    test.finish().await;
}
