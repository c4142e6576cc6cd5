//! Checkpoints by risk: low risk runs, medium asks once, high is approved or struck out item by item.

use serde_json::{Value, json};

use super::{EngineTest, id, step};

const MAILS: &str = "
workflow: mails
steps:
  mail:
    for_each: ${request.body.people}
    call: POST ${services.works}/mails
    body: { to: '${item}' }
    risk: '${size(request.body.people) > 2 ? \"high\" : size(request.body.people) > 1 ? \"medium\" : \"low\"}'
    on_reject: skip
    ask: { question: 'Mail ${size(request.body.people)} people?' }
respond:
  status: 200
  body:
    sent: '${steps.mail.skipped ? null : steps.mail.output.map(o, o == null ? null : o.number)}'
    struck: '${steps.mail.skipped ? null : steps.mail.struck}'
";

const POLICY: &str = "
workflow: policy
risks:
  - { method: DELETE, reversible: false, risk: high }
  - { effect: shared, items_over: 2, risk: high }
  - { effect: shared, risk: medium }
steps:
  look: { call: 'GET ${services.works}/looks' }
  refunds:
    needs: [look]
    call: POST ${services.works}/refunds
    body: [{ amount: 1 }, { amount: 2 }, { amount: 3 }]
    rehearse: {}
  purge:
    needs: [refunds]
    call: DELETE ${services.works}/books/1
    reversible: false
    rehearse: {}
  tell:
    needs: [purge]
    call: POST ${services.works}/mails
    body: { to: all }
    risk: low
respond: { status: 200, body: done }
";

async fn pending_checkpoint(test: &EngineTest, run: &str) -> Value {
    test.wait_for_status(run, "waiting_checkpoint").await["pending_checkpoint"].clone()
}

async fn answer(test: &EngineTest, pending: &Value, body: Value) -> Value {
    test.post_accepted(pending["answer"].as_str().expect("a path"), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_approved_items_are_performed_also_over_a_kill() {
    let mut test = EngineTest::with(&[MAILS]).await;
    let data = test.run("mails", json!({ "people": ["a"] })).await;
    assert_eq!((&data["status"], test.step_service.count("POST /mails")), (&json!("completed"), 1), "low runs: {data}");

    let run = test.start_run("mails", json!({ "people": ["a", "b"] })).await;
    let pending = pending_checkpoint(&test, &run).await;
    assert_eq!((&pending["kind"], &pending["risk"]), (&json!("approval"), &json!("medium")), "{pending}");
    answer(&test, &pending, json!({ "approve": true, "as": "ada" })).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.count("POST /mails"), 3);

    let run = test.start_run("mails", json!({ "people": ["c", "d", "e"] })).await;
    let pending = pending_checkpoint(&test, &run).await;
    assert_eq!((&pending["kind"], &pending["question"]), (&json!("review"), &json!("Mail 3 people?")), "{pending}");
    let items: Vec<(Value, bool)> = pending["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["value"].clone(), item["what"].as_str().unwrap().starts_with("POST http")))
        .collect();
    let mail = |to: &str| (json!({ "to": to }), true);
    assert_eq!(items, [mail("c"), mail("d"), mail("e")], "each with what it would touch");
    test.kill_and_restart().await;
    assert_eq!(pending_checkpoint(&test, &run).await, pending, "the checkpoint is the same after the restart");
    let answer_path = pending["answer"].as_str().unwrap();
    for (body, why) in [
        (json!({ "approved": [0, 1] }), "neither approved nor struck out"),
        (json!({ "approved": [0, 1, 2], "struck": [2] }), "both approved and struck out"),
        (json!({ "approved": [0, 1, 2, 7] }), "no item 7"),
        (json!({ "approve": true }), "neither approved nor struck out"),
    ] {
        let (status, problem) = test.post(answer_path, body).await;
        assert!(status == 422 && problem["detail"].as_str().unwrap().contains(why), "{problem}");
    }
    assert_eq!(test.step_service.count("POST /mails"), 3, "nothing was sent meanwhile");
    test.cli(&["runs", "answer", id(&run), "--approve", "0,2", "--strike", "1", "--as", "ada"]).await;
    let data = test.wait_for_status(&run, "completed").await;
    let (sent, struck) = (&data["output"]["sent"], &data["output"]["struck"]);
    assert!(sent[0].is_u64() && sent[1].is_null() && sent[2].is_u64() && *struck == json!(1), "{data}");
    let sent: Vec<Value> = test.step_service.seen("POST /mails").iter().map(|mail| mail.json()["to"].clone()).collect();
    assert!(!sent.contains(&json!("d")) && sent.len() == 5, "{sent:?}");

    // All items struck out, or the step rejected: nothing is performed, and with `on_reject: skip` the run continues.
    for body in [json!({ "struck": [0, 1, 2], "as": "ada" }), json!({ "approve": false, "as": "ada" })] {
        let run = test.start_run("mails", json!({ "people": ["c", "d", "e"] })).await;
        let pending = pending_checkpoint(&test, &run).await;
        answer(&test, &pending, body).await;
        let data = test.wait_for_status(&run, "completed").await;
        assert_eq!(
            (&data["output"]["sent"], &step(&data, "mail")["status"]),
            (&Value::Null, &json!("skipped")),
            "{data}"
        );
    }
    assert_eq!(test.step_service.count("POST /mails"), 5);
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_judges_effect_method_number_and_reversibility() {
    let test = EngineTest::with(&[POLICY]).await;
    let run = test.start_run("policy", json!({})).await;
    let pending = pending_checkpoint(&test, &run).await;
    assert_eq!((&pending["step_id"], &pending["risk"]), (&json!("refunds"), &json!("high")), "{pending}");
    assert_eq!(pending["items"].as_array().unwrap().len(), 3, "every item of its body: {pending}");
    assert_eq!(test.step_service.count("GET /looks"), 1, "a read needs no approval");
    answer(&test, &pending, json!({ "approved": [0, 2], "struck": [1] })).await;
    let pending = crate::support::until("the next question", || async {
        let pending = pending_checkpoint(&test, &run).await;
        (pending["step_id"] == "purge").then_some(pending)
    })
    .await;
    assert_eq!(
        test.step_service.seen("POST /refunds")[0].json(),
        json!([{ "amount": 1 }, { "amount": 3 }]),
        "as approved"
    );
    assert_eq!(pending["risk"], "high", "it cannot be taken back: {pending}");
    let indexes: Vec<u64> =
        pending["items"].as_array().unwrap().iter().map(|item| item["index"].as_u64().unwrap()).collect();
    assert_eq!(test.step_service.count("DELETE /books"), 0);
    answer(&test, &pending, json!({ "approve": true, "approved": indexes })).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(
        (test.step_service.count("DELETE /books"), test.step_service.count("POST /mails")),
        (1, 1),
        "its own `risk` wins"
    );
    // A rejection fails the run, and the failure names who rejected.
    let run = test.start_run("policy", json!({})).await;
    let pending = pending_checkpoint(&test, &run).await;
    answer(&test, &pending, json!({ "approve": false, "note": "too much", "as": "ada" })).await;
    let data = test.wait_for_status(&run, "failed").await;
    let message = data["error"]["message"].as_str().unwrap();
    assert!(message.contains("ada") && message.contains("too much"), "{message}");
    assert_eq!(test.step_service.count("POST /refunds"), 1);
    test.finish().await;
}
