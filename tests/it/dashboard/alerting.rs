//! The whole way of an alert: a guard acts in a real process, Prometheus evaluates the rules, Alertmanager routes the
//! alert, and a webhook hears it, and later that it is over. Only the times are shortened.

use serde_json::Value;

use super::read;
use super::server::Server;
use crate::guard::{OUTAGE, Orders};
use crate::support::origin::{Origin, OriginReply};
use crate::support::until;

/// The rules, with every `for:` of a second.
fn impatient_rules() -> String {
    let rules = read("alerts.yaml");
    let mut count = 0;
    let lines = rules.lines().map(|line| match line.trim_start().starts_with("for: ") {
        true => {
            count += 1;
            "        for: 1s".to_owned()
        }
        false => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(count > 40, "every alert has a time: {count}");
    text
}

/// The alerts of this name and status that a path of the receiver got.
fn heard(receiver: &Origin, path: &str, name: &str, status: &str) -> Vec<Value> {
    let line = format!("POST {path} ");
    let messages = receiver.seen().into_iter().filter(|message| message.line.starts_with(&line));
    let alerts = messages.flat_map(|message| {
        let message: Value = serde_json::from_slice(&message.body).expect("JSON");
        message["alerts"].as_array().cloned().unwrap_or_default()
    });
    alerts.filter(|alert| alert["labels"]["alertname"] == name && alert["status"] == status).collect()
}

async fn until_heard(receiver: &Origin, path: &str, name: &str, status: &str) -> Value {
    until(&format!("{name} {status} at {path}"), || async { heard(receiver, path, name, status).into_iter().next() })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_hears_that_a_guard_acted_and_that_it_is_released() {
    let orders = Orders::start("guard: { errors: 1% }").await;
    let receiver = Origin::start(OriginReply::Json("{}")).await;
    let alertmanager = Server::alertmanager(&receiver.url()).await;
    let target = orders.pointsman.admin.to_string();
    let prometheus = Server::prometheus(&target, &impatient_rules(), &alertmanager.address).await;
    for _ in 0..3 {
        orders.order(1).await;
    }
    until("some scrapes", || async {
        let scrapes = prometheus.query("count_over_time(up[1m]) >= 4").await?;
        (!scrapes.is_empty()).then_some(())
    })
    .await;
    assert_eq!(prometheus.query("ALERTS").await, Some(Vec::new()), "nothing is wrong yet");

    orders.fail_rates(true);
    for _ in 0..OUTAGE {
        orders.order(1).await;
    }
    let acted = until_heard(&receiver, "/page", "PointsmanGuardActed", "firing").await;
    let labels = &acted["labels"];
    let told = [&labels["route"], &labels["condition"], &labels["severity"], &labels["job"]];
    assert_eq!(told, ["orders", "errors", "critical", "pointsman"]);
    let description = acted["annotations"]["description"].as_str().expect("a description");
    assert!(description.contains("`pointsman diffs orders`"), "{description}");
    let lowered = until_heard(&receiver, "/ticket", "PointsmanStateNotInEffect", "firing").await;
    assert_eq!(lowered["labels"]["why"], "guard");
    let latched = until_heard(&receiver, "/ticket", "PointsmanGuardLatched", "firing").await;
    let description = latched["annotations"]["description"].as_str().expect("a description");
    assert!(description.contains("`pointsman guard release orders --reason TEXT`"), "{description}");

    orders.fail_rates(false);
    let released = orders.pointsman.cli(&["guard", "release", "orders", "--reason", "the bank is back"]).await;
    assert!(released.status.success());
    until_heard(&receiver, "/ticket", "PointsmanGuardLatched", "resolved").await;
    until_heard(&receiver, "/ticket", "PointsmanStateNotInEffect", "resolved").await;
    prometheus.stop().await;
    alertmanager.stop().await;
}
