//! Which processes share a database: their list, files that differ, and processes that end.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::support::faketime;
use crate::support::process::output_text;
use crate::support::seed::report_violations;
use crate::support::two_processes::{LEASE, TwoProcesses};
use crate::support::{FlagsDir, Pointsman, until};

/// How much longer than its lease a process may be listed on a busy machine: the list is read once a second.
const SLACK: Duration = Duration::from_secs(4);
const ROUTE: &str = "orders.get";
const WORKFLOW: &str = "    workflow: create-order\n";

async fn rows(at: &Pointsman) -> Vec<Value> {
    at.get("/api/v2/processes").await.as_array().expect("rows").clone()
}

/// Waits until a process lists so many, whose rows all hold.
async fn until_listed(at: &Pointsman, number: usize, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
    until(&format!("{number} processes to be listed"), || async {
        let rows = rows(at).await;
        (rows.len() == number && rows.iter().all(&holds)).then_some(rows)
    })
    .await
}

async fn flip(at: &Pointsman, to: &str, force: bool) -> (u16, Value) {
    let flip = json!({ "to": to, "force": force, "reason": "the test moves it" });
    let reply = at.api(Method::POST, &format!("/api/v2/routes/{ROUTE}/flip"), flip).await;
    (reply.status.as_u16(), reply.json())
}

fn has_been_told(row: &Value) -> bool {
    row["admin"] != "" && row["clock_ahead_ms"].is_i64()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_lists_all_with_their_versions_addresses_and_clocks() {
    let Some(two) = TwoProcesses::start(&faketime::offset("+2h")).await else { return };
    let mut wrong = Vec::new();
    for (at, process) in two.processes.iter().enumerate() {
        let rows = until_listed(process, 2, has_been_told).await;
        for (row, of, is_this) in [(&rows[0], at, true), (&rows[1], 1 - at, false)] {
            let of_row = &two.processes[of];
            let is_right = row["is_this"] == is_this
                && row["pid"] == of_row.pid()
                && row["version"] == env!("CARGO_PKG_VERSION")
                && of_row.url().ends_with(row["listen"][0].as_str().unwrap_or("?"))
                && of_row.admin_url().ends_with(row["admin"].as_str().unwrap_or("?"))
                && row["files"] == "same"
                && row["edition"].as_str().is_some_and(|edition| edition.len() == 12)
                && row["lease_left_ms"].as_u64().is_some_and(|left| u128::from(left) <= LEASE.as_millis());
            let ahead = row["clock_ahead_ms"].as_i64().unwrap_or_default();
            let expected = if of == 1 { 7_200_000 } else { 0 };
            if !is_right || (ahead - expected).abs() > 5_000 {
                wrong.push(format!("process {at} shows process {of} as {row}"));
            }
        }
    }
    let shown = output_text(&two.processes[0].cli(&["processes"]).await);
    let (this, other) = (two.processes[0].pid(), two.processes[1].pid());
    let lines: Vec<&str> = shown.lines().collect();
    if !(lines.len() == 3
        && lines[1].contains(&format!("process {this} on "))
        && lines[1].contains("(this one)")
        && lines[2].contains(&format!("process {other} on "))
        && lines[2].contains("as here"))
    {
        wrong.push(format!("the table: {shown}"));
    }
    wrong.extend(two.finish(0).await);
    let test = "processes::each_process_lists_all_with_their_versions_addresses_and_clocks";
    report_violations(test, None, "2 processes, one clock 2 hours ahead", &wrong);
}

/// A third process has other files. The others say so, and no gate to `dark` or above opens without force, until it has
/// the same files.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_differ_between_processes_shut_the_gates() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let [first, _] = &two.processes;
    let mut wrong = Vec::new();
    until_listed(first, 2, |row| row["files"] == "same").await;
    if output_text(&first.cli(&["status"]).await).contains("other flag files") {
        wrong.push("the status says that files differ, and they do not".to_owned());
    }
    let other_files: FlagsDir = two.flags.copy();
    // A comment and settings of one process are no difference.
    other_files.edit("pointsman.yaml", |text| format!("# of another machine\n{text}"));
    let mut third = two.start_with_files("third", &other_files).await;
    until_listed(first, 3, |row| row["files"] == "same").await;

    other_files
        .edit("routes/orders.yaml", |text| text.replacen(WORKFLOW, &format!("{WORKFLOW}    deadline: 1500ms\n"), 1));
    assert!(third.cli(&["reload"]).await.status.success());
    first
        .until_metric("another edition", |metrics| is_one(metrics.sum("pointsman_processes", &[("files", "other")])))
        .await;
    let named = format!("process {} on ", third.pid());
    let status = output_text(&first.cli(&["status"]).await);
    if !(status.contains("have other flag files than this one") && status.contains(&named)) {
        wrong.push(format!("the status does not name the process: {status}"));
    }
    // The third process sees both others as different, and this is no reason for a move to `shadow`.
    third.until_metric("two others", |metrics| metrics.sum("pointsman_processes", &[("files", "other")]) > 1.5).await;
    if let (status @ 400.., reply) = flip(first, "shadow", false).await {
        wrong.push(format!("a flip to `shadow`: {status} {reply}"));
    }
    let (status, reply) = flip(first, "dark", false).await;
    if status != 409 || !reply.to_string().contains("have other flag files than this one") {
        wrong.push(format!("a flip to `dark`: {status} {reply}"));
    }
    if let (status @ 400.., reply) = flip(first, "dark", true).await {
        wrong.push(format!("a flip to `dark` by force: {status} {reply}"));
    }
    if let (status @ 400.., reply) = flip(first, "shadow", false).await {
        wrong.push(format!("a flip down: {status} {reply}"));
    }

    other_files.edit("routes/orders.yaml", |text| text.replacen("    deadline: 1500ms\n", "", 1));
    assert!(third.cli(&["reload"]).await.status.success());
    until_listed(first, 3, |row| row["files"] == "same").await;
    let (_, reply) = flip(first, "dark", false).await;
    if reply.to_string().contains("other flag files") {
        wrong.push(format!("the gate still names other files: {reply}"));
    }
    third.stop().await;
    wrong.extend(two.finish(0).await);
    report_violations(
        "processes::files_that_differ_between_processes_shut_the_gates",
        None,
        "3 processes, 2 changes of the files of one",
        &wrong,
    );
}

fn is_one(number: f64) -> bool {
    (number - 1.0).abs() < f64::EPSILON
}

/// A process that stops is out at once; one that is killed, when its lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_not_listed_any_more() {
    let Some(two) = TwoProcesses::start(&[]).await else { return };
    let [first, _] = &two.processes;
    let mut wrong = Vec::new();
    let mut third = two.start_another("third").await;
    let mut fourth = two.start_another("fourth").await;
    until_listed(first, 4, has_been_told).await;
    let (third_pid, fourth_pid) = (third.pid(), fourth.pid());
    third.stop().await;
    until_listed(first, 3, |row| row["pid"] != third_pid).await;
    fourth.kill().await;
    let since = Instant::now();
    until_listed(first, 2, |row| row["pid"] != fourth_pid).await;
    let took = since.elapsed();
    if took > LEASE + SLACK {
        wrong.push(format!("a killed process was listed for {took:?}, and its lease is {LEASE:?}"));
    }
    wrong.extend(two.finish(0).await);
    report_violations(
        "processes::a_process_that_ends_is_not_listed_any_more",
        None,
        &format!("1 stopped, 1 killed and listed for {took:.1?} more"),
        &wrong,
    );
}
