//! Starts: one run for each key, refusals with reasons, answers in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{BankTest, RUN, path};
use crate::support::origin::OriginReply;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_answered_when_it_ends() {
    let test = BankTest::open().await;
    let (status, envelope) = test.run("order", json!({ "sku": "a" })).await;
    assert_eq!(status, 200, "{envelope}");
    let data = &envelope["data"];
    assert_eq!((&envelope["object"], &data["status"]), (&json!("orchestration"), &json!("completed")));
    assert_eq!(data["output"], json!({ "id": "c1" }));
    let steps: Vec<_> =
        data["steps"].as_array().unwrap().iter().map(|step| (&step["step_id"], &step["status"])).collect();
    assert_eq!(steps, [(&json!("charge"), &json!("done")), (&json!("total"), &json!("done"))]);
    assert_eq!(data["job"]["durability"], "persisted");
    assert_eq!(data["audit_receipt"]["source"], json!({ "method": "POST", "route": RUN }));
    assert_eq!(data["audit_receipt"]["auth_mode"], "loopback");
    assert_eq!(test.pointsman.get(&path(&envelope)).await, envelope, "a later read returns the same");
    let job = format!("{RUN}/{}", data["job_id"].as_str().unwrap());
    assert_eq!(test.pointsman.get(&job).await, envelope);
    let output = test.pointsman.get(&format!("{}/steps/charge/output", path(&envelope))).await;
    assert_eq!(output, json!({ "id": "c1" }));
    let events = test.pointsman.get(&format!("{}/events?from=2&limit=1", path(&envelope))).await;
    assert_eq!((events.as_array().unwrap().len(), &events[0]["seq"]), (1, &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_posts_with_one_key_are_one_run_and_one_answer() {
    let test = Arc::new(BankTest::open().await);
    test.bank.set_default(OriginReply::Slow(Duration::from_millis(300), r#"{"id":"c1"}"#));
    let posts = (0..200).map(|_| {
        let test = test.clone();
        tokio::spawn(async move {
            let request = json!({ "workflow": "order", "input": { "sku": "a" } });
            let reply = test.call(Method::POST, RUN, &[("idempotency-key", "one")], &request).await;
            (reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned())
        })
    });
    let mut answers = BTreeSet::new();
    for post in posts.collect::<Vec<_>>() {
        answers.insert(post.await.expect("answered"));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.first().unwrap().0, 200);
    assert_eq!(test.bank.count(), 1, "charged once");
    let other = json!({ "workflow": "order", "input": { "sku": "b" }, "idempotency_key": "one" });
    let (status, problem) = test.post(RUN, other).await;
    assert_eq!((status, &problem["type"]), (422, &json!("urn:pointsman:problem:key-of-other")), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_holds_over_a_restart() {
    let mut test = BankTest::open().await;
    let request = json!({ "workflow": "order", "input": { "sku": "a" }, "idempotency_key": "k" });
    let (_, first) = test.post(RUN, request.clone()).await;
    test.kill_and_restart().await;
    let (status, again) = test.post(RUN, request).await;
    assert_eq!((status, again), (200, first));
    assert_eq!(test.bank.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_starts_leave_no_run() {
    let test = BankTest::open().await;
    let (status, problem) = test.run("order", json!({ "sku": 5 })).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/input/sku")), "{problem}");
    let (status, problem) = test.run("ordr", json!({})).await;
    assert_eq!((status, &problem["hint"]), (404, &json!("did you mean `order`?")));
    let (status, problem) = test.post(RUN, json!({ "query": "order two apples" })).await;
    assert_eq!((status, &problem["reasons"]), (501, &json!(["order", "payment", "pick"])));
    let listed = test.pointsman.get("/api/v2/orchestrate/runs").await;
    assert_eq!(listed, json!({ "runs": [], "next": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_longer_is_answered_with_202_and_continues() {
    let test = BankTest::open().await;
    test.bank.script(OriginReply::Slow(Duration::from_secs(3), r#"{"id":"c1"}"#), 1);
    let request = json!({ "workflow": "order", "input": { "sku": "a" } });
    let reply = test.call(Method::POST, RUN, &[("prefer", "wait=1")], &request).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["preference-applied"]), (202, &"wait=1".parse().unwrap()));
    let envelope = reply.json();
    assert_eq!(
        (&envelope["data"]["status"], &reply.headers["location"]),
        (&json!("running"), &path(&envelope).parse().unwrap())
    );
    assert_eq!(test.wait_for_status(&path(&envelope), "completed").await["data"]["output"], json!({ "id": "c1" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_filtered_and_counted() {
    let test = BankTest::open().await;
    test.start_run("order", json!({ "sku": "a" })).await;
    let asks = test.start_run("pick", json!({})).await;
    let list = async |query: &str| {
        let list = test.pointsman.get(&format!("/api/v2/orchestrate/runs?{query}")).await;
        list["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["workflow"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    test.wait_for_status(&asks, "waiting_checkpoint").await;
    assert_eq!(list("").await, ["pick", "order"]);
    assert_eq!(list("status=open").await, ["pick"]);
    assert_eq!(list("status=completed&workflow=order&mode=real").await, ["order"]);
    assert_eq!(list("since=2999-01-01T00:00:00Z").await, [""; 0]);
    let job = asks.replace(&format!("{RUN}/run_"), "job_");
    assert_eq!(list(&format!("job={job}")).await, ["pick"]);
    let status = test.pointsman.get("/api/v2/status").await;
    assert_eq!(status["runs"], json!({ "waiting_checkpoint": 1 }));
}
