//! The kind of a body (JSON, text, bytes) is recorded beside its content.

use http::Method;
use serde_json::json;

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const ECHO: &str = "
workflow: echo
steps:
  echo: { call: 'POST ${services.works}/echoes', body: '${request.body}' }
  raw: { needs: [echo], call: 'POST ${services.works}/raws', raw: '${request.raw}' }
respond: { status: 200, body: '${steps.echo.output}' }
";

const ROUTE: &str = "
routes:
- { id: echo, match: { method: POST, path: /echo }, legacy: plain, workflow: echo, state: dark }
";

#[tokio::test(flavor = "multi_thread")]
async fn json_that_looks_like_encoded_bytes_stays_json_and_bytes_stay_bytes() {
    let test = EngineTest::with_settings("", &[ECHO], |flags| flags.write("routes/echo.yaml", ROUTE)).await;
    test.cli(&["flip", "echo", "live", "--force", "--reason", "bodies are looked at"]).await;
    let url = format!("{}/echo", test.pointsman.url());
    let page = json!({ "$bytes": "PHNjcmlwdD4=", "content_type": "text/html" });
    test.step_service.script("POST /echoes", ScriptedReply::Done(200, page.clone()), 1);
    let reply = test.client.json(Method::POST, &url, &[], &page).await.expect("an answer");
    assert_eq!((reply.status.as_u16(), reply.json()), (200, page.clone()));
    assert_eq!(reply.headers["content-type"], "application/json", "not the type that the body claims");
    let seen = (test.step_service.seen("POST /echoes"), test.step_service.seen("POST /raws"));
    assert_eq!((seen.0[0].json(), seen.1[0].json()), (page.clone(), page));
    assert_eq!(seen.0[0].headers["content-type"], "application/json");
    // A body that is neither JSON nor text is passed on unchanged.
    let image = bytes::Bytes::from_static(&[137, 80, 78, 71, 0, 255]);
    test.step_service.script("POST /echoes", ScriptedReply::Bytes("image/png", image.clone()), 1);
    let reply = test.client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!((reply.body, &reply.headers["content-type"]), (image, &"image/png".parse().unwrap()));
    test.finish().await;
}

const KEEPS: &str = "
workflow: keeps
steps:
  go: { wait: { signal: go } }
  echo: { needs: [go], call: 'POST ${services.works}/echoes', body: '${request.body}' }
respond: { status: 200, body: '${steps.echo.output}' }
";

const PASSES: &str = "
workflow: passes
steps:
  pass: { call: 'POST ${services.works}/raws', raw: '${request.raw}' }
respond: { status: 200, body: '${steps.pass.status}' }
";

const CALLS: &str = "
workflow: calls
steps:
  call: { call: 'POST ${services.works}/calls' }
respond: { status: 200, body: '${steps.call.output}' }
";

const KEEPING_ROUTES: &str = "
routes:
- { id: keeps, match: { method: POST, path: /keeps }, legacy: plain, workflow: keeps, state: dark, deadline: 100ms }
- { id: passes, match: { method: POST, path: /passes }, legacy: plain, workflow: passes, state: dark }
";

/// A body with a key that the JSON parser reserves for itself would change its value at a restart, or make its run
/// unreadable.
#[tokio::test(flavor = "multi_thread")]
async fn reserved_keys_are_refused_and_every_stored_run_is_readable_after_a_restart() {
    let workflows = [KEEPS, PASSES, CALLS];
    let mut test =
        EngineTest::with_settings("", &workflows, |flags| flags.write("routes/keeps.yaml", KEEPING_ROUTES)).await;
    for route in ["keeps", "passes"] {
        test.cli(&["flip", route, "live", "--force", "--reason", "bodies are looked at"]).await;
    }
    let (json_type, form_type) = ("application/json", "application/x-www-form-urlencoded");
    let bodies = [
        (form_type, "%24serde_json%3A%3Aprivate%3A%3ANumber=abc"),
        (form_type, "%24serde_json%3A%3Aprivate%3A%3ANumber=5"),
        (form_type, "%24serde_json%3A%3Aprivate%3A%3ARawValue=zzz"),
        (json_type, r#"{"n":{"$serde_json::private::Number":"5"}}"#),
        (json_type, r#"{"n":{"\u0024serde_json::private::RawValue":"[1,1]"}}"#),
    ];
    for (content_type, body) in bodies {
        let send = async |path: &str| {
            let request = http::Request::post(format!("{}{path}", test.pointsman.url()));
            let request = request.header("content-type", content_type);
            let request = request.body(http_body_util::Full::new(body.into())).expect("a request");
            test.client.send(request).await.expect("an answer")
        };
        let refused = send("/keeps").await;
        let problem = refused.json();
        assert_eq!(refused.status, 422, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("reserved"), "{body}: {problem}");
        // A workflow that does not read the body passes on its bytes.
        let passed = send("/passes").await;
        assert_eq!(passed.status, 200, "{body}: {}\n{}", passed.json(), test.pointsman.log());
        assert_eq!(test.step_service.seen("POST /raws").last().map(|seen| seen.text.clone()), Some(body.to_owned()));
    }
    assert_eq!(test.step_service.count("POST /keeps"), 0, "legacy does not get them either");
    // The API refuses reserved keys too.
    let with_reserved_key = json!({ "$serde_json::private::Number": "abc" });
    let (status, problem) = test.post(super::RUN, json!({ "workflow": "keeps", "input": with_reserved_key })).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("reserved"), "{status} {problem}");
    let waiting_run = test.start_run("keeps", json!({ "n": 5 })).await;
    let (status, problem) =
        test.post(&format!("{waiting_run}/signals/go"), json!({ "payload": with_reserved_key })).await;
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("reserved"), "{status} {problem}");
    // A service's reply with a reserved key counts as unreadable: the run pauses for a person's decision.
    let reply = bytes::Bytes::from_static(br#"{"$serde_json::private::Number":"abc"}"#);
    test.step_service.script("POST /calls", ScriptedReply::Bytes(json_type, reply), 1);
    let data = test.run("calls", json!({})).await;
    let conflict = &data["conflicts"][0];
    assert_eq!((&data["status"], &conflict["kind"]), (&json!("paused"), &json!("schema")), "{data}");
    assert!(conflict["message"].as_str().unwrap().contains("reserved"), "{conflict}");

    test.kill_and_restart().await;
    let runs = test.pointsman.get(&format!("{}s", super::RUN)).await;
    let runs = runs["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), bodies.len() + 2, "the runs that passed bytes on, and two that the API started: {runs:?}");
    for run in runs {
        let data = test.data(&super::path(run)).await;
        assert!(data["trouble"].is_null() && data["status"] == run["status"], "{data}");
    }
    test.post_accepted(&format!("{waiting_run}/signals/go"), json!({})).await;
    test.wait_for_status(&waiting_run, "completed").await;
    assert_eq!(test.step_service.seen("POST /echoes")[0].json(), json!({ "n": 5 }));
    let take = json!({ "step": "call", "choice": "take", "output": 1 });
    let paused = super::path(&data);
    test.post_accepted(&format!("{paused}/resolve"), take).await;
    test.wait_for_status(&paused, "completed").await;
    assert!(!test.cli(&["status"]).await.contains("stuck"));
    test.finish().await;
}
