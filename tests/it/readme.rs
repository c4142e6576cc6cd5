//! What the README shows works as it stands there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::orchestrate::Desk;
use crate::support::process::{cli, said};
use crate::support::town::Town;
use crate::support::{FlagsDir, until};

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README")
}

/// The files that it shows: fenced blocks whose first line is `# flags/NAME`.
fn shown_files(text: &str) -> Vec<(String, String)> {
    text.split("```yaml\n")
        .skip(1)
        .filter_map(|block| {
            let body = block.split("\n```").next()?;
            let name = body.lines().next()?.strip_prefix("# flags/")?.split_whitespace().next()?;
            Some((name.to_owned(), format!("{body}\n")))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_pass_the_check() {
    let flags = FlagsDir::empty();
    let files = shown_files(&readme());
    assert!(files.iter().any(|(name, _)| name == "pointsman.yaml"), "the README shows the files");
    for (name, text) in &files {
        flags.write(name, text);
    }
    let checked = cli(&["check", &flags.path().display().to_string()], &[]).await;
    assert!(checked.status.success(), "{}", said(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_set_passes_the_check_without_a_warning() {
    let flags = Path::new(env!("CARGO_MANIFEST_DIR")).join("flags");
    let checked = cli(&["check", &flags.display().to_string()], &[]).await;
    let text = said(&checked);
    assert!(checked.status.success() && !text.contains("warning"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_calls_of_the_api_work() {
    let text = readme();
    let refund = shown_files(&text).into_iter().find(|(name, _)| name == "workflows/refund.yaml").expect("a workflow");
    let script = text.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a script");
    let desk = Desk::with_workflow(&refund.0, &refund.1).await;
    let script = script.replace("http://127.0.0.1:8081", &desk.pointsman.admin_url());
    assert!(script.contains(&desk.pointsman.admin_url()));
    let script = format!("set -eu\n{script}\ncurl -sf $api/run/$run\n");
    let bash = tokio::process::Command::new("bash").args(["-c", &script]).kill_on_drop(true).output();
    let done = tokio::time::timeout(crate::support::PATIENCE, bash).await.expect("in time").expect("bash starts");
    let said = said(&done);
    assert!(done.status.success(), "{said}\n{}", desk.pointsman.log());
    assert!(said.contains("event: end") && said.contains("\"refunded\":15"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_commands_exist() {
    let text = readme();
    let mut commands: BTreeSet<String> = BTreeSet::new();
    for (at, _) in text.match_indices("pointsman ") {
        // In a code span or an indented line, and a word that could be a command.
        let before = text[..at].chars().next_back();
        let word: String = text[at + "pointsman ".len()..].chars().take_while(char::is_ascii_lowercase).collect();
        let after = text[at + "pointsman ".len() + word.len()..].chars().next();
        if matches!(before, Some('`' | ' ' | '/')) && matches!(after, Some(' ' | '`' | '\n')) && before != Some(' ')
            || text[..at].ends_with("\n    ")
        {
            commands.insert(word);
        }
    }
    commands.remove("");
    assert!(commands.len() >= 4, "the README shows commands: {commands:?}");
    for command in &commands {
        let helped = cli(&[command, "--help"], &[]).await;
        assert!(helped.status.success(), "pointsman {command}: {}", said(&helped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_against_a_running_process() {
    let town = Town::start().await;
    town.climb("dark").await;
    town.rounds(1).await;
    let run = until("a dark run", || async {
        let listed = town.pointsman.cli(&["runs", "list", "--json"]).await;
        let runs: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("stdout is data");
        runs["runs"][0]["run_id"].as_str().map(str::to_owned)
    })
    .await;
    for command in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["diffs", "orders.create"],
        vec!["diffs", "orders.create", "--json"],
        vec!["runs", "list"],
        vec!["runs", "show", &run],
        vec!["runs", "show", &run, "--json"],
        vec!["schema"],
    ] {
        let output = town.pointsman.cli(&command).await;
        assert!(output.status.success() && !output.stdout.is_empty(), "{command:?}: {}", said(&output));
        if command.contains(&"--json") {
            serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("stdout is data");
        }
    }
    // The file's own change of state is a flip, through the same gate.
    town.flags.edit("routes/campaigns.yaml", |text| text.replace("state: off", "state: shadow"));
    until("the file's flip", || async {
        let row = town.pointsman.get("/api/v2/routes/campaigns.create").await;
        (row["row"]["effective"]["state"] == "shadow").then_some(())
    })
    .await;
    let flips = town.pointsman.get("/api/v2/flips?route=campaigns.create&limit=5").await;
    assert_eq!(flips[0]["by"], "file");
    town.finish().await;
}
