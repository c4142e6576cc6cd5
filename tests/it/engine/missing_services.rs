//! The current files no longer have a service, secret or workflow that a waiting run needs: the run pauses and names
//! what is missing, and no run is stuck.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, RUN, id, step};
use crate::support::FlagsDir;

/// A workflow that reserves, waits for a signal, and then needs something that the files may not have any more.
fn waiting(name: &str, charge: &str) -> String {
    format!(
        "
workflow: {name}
steps:
  reserve: {{ call: 'POST ${{services.works}}/stock', undo: 'DELETE ${{services.works}}/stock/1' }}
  go: {{ needs: [reserve], wait: {{ signal: go }} }}
  charge: {{ needs: [go], {charge} }}
respond: {{ status: 200, body: paid }}
"
    )
}

const SERVICE: &str = "call: 'POST ${services.old}/charges'";
const SECRET: &str =
    "call: 'POST ${services.works}/charges', headers: { authorization: 'Bearer ${secrets.key}', x-a: b }";
const BELOW: &str = "
workflow: below
steps: { charge: { call: 'POST ${services.works}/charges' } }
respond: { status: 200, body: { paid: true } }
";

impl EngineTest {
    async fn start_and_wait_for_go(&self, workflow: &str) -> String {
        let run = self.start_run(workflow, json!({})).await;
        self.wait_for_status(&run, "waiting_signal").await;
        run
    }
    async fn signal_go(&self, run: &str) {
        self.post_accepted(&format!("{run}/signals/go"), json!({})).await;
    }
    /// The conflict "missing" of a paused run.
    async fn check_missing(&self, run: &str, what: &str) -> Value {
        let data = self.wait_for_status(run, "paused").await;
        let conflict = data["conflicts"][0].clone();
        assert_eq!((&conflict["kind"], &conflict["step_id"]), (&json!("missing"), &json!("charge")), "{data}");
        assert!(conflict["message"].as_str().unwrap().contains(what), "{conflict}");
        assert_eq!(conflict["choices"], json!(["retry", "skip", "take", "cancel"]), "{conflict}");
        assert!(self.explanation(run).await.contains(what));
        conflict
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_survives_the_renaming_of_what_it_needs() {
    const MORE: &str = "  old: WORKS\nsecrets: { key: { file: key.secret } }\n";
    let workflows = [
        waiting("by-service", SERVICE),
        waiting("by-secret", SECRET),
        waiting("by-run", "run: below"),
        BELOW.to_owned(),
    ];
    let texts: Vec<&str> = workflows.iter().map(String::as_str).collect();
    let mut test = EngineTest::with_settings(MORE, &texts, |flags| flags.write("key.secret", "k")).await;
    let mut runs = Vec::new();
    for workflow in ["by-service", "by-service", "by-service", "by-service", "by-secret", "by-run"] {
        runs.push(test.start_and_wait_for_go(workflow).await);
    }
    // The service, the secret and the child workflow get other names in one reload.
    test.reload(|| {
        test.flags.edit("workflows/by-service.yaml", |text| text.replace("services.old", "services.new"));
        test.flags.edit("workflows/by-secret.yaml", |text| text.replace("secrets.key", "secrets.other"));
        test.flags.edit("workflows/by-run.yaml", |text| text.replace("run: below", "run: under"));
        std::fs::remove_file(test.flags.file("workflows/below.yaml")).expect("it was there");
        test.flags.write("workflows/under.yaml", BELOW.replace("below", "under").trim_start());
        test.flags.edit("pointsman.yaml", |text| text.replace("  old: ", "  new: ").replace("{ key:", "{ other:"));
    })
    .await;

    // The check names beforehand what the open runs will miss.
    let flags = test.flags.path().display().to_string();
    let (code, output) = test.cli_output(&["check", &flags, "--against-open-runs"]).await;
    assert_eq!(code, Some(1), "{output}");
    for (run, what) in [(0, "the service `old`"), (4, "the secret `key`"), (5, "the workflow `below`")] {
        let of = output.split("\nrun_").find(|part| part.starts_with(id(&runs[run]).trim_start_matches("run_")));
        assert!(of.is_some_and(|of| of.contains(&format!("`charge` needs {what}"))), "{what}: {output}");
    }

    // A cancel is answered at once, and undoes the finished steps.
    test.post_accepted(&format!("{}/cancel", runs[0]), json!({})).await;
    let data = test.wait_for_status(&runs[0], "cancelled").await;
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");

    for run in &runs[1..] {
        test.signal_go(run).await;
    }
    test.check_missing(&runs[1], "the service `old`").await;
    test.check_missing(&runs[4], "the secret `key`").await;
    test.check_missing(&runs[5], "the workflow `below`").await;
    assert_eq!(test.step_service.count("POST /charges"), 0, "nothing was sent");
    // A person may skip the step; a retry while the service is still missing leads to the same conflict.
    let choose = |choice: &str| json!({ "step": "charge", "choice": choice });
    test.post_accepted(&format!("{}/resolve", runs[1]), choose("skip")).await;
    test.wait_for_status(&runs[1], "completed").await;
    test.check_missing(&runs[2], "the service `old`").await;
    test.post_accepted(&format!("{}/resolve", runs[2]), choose("retry")).await;
    test.check_missing(&runs[2], "the service `old`").await;
    test.post_accepted(&format!("{}/resolve", runs[3]), choose("cancel")).await;
    test.wait_for_status(&runs[3], "cancelled").await;

    // With corrected files each run that has all it needs continues by itself, after a reload and after a restart.
    let url = test.step_service.url();
    test.reload(|| {
        test.flags.edit("pointsman.yaml", |text| text.replace("  new: ", &format!("  old: {url}\n  new: ")))
    })
    .await;
    let data = test.wait_for_status(&runs[2], "completed").await;
    assert_eq!(step(&data, "charge")["attempts"], json!(1), "no attempt is lost: {data}");
    let resolved = test.events_of_kind(&runs[2], "resolved").await;
    assert_eq!(resolved.last().expect("a decision")["by"], "the files in force");
    test.check_missing(&runs[4], "the secret `key`").await;
    test.kill().await;
    test.flags.edit("pointsman.yaml", |text| text.replace("{ other:", "{ key: { file: key.secret }, other:"));
    test.flags.write("workflows/below.yaml", BELOW.trim_start());
    test.restart().await;
    for run in &runs[4..] {
        test.wait_for_status(run, "completed").await;
    }
    assert_eq!(test.step_service.effects("POST /charges"), 3);
    test.finish().await;
}

/// A call was in flight when the process ended, and its service is not in the files when the next process starts.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_to_be_sent_again_waits_for_its_service() {
    const SENT: &str = "
workflow: sent
steps: { charge: { call: 'POST ${services.old}/charges', retry: { attempts: 1 } } }
respond: { status: 200, body: paid }
";
    let more = "  old: { urls: [\"WORKS\"], keyed: true }\n";
    let mut test = EngineTest::with_settings(more, &[SENT], |_| {}).await;
    test.step_service.hold("POST /charges");
    let run = test.start_run("sent", json!({})).await;
    test.wait_for_calls("POST /charges", 1).await;
    test.kill().await;
    test.flags.edit("pointsman.yaml", |text| text.replace("  old: ", "  new: "));
    test.flags.edit("workflows/sent.yaml", |text| text.replace("services.old", "services.new"));
    test.restart().await;
    let conflict = test.check_missing(&run, "the service `old`").await;
    assert!(conflict["idempotency_key"].is_string(), "it may have been sent before: {conflict}");
    test.step_service.release_all("POST /charges");
    let both = format!("  old: {{ urls: [\"{}\"], keyed: true }}\n  new: ", test.step_service.url());
    test.reload(|| test.flags.edit("pointsman.yaml", |text| text.replace("  new: ", &both))).await;
    let data = test.wait_for_status(&run, "completed").await;
    let sent = test.step_service.seen("POST /charges");
    assert!(sent.len() >= 2 && sent.iter().all(|call| call.key == sent[0].key), "{data}");
    test.finish().await;
}

/// The outcome of an attempt is unknown, and the service of its probe is not in the files: nothing is sent again. Once
/// the files have the service again, the probe is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_cannot_ask_waits_for_its_service() {
    const PROBED: &str = "
workflow: probed
steps:
  charge:
    call: POST ${services.plain}/charges
    retry: { attempts: 1 }
    timeout: 300ms
    probe: { call: 'GET ${services.old}/charges', done: '${status == 200}', output: '${output}' }
respond: { status: 200, body: paid }
";
    let mut test = EngineTest::with_settings("  old: WORKS\n", &[PROBED], |_| {}).await;
    test.step_service.hold("POST /charges");
    let run = test.start_run("probed", json!({})).await;
    test.wait_for_calls("POST /charges", 1).await;
    test.kill().await;
    test.flags.edit("pointsman.yaml", |text| text.replace("  old: ", "  new: "));
    test.flags.edit("workflows/probed.yaml", |text| text.replace("services.old", "services.new"));
    test.restart().await;
    let conflict = test.check_missing(&run, "the service `old`").await;
    assert_eq!((&conflict["part"], &conflict["attempt"]), (&json!("probe"), &json!(1)), "{conflict}");
    assert!(conflict["idempotency_key"].is_string(), "with it a person can ask the service: {conflict}");
    test.step_service.release_all("POST /charges");
    let both = format!("  old: {}\n  new: ", test.step_service.url());
    test.reload(|| test.flags.edit("pointsman.yaml", |text| text.replace("  new: ", &both))).await;
    test.wait_for_status(&run, "completed").await;
    assert_eq!(test.step_service.count("POST /charges"), 1, "it is not sent a second time");
    assert_eq!(test.step_service.count("GET /charges"), 1);
    test.finish().await;
}

