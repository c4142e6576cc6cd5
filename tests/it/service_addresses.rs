//! What the API and `pointsman services` show of the addresses of services.

use http::Method;
use pointsman::demo::http::Client;
use serde_json::{Value, json};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, until};

/// The row of a service.
async fn row(pointsman: &Pointsman, service: &str) -> Value {
    let rows = pointsman.get("/api/v2/services").await;
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == service));
    row.unwrap_or_else(|| panic!("no {service} in {rows}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_address_is_shown_with_its_state_and_why() {
    // Dropped at the end, so that no other test gets the port.
    let closed = crate::support::closed_port();
    let dead = closed.local_addr().expect("an address");
    let [shop, sick] = [Origin::start(OriginReply::Json("{}")).await, Origin::start(OriginReply::Status(500)).await];
    let flags = FlagsDir::empty();
    flags.write(
        "pointsman.yaml",
        &format!(
            "services:
  shop:
    urls: [{{ url: \"http://{dead}\", weight: 7 }}, {}]
    eject: {{ for: 300s }}
    slow_start: 1h
  sick: {{ urls: [\"{}\"], health: {{ path: /healthz, every: 100ms, timeout: 5s, failures: 2, successes: 1 }} }}
  named: http://localhost:{}
  lost: http://no-such-host.invalid:80
default_legacy: shop
",
            shop.url(),
            sick.url(),
            shop.address().port(),
        ),
    );
    let route =
        |name| format!("  - {{ id: {name}, match: {{ method: GET, path: /{name} }}, legacy: {name}, state: off }}\n");
    flags.write("routes/all.yaml", &format!("routes:\n{}", ["sick", "named", "lost"].map(route).concat()));
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".into(), dir.path().join("log"));
    let mut pointsman = Pointsman::start(&Start { flags: flags.path().to_owned(), store, log, env: vec![] }).await;
    let before = row(&pointsman, "shop").await;
    assert_eq!(before["addresses"][0]["state"], "available", "no call has been made yet: {before}");
    assert_eq!(before["addresses"][0]["last_failure"], Value::Null);
    let client = Client::new(WAIT_MAX);
    let get = async |path: &str| {
        let url = format!("{}{path}", pointsman.url());
        client.json(Method::GET, &url, &[], &json!(null)).await.expect("an answer").status.as_u16()
    };
    let ejected = until("the dead address to be ejected", || async {
        assert_eq!(get("/").await, 200);
        let row = row(&pointsman, "shop").await;
        (row["addresses"][0]["state"] == "ejected").then_some(row)
    })
    .await;
    let [gone, alive] = [0, 1].map(|index| &ejected["addresses"][index]);
    assert_eq!((&gone["address"], &gone["weight"]), (&json!(dead.to_string()), &json!(7)), "{ejected}");
    assert_eq!((&gone["url"], &gone["ejected_because"]), (&json!(format!("http://{dead}")), &json!("no_connection")));
    let until_text = gone["ejected_until"].as_str().unwrap_or_default();
    let left = until_text.parse::<jiff::Timestamp>().expect("a time").duration_since(jiff::Timestamp::now());
    assert!((200..=300).contains(&left.as_secs()), "{ejected}");
    let why = gone["last_failure"]["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("no connection: ") && gone["last_failure"]["at"].is_string(), "{ejected}");
    assert_eq!((&alive["state"], &alive["ejected_until"]), (&json!("available"), &Value::Null), "{ejected}");
    assert_eq!((&alive["weight"], &alive["in_flight"]), (&json!(1), &json!(0)), "{ejected}");
    assert_eq!(alive["share_percent"], 10, "its slow start has just begun: {ejected}");

    let unhealthy = until("the sick address to be found", || async {
        let row = row(&pointsman, "sick").await;
        get("/sick").await; // the checks begin with the first request
        (row["addresses"][0]["state"] == "unhealthy").then_some(row)
    })
    .await;
    let why = &unhealthy["addresses"][0]["last_failure"]["why"];
    assert_eq!(why, "a health check failed: it answered 500", "{unhealthy}");
    assert_eq!(unhealthy["lookups"], json!([]), "its URL has no name");

    assert_eq!(
        row(&pointsman, "named").await["lookups"],
        json!([{ "name": "localhost", "at": null, "failure": null }])
    );
    assert_eq!((get("/named").await, get("/lost").await), (200, 502));
    let named = row(&pointsman, "named").await;
    assert!(named["lookups"][0]["at"].is_string() && named["lookups"][0]["failure"].is_null(), "{named}");
    let lost = row(&pointsman, "lost").await;
    assert!(lost["lookups"][0]["failure"].is_string() && lost["addresses"] == json!([]), "{lost}");

    let shown = pointsman.cli(&["services"]).await;
    let text = output_text(&shown);
    for part in [&dead.to_string(), "ejected: no connection, tried in", "unhealthy", "it answered 500", "localhost"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let metrics = pointsman.try_api("/metrics").await.expect("an answer");
    assert!(!String::from_utf8_lossy(&metrics.body).contains(&dead.to_string()), "no address is a label");
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_counted_by_address() {
    let shop = Origin::start(OriginReply::Stall).await;
    let flags = FlagsDir::passthrough(&shop.url());
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".into(), dir.path().join("log"));
    let pointsman = Pointsman::start(&Start { flags: flags.path().to_owned(), store, log, env: vec![] }).await;
    let client = Client::new(WAIT_MAX);
    let url = pointsman.url();
    let waiting = [(); 3].map(|()| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move { client.json(Method::GET, &url, &[], &json!(null)).await })
    });
    until("three are in flight", || async {
        let rows = pointsman.get("/api/v2/services").await;
        (rows[0]["addresses"][0]["in_flight"] == 3).then_some(())
    })
    .await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    until("none is in flight", || async {
        let rows = pointsman.get("/api/v2/services").await;
        (rows[0]["addresses"][0]["in_flight"] == 0).then_some(())
    })
    .await;
}
