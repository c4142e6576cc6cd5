//! Commands, answers and signals, as the engine receives them.

use http::StatusCode;
use serde_json::json;

use super::runs::api_with_run;
use super::test_api::{TestApi, get, post};
use crate::engine::CommandError;
use crate::store::tests::{run_id, summary};
use crate::workflow::{CheckpointAnswer, Choice, CommandRefusal, ControlCommand};

fn path(rest: &str) -> String {
    format!("/api/v2/orchestrate/run/{}{rest}", run_id(1))
}

/// Sends a command, and returns the [`ControlCommand`] that the engine received.
async fn received(api: &TestApi, rest: &str, body: serde_json::Value) -> ControlCommand {
    let answer = api.call(post(&path(rest), &body)).await;
    assert_eq!(
        (answer.status, answer.json()["object"].clone()),
        (StatusCode::OK, json!("orchestration")),
        "{}",
        answer.text
    );
    let (run, command, by) = api.engine.commands.lock().unwrap().pop().unwrap();
    assert_eq!((run, by.as_str()), (run_id(1), "ada (unverified)"));
    command
}

#[tokio::test]
async fn every_command_reaches_the_engine_unchanged() {
    let api = api_with_run().await;
    let reason = Some("a drill".to_owned());
    let pause = received(&api, "/pause", json!({ "reason": "a drill", "as": "ada" })).await;
    assert_eq!(pause, ControlCommand::Pause { reason: reason.clone() });
    assert_eq!(received(&api, "/resume", json!({ "as": "ada" })).await, ControlCommand::Resume { reason: None });
    let cancel = received(&api, "/cancel", json!({ "as": "ada" })).await;
    assert_eq!(cancel, ControlCommand::Cancel { compensate: true, reason: None, automatic: false });
    let cancel = received(&api, "/cancel", json!({ "compensate": false, "as": "ada" })).await;
    assert_eq!(cancel, ControlCommand::Cancel { compensate: false, reason: None, automatic: false });
    let skip = received(&api, "/skip", json!({ "step": "mail", "reason": "a drill", "as": "ada" })).await;
    assert_eq!(skip, ControlCommand::Skip { step: "mail".into(), reason });
    let adjust = received(&api, "/adjust", json!({ "step": "mail", "item": 3, "input": null, "as": "ada" })).await;
    let input = std::sync::Arc::new(json!(null));
    assert_eq!(adjust, ControlCommand::Adjust { step: "mail".into(), item: Some(3), input, reason: None });
    assert_eq!(
        received(&api, "/retry", json!({ "as": "ada" })).await,
        ControlCommand::Retry { step: None, attempt: None }
    );
    let take = json!({ "step": "charge", "choice": "take", "output": null, "as": "ada" });
    let choice = Choice::Take { output: std::sync::Arc::new(json!(null)) };
    let resolve = received(&api, "/resolve", take).await;
    assert_eq!(
        resolve,
        ControlCommand::Resolve { step: "charge".into(), item: None, attempt: None, choice, reason: None }
    );
    let signal = received(&api, "/signals/paid", json!({ "payload": { "n": 1 }, "id": "d1", "as": "ada" })).await;
    let payload = std::sync::Arc::new(json!({ "n": 1 }));
    assert_eq!(signal, ControlCommand::Signal { name: "paid".into(), payload, id: Some("d1".into()) });
    let values = json!({ "selected_asset_id": "asset_1" });
    let answer = received(&api, "/checkpoints/chk_1", json!({ "values": values, "as": "ada" })).await;
    let yes = |values, approved, struck| CheckpointAnswer { approve: true, values, approved, struck, note: None };
    let expected = yes(Some(std::sync::Arc::new(values)), vec![], vec![]);
    assert_eq!(answer, ControlCommand::Answer { checkpoint: "chk_1".into(), answer: expected });
    let review = received(&api, "/checkpoints/chk_1", json!({ "approved": [0, 2], "struck": [1], "as": "ada" })).await;
    let expected = yes(None, vec![0, 2], vec![1]);
    assert_eq!(review, ControlCommand::Answer { checkpoint: "chk_1".into(), answer: expected });
}

