//! What people do with a store: look at it, copy it, let it forget. Always beside the process that uses it.

use http::Method;
use serde_json::{Value, json};

use crate::support::process::{cli, said};
use crate::support::town::{Town, id};

fn url(path: &std::path::Path) -> String {
    format!("sqlite:{}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_checked_and_copied_while_orders_are_taken() {
    let mut town = Town::start().await;
    town.climb("live").await;
    let copy = town.flags.file("copy.db");
    let name = copy.to_str().expect("a path");
    let source = url(&town.store());
    let load = async {
        loop {
            town.round().await;
        }
    };
    let looks = async {
        let checked = cli(&["store", "check", "--store", &source], &[]).await;
        assert!(checked.status.success(), "{}", said(&checked));
        assert!(said(&checked).contains("sound"), "{}", said(&checked));
        let backup = cli(&["store", "backup", name, "--store", &source, "--json"], &[]).await;
        assert!(backup.status.success(), "{}", said(&backup));
        let told: Value = serde_json::from_slice(&backup.stdout).expect("JSON");
        assert_eq!((&told["check"]["fine"], told["bytes"].as_u64().is_some_and(|b| b > 0)), (&json!(true), true));
        let again = cli(&["store", "backup", name, "--store", &source], &[]).await;
        assert!(!again.status.success() && said(&again).contains("exists already"), "{}", said(&again));
    };
    tokio::select! {
        () = load => {}
        () = looks => {}
    }
    town.allowed.unacknowledged = true;
    town.quiet().await;
    // Damage is found in the copy, with an exit code for scripts.
    std::fs::rename(&copy, town.flags.file("damaged.db")).expect("renamed");
    let damaged = town.flags.file("damaged.db");
    let mut bytes = std::fs::read(&damaged).expect("readable");
    let (middle, end) = (bytes.len() / 2, bytes.len());
    bytes[middle..end].fill(0);
    std::fs::write(&damaged, bytes).expect("written");
    let checked = cli(&["store", "check", "--store", &url(&damaged), "--json"], &[]).await;
    assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
    let told: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert!(told["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{told}");
    let nowhere = cli(&["store", "check", "--store", "sqlite:/nowhere/at/all.db"], &[]).await;
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(said(&nowhere).contains("there is no database"), "{}", said(&nowhere));
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_an_order_is_still_followed_up() {
    let mut town = Town::with(|flags| {
        flags.edit("pointsman.yaml", |text| text + "\nretention: 1s\nlimits: { retry_window_s: 1 }\n");
    })
    .await;
    town.allowed.purged = true;
    town.climb("live").await;
    let order = town.order().await;
    let run = id(&order);
    let show = "/api/v2/orchestrate/runs?route=orders.create&mode=real&limit=100";
    town.pointsman.until_metric("old runs to be purged", |m| m.sum("pointsman_purged_runs_total", &[]) > 0.0).await;
    let events = || async {
        let reply =
            town.pointsman.api(Method::GET, &format!("/api/v2/orchestrate/run/{run}/events"), Value::Null).await;
        reply.json().as_array().map_or(0, Vec::len)
    };
    crate::support::until("the order's run to be purged", || async { (events().await == 0).then_some(()) }).await;
    // The instance is the engine's still, and its follower reads what the run left.
    assert_eq!(town.read(&order).await["total"], order["total"]);
    assert_eq!(town.cancel(&order).await["status"], "cancelled");
    let listed = town.pointsman.get(show).await;
    assert!(listed["runs"].as_array().is_some_and(|runs| !runs.is_empty()), "a pinned run keeps its summary: {listed}");
    let source = url(&town.store());
    let checked = cli(&["store", "check", "--store", &source], &[]).await;
    assert!(checked.status.success(), "{}", said(&checked));
    town.finish().await;
}
