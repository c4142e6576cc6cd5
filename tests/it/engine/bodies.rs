//! Bodies: what a body is, is known beside what stands in it.

use http::Method;
use serde_json::json;

use super::Plant;
use crate::support::works::Say;

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
async fn json_that_looks_like_ours_stays_json_and_bytes_stay_bytes() {
    let plant = Plant::made("", &[ECHO], |flags| flags.write("routes/echo.yaml", ROUTE)).await;
    plant.cli(&["flip", "echo", "live", "--force", "--reason", "bodies are looked at"]).await;
    let url = format!("{}/echo", plant.pointsman.url());
    let page = json!({ "$bytes": "PHNjcmlwdD4=", "content_type": "text/html" });
    plant.works.next("POST /echoes", Say::Done(200, page.clone()), 1);
    let reply = plant.client.json(Method::POST, &url, &[], &page).await.expect("an answer");
    assert_eq!((reply.status.as_u16(), reply.json()), (200, page.clone()));
    assert_eq!(reply.headers["content-type"], "application/json", "and no page of a stranger");
    let seen = (plant.works.seen("POST /echoes"), plant.works.seen("POST /raws"));
    assert_eq!((seen.0[0].json(), seen.1[0].json()), (page.clone(), page));
    assert_eq!(seen.0[0].headers["content-type"], "application/json");
    // What is neither JSON nor text is passed on as it came.
    let image = bytes::Bytes::from_static(&[137, 80, 78, 71, 0, 255]);
    plant.works.next("POST /echoes", Say::Bytes("image/png", image.clone()), 1);
    let reply = plant.client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!((reply.body, &reply.headers["content-type"]), (image, &"image/png".parse().unwrap()));
    plant.finish().await;
}
