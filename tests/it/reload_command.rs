//! `pointsman reload`: the process reads its files, and the command shows the outcome of this reading.

use std::path::PathBuf;

use pointsman::demo::Latency;
use serde_json::{Value, json};

use crate::legacy_keys::force;
use crate::support::process::output_text;
use crate::support::strace::Strace;
use crate::support::test_system::TestSystem;
use crate::support::until;

const CAMPAIGNS: &str = "routes/campaigns.yaml";

/// The result of `reload --json`, and the exit code.
async fn reload(system: &TestSystem) -> (Option<i32>, Value) {
    let output = system.pointsman.cli(&["reload", "--json"]).await;
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", output_text(&output)));
    (output.status.code(), json)
}

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

/// Replaces a file by a link to one in another directory, which is not watched: a change there is noticed only when the
/// process looks at its files by itself, every few seconds. Returns that file.
fn outside(system: &TestSystem, dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let (inside, outside) = (system.flags.file(name), dir.path().join("outside.yaml"));
    std::fs::copy(&inside, &outside).expect("copied");
    std::fs::remove_file(&inside).expect("removed");
    std::os::unix::fs::symlink(&outside, &inside).expect("a link");
    outside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_what_the_files_changed() {
    let system = TestSystem::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = outside(&system, &dir, CAMPAIGNS);
    let good = std::fs::read_to_string(&file).expect("readable");
    // The process may have read the change by itself just before the command; then the test tries again.
    let mut tries = 0;
    let (code, shown) = loop {
        tries += 1;
        assert!(tries < 20, "the change is always in force before the command");
        let state = if tries % 2 == 1 { "shadow" } else { "off" };
        std::fs::write(&file, good.replace("state: off", &format!("state: {state}"))).expect("written");
        let (code, shown) = reload(&system).await;
        if shown["changed"] == true {
            break (code, shown);
        }
    };
    assert_eq!(code, Some(0), "{shown}");
    let flip = &shown["flips"][0];
    let expected = if tries % 2 == 1 { ("off", "shadow") } else { ("shadow", "off") };
    assert_eq!((flip["route"].as_str(), flip["by"].as_str()), (Some("campaigns.create"), Some("file")), "{shown}");
    assert_eq!((flip["from"].as_str(), flip["to"].as_str()), (Some(expected.0), Some(expected.1)), "{shown}");
    assert!(shown["in_force_s"].as_f64().is_some_and(|age| age < 60.0), "{shown}");
    // A second reload finds no change, and makes no flip.
    let (code, shown) = reload(&system).await;
    assert_eq!((code, &shown["changed"], &shown["flips"]), (Some(0), &json!(false), &json!([])), "{shown}");
    let output = system.pointsman.cli(&["reload"]).await;
    let text = output_text(&output);
    assert!(output.status.success() && text.contains("have been in force for"), "{text}");
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_names_what_the_gate_and_a_restart_hold_back() {
    let system = TestSystem::start().await;
    system.flags.edit(CAMPAIGNS, |text| text.replace("state: off", "state: live"));
    system.flags.edit("pointsman.yaml", |text| format!("{text}api: {{ maestro: false }}\n"));
    // The files may be in force already when the command runs; it still shows what they do not put in force.
    let (code, shown) = reload(&system).await;
    assert_eq!((code, &shown["needs_restart"]), (Some(0), &json!(["api.maestro"])), "{shown}");
    let held = &shown["held"][0];
    assert_eq!((&held["route"], &held["declared"]), (&json!("campaigns.create"), &json!("live")), "{shown}");
    assert!(held["state"] != "live" && held["reasons"][0].is_string(), "{shown}");
    let text = output_text(&system.pointsman.cli(&["reload"]).await);
    assert!(text.contains("not what a flip or its file asks for (its file says live):\n  - "), "{text}");
    assert!(text.contains("takes effect only after a restart: api.maestro"), "{text}");
    // It stays visible, until the files say again what the process was started with.
    let in_status = async || {
        let text = output_text(&system.pointsman.cli(&["status"]).await);
        (system.pointsman.get("/api/v2/status").await["flags"]["needs_restart"].clone(), text)
    };
    let (keys, text) = in_status().await;
    assert_eq!(keys, json!(["api.maestro"]));
    assert!(text.contains("\nchanged in the files, and takes effect only after a restart: api.maestro\n"), "{text}");
    assert!(close(system.pointsman.metrics().await.sum("pointsman_flags_need_restart", &[]), 1.0));
    system.flags.edit("pointsman.yaml", |text| text.replace("api: { maestro: false }\n", ""));
    let (code, shown) = reload(&system).await;
    assert_eq!((code, &shown["needs_restart"]), (Some(0), &json!([])), "{shown}");
    let (keys, text) = in_status().await;
    assert!(keys == json!([]) && !text.contains("restart"), "{keys}: {text}");
    assert!(close(system.pointsman.metrics().await.sum("pointsman_flags_need_restart", &[]), 0.0));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_lists_every_error_with_its_position() {
    let system = TestSystem::start().await;
    let good = std::fs::read_to_string(system.flags.file(CAMPAIGNS)).expect("readable");
    let bad = good.replace("legacy: shop", "legacy: shopp").replace("state: off", "stat: off");
    system.flags.write(CAMPAIGNS, &bad);
    // Twice: the second reading finds the same files, and refuses them again.
    for _ in 0..2 {
        let output = system.pointsman.cli(&["reload"]).await;
        let text = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for named in ["campaigns.yaml:6:13: error: ", "did you mean `shop`", "campaigns.yaml:8:5: error: ", "`stat`"] {
            assert!(text.contains(named), "{named} is not named:\n{text}");
        }
        assert!(text.contains("the last good set stays in force"), "{text}");
    }
    let (code, problem) = reload(&system).await;
    assert_eq!((code, &problem["status"]), (Some(1), &json!(422)), "{problem}");
    let places = problem["problems"].as_array().expect("a list").iter();
    let places: Vec<_> = places.map(|at| (at["severity"].clone(), at["line"].clone(), at["column"].clone())).collect();
    assert_eq!(places, [(json!("error"), json!(6), json!(13)), (json!("error"), json!(8), json!(5))], "{problem}");
    let status = system.pointsman.get("/api/v2/status").await;
    assert!(status["flags"]["last_error"].is_string(), "{status}");
    system.flags.write(CAMPAIGNS, &good);
    let (code, shown) = reload(&system).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(system.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null());
    let usage = system.pointsman.cli(&["reload", "orders.create"]).await;
    assert_eq!(usage.status.code(), Some(2), "{}", output_text(&usage));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_waits_for_a_store_that_hangs_only_so_long() {
    let more = "limits: { move_answer_ms: 1500, store_stall_ms: 600000 }\n";
    let change = |flags: &crate::support::FlagsDir| flags.edit("pointsman.yaml", |text| format!("{text}{more}"));
    let system = TestSystem::with_latency(Latency::instant(), change).await;
    let hangs = Strace::inject(system.pointsman.pid(), "fsync,fdatasync", "delay_enter=10000000").await;
    system.flags.edit(CAMPAIGNS, |text| text.replace("state: off", "state: shadow"));
    let (one, other) = tokio::join!(reload(&system), reload(&system));
    for (code, problem) in [one, other] {
        assert_eq!((code, &problem["status"]), (Some(1), &json!(503)), "{problem}");
        assert_eq!(problem["type"], "urn:pointsman:problem:outcome-unknown", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("1500 ms")), "{problem}");
    }
    until("the files to be in force", || async {
        let row = system.pointsman.get("/api/v2/routes/campaigns.create").await;
        (row["row"]["effective"]["state"] == "shadow").then_some(())
    })
    .await;
    hangs.end().await;
    let (code, shown) = reload(&system).await;
    assert_eq!((code, &shown["changed"]), (Some(0), &json!(false)), "{shown}");
    system.finish().await;
}

/// A new version of a workflow answers at once. The output of the command says so, and the status does, also after a
/// kill and a restart, until a person accepts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_rules_in_live_is_named_until_it_is_accepted() {
    const ROUTES: &str = "routes/orders.yaml";
    let mut system = TestSystem::start().await;
    force(&system, "live").await;
    // A changed workflow would be a candidate.
    let stricter =
        |text: String| text.replacen("headers: [content-type, location]", "headers: [content-type, location, etag]", 1);
    system.flags.edit(ROUTES, stricter);
    let (code, shown) = reload(&system).await;
    let named: Vec<_> = shown["changed_since_evidence"].as_array().expect("a list").iter().collect();
    assert!(code == Some(0) && named.iter().any(|changed| changed["route"] == "orders.create"), "{shown}");
    for when in ["after a reload", "after a kill"] {
        let row = system.pointsman.get("/api/v2/routes/orders.create").await["row"].clone();
        assert_eq!(row["effective"], json!({ "state": "live", "why": "unproven" }), "{when}");
        let text = output_text(&system.pointsman.cli(&["status"]).await);
        assert!(text.contains("warning: `orders.create` is in `live`, and its workflow"), "{when}: {text}");
        system.kill().await;
        system.restart().await;
    }
    system.flip("orders.create", "live", &["--force", "--reason", "urgent"]).await.expect("it is forced");
    system.kill().await;
    system.restart().await;
    let row = system.pointsman.get("/api/v2/routes/orders.create").await["row"].clone();
    assert_eq!(row["effective"], json!({ "state": "live", "why": "requested" }), "{row}");
    assert_eq!((&row["changed_since_evidence"], &row["forced"]), (&Value::Null, &json!("urgent")), "{row}");
    system.finish().await;
}
