//! The slow clients of a third-party tool: slowhttptest in three of its modes at once (slow heads, slow bodies, slow
//! reads), while a healthy client is answered.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use pointsman::demo::http::Client;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::bulk_server::BulkServer;
use crate::support::process::{Start, output_text};
use crate::support::test_system::short_pause;
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until_true};

/// Connections of each mode.
const CONNECTIONS: usize = 200;
/// The memory that all of them may cost. For each of those that do not read, the buffer in which the answer waits grows
/// to about 400 KiB; others cost less.
const GROWTH_KIB_MAX: u64 = (CONNECTIONS as u64) * 640 + (32 << 10);
const LIMITS: &str = "limits: { head_read_ms: 1500, body_idle_ms: 1500, total_ms: 4000, client_idle_ms: 2500, \
     linger_ms: 300, service_idle_ms: 1000 }\n";

/// Starts slowhttptest in a mode. It ends when it has no connection left, or after a minute.
fn slowhttptest(url: &str, mode: &[&str]) -> Child {
    Command::new("slowhttptest")
        .args(["-c", &CONNECTIONS.to_string(), "-r", "200", "-i", "1", "-l", "60", "-p", "30", "-v", "1", "-u", url])
        .args(mode)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("slowhttptest is on this machine")
}

/// Waits until slowhttptest has ended, and requires that it had no connection left.
async fn ends(mode: &str, child: Child) {
    let output = tokio::time::timeout(2 * WAIT_MAX, child.wait_with_output()).await.expect("it ends");
    let text = output_text(&output.expect("its output"));
    assert!(text.contains("No open connections left"), "{mode}: clients were not cut: {text}");
    eprintln!("{mode}: {}", text.lines().find(|line| line.contains("Test ended")).unwrap_or_default().trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn slowhttptest_is_cut_in_each_of_three_modes_while_others_are_served() {
    let bulk_server = BulkServer::start().await;
    let flags = FlagsDir::passthrough(&bulk_server.url());
    flags.edit("pointsman.yaml", |text| text + LIMITS);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let (client, url) = (Client::new(WAIT_MAX), format!("{}/down/1000", pointsman.url()));
    client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
    let (files, base) = (pointsman.open_files(), pointsman.reset_peak());

    let large = format!("{}/down/{}", pointsman.url(), 64 << 20);
    let up = format!("{}/up", pointsman.url());
    let heads = slowhttptest(&url, &["-H", "-x", "24"]);
    let bodies = slowhttptest(&up, &["-B", "-s", "8192", "-x", "10"]);
    let reads = slowhttptest(&large, &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "1"]);
    let is_over = AtomicBool::new(false);
    let slow = async {
        until_true("all of them to be connected", || pointsman.open_files() >= files + CONNECTIONS).await;
        tokio::join!(ends("header", heads), ends("body", bodies));
        // A client that does not read does not see that it was cut.
        until_true("those who do not read to be cut", || pointsman.open_files() <= files + 8).await;
        drop(reads);
        is_over.store(true, Ordering::SeqCst);
    };
    let healthy = async {
        let mut answered = 0;
        while !is_over.load(Ordering::SeqCst) {
            let reply = client.json(Method::GET, &url, &[], &Value::Null).await.expect("an answer");
            assert!(reply.status.is_success() && reply.body.len() == 1_000);
            answered += 1;
            short_pause().await;
        }
        answered
    };
    let (answered, ()) = tokio::join!(healthy, slow);
    let grown = pointsman.peak_kib().saturating_sub(base);
    eprintln!("3 modes of {CONNECTIONS} clients, {answered} healthy requests answered meanwhile, grown by {grown} KiB");
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    let metrics = pointsman.metrics().await;
    assert!(metrics.sum("pointsman_refusals_total", &[]) > 0.0, "heads that did not come in time are counted");
    assert_eq!(pointsman.stop().await, Some(0));
}
