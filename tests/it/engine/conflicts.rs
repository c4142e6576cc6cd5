//! Kinds of conflict, each with every choice that it offers: after the choice the run continues from the conflict, even
//! if the process was killed in between.

use serde_json::{Value, json};

use super::{EngineTest, id, path};
use crate::support::step_service::ScriptedReply;

/// A workflow with a conflict in `charge`, after a reservation that has an `undo`.
fn workflow(name: &str, charge: &str, more: &str) -> String {
    format!(
        "workflow: {name}
steps:
  reserve:
    call: POST ${{services.works}}/stock
    undo: DELETE ${{services.works}}/stock/1
  charge:
    needs: [reserve]
{charge}
{more}
respond:
  status: 200
  body: {{ paid: '${{steps.charge.skipped ? \"not\" : steps.charge.output.id}}' }}
"
    )
}

/// How a run ends after a choice: its status, and its output for `charge`, or `null`.
type End = (&'static str, Value);

/// A kind of conflict: its workflow, the service's reply to the charge, and the choices with their ends.
struct Case {
    kind: &'static str,
    workflow: String,
    reply: ScriptedReply,
    choices: Vec<(&'static str, End)>,
}

const CASH: &str = "  cash: { fallback_only: true, call: 'POST ${services.works}/cash' }";
const BODY: &str = "    body: { amount: 5 }\n    retry: { attempts: 1 }\n";

fn ends(choices: &[&'static str]) -> Vec<(&'static str, End)> {
    let end = |choice: &&'static str| -> End {
        match *choice {
            "retry" | "retry_with" => ("completed", json!("c")),
            "skip" => ("completed", json!("not")),
            "take" => ("completed", json!("by hand")),
            "fallback" => ("completed", json!("cash")),
            _ => ("cancelled", Value::Null),
        }
    };
    choices.iter().map(|choice| (*choice, end(choice))).collect()
}

fn cases() -> Vec<Case> {
    let plain = format!("    call: POST ${{services.plain}}/charges\n{BODY}");
    let of = |kind, charge: &str, more: &str, reply: ScriptedReply, choices: &[&'static str]| Case {
        kind,
        workflow: workflow(&kind.replace('_', "-"), charge, more),
        reply,
        choices: ends(choices),
    };
    let refused = format!("{plain}    fallback: cash\n");
    let used_up = format!("{plain}    on_failure: pause\n");
    let unfit = format!("{plain}    output: {{ schema: {{ type: object, required: [id] }} }}\n");
    let child = "    run: below\n    on_failure: pause\n";
    let busy = format!("{plain}    lock: {{ busy: ask }}\n");
    let wrong = "    call: POST ${services.plain}/charges\n    body: { amount: '${steps.reserve.output.nothing}' }\n";
    let all = ["retry", "retry_with", "skip", "take", "cancel"];
    let with_fallback = ["retry", "retry_with", "skip", "take", "fallback", "cancel"];
    let mut cases = vec![
        of("refused", &refused, CASH, ScriptedReply::Refuse(409), &with_fallback),
        of("outcome_unknown", &refused, CASH, ScriptedReply::Refuse(500), &all),
        of("attempts_used_up", &used_up, "", ScriptedReply::Refuse(429), &all),
        of("schema", &unfit, "", ScriptedReply::Done(200, json!({ "no": "id" })), &["skip", "take", "cancel"]),
        of("child_failed", child, "", ScriptedReply::Refuse(400), &["retry", "skip", "take", "cancel"]),
        of("busy", &busy, "", ScriptedReply::Refuse(423), &["wait", "skip", "cancel"]),
        of("expression", wrong, "", ScriptedReply::Refuse(400), &all),
    ];
    // Waiting for the lock leads to success; a retry of the expression without a value leads to the same conflict.
    cases[5].choices[0].1 = ("completed", json!("c"));
    cases[6].choices[0].1 = ("paused", Value::Null);
    cases
}

fn resolution(choice: &str) -> Value {
    let mut body = json!({ "step": "charge", "choice": choice, "reason": "it has to go on", "as": "ada" });
    match choice {
        "retry_with" => body["input"] = json!({ "amount": 6 }),
        "take" => body["output"] = json!({ "id": "by hand" }),
        _ => {}
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_continues_from_the_conflict_with_every_choice() {
    const BELOW: &str = "
workflow: below
steps:
  charge: { call: 'POST ${services.plain}/charges' }
respond: { status: 200, body: '${steps.charge.output}' }
";
    let cases = cases();
    let mut texts: Vec<&str> = cases.iter().map(|case| case.workflow.as_str()).collect();
    texts.push(BELOW);
    let mut test = EngineTest::with(&texts).await;
    test.step_service.set_default("POST /charges", ScriptedReply::Done(200, json!({ "id": "c" })));
    test.step_service.set_default("POST /cash", ScriptedReply::Done(200, json!({ "id": "cash" })));
    let mut runs = Vec::new();
    for case in &cases {
        for (choice, end) in &case.choices {
            let name = case.kind.replace('_', "-");
            if case.kind != "expression" {
                test.step_service.script("POST /charges", case.reply.clone(), 1);
            }
            let data = test.run(&name, json!({})).await;
            assert_eq!(
                (&data["status"], &data["conflicts"][0]["kind"]),
                (&json!("paused"), &json!(case.kind)),
                "{data}"
            );
            let conflict = &data["conflicts"][0];
            let offered: Vec<&str> = case.choices.iter().map(|(choice, _)| *choice).collect();
            assert_eq!(conflict["choices"], json!(offered), "{conflict}");
            assert!(!conflict["message"].as_str().unwrap().is_empty() && conflict["step_id"] == "charge", "{conflict}");
            if !matches!(case.kind, "expression" | "child_failed") {
                assert_eq!(conflict["request"]["body"], json!({ "amount": 5 }), "{conflict}");
                assert!(conflict["expected"].is_string() && conflict["attempt"] == 1, "{conflict}");
            }
            runs.push((case.kind, *choice, end, path(&data)));
        }
    }
    let (first, reserved) = (runs[0].3.clone(), test.step_service.effects("POST /stock"));
    assert_eq!(reserved, runs.len());
    test.kill_and_restart().await;
    let explained = test.explanation(&first).await;
    assert!(explained.contains("a person decides") && explained.contains("choose one of retry"), "{explained}");
    // A choice that does not apply is refused, and the error lists those that do.
    let problem = test.post_refused(&format!("{first}/resolve"), resolution("wait")).await;
    assert!(problem["detail"].as_str().unwrap().contains("choose one of retry, retry_with"), "{problem}");
    let (status, wrong) =
        test.post(&format!("{}/resolve", runs[11].3), json!({ "step": "charge", "choice": "fallback" })).await;
    assert!(status == 409 && wrong["detail"].as_str().unwrap().contains("no `fallback`"), "{wrong}");
    let (status, wrong) = test.post(&format!("{first}/resume"), json!({})).await;
    assert!(status == 409 && wrong["detail"].as_str().unwrap().contains("a decision about `charge`"), "{wrong}");
    for (kind, choice, (status, paid), run) in &runs {
        test.post_accepted(&format!("{run}/resolve"), resolution(choice)).await;
        let data = match *status {
            // It pauses again with the same conflict.
            "paused" => {
                test.wait_for_events(run, "paused", 2).await;
                test.data(run).await
            }
            status => test.wait_for_status(run, status).await,
        };
        assert_eq!(data["output"].get("paid").cloned().unwrap_or_default(), *paid, "{kind} {choice}: {data}");
        let resolved = test.wait_for_events(run, "resolved", 1).await;
        assert_eq!((&resolved["by"], &resolved["reason"]), (&json!("ada (unverified)"), &json!("it has to go on")));
        if *choice == "cancel" {
            let rows = data["undone"].as_array().expect("a list");
            let reserve = rows.iter().find(|row| row["step_id"] == "reserve").expect("it was done");
            assert_eq!(reserve["state"], "undone", "{kind}: {data}");
        }
    }
    let cancelled = runs.iter().filter(|(_, choice, _, _)| *choice == "cancel").count();
    assert_eq!(test.step_service.effects("DELETE /stock"), cancelled);
    assert_eq!(test.step_service.effects("POST /stock"), reserved, "what was finished stays finished");
    let amounts: Vec<Value> =
        test.step_service.seen("POST /charges").iter().map(|call| call.json()["amount"].clone()).collect();
    assert_eq!(amounts.iter().filter(|amount| **amount == json!(6)).count(), 4, "{amounts:?}");
    eprintln!("{} conflicts, {} choices, 1 kill", cases.len(), runs.len());
    test.finish().await;
}

const SAGA: &str = "
workflow: saga
steps:
  reserve:
    call: POST ${services.works}/stock
    undo: { call: 'DELETE ${services.works}/stock/1', retry: { attempts: 1 } }
  charge: { needs: [reserve], call: 'POST ${services.works}/charges' }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_undo_is_decided_by_a_person() {
    let mut test = EngineTest::with(&[SAGA]).await;
    let ends = [("retry", "undone"), ("skip", "left"), ("take", "undone"), ("cancel_without_undo", "left")];
    let mut runs = Vec::new();
    for (choice, state) in ends {
        test.step_service.script("POST /charges", ScriptedReply::Refuse(400), 1);
        test.step_service.script("DELETE /stock", ScriptedReply::Refuse(400), 1);
        let run = test.start_run("saga", json!({})).await;
        let data = test.wait_for_status(&run, "paused").await;
        let conflict = &data["conflicts"][0];
        assert_eq!((&conflict["kind"], &conflict["part"]), (&json!("undo_failed"), &json!("undo")), "{conflict}");
        assert_eq!(conflict["choices"], json!(ends.map(|(choice, _)| choice)), "{conflict}");
        runs.push((choice, state, run));
    }
    test.kill_and_restart().await;
    for (choice, state, run) in &runs {
        // The command is typed as `runs show` prints it.
        let shown = test.cli(&["runs", "show", id(run)]).await;
        let command = format!("pointsman runs resolve {} reserve {}", id(run), choice.replace('_', "-"));
        let command =
            shown.lines().find_map(|line| line.trim().strip_prefix("pointsman ").filter(|_| line.contains(&command)));
        let words: Vec<&str> = command.unwrap_or_else(|| panic!("{choice}: {shown}")).split(' ').collect();
        let words: Vec<&str> = words.iter().map(|word| if *word == "JSON" { "null" } else { word }).collect();
        test.cli(&words).await;
        let end = if choice.starts_with("cancel") { "cancelled" } else { "failed" };
        let data = test.wait_for_status(run, end).await;
        assert_eq!(
            (&data["undone"][0]["step_id"], &data["undone"][0]["state"]),
            (&json!("reserve"), &json!(state)),
            "{data}"
        );
        let shown = test.cli(&["runs", "show", id(run)]).await;
        assert!(shown.contains(end), "{shown}");
    }
    assert_eq!(test.step_service.effects("DELETE /stock"), 1);
    test.finish().await;
}
