//! While nothing happens, a database is asked nothing but what keeps a process known as alive, and one slow look around:
//! how many runs wait makes no difference.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use pointsman::demo::Latency;
use serde_json::json;
use tokio::task::block_in_place;

use crate::support::cluster::Cluster;
use crate::support::town::Town;
use crate::support::until;

const WAITER: &str =
    "workflow: waiter\nsteps:\n  pause: { wait: 24h }\nrespond: { status: 200, body: { done: true } }\n";
/// Runs that wait all the time.
const WAITING: usize = 200;
/// For so long it is listened to.
const WINDOW: Duration = Duration::from_secs(12);
/// A look around, and a word that the process lives.
const SWEEP: Duration = Duration::from_secs(4);
const LEASE: Duration = Duration::from_secs(9);
/// What one look around may ask, whatever waits: what is due, the next times, the notices.
const ASKED_A_SWEEP: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_where_nothing_happens_is_left_alone() {
    let Some(cluster) = block_in_place(Cluster::start) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let limits = format!("limits: {{ sweep_ms: {}, lease_ms: {} }}\n", SWEEP.as_millis(), LEASE.as_millis());
    let mut town = Town::on(Some(cluster.url()), Latency::instant(), |flags| {
        flags.write("workflows/waiter.yaml", WAITER);
        flags.edit("pointsman.yaml", |text| text + &limits);
    })
    .await;
    for _ in 0..WAITING {
        let body = json!({ "workflow": "waiter", "input": {}, "stream": false });
        let path = "/api/v2/orchestrate/run";
        let begun = town.pointsman.api_with(Method::POST, path, &[("prefer", "respond-async")], body).await;
        assert!(begun.status.is_success(), "{}", begun.json());
    }
    let waits = "SELECT count(*) FROM pointsman.runs WHERE NOT ended AND owner IS NULL AND turn IS NOT NULL";
    until("the runs to rest", || async {
        let resting = block_in_place(|| cluster.query(waits)).expect("it answers");
        (resting.trim() == WAITING.to_string()).then_some(())
    })
    .await;
    // What came with their beginning is over: the second look around from here has nothing left to do.
    tokio::time::sleep(2 * SWEEP).await;
    block_in_place(|| cluster.write_down());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = block_in_place(|| cluster.written_down()).len();
    tokio::time::sleep(WINDOW).await;
    let asked = block_in_place(|| cluster.written_down()).split_off(before);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for statement in &asked {
        let text = statement.split_once(": ").map_or(statement.as_str(), |(_, text)| text);
        *kinds.entry(text.chars().take(70).collect()).or_default() += 1;
    }
    let times = |every: Duration| (WINDOW.as_millis() / every.as_millis()) as usize + 1;
    // Beats, looks around, and one word on the session that listens.
    let bound = times(LEASE / 3) + times(SWEEP) * ASKED_A_SWEEP + 1;
    println!("{} statements in {WINDOW:?} (bound {bound}) while {WAITING} runs wait: {kinds:#?}", asked.len());
    assert!(!asked.is_empty(), "nothing was written down");
    assert!(asked.len() <= bound, "{} statements, at most {bound} are explained: {kinds:#?}", asked.len());
    town.allowed.unacknowledged = true;
    town.finish_waiting().await;
}
