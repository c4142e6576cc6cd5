//! `demo --exit` with a promise that is broken: it says which one, and its exit code is 1.

use std::process::Stdio;

use http::Method;
use pointsman::demo::http::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::WAIT_MAX;

/// The demo's bank is charged once more than the demo's orders: as if an order had been charged by both arms.
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_no_order_asked_for_ends_the_demo_with_1() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(["demo", "--exit"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = command.kill_on_drop(true).spawn().expect("the demo");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let mut printed = String::new();
    let charge_and_read_to_the_end = async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            if let Some(at) = line.find("outside world with ledger ") {
                let ledger = line[at..].rsplit(' ').next().expect("an address");
                let charges = ledger.replace("/ledger", "/bank/charges");
                let reply = Client::new(WAIT_MAX).json(Method::POST, &charges, &[], &json!({ "amount": 1 })).await;
                assert!(reply.expect("a reply").status.is_success());
                // It reports what it counted so far when it is interrupted.
                let pid = demo.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).expect("a pid");
                kill_process(pid, Signal::TERM).expect("the signal is sent");
            }
            printed.push_str(&line);
            printed.push('\n');
        }
        demo.wait().await.expect("it ended")
    };
    let ended = tokio::time::timeout(WAIT_MAX, charge_and_read_to_the_end).await.expect("it ends");
    assert_eq!(ended.code(), Some(1), "{printed}");
    let charges = printed.lines().find(|line| line.contains("charges") && line.contains("should be"));
    assert!(charges.is_some() && printed.contains("1 promise did not hold."), "{printed}");
}
