//! A hundred invalid sets of files under load: the last valid set stays, errors name file and line, no request fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::town::{Town, breathe};

/// A damaged version of a file, as a person, an editor or a disk might cause it.
fn spoil(random: &mut fastrand::Rng, good: &str) -> String {
    match random.u8(0..8) {
        0 => good[..random.usize(1..good.len())].to_owned() + "\n  - {",
        1 => good.replacen("state:", "stat:", 1),
        2 => good.replacen("legacy: shop", "legacy: shopp", 1),
        3 => good.replacen("workflow: create-order", "workflow: create-ordr", 1),
        4 => good.replacen("state: off", "state: sideways", 1),
        5 => good.replacen("path: /orders }", "path: orders }", 1),
        6 => format!("{good}\n\t- tabs: are no indentation\n"),
        _ => good.replacen("$.id", "$.[", 1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_invalid_files_change_nothing() {
    let town = Town::start().await;
    let name = "routes/orders.yaml";
    let good = std::fs::read_to_string(town.flags.file(name)).expect("readable");
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        while !stop.load(Ordering::SeqCst) {
            town.round().await;
            answered.fetch_add(1, Ordering::SeqCst);
            breathe().await;
        }
    };
    let spoiling = async {
        let mut random = fastrand::Rng::with_seed(5);
        let failures = |m: &crate::support::Metrics| m.sum("pointsman_flags_reload_failures_total", &[]);
        let mut tried = 0;
        while tried < 100 {
            let bad = spoil(&mut random, &good);
            if bad == good {
                continue;
            }
            tried += 1;
            // All different: an unchanged file is not read again.
            let bad = format!("{bad}\n# try {tried}\n");
            let before = failures(&town.pointsman.metrics().await);
            town.flags.write(name, &bad);
            town.pointsman.until_metric("the refusal", |m| failures(m) > before).await;
            if tried % 20 == 0 {
                let error = town.pointsman.get("/api/v2/status").await["flags"]["last_error"].clone();
                let text = error.as_str().unwrap_or_default();
                assert!(text.contains("orders.yaml:"), "names file and line: {text}");
            }
        }
        town.flags.write(name, &good);
        crate::support::until("the good set to be back", || async {
            town.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null().then_some(())
        })
        .await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, spoiling);
    eprintln!("100 bad files, {} rounds meanwhile, 0 failed", answered.load(Ordering::SeqCst));
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_set_at_the_start_is_refused_with_every_problem() {
    use crate::support::process::{Start, cli, said};
    use crate::support::{FlagsDir, Pointsman};

    let flags = FlagsDir::example("http://127.0.0.1:1", "http://127.0.0.1:2");
    flags.edit("routes/orders.yaml", |text| text.replace("state: off", "state: offf"));
    flags.edit("workflows/create-order.yaml", |text| text.replace("retry:", "retri:"));
    let dir = tempfile::tempdir().expect("a directory");
    let start =
        Start { flags: flags.path().to_owned(), store: "memory:".into(), log: dir.path().join("log"), env: vec![] };
    let refused = Pointsman::try_start(&start).await.err().expect("it refuses to start");
    for named in ["orders.yaml:", "create-order.yaml:", "retri"] {
        assert!(refused.contains(named), "{named} is not named:\n{refused}");
    }
    let path = flags.path().display().to_string();
    let checked = cli(&["check", &path], &[]).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(said(&checked).contains("did you mean `retry`"), "{}", said(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_remove_the_service_of_existing_instances_are_refused() {
    let town = Town::start().await;
    town.climb("live").await;
    let kept = town.order().await;
    town.lower("off").await;
    let name = "routes/orders.yaml";
    let good = std::fs::read_to_string(town.flags.file(name)).expect("readable");
    town.flags.write(name, &good.replacen("workflow: get-order", "# workflow: get-order", 1));
    let told = crate::support::until("the refusal", || async {
        town.pointsman.get("/api/v2/status").await["flags"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(told.contains("the engine owns") && told.contains("`orders.get`"), "{told}");
    assert_eq!(town.read(&kept).await["id"], kept["id"], "the set before stays in force");
    town.flags.write(name, &good);
    crate::support::until("the good set to be back", || async {
        town.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null().then_some(())
    })
    .await;
    town.finish().await;
}
