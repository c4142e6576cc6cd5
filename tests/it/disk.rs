//! Disk faults: every write of the store fails with ENOSPC for a while, or files may not grow (a full disk); every sync
//! fails with EIO (a broken disk); every sync is slow (a slow disk).

use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::world::Fault;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::support::seed::report_violations;
use crate::support::strace::Strace;
use crate::support::test_system::{TestSystem, some_order};
use crate::support::{until, until_true};

/// A disk fault, until it is ended.
enum DiskFault {
    Calls(Strace),
    Limit(Pid),
}

impl DiskFault {
    async fn end(self) {
        match self {
            DiskFault::Calls(strace) => strace.end().await,
            DiskFault::Limit(pid) => limit(pid, None),
        }
    }
}

/// From now on every write of the store fails because the disk is full. Writes to the log do not fail.
async fn fill_disk(system: &TestSystem) -> DiskFault {
    DiskFault::Calls(Strace::inject(system.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await)
}

/// From now on the process cannot write to files beyond this many bytes (`ulimit -f`).
async fn limit_files(system: &TestSystem) -> DiskFault {
    let pid = i32::try_from(system.pointsman.pid()).ok().and_then(Pid::from_raw).expect("a process");
    limit(pid, Some(1_024));
    DiskFault::Limit(pid)
}

fn limit(pid: Pid, current: Option<u64>) {
    let limit = rustix::process::Rlimit { current, maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).expect("the limit is set");
}

/// From now on every sync of the process fails with an error.
async fn break_disk(system: &TestSystem) -> DiskFault {
    DiskFault::Calls(Strace::inject(system.pointsman.pid(), "fsync,fdatasync", "error=EIO").await)
}

const RUNS: &str = "/api/v2/orchestrate/run";

/// A campaign, started and waiting for its review: the run and the checkpoint.
async fn start_campaign(system: &TestSystem) -> (String, String) {
    let channels = json!([{ "channel": "radio", "amount": 70 }, { "channel": "paper", "amount": 30 }]);
    let body = json!({ "workflow": "launch-campaign", "input": { "product": "tea", "channels": channels } });
    let reply = system.pointsman.api(Method::POST, RUNS, body).await;
    let data = reply.json()["data"].clone();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{data}")).to_owned();
    (text(&data["run_id"]), text(&data["pending_checkpoint"]["id"]))
}

/// Approves everything; returns whether the answer is on disk.
async fn approve(system: &TestSystem, (run, checkpoint): &(String, String)) -> bool {
    let path = format!("{RUNS}/{run}/checkpoints/{checkpoint}");
    let reply = system.pointsman.api(Method::POST, &path, json!({ "approve": true, "approved": [0, 1] })).await;
    let (status, answer) = (reply.status.as_u16(), reply.json());
    assert!(matches!(status, 200 | 409 | 503), "{status} {answer}");
    // 409: an earlier answer with an unknown outcome was recorded after all.
    status != 503
}

async fn wait_for_status(system: &TestSystem, run: &str, status: &str) -> Value {
    until(&format!("{run} to be {status}"), || async {
        let shown = system.pointsman.get(&format!("{RUNS}/{run}")).await["data"].clone();
        (shown["status"] == status).then_some(shown)
    })
    .await
}

fn effects(system: &TestSystem, operation: &str) -> u64 {
    system.world.ledger().balance().total(operation)
}

/// The disk fails while a run waits for a person: the answer is repeated until it is accepted, and performed once.
async fn fail_while_a_run_waits(test: &str, fault: impl AsyncFn(&TestSystem) -> DiskFault) {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let campaign = start_campaign(&system).await;
    let fault = fault(&system).await;
    assert!(!approve(&system, &campaign).await, "no answer is accepted that is not on disk");
    assert_eq!(effects(&system, "book"), 0, "nothing is booked before the approval is on disk");
    let status = system.pointsman.get("/api/v2/status").await;
    assert!(status["store_trouble"].is_string(), "it says what is wrong: {status}");
    fault.end().await;
    until("the answer to be taken", || async { approve(&system, &campaign).await.then_some(()) }).await;
    wait_for_status(&system, &campaign.0, "completed").await;
    assert_eq!((effects(&system, "book"), effects(&system, "announce")), (2, 1));
    system.finish().await;
    report_violations(test, None, "1 run, 1 answer given again", &[]);
}

/// The disk fails while a run is undone: every effect is undone once, and the run ends.
async fn fail_while_a_run_compensates(test: &str, fault: impl AsyncFn(&TestSystem) -> DiskFault) {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    let campaign = start_campaign(&system).await;
    system.world.fault("announce", Fault::Refuse(400), 1);
    system.world.fault("book-back", Fault::DelayReply(Duration::from_millis(1_500)), 2);
    assert!(approve(&system, &campaign).await);
    until_true("the bookings to be taken back", || system.world.arrived("book-back") >= 2).await;
    let fault = fault(&system).await;
    let in_flight = async || system.pointsman.metrics().await.sum("pointsman_service_calls_in_flight", &[]);
    until("their answers to come", || async { (in_flight().await == 0.0).then_some(()) }).await;
    until("a write to fail", || async {
        system.pointsman.get("/api/v2/status").await["store_trouble"].is_string().then_some(())
    })
    .await;
    assert_eq!(effects(&system, "budget-back"), 0, "the next effect is undone only once these undos are on disk");
    fault.end().await;
    let shown = wait_for_status(&system, &campaign.0, "failed").await;
    let counts = ["book", "book-back", "budget", "budget-back"].map(|operation| effects(&system, operation));
    assert_eq!(counts, [2, 2, 1, 1], "{shown}");
    assert_eq!(system.world.ledger().balance().repeated_deliveries, 0);
    system.finish().await;
    report_violations(test, None, "1 run, 3 effects taken back", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_survives_a_full_disk() {
    fail_while_a_run_waits("disk::a_run_that_waits_survives_a_full_disk", fill_disk).await;
}

/// A write beyond the limit raises SIGXFSZ, which by default ends the process.
#[tokio::test(flavor = "multi_thread")]
async fn limited_while_a_run_waits() {
    fail_while_a_run_waits("disk::limited_while_a_run_waits", limit_files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_while_a_run_compensates() {
    fail_while_a_run_compensates("disk::limited_while_a_run_compensates", limit_files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_while_a_run_waits() {
    fail_while_a_run_waits("disk::broken_while_a_run_waits", break_disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_while_a_run_compensates() {
    fail_while_a_run_compensates("disk::full_while_a_run_compensates", fill_disk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_while_a_run_compensates() {
    fail_while_a_run_compensates("disk::broken_while_a_run_compensates", break_disk).await;
}

fn is_from_engine(order: &Value) -> bool {
    order["id"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_falls_back_and_recovers_unaided() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    assert!(is_from_engine(&system.order().await));
    system.wait_for_runs_to_end().await;
    let full = fill_disk(&system).await;
    for _ in 0..3 {
        assert!(!is_from_engine(&system.order().await), "nothing was begun, so legacy answers");
        system.send_ok(Method::GET, "/orders", &Value::Null).await;
    }
    full.end().await;
    until("the engine to answer again", || async { is_from_engine(&system.order().await).then_some(()) }).await;
    system.finish().await;
    report_violations("disk::live_falls_back_and_recovers_unaided", None, "3 orders on a full disk", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_in_only_gives_503_and_begins_nothing() {
    let system = TestSystem::start().await;
    system.climb_to("only").await;
    system.wait_for_runs_to_end().await;
    let full = fill_disk(&system).await;
    let charges = system.world.ledger().balance().total("charge");
    let refused = system.send(Method::POST, "/orders", &some_order(1)).await.expect("a reply");
    assert_eq!(refused.status.as_u16(), 503, "{:?}", refused.body);
    assert_eq!(system.world.ledger().balance().total("charge"), charges, "nothing was begun");
    full.end().await;
    until("the engine to answer again", || async {
        let reply = system.send(Method::POST, "/orders", &some_order(2)).await.ok()?;
        reply.status.is_success().then(|| system.record_order(reply.json()))
    })
    .await;
    system.finish().await;
    report_violations("disk::a_full_disk_in_only_gives_503_and_begins_nothing", None, "1 order on a full disk", &[]);
}

/// Every sync is slow: requests that legacy answers are not delayed; requests that the engine answers wait for their
/// own appends and succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_delays_only_requests_that_append() {
    const SYNC: Duration = Duration::from_millis(120);
    const ORDERS: usize = 6;
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    system.wait_for_runs_to_end().await;
    let slow = Strace::inject(system.pointsman.pid(), "fsync,fdatasync", "delay_exit=120000").await;
    let (mut wrong, mut legacy, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ORDERS {
        let sent_at = Instant::now();
        if !is_from_engine(&system.order().await) {
            wrong.push("a slow disk is no reason to fall back".to_owned());
        }
        engine.push(sent_at.elapsed());
        // A route that is off, while the disk is busy with the order's last events.
        let sent_at = Instant::now();
        system.send_ok(Method::GET, "/orders", &Value::Null).await;
        legacy.push(sent_at.elapsed());
    }
    slow.end().await;
    legacy.sort();
    engine.sort();
    let (legacy_median, engine_median) = (legacy[ORDERS / 2], engine[ORDERS / 2]);
    if legacy_median > SYNC {
        wrong.push(format!("legacy's answers take {legacy_median:?} behind a sync of {SYNC:?}"));
    }
    // One append for the start with the first call, one for each further call in sequence, one for the answer.
    if engine_median > 12 * SYNC {
        wrong.push(format!("the engine's answers take {engine_median:?}"));
    }
    system.finish().await;
    let figures = format!(
        "{ORDERS} orders, each sync {SYNC:?}: legacy answers in {legacy_median:.1?}, the engine in {engine_median:.1?}"
    );
    report_violations("disk::a_slow_disk_delays_only_requests_that_append", None, &figures, &wrong);
}
