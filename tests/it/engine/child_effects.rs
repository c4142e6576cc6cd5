//! A run knows the effects of its child runs: where a child did anything, or may have, the request does not fall back
//! to legacy, and the caller is told so.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, id, path};
use crate::support::step_service::ScriptedReply;

const DEPTHS: [&str; 3] = ["own", "child", "grandchild"];
const EFFECTS: [&str; 3] = ["read", "private", "shared"];

/// Three workflows: one with two calls, the first of this effect class; one that runs it as a child; and one that runs
/// the second as a child.
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

/// For each case: the replies to the two steps, and for each step that is sent whether it may have been done.
fn answers() -> Vec<(Vec<ScriptedReply>, Vec<bool>)> {
    let done = || ScriptedReply::Done(200, json!({}));
    let refuse = ScriptedReply::Refuse;
    vec![
        (vec![refuse(400)], vec![true]),
        // A conflict: a run that the API started would pause here.
        (vec![refuse(409)], vec![true]),
        (vec![refuse(429)], vec![false]),
        (vec![done(), refuse(400)], vec![true, true]),
        (vec![done(), refuse(402)], vec![true, true]),
        (vec![done(), refuse(409)], vec![true, true]),
        (vec![done(), refuse(429)], vec![true, false]),
        (vec![done(), refuse(500)], vec![true, true]),
        (vec![done(), ScriptedReply::LoseReply], vec![true, true]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_is_called_only_where_no_run_of_the_tree_had_an_effect() {
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
                let legacy_calls = test.step_service.count(&legacy) - before;
                let (status, body) = (reply.status.as_u16(), reply.json());
                let case = format!("{state} {name} {replies:?}: {status} {body}");
                let falls_back = state == "live" && !any;
                assert_eq!((legacy_calls, status == 200), (usize::from(falls_back), falls_back), "{case}");
                if !falls_back {
                    assert_says_what_was_done(&body, any, shared, &case);
                }
            }
        }
    }
    test.finish().await;
}

