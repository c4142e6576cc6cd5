//! The graph of a run, and the flowchart that is drawn from it.

use serde_json::{Value, json};

use super::{EngineTest, id};
use crate::support::step_service::ScriptedReply;

const ORDER: &str = "
workflow: order
steps:
  total: { set: '${request.body.amount}' }
  reserve:
    for_each: '${request.body.items}'
    call: POST ${services.works}/stock
    body: { item: '${item}' }
  charge:
    needs: [reserve]
    call: POST ${services.works}/charges
    body: { amount: '${steps.total.output}' }
    on_conflict: pause
  mail: { needs: [charge], call: 'POST ${services.works}/mails' }
respond: { status: 200, body: done }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_is_drawn_with_what_became_of_each_step() {
    let test = EngineTest::with(&[ORDER]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(409), 1);
    let run = test.start_run("order", json!({ "amount": 7, "items": [1, 2, 3] })).await;
    test.wait_for_status(&run, "paused").await;
    let graph: Value = test.pointsman.get(&format!("{run}/graph")).await;
    let states: Vec<(&str, &str)> = graph["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| (step["state"]["step_id"].as_str().unwrap_or(""), step["state"]["status"].as_str().unwrap_or("")))
        .collect();
    for expected in [("total", "done"), ("reserve", "done"), ("charge", "conflict"), ("mail", "pending")] {
        assert!(states.contains(&expected), "{expected:?}: {graph}");
    }
    let edge = json!({ "from": "total", "to": "charge", "kind": "needs" });
    assert!(graph["edges"].as_array().expect("edges").contains(&edge), "{graph}");
    let drawn = test.cli(&["runs", "show", id(&run), "--svg"]).await;
    let document = roxmltree::Document::parse(&drawn).unwrap_or_else(|error| panic!("{error}: {drawn}"));
    let shown = |class: &str, text: &str| {
        let group = document.descendants().filter(|node| node.attribute("class") == Some(class));
        group.flat_map(|node| node.descendants()).any(|node| node.text().is_some_and(|shown| shown.contains(text)))
    };
    assert!(shown("good", "3 of 3 items") && shown("bad exception", "needs a decision"), "{drawn}");
    assert!(shown("idle", "not begun") && shown("head", "order: paused"), "{drawn}");
    test.cli(&["runs", "cancel", id(&run), "--no-undo"]).await;
    test.wait_for_status(&run, "cancelled").await;
    test.finish().await;
}
