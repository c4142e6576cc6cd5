//! The engine runs a share of the rehearsals a second time from the same inputs: nothing is read or sent again, and what
//! it draws itself is listed, in the reply and in the calls that it would have made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::{Value, json};

use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX, until};

const REQUESTS: u64 = 10;

const WORKFLOW: &str = "
workflow: order
steps:
  rate: { call: 'GET ${services.world}/rates' }
  charge:
    needs: [rate]
    call: POST ${services.world}/charges
    body: { amount: 7, rate: '${steps.rate.output.rate}', nonce: '${uuid(\"nonce\")}' }
    rehearse: { id: c-1 }
  # Two equal calls, which are no attempts of one.
  print: { for_each: '${[1, 1]}', call: 'POST ${services.world}/prints', body: { copy: '${item}' }, rehearse: {} }
respond:
  status: 200
  body: { amount: 7, rate: '${steps.rate.output.rate}', token: '${uuid(\"token\")}' }
";

/// Legacy, and the world: each reading of the rate gives another one.
async fn services(rates: Arc<AtomicU64>, charges: Arc<AtomicU64>) -> Server {
    let handler = move |call: Call| {
        let body = match call.path.as_str() {
            "/rates" => json!({ "rate": rates.fetch_add(1, SeqCst) }),
            "/charges" => json!({ "id": charges.fetch_add(1, SeqCst) }),
            _ => json!({ "amount": 7, "rate": 0, "token": "t" }),
        };
        async move { Ok(json(StatusCode::OK, &body)) }
    };
    Server::start(LOCAL, handler).await.expect("a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn random_values_of_the_engine_are_found_without_reading_or_sending_anything_again() {
    let (rates, charges) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let server = services(rates.clone(), charges.clone()).await;
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!("services: {{ shop: '{0}', world: '{0}' }}\ndefault_legacy: shop\n", server.url()),
    );
    flags.write("workflows/order.yaml", WORKFLOW);
    flags.write(
        "routes/orders.yaml",
        "routes:\n  - { id: order, match: { method: POST, path: /orders }, legacy: shop, workflow: order, state: shadow,\n      \
         rehearse_twice: 100% }\n",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    for _ in 0..REQUESTS {
        let url = format!("{}/orders", pointsman.url());
        assert_eq!(client.json(Method::POST, &url, &[], &json!({})).await.expect("a reply").status, StatusCode::OK);
    }
    let found = until("the second runs", async || {
        let found = pointsman.get("/api/v2/routes/order/evidence").await["evidence"]["second_runs"].clone();
        (found["runs"] == REQUESTS).then_some(found)
    })
    .await;
    let expected: Value = json!({ "value $.token": REQUESTS, "effect_differs effects.charge.body.nonce": REQUESTS });
    assert_eq!((&found["places"], &found["differed"]), (&expected, &json!(REQUESTS)), "{found}");
    assert_eq!((rates.load(SeqCst), charges.load(SeqCst)), (REQUESTS, 0), "nothing was read twice, or sent");
    let shown = output_text(&pointsman.cli(&["evidence", "order"]).await);
    assert!(shown.contains("the engine ran 10 requests twice from the same inputs"), "{shown}");
    assert!(shown.contains("value $.token") && shown.contains("10 of 10"), "{shown}");
    until("a sample that says so", async || {
        let shown = output_text(&pointsman.cli(&["diffs", "order"]).await);
        shown.contains("the engine differs from itself here too: in 10 of 10 second runs").then_some(())
    })
    .await;
    let differs = [("route", "order"), ("outcome", "differs")];
    let counted = |metrics: &Metrics| metrics.sum("pointsman_second_runs_total", &differs) == REQUESTS as f64;
    pointsman.until_metric("the second runs", counted).await;
    let rehearsed = [("mode", "rehearse")];
    assert_eq!(
        pointsman.metrics().await.sum("pointsman_runs_total", &rehearsed),
        REQUESTS as f64,
        "the first runs alone"
    );
    // What was counted outlasts the process.
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
    let pointsman = Pointsman::start(&start).await;
    let kept = pointsman.get("/api/v2/routes/order/evidence").await["evidence"]["second_runs"].clone();
    assert_eq!(kept, found);
}
