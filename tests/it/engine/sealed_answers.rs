//! A sealed answer and sealed headers: the store does not show them, a retry gets the answer in clear.

use http::Method;
use serde_json::{Value, json};

use super::sealed::is_in_store;
use super::{EngineTest, RUN};
use crate::support::FlagsDir;
use crate::support::step_service::ScriptedReply;

const SESSION: &str = "session-6612-of-a-caller";
const VOUCHER: &str = "voucher-9931-of-a-service";

const ISSUES: &str = r#"
workflow: issues
input: { sensitive_headers: [x-session] }
steps:
  voucher:
    call: POST ${services.works}/vouchers
    headers: { x-session: '${request.headers["x-session"]}' }
    sensitive: [$.code]
respond:
  status: 201
  headers: { x-session: '${request.headers["x-session"]}' }
  body: { id: "${run.id}", code: "${steps.voucher.output.code}" }
"#;

const ROUTES: &str = "routes:
- { id: vouchers.create, match: { method: POST, path: /vouchers }, legacy: plain, workflow: issues, state: live,
    force: { reason: a test } }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_restart_gets_the_sealed_answer_in_clear() {
    let mut test = EngineTest::with_settings("store_key: { file: store.key }\n", &[ISSUES], |flags: &FlagsDir| {
        flags.write("store.key", &"0123456789abcdef".repeat(4));
        flags.write("routes/vouchers.yaml", ROUTES);
    })
    .await;
    test.step_service.set_default("POST /vouchers", ScriptedReply::Done(200, json!({ "code": VOUCHER })));
    let headers = [("idempotency-key", "k"), ("x-session", SESSION)];
    let mut answers = Vec::new();
    for is_retry in [false, true] {
        if is_retry {
            test.kill_and_restart().await;
        }
        let url = format!("http://{}/vouchers", test.pointsman.listen);
        let reply = test.client.json(Method::POST, &url, &headers, &json!({})).await.expect("an answer");
        assert_eq!(reply.status, 201, "{} {}", reply.json(), test.pointsman.log());
        assert_eq!(reply.json()["code"], VOUCHER);
        assert_eq!(reply.headers["x-session"], SESSION);
        answers.push(reply.json());
    }
    assert_eq!(answers[0], answers[1], "of the same run");
    let sent = test.step_service.seen("POST /vouchers");
    assert_eq!((sent.len(), sent[0].headers["x-session"].to_str().unwrap()), (1, SESSION));
    let run = format!("{RUN}/{}", answers[0]["id"].as_str().expect("an id"));
    let shown = format!("{} {}", test.data(&run).await, Value::from(test.events(&run).await));
    for secret in [SESSION, VOUCHER] {
        assert!(!is_in_store(&test, secret), "{secret} is in the store");
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
        assert!(!test.pointsman.log().contains(secret), "{secret} is in the log");
    }
    assert!(shown.contains("«sealed:"), "{shown}");
    test.finish().await;
}
