//! What a run knows of the runs below it: where anything was done there, or may have been, legacy gets no request, and
//! the caller is told so.

use http::Method;
use serde_json::{Value, json};

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const DEPTHS: [&str; 3] = ["own", "child", "grandchild"];
const EFFECTS: [&str; 3] = ["read", "private", "shared"];

/// The workflows of one effect class of the first step: the steps themselves, a run above them, and one above that.
fn workflows(effect: &str) -> [String; 3] {
    let call = |name: &str| {
        format!("call: 'POST ${{services.bank}}/{name}', body: '${{request.body}}', retry: {{ attempts: 1 }}")
    };
    let respond = "respond: { status: 200, body: { by: engine } }";
    let above = |depth: &str, below: &str| {
        format!(
            "workflow: {depth}-{effect}\nsteps:\n  run: {{ run: {below}-{effect}, input: '${{request.body}}' }}\n{respond}\n"
        )
    };
    let own = format!(
        "workflow: own-{effect}\nsteps:\n  first: {{ effect: {effect}, {} }}\n  second: {{ needs: [first], {} }}\n{respond}\n",
        call("first"),
        call("second")
    );
    [own, above("child", "own"), above("grandchild", "child")]
}

fn routes() -> String {
    let mut text = "routes:\n".to_owned();
    for state in ["live", "only"] {
        for name in DEPTHS.iter().flat_map(|depth| EFFECTS.map(|effect| format!("{depth}-{effect}"))) {
            text.push_str(&format!(
                "- {{ id: {state}.{name}, match: {{ method: POST, path: /{state}-{name} }}, legacy: plain, workflow: {name}, \
                 state: {state}, force: {{ reason: no pairs here }} }}\n"
            ));
        }
    }
    text
}

/// How the two steps are answered, and whether each may have been done.
fn answers() -> Vec<(Vec<ScriptedReply>, Vec<bool>)> {
    let done = || ScriptedReply::Done(200, json!({}));
    let refuse = ScriptedReply::Refuse;
    vec![
        (vec![refuse(400)], vec![true]),
        (vec![refuse(429)], vec![false]),
        (vec![done(), refuse(400)], vec![true, true]),
        (vec![done(), refuse(402)], vec![true, true]),
        (vec![done(), refuse(429)], vec![true, false]),
        (vec![done(), refuse(500)], vec![true, true]),
        (vec![done(), ScriptedReply::LoseReply], vec![true, true]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_is_called_only_where_no_run_of_the_tree_began_anything() {
    let all: Vec<String> = EFFECTS.iter().flat_map(|effect| workflows(effect)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let bank = "  bank: { urls: [\"WORKS\"], breaker: off }";
    let test = EngineTest::with_settings(bank, &all, |flags| flags.write("routes/tree.yaml", &routes())).await;
    for (effect, depth) in EFFECTS.iter().flat_map(|effect| DEPTHS.map(|depth| (*effect, depth))) {
        for (replies, may_be_done) in answers() {
            let name = format!("{depth}-{effect}");
            let of_first = may_be_done[0];
            let of_second = may_be_done.get(1).copied().unwrap_or(false);
            let shared = of_second || (effect == "shared" && of_first);
            let any = shared || (effect == "private" && of_first);
            for state in ["live", "only"] {
                for (endpoint, reply) in ["POST /first", "POST /second"].iter().zip(&replies) {
                    test.step_service.script(endpoint, reply.clone(), 1);
                }
                let legacy = format!("POST /{state}-{name}");
                let before = test.step_service.count(&legacy);
                let url = format!("{}/{state}-{name}", test.pointsman.url());
                let reply = test.client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
                let asked = test.step_service.count(&legacy) - before;
                let (status, body) = (reply.status.as_u16(), reply.json());
                let case = format!("{state} {name} {replies:?}: {status} {body}");
                let falls_back = state == "live" && !any;
                assert_eq!((asked, status == 200), (usize::from(falls_back), falls_back), "{case}");
                if !falls_back {
                    assert_truthful(&body, any, shared, &case);
                }
            }
        }
    }
    test.finish().await;
}

fn assert_truthful(problem: &Value, any: bool, shared: bool, case: &str) {
    assert_eq!(problem["shared_step_begun"], json!(shared), "{case}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(detail.contains("Nothing but reads was done"), !any, "{case}");
    assert_eq!(detail.contains("No shared step was done"), any && !shared, "{case}");
}
