//! A service gets another URL while an attempt's outcome is unknown: nothing that may have been
//! done at the old address is sent to the new one, whether its call reads a secret or not.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EngineTest, id, step};
use crate::support::step_service::{ScriptedReply, StepService};
use crate::support::until_true;

const SECRETS: &str = "secrets: { key: { file: key.secret } }\n";

/// One call to a service that honours keys: without a secret, with one in a header, with one in the URL.
fn workflows() -> Vec<String> {
    let calls = [
        ("bare", "call: 'POST ${services.works}/charges'"),
        ("header", "call: 'POST ${services.works}/charges', headers: { authorization: 'Bearer ${secrets.key}' }"),
        ("url", "call: 'POST ${services.works}/charges?key=${secrets.key}'"),
    ];
    let workflow = |(name, call)| {
        format!(
            "
workflow: {name}
steps: {{ charge: {{ {call}, body: {{ by: {name} }}, retry: {{ attempts: 3, base: 1ms, max: 2ms }} }} }}
respond: {{ status: 200, body: '${{steps.charge.output}}' }}
"
        )
    };
    calls.map(workflow).to_vec()
}

/// A workflow whose service honours no keys: a probe finds out whether the charge was done.
const PROBED: &str = "
workflow: probed
steps:
  charge:
    call: POST ${services.plain}/charges
    body: { by: probed }
    probe: { call: 'GET ${services.plain}/found/${key}', after: 1ms, done: '${output.found}', output: '${output}' }
respond: { status: 200, body: '${steps.charge.output}' }
";

