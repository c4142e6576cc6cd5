//! Decisions, answers, signals and commands to runs.

use std::time::Duration;

use serde_json::json;

use super::BankTest;
use crate::support::origin::OriginReply;

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_shown_and_decided() {
    let test = BankTest::open().await;
    test.bank.script(OriginReply::Status(409), 1);
    let run = test.start_run("order", json!({ "sku": "a", "password": "hunter2" })).await;
    let data = test.wait_for_status(&run, "paused").await["data"].clone();
    let conflict = &data["conflicts"][0];
    assert_eq!(
        (&conflict["kind"], &conflict["step_id"], &conflict["status"]),
        (&json!("refused"), &json!("charge"), &json!(409))
    );
    assert_eq!(conflict["request"]["body"], json!({ "sku": "a" }));
    assert!(conflict["choices"].as_array().unwrap().contains(&json!("take")), "{conflict}");
    let (status, refused) = test.post(&format!("{run}/resolve"), json!({ "step": "chrge", "choice": "retry" })).await;
    assert_eq!((status, &refused["hint"]), (422, &json!("did you mean `charge`?")), "{refused}");
    let take = json!({ "step": "charge", "choice": "take", "output": { "id": "by hand" }, "reason": "looked it up", "as": "ada" });
    let (status, after) = test.post(&format!("{run}/resolve"), take.clone()).await;
    assert_eq!(status, 200, "{after}");
    assert_eq!(test.wait_for_status(&run, "completed").await["data"]["output"], json!({ "id": "by hand" }));
    let (status, refused) = test.post(&format!("{run}/resolve"), take).await;
    assert_eq!((status, &refused["run_status"]), (409, &json!("completed")), "{refused}");
    let events = test.pointsman.get(&format!("{run}/events")).await;
    let resolved = events.as_array().unwrap().iter().find(|event| event["kind"] == "resolved").expect("in the trail");
    assert_eq!(resolved["event"]["resolved"]["by"], "ada (unverified)");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_steps_output_and_a_second_one_gets_the_first() {
    let mut test = BankTest::open().await;
    let run = test.start_run("pick", json!({})).await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["data"]["pending_checkpoint"].clone();
    assert_eq!((&pending["question"], &pending["kind"]), (&json!("Which one?"), &json!("question")));
    let explained = test.pointsman.get(&format!("{run}/explain")).await;
    assert!(!explained["sentence"].as_str().unwrap().is_empty() && explained["stuck"] == false, "{explained}");
    test.kill_and_restart().await;
    let answer_path = pending["answer"].as_str().unwrap();
    let (status, refused) = test.post(answer_path, json!({ "values": { "asset": 1 } })).await;
    assert_eq!(status, 422, "{refused}");
    let (status, _) = test.post(&format!("{run}/checkpoints/chk_none"), json!({ "approve": true })).await;
    assert_eq!(status, 404);
    let values = json!({ "selected_asset_id": "asset_1" });
    let (status, after) = test.post(answer_path, json!({ "values": values, "as": "ada" })).await;
    assert_eq!(status, 200, "{after}");
    assert_eq!(test.wait_for_status(&run, "completed").await["data"]["output"], json!({ "picked": "asset_1" }));
    let output = test.pointsman.get(&format!("{run}/steps/choose/output")).await;
    assert_eq!(output, values);
    let (status, second) = test.post(answer_path, json!({ "approve": false, "as": "bob" })).await;
    assert_eq!(status, 409, "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_answers_one_counts_and_the_other_one_gets_it() {
    let test = BankTest::open().await;
    // A second checkpoint keeps the run open after the first is answered.
    test.flags.write(
        "workflows/twice.yaml",
        "workflow: twice
steps:
  first: { checkpoint: { question: One? } }
  second: { needs: [first], checkpoint: { question: Two? } }
respond: { status: 200, body: done }
",
    );
    let run = crate::support::until("the new workflow", || async {
        let (status, envelope) = test.run("twice", json!({})).await;
        (status == 200).then(|| super::path(&envelope))
    })
    .await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["data"]["pending_checkpoint"].clone();
    let answer_path = pending["answer"].as_str().unwrap();
    let (ada, bob) = tokio::join!(
        test.post(answer_path, json!({ "approve": true, "as": "ada" })),
        test.post(answer_path, json!({ "approve": true, "as": "bob" })),
    );
    let (won, lost, winner) = if ada.0 == 200 { (ada, bob, "ada") } else { (bob, ada, "bob") };
    assert_eq!((won.0, lost.0), (200, 409), "{won:?} {lost:?}");
    assert_eq!(lost.1["first"]["by"], format!("{winner} (unverified)"));
    assert!(lost.1["first"]["at"].is_string(), "{}", lost.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_delivered_once() {
    let test = BankTest::open().await;
    let run = test.start_run("payment", json!({})).await;
    test.wait_for_status(&run, "waiting_signal").await;
    let (status, refused) = test.post(&format!("{run}/signals/other"), json!({ "payload": 1 })).await;
    assert_eq!((status, &refused["run_status"]), (409, &json!("waiting_signal")), "no step waits for it: {refused}");
    let paid = json!({ "payload": { "amount": 5 }, "id": "d1" });
    let (status, after) = test.post(&format!("{run}/signals/paid"), paid.clone()).await;
    assert_eq!(status, 200, "{after}");
    assert_eq!(test.wait_for_status(&run, "completed").await["data"]["output"], json!({ "amount": 5 }));
    // A sender whose first answer was lost repeats the delivery, also after the run has ended with it.
    let (status, again) = test.post(&format!("{run}/signals/paid"), paid).await;
    assert_eq!((status, &again["data"]["status"]), (200, &json!("completed")), "{again}");
    let other = json!({ "payload": { "amount": 5 }, "id": "d2" });
    let (status, refused) = test.post(&format!("{run}/signals/paid"), other).await;
    assert_eq!((status, &refused["run_status"]), (409, &json!("completed")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_paused_resumed_and_cancelled() {
    let test = BankTest::open().await;
    let run = test.start_run("pick", json!({})).await;
    test.wait_for_status(&run, "waiting_checkpoint").await;
    let (status, paused) = test.post(&format!("{run}/pause"), json!({ "reason": "a drill", "as": "ada" })).await;
    assert_eq!((status, &paused["data"]["status"]), (200, &json!("paused")), "{paused}");
    assert_eq!(paused["data"]["run"]["note"], "ada (unverified) paused it: a drill");
    let (status, refused) = test.post(&format!("{run}/pause"), json!({})).await;
    assert_eq!((status, &refused["run_status"]), (409, &json!("paused")), "{refused}");
    let (status, resumed) = test.post(&format!("{run}/resume"), json!({})).await;
    assert_eq!((status, &resumed["data"]["status"]), (200, &json!("waiting_checkpoint")), "{resumed}");
    let (status, refused) = test.post(&format!("{run}/resume"), json!({})).await;
    assert_eq!(status, 409, "{refused}");
    let (status, _) = test.post(&format!("{run}/cancel"), json!({ "reason": "enough" })).await;
    assert_eq!(status, 200);
    let ended = test.wait_for_status(&run, "cancelled").await;
    assert!(ended["data"]["run"]["note"].as_str().unwrap().contains("enough"), "{ended}");
    for command in ["pause", "resume", "cancel"] {
        let (status, refused) = test.post(&format!("{run}/{command}"), json!({})).await;
        assert_eq!((status, &refused["run_status"]), (409, &json!("cancelled")), "{command}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_have_not_begun_are_skipped_or_adjusted() {
    let test = BankTest::open().await;
    test.flags.write(
        "workflows/later.yaml",
        "workflow: later
steps:
  ask: { checkpoint: { question: Now? } }
  charge: { needs: [ask], call: 'POST ${services.bank}/charges', body: { sku: a } }
  mail: { needs: [ask], call: 'POST ${services.bank}/mails', body: { to: a } }
respond: { status: 200, body: { mailed: '${!steps.mail.skipped}' } }
",
    );
    let run = crate::support::until("the new workflow", || async {
        let (status, envelope) = test.run("later", json!({})).await;
        (status == 200).then(|| super::path(&envelope))
    })
    .await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["data"]["pending_checkpoint"].clone();
    let adjust = json!({ "step": "charge", "input": { "sku": "b" }, "reason": "out of a" });
    let (status, after) = test.post(&format!("{run}/adjust"), adjust.clone()).await;
    assert_eq!(status, 200, "{after}");
    let (status, after) = test.post(&format!("{run}/skip"), json!({ "step": "mail" })).await;
    assert_eq!(status, 200, "{after}");
    let (status, _) = test.post(pending["answer"].as_str().unwrap(), json!({ "approve": true })).await;
    assert_eq!(status, 200);
    test.wait_for_status(&run, "completed").await;
    let seen = test.bank.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].body, br#"{"sku":"b"}"#);
    let (status, refused) = test.post(&format!("{run}/adjust"), adjust).await;
    assert_eq!(status, 409, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_another_attempt_is_cut_short() {
    let test = BankTest::open().await;
    test.flags.write(
        "workflows/patient.yaml",
        "workflow: patient
steps:
  charge:
    call: POST ${services.bank}/charges
    retry: { attempts: 2, base: 10m, max: 10m }
respond: { status: 200, body: done }
",
    );
    test.bank.script(OriginReply::Status(429), 1);
    let run = crate::support::until("the new workflow", || async {
        let request = json!({ "workflow": "patient" });
        let reply = test.call(http::Method::POST, super::RUN, &[("prefer", "respond-async")], &request).await;
        (reply.status == 202).then(|| super::path(&reply.json()))
    })
    .await;
    crate::support::until_true("the first attempt", || test.bank.count() == 1).await;
    let (status, after) = crate::support::until("the pause before the next attempt", || async {
        let answer = test.post(&format!("{run}/retry"), json!({})).await;
        (answer.0 == 200).then_some(answer)
    })
    .await;
    assert_eq!(status, 200, "{after}");
    tokio::time::timeout(Duration::from_secs(30), test.wait_for_status(&run, "completed"))
        .await
        .expect("not after 10 minutes");
}

/// The checkpoint of a child run is shown with its parent, and answered at the child.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_a_child_run_is_shown_with_its_parent() {
    let outer = "workflow: outer
steps:
  quick: { set: 1 }
  sub: { run: pick }
respond: { status: 200, body: '${steps.sub.output}' }
";
    let test = BankTest::with_workflow("workflows/outer.yaml", outer).await;
    let begun = std::time::Instant::now();
    let (status, envelope) = test.run("outer", json!({})).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it is answered when the checkpoint opens, not after 25 s");
    let data = &envelope["data"];
    let pending = &data["pending_checkpoint"];
    assert_eq!((status, &data["status"], &pending["question"]), (200, &json!("running"), &json!("Which one?")));
    assert_ne!(pending["run_id"], data["run_id"]);
    let answer_path = pending["answer"].as_str().unwrap();
    assert!(answer_path.contains(pending["run_id"].as_str().unwrap()), "{answer_path}");
    let run = super::path(&envelope);
    let explained = test.pointsman.get(&format!("{run}/explain")).await;
    assert!(explained["sentence"].as_str().unwrap().contains("Which one?"), "{explained}");
    let (status, after) = test.post(answer_path, json!({ "values": { "selected_asset_id": "a" } })).await;
    assert_eq!(status, 200, "{after}");
    assert_eq!(test.wait_for_status(&run, "completed").await["data"]["output"], json!({ "picked": "a" }));
}
