//! Two processes on one PostgreSQL: one is stopped beyond its lease, loses its database, or has a wrong clock; or a
//! client sends one keyed request to both.

use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::http::Client;
use pointsman::demo::world::Fault;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::requests_across_moves::force;
use crate::support::faketime::{self, FakeClock};
use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, some_order};
use crate::support::two_processes::{LEASE, TwoProcesses};
use crate::support::{self, until, until_true};

/// How much longer than two leases a takeover may take on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// The number of runs in flight when a fault happens.
const RUNS: usize = 6;

/// Starts runs at the first process; returns once their charges are in flight.
async fn start_runs_in_flight(two: &TwoProcesses) -> Vec<String> {
    two.world.fault("charge", Fault::DelayReply(Duration::from_secs(12)), RUNS);
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(two.start_run(0, "10ms").await);
    }
    until_true("their charges to arrive", || two.world.arrived("charge") >= RUNS as u64).await;
    runs
}

/// Checks that the first process accepts and finishes new runs.
async fn check_that_runs_complete(two: &TwoProcesses) {
    until("the first process to be ready", || async {
        let reply = two.processes[0].try_api("/readyz").await?;
        reply.status.is_success().then_some(())
    })
    .await;
    // It begins runs again once it has a lease and has followed the other process.
    until("it to have a lease", || async {
        let rows = two.processes[0].get("/api/v2/processes").await;
        let left =
            rows.as_array().and_then(|rows| rows.iter().find(|row| row["is_this"] == true))?["lease_left_ms"].as_u64();
        left.filter(|left| *left > 0)
    })
    .await;
    let mut more = Vec::new();
    for _ in 0..3 {
        // When the link is restored, each of the pool's four connections may fail once, and so may a new one; each
        // refusal says that nothing was started.
        more.push(two.start_run_after_refusals(0, "10ms", 8).await);
    }
    two.wait_until_completed(1, &more).await;
}

fn report_takeover(test: &str, took: Duration, mut wrong: Vec<String>) {
    if took > 2 * LEASE + SLACK {
        wrong.push(format!("the work moved within {took:?}, and the lease is {LEASE:?}"));
    }
    report_violations(
        test,
        None,
        &format!("{RUNS} runs, 1 takeover each, moved within {took:.1?} of a lease of {LEASE:?}"),
        &wrong,
    );
}

/// A process is stopped for longer than its lease and continues: its appends are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_resumes_after_its_lease_is_fenced() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let runs = start_runs_in_flight(&two).await;
    two.processes[0].signal(Signal::STOP);
    let since = Instant::now();
    two.wait_until_completed(1, &runs).await;
    let took = since.elapsed();
    two.processes[0].signal(Signal::CONT);
    check_that_runs_complete(&two).await;
    report_takeover("two_processes::a_process_that_resumes_after_its_lease_is_fenced", took, two.finish(1).await);
}

/// A process loses its database in the middle of calls: the other one continues its runs, and it recovers by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_its_database_loses_its_runs_and_comes_back() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let runs = start_runs_in_flight(&two).await;
    two.link.reset();
    let since = Instant::now();
    two.wait_until_completed(1, &runs).await;
    let took = since.elapsed();
    two.link.restore();
    check_that_runs_complete(&two).await;
    report_takeover(
        "two_processes::a_process_without_its_database_loses_its_runs_and_comes_back",
        took,
        two.finish(1).await,
    );
}

/// Like the test above, but bytes are silently not forwarded, instead of connections being closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_database_is_silent_loses_its_runs_and_comes_back() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let runs = start_runs_in_flight(&two).await;
    two.link.drop_silently();
    let since = Instant::now();
    two.wait_until_completed(1, &runs).await;
    let took = since.elapsed();
    two.link.restore();
    check_that_runs_complete(&two).await;
    report_takeover(
        "two_processes::a_process_whose_database_is_silent_loses_its_runs_and_comes_back",
        took,
        two.finish(1).await,
    );
}

const PAUSE: Duration = Duration::from_secs(4);

