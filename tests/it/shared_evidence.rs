//! What two processes on one PostgreSQL have compared is one evidence, by which either of them judges.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use pointsman::demo::http::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::support::process::output_text;
use crate::support::seed::report_violations;
use crate::support::test_system::{FAMILY, some_order};
use crate::support::two_processes::TwoProcesses;

use crate::support::{Pointsman, WAIT_MAX, until};

const ROUTE: &str = "orders.create";
const RIGHT: &str = "* 100.0 + 0.5)";
/// The workflow with this rounds some amounts otherwise than legacy.
const WRONG: &str = "* 100.0)";

async fn flip(process: &Pointsman, route: &str, flip: Value) -> (u16, Value) {
    let reply = process.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), flip).await;
    (reply.status.as_u16(), reply.json())
}

async fn to_shadow(two: &TwoProcesses) {
    for route in FAMILY {
        let (status, reply) = flip(&two.processes[0], route, json!({ "to": "shadow", "reason": "a test" })).await;
        assert_eq!((status, &reply["not_in_force_in"]), (200, &Value::Null), "{reply}");
    }
}

/// Sends orders with these numbers to one process.
async fn order(client: &Client, process: &Pointsman, numbers: std::ops::Range<u64>) {
    let url = format!("{}/orders", process.url());
    futures_util::future::join_all(numbers.map(async |number| {
        let reply = client.json(Method::POST, &url, &[("x-tenant", "tenant")], &some_order(number)).await;
        assert!(reply.expect("a reply").status.is_success());
    }))
    .await;
}

async fn evidence(process: &Pointsman) -> Value {
    process.get(&format!("/api/v2/routes/{ROUTE}/evidence")).await["evidence"].clone()
}

fn count(evidence: &Value, name: &str) -> u64 {
    evidence[name].as_u64().unwrap_or_default()
}

/// How many requests were compared, or were not because the machine is busy.
fn settled(evidence: &Value) -> u64 {
    let of = |name: &str| -> u64 {
        let reasons = evidence[name].as_object().into_iter().flatten();
        reasons.filter_map(|(_, requests)| requests.as_u64()).sum()
    };
    count(evidence, "shadow_pairs") + of("skipped") + of("failed")
}

/// Waits until each of them has compared, or failed to compare, this many requests in all.
async fn until_all_have(processes: &[&Pointsman], pairs: u64) {
    for process in processes {
        until(&format!("{pairs} pairs in the evidence"), || async {
            let now = evidence(process).await;
            assert!(settled(&now) <= pairs, "more pairs than requests: {now}");
            (settled(&now) == pairs).then_some(())
        })
        .await;
    }
}