#[tokio::test]
async fn a_malformed_command_does_not_reach_the_engine() {
    let api = api_with_run().await;
    for (rest, body) in [
        ("/resolve", json!({ "step": "charge", "choice": "take" })),
        ("/resolve", json!({ "step": "charge", "choice": "retry_with" })),
        ("/resolve", json!({ "step": "charge", "choice": "retry", "output": 1 })),
        ("/resolve", json!({ "step": "charge", "choice": "guess" })),
        ("/checkpoints/chk_1", json!({})),
        ("/checkpoints/chk_1", json!({ "aprove": true })),
        ("/skip", json!({})),
        ("/adjust", json!({ "step": "x" })),
        ("/pause", json!({ "reasn": "x" })),
        ("/pause", json!([null, null])),
    ] {
        let answer = api.call(post(&path(rest), &body)).await;
        let status = answer.status;
        let is_refused = status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY;
        assert!(is_refused, "{rest} {body}: {status} {}", answer.text);
    }
    assert!(api.engine.commands.lock().unwrap().is_empty());
    let gone = format!("/api/v2/orchestrate/run/{}/pause", run_id(9));
    assert_eq!(api.call(post(&gone, &json!({}))).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_refused_command_shows_the_runs_status_and_the_reason() {
    let api = api_with_run().await;
    let refused = async |refusal| {
        *api.engine.refuse.lock().unwrap() =
            Some(CommandError::Refused { run: Box::new(summary(run_id(1), 5)), refusal });
        let answer = api.call(post(&path("/skip"), &json!({ "step": "chrge" }))).await;
        let problem = answer.json();
        assert_eq!((&problem["run_id"], &problem["run_status"]), (&json!(run_id(1).to_string()), &json!("running")));
        (answer.status.as_u16(), problem)
    };
    let (status, problem) = refused(CommandRefusal::NotApplicable("it has begun".into())).await;
    assert_eq!((status, &problem["detail"]), (409, &json!("it has begun")));
    assert_eq!(refused(CommandRefusal::Ended).await.0, 409);
    let (status, problem) = refused(CommandRefusal::NoSuchStep).await;
    assert_eq!((status, &problem["hint"]), (422, &json!("did you mean `charge`?")));
    assert_eq!(refused(CommandRefusal::NoSuchCheckpoint).await.0, 404);
    assert_eq!(refused(CommandRefusal::NotYours("only bob may say this".into())).await.0, 403);
    let (status, problem) = refused(CommandRefusal::BadValues(vec!["/a: 1 is not of type \"string\"".into()])).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/values/a")));
    let answer =
        CheckpointAnswer { approve: false, values: None, approved: vec![], struck: vec![], note: Some("no".into()) };
    let before = CommandRefusal::AnsweredBefore { by: "bob".into(), said: Box::new(answer), seq: crate::names::Seq(3) };
    let (status, problem) = refused(before).await;
    assert_eq!((status, &problem["first"]["by"], &problem["first"]["approve"]), (409, &json!("bob"), &json!(false)));
    assert!(problem["first"]["at"].is_string(), "{problem}");
}

#[tokio::test]
async fn explain_shows_what_a_run_waits_for() {
    let api = api_with_run().await;
    let explanation = api.call(get(&path("/explain"))).await.json();
    assert!(explanation["sentence"].as_str().unwrap().contains("breaker"), "{explanation}");
    assert_eq!((&explanation["stuck"], &explanation["status"]), (&json!(false), &json!("running")));
}

#[tokio::test]
async fn a_command_is_accepted_even_if_the_run_cannot_be_read_for_the_response() {
    let mut api = api_with_run().await;
    let _dir = api.close_store().await;
    for (rest, body) in [("/signals/go", json!({ "as": "ada" })), ("/cancel", json!({ "as": "ada" }))] {
        let answer = api.call(post(&path(rest), &body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let data = &answer.json()["data"];
        assert_eq!((&data["run_id"], &data["status"]), (&json!(run_id(1).to_string()), &json!("running")));
        assert!(data["trouble"].as_str().unwrap().starts_with("its events cannot be read"), "{data}");
    }
    assert_eq!(api.engine.commands.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_rerun_is_202_with_the_location_of_the_new_run() {
    let api = api_with_run().await;
    *api.engine.start.lock().unwrap() = Some(Ok(super::fake_engine::started(run_id(1), true)));
    let answer = api.call(post(&path("/rerun"), &json!({ "from": "charge" }))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.headers["location"], path(""));
    *api.engine.start.lock().unwrap() = Some(Err(crate::engine::StartError::Invalid("it runs".into())));
    let answer = api.call(post(&path("/rerun"), &json!({ "from": "charge" }))).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
}
