//! The calls that legacy makes, as the API shows them.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::test_api::{TestApi, get};
use crate::admin::types::EgressView;
use crate::compare::{Body, Effect};
use crate::egress::{Attribution, AttributionSettings, Correlate};
use crate::exchange::{EffectObserver, EffectRegistry, RequestCopy, RequestToWatch};
use crate::limits::Limits;

fn headers(id: &'static str) -> HeaderMap {
    [(http::HeaderName::from_static("x-id"), http::HeaderValue::from_static(id))].into_iter().collect()
}

fn call(attribution: &Attribution, id: &'static str) {
    attribution.observe(Effect {
        service: Some("bank".into()),
        method: Method::POST,
        url: "http://bank.test/charges?token=hunter2\u{1b}".into(),
        headers: headers(id),
        body: Body::Whole("{\"card\":\"hunter2\"}".into()),
        reply: None,
        number: 0,
        replied_before: None,
    });
}

#[tokio::test]
async fn a_route_shows_which_calls_were_attributed_and_by_what() {
    let correlate = Correlate::parse("header.x-id").unwrap();
    let settings = AttributionSettings { correlate, ..AttributionSettings::default() };
    let attribution = Attribution::new(settings, &Limits::default());
    let request = RequestCopy {
        method: Method::POST,
        path: "/orders".into(),
        query: None,
        params: Vec::new(),
        headers: headers("7"),
        traceparent: None,
        body: Bytes::new(),
        peer: "127.0.0.1".parse().unwrap(),
    };
    let route = "orders.create".into();
    let to_watch =
        RequestToWatch { compared: Some(&route), request: &|| request.clone(), sent: &request.headers, body: None };
    let _watch = attribution.watch(to_watch);
    for id in ["7", "7", "7", "8"] {
        call(&attribution, id);
    }
    let mut api = TestApi::new().await;
    api.attribution = Some(attribution);
    let answer = api.call(get("/api/v2/routes/orders.create/egress")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let view: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(view["calls"], json!({ "traceparent": 0, "header": 3, "value": 0 }));
    assert_eq!((&view["requests"], &view["closed"], &view["correlate"]), (&json!(1), &json!(0), &json!("header.x-id")));
    assert_eq!((&view["all"]["unattributed"], &view["all"]["attributed_share"]), (&json!(1), &json!(0.75)));
    assert_eq!(view["unattributed"][0]["outcome"], "unattributed");
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);

    let other = api.call(get("/api/v2/routes/orders.show/egress")).await;
    let view: Value = serde_json::from_str(&other.text).unwrap();
    assert_eq!((&view["requests"], &view["all"]["attributed"]), (&json!(0), &json!(3)));
    assert_eq!(api.call(get("/api/v2/routes/none/egress")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_egress_it_says_that_nothing_is_watched() {
    let answer = TestApi::new().await.call(get("/api/v2/routes/orders.create/egress")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let view: EgressView = serde_json::from_str(&answer.text).unwrap();
    assert!(!view.is_watched && view.window_s.is_none());
}
