//! Shares that grow by themselves, from outside: a flip to `live` begins with the first step, the share grows while the
//! engine answers, stays while the guard keeps the route lower, and goes on to grow after a kill. A shared effect is
//! performed by exactly one arm meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use serde_json::{Value, json};

use crate::guard::Orders;
use crate::support::process::output_text;
use crate::support::until;

const AUTO: &str = "guard: { errors: 1% }\n    auto: { steps: [10%, 50%, 100%], each: 1s, at_least: 5 }";
/// Callers of one batch, each another one: which tenth of the callers gets the engine's answer is drawn for each store.
const BATCH: usize = 20;

impl Orders {
    async fn share(&self) -> f64 {
        self.row().await["shares"]["live"].as_f64().expect("a share")
    }

    async fn batch(&self, sent: &AtomicUsize) {
        for _ in 0..BATCH {
            assert_eq!(self.order(sent.fetch_add(1, Ordering::SeqCst)).await.status, StatusCode::OK);
        }
    }

    async fn send_until_share(&self, share: f64, sent: &AtomicUsize) {
        until("the share", || async {
            self.batch(sent).await;
            (self.share().await >= share).then_some(())
        })
        .await;
    }

    /// Sends requests in `dark` until the gate to `live` lets the route pass.
    async fn send_until_live(&self, sent: &AtomicUsize) {
        until("the gate to live", || async {
            self.batch(sent).await;
            self.pointsman.cli(&["flip", "orders", "live"]).await.status.success().then_some(())
        })
        .await;
    }

    /// Who changed the share within `live`, and to what, the oldest first.
    async fn steps(&self) -> Vec<(String, f64)> {
        let flips = self.pointsman.get("/api/v2/flips?route=orders").await;
        let within = flips.as_array().expect("flips").iter().rev().filter(|flip| flip["from"] == flip["to"]);
        let step = |flip: &Value| {
            (flip["by"].as_str().unwrap_or_default().to_owned(), flip["shares"]["live"].as_f64().unwrap_or_default())
        };
        within.map(step).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_grows_from_step_to_step_and_no_charge_is_made_twice() {
    let mut orders = Orders::start(AUTO).await;
    let sent = AtomicUsize::new(0);
    let down = orders.pointsman.cli(&["flip", "orders", "dark", "--reason", "a test"]).await;
    assert!(down.status.success(), "{}", output_text(&down));
    orders.send_until_live(&sent).await;
    assert_eq!(orders.share().await, 10.0, "a flip up that names no share begins with the first step");
    let status = output_text(&orders.pointsman.cli(&["status"]).await);
    assert!(status.contains("orders: its share grows to 50 %"), "{status}");
    orders.send_until_share(50.0, &sent).await;

    // While the guard keeps the route at `dark`, nothing grows.
    orders.fail_rates(true);
    // How many callers of a batch the engine answers at this share is not known.
    until("the guard", || async {
        orders.batch(&sent).await;
        (orders.effective().await["state"] == "dark").then_some(())
    })
    .await;
    orders.fail_rates(false);
    until("the held step in the metrics", || async {
        let metrics = orders.pointsman.metrics().await;
        (metrics.sum("pointsman_auto_held", &[("route", "orders")]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(orders.share().await, 50.0);
    let released = orders.pointsman.cli(&["guard", "release", "orders", "--reason", "the bank is back"]).await;
    assert!(released.status.success(), "{}", output_text(&released));

    orders.kill_and_restart().await;
    orders.send_until_share(100.0, &sent).await;
    assert_eq!(orders.steps().await, [("auto".to_owned(), 50.0), ("auto".to_owned(), 100.0)]);
    let flips = orders.pointsman.get("/api/v2/flips?route=orders").await;
    assert_eq!((&flips[0]["by"], &flips[0]["forced"]), (&json!("auto"), &json!(false)));
    assert!(flips[0]["reason"].as_str().is_some_and(|why| why.contains("requests with 50%")), "{}", flips[0]);
    assert_eq!(orders.effective().await["state"], "live");
    assert!(orders.row().await["auto"].is_null(), "there is no larger step");
    // The engine charges where it answers, and legacy answers the others.
    assert_eq!(orders.charges() + orders.legacy_answers(), sent.load(Ordering::SeqCst));
}
