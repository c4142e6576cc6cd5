//! Disk faults: every write of the store fails with ENOSPC for a while, or files may not grow (a full disk); every sync
//! fails with EIO (a broken disk); every sync is slow (a slow disk).

use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::world::Fault;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::support::seed::{said, seed};
use crate::support::strace::Strace;
use crate::support::town::{Town, some_order};
use crate::support::{until, until_true};

/// What is wrong with the disk, until it is ended.
enum Sick {
    Calls(Strace),
    Limit(Pid),
}

impl Sick {
    async fn end(self) {
        match self {
            Sick::Calls(strace) => strace.end().await,
            Sick::Limit(pid) => limit(pid, None),
        }
    }
}

/// From now on the process cannot write to files.
async fn full(town: &Town) -> Sick {
    Sick::Calls(Strace::inject(town.pointsman.pid(), "pwrite64,pwritev", "error=ENOSPC").await)
}

/// From now on the process cannot write to files beyond this many bytes (`ulimit -f`).
async fn limited(town: &Town) -> Sick {
    let pid = i32::try_from(town.pointsman.pid()).ok().and_then(Pid::from_raw).expect("a process");
    limit(pid, Some(1_024));
    Sick::Limit(pid)
}

fn limit(pid: Pid, current: Option<u64>) {
    let limit = rustix::process::Rlimit { current, maximum: None };
    rustix::process::prlimit(Some(pid), rustix::process::Resource::Fsize, limit).expect("the limit is set");
}

/// From now on what it writes does not reach the disk, and it hears so.
async fn broken(town: &Town) -> Sick {
    Sick::Calls(Strace::inject(town.pointsman.pid(), "fsync,fdatasync", "error=EIO").await)
}

const RUNS: &str = "/api/v2/orchestrate/run";

/// A campaign, started and waiting for its review: the run and the checkpoint.
async fn campaign(town: &Town) -> (String, String) {
    let channels = json!([{ "channel": "radio", "amount": 70 }, { "channel": "paper", "amount": 30 }]);
    let body = json!({ "workflow": "launch-campaign", "input": { "product": "tea", "channels": channels } });
    let reply = town.pointsman.api(Method::POST, RUNS, body).await;
    let data = reply.json()["data"].clone();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{data}")).to_owned();
    (text(&data["run_id"]), text(&data["pending_checkpoint"]["id"]))
}

/// Approves everything; returns whether the answer is on disk.
async fn approved(town: &Town, (run, checkpoint): &(String, String)) -> bool {
    let path = format!("{RUNS}/{run}/checkpoints/{checkpoint}");
    let reply = town.pointsman.api(Method::POST, &path, json!({ "approve": true, "approved": [0, 1] })).await;
    let (status, said) = (reply.status.as_u16(), reply.json());
    assert!(matches!(status, 200 | 409 | 503), "{status} {said}");
    // 409: an earlier answer with an unknown outcome was recorded after all.
    status != 503
}

async fn ended(town: &Town, run: &str, status: &str) -> Value {
    until(&format!("{run} to be {status}"), || async {
        let shown = town.pointsman.get(&format!("{RUNS}/{run}")).await["data"].clone();
        (shown["status"] == status).then_some(shown)
    })
    .await
}

fn done(town: &Town, operation: &str) -> u64 {
    town.world.ledger().balance().total(operation)
}

/// The disk fails while a run waits for a person: the answer is repeated until it is accepted, and performed once.
async fn while_it_waits(test: &str, sick: impl AsyncFn(&Town) -> Sick) {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    let asked = campaign(&town).await;
    let sick = sick(&town).await;
    assert!(!approved(&town, &asked).await, "nothing is taken that is not on disk");
    assert_eq!(done(&town, "book"), 0, "nothing is booked that nobody is known to have approved");
    let status = town.pointsman.get("/api/v2/status").await;
    assert!(status["store_trouble"].is_string(), "it says what is wrong: {status}");
    sick.end().await;
    until("the answer to be taken", || async { approved(&town, &asked).await.then_some(()) }).await;
    ended(&town, &asked.0, "completed").await;
    assert_eq!((done(&town, "book"), done(&town, "announce")), (2, 1));
    town.finish().await;
    said(test, seed(), "1 run, 1 answer given again", &[]);
}