/// The run of a route whose caller has its answer, and the same run started by the API: a value of a later step reads
/// the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_route_waits_for_a_service_that_a_value_reads() {
    const COMPUTES: &str = "
workflow: computes
steps:
  pre: { call: 'POST ${services.works}/stock', undo: 'DELETE ${services.works}/stock/1' }
  go: { needs: [pre], wait: { signal: go } }
  charge: { needs: [go], set: '${services.extra}' }
  pay: { needs: [charge], call: 'POST ${services.works}/charges' }
respond: { after: [pre], status: 202, body: '${run.id}' }
";
    const ROUTE: &str = "
routes:
- id: computes
  match: { method: POST, path: /computes }
  legacy: plain
  workflow: computes
  state: live
  force: { reason: a test }
";
    let change = |flags: &FlagsDir| flags.write("routes/computes.yaml", ROUTE);
    let test = EngineTest::with_settings("  extra: http://127.0.0.1:1\n", &[COMPUTES], change).await;
    let url = format!("{}/computes", test.pointsman.url());
    let reply = test.client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!(reply.status, 202, "{}", reply.json());
    let of_route = format!("{RUN}/{}", reply.json().as_str().expect("an id"));
    let runs = [of_route, test.start_run("computes", json!({})).await];
    for run in &runs {
        test.wait_for_status(run, "waiting_signal").await;
    }
    test.reload(|| {
        test.flags.edit("workflows/computes.yaml", |text| text.replace("services.extra", "services.other"));
        test.flags.edit("pointsman.yaml", |text| text.replace("  extra: ", "  other: "));
    })
    .await;
    let flags = test.flags.path().display().to_string();
    let (code, output) = test.cli_output(&["check", &flags, "--against-open-runs"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert_eq!(output.matches("`charge` needs the service `extra`").count(), 2, "{output}");
    for run in &runs {
        test.signal_go(run).await;
        test.check_missing(run, "the service `extra`").await;
    }
    test.reload(|| {
        test.flags.edit("pointsman.yaml", |text| text.replace("  other: ", "  extra: http://127.0.0.1:1\n  other: "))
    })
    .await;
    for run in &runs {
        test.wait_for_status(run, "completed").await;
    }
    assert_eq!(
        ["POST /stock", "DELETE /stock/1", "POST /charges"].map(|call| test.step_service.count(call)),
        [2, 0, 2]
    );
    test.finish().await;
}