/// Both count, a third one that starts later has the sum, and a difference that one has found shuts the gate of the
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn the_evidence_of_two_processes_adds_up() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    let [first, second] = &two.processes;
    to_shadow(&two).await;
    for round in 0..4 {
        let from = round * 100;
        tokio::join!(order(&client, first, from..from + 12), order(&client, second, from + 50..from + 58));
    }
    until_all_have(&[first, second], 80).await;
    let mut wrong = Vec::new();
    let mut third = two.start_another("third").await;
    let shown = [evidence(first).await, evidence(second).await, evidence(&third).await];
    let kinds =
        |of: &Value| (of["matched"].clone(), of["strata"].clone(), of["effects"].clone(), of["skipped"].clone());
    if shown.iter().any(|of| kinds(of) != kinds(&shown[0])) || count(&shown[0], "mismatched") > 0 {
        wrong.push(format!("the processes have other evidence: {shown:?}"));
    }

    // The files of all say something else: what is counted from now on is counted from zero, by all.
    two.flags.edit("workflows/create-order.yaml", |text| text.replace(RIGHT, WRONG));
    for process in [first, second, &third] {
        until("the new files", || async { (settled(&evidence(process).await) == 0).then_some(()) }).await;
    }
    order(&client, second, 1_000..1_030).await;
    until_all_have(&[first, second, &third], 30).await;
    let different = count(&evidence(second).await, "mismatched");
    for follower in FAMILY.into_iter().filter(|route| *route != ROUTE) {
        let forced = json!({ "to": "dark", "reason": "followers first", "force": true });
        assert_eq!(flip(second, follower, forced).await.0, 200);
    }
    for process in [first, &third] {
        let (status, reply) = flip(process, ROUTE, json!({ "to": "dark", "reason": "too early" })).await;
        let refused = reply["reasons"].to_string();
        if status != 409 || !refused.contains(&format!("{different} open mismatch")) || different == 0 {
            wrong.push(format!("{different} differ at another process, and the gate says {status}: {reply}"));
        }
        let diffs = output_text(&process.cli(&["diffs", ROUTE]).await);
        if !diffs.contains("$.total") {
            wrong.push(format!("the differences are not shown: {diffs}"));
        }
    }
    // The change is taken back: the evidence goes on, of all that all have counted.
    two.flags.edit("workflows/create-order.yaml", |text| text.replace(WRONG, RIGHT));
    until_all_have(&[first, second, &third], 80).await;
    order(&client, &third, 2_000..2_010).await;
    until_all_have(&[first, second, &third], 90).await;
    third.stop().await;
    let gaps = evidence(first).await["gaps"].clone();
    if !gaps.is_null() {
        wrong.push(format!("a process that ended in order left a gap: {gaps}"));
    }
    wrong.extend(two.finish(0).await);
    let found = "90 pairs at three processes, 30 under other files";
    report_violations("shared_evidence::the_evidence_of_two_processes_adds_up", None, found, &wrong);
}

/// Pairs that were counted longer than this before a process is killed are in the store: `scale.md` says a second. On a
/// busy machine a write may begin late, and takes longer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1 + 2);

/// A process is killed under load: what it was comparing counts as not compared, the gap is shown, nothing is counted
/// twice, and of what it had compared only the last moments are lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_a_gap_and_nothing_more() {
    let Some(mut two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    to_shadow(&two).await;
    order(&client, &two.processes[1], 0..20).await;
    until_all_have(&[&two.processes[0], &two.processes[1]], 20).await;
    // It is stopped while requests are under way, and killed before their pairs are written.
    let second = &two.processes[1];
    let name = format!("process {}", second.pid());
    let sent = AtomicU64::new(20);
    let under_way = async {
        for round in 1.. {
            sent.fetch_add(4, Ordering::SeqCst);
            order(&client, second, round * 100..round * 100 + 4).await;
        }
    };
    // How many it had counted, and a time at which it had.
    let counted = Mutex::new(Vec::new());
    let stop = async {
        until("pairs that are to be in the store", || async {
            let pairs = settled(&evidence(second).await);
            let mut counted = counted.lock().unwrap();
            counted.push((Instant::now(), pairs));
            counted.iter().any(|(at, pairs)| *pairs > 20 && at.elapsed() > WRITTEN_WITHIN).then_some(())
        })
        .await;
        let stopped = Instant::now();
        second.signal(Signal::STOP);
        stopped
    };
    let stopped = tokio::select! {
        () = under_way => unreachable!("orders are sent until the process is stopped"),
        stopped = stop => stopped,
    };
    two.processes[1].kill().await;
    let (sent, counted) = (sent.into_inner(), counted.into_inner().unwrap());
    let is_written = |at: Instant| at + WRITTEN_WITHIN < stopped;
    let written = counted.iter().filter(|(at, _)| is_written(*at)).map(|(_, pairs)| *pairs).max().unwrap_or_default();
    let mut wrong = Vec::new();
    let gaps = until("the gap", || async {
        let gaps = evidence(&two.processes[0]).await["gaps"].clone();
        gaps.is_array().then_some(gaps)
    })
    .await;
    if gaps.as_array().is_none_or(|gaps| gaps.len() != 1) || !gaps.to_string().contains(&name) {
        wrong.push(format!("the gaps are {gaps}, and {name} was killed"));
    }
    let seen = evidence(&two.processes[0]).await;
    let (pairs, lost) = (settled(&seen), count(&gaps[0], "requests"));
    if pairs > sent || seen["skipped"]["shutting_down"].as_u64().unwrap_or(0) != lost {
        wrong.push(format!("{sent} requests, {pairs} pairs and {lost} lost ones: {seen}"));
    }
    // The requests of the gap are among the pairs here, and were not compared.
    if pairs < written + lost {
        wrong.push(format!(
            "{written} pairs were counted {WRITTEN_WITHIN:?} before the process was killed, and of {pairs} now {lost} \
             are those of the gap: {seen}"
        ));
    }
    let text = output_text(&two.processes[0].cli(&["evidence", ROUTE]).await);
    if !text.contains("missing, because a process ended") || !text.contains(&name) {
        wrong.push(format!("the gap is not shown:\n{text}"));
    }
    // The next process has all of it, and what is counted now comes to it.
    let restarted = two.start_another("restarted").await;
    order(&client, &restarted, 200..210).await;
    until_all_have(&[&two.processes[0], &restarted], pairs + 10).await;
    two.processes[1] = restarted;
    wrong.extend(two.finish(0).await);
    let found = format!("{pairs} pairs, of which {lost} of a gap, of {sent} requests; {written} had to be written");
    report_violations("shared_evidence::a_killed_process_leaves_a_gap_and_nothing_more", None, &found, &wrong);
}

