//! Runs in lists and in full, their events, and the outputs of their steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::test_api::{TestApi, get, post};
use crate::engine::StartError;
use crate::flag::Arm;
use crate::names::{RunId, Seq};
use crate::store::Append;
use crate::store::tests::{append, at, completed_run, pin, run_id, summary};
use crate::workflow::{
    AnswerEvent, AnswerRecord, CallRecord, EffectClass, EndingEvent, Event, Mode, Outcome, Payload, RunStarted,
    RunStatus, Skipped, StepEvent, StepFinished, StepStarted,
};

fn started(run: RunId) -> Event {
    Event::RunStarted(Arc::new(RunStarted {
        run,
        workflow: "create-order".into(),
        plan: "plan_1".into(),
        mode: Mode::Real,
        child_plans: None,
        route: Some("orders.create".into()),
        started: at(0),
        request: Arc::new(json!({})),
        credentials: Vec::new(),
        sealed: None,
        legacy: None,
        injected: None,
        instance: None,
        creates: None,
        traceparent: None,
        job: None,
        parent: None,
        route_above: None,
        approval_above: None,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: false,
        sensitive_paths: Vec::new(),
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by: None,
        until: None,
    }))
}

fn call(step: &str) -> Event {
    Event::StepStarted(StepStarted {
        step: step.into(),
        item: None,
        part: crate::workflow::StepPart::Do,
        attempt: 1,
        key: Some("k".into()),
        effect: EffectClass::Shared,
        repeatable: true,
        request: Some(Arc::new(CallRecord {
            method: "POST".into(),
            url: "http://127.0.0.1:9102/charges".into(),
            headers: Vec::new(),
            body: Payload::Empty,
            secrets: Default::default(),
        })),
        until: None,
        at: None,
    })
}

fn done(step: &str, item: Option<u32>, output: serde_json::Value) -> Event {
    let outcome = Outcome::Done { status: 201, headers: BTreeMap::new(), output: output.into() };
    Event::StepFinished(StepFinished {
        step: step.into(),
        item,
        part: crate::workflow::StepPart::Do,
        attempt: 1,
        outcome,
    })
}

