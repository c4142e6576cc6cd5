//! `keep: none`: engine-answered reads leave no run behind, and get the same answers as with kept runs.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::EngineTest;
use crate::support::step_service::ScriptedReply;
use crate::support::strace::Strace;
use crate::support::until;

const LOOK_UP: &str = "
workflow: look-up
steps:
  look: { call: 'GET ${services.works}/looks/${request.params.id}', retry: { attempts: 1 } }
  more: { for_each: '${[1, 2]}', call: 'GET ${services.works}/more/${item}' }
respond:
  - { when: '${steps.look.output.n == 404}', status: 404, body: { error: none } }
  - { status: 200, body: '${steps.look.output}' }
";

fn routes(state: &str) -> String {
    format!(
        "
routes:
- id: things.get
  match: {{ method: GET, path: '/things/{{id}}' }}
  legacy: plain
  workflow: look-up
  state: {state}
  force: {{ reason: a test }}
  keep: none
  deadline: 1s
"
    )
}

async fn test(state: &str) -> EngineTest {
    let mut test =
        EngineTest::with_settings("", &[LOOK_UP], |flags| flags.write("routes/all.yaml", &routes(state))).await;
    test.allowed.keep_none_routes.push("things.get");
    test.step_service.set_default("GET /looks", ScriptedReply::Done(200, json!({ "n": 1 })));
    test.step_service.set_default("GET /things", ScriptedReply::Done(200, json!({ "n": 1 })));
    test
}