/// One process finds differences and cannot write them, because its rows are locked: the gate of the other, which can
/// read them, stays shut until they are written, and then because of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_waits_for_what_another_process_cannot_write() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let client = Client::new(WAIT_MAX);
    let [first, second] = &two.processes;
    two.flags.edit("workflows/create-order.yaml", |text| text.replace(RIGHT, WRONG));
    for process in [first, second] {
        until("the new files", || async { process.log().contains("a new set of flag files").then_some(()) }).await;
    }
    to_shadow(&two).await;
    for follower in FAMILY.into_iter().filter(|route| *route != ROUTE) {
        let forced = json!({ "to": "dark", "reason": "followers first", "force": true });
        assert_eq!(flip(first, follower, forced).await.0, 200);
    }
    let mut store = PgConnection::connect(&two.cluster.url()).await.expect("a session");
    store.execute("BEGIN").await.expect("it begins");
    store.execute("LOCK TABLE pointsman.evidence IN EXCLUSIVE MODE").await.expect("it is locked");
    order(&client, second, 0..12).await;
    let to_dark = async || flip(first, ROUTE, json!({ "to": "dark", "reason": "too early" })).await;
    let told = "cannot write there what it has compared";
    let refused = until("the gate to say why", || async {
        let (status, reply) = to_dark().await;
        assert_eq!(status, 409, "{reply}");
        let reasons = reply["reasons"].to_string();
        reasons.contains(told).then_some(reasons)
    })
    .await;
    let mut wrong = Vec::new();
    let name = format!("process {}", second.pid());
    if !refused.contains(&name) {
        wrong.push(format!("the gate does not name {name}: {refused}"));
    }
    store.execute("ROLLBACK").await.expect("it is unlocked");
    until_all_have(&[first], 12).await;
    let reasons = until("the gate to know the differences", || async {
        let reasons = to_dark().await.1["reasons"].to_string();
        (!reasons.contains(told)).then_some(reasons)
    })
    .await;
    if !reasons.contains("open mismatch") {
        wrong.push(format!("the differences are written, and the gate says {reasons}"));
    }
    wrong.extend(two.finish(0).await);
    let found = "12 orders that one of two processes could not write";
    report_violations("shared_evidence::a_gate_waits_for_what_another_process_cannot_write", None, found, &wrong);
}
