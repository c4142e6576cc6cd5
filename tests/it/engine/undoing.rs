//! Sagas: what was done is undone in reverse order, at the same time where it was done so, once, whatever restarts happen.

use serde_json::{Value, json};

use super::{Plant, id, path};
use crate::support::works::Say;

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
async fn everything_is_undone_once_in_reverse_and_together_where_it_was_done_together() {
    let mut plant = Plant::with(&[TRIP, READS]).await;
    // Both are under way at the same time.
    plant.works.hold("POST /flights");
    plant.works.hold("POST /hotels");
    plant.works.next("POST /payments", Say::Refuse(402), 1);
    plant.works.next("DELETE /nights", Say::Refuse(503), 1);
    plant.works.hold("DELETE /flights");
    plant.works.hold("POST /cancellations");
    let run = plant.begun("trip", json!({})).await;
    plant.arrives("POST /flights", 1).await;
    plant.arrives("POST /hotels", 1).await;
    plant.works.open("POST /flights");
    plant.works.open("POST /hotels");
    plant.arrives("DELETE /flights", 1).await;
    plant.arrives("POST /cancellations", 1).await;
    let data = plant.data(&run).await;
    assert_eq!(data["status"], "compensating", "{data}");
    let shown = plant.cli(&["runs", "show", id(&run)]).await;
    assert!(shown.contains("compensating"), "{shown}");
    let nights: Vec<String> = plant.works.seen("DELETE /nights").into_iter().map(|call| call.path).collect();
    assert_eq!(
        nights,
        ["/nights/2", "/nights/2", "/nights/1"],
        "one after the other, each again where it was not done"
    );
    plant.killed_and_back().await;
    plant.works.open("DELETE /flights");
    plant.works.open("POST /cancellations");
    let data = plant.comes_to(&run, "failed").await;
    let said = states(&data);
    let row = |step: &str, item: Value, state: &str| (step.to_owned(), item, state.to_owned());
    assert_eq!(said.len(), 5, "reads, and runs that did nothing, are no loss: {data}");
    for wanted in [
        row("flight", Value::Null, "undone"),
        row("hotel", Value::Null, "undone"),
        row("nights", json!(0), "undone"),
        row("nights", json!(1), "undone"),
        row("letter", Value::Null, "left"),
    ] {
        assert!(said.contains(&wanted), "{wanted:?} in {said:?}");
    }
    assert!(data["run"]["note"].as_str().unwrap().contains("not undone: `letter`"), "{}", data["run"]["note"]);
    for place in ["DELETE /flights", "POST /cancellations"] {
        let seen = plant.works.seen(place);
        assert_eq!((seen.len(), plant.works.done(place)), (2, 1), "{place}: sent again after the kill, done once");
        assert!(seen[0].key.is_some() && seen[0].key == seen[1].key, "{place}: {seen:?}");
    }
    assert_eq!(plant.works.seen("POST /cancellations")[0].json(), json!({ "hotel": "POST /hotels 1", "status": 200 }));
    let shown = plant.cli(&["runs", "show", id(&run)]).await;
    assert!(shown.contains("letter") && shown.contains("no `undo`"), "{shown}");
    plant.finish().await;
}

const GONE: &str = "
workflow: gone
steps:
  reserve: { call: 'POST ${services.works}/stock', undo: 'DELETE ${services.works}/stock/1' }
  charge: { needs: [reserve], call: 'POST ${services.plain}/charges', undo: 'POST ${services.plain}/refunds' }
  sold: { needs: [charge], if: '${request.body.sold}', fail: { status: 410, body: { error: sold out } } }
  ship: { needs: [sold, charge], needs_any: true, call: 'POST ${services.works}/ships' }
respond: { status: 200, body: shipped }
";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_undone_and_what_is_unknown_is_asked_about_first() {
    let plant = Plant::with(&[GONE]).await;
    // A declared end answers, and undoes; what is not there any more has been undone.
    plant.works.next("DELETE /stock", Say::Refuse(404), 1);
    let data = plant.run("gone", json!({ "sold": true })).await;
    let data = plant.comes_to(&path(&data), "completed").await;
    assert_eq!((&data["output"], &data["error"]), (&json!({ "error": "sold out" }), &json!(null)), "{data}");
    assert_eq!(states(&data).iter().filter(|(_, _, state)| state == "undone").count(), 2, "{data}");
    // Nobody knows whether it was charged: nothing is undone before somebody says so.
    plant.works.hold("POST /charges");
    plant.works.next("POST /charges", Say::LoseReply, 1);
    let run = plant.begun("gone", json!({ "sold": true })).await;
    plant.arrives("POST /charges", 2).await;
    let before = (plant.works.count("DELETE /stock"), plant.works.count("POST /refunds"));
    plant.taken(&format!("{run}/cancel"), json!({})).await;
    plant.works.open("POST /charges");
    let data = plant.comes_to(&run, "paused").await;
    assert_eq!(data["conflicts"][0]["kind"], "outcome_unknown", "{data}");
    assert_eq!(before, (plant.works.count("DELETE /stock"), plant.works.count("POST /refunds")), "{data}");
    let take = json!({ "step": "charge", "choice": "take", "output": { "id": "looked up" } });
    plant.taken(&format!("{run}/resolve"), take).await;
    let data = plant.comes_to(&run, "cancelled").await;
    assert_eq!(states(&data).iter().filter(|(_, _, state)| state == "undone").count(), 2, "{data}");
    assert_eq!((plant.works.done("POST /charges"), plant.works.done("POST /refunds")), (2, 2));
    plant.finish().await;
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
async fn what_a_completed_child_did_stays_done_without_an_undo_and_check_says_so() {
    let plant = Plant::with(&[ABOVE, WRITES]).await;
    plant.works.next("POST /lasts", Say::Refuse(402), 1);
    let data = plant.run("above", json!({})).await;
    let data = plant.comes_to(&path(&data), "failed").await;
    assert_eq!((plant.works.done("POST /writes"), plant.works.count("DELETE /writes")), (1, 0), "{data}");
    let flags = plant.flags.path().display().to_string();
    let (code, said) = plant.cli_said(&["check", &flags]).await;
    assert_eq!(code, Some(0), "{said}");
    let warning = "`sub` runs `writes`, which has effects, and declares no `undo`";
    assert!(said.contains(warning) && said.contains("afterwards (`last`)"), "{said}");
    for mended in ["run: writes, undo: 'DELETE ${services.works}/writes/1'", "run: writes, reversible: false"] {
        plant.flags.edit("workflows/above.yaml", |text| {
            let end = text.find(" }\n  last").expect("the step's end");
            let at = text.find("run: writes").expect("the step");
            format!("{}{mended}{}", &text[..at], &text[end..])
        });
        let (code, said) = plant.cli_said(&["check", &flags]).await;
        assert!(code == Some(0) && !said.contains(warning), "{mended}: {said}");
    }
    plant.finish().await;
}