/// Runs of both processes wait; one process has a wrong clock, or its clock jumps.
async fn check_waits(test: &str, time: &[(&'static str, String)], jump: impl Fn(usize)) {
    let Some(two) = TwoProcesses::start(time).await else { return };
    let mut runs = Vec::new();
    for n in 0..2 * RUNS {
        runs.push(two.start_run(n % 2, &format!("{}s", PAUSE.as_secs())).await);
        jump(n);
    }
    two.wait_until_completed(0, &runs).await;
    let mut wrong = Vec::new();
    let (mut earliest, mut latest) = (Duration::MAX, Duration::ZERO);
    let ledger = two.world.ledger().entries();
    for run in &runs {
        let cause = format!("engine:{}", run.trim_start_matches("run_"));
        let at = |operation| ledger.iter().find(|line| line.caused_by == cause && line.operation == operation);
        let (Some(mail), Some(charge)) = (at("mail"), at("charge")) else {
            wrong.push(format!("{run} completed without its effects"));
            continue;
        };
        let waited = Duration::try_from(charge.at.duration_since(mail.at)).unwrap_or_default();
        (earliest, latest) = (earliest.min(waited), latest.max(waited));
        if waited < PAUSE {
            wrong.push(format!("{run} waited {waited:?} instead of {PAUSE:?}"));
        }
        for step in two.show(1, run).await["steps"].as_array().into_iter().flatten() {
            if step["duration_ms"].as_i64().is_none_or(|ms| ms < 0) && step["duration_ms"] != Value::Null {
                wrong.push(format!("{run}: a step took {}", step["duration_ms"]));
            }
        }
    }
    let shown = support::process::output_text(&two.processes[1].cli(&["status"]).await);
    if !shown.contains("the database's, and the process uses the database's") {
        wrong.push(format!("the status does not say that the machine's clock is wrong: {shown}"));
    }
    // No process crashed, so none takes over another's runs.
    wrong.extend(two.finish(0).await);
    let figures = format!("{} runs, waited {earliest:.1?} to {latest:.1?}", runs.len());
    report_violations(test, None, &figures, &wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_ends_no_wait_early() {
    check_waits("two_processes::a_clock_that_is_ahead_ends_no_wait_early", &faketime::offset("+2h"), |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_delays_no_other_process() {
    check_waits("two_processes::a_clock_that_is_behind_delays_no_other_process", &faketime::offset("-2h"), |_| {})
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_no_wait_early() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = FakeClock::in_dir(dir.path());
    check_waits("two_processes::a_clock_that_jumps_ends_no_wait_early", &clock.env(), |n| match n {
        4 => clock.set("+1h"),
        8 => clock.set("-1h"),
        _ => {}
    })
    .await;
}

/// The first process has earlier files, and records the flip of another route: what the second has recorded of its
/// files meanwhile stays, so that the files of a process that starts later change nothing anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_has_recorded_of_its_files_stays() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let flip = async |at: usize, route: &str, to: &str| {
        let flip = json!({ "to": to, "force": true, "reason": "the test moves it" });
        let reply = two.processes[at].api(Method::POST, &format!("/api/v2/routes/{route}/flip"), flip).await;
        assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
    };
    let [creator, other] =
        ["orders.create", FAMILY.into_iter().find(|route| *route != "orders.create").expect("a follower")];
    two.flags.edit("routes/orders.yaml", |text| text.replacen("    state: off\n", "    state: shadow\n", 3));
    // Both watch the files: one that reads them only after the flip would record their state over it.
    for process in &two.processes {
        assert!(process.cli(&["reload"]).await.status.success());
    }
    flip(1, creator, "off").await;
    flip(0, other, "shadow").await;
    let mut third = two.start_another("third").await;
    let rows = third.get("/api/v2/routes").await;
    let row = rows.as_array().expect("rows").iter().find(|row| row["id"] == creator).expect("the route").clone();
    let mut wrong = Vec::new();
    if row["requested"] != "off" {
        wrong.push(format!("the flip to `off` was undone at the start of another process: {row}"));
    }
    third.stop().await;
    wrong.extend(two.finish(0).await);
    report_violations("two_processes::what_another_process_has_recorded_of_its_files_stays", None, "2 flips", &wrong);
}

/// The engine of the second process takes a key after the first process started. The client's retry at the first
/// process, after the route was lowered there, goes to the engine's run, and nothing is performed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_process_took_is_known_below_live() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    for rung in ["shadow", "dark", "live"] {
        for route in FAMILY {
            let flip = json!({ "to": rung, "force": true, "reason": "the test climbs" });
            let path = format!("/api/v2/routes/{route}/flip");
            let reply = two.processes[1].api(Method::POST, &path, flip).await;
            assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
        }
    }
    let client = Client::new(support::WAIT_MAX);
    let order = async |at: usize| {
        let url = format!("{}/orders", two.processes[at].url());
        client.json(Method::POST, &url, &[("idempotency-key", "one")], &some_order(1)).await.expect("a reply").json()
    };
    let charges = || two.world.ledger().balance().total("charge");
    let first = order(1).await;
    assert!(first["id"].is_string(), "the engine's: {first}");
    let before = charges();
    for rung in ["dark", "off"] {
        let path = "/api/v2/routes/orders.create/flip";
        let reply = two.processes[0].api(Method::POST, path, json!({ "to": rung })).await;
        assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
    }
    let again = order(0).await;
    let mut wrong = Vec::new();
    if again["id"] != first["id"] || charges() != before {
        wrong.push(format!("the retry got {again} instead of {first}, {} charges more", charges() - before));
    }
    // While the database is silent, legacy answers a new order as usual: the route is `off`.
    two.link.drop_silently();
    let url = format!("{}/orders", two.processes[0].url());
    let fresh = client.json(Method::POST, &url, &[("idempotency-key", "two")], &some_order(2)).await.expect("a reply");
    two.link.restore();
    if !fresh.json()["id"].is_number() {
        wrong.push(format!("without the database: {} {}", fresh.status, fresh.json()));
    }
    wrong.extend(two.finish(0).await);
    report_violations("two_processes::a_key_that_another_process_took_is_known_below_live", None, "1 order", &wrong);
}

/// In `dark` a first try has a dark run, which sends private effects. A retry that reaches the other process has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_in_dark_that_reaches_another_process_makes_no_second_run() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    for rung in ["shadow", "dark"] {
        for route in FAMILY {
            let flip = json!({ "to": rung, "force": true, "reason": "the test climbs" });
            let path = format!("/api/v2/routes/{route}/flip");
            let reply = two.processes[1].api(Method::POST, &path, flip).await;
            assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
        }
    }
    let client = Client::new(support::WAIT_MAX);
    let settled = async |at: usize, reason: Option<&'static str>| {
        let of_route = [("route", "orders.create")].into_iter().chain(reason.map(|reason| ("reason", reason)));
        let of_route: Vec<_> = of_route.collect();
        two.processes[at].metrics().await.sum("pointsman_comparisons_total", &of_route)
    };
    let order = async |at: usize, key: &str| {
        let url = format!("{}/orders", two.processes[at].url());
        let reply =
            client.json(Method::POST, &url, &[("idempotency-key", key)], &some_order(1)).await.expect("a reply");
        assert!(reply.status.is_success(), "{} {}", reply.status, reply.json());
    };
    let dark_runs = async || {
        let runs = two.processes[0].get("/api/v2/orchestrate/runs?mode=dark").await;
        runs["runs"].as_array().expect("runs").len()
    };
    let mut wrong = Vec::new();
    let stored = || two.cluster.query("SELECT count(*) > 0 FROM pointsman.retry_keys");
    order(0, "one").await;
    until_true("the first try's dark run", || stored().is_ok_and(|is_stored| is_stored.trim() == "t")).await;
    until("the comparison", || async { (settled(0, None).await == 1.0).then_some(()) }).await;
    order(1, "one").await;
    until("the retry to be settled", || async { (settled(1, None).await == 1.0).then_some(()) }).await;
    let (skipped, runs) = (settled(1, Some("retried")).await, dark_runs().await);
    if skipped != 1.0 || runs != 1 {
        wrong.push(format!("{runs} dark runs; {skipped} skipped as retried at the second process"));
    }
    order(1, "two").await;
    until("a new request's dark run", || async { (dark_runs().await == 2).then_some(()) }).await;
    wrong.extend(two.finish(0).await);
    let test = "two_processes::a_retry_in_dark_that_reaches_another_process_makes_no_second_run";
    report_violations(test, None, "2 requests, one of them tried at both processes", &wrong);
}

