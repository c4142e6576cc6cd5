//! A hundred invalid sets of files under load: the last valid set stays, errors name file and line, no request fails.
//! Also: files that are refused because of what the engine owns, starts that fail, and changes of the files while the
//! store accepts no writes or hangs, or while the process is killed or starts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;

use crate::support::process::Start;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, short_pause};
use crate::support::{Pointsman, until, until_true};

/// A damaged version of a file, as a person, an editor or a disk might cause it.
fn damage(random: &mut fastrand::Rng, good: &str) -> String {
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
    let system = TestSystem::start().await;
    let name = "routes/orders.yaml";
    let good = std::fs::read_to_string(system.flags.file(name)).expect("readable");
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let load = async {
        while !stop.load(Ordering::SeqCst) {
            system.create_read_cancel().await;
            answered.fetch_add(1, Ordering::SeqCst);
            short_pause().await;
        }
    };
    let damaging = async {
        let mut random = fastrand::Rng::with_seed(5);
        let failures = |m: &crate::support::Metrics| m.sum("pointsman_flags_reload_failures_total", &[]);
        let mut tried = 0;
        while tried < 100 {
            let bad = damage(&mut random, &good);
            if bad == good {
                continue;
            }
            tried += 1;
            // Makes each version different, since a file that did not change is not read again.
            let bad = format!("{bad}\n# try {tried}\n");
            let before = failures(&system.pointsman.metrics().await);
            system.flags.write(name, &bad);
            system.pointsman.until_metric("the refusal", |m| failures(m) > before).await;
            if tried % 20 == 0 {
                let error = system.pointsman.get("/api/v2/status").await["flags"]["last_error"].clone();
                let text = error.as_str().unwrap_or_default();
                let line = text.split("orders.yaml:").nth(1).and_then(|rest| rest.chars().next());
                assert!(line.is_some_and(|first| first.is_ascii_digit()), "names file and line: {text}");
            }
        }
        system.flags.write(name, &good);
        crate::support::until("the good set to be back", || async {
            system.pointsman.get("/api/v2/status").await["flags"]["last_error"].is_null().then_some(())
        })
        .await;
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, damaging);
    eprintln!("100 bad files, {} rounds meanwhile, 0 failed", answered.load(Ordering::SeqCst));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_set_at_the_start_is_refused_with_every_problem() {
    use crate::support::process::{Start, cli, output_text};
    use crate::support::{FlagsDir, Pointsman};

    let flags = FlagsDir::example("http://127.0.0.1:1", "http://127.0.0.1:2");
    flags.edit("routes/orders.yaml", |text| text.replace("state: off", "state: offf"));
    flags.edit("workflows/create-order.yaml", |text| text.replace("retry:", "retri:"));
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let refused = Pointsman::try_start(&start).await.err().expect("it refuses to start");
    for named in ["orders.yaml:", "create-order.yaml:", "retri"] {
        assert!(refused.contains(named), "{named} is not named:\n{refused}");
    }
    let path = flags.path().display().to_string();
    let checked = cli(&["check", &path], &[]).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(output_text(&checked).contains("did you mean `retry`"), "{}", output_text(&checked));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_lead_away_from_existing_instances_are_refused() {
    let mut system = TestSystem::start().await;
    system.climb_to("live").await;
    let kept = system.order().await;
    system.lower("off").await;
    let name = "routes/orders.yaml";
    let good = std::fs::read_to_string(system.flags.file(name)).expect("readable");
    let workflow = "workflow: get-order";
    let get = "match: { method: GET, path: \"/orders/{id}\" }";
    assert!(good.contains(workflow) && good.contains(get), "{good}");
    let more = |matches: &str| format!("{good}\n  - {{ id: more, match: {matches}, legacy: shop }}\n");
    let id = kept["id"].as_str().expect("an id");
    let edits = [
        (good.replacen(workflow, "# workflow: get-order", 1), "`orders.get` no longer follows them up"),
        (good.replacen(get, &get.replace("/orders", "/bills"), 1), "by which `orders.get` followed them up"),
        (
            more("{ method: GET, host: 127.0.0.1, path: \"/orders/{order}\" }"),
            "would take requests for them from `orders.get`",
        ),
        (more(&format!("{{ method: GET, path: /orders/{id} }}")), "would take requests for them from `orders.get`"),
    ];
    for (text, says) in &edits {
        system.flags.write(name, text);
        let error = crate::support::until("the refusal", || last_error(&system)).await;
        assert!(error.contains("the engine owns") && error.contains(says), "{error}");
        assert_eq!(system.read(&kept).await["id"], kept["id"], "the set before stays in force");
        system.flags.write(name, &good);
        crate::support::until("the good set to be back", || async {
            last_error(&system).await.is_none().then_some(())
        })
        .await;
    }
    // The same files are refused at a start, too.
    system.kill().await;
    for (text, says) in &edits {
        system.flags.write(name, text);
        let refused =
            crate::support::Pointsman::try_start(&system.arguments()).await.err().expect("it refuses to start");
        let last = refused.rsplit("the engine owns").next().unwrap_or_default();
        assert!(refused.contains("the engine owns") && last.contains(says), "{refused}");
    }
    // A further route that takes no requests from the follower is accepted.
    system.flags.write(name, &more("{ method: GET, path: /orders/export }"));
    system.restart().await;
    assert_eq!(system.read(&kept).await["payment_id"], kept["payment_id"]);
    system.finish().await;
}

/// A start that fails records no flip: its files come into force only with a later start.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_address_is_in_use_records_no_flip() {
    let mut system = TestSystem::start().await;
    system.kill().await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let (routes, process) = ("routes/orders.yaml", "pointsman.yaml");
    let good = [routes, process].map(|name| std::fs::read_to_string(system.flags.file(name)).expect("readable"));
    let in_shadow = ["create-order", "get-order", "cancel-order"].iter().fold(good[0].clone(), |text, workflow| {
        let off = format!("workflow: {workflow}\n    state: off");
        text.replace(&off, &off.replace("off", "shadow"))
    });
    system.flags.write(routes, &in_shadow);
    let taken = other.local_addr().expect("an address");
    system.flags.write(process, &format!("{}api: {{ listen: \"{taken}\" }}\n", good[1]));
    let refused = system.restart_refused().await;
    assert!(refused.contains("`api.listen`"), "{refused}");
    system.flags.write(routes, &good[0]);
    system.flags.write(process, &good[1]);
    system.restart().await;
    let flips = system.pointsman.get("/api/v2/flips").await;
    assert!(!flips.to_string().contains("shadow"), "{flips}");
    system.finish().await;
}

/// Without its workflow, the follower would ask legacy for an order that the next request may create in the engine.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_keeps_its_workflow_while_its_creator_is_in_live() {
    let system = TestSystem::start().await;
    crate::legacy_keys::force(&system, "live").await;
    let name = "routes/orders.yaml";
    let good = std::fs::read_to_string(system.flags.file(name)).expect("readable");
    system.flags.write(name, &good.replacen("workflow: cancel-order", "# workflow: cancel-order", 1));
    let error = crate::support::until("the refusal", || last_error(&system)).await;
    let says = "the engine may create one of `orders.create` at any moment";
    assert!(error.contains(says) && error.contains("`orders.cancel` no longer follows them up"), "{error}");
    system.lower("off").await;
    system.flags.edit(name, |text| format!("{text}# the same again\n"));
    crate::support::until("the files to be in force", || async { last_error(&system).await.is_none().then_some(()) })
        .await;
    system.finish().await;
}

