//! Many new retry keys in a short time on a route that legacy answers: after kill -9 none of their retries goes to the
//! engine.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::checker::check_runs;
use crate::support::origin::{Origin, OriginReply, ReceivedRequest};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::seed::report_violations;
use crate::support::step_service::StepService;
use crate::support::{FlagsDir, PROMOTE, Pointsman, until_true};

/// How many keys legacy has taken before the kill: those of one second at the rate that the file of keys is made for.
const KEYS: usize = 12_500;
const CONNECTIONS: usize = 32;

const WORKFLOW: &str = "workflow: charge
steps:
  charge: { call: 'POST ${services.works}/charges' }
respond: { status: 200, body: { by: engine } }
";

fn routes(state: &str) -> String {
    format!(
        "routes:\n- id: orders\n  match: {{ method: POST, path: /orders }}\n  legacy: shop\n  workflow: charge\n  \
         state: {state}\n"
    )
}

/// Sends a request; returns the body of the answer, or `None` if the process is gone.
async fn send(connection: &mut RawConnection, key: &str) -> Option<Vec<u8>> {
    let head = "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: 2";
    let reply = connection.send(format!("{head}\r\nidempotency-key: {key}\r\n\r\n{{}}")).await.reply().await;
    (reply.status != 0).then_some(reply.body)
}

/// Sends requests with these keys over some connections, until all are answered or the process is gone; returns the
/// answers that are not legacy's.
async fn send_all(to: SocketAddr, next: impl Fn() -> Option<String>) -> Vec<String> {
    let next = &next;
    let one = |_| async move {
        let (mut connection, mut wrong) = (RawConnection::connect(to).await, Vec::new());
        while let Some(key) = next() {
            match send(&mut connection, &key).await {
                Some(body) if body == br#"{"by":"legacy"}"# => {}
                Some(body) => wrong.push(format!("{key}: {}", String::from_utf8_lossy(&body))),
                None => break,
            }
        }
        wrong
    };
    futures_util::future::join_all((0..CONNECTIONS).map(one)).await.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_legacy_gets_the_retries_of_many_new_keys() {
    let legacy = Origin::start(OriginReply::Json(r#"{"by":"legacy"}"#)).await;
    let (works, flags) = (StepService::start().await, FlagsDir::empty());
    let services =
        format!("services:\n  shop: {}\n  works: {}\ndefault_legacy: shop\n{PROMOTE}", legacy.url(), works.url());
    flags.write("pointsman.yaml", &services);
    flags.write("workflows/charge.yaml", WORKFLOW);
    flags.write("routes/orders.yaml", &routes("off"));
    let dir = tempfile::tempdir().expect("a directory");
    let store: PathBuf = dir.path().join("pointsman.db");
    let start = Start {
        flags: flags.path().to_owned(),
        store: format!("sqlite:{}", store.display()),
        log: dir.path().join("log"),
        env: Vec::new(),
    };
    let mut pointsman = Pointsman::start(&start).await;
    let (number, began) = (AtomicUsize::new(0), Instant::now());
    let load = send_all(pointsman.listen, || Some(format!("key-{}", number.fetch_add(1, Ordering::Relaxed))));
    let kill = async {
        until_true("legacy to have taken the keys", || legacy.count() >= KEYS).await;
        let took = began.elapsed();
        pointsman.kill().await;
        took
    };
    let (mut wrong, took) = tokio::join!(load, kill);
    flags.write("routes/orders.yaml", &routes("live\n  force: { reason: a test }"));
    let mut pointsman = Pointsman::start(&start).await;
    let mut fresh = RawConnection::connect(pointsman.listen).await;
    let by_engine = send(&mut fresh, "fresh").await.expect("an answer");
    assert_eq!(serde_json::from_slice::<Value>(&by_engine).ok(), Some(json!({ "by": "engine" })));
    let key_of = |request: &ReceivedRequest| request.header("idempotency-key").map(str::to_owned);
    let taken: BTreeSet<String> = legacy.seen().iter().filter_map(key_of).collect();
    let before = legacy.count();
    assert_eq!(taken.len(), before, "each key came once");
    let retries = std::sync::Mutex::new(taken.iter().cloned());
    wrong.extend(send_all(pointsman.listen, || retries.lock().expect("unpoisoned").next()).await);
    assert_eq!(legacy.count(), before + taken.len(), "legacy gets every retry");
    assert_eq!(works.effects("POST /charges"), 1, "the engine gets none");
    assert_eq!(pointsman.stop().await, Some(0));
    check_runs(&store, &[]).await;
    let figures = format!("{} keys, {:.0} a second, 1 kill", taken.len(), KEYS as f64 / took.as_secs_f64());
    report_violations("many_retry_keys::after_a_kill_legacy_gets_the_retries_of_many_new_keys", None, &figures, &wrong);
}
