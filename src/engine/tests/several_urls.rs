//! Calls to a service with several URLs, of which some accept no connection.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use super::harness::{ServiceReply, StepService, TIMEOUT};
use crate::engine::kill_switch::KillSwitch;
use crate::engine::ports::client::{Executor, Outgoing, SendingClient};
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::service::ServiceLimits;
use crate::flag::{BreakerSettings, Service};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{AttemptResult, EffectClass, Mode, RecordedHeaders};

/// A service with these URLs.
fn service(urls: &[&Uri]) -> Arc<ServiceLimits> {
    let breaker = Some(BreakerSettings { min: 9, ..BreakerSettings::default() });
    let service = Service { breaker, ..Service::at("bank", urls.iter().map(|uri| (*uri).clone())) };
    ServiceLimits::of(&service, &Limits::default()).or_existing(None)
}

/// Sends one call that must not be repeated to the service's URLs in turn.
async fn call(client: &SendingClient, upstream: &Arc<ServiceLimits>, headers: HeaderMap) -> AttemptResult {
    let mut uris = upstream.urls_in_turn().map(|url| format!("{url}/pay").parse::<Uri>().unwrap());
    let call = Outgoing {
        method: Method::POST,
        uri: uris.next().unwrap(),
        other_uris: uris.collect(),
        headers,
        body: Bytes::from_static(b"{}"),
        timeout: TIMEOUT,
        left: None,
        reserved: TIMEOUT,
        repeatable: false,
        mode: Mode::Real,
        run: RunId(uuid::Uuid::from_u128(7)),
        upstream: upstream.clone(),
        lease_proof: None,
        withdrawal: CancellationToken::new(),
        recorded_headers: Arc::new(RecordedHeaders::All),
        secrets: EchoedSecrets::default(),
    };
    client.perform(EffectClass::Shared, call).await
}

#[tokio::test]
async fn a_call_goes_to_the_next_url_only_where_nothing_was_sent() {
    let alive = StepService::new(|_, _| ServiceReply::Json(201, json!({}))).await;
    let failing = StepService::new(|_, _| ServiceReply::Json(503, json!({}))).await;
    let closed = TcpSocket::new_v4().unwrap();
    // The port is taken, but nothing listens there.
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing: Uri = format!("http://{}/old", closed.local_addr().unwrap()).parse().unwrap();
    let alive_url: Uri = format!("http://{}/new", alive.address).parse().unwrap();
    let failing_url: Uri = format!("http://{}", failing.address).parse().unwrap();
    let client = SendingClient::new(&Limits::default(), &[7; 32], Mode::Real, KillSwitch::new());
    let failed = |upstream: &ServiceLimits| upstream.view("bank".into()).breaker.unwrap().failed;

    let upstream = service(&[&refusing, &alive_url]);
    let named = HeaderMap::from_iter([(HOST, HeaderValue::from_static("bank.internal"))]);
    for headers in [HeaderMap::new(), HeaderMap::new(), named.clone(), named] {
        let result = call(&client, &upstream, headers).await;
        assert!(matches!(result, AttemptResult::Reply { status: 201, .. }), "{result:?}");
    }
    let own = alive.address.to_string();
    let seen = alive.seen();
    let hosts: Vec<_> = seen.iter().map(|seen| (&*seen.path, seen.header("host").unwrap())).collect();
    let (own, named) = (("/new/pay", &*own), ("/new/pay", "bank.internal"));
    assert_eq!(hosts, [own, own, named, named], "each URL has its own base path and host");
    assert_eq!(failed(&upstream), 0);

    let upstream = service(&[&failing_url, &alive_url]);
    let result = call(&client, &upstream, HeaderMap::new()).await;
    assert!(matches!(result, AttemptResult::Reply { status: 503, .. }), "{result:?}");
    assert_eq!((failing.seen().len(), alive.seen().len()), (1, 4), "an answer is not asked for twice");

    let upstream = service(&[&refusing, &refusing]);
    let result = call(&client, &upstream, HeaderMap::new()).await;
    assert!(matches!(&result, AttemptResult::NotSent(why) if why.contains("refused")), "{result:?}");
    assert_eq!(failed(&upstream), 1, "one call");
}