impl EngineTest {
    async fn get_thing(&self) -> (StatusCode, Value) {
        let url = format!("{}/things/7", self.pointsman.url());
        // The key is always the same: a retry of a read is performed again.
        let reply = self.client.json(Method::GET, &url, &[("idempotency-key", "k")], &Value::Null).await;
        let reply = reply.expect("an answer");
        (reply.status, reply.json())
    }
    async fn check_no_runs(&self) {
        let list: Value = serde_json::from_str(&self.cli(&["runs", "list", "--json"]).await).expect("JSON");
        let runs = list["runs"].as_array().unwrap_or_else(|| panic!("{list}"));
        assert!(runs.is_empty(), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_answers_store_no_run() {
    let mut test = test("only").await;
    for _ in 0..100 {
        assert_eq!(test.get_thing().await, (StatusCode::OK, json!({ "n": 1 })), "{}", test.pointsman.log());
    }
    test.step_service.script("GET /looks", ScriptedReply::Done(200, json!({ "n": 404 })), 1);
    assert_eq!(test.get_thing().await, (StatusCode::NOT_FOUND, json!({ "error": "none" })));
    assert_eq!((test.step_service.count("GET /looks"), test.step_service.count("GET /more")), (101, 202));
    assert_eq!(test.step_service.count("GET /things"), 0, "legacy is not asked");
    test.check_no_runs().await;
    let metrics = test.pointsman.metrics().await;
    let counted = [("workflow", "look-up"), ("mode", "real"), ("outcome", "completed")];
    assert_eq!(metrics.sum("pointsman_runs_total", &counted), 101.0, "they are counted all the same");
    assert_eq!(metrics.sum("pointsman_runs_active", &[]), 0.0);

    // A failing service leads to a clear error, a slow one to an error at the deadline.
    test.step_service.script("GET /looks", ScriptedReply::Refuse(400), 1);
    let (status, problem) = test.get_thing().await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{problem}");
    assert!(!problem.to_string().contains("run_"), "no run is kept, so none is named: {problem}");
    test.step_service.hold("GET /looks");
    let (status, problem) = test.get_thing().await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{problem}");
    assert!(problem.to_string().contains("nothing of the run is kept"), "{problem}");
    assert!(!problem.to_string().contains("run_"), "{problem}");
    test.step_service.release_all("GET /looks");

    // No run is stored after a kill either. Runs that the API starts have no route and are kept.
    test.kill_and_restart().await;
    assert_eq!(test.get_thing().await.0, StatusCode::OK);
    test.check_no_runs().await;
    let data = test.run("look-up", Value::Null).await;
    assert!(data["run_id"].is_string(), "{data}");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_not_kept_falls_back_and_its_dark_run_is_not_kept_either() {
    let live = test("live").await;
    live.step_service.script("GET /looks", ScriptedReply::Refuse(400), 1);
    live.step_service.script("GET /things", ScriptedReply::Done(200, json!({ "n": "legacy's" })), 1);
    assert_eq!(live.get_thing().await, (StatusCode::OK, json!({ "n": "legacy's" })), "the request falls back");
    live.step_service.hold("GET /looks");
    live.step_service.script("GET /things", ScriptedReply::Done(200, json!({ "n": "legacy's too" })), 1);
    assert_eq!(live.get_thing().await.1, json!({ "n": "legacy's too" }), "a read that takes too long falls back too");
    live.step_service.release_all("GET /looks");
    assert_eq!(live.get_thing().await.1, json!({ "n": 1 }));
    live.check_no_runs().await;
    let flags = live.flags.path().display().to_string();
    // `keep: none` is refused for workflows that do more than read, since their runs must be found again.
    for (from, to, why) in [
        ("GET ${services.works}/looks", "POST ${services.works}/looks", "the shared step `look`"),
        ("  more: {", "  pause: { wait: 1s }\n  more: {", "the wait `pause`"),
    ] {
        live.flags.edit("workflows/look-up.yaml", |text| text.replace(from, to));
        let (code, output) = live.cli_output(&["check", &flags]).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains("`keep: none` is for workflows that only read") && output.contains(why), "{output}");
        live.flags.edit("workflows/look-up.yaml", |text| text.replace(to, from));
    }
    live.flags.edit("routes/all.yaml", |text| format!("{text}  instance: {{ creates: $.id }}\n"));
    let (code, output) = live.cli_output(&["check", &flags]).await;
    assert!(code == Some(1) && output.contains("`keep: none` and `instance.creates` exclude each other"), "{output}");
    live.finish().await;

    let dark = test("dark").await;
    for _ in 0..20 {
        assert_eq!(dark.get_thing().await, (StatusCode::OK, json!({ "n": 1 })));
    }
    let all = [("route", "things.get"), ("outcome", "matched")];
    dark.pointsman.until_metric("twenty pairs", |m| m.sum("pointsman_comparisons_total", &all) == 20.0).await;
    assert_eq!(dark.step_service.count("GET /looks"), 20, "reads are sent in dark");
    dark.check_no_runs().await;
    let evidence = dark.pointsman.get("/api/v2/routes/things.get/evidence").await["evidence"].clone();
    assert_eq!((&evidence["dark_pairs"], &evidence["dark_without_twin"]), (&json!(20), &json!(0)), "{evidence}");
    dark.finish().await;
}

/// The files before the reload say `keep: none`: the dark run of a request that they decided is not stored, so it must
/// not perform the private step of the new files.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_at_a_reload_has_its_dark_run_by_the_earlier_files() {
    let mut test = test("dark").await;
    test.step_service.hold("GET /things");
    let request = test.get_thing();
    let reload = async {
        test.wait_for_calls("GET /things", 1).await;
        let private = "  note: { call: 'POST ${services.works}/notes', effect: private }\nrespond:";
        test.reload(|| {
            test.flags.edit("workflows/look-up.yaml", |text| text.replace("respond:", private));
            test.flags.edit("routes/all.yaml", |text| text.replace("  keep: none\n", ""));
        })
        .await;
        test.step_service.release_all("GET /things");
    };
    let (answer, ()) = tokio::join!(request, reload);
    assert_eq!(answer, (StatusCode::OK, json!({ "n": 1 })));
    let route = [("route", "things.get")];
    test.pointsman.until_metric("the comparison", |m| m.sum("pointsman_comparisons_total", &route) == 1.0).await;
    assert_eq!((test.step_service.count("GET /looks"), test.step_service.count("POST /notes")), (1, 0));
    test.check_no_runs().await;
    let evidence = test.pointsman.get("/api/v2/routes/things.get/evidence").await["evidence"].clone();
    assert_eq!(evidence["dark_pairs"], json!(0), "the pair is no evidence for the new workflow: {evidence}");

    // The next request has the new step, and its run is stored.
    test.allowed.keep_none_routes.clear();
    let url = format!("{}/things/7", test.pointsman.url());
    let reply = test.client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
    assert_eq!(reply.status, StatusCode::OK);
    test.pointsman.until_metric("the comparison", |m| m.sum("pointsman_comparisons_total", &route) == 2.0).await;
    assert_eq!(test.step_service.count("POST /notes"), 1);
    test.finish().await;
}

/// Keys that legacy took are noted also while a route keeps no runs, because the workflow may do more by the time of
/// the retry.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_legacy_took_is_remembered_when_runs_are_kept_later() {
    let test = test("off").await;
    assert_eq!(test.get_thing().await.0, StatusCode::OK);
    test.flags.edit("routes/all.yaml", |text| text.replace("  keep: none\n", "").replace("state: off", "state: live"));
    until("the route to be live", || async {
        let row = test.pointsman.get("/api/v2/routes/things.get").await["row"].clone();
        (row["effective"]["state"] == "live").then_some(())
    })
    .await;
    assert_eq!(test.get_thing().await, (StatusCode::OK, json!({ "n": 1 })));
    assert_eq!(test.step_service.count("GET /things"), 2, "the retry is answered by legacy");
    assert_eq!(test.step_service.count("GET /looks"), 0, "and not by the engine");
    test.check_no_runs().await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_not_kept_do_not_wait_for_a_hanging_store() {
    let mut test = test("only").await;
    assert_eq!(test.get_thing().await.0, StatusCode::OK);
    let store = test.dir.path().join("pointsman.db");
    let wal = store.with_extension("db-wal");
    let calls = "pread64,pwrite64,fsync,fdatasync";
    let hangs = Strace::inject_on(test.pointsman.pid(), calls, "delay_enter=20000000", &[store.clone(), wal]).await;
    let sent_at = Instant::now();
    for _ in 0..10 {
        assert_eq!(test.get_thing().await, (StatusCode::OK, json!({ "n": 1 })));
    }
    assert!(sent_at.elapsed() < Duration::from_secs(15), "{:?}", sent_at.elapsed());
    test.kill().await;
    hangs.end().await;
    test.restart().await;
    test.finish().await;
}
