//! What people order of runs at any moment, by command and by API; what makes no sense is refused with the reason.

use serde_json::{Value, json};

use super::{Plant, RUN, id, path, step};
use crate::support::until;
use crate::support::works::Say;

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
async fn under_way(plant: &Plant) -> String {
    let before = plant.works.count("POST /packs");
    let run = plant.begun("job", json!({})).await;
    plant.arrives("POST /packs", before + 1).await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_changed_and_resumed_over_a_kill() {
    let mut plant = Plant::with(&[JOB]).await;
    plant.works.hold("POST /packs");
    let run = under_way(&plant).await;
    let run_id = id(&run).to_owned();
    plant.cli(&["runs", "pause", &run_id, "--reason", "it looks odd", "--as", "ada"]).await;
    assert_eq!(plant.data(&run).await["status"], "paused");
    plant.works.open("POST /packs");
    until("what was under way to end", || async {
        (step(&plant.data(&run).await, "pack")["status"] == "done").then_some(())
    })
    .await;
    let explained = plant.explained(&run).await;
    assert!(
        explained.contains("ada (unverified) paused it (it looks odd)") && explained.contains("resume it"),
        "{explained}"
    );
    plant.cli(&["runs", "adjust", &run_id, "bill", "--input", r#"{"amount":2}"#, "--reason", "a discount"]).await;
    plant.cli(&["runs", "skip", &run_id, "mail", "--as", "bob"]).await;
    plant.killed_and_back().await;
    assert_eq!((plant.works.count("POST /bills"), plant.works.count("POST /mails")), (0, 0), "nothing has begun");
    let refused = plant.cli_refused(&["runs", "pause", &run_id]).await;
    assert!(refused.contains("ada (unverified) has paused it already"), "{refused}");
    plant.cli(&["runs", "resume", &run_id, "--as", "eve"]).await;
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!(data["output"], json!({ "mailed": false }), "{data}");
    assert_eq!(plant.works.seen("POST /bills")[0].json(), json!({ "amount": 2 }));
    assert_eq!((plant.works.count("POST /mails"), plant.works.count("POST /stock")), (0, 1), "what was finished stays");
    let told: Vec<Value> = plant.events(&run).await.iter().map(|event| event["kind"].clone()).collect();
    for kind in ["pause_ordered", "input_adjusted", "step_skipped", "resumed"] {
        assert!(told.contains(&json!(kind)), "{kind} is in the trail: {told:?}");
    }
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_with_and_without_taking_back_what_it_did() {
    let plant = Plant::with(&[JOB]).await;
    plant.works.hold("POST /packs");
    let (kept, undone) = (under_way(&plant).await, under_way(&plant).await);
    plant.cli(&["runs", "cancel", id(&kept), "--no-undo", "--reason", "sold out"]).await;
    plant.taken(&format!("{undone}/cancel"), json!({ "reason": "sold out", "as": "ada" })).await;
    let refused = plant.refused(&format!("{undone}/cancel"), json!({})).await;
    assert!(refused["detail"].as_str().unwrap().contains("ada (unverified) has cancelled it already"), "{refused}");
    plant.refused(&format!("{undone}/pause"), json!({})).await;
    assert_eq!(plant.works.count("DELETE /stock"), 0, "what is under way ends first");
    plant.works.open("POST /packs");
    for (run, state, why) in [(&kept, "left", "the run was cancelled without undoing"), (&undone, "undone", "")] {
        let data = plant.comes_to(run, "cancelled").await;
        // The last that was done comes first.
        let (pack, reserve) = (&data["undone"][0], &data["undone"][1]);
        assert_eq!((&reserve["step_id"], &reserve["state"]), (&json!("reserve"), &json!(state)), "{data}");
        assert_eq!(reserve["why"].as_str().unwrap_or_default(), why);
        assert!(data["run"]["note"].as_str().unwrap().contains("sold out"), "{data}");
        assert_eq!(step(&data, "bill")["status"], "not_run", "{data}");
        assert_eq!(pack["why"], if state == "left" { why } else { "it declares no `undo`" }, "{data}");
    }
    assert_eq!((plant.works.done("DELETE /stock"), plant.works.count("POST /bills")), (1, 0));
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_takes_over_what_was_finished_before_the_step() {
    const CHAIN: &str = "
workflow: chain
steps:
  first: { call: 'POST ${services.works}/firsts' }
  second: { call: 'POST ${services.works}/seconds', body: { of: '${steps.first.output.id}' } }
  third: { call: 'POST ${services.works}/thirds', body: { of: '${steps.second.output.id}' } }
respond: { status: 200, body: '${steps.third.output.id}' }
";
    let mut plant = Plant::with(&[CHAIN]).await;
    plant.works.next("POST /thirds", Say::Refuse(400), 1);
    let failed = plant.run("chain", json!({})).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let run = path(&failed);
    let (status, problem) = plant.post(&format!("{run}/rerun"), json!({ "from": "thrd" })).await;
    assert!(status == 422 && problem.to_string().contains("third"), "{problem}");
    plant.killed_and_back().await;
    let said = plant.cli(&["runs", "rerun", id(&run), "--from", "third", "--json"]).await;
    let again: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("stdout is data: {said}"));
    let again = plant.comes_to(&path(&again["data"]), "completed").await;
    assert_eq!((&again["job_id"], &again["run"]["rerun_of"]), (&failed["job_id"], &failed["run_id"]), "{again}");
    assert_eq!((plant.works.count("POST /firsts"), plant.works.count("POST /seconds")), (1, 1), "taken over");
    assert_eq!(plant.works.seen("POST /thirds")[1].json(), json!({ "of": "POST /seconds 1" }));
    assert_eq!(step(&again, "first")["note"], json!(format!("taken over from {}", id(&run))), "{again}");
    // The job is its newest run; and what completed may be done again from anywhere.
    let job = plant.data(&format!("{RUN}/{}", failed["job_id"].as_str().unwrap())).await;
    assert_eq!(job["run_id"], again["run_id"]);
    let (status, more) = plant.post(&format!("{}/rerun", path(&again)), json!({ "from": "second" })).await;
    assert!(status == 200 || status == 201 || status == 202, "{status} {more}");
    plant.comes_to(&path(&more["data"]), "completed").await;
    assert_eq!((plant.works.count("POST /firsts"), plant.works.count("POST /seconds")), (1, 2));
    plant.finish().await;
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
    let mut plant = Plant::with(&[MIXED]).await;
    plant.works.hold("POST /payments");
    let begun = plant.begun("mixed", json!({ "stop": true })).await;
    plant.arrives("POST /payments", 1).await;
    plant.cli(&["freeze", "--effects", "--reason", "the bank is odd"]).await;
    let held = plant.begun("mixed", json!({ "stop": false })).await;
    let explained = plant.explains(&held, "`pay` is held").await;
    assert!(explained.contains("the end of the freeze"), "{explained}");
    assert_eq!(plant.works.count("GET /looks"), 2, "reads go on");
    // What had begun ends; what would take it back has not begun.
    plant.works.open("POST /payments");
    plant.comes_to(&begun, "compensating").await;
    plant.explains(&begun, "is held").await;
    plant.killed_and_back().await;
    plant.explains(&held, "`pay` is held").await;
    assert_eq!((plant.works.count("POST /payments"), plant.works.count("DELETE /payments")), (1, 0));
    plant.cli(&["freeze", "--off"]).await;
    plant.comes_to(&held, "completed").await;
    let data = plant.comes_to(&begun, "completed").await;
    assert_eq!((&data["undone"][0]["state"], plant.works.done("DELETE /payments")), (&json!("undone"), 1), "{data}");
    plant.finish().await;
}

/// Whoever cancels is answered at once, though nothing is undone before the freeze ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_during_a_freeze_of_effects_says_at_once_what_waits() {
    const UNDONE: &str = "
workflow: undone
steps:
  pay: { call: 'POST ${services.works}/payments', undo: 'DELETE ${services.works}/payments/1' }
  ship: { needs: [pay], call: 'POST ${services.works}/ships' }
respond: { status: 200, body: paid }
";
    let plant = Plant::with(&[UNDONE]).await;
    plant.works.hold("POST /payments");
    let run = plant.begun("undone", json!({})).await;
    plant.arrives("POST /payments", 1).await;
    plant.cli(&["freeze", "--effects", "--reason", "the bank is odd"]).await;
    plant.works.open("POST /payments");
    plant.explains(&run, "`ship` is held").await;
    let asked = std::time::Instant::now();
    let (status, answer) = plant.post(&format!("{run}/cancel"), json!({ "reason": "sold out" })).await;
    assert!(asked.elapsed() < std::time::Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!((status, &answer["data"]["status"]), (202, &json!("compensating")), "{answer}");
    assert!(answer["data"]["waits"][0].as_str().unwrap().contains("the end of the freeze"), "{answer}");
    assert_eq!((plant.works.count("DELETE /payments"), plant.works.count("POST /ships")), (0, 0));
    plant.cli(&["freeze", "--off"]).await;
    plant.comes_to(&run, "cancelled").await;
    assert_eq!(plant.works.done("DELETE /payments"), 1);
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_status_and_reason() {
    let plant = Plant::with(&[JOB]).await;
    plant.works.hold("POST /packs");
    let run = under_way(&plant).await;
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
    for (order, body, why) in &cases {
        let (status, problem) = plant.post(&format!("{run}/{order}"), body.clone()).await;
        assert_eq!(status, 409, "{order} {body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{order}: {problem}");
    }
    for order in ["skip", "adjust", "resolve"] {
        let body = json!({ "step": "bil", "input": 1, "choice": "skip" });
        let body: serde_json::Map<String, Value> = match (order, body) {
            (order, Value::Object(all)) => {
                let fits = |name: &str| {
                    name == "step"
                        || (name == "input") == (order == "adjust") && (name == "choice") == (order == "resolve")
                };
                all.into_iter().filter(|(name, _)| fits(name)).collect()
            }
            _ => unreachable!(),
        };
        let (status, problem) = plant.post(&format!("{run}/{order}"), Value::Object(body)).await;
        assert_eq!((status, &problem["hint"]), (422, &json!("did you mean `bill`?")), "{order}: {problem}");
    }
    let refused = plant.cli_refused(&["runs", "skip", id(&run), "reserve"]).await;
    assert!(refused.contains("`reserve` has ended"), "{refused}");
    plant.works.open("POST /packs");
    plant.comes_to(&run, "completed").await;
    for (order, body) in [
        ("pause", json!({})),
        ("resume", json!({})),
        ("cancel", json!({})),
        ("skip", json!({ "step": "bill" })),
        ("adjust", json!({ "step": "bill", "input": {} })),
        ("retry", json!({})),
        ("resolve", json!({ "step": "bill", "choice": "retry" })),
        ("signals/paid", json!({})),
    ] {
        let problem = plant.refused(&format!("{run}/{order}"), body).await;
        assert_eq!((&problem["run_status"], &problem["detail"]), (&json!("completed"), &json!("the run has ended")));
    }
    let refused = plant.cli_refused(&["runs", "cancel", id(&run)]).await;
    assert!(refused.contains("completed") && refused.contains("The run has ended"), "{refused}");
    let (status, problem) = plant.post(&format!("{RUN}/run_{}/pause", "0".repeat(32)), json!({})).await;
    assert_eq!((status, &problem["type"]), (404, &json!("urn:pointsman:problem:unknown-run")), "{problem}");
    plant.finish().await;
}
