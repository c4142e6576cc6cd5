//! The engine took a first try. Then an edit of the files gives the route's requests to another route or to none, or
//! its workflow only reads: a retry still gets the answer of its first try, and legacy performs nothing.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const PAY: &str = "
workflow: pay
steps:
  charge: { call: 'POST ${services.works}/charges', body: '${request.body}', rehearse: { id: 1 } }
respond: { status: 201, body: { id: '${run.id}' } }
";

const READ: &str = "
workflow: read
steps:
  look: { call: 'GET ${services.works}/looks' }
respond: { status: 200, body: '${steps.look.output}' }
";

fn route(id: &str, path: &str, more: &str) -> String {
    format!("- {{ id: {id}, match: {{ method: POST, path: '{path}' }}, legacy: plain, {more} }}\n")
}

fn live_route(name: &str, more: &str) -> String {
    let more = format!("workflow: pay, state: live, force: {{ reason: a test }}{more}");
    route(name, &format!("/{name}/{{kind}}"), &more)
}

async fn test(workflows: &[&str], routes: &[String]) -> EngineTest {
    let text = format!("routes:\n{}", routes.concat());
    EngineTest::with_settings("", workflows, |flags| flags.write("routes/all.yaml", &text)).await
}

impl EngineTest {
    async fn reroute(&self, routes: &[String]) {
        self.reload(|| self.flags.write("routes/all.yaml", &format!("routes:\n{}", routes.concat()))).await;
    }
    async fn send_keyed(&self, path: &str, key: &str) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.pointsman.url());
        let headers = [("idempotency-key", key), ("authorization", "a")];
        let reply = self.client.json(Method::POST, &url, &headers, &json!({ "amount": 1 })).await.expect("an answer");
        (reply.status, reply.json())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_found_after_files_took_its_requests_from_the_route() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let by_kind = ", retry_key: '${request.params.kind}'";
    let more = |name: &str| if name == "f" { by_kind } else { "" };
    let all: Vec<String> = NAMES.iter().map(|name| live_route(name, more(name))).collect();
    let mut test = test(&[PAY], &all).await;
    let mut firsts = Vec::new();
    for name in NAMES {
        let (status, first) = test.send_keyed(&format!("/{name}/tea"), "k").await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {first}");
        firsts.push((name, first));
    }
    let check_found = async |test: &EngineTest, when: &str| {
        for (name, first) in &firsts {
            let again = test.send_keyed(&format!("/{name}/tea"), "k").await;
            assert_eq!(again, (StatusCode::CREATED, first.clone()), "{when}: {name}");
        }
        assert_eq!(test.step_service.count("POST /charges"), NAMES.len(), "{when}: each once");
        for name in NAMES {
            assert_eq!(test.step_service.count(&format!("POST /{name}")), 0, "{when}: legacy is not called for {name}");
        }
    };
    check_found(&test, "at once").await;

    let moved = [
        route("a", "/a/{kind}", "state: off"),
        // `b` and `f` are removed.
        live_route("c", ""),
        route("c.tea", "/c/tea", "state: off"),
        live_route("d", ""),
        route("d.tea", "/d/tea", "workflow: pay, state: off"),
        route("e", "/elsewhere/{kind}", "workflow: pay, state: live"),
    ];
    test.reroute(&moved).await;
    check_found(&test, "after a reload").await;
    test.kill_and_restart().await;
    check_found(&test, "after a restart").await;

    // The requests of the removed routes `b` and `f` get a route again, under another id.
    let again =
        [&moved[..], &[route("g", "/b/{kind}", "workflow: pay, state: off"), route("h", "/f/{any}", "state: off")]];
    test.reroute(&again.concat()).await;
    check_found(&test, "under another route").await;
    test.kill().await;
    test.flags.write("routes/all.yaml", &format!("routes:\n{}", route("z", "/z", "state: off")));
    test.restart().await;
    check_found(&test, "without any of the routes").await;

    for (n, name) in NAMES.iter().enumerate() {
        let (status, new) = test.send_keyed(&format!("/{name}/coffee"), &format!("new-{n}")).await;
        assert_eq!((status, test.step_service.count(&format!("POST /{name}"))), (StatusCode::OK, 1), "{new}");
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_found_after_the_workflow_only_reads_and_no_run_is_kept() {
    let reads = |state: &str| route("a", "/a/{kind}", &format!("workflow: read, state: {state}, keep: none"));
    let mut test = test(&[PAY, READ], &[live_route("a", "")]).await;
    test.step_service.set_default("GET /looks", ScriptedReply::Done(200, json!({ "n": 1 })));
    let (status, first) = test.send_keyed("/a/tea", "k").await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    // In `live` a changed workflow is a candidate, and runs of the plan in force have to be kept.
    let forced = "workflow: read, state: live, force: { reason: a test }";
    test.reroute(&[route("a", "/a/{kind}", forced)]).await;
    test.pointsman.put_candidate_in_force("a").await;
    for state in ["live", "off"] {
        test.reroute(&[reads(state)]).await;
        for when in ["after a reload", "after a restart"] {
            assert_eq!(test.send_keyed("/a/tea", "k").await, (StatusCode::CREATED, first.clone()), "{state}, {when}");
            test.kill_and_restart().await;
        }
    }
    assert_eq!((test.step_service.count("POST /charges"), test.step_service.count("POST /a")), (1, 0), "once");
    // A new request goes to legacy: the route is `off`.
    let (status, by_legacy) = test.send_keyed("/a/tea", "other").await;
    assert_eq!((status, test.step_service.count("POST /a")), (StatusCode::OK, 1), "{by_legacy}");
    test.finish().await;
}
