//! In `live`, legacy does not perform a request that a person or a rule of the workflow decided against. It does
//! perform one that the engine merely failed at.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, RUN, id};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const WORKFLOWS: [&str; 8] = [
    "workflow: waits
steps:
  go: { wait: 1h }
  charge: { needs: [go], call: 'POST ${services.works}/charges' }
respond: { status: 200, body: { by: engine } }
",
    "workflow: reads
steps:
  go: { wait: 1h }
  look: { call: 'POST ${services.works}/looks', effect: read }
respond: { status: 200, body: { by: engine } }
",
    "workflow: locks
steps:
  charge: { call: 'POST ${services.works}/charges', lock: { key: till, busy: cancel } }
respond: { status: 200, body: { by: engine } }
",
    "workflow: asks
steps:
  look: { call: 'POST ${services.works}/looks', effect: read }
  ok: { checkpoint: { question: May it? } }
  charge: { needs: [look, ok], call: 'POST ${services.works}/charges' }
respond: { status: 200, body: { by: engine } }
",
    "workflow: asks-briefly
steps:
  look: { call: 'POST ${services.works}/looks', effect: read }
  ok: { checkpoint: { question: May it?, timeout: 200ms, on_timeout: reject } }
  charge: { needs: [look, ok], call: 'POST ${services.works}/charges' }
respond: { status: 200, body: { by: engine } }
",
    "workflow: holds
steps:
  use: { call: 'POST ${services.works}/uses', lock: { key: till } }
respond: { status: 200, body: held }
",
    "workflow: fails
steps:
  look: { call: 'POST ${services.works}/tries', effect: read, retry: { attempts: 1 }, timeout: 300ms }
  sum: { needs: [look], set: '${steps.look.output.sum + 1}' }
  no: { needs: [sum], if: '${steps.sum.output == 2}', fail: { status: 503, body: declared } }
respond: [{ when: '${steps.sum.output == 3}', status: 200, body: { by: engine } }]
",
    "workflow: late
deadline: 300ms
steps:
  go: { wait: 1h }
respond: { status: 200, body: { by: engine } }
",
];

/// The workflows, and for each of them a parent workflow that runs it as its child.
fn workflows() -> Vec<String> {
    let above = WORKFLOWS.iter().map(|text| {
        let name = text.lines().next().and_then(|line| line.strip_prefix("workflow: ")).unwrap();
        format!(
            "workflow: above-{name}\nsteps:\n  below: {{ run: {name}, input: '${{request.body}}' }}\nrespond: {{ status: 200, body: above }}\n"
        )
    });
    WORKFLOWS.iter().map(|text| (*text).to_owned()).chain(above).collect()
}

fn route(name: &str, more: &str) -> String {
    format!(
        "- {{ id: {name}, match: {{ method: POST, path: /{name} }}, legacy: plain, workflow: {name}, state: live, \
         force: {{ reason: no pairs here }}{more} }}\n"
    )
}

impl EngineTest {
    async fn request(&self, path: &str, body: &Value) -> (u16, Value) {
        self.request_with(path, body, &[]).await
    }
    async fn request_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}{path}", self.pointsman.url());
        let reply = self.client.json(Method::POST, &url, headers, body).await.expect("an answer");
        (reply.status.as_u16(), reply.json())
    }
    /// The path of the only open run of a workflow.
    async fn open_run(&self, workflow: &str) -> String {
        until("the run", || async {
            let list = self.pointsman.get(&format!("/api/v2/orchestrate/runs?workflow={workflow}&status=open")).await;
            let runs = list["runs"].as_array().cloned().unwrap_or_default();
            assert!(runs.len() < 2, "{list}");
            runs.first().map(|run| format!("{RUN}/{}", run["run_id"].as_str().unwrap()))
        })
        .await
    }
    async fn reject(&self, run: &str) {
        self.wait_for_events(run, "checkpoint_opened", 1).await;
        let opened = &self.data(run).await["pending_checkpoint"];
        let answer_path = opened["answer"].as_str().unwrap_or_else(|| panic!("{opened}"));
        self.post_accepted(answer_path, json!({ "approve": false, "as": "ada" })).await;
    }
    /// The engine's errors in the evidence of a route, and its fallbacks in the metrics.
    async fn counted(&self, route: &str) -> (u64, f64) {
        let detail = self.pointsman.get(&format!("/api/v2/routes/{route}")).await;
        let errors = detail["evidence"]["engine_errors"].as_u64().unwrap_or_else(|| panic!("{detail}"));
        (errors, self.pointsman.metrics().await.sum("pointsman_fallbacks_total", &[("route", route)]))
    }
}

