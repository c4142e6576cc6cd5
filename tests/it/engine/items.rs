//! The fallback of a `for_each` takes the place of single items: over a kill, in replay, and when all is undone.

use serde_json::json;

use super::{EngineTest, id, step};
use crate::support::step_service::ScriptedReply;

const MAILS: &str = "
workflow: mails
steps:
  mail:
    for_each: ${[\"a\", \"b\", \"c\"]}
    concurrency: 1
    call: POST ${services.plain}/mails
    body: { to: '${item}' }
    retry: { attempts: 2, base: 1ms, max: 2ms }
    fallback: letter
    undo: DELETE ${services.works}/mails/${output.number}
  letter:
    fallback_only: true
    call: POST ${services.works}/letters/${item}
    headers: { x-nth: '${index}' }
    body: { to: '${item}', nth: '${index}' }
    timeout: 5s
    retry: { attempts: 3, base: 1ms, max: 2ms }
    undo: DELETE ${services.works}/letters/${item}
  last: { needs: [mail], call: 'POST ${services.works}/last' }
respond: { status: 200, body: { by: '${steps.mail.by}', all: '${steps.mail.output.map(made, made.id)}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn the_fallback_of_an_item_survives_a_kill_and_is_undone_by_its_own_undo() {
    let mut test = EngineTest::with(&[MAILS]).await;
    let mail = |id: &str| ScriptedReply::Done(200, json!({ "id": id, "number": id }));
    // The first and the third item are done; the second is certainly not done.
    test.step_service.script("POST /mails", mail("m1"), 1);
    test.step_service.script("POST /mails", ScriptedReply::Refuse(429), 2);
    test.step_service.script("POST /mails", mail("m3"), 1);
    test.step_service.hold("POST /letters");
    let run = test.start_run("mails", json!({})).await;
    test.wait_for_calls("POST /letters", 1).await;
    let explained = test.explanation(&run).await;
    assert!(explained.contains("`letter`") && explained.contains("item 1"), "{explained}");
    assert_eq!(test.step_service.count("POST /mails"), 3, "the fallback takes its item's `concurrency` slot");
    test.kill_and_restart().await;
    test.wait_for_calls("POST /letters", 2).await;
    test.step_service.release_all("POST /letters");
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(data["output"]["by"], json!([null, "letter", null]), "{data}");
    assert_eq!(data["output"]["all"], json!(["m1", "POST /letters 1", "m3"]), "each in its place: {data}");
    let letters = test.step_service.seen("POST /letters");
    let (first, again) = (&letters[0], &letters[1]);
    assert_eq!((first.path.as_str(), first.headers["x-nth"].to_str().unwrap()), ("/letters/b", "1"));
    assert_eq!((first.json(), &first.key), (json!({ "to": "b", "nth": 1 }), &again.key), "the same key and bytes");
    assert!(first.key.is_some() && test.step_service.seen("POST /mails").iter().all(|mail| mail.key != first.key));
    assert_eq!(test.step_service.effects("POST /letters"), 1);
    assert_eq!(step(&data, "mail")["items_ended"], json!(3), "{data}");
    let taken = test.events_of_kind(&run, "fallback_taken").await;
    assert_eq!(
        taken.iter().map(|taken| (&taken["step"], &taken["item"])).collect::<Vec<_>>(),
        [(&json!("mail"), &json!(1))]
    );
    // A replay shows the same decisions; a workflow whose fallback sends something else shows a difference.
    let (file, flags) = (test.flags.path().join("other.yaml"), test.flags.path().display().to_string());
    std::fs::write(&file, MAILS.trim_start().replace("item}', nth: '${index}'", "item}', nth: 7")).unwrap();
    let report = test.cli(&["replay", id(&run), "--with", &file.display().to_string(), "--flags", &flags]).await;
    assert!(report.contains("letter") && report.contains(r#""nth":7"#), "{report}");
    std::fs::remove_file(&file).unwrap();

    // The run fails later: each item is undone once, by the `undo` of the step that performed it.
    test.step_service.script("POST /mails", ScriptedReply::Refuse(429), 2);
    test.step_service.script("POST /mails", mail("m5"), 2);
    test.step_service.script("POST /last", ScriptedReply::Refuse(402), 1);
    let data = test.run("mails", json!({})).await;
    let data = test.wait_for_status(&super::path(&data), "failed").await;
    let undone: Vec<_> =
        data["undone"].as_array().unwrap().iter().map(|row| (&row["step_id"], &row["item"], &row["state"])).collect();
    assert_eq!(undone.len(), 3, "{data}");
    assert!(undone.contains(&(&json!("letter"), &json!(0), &json!("undone"))), "{data}");
    assert!(undone.iter().all(|(_, _, state)| **state == json!("undone")), "{data}");
    assert_eq!(test.step_service.seen("DELETE /letters")[0].path, "/letters/a");
    assert_eq!((test.step_service.effects("DELETE /mails"), test.step_service.effects("DELETE /letters")), (2, 1));

    // An item with an unknown outcome is decided by a person, and the fallback is not among the choices.
    test.step_service.script("POST /mails", mail("m7"), 1);
    test.step_service.script("POST /mails", ScriptedReply::LoseReply, 1);
    let data = test.run("mails", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&conflict["kind"], &conflict["item"]), (&json!("outcome_unknown"), &json!(1)), "{data}");
    let run = super::path(&data);
    let refused = test.cli_refused(&["runs", "resolve", id(&run), "mail", "fallback", "--item", "1"]).await;
    assert!(refused.contains("a second time"), "{refused}");
    test.post_accepted(
        &format!("{run}/resolve"),
        json!({ "step": "mail", "item": 1, "choice": "take", "output": { "id": "m8" } }),
    )
    .await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(data["output"]["by"], json!([null, null, null]), "{data}");
    let shown = test.cli(&["runs", "show", id(&run)]).await;
    assert!(shown.contains("mail"), "{shown}");
    assert_eq!(test.step_service.effects("POST /letters"), 2, "no letter replaces a mail that may have been sent");
    test.finish().await;
}
