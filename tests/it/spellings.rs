//! The files change how spellings of a service's paths are matched (`paths:`): a retry of what the engine performed
//! gets the engine's answer, whichever route its spelling matches now.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::legacy_keys::{charges, force};
use crate::support::process::output_text;
use crate::support::test_system::{TestSystem, some_order};

const SETTINGS: &str = "pointsman.yaml";
const ROUTES: &str = "routes/orders.yaml";
const EXPRESS: &str = "paths: express";
const EXACT: &str = "paths: { trailing_slash: different, case: different, suffix: keep }";
const RETRY_KEY: &str = "retry_key: ${request.headers[\"idempotency-key\"]} #";

fn shop_url(settings: &str) -> &str {
    let (_, shop) = settings.split_once("  shop:").expect("a service");
    shop.split("urls: [\"").nth(1).and_then(|url| url.split('"').next()).expect("a URL")
}

async fn order(system: &TestSystem, path: &str, key: &str, token: &str) -> (StatusCode, Value) {
    let headers = [("idempotency-key", key), ("authorization", token)];
    let reply = system.send_with(Method::POST, path, &headers, &some_order(1)).await;
    let reply = reply.unwrap_or_else(|why| panic!("{path}: {why}\n{}", system.pointsman.log()));
    (reply.status, reply.json())
}

async fn reload(system: &TestSystem) {
    let done = system.pointsman.cli(&["reload"]).await;
    assert!(done.status.success(), "{}", output_text(&done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_that_no_route_matches_any_more_stays_with_the_engine() {
    let by_path = "retry_key: '${request.path} ${request.headers[\"idempotency-key\"]}' #";
    for (retry_key, is_off) in [(RETRY_KEY, false), (RETRY_KEY, true), (by_path, true)] {
        let system = TestSystem::with(|flags| {
            // The route has its own service, so that the followers of the engine's orders keep their spellings.
            flags.edit(SETTINGS, |text| {
                let entry = format!("services:\n  entry: {{ urls: [\"{}\"], {EXPRESS} }}\n", shop_url(&text));
                text.replacen("services:\n", &entry, 1)
            });
            flags.edit(ROUTES, |text| {
                text.replacen("legacy: shop", "legacy: entry", 1).replacen(RETRY_KEY, retry_key, 1)
            });
        })
        .await;
        force(&system, "live").await;
        let mut placed = Vec::new();
        for (n, path) in ["/ORDERS", "/orders/", "/Orders/"].into_iter().enumerate() {
            let key = format!("key-{n}");
            let (status, answer) = order(&system, path, &key, "Bearer a").await;
            assert!(status == StatusCode::CREATED && answer["id"].is_string(), "{status} {answer}");
            system.record_order(answer.clone());
            placed.push((path, key, answer));
        }
        if is_off {
            system.lower("off").await;
        }
        let before = charges(&system);
        system.flags.edit(SETTINGS, |text| text.replacen(EXPRESS, EXACT, 1));
        reload(&system).await;
        for (path, key, first) in &placed {
            let (status, again) = order(&system, path, key, "Bearer a").await;
            assert_eq!((status, &again["id"]), (StatusCode::CREATED, &first["id"]), "{path}, {retry_key}: {again}");
            // The engine took it under a credential that is not verified: a retry under another one is refused.
            let (status, refused) = order(&system, path, key, "Bearer b").await;
            assert_eq!(status, StatusCode::CONFLICT, "{path}, {retry_key}: {refused}");
        }
        assert_eq!(charges(&system), before);
        system.finish().await;
    }
}

/// Only the paths of the neighbouring route's service are matched differently, so that it takes requests that the other
/// route had.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_neighbour_takes_by_its_spellings_stay_with_the_engine() {
    let mut shop = String::new();
    let system = TestSystem::with(|flags| {
        flags.edit(SETTINGS, |text| {
            shop = shop_url(&text).to_owned();
            text.replacen("services:\n", &format!("services:\n  other: {{ urls: [\"{shop}\"] }}\n"), 1)
        });
        flags.edit(ROUTES, |text| {
            text.replacen("method: POST, path: /orders }", "method: POST, path: \"/{kind}\" }", 1)
        });
        flags.write(
            "routes/other.yaml",
            "routes: [{ id: other, match: { method: POST, path: /Orders }, legacy: other }]\n",
        );
    })
    .await;
    force(&system, "live").await;
    let (status, first) = order(&system, "/orders", "key", "Bearer a").await;
    assert!(status == StatusCode::CREATED && first["id"].is_string(), "{status} {first}");
    system.record_order(first.clone());
    let before = charges(&system);
    let (from, to) = (format!("[\"{shop}\"] }}"), format!("[\"{shop}\"], paths: {{ case: same }} }}"));
    system.flags.edit(SETTINGS, |text| text.replacen(&from, &to, 1));
    reload(&system).await;
    let (status, again) = order(&system, "/orders", "key", "Bearer a").await;
    assert_eq!((status, &again["id"]), (StatusCode::CREATED, &first["id"]), "{again}");
    assert_eq!(charges(&system), before);
    system.finish().await;
}
