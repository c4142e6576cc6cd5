//! Commands to runs at any moment, by CLI and API; a command that does not apply is refused with the reason.

use serde_json::{Value, json};

use super::{EngineTest, RUN, id, path, step};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const JOB: &str = "
workflow: job
steps:
  reserve: { call: 'POST ${services.works}/stock', undo: 'DELETE ${services.works}/stock/1' }
  pack: { needs: [reserve], call: 'POST ${services.works}/packs', body: { box: small } }
  bill: { needs: [pack], call: 'POST ${services.works}/bills', body: { amount: 1 } }
  mail: { needs: [pack], call: 'POST ${services.works}/mails', body: { to: a } }
respond: { status: 200, body: { mailed: '${!steps.mail.skipped}' } }
";

/// A run whose second step is under way.
async fn start_run_in_flight(test: &EngineTest) -> String {
    let before = test.step_service.count("POST /packs");
    let run = test.start_run("job", json!({})).await;
    test.wait_for_calls("POST /packs", before + 1).await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_changed_and_resumed_over_a_kill() {
    let mut test = EngineTest::with(&[JOB]).await;
    test.step_service.hold("POST /packs");
    let run = start_run_in_flight(&test).await;
    let run_id = id(&run).to_owned();
    test.cli(&["runs", "pause", &run_id, "--reason", "it looks odd", "--as", "ada"]).await;
    assert_eq!(test.data(&run).await["status"], "paused");
    test.step_service.release_all("POST /packs");
    until("what was under way to end", || async {
        (step(&test.data(&run).await, "pack")["status"] == "done").then_some(())
    })
    .await;
    let explained = test.explanation(&run).await;
    assert!(
        explained.contains("ada (unverified) paused it (it looks odd)") && explained.contains("resume it"),
        "{explained}"
    );
    test.cli(&["runs", "adjust", &run_id, "bill", "--input", r#"{"amount":2}"#, "--reason", "a discount"]).await;
    test.cli(&["runs", "skip", &run_id, "mail", "--as", "bob"]).await;
    test.kill_and_restart().await;
    assert_eq!(
        (test.step_service.count("POST /bills"), test.step_service.count("POST /mails")),
        (0, 0),
        "nothing has begun"
    );
    let refused = test.cli_refused(&["runs", "pause", &run_id]).await;
    assert!(refused.contains("ada (unverified) has paused it already"), "{refused}");
    test.cli(&["runs", "resume", &run_id, "--as", "eve"]).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(data["output"], json!({ "mailed": false }), "{data}");
    assert_eq!(test.step_service.seen("POST /bills")[0].json(), json!({ "amount": 2 }));
    assert_eq!(
        (test.step_service.count("POST /mails"), test.step_service.count("POST /stock")),
        (0, 1),
        "what was finished stays"
    );
    let kinds: Vec<Value> = test.events(&run).await.iter().map(|event| event["kind"].clone()).collect();
    for kind in ["pause_ordered", "input_adjusted", "step_skipped", "resumed"] {
        assert!(kinds.contains(&json!(kind)), "{kind} is in the trail: {kinds:?}");
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_with_and_without_undoing_its_steps() {
    let test = EngineTest::with(&[JOB]).await;
    test.step_service.hold("POST /packs");
    let (kept, undone) = (start_run_in_flight(&test).await, start_run_in_flight(&test).await);
    test.cli(&["runs", "cancel", id(&kept), "--no-undo", "--reason", "sold out"]).await;
    test.post_accepted(&format!("{undone}/cancel"), json!({ "reason": "sold out", "as": "ada" })).await;
    let refused = test.post_refused(&format!("{undone}/cancel"), json!({})).await;
    assert!(refused["detail"].as_str().unwrap().contains("ada (unverified) has cancelled it already"), "{refused}");
    test.post_refused(&format!("{undone}/pause"), json!({})).await;
    assert_eq!(test.step_service.count("DELETE /stock"), 0, "what is under way ends first");
    test.step_service.release_all("POST /packs");
    for (run, state, why) in [(&kept, "left", "the run was cancelled without undoing"), (&undone, "undone", "")] {
        let data = test.wait_for_status(run, "cancelled").await;
        // The step that was done last is undone first.
        let (pack, reserve) = (&data["undone"][0], &data["undone"][1]);
        assert_eq!((&reserve["step_id"], &reserve["state"]), (&json!("reserve"), &json!(state)), "{data}");
        assert_eq!(reserve["why"].as_str().unwrap_or_default(), why);
        assert!(data["run"]["note"].as_str().unwrap().contains("sold out"), "{data}");
        assert_eq!(step(&data, "bill")["status"], "not_run", "{data}");
        assert_eq!(pack["why"], if state == "left" { why } else { "it declares no `undo`" }, "{data}");
    }
    assert_eq!((test.step_service.effects("DELETE /stock"), test.step_service.count("POST /bills")), (1, 0));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_reuses_what_was_finished_before_the_step() {
    const CHAIN: &str = "
workflow: chain
steps:
  first: { call: 'POST ${services.works}/firsts' }
  second: { call: 'POST ${services.works}/seconds', body: { of: '${steps.first.output.id}' } }
  third: { call: 'POST ${services.works}/thirds', body: { of: '${steps.second.output.id}' } }
respond: { status: 200, body: '${steps.third.output.id}' }
";
    let mut test = EngineTest::with(&[CHAIN]).await;
    test.step_service.script("POST /thirds", ScriptedReply::Refuse(400), 1);
    let failed = test.run("chain", json!({})).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let run = path(&failed);
    let (status, problem) = test.post(&format!("{run}/rerun"), json!({ "from": "thrd" })).await;
    assert!(status == 422 && problem.to_string().contains("third"), "{problem}");
    test.kill_and_restart().await;
    let output = test.cli(&["runs", "rerun", id(&run), "--from", "third", "--json"]).await;
    let again: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("no JSON on stdout: {output}"));
    let again = test.wait_for_status(&path(&again["data"]), "completed").await;
    assert_eq!((&again["job_id"], &again["run"]["rerun_of"]), (&failed["job_id"], &failed["run_id"]), "{again}");
    assert_eq!(
        (test.step_service.count("POST /firsts"), test.step_service.count("POST /seconds")),
        (1, 1),
        "taken over"
    );
    assert_eq!(test.step_service.seen("POST /thirds")[1].json(), json!({ "of": "POST /seconds 1" }));
    assert_eq!(step(&again, "first")["note"], json!(format!("taken over from {}", id(&run))), "{again}");
    // The job shows its newest run; a completed run may be rerun from any step.
    let job = test.data(&format!("{RUN}/{}", failed["job_id"].as_str().unwrap())).await;
    assert_eq!(job["run_id"], again["run_id"]);
    let (status, more) = test.post(&format!("{}/rerun", path(&again)), json!({ "from": "second" })).await;
    assert!(status == 200 || status == 201 || status == 202, "{status} {more}");
    test.wait_for_status(&path(&more["data"]), "completed").await;
    assert_eq!((test.step_service.count("POST /firsts"), test.step_service.count("POST /seconds")), (1, 2));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_of_effects_holds_what_has_not_begun_also_over_a_kill() {
    const MIXED: &str = "
workflow: mixed
steps:
  look: { call: 'GET ${services.works}/looks' }
  pay: { needs: [look], call: 'POST ${services.works}/payments', undo: 'DELETE ${services.works}/payments/1' }
  stop: { needs: [pay], if: '${request.body.stop}', fail: { status: 402 } }
respond: { status: 200, body: paid }
";
    let mut test = EngineTest::with(&[MIXED]).await;
    test.step_service.hold("POST /payments");
    let begun = test.start_run("mixed", json!({ "stop": true })).await;
    test.wait_for_calls("POST /payments", 1).await;
    test.cli(&["freeze", "--effects", "--reason", "the bank is odd"]).await;
    let held = test.start_run("mixed", json!({ "stop": false })).await;
    let explained = test.wait_for_explanation(&held, "`pay` is held").await;
    assert!(explained.contains("the end of the freeze"), "{explained}");
    assert_eq!(test.step_service.count("GET /looks"), 2, "reads go on");
    // Calls that had begun end; their undo has not begun.
    test.step_service.release_all("POST /payments");
    test.wait_for_status(&begun, "compensating").await;
    test.wait_for_explanation(&begun, "is held").await;
    test.kill_and_restart().await;
    test.wait_for_explanation(&held, "`pay` is held").await;
    assert_eq!((test.step_service.count("POST /payments"), test.step_service.count("DELETE /payments")), (1, 0));
    test.cli(&["freeze", "--off"]).await;
    test.wait_for_status(&held, "completed").await;
    let data = test.wait_for_status(&begun, "completed").await;
    assert_eq!(
        (&data["undone"][0]["state"], test.step_service.effects("DELETE /payments")),
        (&json!("undone"), 1),
        "{data}"
    );
    test.finish().await;
}

/// The cancel is answered at once, although nothing is undone before the freeze ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_during_a_freeze_of_effects_says_at_once_what_waits() {
    const UNDONE: &str = "
workflow: undone
steps:
  pay: { call: 'POST ${services.works}/payments', undo: 'DELETE ${services.works}/payments/1' }
  ship: { needs: [pay], call: 'POST ${services.works}/ships' }
respond: { status: 200, body: paid }
";
    let test = EngineTest::with(&[UNDONE]).await;
    test.step_service.hold("POST /payments");
    let run = test.start_run("undone", json!({})).await;
    test.wait_for_calls("POST /payments", 1).await;
    test.cli(&["freeze", "--effects", "--reason", "the bank is odd"]).await;
    test.step_service.release_all("POST /payments");
    test.wait_for_explanation(&run, "`ship` is held").await;
    let sent_at = std::time::Instant::now();
    let (status, answer) = test.post(&format!("{run}/cancel"), json!({ "reason": "sold out" })).await;
    assert!(sent_at.elapsed() < std::time::Duration::from_secs(2), "{:?}", sent_at.elapsed());
    assert_eq!((status, &answer["data"]["status"]), (202, &json!("compensating")), "{answer}");
    assert!(answer["data"]["waits"][0].as_str().unwrap().contains("the end of the freeze"), "{answer}");
    assert_eq!((test.step_service.count("DELETE /payments"), test.step_service.count("POST /ships")), (0, 0));
    test.cli(&["freeze", "--off"]).await;
    test.wait_for_status(&run, "cancelled").await;
    assert_eq!(test.step_service.effects("DELETE /payments"), 1);
    test.finish().await;
}

/// An attempt that would be made again is held: `explain` and `retry` say so first.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_of_effects_is_named_as_the_reason_why_an_attempt_waits() {
    const PAYS: &str = "
workflow: pays
steps: { pay: { call: 'POST ${services.works}/payments', retry: { attempts: 3, base: 1ms, max: 1ms } } }
respond: { status: 200, body: paid }
";
    let test = EngineTest::with(&[PAYS]).await;
    test.step_service.script("POST /payments", ScriptedReply::Refuse(429), 1);
    test.step_service.hold("POST /payments");
    let run = test.start_run("pays", json!({})).await;
    test.wait_for_calls("POST /payments", 1).await;
    test.cli(&["freeze", "--effects", "--reason", "the bank is odd"]).await;
    test.step_service.release_all("POST /payments");
    let explained = test.wait_for_explanation(&run, "is held").await;
    let first = explained.lines().next().expect("a sentence");
    assert!(first.contains("the next attempt of `pay` is held: private and shared steps are frozen"), "{explained}");
    assert!(!explained.contains("; until"), "{explained}");
    for body in [json!({}), json!({ "step": "pay" })] {
        let problem = test.post_refused(&format!("{run}/retry"), body).await;
        assert!(problem["detail"].as_str().unwrap().contains("private and shared steps are frozen"), "{problem}");
    }
    test.cli(&["freeze", "--off"]).await;
    test.wait_for_status(&run, "completed").await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_do_not_apply_are_refused_with_status_and_reason() {
    let test = EngineTest::with(&[JOB]).await;
    test.step_service.hold("POST /packs");
    let run = start_run_in_flight(&test).await;
    let cases = [
        ("resume", json!({}), "it is not paused"),
        ("skip", json!({ "step": "reserve" }), "`reserve` has ended"),
        ("skip", json!({ "step": "pack" }), "a call of `pack` is under way"),
        ("adjust", json!({ "step": "reserve", "input": 1 }), "sends no body that could be adjusted"),
        ("adjust", json!({ "step": "pack", "input": {} }), "`pack` has begun"),
        ("adjust", json!({ "step": "bill", "item": 3, "input": {} }), "`bill` has no items"),
        ("retry", json!({}), "nothing waits for another attempt"),
        ("retry", json!({ "step": "pack" }), "one is under way"),
        ("resolve", json!({ "step": "pack", "choice": "retry" }), "no conflict over `pack` is open"),
        ("rerun", json!({ "from": "bill" }), "the run is running: pause or cancel it first"),
        ("signals/paid", json!({}), "paid"),
    ];
    for (command, body, why) in &cases {
        let (status, problem) = test.post(&format!("{run}/{command}"), body.clone()).await;
        assert_eq!(status, 409, "{command} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{command}: {problem}");
    }
    for command in ["skip", "adjust", "resolve"] {
        let body = json!({ "step": "bil", "input": 1, "choice": "skip" });
        let body: serde_json::Map<String, Value> = match (command, body) {
            (command, Value::Object(all)) => {
                let fits = |name: &str| {
                    name == "step"
                        || (name == "input") == (command == "adjust") && (name == "choice") == (command == "resolve")
                };
                all.into_iter().filter(|(name, _)| fits(name)).collect()
            }
            _ => unreachable!(),
        };
        let (status, problem) = test.post(&format!("{run}/{command}"), Value::Object(body)).await;
        assert_eq!((status, &problem["hint"]), (422, &json!("did you mean `bill`?")), "{command}: {problem}");
    }
    let refused = test.cli_refused(&["runs", "skip", id(&run), "reserve"]).await;
    assert!(refused.contains("`reserve` has ended"), "{refused}");
    test.step_service.release_all("POST /packs");
    test.wait_for_status(&run, "completed").await;
    for (command, body) in [
        ("pause", json!({})),
        ("resume", json!({})),
        ("cancel", json!({})),
        ("skip", json!({ "step": "bill" })),
        ("adjust", json!({ "step": "bill", "input": {} })),
        ("retry", json!({})),
        ("resolve", json!({ "step": "bill", "choice": "retry" })),
        ("signals/paid", json!({})),
    ] {
        let problem = test.post_refused(&format!("{run}/{command}"), body).await;
        assert_eq!((&problem["run_status"], &problem["detail"]), (&json!("completed"), &json!("the run has ended")));
    }
    let refused = test.cli_refused(&["runs", "cancel", id(&run)]).await;
    assert!(refused.contains("completed") && refused.contains("The run has ended"), "{refused}");
    let (status, problem) = test.post(&format!("{RUN}/run_{}/pause", "0".repeat(32)), json!({})).await;
    assert_eq!((status, &problem["type"]), (404, &json!("urn:pointsman:problem:unknown-run")), "{problem}");
    test.finish().await;
}
