//! Runs that take the place of others: one heir each, and never two that move.

use std::sync::Arc;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, checked, copy, request, start};
use crate::engine::OrderError;
use crate::engine::StartError;
use crate::engine::Started;
use crate::limits::Limits;
use crate::names::RunId;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::workflow::{EndingEvent, Event, Mode, Order, Plan, RunStatus};

/// `one` is undone by a DELETE; `two` is refused as long as the world likes.
fn plan() -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "w",
            "steps": {
                "one": { "call": "POST ${services.world}/one", "undo": "DELETE ${services.world}/one" },
                "two": { "needs": ["one"], "call": "POST ${services.world}/two" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

/// A run that waits for a person over `two`.
async fn paused(refused: usize) -> (Arc<World>, Bench, RunId) {
    let world = World::new(move |seen, before| match (seen.path.as_str(), before) {
        ("/two", before) if before < refused => React::Json(409, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let bench = Bench::new(&world, plan()).await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(bench.ended(run).await.status, RunStatus::Paused);
    (world, bench, run)
}

async fn again(bench: &Bench, of: RunId, from: &str) -> Result<Started, StartError> {
    bench.engine.rerun(of, from.into(), "ann".into()).await
}

async fn says(bench: &Bench, run: RunId, order: Order) -> Result<(), String> {
    bench.engine.order(run, order, "bob".into()).await.map(drop).map_err(|error| match error {
        OrderError::Refused { run, .. } => run.note.unwrap_or_default(),
        error => error.to_string(),
    })
}

#[tokio::test]
async fn a_paused_run_ends_when_another_takes_its_place() {
    let (world, bench, run) = paused(1).await;
    let heir = again(&bench, run, "two").await.unwrap();
    assert_eq!(bench.ended(heir.run).await.status, RunStatus::Completed);
    for order in [
        Order::Resume { reason: None },
        Order::Cancel { compensate: true, reason: None },
        Order::Retry { step: Some("two".into()) },
    ] {
        let why = says(&bench, run, order).await.unwrap_err();
        assert!(why.contains(&heir.run.to_string()), "{why}");
    }
    assert_eq!(world.paths(), ["POST /one", "POST /two", "POST /two"], "nothing is undone behind its back");
    let superseded = bench.events(run).await.pop();
    assert!(
        matches!(superseded, Some(Event::Ending(EndingEvent::Superseded(superseded))) if superseded.by == heir.run)
    );
    let Err(StartError::Invalid(why)) = again(&bench, run, "two").await else { panic!() };
    assert!(why.contains(&heir.run.to_string()), "the newest run of a job is begun anew: {why}");
    assert!(again(&bench, heir.run, "two").await.is_ok());
}

#[tokio::test]
async fn of_all_who_ask_at_the_same_time_one_wins() {
    for ended in [false, true] {
        let (world, bench, run) = paused(1).await;
        if ended {
            says(&bench, run, Order::Cancel { compensate: false, reason: None }).await.unwrap();
        }
        let all: Vec<_> = futures_util::future::join_all((0..8).map(|_| again(&bench, run, "two"))).await;
        let (won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 7), "{lost:?}");
        assert!(lost.iter().all(|lost| matches!(lost, Err(StartError::Invalid(_)))), "{lost:?}");
        bench.ended(won[0].as_ref().unwrap().run).await;
        assert_eq!(world.paths(), ["POST /one", "POST /two", "POST /two"]);
        assert_eq!(bench.runs().await.len(), 2);
    }
}

#[tokio::test]
async fn what_an_heir_has_undone_is_not_taken_from_the_run_before_it() {
    let (world, bench, run) = paused(2).await;
    says(&bench, run, Order::Cancel { compensate: false, reason: None }).await.unwrap();
    let first = again(&bench, run, "two").await.unwrap().run;
    bench.ended(first).await;
    says(&bench, first, Order::Cancel { compensate: true, reason: None }).await.unwrap();
    assert_eq!(bench.ended(first).await.status, RunStatus::Cancelled);
    assert!(matches!(again(&bench, run, "two").await, Err(StartError::Invalid(_))));
    let second = again(&bench, first, "two").await.unwrap().run;
    assert_eq!(bench.ended(second).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["DELETE /one", "POST /one", "POST /one", "POST /two", "POST /two", "POST /two"]);
}

/// The process ends between the two appends: the next one begins the heir, and nobody has to ask.
#[tokio::test]
async fn an_heir_that_was_not_born_is_born_by_the_next_process() {
    let (world, mut bench, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    says(&bench, run, Order::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
    let pending_runs = bench.store.pending_runs(9).await.unwrap();
    assert_eq!(pending_runs.iter().map(|birth| (birth.run, birth.parent)).collect::<Vec<_>>(), [(to, Some(run))]);
    bench.crash().await;
    assert!(bench.store.run(to).await.unwrap().is_none());
    bench.recover().await;
    let born = async {
        while bench.store.run(to).await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::kit::PATIENCE, born).await.expect("it is born");
    assert_eq!(bench.ended(to).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /one", "POST /two", "POST /two"], "once");
    assert_eq!((bench.store.pending_runs(9).await.unwrap().len(), bench.runs().await.len()), (0, 2));
}

/// Where nothing delivers it, the same may be asked again.
#[tokio::test]
async fn an_heir_that_was_not_born_is_born_when_the_same_is_asked_again() {
    let (world, mut bench, run) = paused(1).await;
    let to = RunId(uuid::Uuid::now_v7());
    says(&bench, run, Order::HandOver { to, from: "two".into(), sealed: None }).await.unwrap();
    bench.crash().await;
    assert!(bench.store.run(to).await.unwrap().is_none());
    assert!(
        bench.store.run(run).await.unwrap().unwrap().note.unwrap().contains(&to.to_string()),
        "and that can be seen"
    );
    let Err(StartError::Invalid(why)) = again(&bench, run, "one").await else { panic!() };
    assert!(why.contains("from `two`"), "{why}");
    assert_eq!(again(&bench, run, "two").await.unwrap().run, to);
    assert_eq!(bench.ended(to).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /one", "POST /two", "POST /two"]);
    assert!(again(&bench, run, "two").await.is_err());
}

#[tokio::test]
async fn an_heir_has_the_credentials_of_the_caller() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/a", 0) => React::Json(409, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let definition: Value = json!({
        "workflow": "w",
        "steps": { "a": { "call": "POST ${services.world}/a", "on_conflict": "pause",
                          "headers": { "cookie": "${request.headers.cookie}" } } },
        "respond": { "status": 200, "body": {} },
    });
    let services = [(crate::names::ServiceName::from("world"), false)].into();
    let known = crate::workflow::Known {
        services: &services,
        secrets: &Default::default(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    let plan = Arc::new(Plan::from_source(&definition, &known).unwrap());
    let key = Some(Secret::new("k"));
    let store = Arc::new(MemoryStore::new());
    let mut bench = Bench::over(&world, plan, store, Limits::default(), key).await;
    let asked = crate::exchange::ArmRequest {
        request: copy(&json!({}), &[("cookie", "sid=1")]),
        ..request("w", Mode::Real, &json!({}))
    };
    bench.ask(asked).await;
    let run = bench.runs().await[0].run_id;
    // It is handed over, and the process ends before the heir is born.
    let heir = crate::engine::api::rerun::tests_hand_over(&bench.engine, run, "a").await;
    bench.crash().await;
    assert_eq!(again(&bench, run, "a").await.unwrap().run, heir);
    assert_eq!(bench.ended(heir).await.status, RunStatus::Completed);
    assert_eq!(world.seen()[1].header("cookie"), Some("sid=1"));
}
