//! HTTP/2 through the real binary: a workflow answers over it, and its effects happen once over both protocols.

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::WAIT_MAX;
use crate::support::test_system::{TestSystem, some_order};

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// A client's connection.
async fn connect(system: &TestSystem) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(system.pointsman.listen).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    requests
}

/// Places an order with a key; returns the status and the answer.
async fn order(requests: &SendRequest<Bytes>, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(Method::POST).uri("http://shop.test/orders");
    let request = request.header("content-type", "application/json").header("idempotency-key", "the-one");
    let trace = "00-000000000000000000000000000000aa-00000000000000aa-01";
    let request = request.header("x-tenant", "tenant-1").header("traceparent", trace).body(()).expect("a request");
    let mut requests = requests.clone().ready().await.expect("room for a stream");
    let (response, mut send) = requests.send_request(request, false).expect("a stream");
    send.send_data(body.to_string().into(), true).expect("the body is taken");
    let (head, mut reply) = within("a reply", response).await.expect("a reply").into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = within("the reply", reply.data()).await {
        bytes.extend_from_slice(&data.expect("a whole reply"));
    }
    (head.status, serde_json::from_slice(&bytes).unwrap_or(json!(null)))
}

async fn count_runs(system: &TestSystem) -> usize {
    let runs = system.pointsman.get("/api/v2/orchestrate/runs?route=orders.create&mode=real&limit=1000").await;
    runs["runs"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_means_one_run_and_one_set_of_effects_over_both_protocols() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let before = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    let body = some_order(7);
    let connections = [connect(&system).await, connect(&system).await];
    let over_http2 = join_all((0..80).map(|index| order(&connections[index % 2], &body)));
    let keyed = [("idempotency-key", "the-one")];
    let over_http1 = join_all((0..20).map(|_| system.send_with(Method::POST, "/orders", &keyed, &body)));
    let (over_http2, over_http1) = tokio::join!(over_http2, over_http1);
    let first = over_http2[0].1.clone();
    assert!(first["id"].is_string(), "the engine made it: {first}");
    for (status, answer) in &over_http2 {
        assert_eq!((*status, answer), (StatusCode::CREATED, &first));
    }
    for reply in over_http1 {
        let reply = reply.expect("a reply");
        assert_eq!((reply.status, reply.json()), (StatusCode::CREATED, first.clone()));
    }
    system.record_order(first.clone());
    system.lower("off").await;
    assert_eq!(order(&connections[0], &body).await.1, first, "whatever the flag says by now");
    let after = (count_runs(&system).await, system.world.ledger().balance().total("charge"));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "runs and charges");
    system.finish().await;
}
