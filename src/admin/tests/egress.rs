//! The calls that legacy makes, as the API shows them.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::test_api::{TestApi, get};
use crate::admin::types::EgressView;
use crate::compare::{Body, Effect};
use crate::egress::{Attribution, AttributionSettings, Correlate};
use crate::exchange::{CallTarget, EffectObserver, EffectRegistry, RequestCopy, RequestToWatch};
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
    let tunnel_to = |authority: &str, service: Option<&str>| {
        let (service, authority) = (service.map(Into::into), authority.to_owned());
        attribution.tunnel(CallTarget { service, authority, method: Method::CONNECT, path: String::new() })
    };
    let _open = tunnel_to("bank.test:443", Some("bank"));
    drop((tunnel_to("bank.test:443", Some("bank")), tunnel_to("mail.test:443", None)));
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
    let tunnels: Vec<_> = (0..2).map(|n| (&view["tunnels"][n]["to"], &view["tunnels"][n]["opened"])).collect();
    assert_eq!(tunnels, [(&json!("bank.test:443"), &json!(2)), (&json!("mail.test:443"), &json!(1))]);
    assert_eq!((&view["tunnels"][0]["open"], &view["tunnels"][0]["service"]), (&json!(1), &json!("bank")));
    assert_eq!((&view["tunnels"][1]["service"], &view["tunnels_to_others"]), (&json!(null), &json!(0)));

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