/// A run of which nothing is stored while it only reads passes its deadline, and its request would fall back to legacy;
/// meanwhile the other process has performed the same request.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_another_process_performed_is_not_given_back_to_legacy() {
    const ORDERS: u64 = 3;
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    two.flags.edit("routes/orders.yaml", |text| {
        text.replacen("    workflow: create-order\n", "    workflow: create-order\n    deadline: 1500ms\n", 1)
    });
    for process in &two.processes {
        assert!(process.cli(&["reload"]).await.status.success());
        for rung in ["shadow", "dark", "live"] {
            for route in FAMILY {
                let flip = json!({ "to": rung, "force": true, "reason": "the test climbs" });
                let reply = process.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), flip).await;
                assert!(reply.status.is_success(), "{}", reply.json());
            }
        }
    }
    let client = Client::new(support::WAIT_MAX);
    let mut wrong = Vec::new();
    for number in 0..ORDERS {
        let key = format!("key-{number}");
        let send = async |at: usize| {
            let url = format!("{}/orders", two.processes[at].url());
            let headers = [("idempotency-key", key.as_str()), ("x-tenant", "tenant")];
            let reply = client.json(Method::POST, &url, &headers, &some_order(number)).await.expect("an answer");
            (reply.status.as_u16(), reply.json())
        };
        let quotes = two.world.arrived("quote");
        two.world.fault("quote", Fault::Delay(Duration::from_millis(1_900)), 1);
        let second = async {
            until_true("the first try to read", || two.world.arrived("quote") > quotes).await;
            send(1).await
        };
        let (first, second) = tokio::join!(send(0), second);
        let charges = two.world.ledger().balance().total("charge");
        if charges != number + 1 {
            wrong.push(format!("order {number}: {charges} charges after the answers {first:?} and {second:?}"));
        }
        if second.0 != 201 || !second.1["id"].is_string() {
            wrong.push(format!("order {number}: the other process answered {second:?}"));
        }
    }
    wrong.extend(two.finish(0).await);
    report_violations(
        "two_processes::a_request_that_another_process_performed_is_not_given_back_to_legacy",
        None,
        &format!("{ORDERS} requests, each tried at both processes"),
        &wrong,
    );
}

