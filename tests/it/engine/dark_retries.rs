//! A client's retry in `dark` makes no second run, so that private effects are sent once: also under another
//! credential, and in the next process.

use http::Method;
use serde_json::json;

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const DRAFT: &str = "
workflow: draft
steps:
  draft: { effect: private, call: 'POST ${services.plain}/drafts', body: '${request.body}' }
respond: { status: 200, body: '${steps.draft.output}' }
";

const ROUTE: &str = "
routes:
- { id: dark, match: { method: POST, path: /dark }, legacy: plain, workflow: draft, state: dark, force: { reason: a test } }
";

/// Sends a request, and waits until `settled` requests of the route were offered and as many comparisons are settled.
async fn send_and_settle(test: &EngineTest, key: &str, credential: &str, settled: f64) {
    let url = format!("{}/dark", test.pointsman.url());
    let headers = [("idempotency-key", key), ("authorization", credential)];
    let reply = test.client.json(Method::POST, &url, &headers, &json!({ "n": 1 })).await.expect("legacy answers");
    assert!(reply.status.is_success(), "{}", reply.status);
    let route = [("route", "dark")];
    test.pointsman
        .until_metric("the comparison", |metrics| {
            metrics.sum("pointsman_comparisons_total", &route) == settled
                && metrics.sum("pointsman_offered_total", &route) == settled
        })
        .await;
}

async fn retries(test: &EngineTest) -> f64 {
    let all = [("route", "dark"), ("outcome", "skipped"), ("reason", "retried")];
    test.pointsman.metrics().await.sum("pointsman_comparisons_total", &all)
}

#[tokio::test(flavor = "multi_thread")]
async fn private_effects_of_a_retry_in_dark_are_sent_once() {
    let mut test = EngineTest::with_settings("", &[DRAFT], |flags| flags.write("routes/dark.yaml", ROUTE)).await;
    // Legacy gives the same answer to each try.
    test.step_service.set_default("POST /dark", ScriptedReply::RefuseWith(200, Vec::new(), json!({ "id": 1 })));
    send_and_settle(&test, "k", "a", 1.0).await;
    assert_eq!(test.step_service.count("POST /drafts"), 1);
    send_and_settle(&test, "k", "a", 2.0).await;
    send_and_settle(&test, "k", "b", 3.0).await;
    assert_eq!((test.step_service.count("POST /drafts"), retries(&test).await), (1, 2.0), "another credential");

    assert_eq!(test.pointsman.stop().await, Some(0), "it ends with exit code 0");
    test.restart().await;
    send_and_settle(&test, "k", "a", 1.0).await;
    assert_eq!((test.step_service.count("POST /drafts"), retries(&test).await), (1, 1.0), "the next process");
    test.kill_and_restart().await;
    send_and_settle(&test, "k", "c", 1.0).await;
    assert_eq!((test.step_service.count("POST /drafts"), retries(&test).await), (1, 1.0), "both");
    send_and_settle(&test, "new", "a", 2.0).await;
    assert_eq!((test.step_service.count("POST /drafts"), retries(&test).await), (2, 1.0), "a new request");
    test.finish().await;
}
