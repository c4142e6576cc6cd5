//! Sagas: finished steps are undone once, in reverse order (concurrent ones concurrently), whatever restarts happen.

use serde_json::{Value, json};

use super::{EngineTest, id, path};
use crate::support::step_service::ScriptedReply;

const TRIP: &str = "
workflow: trip
steps:
  look: { call: 'GET ${services.works}/looks' }
  below: { run: reads }
  flight:
    needs: [look, below]
    call: POST ${services.works}/flights
    undo: DELETE ${services.works}/flights/${output.number}
  hotel:
    needs: [look, below]
    call: POST ${services.works}/hotels
    undo: { call: 'POST ${services.works}/cancellations', body: { hotel: '${output.id}', status: '${status}' } }
  nights:
    needs: [flight, hotel]
    for_each: ${[1, 2]}
    concurrency: 1
    call: POST ${services.works}/nights
    body: { night: '${item}' }
    undo: DELETE ${services.works}/nights/${item}
  letter: { needs: [nights], call: 'POST ${services.works}/letters' }
  pay: { needs: [letter], call: 'POST ${services.works}/payments' }
respond: { status: 200, body: paid }
";

const READS: &str = "
workflow: reads
steps:
  look: { call: 'GET ${services.works}/looks' }
respond: { status: 200, body: seen }
";

fn states(data: &Value) -> Vec<(String, Value, String)> {
    let rows = data["undone"].as_array().expect("a list");
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        (text("step_id"), row["item"].clone(), text("state"))
    };
    rows.iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_undone_once_in_reverse_and_concurrent_ones_concurrently() {
    let mut test = EngineTest::with(&[TRIP, READS]).await;
    // Both steps are in flight at the same time.
    test.step_service.hold("POST /flights");
    test.step_service.hold("POST /hotels");
    test.step_service.script("POST /payments", ScriptedReply::Refuse(402), 1);
    test.step_service.script("DELETE /nights", ScriptedReply::Refuse(503), 1);
    test.step_service.hold("DELETE /flights");
    test.step_service.hold("POST /cancellations");
    let run = test.start_run("trip", json!({})).await;
    test.wait_for_calls("POST /flights", 1).await;
    test.wait_for_calls("POST /hotels", 1).await;
    test.step_service.release_all("POST /flights");
    test.step_service.release_all("POST /hotels");
    test.wait_for_calls("DELETE /flights", 1).await;
    test.wait_for_calls("POST /cancellations", 1).await;
    let data = test.data(&run).await;
    assert_eq!(data["status"], "compensating", "{data}");
    let shown = test.cli(&["runs", "show", id(&run)]).await;
    assert!(shown.contains("compensating"), "{shown}");
    let nights: Vec<String> = test.step_service.seen("DELETE /nights").into_iter().map(|call| call.path).collect();
    assert_eq!(nights, ["/nights/2", "/nights/2", "/nights/1"], "in reverse order, and the refused one is sent again");
    test.kill_and_restart().await;
    test.step_service.release_all("DELETE /flights");
    test.step_service.release_all("POST /cancellations");
    let data = test.wait_for_status(&run, "failed").await;
    let rows = states(&data);
    let row = |step: &str, item: Value, state: &str| (step.to_owned(), item, state.to_owned());
    assert_eq!(rows.len(), 5, "neither the read nor the child run that only read is listed: {data}");
    for wanted in [
        row("flight", Value::Null, "undone"),
        row("hotel", Value::Null, "undone"),
        row("nights", json!(0), "undone"),
        row("nights", json!(1), "undone"),
        row("letter", Value::Null, "left"),
    ] {
        assert!(rows.contains(&wanted), "{wanted:?} in {rows:?}");
    }
    assert!(data["run"]["note"].as_str().unwrap().contains("not undone: `letter`"), "{}", data["run"]["note"]);
    for endpoint in ["DELETE /flights", "POST /cancellations"] {
        let seen = test.step_service.seen(endpoint);
        assert_eq!(
            (seen.len(), test.step_service.effects(endpoint)),
            (2, 1),
            "{endpoint}: sent again after the kill, done once"
        );
        assert!(seen[0].key.is_some() && seen[0].key == seen[1].key, "{endpoint}: {seen:?}");
    }
    assert_eq!(
        test.step_service.seen("POST /cancellations")[0].json(),
        json!({ "hotel": "POST /hotels 1", "status": 200 })
    );
    let shown = test.cli(&["runs", "show", id(&run)]).await;
    assert!(shown.contains("letter") && shown.contains("no `undo`"), "{shown}");
    test.finish().await;
}

