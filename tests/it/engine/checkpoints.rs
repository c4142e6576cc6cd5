//! Checkpoints: who may answer, what happens when nobody does, and that no run continues past an open one.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, RUN, id, path, step};
use crate::support::FlagsDir;

fn question(name: &str, rest: &str) -> String {
    format!(
        "workflow: {name}
steps:
  ask:
    checkpoint:
      question: \"Which, ${{request.body.who}}?\"
      schema: {{ type: object, required: [id], properties: {{ id: {{ type: string }} }} }}
      {rest}
  use: {{ needs: [ask], call: 'POST ${{services.works}}/uses', body: '${{steps.ask.output}}' }}
respond: {{ status: 200, body: {{ id: '${{steps.ask.output.id}}', by: '${{steps.ask.by}}' }} }}
"
    )
}

async fn pending_checkpoint(test: &EngineTest, run: &str) -> Value {
    test.wait_for_status(run, "waiting_checkpoint").await["pending_checkpoint"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_an_answer_times_out_as_declared() {
    let approve = question("approves", "timeout: 300ms\n      on_timeout: approve\n      default: { id: usual }");
    let reject = question("rejects", "timeout: 300ms\n      on_timeout: reject");
    let escalate = question(
        "escalates",
        "who: [ada]\n      timeout: 300ms\n      on_timeout: escalate\n      escalate: { who: [eve], timeout: 2d, on_timeout: reject }",
    );
    let twice = question(
        "gives-up",
        "who: [ada]\n      timeout: 300ms\n      on_timeout: escalate\n      escalate: { who: [eve], timeout: 300ms, on_timeout: reject }",
    );
    let mut test = EngineTest::with(&[&approve, &reject, &escalate, &twice]).await;
    let mut runs = Vec::new();
    for name in ["approves", "rejects", "escalates", "gives-up"] {
        let run = test.start_run(name, json!({ "who": "you" })).await;
        test.wait_for_events(&run, "checkpoint_opened", 1).await;
        runs.push(run);
    }
    // The timeout passes while no process runs, or soon after the restart; it takes effect in both cases.
    test.kill_and_restart().await;
    let data = test.wait_for_status(&runs[0], "completed").await;
    assert_eq!(data["output"], json!({ "id": "usual", "by": "time-out" }), "{data}");
    let data = test.wait_for_status(&runs[1], "failed").await;
    assert!(data["error"]["message"].as_str().unwrap().contains("nobody answered in time"), "{data}");
    let data = test.wait_for_status(&runs[3], "failed").await;
    assert!(data["error"]["message"].as_str().unwrap().contains("nobody answered in time"), "{data}");
    test.wait_for_events(&runs[2], "checkpoint_escalated", 1).await;
    let pending = pending_checkpoint(&test, &runs[2]).await;
    assert_eq!(pending["who"], json!(["eve"]), "{pending}");
    let explained = test.explanation(&runs[2]).await;
    assert!(explained.contains("waits for eve: Which, you?"), "{explained}");
    let answer_path = pending["answer"].as_str().unwrap();
    let (status, problem) = test.post(answer_path, json!({ "values": { "id": "a" }, "as": "ada" })).await;
    assert!(status == 403 && problem["detail"].as_str().unwrap().contains("only eve may answer"), "{problem}");
    // No token is required here: a caller with `--as eve` may answer, and the name is recorded as unverified.
    test.post_accepted(answer_path, json!({ "values": { "id": "a" }, "as": "eve" })).await;
    let data = test.wait_for_status(&runs[2], "completed").await;
    assert_eq!(data["output"], json!({ "id": "a", "by": "eve (unverified)" }), "{data}");
    let (status, second) = test.post(answer_path, json!({ "values": { "id": "b" }, "as": "eve" })).await;
    assert!(matches!(status, 409) && second["run_status"] == "completed", "{second}");
    assert_eq!(test.step_service.effects("POST /uses"), 2);
    test.finish().await;
}

const ADA: (&str, &str) = ("authorization", "Bearer ada-0123456789abcdef");
const EVE: (&str, &str) = ("authorization", "Bearer eve-0123456789abcdef");

fn tokens(flags: &FlagsDir) {
    for name in ["ada", "eve"] {
        flags.write(&format!("{name}.token"), &format!("{name}-0123456789abcdef"));
    }
    let token = |name: &str| {
        format!(
            "{{ name: {name}, file: \"{}\", may: [read, run, decide] }}",
            flags.file(&format!("{name}.token")).display()
        )
    };
    let tokens = format!("admin: {{ tokens: [ {}, {} ] }}\n", token("ada"), token("eve"));
    flags.edit("pointsman.yaml", |text| text + &tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_permitted_answer_counts_and_a_second_one_gets_the_first() {
    let who = question("private", "who: [ada]");
    let test = EngineTest::with_settings("", &[&who], tokens).await;
    let request = json!({ "workflow": "private", "input": { "who": "ada" } });
    let started = test.call(Method::POST, RUN, &[EVE], &request).await.json()["data"].clone();
    let answer_path = started["pending_checkpoint"]["answer"].as_str().unwrap().to_owned();
    let answer_as = async |token, id: &str| {
        let body = json!({ "values": { "id": id }, "as": "ada" });
        let reply = test.call(Method::POST, &answer_path, &[token], &body).await;
        (reply.status.as_u16(), reply.json())
    };
    let (status, problem) = answer_as(EVE, "x").await;
    assert_eq!(status, 403, "the name in the body does not replace the token's: {problem}");
    // The run has not ended while the refused answers come, so each of them gets the first answer.
    test.step_service.hold("POST /uses");
    let all = futures_util::future::join_all((0..8).map(|n| answer_as(ADA, if n % 2 == 0 { "a" } else { "b" }))).await;
    let accepted: Vec<&Value> = all.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
    assert_eq!(accepted.len(), 1, "{all:?}");
    test.step_service.release_all("POST /uses");
    let first = crate::support::until("the run to end", || async {
        let seen = test.call(Method::GET, &path(&started), &[ADA], &Value::Null).await.json()["data"].clone();
        (seen["status"] == "completed").then(|| seen["output"].clone())
    })
    .await;
    for (status, problem) in all.iter().filter(|(status, _)| *status != 200) {
        assert_eq!(*status, 409, "{problem}");
        assert_eq!((&problem["first"]["by"], &problem["first"]["values"]["id"]), (&json!("ada"), &first["id"]));
        assert!(problem["first"]["at"].is_string(), "{problem}");
    }
    assert_eq!(test.step_service.effects("POST /uses"), 1);
    test.finish().await;
}

const BELOW: &str = "
workflow: below
steps:
  pay:
    if: '${request.body.amount > 0}'
    call: POST ${services.works}/payments
    body: { amount: '${request.body.amount}' }
    risk: medium
respond: { status: 200, body: '${steps.pay.output}' }
";

const ABOVE: &str = "
workflow: above
steps:
  first: { call: 'POST ${services.works}/firsts' }
  each:
    needs: [first]
    for_each: ${request.body.amounts}
    run: below
    input: { amount: '${item}' }
  last: { needs: [each], call: 'POST ${services.works}/lasts' }
respond: { status: 200, body: '${size(steps.each.output)}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn no_command_bypasses_a_checkpoint_in_a_branch_or_a_child_run() {
    let mut test = EngineTest::with(&[BELOW, ABOVE]).await;
    let run = test.start_run("above", json!({ "amounts": [1, 2] })).await;
    let mut below = Vec::new();
    for _ in 0..2 {
        let list = crate::support::until("both runs below to ask", || async {
            let query = format!("/api/v2/orchestrate/runs?parent={}&status=waiting_checkpoint", id(&run));
            let list = test.pointsman.get(&query).await["runs"].as_array().unwrap().clone();
            (list.len() == 2).then_some(list)
        })
        .await;
        below = list.iter().map(|row| format!("{RUN}/{}", row["run_id"].as_str().unwrap())).collect();
        // No command that could bypass the checkpoint, to the parent or to a child, leads to a payment.
        for of in &[&run, &below[0], &below[1]] {
            test.post_refused(&format!("{of}/resume"), json!({})).await;
            test.post_refused(&format!("{of}/retry"), json!({})).await;
            // A command to the parent reaches its children a moment later.
            let reaches: Vec<&String> = if **of == run { below.iter().collect() } else { vec![*of] };
            test.post_accepted(&format!("{of}/pause"), json!({})).await;
            for below in &reaches {
                test.wait_for_status(below, "paused").await;
            }
            test.post_accepted(&format!("{of}/resume"), json!({})).await;
            for below in &reaches {
                test.wait_for_status(below, "waiting_checkpoint").await;
            }
        }
        test.post_refused(&format!("{run}/skip"), json!({ "step": "each" })).await;
        test.kill_and_restart().await;
    }
    test.wait_for_status(&below[0], "waiting_checkpoint").await;
    let (status, rerun) = test.post(&format!("{}/rerun", below[0]), json!({ "from": "pay" })).await;
    if status < 300 {
        let again = path(&rerun["data"]);
        pending_checkpoint(&test, &again).await;
        test.post_accepted(&format!("{again}/cancel"), json!({})).await;
    }
    // Another input opens another checkpoint; the answer to the earlier one does not count for it.
    let before = pending_checkpoint(&test, &below[0]).await;
    test.post_accepted(&format!("{}/adjust", below[0]), json!({ "step": "pay", "input": { "amount": 1_000 } })).await;
    let after = crate::support::until("the new question", || async {
        let now = test.data(&below[0]).await["pending_checkpoint"].clone();
        (now["id"].is_string() && now["id"] != before["id"]).then_some(now)
    })
    .await;
    test.post_refused(before["answer"].as_str().unwrap(), json!({ "approve": true })).await;
    assert_eq!((test.step_service.count("POST /payments"), test.step_service.count("POST /lasts")), (0, 0));
    let explained = test.explanation(&run).await;
    assert!(explained.contains(id(&below[0])) && explained.contains("of `below`"), "{explained}");

    test.post_accepted(after["answer"].as_str().unwrap(), json!({ "approve": true })).await;
    test.wait_for_status(&below[0], "completed").await;
    let other = pending_checkpoint(&test, &below[1]).await;
    assert_eq!(
        (test.step_service.count("POST /payments"), test.step_service.count("POST /lasts")),
        (1, 0),
        "one approval releases one payment"
    );
    test.post_accepted(other["answer"].as_str().unwrap(), json!({ "approve": true })).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!((&step(&data, "last")["status"], &data["output"]), (&json!("done"), &json!(2)), "{data}");
    let mut paid: Vec<i64> =
        test.step_service.seen("POST /payments").iter().filter_map(|call| call.json()["amount"].as_i64()).collect();
    paid.sort_unstable();
    assert!(paid.contains(&1_000) && paid.len() == 2, "{paid:?}");
    test.finish().await;
}
