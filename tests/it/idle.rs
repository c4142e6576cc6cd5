//! An idle process sends the database only heartbeats and one slow poll, however many runs wait.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use pointsman::demo::Latency;
use serde_json::json;
use tokio::task::block_in_place;

use crate::support::postgres_server::Cluster;
use crate::support::test_system::TestSystem;
use crate::support::until;

const WAITER: &str =
    "workflow: waiter\nsteps:\n  pause: { wait: 24h }\nrespond: { status: 200, body: { done: true } }\n";
/// The number of waiting runs.
const WAITING: usize = 200;
/// For how long statements are recorded, to see that nothing else is sent.
const WINDOW: Duration = Duration::from_secs(12);
/// The interval of the poll.
const SWEEP: Duration = Duration::from_secs(4);
/// The length of the lease; a heartbeat is sent after each third of it.
const LEASE: Duration = Duration::from_secs(9);
/// The statement by which the test recognises a poll: it reads the next timers.
const POLL: &str = "SELECT turn, run_id FROM runs";
/// The most statements of one poll, whatever waits: due runs, next timers, notices.
const POLL_STATEMENTS_MAX: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_sends_only_heartbeats_and_polls() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let limits = format!("limits: {{ sweep_ms: {}, lease_ms: {} }}\n", SWEEP.as_millis(), LEASE.as_millis());
    let mut system = TestSystem::on(Some(cluster.url()), Latency::instant(), |flags| {
        flags.write("workflows/waiter.yaml", WAITER);
        flags.edit("pointsman.yaml", |text| text + &limits);
    })
    .await;
    for _ in 0..WAITING {
        let body = json!({ "workflow": "waiter", "input": {}, "stream": false });
        let path = "/api/v2/orchestrate/run";
        let begun = system.pointsman.api_with(Method::POST, path, &[("prefer", "respond-async")], body).await;
        assert!(begun.status.is_success(), "{}", begun.json());
    }
    let waits = "SELECT count(*) FROM pointsman.runs WHERE NOT ended AND owner IS NULL AND turn IS NOT NULL";
    until("the runs to be suspended", || async {
        let suspended = block_in_place(|| cluster.query(waits)).expect("it answers");
        (suspended.trim() == WAITING.to_string()).then_some(())
    })
    .await;
    // The work of starting the runs is over after the second poll from here.
    block_in_place(|| cluster.log_statements());
    until("two polls", || async {
        let logged = block_in_place(|| cluster.logged_statements());
        (logged.iter().filter(|statement| statement.contains(POLL)).count() >= 2).then_some(())
    })
    .await;
    let before = block_in_place(|| cluster.logged_statements()).len();
    tokio::time::sleep(WINDOW).await;
    let sent = block_in_place(|| cluster.logged_statements()).split_off(before);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for statement in &sent {
        let text = statement.split_once(": ").map_or(statement.as_str(), |(_, text)| text);
        *kinds.entry(text.chars().take(70).collect()).or_default() += 1;
    }
    let times = |every: Duration| (WINDOW.as_millis() / every.as_millis()) as usize + 1;
    // Heartbeats, polls, what processes tell each other once a second, and one statement on the listening session.
    let bound = times(LEASE / 3) + times(SWEEP) * POLL_STATEMENTS_MAX + times(Duration::from_secs(1)) + 1;
    println!("{} statements in {WINDOW:?} (bound {bound}) while {WAITING} runs wait: {kinds:#?}", sent.len());
    assert!(!sent.is_empty(), "no statement was logged");
    assert!(sent.len() <= bound, "{} statements, at most {bound} are explained: {kinds:#?}", sent.len());
    system.allowed.unacknowledged = true;
    system.finish_with_open_runs().await;
}
