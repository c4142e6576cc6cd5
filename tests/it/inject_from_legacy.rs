//! What legacy draws for each reply (a time, an id, a random number) is taken by the rehearsal in `shadow`, so that a
//! pair is equal without any rule, and a wrong value that is computed from it is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::{Value, json};

use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX, until};

const WORKFLOW: &str = "
workflow: draw
inject:
  now: ${legacy.body.at}
  uuid: { ticket: '${legacy.body.ticket}' }
  random: { lot: '${legacy.body.lot}' }
steps:
  drawn: { set: { lot: '${random(\"lot\")}' } }
respond:
  status: 200
  body:
    at: ${now}
    ticket: ${uuid(\"ticket\")}
    lot: ${steps.drawn.output.lot}
    wins: ${steps.drawn.output.lot > THRESHOLD}
";

/// Every reply has another time, ticket and lot; a lot above 0.5 wins.
async fn legacy() -> Server {
    let drawn = Arc::new(AtomicU64::new(0));
    let handler = move |_: Call| {
        let n = drawn.fetch_add(1, SeqCst);
        let lot = (n % 10) as f64 / 10.0 + 0.05;
        let body = json!({
            "at": format!("2026-11-26T10:00:{:02}Z", n % 60), "ticket": format!("ticket-{n}"), "lot": lot, "wins": lot > 0.5,
        });
        async move { Ok(json(StatusCode::OK, &body)) }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

/// The evidence of 20 requests, where the workflow has this threshold.
async fn evidence(threshold: &str) -> Value {
    let legacy = legacy().await;
    let flags = FlagsDir::empty();
    flags.write("pointsman.yaml", &format!("services: {{ shop: '{}' }}\ndefault_legacy: shop\n", legacy.url()));
    flags.write("workflows/draw.yaml", &WORKFLOW.replace("THRESHOLD", threshold));
    flags.write(
        "routes/draw.yaml",
        "routes:\n  - { id: draw, match: { method: POST, path: /draw }, legacy: shop, workflow: draw, state: shadow }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(flags.path(), dir.path());
    let pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    for _ in 0..20 {
        let url = format!("{}/draw", pointsman.url());
        assert_eq!(client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply").status, StatusCode::OK);
    }
    until("the pairs", || async {
        let evidence = pointsman.get("/api/v2/routes/draw/evidence").await["evidence"].clone();
        let count = |of: &str| evidence[of].as_u64().unwrap_or_default();
        (count("matched") + count("ignored") + count("mismatched") == 20).then_some(evidence)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_draws_what_legacy_drew() {
    let equal = evidence("0.5").await;
    assert_eq!((&equal["matched"], &equal["ignored"]), (&json!(20), &json!(0)), "no rule is needed: {equal}");
    let wrong = evidence("0.7").await;
    assert_eq!((&wrong["matched"], &wrong["mismatched"]), (&json!(16), &json!(4)), "0.55 and 0.65 win: {wrong}");
}
