//! The kind of a body (JSON, text, bytes) is recorded beside its content.

use http::Method;
use serde_json::json;

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const ECHO: &str = "
workflow: echo
steps:
  echo: { call: 'POST ${services.works}/echoes', body: '${request.body}' }
  raw: { needs: [echo], call: 'POST ${services.works}/raws', raw: '${request.raw}' }
respond: { status: 200, body: '${steps.echo.output}' }
";

const ROUTE: &str = "
routes:
- { id: echo, match: { method: POST, path: /echo }, legacy: plain, workflow: echo, state: dark }
";

#[tokio::test(flavor = "multi_thread")]
async fn json_that_looks_like_encoded_bytes_stays_json_and_bytes_stay_bytes() {
    let test = EngineTest::with_settings("", &[ECHO], |flags| flags.write("routes/echo.yaml", ROUTE)).await;
    test.cli(&["flip", "echo", "live", "--force", "--reason", "bodies are looked at"]).await;
    let url = format!("{}/echo", test.pointsman.url());
    let page = json!({ "$bytes": "PHNjcmlwdD4=", "content_type": "text/html" });
    test.step_service.script("POST /echoes", ScriptedReply::Done(200, page.clone()), 1);
    let reply = test.client.json(Method::POST, &url, &[], &page).await.expect("an answer");
    assert_eq!((reply.status.as_u16(), reply.json()), (200, page.clone()));
    assert_eq!(reply.headers["content-type"], "application/json", "and no page of a stranger");
    let seen = (test.step_service.seen("POST /echoes"), test.step_service.seen("POST /raws"));
    assert_eq!((seen.0[0].json(), seen.1[0].json()), (page.clone(), page));
    assert_eq!(seen.0[0].headers["content-type"], "application/json");
    // What is neither JSON nor text is passed on as it came.
    let image = bytes::Bytes::from_static(&[137, 80, 78, 71, 0, 255]);
    test.step_service.script("POST /echoes", ScriptedReply::Bytes("image/png", image.clone()), 1);
    let reply = test.client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!((reply.body, &reply.headers["content-type"]), (image, &"image/png".parse().unwrap()));
    test.finish().await;
}