/// What happens to the run of a request.
#[derive(Clone, Copy, Debug)]
enum Decision {
    Cancel,
    CancelWithoutUndo,
    /// A cancel while a read is in flight; the caller's deadline passes before the read ends.
    CancelLate,
    LockHeld,
    Reject,
    NobodyAnswers,
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_does_not_perform_what_was_decided_against() {
    use Decision::{Cancel, CancelLate, CancelWithoutUndo, LockHeld, NobodyAnswers, Reject};
    let texts = workflows();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let names = ["waits", "locks", "asks", "asks-briefly"]
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("above-{name}")]);
    let mut routes: String = names.map(|name| route(&name, "")).collect();
    routes.push_str(&route("reads", ", deadline: 1s"));
    let test =
        EngineTest::with_settings("", &texts, |flags| flags.write("routes/all.yaml", &format!("routes:\n{routes}")))
            .await;
    test.step_service.hold("POST /uses");
    test.step_service.hold("POST /looks");
    let holder = test.start_run("holds", json!({})).await;
    test.wait_for_calls("POST /uses", 1).await;
    let by_lock = format!("is held by {}", id(&holder));
    let cases = [
        (Cancel, "waits", (409, "cancelled"), "ada (unverified) cancelled it: not this one"),
        (CancelWithoutUndo, "waits", (409, "cancelled"), "ada (unverified) cancelled it: not this one"),
        (Cancel, "above-waits", (409, "child-failed"), "ada (unverified) cancelled it: not this one"),
        (CancelLate, "reads", (503, "run-goes-on"), ""),
        (LockHeld, "locks", (409, "cancelled"), &by_lock),
        (LockHeld, "above-locks", (409, "child-failed"), &by_lock),
        (Reject, "asks", (403, "rejected"), "ada (unverified) said no"),
        (Reject, "above-asks", (409, "child-failed"), "ada (unverified) said no"),
        (NobodyAnswers, "asks-briefly", (403, "rejected"), "nobody answered in time"),
        (NobodyAnswers, "above-asks-briefly", (409, "child-failed"), "nobody answered in time"),
    ];
    for (decision, name, (status, kind), detail_part) in cases {
        let case = format!("{decision:?} {name}");
        let below = name.trim_start_matches("above-");
        let act = async {
            match decision {
                Cancel | CancelWithoutUndo => {
                    let body =
                        json!({ "compensate": matches!(decision, Cancel), "reason": "not this one", "as": "ada" });
                    let run = test.open_run(below).await;
                    test.post_accepted(&format!("{run}/cancel"), body).await;
                }
                CancelLate => {
                    let run = test.open_run(below).await;
                    test.wait_for_calls("POST /looks", 1).await;
                    test.post_accepted(&format!("{run}/cancel"), json!({})).await;
                }
                LockHeld => {}
                Reject => {
                    let run = test.open_run(below).await;
                    test.reject(&run).await;
                    test.step_service.release("POST /looks", 1);
                }
                NobodyAnswers => {
                    let run = test.open_run(below).await;
                    test.wait_for_events(&run, "checkpoint_answered", 1).await;
                    test.step_service.release("POST /looks", 1);
                }
            }
        };
        let (path, body) = (format!("/{name}"), json!({}));
        let key = [("idempotency-key", case.as_str())];
        let ((got, problem), ()) = tokio::join!(test.request_with(&path, &body, &key), act);
        let calls = test.step_service.count(&format!("POST /{name}"));
        // If a child's question is stored before its `look` has begun, the child waits for a person, and the caller is
        // answered at once with `run-paused`.
        if name != below && problem["type"].as_str().unwrap().ends_with("run-paused") {
            assert!(matches!(decision, Reject | NobodyAnswers) && calls == 0, "{case}: {problem}");
            continue;
        }
        assert_eq!((got, calls), (status, 0), "{case}: {problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(problem["type"].as_str().unwrap().ends_with(kind) && detail.contains(detail_part), "{case}: {problem}");
        assert_eq!(problem["shared_step_begun"], false, "{case}: {problem}");
        if kind != "run-goes-on" {
            assert!(detail.contains("Nothing but reads was done"), "{case}: {problem}");
            assert!(detail.contains("with the same retry key does nothing and gets this answer"), "{case}: {problem}");
            let again = test.request_with(&path, &body, &key).await;
            assert_eq!((again, test.step_service.count(&format!("POST /{name}"))), ((status, problem), 0), "{case}");
        }
        if matches!(decision, CancelLate) {
            test.step_service.release("POST /looks", 1);
            until("the run to end", || async {
                let list = test.pointsman.get("/api/v2/orchestrate/runs?workflow=reads&status=cancelled").await;
                (list["runs"].as_array()?.len() == 1).then_some(())
            })
            .await;
        }
    }
    assert_eq!(test.step_service.effects("POST /charges"), 0);
    // Neither errors of the engine nor fallbacks: the evidence of the routes is as if the requests had not come.
    for name in ["waits", "above-waits", "locks", "above-locks", "asks", "asks-briefly"] {
        assert_eq!(test.counted(name).await, (0, 0.0), "{name}");
    }
    test.step_service.release_all("POST /uses");
    test.wait_for_status(&holder, "completed").await;
    test.finish().await;
}

