//! Today's files no longer have what a waiting run needs: it moves, pauses by name or ends, and none is stuck.

use serde_json::{Value, json};

use super::{Plant, id, step};
use crate::support::until;

/// Reserves, waits for a signal, and then needs what the files may have lost by then.
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

impl Plant {
    /// Changes the files, and waits until they are in force.
    async fn reloaded(&self, change: impl FnOnce()) {
        let generation = || async { self.pointsman.get("/api/v2/status").await["flags"]["generation"].as_u64() };
        let before = generation().await;
        change();
        until("the files to be in force", || async { (generation().await > before).then_some(()) }).await;
    }
    async fn waits_for_go(&self, workflow: &str) -> String {
        let run = self.begun(workflow, json!({})).await;
        self.comes_to(&run, "waiting_signal").await;
        run
    }
    async fn goes(&self, run: &str) {
        self.taken(&format!("{run}/signals/go"), json!({})).await;
    }
    /// The conflict over what is missing.
    async fn misses(&self, run: &str, what: &str) -> Value {
        let data = self.comes_to(run, "paused").await;
        let conflict = data["conflicts"][0].clone();
        assert_eq!((&conflict["kind"], &conflict["step_id"]), (&json!("missing"), &json!("charge")), "{data}");
        assert!(conflict["message"].as_str().unwrap().contains(what), "{conflict}");
        assert_eq!(conflict["choices"], json!(["retry", "skip", "take", "cancel"]), "{conflict}");
        assert!(self.explained(run).await.contains(what));
        conflict
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_outlives_the_renaming_of_what_it_needs() {
    const MORE: &str = "  old: WORKS\nsecrets: { key: { file: key.secret } }\n";
    let workflows = [
        waiting("by-service", SERVICE),
        waiting("by-secret", SECRET),
        waiting("by-run", "run: below"),
        BELOW.to_owned(),
    ];
    let texts: Vec<&str> = workflows.iter().map(String::as_str).collect();
    let mut plant = Plant::made(MORE, &texts, |flags| flags.write("key.secret", "k")).await;
    let mut runs = Vec::new();
    for workflow in ["by-service", "by-service", "by-service", "by-service", "by-secret", "by-run"] {
        runs.push(plant.waits_for_go(workflow).await);
    }
    // Everything gets another name, in one step as far as the files are concerned.
    plant
        .reloaded(|| {
            plant.flags.edit("workflows/by-service.yaml", |text| text.replace("services.old", "services.new"));
            plant.flags.edit("workflows/by-secret.yaml", |text| text.replace("secrets.key", "secrets.other"));
            plant.flags.edit("workflows/by-run.yaml", |text| text.replace("run: below", "run: under"));
            std::fs::remove_file(plant.flags.file("workflows/below.yaml")).expect("it was there");
            plant.flags.write("workflows/under.yaml", BELOW.replace("below", "under").trim_start());
            plant.flags.edit("pointsman.yaml", |text| text.replace("  old: ", "  new: ").replace("{ key:", "{ other:"));
        })
        .await;

    // What will be missed is known before anything happens.
    let flags = plant.flags.path().display().to_string();
    let (code, said) = plant.cli_said(&["check", &flags, "--against-open-runs"]).await;
    assert_eq!(code, Some(1), "{said}");
    for (run, what) in [(0, "the service `old`"), (4, "the secret `key`"), (5, "the workflow `below`")] {
        let of = said.split("\nrun_").find(|part| part.starts_with(id(&runs[run]).trim_start_matches("run_")));
        assert!(of.is_some_and(|of| of.contains(&format!("`charge` needs {what}"))), "{what}: {said}");
    }

    // A cancel is answered at once, and undoes what was done.
    plant.taken(&format!("{}/cancel", runs[0]), json!({})).await;
    let data = plant.comes_to(&runs[0], "cancelled").await;
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");

    for run in &runs[1..] {
        plant.goes(run).await;
    }
    plant.misses(&runs[1], "the service `old`").await;
    plant.misses(&runs[4], "the secret `key`").await;
    plant.misses(&runs[5], "the workflow `below`").await;
    assert_eq!(plant.works.count("POST /charges"), 0, "nothing was sent");
    // A person may choose; a retry before the mend asks the same question again.
    let choose = |choice: &str| json!({ "step": "charge", "choice": choice });
    plant.taken(&format!("{}/resolve", runs[1]), choose("skip")).await;
    plant.comes_to(&runs[1], "completed").await;
    plant.misses(&runs[2], "the service `old`").await;
    plant.taken(&format!("{}/resolve", runs[2]), choose("retry")).await;
    plant.misses(&runs[2], "the service `old`").await;
    plant.taken(&format!("{}/resolve", runs[3]), choose("cancel")).await;
    plant.comes_to(&runs[3], "cancelled").await;

    // Mended: whoever has all that it needs goes on by itself, over a reload and over a restart.
    let url = plant.works.url();
    plant
        .reloaded(|| {
            plant.flags.edit("pointsman.yaml", |text| text.replace("  new: ", &format!("  old: {url}\n  new: ")))
        })
        .await;
    let data = plant.comes_to(&runs[2], "completed").await;
    assert_eq!(step(&data, "charge")["attempts"], json!(1), "no attempt is lost: {data}");
    let resolved = plant.told(&runs[2], "resolved").await;
    assert_eq!(resolved.last().expect("by the reload")["by"], "the files in force");
    plant.misses(&runs[4], "the secret `key`").await;
    plant.kill().await;
    plant.flags.edit("pointsman.yaml", |text| text.replace("{ other:", "{ key: { file: key.secret }, other:"));
    plant.flags.write("workflows/below.yaml", BELOW.trim_start());
    plant.back().await;
    for run in &runs[4..] {
        plant.comes_to(run, "completed").await;
    }
    assert_eq!(plant.works.done("POST /charges"), 3);
    plant.finish().await;
}

/// What was under way when the process ended, at a service that is not there when the next one starts.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_to_be_sent_again_waits_for_its_service() {
    const SENT: &str = "
workflow: sent
steps: { charge: { call: 'POST ${services.old}/charges', retry: { attempts: 1 } } }
respond: { status: 200, body: paid }
";
    let more = "  old: { urls: [\"WORKS\"], keyed: true }\n";
    let mut plant = Plant::made(more, &[SENT], |_| {}).await;
    plant.works.hold("POST /charges");
    let run = plant.begun("sent", json!({})).await;
    plant.arrives("POST /charges", 1).await;
    plant.kill().await;
    plant.flags.edit("pointsman.yaml", |text| text.replace("  old: ", "  new: "));
    plant.flags.edit("workflows/sent.yaml", |text| text.replace("services.old", "services.new"));
    plant.back().await;
    let conflict = plant.misses(&run, "the service `old`").await;
    assert!(conflict["idempotency_key"].is_string(), "it may have been sent before: {conflict}");
    plant.works.open("POST /charges");
    let both = format!("  old: {{ urls: [\"{}\"], keyed: true }}\n  new: ", plant.works.url());
    plant.reloaded(|| plant.flags.edit("pointsman.yaml", |text| text.replace("  new: ", &both))).await;
    let data = plant.comes_to(&run, "completed").await;
    let sent = plant.works.seen("POST /charges");
    assert!(sent.len() >= 2 && sent.iter().all(|call| call.key == sent[0].key), "{data}");
    plant.finish().await;
}
