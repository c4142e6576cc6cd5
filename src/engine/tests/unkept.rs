//! Runs that are not kept (`keep: none`): they are answered as others are, and the store hears nothing of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, abandoned, answer, checked, refused, request};
use super::through::gated;
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::workflow::{Mode, Plan};

fn look() -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "w",
            "steps": {
                "look": {
                    "call": "GET ${services.world}/look", "timeout": "5s",
                    "retry": { "attempts": 2, "base": "1ms", "max": "1ms" },
                },
            },
            "respond": { "status": 200, "body": "${steps.look.output}" },
        }),
        false,
    )
}

fn unkept(mode: Mode, may_fall_back: bool) -> ArmRequest {
    // Even where a retry key comes along, nothing is remembered under it.
    let retry_key = Some(RetryKey([3; 32]));
    ArmRequest { keep: false, retry_key, may_fall_back, ..request("w", mode, &Value::Null) }
}

#[tokio::test]
async fn the_store_is_not_asked_for_a_run_that_is_not_kept() {
    let world = World::new(|_, before| match before {
        0 => React::Json(503, json!({})),
        _ => React::Json(200, json!({ "n": 7 })),
    })
    .await;
    let store = gated();
    let bench = Bench::over(&world, look(), store.clone(), Limits::default(), None).await;
    store.appends.shut();
    for mode in [Mode::Real, Mode::Real, Mode::Dark] {
        let (status, body, _) = answer(bench.ask(unkept(mode, false)).await);
        assert_eq!((status, body), (200, json!({ "n": 7 })), "{mode:?}");
    }
    assert_eq!(bench.store.plan(bench.plan.id.clone()).await.unwrap(), None, "nor is its plan written down");
    assert_eq!(bench.store.first_try(RetryKey([3; 32])).await.unwrap(), None);
    assert_eq!(world.seen().len(), 4, "tried again in the run, and read anew for each request");
    let key = |seen: &super::kit::Seen| seen.header("idempotency-key").map(str::to_owned);
    assert!(world.seen().iter().all(|seen| key(seen).is_none()));
    assert!(bench.runs().await.is_empty());
    store.appends.pass(1_000);
    // The same request of a route that keeps its runs.
    let kept = ArmRequest { keep: true, ..unkept(Mode::Real, false) };
    answer(bench.ask(kept).await);
    assert_eq!(bench.runs().await.len(), 1);
}

#[tokio::test]
async fn what_it_cannot_answer_goes_to_legacy_or_is_an_error_that_names_no_run() {
    let world = World::new(|_, _| React::Hang).await;
    let bench = Bench::new(&world, look()).await;
    let soon = |may| ArmRequest { deadline: Duration::from_millis(200), ..unkept(Mode::Real, may) };
    let given_back = abandoned(bench.ask(soon(true)).await);
    assert_eq!((given_back.reason, given_back.run), ("deadline", None));
    let (problem, _) = refused(bench.ask(soon(false)).await);
    assert_eq!((problem.status, problem.kind.as_str(), problem.run), (504, "deadline", None), "{}", problem.detail);
    assert!(bench.runs().await.is_empty());

    // The files have lost the service: nobody would find a run that waits for it.
    let plans = [(bench.plan.workflow.clone(), bench.plan.clone())].into();
    bench.engine.reload(0, &plans, &[].into(), &[].into());
    let (problem, _) = refused(bench.ask(unkept(Mode::Real, false)).await);
    assert_eq!((problem.status, problem.kind.as_str(), problem.run), (503, "workflow-stuck", None));
    assert!(problem.detail.contains("the service `world`"), "{}", problem.detail);
    assert_eq!(abandoned(bench.ask(unkept(Mode::Real, true)).await).reason, "run_paused");
    assert!(bench.runs().await.is_empty() && bench.engine.stuck().is_empty());
}