/// The caller and its retries read that a shared step was done, who cancelled the run, and what sending the request
/// again would do.
#[tokio::test(flavor = "multi_thread")]
async fn the_caller_of_a_cancelled_run_learns_what_was_done() {
    let workflow = "workflow: pays
steps:
  charge: { call: 'POST ${services.works}/charges' }
  go: { needs: [charge], wait: 1h }
respond: { status: 200, body: { by: engine } }
";
    let routes = format!("routes:\n{}", route("pays", ""));
    let test = EngineTest::with_settings("", &[workflow], |flags| flags.write("routes/all.yaml", &routes)).await;
    let (body, key) = (json!({}), [("idempotency-key", "pay-1")]);
    let cancel = async {
        let run = test.open_run("pays").await;
        test.wait_for_events(&run, "step_finished", 1).await;
        test.post_accepted(&format!("{run}/cancel"), json!({ "reason": "not this one", "as": "ada" })).await;
        run
    };
    let ((status, problem), run) = tokio::join!(test.request_with("/pays", &body, &key), cancel);
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    for says in [
        "ada (unverified) cancelled it: not this one",
        "A shared step was done or may have been",
        "with the same retry key does nothing and gets this answer",
        "without one, or with another, it is a new request, which could do work twice",
    ] {
        assert!(detail.contains(says), "{says}: {problem}");
    }
    assert_eq!((&problem["shared_step_begun"], &problem["run_id"]), (&json!(true), &json!(id(&run))), "{problem}");
    assert_eq!(test.request_with("/pays", &body, &key).await, (409, problem), "a retry gets the same answer");
    assert_eq!((test.step_service.effects("POST /charges"), test.step_service.count("POST /pays")), (1, 0));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_performs_requests_whose_runs_failed_without_a_decision() {
    let texts = workflows();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let names = ["fails", "above-fails", "late", "above-late"];
    let mut routes: String = names.iter().map(|name| route(name, "")).collect();
    routes.push_str(&route("waits", ", deadline: 500ms"));
    let test =
        EngineTest::with_settings("", &texts, |flags| flags.write("routes/all.yaml", &format!("routes:\n{routes}")))
            .await;
    let sum = |sum: Value| ScriptedReply::Done(200, json!({ "sum": sum }));
    let late = || ScriptedReply::Late(std::time::Duration::from_millis(600));
    let failures = [
        ("refused", ScriptedReply::Refuse(404)),
        ("unavailable", ScriptedReply::Refuse(429)),
        ("broken", ScriptedReply::Refuse(500)),
        ("cut off", ScriptedReply::Close),
    ];
    let mut expected = std::collections::BTreeMap::new();
    let mut falls_back = async |what: &str, name: &str| {
        let (status, body) = test.request(&format!("/{name}"), &json!({})).await;
        let count = expected.entry(name.to_owned()).or_insert(0_usize);
        *count += 1;
        let calls = test.step_service.count(&format!("POST /{name}"));
        assert_eq!((status, calls), (200, *count), "{what} {name}: {body}");
    };
    for name in ["fails", "above-fails"] {
        for (what, reply) in failures.clone() {
            test.step_service.script("POST /tries", reply, 1);
            falls_back(what, name).await;
        }
        test.step_service.script("POST /tries", late(), 1);
        falls_back("timed out", name).await;
    }
    // With these failures only the workflow without a parent is tried.
    for (what, reply) in [("expression", sum(json!("x"))), ("no answer", sum(json!(5)))] {
        test.step_service.script("POST /tries", reply, 1);
        falls_back(what, "fails").await;
    }
    falls_back("the run's deadline", "late").await;
    falls_back("the run's deadline", "above-late").await;
    falls_back("the caller's deadline", "waits").await;
    let (errors, fallbacks) = test.counted("fails").await;
    assert_eq!((errors, fallbacks), (7, 7.0));
    // A declared answer is an answer, whatever its status.
    test.step_service.script("POST /tries", sum(json!(1)), 1);
    let (status, body) = test.request("/fails", &json!({})).await;
    assert_eq!((status, body), (503, json!("declared")));
    test.finish().await;
}