/// A step with a lock. The lock of another run is waited for.
const LOCKED: &str = r#"workflow: locked
steps:
  charge:
    lock: { key: shelf, busy: wait }
    call: POST ${services.bank}/charges
    headers: { x-caused-by: "engine:${run.id}" }
    body: { amount: 5 }
    timeout: 60s
respond: { status: 200, body: { done: true } }
"#;

/// A process that drains waits for a call. Meanwhile a lock becomes free that another run of it waits for: the other
/// process has that run, and completes it before the first one has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_draining_process_gives_away_the_runs_that_wait_for_locks() {
    let Some(two) = TwoProcesses::start_with_long_lease("drain_ms: 90000").await else { return };
    two.flags.write("workflows/locked.yaml", LOCKED);
    let start = async |at: usize, workflow: &str| {
        let body = json!({ "workflow": workflow, "input": { "pause": "10ms" }, "stream": false });
        let headers = [("prefer", "respond-async")];
        let reply = two.processes[at].api_with(Method::POST, "/api/v2/orchestrate/run", &headers, body).await;
        reply.status.is_success().then(|| reply.json()["data"]["run_id"].as_str().expect("a run").to_owned())
    };
    two.world.fault("charge", Fault::DelayReply(Duration::from_secs(5)), 1);
    let holds = until("the workflow to be in force", || start(1, "locked")).await;
    until_true("its charge to arrive", || two.world.arrived("charge") == 1).await;
    two.world.fault("charge", Fault::DelayReply(Duration::from_secs(30)), 1);
    let calls = start(0, "relay").await.expect("a run");
    until_true("its charge to arrive", || two.world.arrived("charge") == 2).await;
    let waits = until("the workflow to be in force", || start(0, "locked")).await;
    until("it to wait for the lock", || async {
        let explained = two.processes[0].get(&format!("/api/v2/orchestrate/run/{waits}/explain")).await;
        explained.to_string().contains("has held it").then_some(())
    })
    .await;
    two.processes[0].terminate();
    two.wait_until_completed(1, &[holds, waits]).await;
    let mut wrong = Vec::new();
    let call_is_under_way = two.show(1, &calls).await["status"] == "running";
    let still_drains = two.processes[0].try_api("/api/v2/status").await.is_some();
    if !call_is_under_way || !still_drains {
        wrong.push("the run that waited for a lock was completed only after the drain".to_owned());
    }
    two.wait_until_completed(1, &[calls]).await;
    wrong.extend(two.finish(0).await);
    report_violations(
        "two_processes::a_draining_process_gives_away_the_runs_that_wait_for_locks",
        None,
        "3 runs, one of which waits for a lock in a process that drains",
        &wrong,
    );
}

