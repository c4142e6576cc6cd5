//! A full disk: every write of the store fails with ENOSPC for a while.

use std::process::Stdio;

use http::Method;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::town::{Town, some_order};
use crate::support::until;

/// While this lives, the process cannot write to files.
struct Full(Child);

impl Full {
    async fn of(pid: u32) -> Self {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,pwritev"])
            .args(["-e", "inject=pwrite64,pwritev:error=ENOSPC", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("strace starts (tests/run installs it)");
        until("strace to hold every thread", || async {
            let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            threads
                .all(|thread| {
                    let status = thread.map(|t| std::fs::read_to_string(t.path().join("status")).unwrap_or_default());
                    status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
                })
                .then_some(())
        })
        .await;
        Self(strace)
    }
    /// SIGTERM, so that strace lets go in order.
    async fn end(mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::TERM).expect("it could be told");
        self.0.wait().await.expect("it ended");
    }
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
    let full = Full::of(town.pointsman.pid()).await;
    for _ in 0..3 {
        assert!(!is_engines(&town.order().await), "nothing was begun, so legacy answers");
        town.ask(Method::GET, "/orders", &Value::Null).await;
    }
    full.end().await;
    until("the engine to answer again", || async { is_engines(&town.order().await).then_some(()) }).await;
    town.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_says_that_nothing_was_started() {
    let town = Town::start().await;
    town.climb("only").await;
    town.quiet().await;
    let full = Full::of(town.pointsman.pid()).await;
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
}