/// The disk fails while a run is undone: every effect is undone once, and the run ends.
async fn while_it_compensates(test: &str, sick: impl AsyncFn(&Town) -> Sick) {
    let mut town = Town::start().await;
    town.allowed.unacknowledged = true;
    let asked = campaign(&town).await;
    town.world.fault("announce", Fault::Refuse(400), 1);
    town.world.fault("book-back", Fault::Linger(Duration::from_millis(1_500)), 2);
    assert!(approved(&town, &asked).await);
    until_true("the bookings to be taken back", || town.world.arrived("book-back") >= 2).await;
    let sick = sick(&town).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await; // their answers come, and cannot be written down
    assert_eq!(done(&town, "budget-back"), 0, "the next is taken back when that is on disk");
    sick.end().await;
    let shown = ended(&town, &asked.0, "failed").await;
    let counts = ["book", "book-back", "budget", "budget-back"].map(|operation| done(&town, operation));
    assert_eq!(counts, [2, 2, 1, 1], "{shown}");
    assert_eq!(town.world.ledger().balance().repeated_deliveries, 0);
    town.finish().await;
    said(test, seed(), "1 run, 3 effects taken back", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_while_a_run_waits() {
    while_it_waits("disk::full_while_a_run_waits", full).await;
}

/// A write beyond the limit raises SIGXFSZ, which by default ends the process.
#[tokio::test(flavor = "multi_thread")]
async fn limited_while_a_run_waits() {
    while_it_waits("disk::limited_while_a_run_waits", limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_while_a_run_compensates() {
    while_it_compensates("disk::limited_while_a_run_compensates", limited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_while_a_run_waits() {
    while_it_waits("disk::broken_while_a_run_waits", broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_while_a_run_compensates() {
    while_it_compensates("disk::full_while_a_run_compensates", full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_while_a_run_compensates() {
    while_it_compensates("disk::broken_while_a_run_compensates", broken).await;
}

fn is_engines(order: &Value) -> bool {
    order["id"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_falls_back_and_recovers_unaided() {
    let town = Town::start().await;
    town.climb("live").await;
    assert!(is_engines(&town.order().await));
    town.quiet().await;
    let full = full(&town).await;
    for _ in 0..3 {
        assert!(!is_engines(&town.order().await), "nothing was begun, so legacy answers");
        town.ask(Method::GET, "/orders", &Value::Null).await;
    }
    full.end().await;
    until("the engine to answer again", || async { is_engines(&town.order().await).then_some(()) }).await;
    town.finish().await;
    said("disk::live_falls_back_and_recovers_unaided", seed(), "3 orders on a full disk", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_says_that_nothing_was_started() {
    let town = Town::start().await;
    town.climb("only").await;
    town.quiet().await;
    let full = full(&town).await;
    let charges = town.world.ledger().balance().total("charge");
    let refused = town.send(Method::POST, "/orders", &some_order(1)).await.expect("a reply");
    assert_eq!(refused.status.as_u16(), 503, "{:?}", refused.body);
    assert_eq!(town.world.ledger().balance().total("charge"), charges, "nothing was begun");
    full.end().await;
    until("the engine to answer again", || async {
        let reply = town.send(Method::POST, "/orders", &some_order(2)).await.ok()?;
        reply.status.is_success().then(|| town.note(reply.json()))
    })
    .await;
    town.finish().await;
    said("disk::only_says_that_nothing_was_started", seed(), "1 order on a full disk", &[]);
}

/// Every sync is slow: requests that legacy answers are not delayed; requests that the engine answers wait for their own
/// appends and succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_delays_only_requests_that_append() {
    const SYNC: Duration = Duration::from_millis(120);
    const ORDERS: usize = 6;
    let town = Town::start().await;
    town.climb("live").await;
    town.quiet().await;
    let slow = Strace::inject(town.pointsman.pid(), "fsync,fdatasync", "delay_exit=120000").await;
    let (mut wrong, mut legacy, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ORDERS {
        let asked = Instant::now();
        if !is_engines(&town.order().await) {
            wrong.push("a slow disk is no reason to fall back".to_owned());
        }
        engine.push(asked.elapsed());
        // A route that is off, while the disk is busy with the order's last events.
        let asked = Instant::now();
        town.ask(Method::GET, "/orders", &Value::Null).await;
        legacy.push(asked.elapsed());
    }
    slow.end().await;
    legacy.sort();
    engine.sort();
    let (usual, late) = (legacy[ORDERS / 2], engine[ORDERS / 2]);
    if usual > SYNC {
        wrong.push(format!("legacy's answers take {usual:?} behind a sync of {SYNC:?}"));
    }
    // One append for the start with the first call, one for each further call in sequence, one for the answer.
    if late > 12 * SYNC {
        wrong.push(format!("the engine's answers take {late:?}"));
    }
    town.finish().await;
    let figures =
        format!("{ORDERS} orders, each sync {SYNC:?}: legacy answers in {usual:.1?}, the engine in {late:.1?}");
    said("disk::a_slow_disk_delays_only_requests_that_append", seed(), &figures, &wrong);
}