fn assert_says_what_was_done(problem: &Value, any: bool, shared: bool, case: &str) {
    assert_eq!(problem["shared_step_begun"], json!(shared), "{case}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert_eq!(detail.contains("Nothing but reads was done"), !any, "{case}");
    assert_eq!(detail.contains("No shared step was done"), any && !shared, "{case}");
}

const KID: &str = "
workflow: kid
steps:
  letter: { call: 'POST ${services.plain}/letters' }
  charge:
    needs: [letter]
    call: POST ${services.plain}/charges
    retry: { attempts: 1 }
    undo: DELETE ${services.plain}/charges/1
respond: { status: 200, body: paid }
";

const PARENT: &str = "
workflow: parent
steps:
  kid: { run: kid }
  side: { call: 'POST ${services.works}/side', retry: { attempts: 1 }, on_failure: fail }
  last: { needs: [kid], call: 'POST ${services.works}/last' }
respond: { status: 200, body: done }
";

const SHORT: &str = "
workflow: short
deadline: 1s
steps:
  kid: { run: kid }
respond: { status: 200, body: done }
";

/// Waits until a run has begun a child; returns the child's path.
pub(super) async fn child_of(test: &EngineTest, run: &str) -> String {
    let started = test.wait_for_events(run, "child_started", 1).await;
    let child = started["child"].as_str().expect("an id").replace('-', "");
    run.replace(id(run), &format!("run_{child}"))
}

/// Starts a run whose child is paused, because it is unknown whether its `charge` was done.
async fn with_paused_child(test: &EngineTest, workflow: &str) -> (String, String) {
    test.step_service.script("POST /charges", ScriptedReply::Done(500, json!({})), 1);
    let run = test.start_run(workflow, json!({})).await;
    let child = child_of(test, &run).await;
    test.wait_for_explanation(&run, "a person decides").await;
    assert_outcome_unknown(&test.data(&child).await);
    (run, child)
}

fn assert_outcome_unknown(data: &Value) {
    assert_eq!(
        (&data["status"], &data["conflicts"][0]["kind"]),
        (&json!("paused"), &json!("outcome_unknown")),
        "{data}"
    );
}

fn note(data: &Value) -> &str {
    data["run"]["note"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_of_a_child_is_decided_by_a_person_when_its_parent_fails() {
    let mut test = EngineTest::with(&[KID, PARENT, SHORT]).await;
    test.step_service.set_default("POST /side", ScriptedReply::Refuse(400));
    test.step_service.hold("POST /side");
    let (run, child) = with_paused_child(&test, "parent").await;
    test.step_service.release_all("POST /side");
    test.wait_for_events(&child, "cancel_ordered", 1).await;
    assert_outcome_unknown(&test.data(&child).await);
    // The deadline of the parent passes; it applies to the child too.
    let (short, of_short) = with_paused_child(&test, "short").await;
    test.wait_for_events(&short, "deadline_passed", 1).await;
    test.wait_for_events(&of_short, "cancel_ordered", 1).await;
    assert_outcome_unknown(&test.data(&of_short).await);
    test.kill_and_restart().await;
    for (run, child) in [(&run, &child), (&short, &of_short)] {
        let explained = test.wait_for_explanation(run, "a person decides").await;
        assert!(explained.contains(id(child)), "{explained}");
        assert_outcome_unknown(&test.data(child).await);
    }
    let decide = async |child: &str, choice: &str| {
        let mut body = json!({ "step": "charge", "choice": choice, "as": "ada" });
        if choice == "take" {
            body["output"] = json!({});
        }
        test.post_accepted(&format!("{child}/resolve"), body).await;
    };
    let undo_calls = test.step_service.count("DELETE /charges");
    decide(&child, "take").await;
    let data = test.wait_for_status(&run, "failed").await;
    assert_eq!(test.step_service.count("DELETE /charges"), undo_calls + 1, "a person said that it was done");
    assert!(
        note(&data).contains(&format!("left by child runs: `kid` ({} `kid`: not undone: `letter`)", id(&child))),
        "{data}"
    );
    decide(&of_short, "skip").await;
    let data = test.wait_for_status(&short, "failed").await;
    assert_eq!(test.step_service.count("DELETE /charges"), undo_calls + 1, "what is unknown is not undone");
    assert!(note(&data).contains("not undone: `charge`, `letter`"), "{data}");
    // A person may cancel the child, too.
    let (short, of_short) = with_paused_child(&test, "short").await;
    test.wait_for_events(&of_short, "cancel_ordered", 1).await;
    test.post_accepted(&format!("{of_short}/cancel"), json!({ "as": "ada" })).await;
    test.wait_for_status(&short, "failed").await;
    test.finish().await;
}

const MENDED: &str = "
workflow: mended
steps:
  kid: { run: tidy }
  last: { needs: [kid], call: 'POST ${services.works}/last' }
respond: { status: 200, body: done }
";

const TIDY: &str = "
workflow: tidy
steps:
  letter: { call: 'POST ${services.plain}/letters', undo: 'DELETE ${services.plain}/letters/1' }
  charge: { needs: [letter], call: 'POST ${services.plain}/charges', retry: { attempts: 1 } }
respond: { status: 200, body: paid }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_repeats_what_a_child_left_only_if_it_begins_at_the_childs_step() {
    let test = EngineTest::with(&[KID, PARENT, MENDED, TIDY]).await;
    let from = async |run: &str, step: &str| test.post(&format!("{run}/rerun"), json!({ "from": step })).await;
    // It is unknown whether `charge` was done, and a person cancels the parent.
    let (unknown, _) = with_paused_child(&test, "parent").await;
    test.post_accepted(&format!("{unknown}/cancel"), json!({ "as": "ada" })).await;
    let data = test.wait_for_status(&unknown, "cancelled").await;
    assert!(note(&data).contains("not undone: `charge`, `letter`"), "{data}");
    // `charge` was refused, and `letter` has no `undo`: the letter stays.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(400), 1);
    let refused = test.start_run("parent", json!({})).await;
    test.wait_for_status(&refused, "failed").await;
    for run in [&unknown, &refused] {
        let letters = test.step_service.count("POST /letters");
        for step in ["last", "side"] {
            let (status, problem) = from(run, step).await;
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert_eq!((status, detail.contains("begin at `kid`")), (409, true), "{problem}");
            assert!(detail.contains("`letter`"), "{problem}");
        }
        assert_eq!(test.step_service.count("POST /letters"), letters);
        let (status, again) = from(run, "kid").await;
        assert_eq!(status, 202, "{again}");
        test.wait_for_status(&path(&again["data"]), "completed").await;
        assert_eq!(test.step_service.count("POST /letters"), letters + 1);
    }
    // Where everything was undone, nothing is repeated.
    test.step_service.script("POST /charges", ScriptedReply::Refuse(400), 1);
    let run = test.start_run("mended", json!({})).await;
    test.wait_for_status(&run, "failed").await;
    let (status, again) = from(&run, "last").await;
    assert_eq!(status, 202, "{again}");
    test.wait_for_status(&path(&again["data"]), "completed").await;
    test.finish().await;
}