const SOLD_OUT: &str = "
workflow: sold-out
steps:
  reserve: { call: 'POST ${services.works}/stock', undo: 'DELETE ${services.works}/stock/1' }
  charge: { needs: [reserve], call: 'POST ${services.plain}/charges', undo: 'POST ${services.plain}/refunds' }
  sold: { needs: [charge], if: '${request.body.sold}', fail: { status: 410, body: { error: sold out } } }
  ship: { needs: [sold, charge], needs_any: true, call: 'POST ${services.works}/ships' }
respond: { status: 200, body: shipped }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_effect_counts_as_undone_and_an_unknown_one_is_asked_about_first() {
    let test = EngineTest::with(&[SOLD_OUT]).await;
    // A `fail:` step answers the caller and starts the undo; a DELETE that gets 404 counts as undone.
    test.step_service.script("DELETE /stock", ScriptedReply::Refuse(404), 1);
    let data = test.run("sold-out", json!({ "sold": true })).await;
    let data = test.wait_for_status(&path(&data), "completed").await;
    assert_eq!((&data["output"], &data["error"]), (&json!({ "error": "sold out" }), &json!(null)), "{data}");
    assert_eq!(states(&data).iter().filter(|(_, _, state)| state == "undone").count(), 2, "{data}");
    // The outcome of the charge is unknown: nothing is undone before a person decides.
    test.step_service.hold("POST /charges");
    test.step_service.script("POST /charges", ScriptedReply::LoseReply, 1);
    let run = test.start_run("sold-out", json!({ "sold": true })).await;
    test.wait_for_calls("POST /charges", 2).await;
    let before = (test.step_service.count("DELETE /stock"), test.step_service.count("POST /refunds"));
    test.post_accepted(&format!("{run}/cancel"), json!({})).await;
    test.step_service.release_all("POST /charges");
    let data = test.wait_for_status(&run, "paused").await;
    assert_eq!(data["conflicts"][0]["kind"], "outcome_unknown", "{data}");
    assert_eq!(before, (test.step_service.count("DELETE /stock"), test.step_service.count("POST /refunds")), "{data}");
    let take = json!({ "step": "charge", "choice": "take", "output": { "id": "looked up" } });
    test.post_accepted(&format!("{run}/resolve"), take).await;
    let data = test.wait_for_status(&run, "cancelled").await;
    assert_eq!(states(&data).iter().filter(|(_, _, state)| state == "undone").count(), 2, "{data}");
    assert_eq!((test.step_service.effects("POST /charges"), test.step_service.effects("POST /refunds")), (2, 2));
    test.finish().await;
}

const ABOVE: &str = "
workflow: above
steps:
  look: { call: 'GET ${services.works}/looks' }
  sub: { needs: [look], run: writes }
  last: { needs: [sub], call: 'POST ${services.works}/lasts' }
respond: { status: 200, body: done }
";

const WRITES: &str = "
workflow: writes
steps:
  write: { call: 'POST ${services.works}/writes', undo: 'DELETE ${services.works}/writes/1' }
respond: { status: 200, body: written }
";

#[tokio::test(flavor = "multi_thread")]
async fn effects_of_a_completed_child_stay_without_an_undo_and_check_warns() {
    let test = EngineTest::with(&[ABOVE, WRITES]).await;
    test.step_service.script("POST /lasts", ScriptedReply::Refuse(402), 1);
    let data = test.run("above", json!({})).await;
    let data = test.wait_for_status(&path(&data), "failed").await;
    assert_eq!(
        (test.step_service.effects("POST /writes"), test.step_service.count("DELETE /writes")),
        (1, 0),
        "{data}"
    );
    let flags = test.flags.path().display().to_string();
    let (code, output) = test.cli_output(&["check", &flags]).await;
    assert_eq!(code, Some(0), "{output}");
    let warning = "`sub` runs `writes`, which has effects, and declares no `undo`";
    assert!(output.contains(warning) && output.contains("afterwards (`last`)"), "{output}");
    for corrected in ["run: writes, undo: 'DELETE ${services.works}/writes/1'", "run: writes, reversible: false"] {
        test.flags.edit("workflows/above.yaml", |text| {
            let end = text.find(" }\n  last").expect("the step's end");
            let at = text.find("run: writes").expect("the step");
            format!("{}{corrected}{}", &text[..at], &text[end..])
        });
        let (code, output) = test.cli_output(&["check", &flags]).await;
        assert!(code == Some(0) && !output.contains(warning), "{corrected}: {output}");
    }
    test.finish().await;
}