/// The example set with its orders in shadow; `more` goes into pointsman.yaml.
async fn with_orders_in_shadow(more: &'static str) -> TestSystem {
    TestSystem::with(|flags| {
        flags.edit("routes/orders.yaml", |text| {
            ["create-order", "get-order", "cancel-order"].iter().fold(text, |text, workflow| {
                let off = format!("workflow: {workflow}\n    state: off");
                text.replace(&off, &off.replace("off", "shadow"))
            })
        });
        flags.edit("pointsman.yaml", |text| format!("{text}{more}"));
    })
    .await
}

/// Writes files that pass the check, in which two routes go up and the workflow of a third one changes. Returns the
/// files as they were.
fn write_two_moves(system: &TestSystem) -> [(&'static str, String); 3] {
    let edits: [(&str, &str, &str); 3] = [
        ("routes/orders.yaml", "workflow: cancel-order\n    state: shadow", "workflow: cancel-order\n    state: dark"),
        ("routes/campaigns.yaml", "state: off", "state: shadow"),
        ("workflows/create-order.yaml", "* 100.0 + 0.5)", "* 100.0 + 0.25)"),
    ];
    edits.map(|(name, from, to)| {
        let good = std::fs::read_to_string(system.flags.file(name)).expect("readable");
        assert!(good.contains(from), "{name}");
        system.flags.write(name, &good.replace(from, to));
        (name, good)
    })
}

const BEFORE: [&str; 2] = ["shadow", "off"];
const AFTER: [&str; 2] = ["dark", "shadow"];

async fn last_error(system: &TestSystem) -> Option<String> {
    system.pointsman.get("/api/v2/status").await["flags"]["last_error"].as_str().map(str::to_owned)
}

/// The states of the two routes by the API, their states by the metrics, and the number of their recorded flips. The
/// three are read one after the other, so they may not agree while a flip is under way.
async fn states_and_flips(system: &TestSystem) -> ([String; 2], [String; 2], usize) {
    const ROUTES: [&str; 2] = ["orders.cancel", "campaigns.create"];
    let metrics = system.pointsman.metrics().await;
    let mut states = ROUTES.map(str::to_owned);
    for state in &mut states {
        let row = system.pointsman.get(&format!("/api/v2/routes/{state}")).await["row"].clone();
        *state = row["effective"]["state"].as_str().expect("a state").to_owned();
    }
    let measured = ROUTES.map(|route| {
        let rank = metrics.sum("pointsman_flag_state", &[("route", route), ("kind", "effective")]);
        ["off", "shadow", "dark"][rank as usize].to_owned()
    });
    let flips = system.pointsman.get("/api/v2/flips?limit=500").await;
    let of_both = |flip: &&serde_json::Value| ROUTES.iter().any(|route| flip["route"] == *route);
    (states, measured, flips.as_array().expect("a list").iter().filter(of_both).count())
}

/// What [`states_and_flips`] gives where API and metrics agree.
fn expected_states(of_both: [&str; 2], flips: usize) -> ([String; 2], [String; 2], usize) {
    (of_both.map(str::to_owned), of_both.map(str::to_owned), flips)
}

async fn pairs(system: &TestSystem) -> u64 {
    let evidence = system.pointsman.get("/api/v2/routes/orders.create/evidence").await;
    evidence["evidence"]["shadow_pairs"].as_u64().unwrap_or_default()
}

/// A system whose creator has pairs, which a changed workflow would clear.
async fn with_pairs(more: &'static str) -> TestSystem {
    let system = with_orders_in_shadow(more).await;
    for _ in 0..5 {
        system.order().await;
    }
    // A pair is compared after its run has ended, when the executor may be idle already.
    until("the pairs", || async { (pairs(&system).await == 5).then_some(()) }).await;
    system
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_recorded_on_a_full_disk_change_nothing() {
    let mut system = with_pairs("").await;
    let full = Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await;
    let good = write_two_moves(&system);
    let error = until("the refusal", || last_error(&system)).await;
    assert!(error.contains("nothing changed"), "{error}");
    assert_eq!(states_and_flips(&system).await, expected_states(BEFORE, 0));
    assert_eq!(pairs(&system).await, 5, "the workflow is the one before, and so is its evidence");
    for (name, text) in &good {
        system.flags.write(name, text);
    }
    until("the good set to be back", || async { last_error(&system).await.is_none().then_some(()) }).await;
    full.end().await;
    system.kill().await;
    system.restart().await;
    assert_eq!(states_and_flips(&system).await, expected_states(BEFORE, 0));
    write_two_moves(&system);
    until("both to move", || async { (states_and_flips(&system).await == expected_states(AFTER, 2)).then_some(()) })
        .await;
    system.finish().await;
}

/// The store hangs while it records a change of the files: the error does not claim that nothing changed, and nothing
/// of the change is in force until the store answers; then all of it is.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_wait_for_a_hanging_store_are_reported_and_come_into_force_as_a_whole() {
    // `store_stall_ms` is high because a stall of the store would lower the routes.
    let system = with_pairs("limits: { move_answer_ms: 1500, store_stall_ms: 600000 }\n").await;
    let hangs = Strace::inject(system.pointsman.pid(), "fsync,fdatasync", "delay_enter=15000000").await;
    write_two_moves(&system);
    let error = until("the report", || last_error(&system)).await;
    assert!(error.contains("not known yet") && !error.contains("nothing changed"), "{error}");
    assert_eq!(states_and_flips(&system).await.0, BEFORE);
    assert_eq!(pairs(&system).await, 5);
    let up = system.flip("orders.create", "dark", &["--force", "--reason", "meanwhile"]).await;
    let refused = up.expect_err("it waits");
    assert!(refused.contains("not begun") && refused.contains("nothing changed"), "{refused}");
    until("both to move", || async { (states_and_flips(&system).await == expected_states(AFTER, 2)).then_some(()) })
        .await;
    hangs.end().await;
    until("the report to go", || async { last_error(&system).await.is_none().then_some(()) }).await;
    system.finish().await;
}

/// kill -9 at a thread's first, second or third write or sync after a change of the files: either none of it is
/// recorded, or all.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_one_of_the_first_writes_of_a_reload_leaves_all_or_nothing() {
    for calls in ["pwrite64", "fdatasync"] {
        for n in 1..=3 {
            let mut system = with_orders_in_shadow("").await;
            let fault = format!("signal=SIGKILL:when={n}");
            let generation = |status: &serde_json::Value| status["flags"]["generation"].as_u64();
            let before = generation(&system.pointsman.get("/api/v2/status").await);
            let strace = Strace::inject(system.pointsman.pid(), calls, &fault).await;
            let good = write_two_moves(&system);
            // The process dies at this write, or the reload has fewer writes.
            until("the kill, or the end of the reload", || async {
                match system.pointsman.try_api("/api/v2/status").await {
                    Some(reply) => (generation(&reply.json()) > before).then_some(()),
                    None => Some(()),
                }
            })
            .await;
            strace.end().await;
            system.kill().await;
            // Restarted with the earlier files: only what was recorded is in force.
            for (name, text) in &good {
                system.flags.write(name, text);
            }
            system.restart().await;
            let (states, measured, flips) = states_and_flips(&system).await;
            assert_eq!((states, measured), (BEFORE.map(str::to_owned), BEFORE.map(str::to_owned)), "{calls} {n}");
            assert!(flips == 0 || flips == 4, "{calls} {n}: both routes up and down again, or no flip: {flips}");
            system.finish().await;
        }
    }
}

/// Whether a process has a handler for this signal, by its number.
fn handles(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// A start may take long, for example while the tables of the store are upgraded; SIGHUP may come meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_during_the_start_reads_the_files_again_and_does_not_end_the_process() {
    let system = TestSystem::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(system.flags.path(), dir.path());
    let (hangup, terminate) = (Signal::HUP, Signal::TERM);
    let meanwhile = async |pid: u32| {
        // The process installs its handler of SIGTERM long before the store is open.
        until_true("a handler of SIGTERM", || handles(pid, terminate.as_raw() as u32)).await;
        let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, hangup).expect("the signal could be sent");
    };
    let started = Pointsman::try_start_with(&start, meanwhile).await;
    let mut started = started.unwrap_or_else(|log| panic!("it ended:\n{log}"));
    until_true("the reload", || started.log().contains("a new set of flag files is in force")).await;
    assert_eq!(started.stop().await, Some(0));
    system.finish().await;
}
