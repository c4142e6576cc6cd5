//! Files that change while requests are on their way.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, answer, request};
use crate::exchange::ArmRequest;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan};

fn saying(edition: u64) -> Arc<Plan> {
    PlanBuilder::new().set("n", &[], json!(edition)).respond(200, json!("${steps.n.output}")).build("w")
}

async fn by(bench: &Bench, edition: Option<u64>) -> Value {
    let (status, body, _) = answer(bench.ask(ArmRequest { edition, ..request("w", Mode::Real, &json!({})) }).await);
    assert_eq!(status, 200);
    body
}

#[tokio::test]
async fn a_request_is_run_by_the_files_that_it_was_decided_by() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::new(&world, saying(0)).await;
    let reload = |edition: u64, says: u64| {
        let plans = BTreeMap::from([("w".into(), saying(says))]);
        bench.engine.reload(edition, &plans, &BTreeMap::new(), &BTreeMap::new());
    };
    reload(1, 1);
    assert_eq!(by(&bench, Some(0)).await, json!(0), "decided before the change");
    assert_eq!(by(&bench, Some(1)).await, json!(1));
    assert_eq!(by(&bench, None).await, json!(1), "the newest");
    // A set that never came in force leaves its number to the next, however often, and pushes nothing out.
    for says in 20..30 {
        reload(2, says);
    }
    assert_eq!(by(&bench, Some(2)).await, json!(29));
    assert_eq!(by(&bench, Some(1)).await, json!(1));
    assert_eq!(by(&bench, Some(0)).await, json!(0));
    // What is too old to be kept is run by the newest.
    for edition in 3..10 {
        reload(edition, edition);
    }
    assert_eq!(by(&bench, Some(0)).await, json!(9));
    assert_eq!(by(&bench, Some(8)).await, json!(8));
}
