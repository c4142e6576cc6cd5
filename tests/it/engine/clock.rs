//! The machine's clock is set while runs wait, or is wrong when the process starts. A jump ends no wait early or late;
//! a start takes the machine's time, but never a time before the store's newest event.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{EngineTest, id};
use crate::support::faketime::{self, FakeClock};
use crate::support::process::Start;
use crate::support::{FlagsDir, Pointsman, until};

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
/// How long the test watches that nothing is removed: two rounds of retention. There is one each second where the
/// shortest age under `retention:` is a few seconds.
const OBSERVED: Duration = Duration::from_millis(2_500);
const DAY_S: f64 = 86_400.0;

/// A test whose process sees a machine's clock that the test can set.
async fn test(more: &str) -> (EngineTest, FakeClock) {
    let mut test = EngineTest::with_settings(more, &[ASKS, WAITS], |_| {}).await;
    let clock = FakeClock::in_dir(test.dir.path());
    test.start.env.extend(clock.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
    test.kill_and_restart().await;
    (test, clock)
}

/// Sets the machine's clock, and waits until the process has noticed.
async fn set_clock(test: &EngineTest, clock: &FakeClock, by: &str, seconds: f64) {
    clock.set(by);
    let near =
        |metrics: &crate::support::Metrics| (metrics.sum("pointsman_clock_offset_seconds", &[]) - seconds).abs() < 30.0;
    test.pointsman.until_metric("the process to notice the new time", near).await;
}

/// How long a run takes that waits for one second.
async fn time_of_a_run(test: &EngineTest) -> Duration {
    let begun = Instant::now();
    let run = test.start_run("waits", json!({ "pause": "1s" })).await;
    test.wait_for_status(&run, "completed").await;
    begun.elapsed()
}

async fn newest_event(test: &EngineTest, run: &str) -> Timestamp {
    let events = test.events(run).await;
    events.last().and_then(|event| event["at"].as_str()).and_then(|at| at.parse().ok()).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_machines_clock_ends_no_wait() {
    let (test, clock) = test("").await;
    let asks = test.start_run("asks", json!({})).await;
    let waits = test.start_run("waits", json!({ "pause": "10h" })).await;
    test.wait_for_status(&asks, "waiting_checkpoint").await;
    test.wait_for_events(&waits, "wait_began", 1).await;
    assert!(!test.cli(&["status"]).await.contains("clock"), "nothing is said while nothing is wrong");
    for (by, seconds, says) in
        [("+1d", DAY_S, "ahead of the process's time"), ("-1d", -DAY_S, "behind the process's time")]
    {
        set_clock(&test, &clock, by, seconds).await;
        // A run that begins to wait now waits as long as declared; its timer also makes the process look for due runs.
        let took = time_of_a_run(&test).await;
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{by}: it waited {took:?}");
        assert_eq!(test.data(&asks).await["status"], "waiting_checkpoint", "{by}: nobody has approved it");
        assert_eq!(test.data(&waits).await["status"], "running", "{by}: its time has not come");
        assert_eq!(test.events_of_kind(&asks, "checkpoint_answered").await, [] as [Value; 0]);
        let shown = test.cli(&["status"]).await;
        assert!(shown.contains("clock: this machine's clock was set while the process runs"), "{shown}");
        assert!(shown.contains(says) && shown.contains("restart"), "{shown}");
        let log = test.pointsman.log();
        assert!(log.contains("this machine's clock was set while the process runs") && log.contains(says), "{log}");
    }
    let jumps = test.pointsman.metrics().await.sum("pointsman_clock_jumps_total", &[]);
    assert!((jumps - 2.0).abs() < f64::EPSILON, "{jumps} jumps");
    set_clock(&test, &clock, "+0", 0.0).await;
    until("the log says that it is right again", || async {
        test.pointsman.log().contains("within a minute of the process's time again").then_some(())
    })
    .await;
    assert!(!test.cli(&["status"]).await.contains("clock:"));
    // A jump of less than a minute is followed slowly and has no visible effect.
    set_clock(&test, &clock, "+50s", 50.0).await;
    let took = time_of_a_run(&test).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "it waited {took:?}");
    assert!(!test.cli(&["status"]).await.contains("clock:"));
    for run in [asks, waits] {
        test.post_accepted(&format!("{run}/cancel"), json!({})).await;
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_machines_time_but_never_goes_back() {
    let (mut test, clock) = test("").await;
    let first = test.start_run("asks", json!({})).await;
    test.wait_for_status(&first, "waiting_checkpoint").await;
    set_clock(&test, &clock, "+1d", DAY_S).await;
    assert_eq!(test.data(&first).await["status"], "waiting_checkpoint");
    test.kill_and_restart().await;
    // At its start the process takes the time of the machine's clock, as no event in the store is later: the timeout of
    // twelve hours has passed.
    test.wait_for_status(&first, "completed").await;
    assert!(!test.cli(&["status"]).await.contains("clock:"));
    let ahead = test.start_run("waits", json!({ "pause": "1ms" })).await;
    test.wait_for_status(&ahead, "completed").await;
    let newest = newest_event(&test, &ahead).await;
    assert!(newest.duration_since(Timestamp::now()).as_secs() > 80_000, "{newest}");
    // The machine's clock is right again, and the store's newest event is a day ahead of it.
    clock.set("+0");
    test.kill_and_restart().await;
    let shown = test.cli(&["status"]).await;
    assert!(shown.contains("clock: this machine's clock was 2") && shown.contains("newest event"), "{shown}");
    let log = test.pointsman.log();
    assert!(log.contains("behind the store's newest event when the process started"), "{log}");
    let offset = test
        .pointsman
        .until_metric("the offset to be shown", |metrics| {
            metrics.sum("pointsman_clock_offset_seconds", &[]).abs() > 1_000.0
        })
        .await
        .sum("pointsman_clock_offset_seconds", &[]);
    assert!((offset + DAY_S).abs() < 60.0, "{offset}");
    let took = time_of_a_run(&test).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "it waited {took:?}");
    let second = test.start_run("waits", json!({ "pause": "1ms" })).await;
    test.wait_for_status(&second, "completed").await;
    assert!(second > ahead, "{second} is listed as older than {ahead}, which began before it");
    let events = test.events(&second).await;
    for event in &events {
        let at: Timestamp = event["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        assert!(at >= newest, "{}: {at} is before {newest}", id(&second));
    }
    test.finish().await;
}

/// The expiry of retry keys and the removal of old runs use the process's time, which does not jump with the clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_machines_clock_forgets_and_removes_nothing() {
    let (test, clock) = test("retention: { completed: 20h, failed: 5s }").await;
    let request = json!({ "workflow": "waits", "input": { "pause": "1ms" }, "idempotency_key": "k-1" });
    let (status, first) = test.post(super::RUN, request.clone()).await;
    assert_eq!(status, 200, "{first}");
    set_clock(&test, &clock, "+3d", 3.0 * DAY_S).await;
    // Nothing is removed during this time, nor when another key is written.
    tokio::time::sleep(OBSERVED).await;
    let (status, other) = test
        .post(super::RUN, json!({ "workflow": "waits", "input": { "pause": "1s" }, "idempotency_key": "k-2" }))
        .await;
    assert_eq!(status, 200, "{other}");
    let (status, again) = test.post(super::RUN, request).await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["data"]["run_id"], first["data"]["run_id"], "the same key is the same run");
    assert_eq!(test.step_service.effects("POST /ships"), 2);
    test.finish().await;
}

const CHARGES: &str = "
workflow: charges
steps:
  pay: { call: 'POST ${services.works}/pays' }
respond: { status: 200, body: { by: engine } }
";

/// The machine's clock is a day ahead at one start, and right again at the next. Retries of what was performed before
/// are not performed again: neither those that the engine took nor those that legacy took.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_at_a_start_forgets_no_retry_key() {
    let routes =
        "routes:\n- { id: charges, match: { method: POST, path: /charges }, legacy: plain, workflow: charges }\n";
    let mut test = EngineTest::with_settings("", &[CHARGES], |flags| flags.write("routes/all.yaml", routes)).await;
    let clock = FakeClock::in_dir(test.dir.path());
    test.start.env.extend(clock.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
    test.kill_and_restart().await;
    let request = json!({ "workflow": "charges", "input": {}, "idempotency_key": "k-1" });
    let (status, first) = test.post(super::RUN, request.clone()).await;
    assert_eq!(status, 200, "{first}");
    let to_route = async |test: &EngineTest, key: &str| {
        let url = format!("{}/charges", test.pointsman.url());
        let key = [("idempotency-key", key)];
        test.client.json(http::Method::POST, &url, &key, &json!({})).await.expect("an answer").json()
    };
    let by_legacy = to_route(&test, "k-2").await;
    assert!(by_legacy["by"].is_null(), "{by_legacy}");
    for by in ["+26h", "+0"] {
        clock.set(by);
        test.kill_and_restart().await;
        test.cli(&["flip", "charges", "live", "--force", "--reason", "no pairs here"]).await;
        let (status, again) = test.post(super::RUN, request.clone()).await;
        assert_eq!(status, 200, "{again}");
        assert_eq!(again["data"]["run_id"], first["data"]["run_id"], "{by}: the same key is the same run");
        let again = to_route(&test, "k-2").await;
        assert!(again["by"].is_null(), "{by}: legacy answers a retry of what it took: {again}");
        let fresh = to_route(&test, &format!("new {by}")).await;
        assert_eq!(fresh["by"], "engine", "{by}: a new request goes to the engine");
    }
    assert_eq!(test.step_service.effects("POST /pays"), 3, "one run of the API, and two new requests");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_before_1970_is_refused_at_the_start() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:9");
    let env = faketime::offset("@1969-06-01 00:00:00").into_iter().map(|(name, value)| (name.to_owned(), value));
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", flags.file("pointsman.db").display()),
        log: flags.file("pointsman.log"),
        env: env.collect(),
    };
    let log = Pointsman::try_start(&start).await.err().expect("it is refused");
    assert!(log.contains("this machine's clock is before 1970 (1969-06-01T"), "{log}");
    assert!(!log.contains("panicked") && !flags.file("pointsman.db").exists(), "{log}");
}
