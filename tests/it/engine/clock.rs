//! T11: the machine's clock is set while runs wait, or is wrong when the process starts. No wait ends early or late.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Plant, id};
use crate::support::faketime::FakeClock;
use crate::support::until;

const ASKS: &str = "
workflow: asks
steps:
  ask: { checkpoint: { question: Ship it?, timeout: 12h, on_timeout: approve, default: {} } }
  ship: { needs: [ask], call: 'POST ${services.works}/ships' }
respond: { status: 200, body: shipped }
";
const WAITS: &str = "
workflow: waits
steps:
  pause: { wait: '${request.body.pause}' }
  ship: { needs: [pause], call: 'POST ${services.works}/ships' }
respond: { status: 200, body: shipped }
";
const DAY_S: f64 = 86_400.0;

/// A process whose machine's clock can be set.
async fn plant(more: &str) -> (Plant, FakeClock) {
    let mut plant = Plant::made(more, &[ASKS, WAITS], |_| {}).await;
    let clock = FakeClock::in_dir(plant.dir.path());
    plant.start.env.extend(clock.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
    plant.killed_and_back().await;
    (plant, clock)
}

/// Sets the machine's clock, and waits until the process has noticed.
async fn set(plant: &Plant, clock: &FakeClock, by: &str, seconds: f64) {
    clock.set(by);
    tokio::time::sleep(FakeClock::SEEN_AFTER).await;
    let near =
        |metrics: &crate::support::Metrics| (metrics.sum("pointsman_clock_offset_seconds", &[]) - seconds).abs() < 30.0;
    plant.pointsman.until_metric("the process has noticed", near).await;
}

/// A run that waits for a second: how long it took.
async fn waits_a_second(plant: &Plant) -> Duration {
    let begun = Instant::now();
    let run = plant.begun("waits", json!({ "pause": "1s" })).await;
    plant.comes_to(&run, "completed").await;
    begun.elapsed()
}

async fn newest_event(plant: &Plant, run: &str) -> Timestamp {
    let events = plant.events(run).await;
    events.last().and_then(|event| event["at"].as_str()).and_then(|at| at.parse().ok()).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_machines_clock_ends_no_wait() {
    let (plant, clock) = plant("").await;
    let asks = plant.begun("asks", json!({})).await;
    let waits = plant.begun("waits", json!({ "pause": "10h" })).await;
    plant.comes_to(&asks, "waiting_checkpoint").await;
    plant.until_told(&waits, "wait_began", 1).await;
    assert!(!plant.cli(&["status"]).await.contains("clock"), "nothing is said while nothing is wrong");
    for (by, seconds, says) in
        [("+1d", DAY_S, "ahead of the process's time"), ("-1d", -DAY_S, "behind the process's time")]
    {
        set(&plant, &clock, by, seconds).await;
        // Whoever begins to wait now waits as long as it says, and makes the process look at what is due.
        let took = waits_a_second(&plant).await;
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{by}: it waited {took:?}");
        assert_eq!(plant.data(&asks).await["status"], "waiting_checkpoint", "{by}: nobody has approved it");
        assert_eq!(plant.data(&waits).await["status"], "running", "{by}: its time has not come");
        assert_eq!(plant.told(&asks, "checkpoint_answered").await, [] as [Value; 0]);
        let shown = plant.cli(&["status"]).await;
        assert!(shown.contains("clock: this machine's clock was set while the process runs"), "{shown}");
        assert!(shown.contains(says) && shown.contains("restart"), "{shown}");
        let log = plant.pointsman.log();
        assert!(log.contains("this machine's clock was set while the process runs") && log.contains(says), "{log}");
    }
    let jumps = plant.pointsman.metrics().await.sum("pointsman_clock_jumps_total", &[]);
    assert!((jumps - 2.0).abs() < f64::EPSILON, "{jumps} jumps");
    set(&plant, &clock, "+0", 0.0).await;
    until("the log says that it is right again", || async {
        plant.pointsman.log().contains("within a minute of the process's time again").then_some(())
    })
    .await;
    assert!(!plant.cli(&["status"]).await.contains("clock:"));
    // By as much as is followed, nobody can tell.
    set(&plant, &clock, "+50s", 50.0).await;
    let took = waits_a_second(&plant).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "it waited {took:?}");
    assert!(!plant.cli(&["status"]).await.contains("clock:"));
    for run in [asks, waits] {
        plant.taken(&format!("{run}/cancel"), json!({})).await;
    }
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_machines_time_and_never_goes_back() {
    let (mut plant, clock) = plant("").await;
    let first = plant.begun("asks", json!({})).await;
    plant.comes_to(&first, "waiting_checkpoint").await;
    set(&plant, &clock, "+1d", DAY_S).await;
    assert_eq!(plant.data(&first).await["status"], "waiting_checkpoint");
    plant.killed_and_back().await;
    // The machine's clock says so at the start, and nothing speaks against it: twelve hours are over.
    plant.comes_to(&first, "completed").await;
    assert!(!plant.cli(&["status"]).await.contains("clock:"));
    let ahead = plant.begun("waits", json!({ "pause": "1ms" })).await;
    plant.comes_to(&ahead, "completed").await;
    let newest = newest_event(&plant, &ahead).await;
    assert!(newest.duration_since(Timestamp::now()).as_secs() > 80_000, "{newest}");
    // The machine's clock is right again, and the store's newest event is a day ahead of it.
    clock.set("+0");
    plant.killed_and_back().await;
    let shown = plant.cli(&["status"]).await;
    assert!(shown.contains("clock: this machine's clock was 2") && shown.contains("newest event"), "{shown}");
    let log = plant.pointsman.log();
    assert!(log.contains("behind the store's newest event when the process started"), "{log}");
    let offset = plant
        .pointsman
        .until_metric("the offset is shown", |metrics| {
            metrics.sum("pointsman_clock_offset_seconds", &[]).abs() > 1_000.0
        })
        .await
        .sum("pointsman_clock_offset_seconds", &[]);
    assert!((offset + DAY_S).abs() < 60.0, "{offset}");
    let took = waits_a_second(&plant).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "it waited {took:?}");
    let second = plant.begun("waits", json!({ "pause": "1ms" })).await;
    plant.comes_to(&second, "completed").await;
    assert!(second > ahead, "{second} is listed as older than {ahead}, which began before it");
    let events = plant.events(&second).await;
    for event in &events {
        let at: Timestamp = event["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        assert!(at >= newest, "{}: {at} is before {newest}", id(&second));
    }
    plant.finish().await;
}

/// What a retry may ask for is remembered, and what is old is removed, by the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_machines_clock_forgets_and_removes_nothing() {
    let (plant, clock) = plant("retention: { completed: 20h, failed: 5s }").await;
    let ask = json!({ "workflow": "waits", "input": { "pause": "1ms" }, "idempotency_key": "k-1" });
    let (status, first) = plant.post(super::RUN, ask.clone()).await;
    assert_eq!(status, 200, "{first}");
    set(&plant, &clock, "+3d", 3.0 * DAY_S).await;
    // Two rounds of retention, which come every second where an age is a few seconds; and another key is written.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (status, other) = plant
        .post(super::RUN, json!({ "workflow": "waits", "input": { "pause": "1s" }, "idempotency_key": "k-2" }))
        .await;
    assert_eq!(status, 200, "{other}");
    let (status, again) = plant.post(super::RUN, ask).await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["data"]["run_id"], first["data"]["run_id"], "the same key is the same run");
    assert_eq!(plant.works.done("POST /ships"), 2);
    plant.finish().await;
}
