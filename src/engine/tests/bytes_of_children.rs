//! Children whose answer is bytes, or contains bytes.

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::workflow::RunStatus;

/// A parent that passes on the output of its child, and the child, which answers with this body.
async fn harness(content_type: &'static str, file: &'static [u8], answer: Value) -> Harness {
    let step_service = StepService::new(move |call, _| match call.path.as_str() {
        "/file" => ServiceReply::Bytes(content_type, file),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let parent = json!({
        "workflow": "w",
        "steps": {
            "sub": { "run": "child" },
            "last": { "needs": ["sub"], "call": "POST ${services.world}/last", "body": "${steps.sub.output}" },
        },
        "respond": { "status": 200 },
    });
    let child = json!({
        "workflow": "child",
        "steps": { "a": { "call": "GET ${services.world}/file" } },
        "respond": { "status": 200, "body": answer },
    });
    let harness = Harness::new(&step_service, checked_plan(&parent, false)).await;
    harness.load_plans(&[&checked_plan(&child, false)]);
    harness
}

#[tokio::test]
async fn a_child_s_answer_that_is_bytes_is_the_output_of_its_step() {
    // The second file is UTF-8, and also JSON, by chance.
    for (content_type, file) in [("image/png", &[137, 80, 78, 71, 255][..]), ("application/octet-stream", b"12")] {
        let harness = harness(content_type, file, json!("${steps.a.output}")).await;
        let run = start(&harness, json!({})).await.run;
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
        let seen = harness.step_service.seen();
        let last = seen.iter().find(|call| call.path == "/last").expect("the parent's call");
        assert_eq!((&last.body[..], last.header("content-type")), (file, Some(content_type)));
    }
}

#[tokio::test]
async fn a_rerun_of_a_child_may_answer_with_bytes_within_another_value_as_the_child_did() {
    let harness = harness("image/png", &[137, 80, 255], json!({ "file": "${steps.a.output}" })).await;
    let parent = start(&harness, json!({})).await.run;
    assert_eq!(
        harness.wait_until_ended_or_awaits_input(parent).await.status,
        RunStatus::Paused,
        "the parent cannot send bytes within JSON"
    );
    let child = harness.runs().await.into_iter().find(|run| run.parent == Some(parent)).unwrap();
    assert_eq!(child.status, RunStatus::Completed);
    let cancel = crate::workflow::ControlCommand::Cancel { compensate: true, reason: None, automatic: false };
    harness.engine.give_command(parent, cancel, "ann".into()).await.unwrap();
    harness.wait_until_ended_or_awaits_input(parent).await;
    let mut last = child.run_id;
    for _ in 0..2 {
        last = harness.engine.rerun(last, "a".into(), "ann".into()).await.unwrap().run;
        assert_eq!(harness.wait_until_ended_or_awaits_input(last).await.status, RunStatus::Completed);
    }
}

#[tokio::test]
async fn no_part_of_bytes_in_its_input_can_be_read_by_a_child() {
    let step_service = StepService::new(|_, _| ServiceReply::Bytes("image/png", &[137, 80, 255])).await;
    for part in ["[\"$mark\"]", "[\"$bytes\"]", ".content_type", ".content_type.x"] {
        let parent = json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "GET ${services.world}/file" },
                "sub": { "run": "child", "input": "${steps.a.output}" },
            },
            "respond": { "status": 200 },
        });
        let child = json!({
            "workflow": "child",
            "steps": { "read": { "set": format!("${{request.body{part}}}") } },
            "respond": { "status": 200, "body": "${steps.read.output}" },
        });
        let harness = Harness::new(&step_service, checked_plan(&parent, false)).await;
        harness.load_plans(&[&checked_plan(&child, false)]);
        let parent = start(&harness, json!({})).await.run;
        let child = super::children::wait_for_child(&harness, parent).await;
        let child = harness.wait_until_ended_or_awaits_input(child).await;
        assert_eq!(child.status, RunStatus::Paused, "{part}");
        let note = child.note.unwrap_or_default();
        assert!(note.contains("`request.body` is bytes, which cannot be read"), "{part}: {note}");
    }
}

/// A parent whose child gets this input and sends it on unchanged (`request.raw`); `/file` answers with a picture.
async fn sending_raw(input: Value) -> Harness {
    let step_service = StepService::new(|call, _| match call.path.as_str() {
        "/file" => ServiceReply::Bytes("image/png", &[137, 80, 255]),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let parent = json!({
        "workflow": "w",
        "steps": {
            "a": { "call": "GET ${services.world}/file" },
            "sub": { "run": "child", "input": input },
        },
        "respond": { "status": 200 },
    });
    let child = json!({
        "workflow": "child",
        "steps": { "send": { "call": "POST ${services.world}/send", "raw": "${request.raw}" } },
        "respond": { "status": 200 },
    });
    let harness = Harness::new(&step_service, checked_plan(&parent, false)).await;
    harness.load_plans(&[&checked_plan(&child, false)]);
    harness
}

#[tokio::test]
async fn a_child_sends_its_input_as_it_came_where_that_is_bytes() {
    for (input, sent, content_type) in [
        (json!("${steps.a.output}"), &[137, 80, 255][..], "image/png"),
        (json!({ "size": 3 }), br#"{"size":3}"#, "application/json"),
    ] {
        let harness = sending_raw(input).await;
        let run = start(&harness, json!({})).await.run;
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
        let seen = harness.step_service.seen();
        let call = seen.iter().find(|call| call.path == "/send").expect("the child's call");
        assert_eq!((&call.body[..], call.header("content-type")), (sent, Some(content_type)));
    }
}

#[tokio::test]
async fn a_child_whose_input_contains_bytes_cannot_send_it_as_it_came() {
    let harness = sending_raw(json!({ "file": "${steps.a.output}" })).await;
    let parent = start(&harness, json!({})).await.run;
    let child = super::children::wait_for_child(&harness, parent).await;
    let child = harness.wait_until_ended_or_awaits_input(child).await;
    let note = child.note.unwrap_or_default();
    assert_eq!(child.status, RunStatus::Paused, "{note}");
    assert!(note.contains("`request.raw` has no value: the input of this run contains bytes"), "{note}");
    assert!(harness.step_service.seen().iter().all(|call| call.path != "/send"), "nothing was sent");
}

#[tokio::test]
async fn the_type_of_a_child_s_answer_does_not_depend_on_what_its_text_reads_like() {
    let step_service = StepService::new(|call, _| match call.path.as_str() {
        "/text" => ServiceReply::Bytes("text/plain", b"42"),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let child = |name: &str, body: &str| {
        let respond = json!({ "status": 200, "headers": { "content-type": "text/plain" }, "body": body });
        let steps = json!({ "a": { "call": "GET ${services.world}/text" } });
        checked_plan(&json!({ "workflow": name, "steps": steps, "respond": respond }), false)
    };
    let parent = json!({
        "workflow": "w",
        "steps": {
            "text": { "run": "text" },
            "number": { "run": "number" },
            "last": {
                "call": "POST ${services.world}/last",
                "body": { "text": "${steps.text.output}", "number": "${steps.number.output}" },
            },
        },
        "respond": { "status": 200 },
    });
    let harness = Harness::new(&step_service, checked_plan(&parent, false)).await;
    harness.load_plans(&[&child("text", "${steps.a.output}"), &child("number", "${int(steps.a.output)}")]);
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    let seen = harness.step_service.seen();
    let last = seen.iter().find(|call| call.path == "/last").expect("the parent's call");
    let sent: Value = serde_json::from_slice(&last.body).unwrap();
    assert_eq!(sent, json!({ "text": "42", "number": 42 }));
}