impl EngineTest {
    async fn of_moving_services() -> Self {
        let workflows = workflows();
        let texts: Vec<&str> = workflows.iter().map(String::as_str).chain([PROBED]).collect();
        Self::with_settings(SECRETS, &texts, |flags| flags.write("key.secret", "k")).await
    }
    /// Changes the URL of both services in the files to that of `to`.
    fn move_services(&self, from: &StepService, to: &StepService) {
        self.flags.edit("pointsman.yaml", |text| text.replace(&from.url(), &to.url()));
    }
    /// Waits until the run asks a person about its `charge`, and checks that the question names both addresses.
    async fn wait_for_question_about(&self, run: &str, other: &StepService) -> Value {
        let data = self.wait_for_status(run, "paused").await;
        let conflict = data["conflicts"][0].clone();
        assert_eq!((&conflict["kind"], &conflict["step_id"]), (&json!("outcome_unknown"), &json!("charge")), "{data}");
        let message = conflict["message"].as_str().expect("a sentence");
        for part in [format!("{}/charges", self.step_service.url()), format!("is at {} now", other.url())] {
            assert!(message.contains(&part), "{part}: {message}");
        }
        assert!(conflict["idempotency_key"].is_string(), "with it a person can ask the service: {conflict}");
        conflict
    }
    async fn choose_retry(&self, run: &str) {
        self.post_accepted(&format!("{run}/resolve"), json!({ "step": "charge", "choice": "retry" })).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_in_flight_at_a_kill_is_not_sent_to_the_services_new_url() {
    let mut test = EngineTest::of_moving_services().await;
    let other = StepService::start().await;
    // The charge is performed, and never answered.
    test.step_service.script("POST /charges", ScriptedReply::Late(Duration::ZERO), 4);
    let mut runs = Vec::new();
    for workflow in ["bare", "header", "url", "probed"] {
        runs.push(test.start_run(workflow, json!({})).await);
    }
    until_true("four effects", || test.step_service.effects("POST /charges") == 4).await;
    test.kill().await;
    test.move_services(&test.step_service, &other);
    // The check names beforehand where the open runs will pause.
    let (flags, store) = (test.flags.path().display().to_string(), test.dir.path().join("pointsman.db"));
    let store = format!("sqlite:{}", store.display());
    let (code, output) = test.cli_output(&["check", &flags, "--against-open-runs", "--store", &store]).await;
    assert_eq!(code, Some(1), "{output}");
    for run in &runs {
        let of = output.split("\nrun_").find(|part| part.starts_with(id(run).trim_start_matches("run_")));
        let of = of.unwrap_or_else(|| panic!("{run} is not listed: {output}"));
        let from = format!("`charge`: the outcome of its call to {}/charges is not known", test.step_service.url());
        assert!(of.contains(&from) && of.contains(&format!("` at {}: with these files", other.url())), "{of}");
    }
    test.restart().await;
    for run in &runs {
        test.wait_for_question_about(run, &other).await;
    }
    let calls = ["POST /charges", "GET /found"];
    assert_eq!(calls.map(|call| other.count(call)), [0, 0], "the new address is sent nothing and asked nothing");
    assert_eq!(calls.map(|call| test.step_service.count(call)), [4, 0]);

    // A person decides to send the call to the new address: it has the same body and key.
    test.choose_retry(&runs[1]).await;
    test.wait_for_status(&runs[1], "completed").await;
    let first = test.step_service.seen("POST /charges");
    let there = other.seen("POST /charges").remove(0);
    let same = first.iter().find(|call| call.key == there.key).expect("the same key");
    assert_eq!((&there.text, there.headers["authorization"].to_str().ok()), (&same.text, Some("Bearer k")));

    // The files name the old address again; a repeat there is harmless, since the service knows the keys.
    test.reload(|| test.move_services(&other, &test.step_service)).await;
    for run in [&runs[0], &runs[2]] {
        test.choose_retry(run).await;
        let data = test.wait_for_status(run, "completed").await;
        assert_eq!(step(&data, "charge")["attempts"], json!(2), "{data}");
    }
    assert_eq!((other.count("POST /charges"), test.step_service.effects("POST /charges")), (1, 4));
    let again = &test.step_service.seen("POST /charges")[4..];
    for call in again {
        let first = first.iter().find(|first| first.key == call.key).expect("the same key");
        assert_eq!((&first.path, &first.text), (&call.path, &call.text));
    }
    test.allowed.lost_replies = 4; // the four charges that were performed and never answered
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reload_only_what_was_not_done_goes_to_the_services_new_url() {
    let test = EngineTest::of_moving_services().await;
    let other = StepService::start().await;
    // A run is paused by hand between two attempts, and the files change meanwhile.
    for reply in [ScriptedReply::Refuse(500), ScriptedReply::Refuse(429)] {
        let mut runs = Vec::new();
        for workflow in ["bare", "header", "url"] {
            test.step_service.hold("POST /charges");
            let arrived = test.step_service.count("POST /charges");
            test.step_service.script("POST /charges", reply.clone(), 1);
            let run = test.start_run(workflow, json!({})).await;
            test.wait_for_calls("POST /charges", arrived + 1).await;
            test.post_accepted(&format!("{run}/pause"), json!({})).await;
            test.step_service.release_all("POST /charges");
            test.wait_for_events(&run, "retry_scheduled", 1).await;
            runs.push(run);
        }
        test.reload(|| test.move_services(&test.step_service, &other)).await;
        let (here, there) = (test.step_service.count("POST /charges"), other.count("POST /charges"));
        for run in &runs {
            test.post_accepted(&format!("{run}/resume"), json!({})).await;
            match reply {
                ScriptedReply::Refuse(429) => drop(test.wait_for_status(run, "completed").await),
                _ => drop(test.wait_for_question_about(run, &other).await),
            }
        }
        let sent = if matches!(reply, ScriptedReply::Refuse(429)) { runs.len() } else { 0 };
        assert_eq!(
            (test.step_service.count("POST /charges"), other.count("POST /charges")),
            (here, there + sent),
            "{reply:?}"
        );
        test.reload(|| test.move_services(&other, &test.step_service)).await;
    }
    let keys = |service: &StepService| service.seen("POST /charges").into_iter().map(|call| call.key);
    let first: Vec<_> = keys(&test.step_service).skip(3).collect();
    assert_eq!(keys(&other).collect::<Vec<_>>(), first, "under the keys of the attempts that were not done");
    test.finish().await;
}