/// A process is told to stop while a caller waits for a run that waits for a lock: the run goes on here once the lock is
/// free.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_process_finishes_the_runs_of_its_callers() {
    let Some(two) = TwoProcesses::start_with_long_lease("drain_ms: 90000").await else { return };
    two.flags.write("workflows/locked.yaml", LOCKED);
    two.flags.write(
        "routes/locked.yaml",
        "routes:\n- { id: locked, match: { method: POST, path: /locked }, legacy: shop, workflow: locked, state: off }\n",
    );
    for at in [0, 1] {
        until("the route to be there", || async {
            two.processes[at].try_api("/api/v2/routes/locked").await?.status.is_success().then_some(())
        })
        .await;
    }
    for to in ["shadow", "dark", "live", "only"] {
        force(&two, 0, "locked", to).await;
    }
    two.world.fault("charge", Fault::DelayReply(Duration::from_secs(5)), 1);
    let body = json!({ "workflow": "locked", "input": {}, "stream": false });
    let headers = [("prefer", "respond-async")];
    let holds = two.processes[1].api_with(Method::POST, "/api/v2/orchestrate/run", &headers, body).await.json();
    until_true("its charge to arrive", || two.world.arrived("charge") == 1).await;
    let url = format!("{}/locked", two.processes[0].url());
    let client = Client::new(support::WAIT_MAX);
    let answer = tokio::spawn(async move { client.json(Method::POST, &url, &[], &json!({})).await });
    let runs = async || two.processes[0].get("/api/v2/orchestrate/runs?route=locked").await;
    let waits = until("the request to begin a run", || async {
        runs().await["runs"].as_array()?.first()?["run_id"].as_str().map(str::to_owned)
    })
    .await;
    until("it to wait for the lock", || async {
        let explained = two.processes[0].get(&format!("/api/v2/orchestrate/run/{waits}/explain")).await;
        explained.to_string().contains("has held it").then_some(())
    })
    .await;
    two.processes[0].terminate();
    let reply = answer.await.expect("it ends").expect("an answer");
    let mut wrong = Vec::new();
    if reply.status != 200 {
        wrong.push(format!("the caller got {} {}", reply.status, reply.json()));
    }
    let holds = holds["data"]["run_id"].as_str().expect("a run").to_owned();
    two.wait_until_completed(1, &[holds, waits]).await;
    wrong.extend(two.finish(0).await);
    report_violations(
        "two_processes::a_stopping_process_finishes_the_runs_of_its_callers",
        None,
        "a request that waits for a lock",
        &wrong,
    );
}