/// Appends the last events to the run of [`api_with_run`].
pub async fn finish_run(api: &TestApi) {
    let answer = Arc::new(AnswerRecord::new(201, Vec::new(), Payload::Text(r#"{"id":7}"#.to_owned())));
    let events = vec![
        (at(6), Event::Answer(AnswerEvent::Responded { answer, pin: None })),
        (at(7), Event::Ending(EndingEvent::Completed {})),
    ];
    let mut last = append(run_id(1), 6, 2);
    last.summary = crate::workflow::RunSummary { seq: Seq(7), status: RunStatus::Completed, ..summary(run_id(1), 7) };
    api.store.append(Arc::new(Append { events, ..last })).await.unwrap();
}

pub async fn api_with_run() -> TestApi {
    let api = TestApi::new().await;
    let run = run_id(1);
    let source = json!({ "workflow": "create-order", "steps": { "late": {}, "charge": {}, "total": {}, "mail": {} } });
    api.store.put_plan("plan_1".into(), source).await.unwrap();
    let total = Event::Step(StepEvent::Computed { step: "total".into(), output: json!({ "sum": 12.50 }).into() });
    let skipped = Event::Step(StepEvent::Skipped { step: "mail".into(), item: None, reason: Skipped::Condition });
    let events = [started(run), total, call("charge"), done("charge", None, json!({ "id": 7 })), skipped];
    let events: Vec<_> = events.into_iter().enumerate().map(|(n, event)| (at(n as i64), event)).collect();
    let summary = crate::workflow::RunSummary { seq: Seq(5), ..summary(run, 5) };
    api.store.append(Arc::new(Append { events, summary, ..append(run, 1, 1) })).await.unwrap();
    api
}

#[tokio::test]
async fn a_run_is_shown_in_an_envelope() {
    let api = api_with_run().await;
    let shown = api.call(get(&format!("/api/v2/orchestrate/run/{}", run_id(1)))).await;
    let pretty = serde_json::to_string_pretty(&shown.json()).unwrap() + "\n";
    let golden = include_str!("envelope.json");
    assert_eq!(pretty, golden, "the envelope's shape is part of the API");
    let job = run_id(1).to_string().replace("run_", "job_");
    assert_eq!(api.call(get(&format!("/api/v2/orchestrate/run/{job}"))).await.text, shown.text);
}

#[tokio::test]
async fn a_plan_that_the_store_has_lost_is_not_reported_as_an_unknown_run() {
    let plan = get(&format!("/api/v2/orchestrate/run/{}/plan", run_id(1)));
    assert_eq!(api_with_run().await.call(plan).await.status, StatusCode::OK);
    let api = TestApi::new().await;
    api.store
        .append(Arc::new(Append { events: vec![(at(0), started(run_id(1)))], ..append(run_id(1), 1, 1) }))
        .await
        .unwrap();
    let lost = api.call(get(&format!("/api/v2/orchestrate/run/{}/plan", run_id(1)))).await;
    let problem = lost.json();
    assert_eq!((lost.status, &problem["title"]), (StatusCode::NOT_FOUND, &json!("The plan is missing")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("but not its plan"), "{problem}");
}

#[tokio::test]
async fn the_events_are_paged() {
    let api = api_with_run().await;
    let events = api.call(get(&format!("/api/v2/orchestrate/run/{}/events?from=2&limit=2", run_id(1)))).await.json();
    let seqs: Vec<_> = events.as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [2, 3]);
    assert_eq!(events[0]["event"]["step_computed"]["output"]["sum"], json!(12.50));
}

#[tokio::test]
async fn a_steps_output_is_returned_as_json() {
    let api = api_with_run().await;
    let output = |step: &str| get(&format!("/api/v2/orchestrate/run/{}/steps/{step}/output", run_id(1)));
    assert_eq!(api.call(output("charge")).await.json(), json!({ "id": 7 }));
    assert_eq!(api.call(output("total")).await.text, r#"{"sum":12.5}"#);
    let none = api.call(output("mail")).await;
    assert_eq!(
        (none.status, &none.json()["detail"]),
        (StatusCode::NOT_FOUND, &json!("step `mail` has no output: it is skipped"))
    );
    let unknown = api.call(output("charg")).await;
    assert_eq!((unknown.status, &unknown.json()["hint"]), (StatusCode::NOT_FOUND, &json!("did you mean `charge`?")));
}

#[tokio::test]
async fn a_fan_outs_output_is_a_list_in_the_items_order() {
    let api = TestApi::new().await;
    let run = run_id(1);
    let items = vec![Arc::new(json!("a")), Arc::new(json!("b"))];
    let opened =
        Event::Step(StepEvent::FanOutOpened { step: "reserve".into(), items, collect: false, fallback: false });
    let item_call = |item| match call("reserve") {
        Event::StepStarted(started) => Event::StepStarted(StepStarted { item: Some(item), ..started }),
        other => other,
    };
    let events = [started(run), opened, item_call(0), item_call(1), done("reserve", Some(1), json!("B"))];
    let events: Vec<_> = events.into_iter().map(|event| (at(0), event)).collect();
    api.store.append(Arc::new(Append { events, ..append(run, 1, 1) })).await.unwrap();
    let output = get(&format!("/api/v2/orchestrate/run/{run}/steps/reserve/output"));
    assert_eq!(api.call(output).await.json(), json!([null, "B"]));
    let detail = api.call(get(&format!("/api/v2/orchestrate/run/{run}"))).await.json();
    let step = &detail["data"]["steps"][0];
    assert_eq!((&step["items"], &step["items_ended"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn runs_are_listed_in_pages() {
    let api = TestApi::new().await;
    for n in 1..=5 {
        let mut one = append(run_id(n), 1, 1);
        one.summary.status = if n == 2 { RunStatus::Completed } else { RunStatus::Running };
        api.store.append(one.into()).await.unwrap();
    }
    let list = async |query: &str| {
        let list = api.call(get(&format!("/api/v2/orchestrate/runs?{query}"))).await.json();
        let ids: Vec<String> =
            list["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect();
        let numbers: Vec<u64> = ids.iter().map(|id| (1..=5).find(|n| run_id(*n).to_string() == *id).unwrap()).collect();
        (numbers, list["next"].as_str().map(str::to_owned))
    };
    let (first, next) = list("limit=2").await;
    assert_eq!((first, next.as_deref()), (vec![5, 4], Some(run_id(4).to_string().as_str())));
    let (second, next) = list(&format!("limit=3&before={}", next.unwrap())).await;
    assert_eq!((second, next), (vec![3, 2, 1], None));
    assert_eq!(list("status=completed").await.0, [2]);
    assert_eq!(list("status=open&limit=9").await.0, [5, 4, 3, 1]);
    assert_eq!(list("status=completed,running&route=orders.create").await.0, [5, 4, 3, 2, 1]);
    assert_eq!(list(&format!("since={}", at(1_000_000))).await.0, [0; 0]);
    assert_eq!(list("mode=dark").await.0, [0; 0]);
}

#[tokio::test]
async fn an_invalid_query_or_id_is_named_in_the_error() {
    let api = TestApi::new().await;
    let detail = async |path: &str| {
        let answer = api.call(get(path)).await;
        (answer.status.as_u16(), answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, text) = detail("/api/v2/orchestrate/runs?status=runing").await;
    assert!(status == 400 && text.contains("waiting_checkpoint"), "{text}");
    assert_eq!(detail("/api/v2/orchestrate/runs?mode=rehearse").await.0, 400);
    assert_eq!(detail("/api/v2/orchestrate/run/17").await.0, 400);
    for (query, expected_detail) in [
        ("limit=abc", "the query: `limit` has to be a whole number from 1 to 4294967295, not `abc`"),
        ("limit=0", "the query: `limit` has to be a whole number from 1 to 4294967295, not `0`"),
        ("limit=1&limit=2", "the query: `limit` is given twice"),
        ("since=noon", "the query: `since` has to be a time like 2026-01-31T12:00:00Z, not `noon`"),
        ("statsu=open", "the query: there is no parameter `statsu` here"),
    ] {
        let path = format!("/api/v2/orchestrate/runs?{query}");
        assert_eq!(detail(&path).await, (400, expected_detail.to_owned()), "{query}");
    }
    let answer = api.call(get("/api/v2/orchestrate/runs?statsu=open")).await.json();
    assert_eq!(answer["hint"], "did you mean `status`?");
    for rest in ["", "/events", "/steps/x/output"] {
        let path = format!("/api/v2/orchestrate/run/{}{rest}", run_id(9));
        assert_eq!(detail(&path).await, (404, format!("no run `{}`", run_id(9))));
    }
}

#[tokio::test]
async fn a_purged_run_is_410_wherever_its_events_are_asked_for() {
    let api = TestApi::new().await;
    let run = run_id(3);
    let mut ended = Append { pins: vec![pin("18", Arm::Engine)], ..completed_run(run, at(-100_000_000)) };
    ended.summary.note = Some("all is well".into());
    api.store.append(ended.into()).await.unwrap();
    let path = format!("/api/v2/orchestrate/run/{run}");
    assert_eq!(api.call(get(&format!("{path}/events?from=5"))).await.json(), json!([]), "past the last event");
    assert_eq!(api.store.purge(RunStatus::Completed, at(0), 9).await.unwrap().runs, 1);
    *api.engine.start.lock().unwrap() = Some(Err(StartError::Invalid("its events are gone".into())));
    let rerun = post(&format!("{path}/rerun"), &json!({ "from": "a" }));
    for call in [get(&path), get(&format!("{path}/events")), get(&format!("{path}/events?from=2")), rerun] {
        let what = format!("{} {}", call.method(), call.uri());
        let answer = api.call(call).await;
        assert_eq!(answer.status, StatusCode::GONE, "{what}: {}", answer.text);
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:pointsman:problem:purged", "{what}");
        let time = format!("{:.0}", at(-100_000_000));
        let detail = format!(
            "the events of {run} were purged; it started at {time} and ended as completed at {time}: all is well"
        );
        assert_eq!(problem["detail"], detail, "{what}");
    }
}
