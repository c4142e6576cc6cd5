//! gRPC through the proxy: HTTP/2 on both sides, with its framing, its deadline and its status in trailers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::http2_client::{Http2Client, request, send_all, whole};
use super::rig::{OK, Origin, Rig, Setup};
use super::wire::bounded;
use crate::flag::{HttpVersion, RelaySettings, Service};

/// A message of gRPC, not compressed.
fn message(text: &str) -> Vec<u8> {
    [&[0], &u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

fn status(code: &'static str) -> HeaderMap {
    [("grpc-status", code), ("grpc-message", "ok%20then")]
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

/// A call of a method.
fn call(method: &str) -> Request<()> {
    let mut call = request(Method::POST, &format!("/shop.Orders/{method}"));
    for (name, value) in [
        ("content-type", "application/grpc+proto"),
        ("te", "trailers"),
        ("grpc-timeout", "4500m"),
        ("grpc-encoding", "identity"),
    ] {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    call
}

async fn receive(stream: &mut RecvStream) -> Option<Bytes> {
    let data = bounded("a message", stream.data()).await?.unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    Some(data)
}

/// Answers each message at once (`Chat`), or the call with an error that has no message (`Fail`).
async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, cancelled: Arc<Notify>) {
    let (head, mut incoming) = request.into_parts();
    let field = |name: &str| head.headers[name].to_str().unwrap().to_owned();
    let response = Response::builder().header("content-type", field("content-type"));
    if head.uri.path() == "/shop.Orders/Fail" {
        let mut response = response.body(()).unwrap();
        response.headers_mut().extend(status("5"));
        respond.send_response(response, true).unwrap();
        return;
    }
    let seen = format!("{} {}", field("te"), field("grpc-timeout"));
    let response = response.header("seen", seen).body(()).unwrap();
    let mut send: SendStream<Bytes> = respond.send_response(response, false).unwrap();
    while let Some(data) = bounded("a message", incoming.data()).await {
        let Ok(data) = data else { return cancelled.notify_one() };
        incoming.flow_control().release_capacity(data.len()).unwrap();
        send_all(&mut send, data).await.unwrap();
    }
    send.send_trailers(status("0")).unwrap();
}

async fn server(cancelled: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let cancelled = cancelled.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond, cancelled.clone()));
                }
            });
        }
    });
    address
}

/// The proxy, and a notification of a call that was cancelled.
async fn rig() -> (Rig, Arc<Notify>) {
    let cancelled = Arc::<Notify>::default();
    let (unused, address) = (Origin::always_answers(OK).await, server(cancelled.clone()).await);
    let urls = [format!("http://{address}").parse().unwrap()];
    // A gRPC call is streamed, even if other bodies are read first.
    let relay = RelaySettings { buffer_request: Some(1 << 10), ..RelaySettings::default() };
    let service = Service { http: HttpVersion::Http2, relay, ..Service::at("shop", urls) };
    (Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await, cancelled)
}

#[tokio::test]
async fn messages_pass_both_ways_one_by_one_and_the_status_comes_in_trailers() {
    let (rig, _) = rig().await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(call("Chat")).await;
    let (head, mut incoming) = pending.head().await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/grpc+proto");
    assert_eq!(head.headers["seen"], "trailers 4500m", "the deadline is the service's matter");
    for text in ["first", "", "third"] {
        send_all(&mut send, message(text).into()).await.unwrap();
        assert_eq!(receive(&mut incoming).await.unwrap(), message(text), "its answer comes before the next message");
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(receive(&mut incoming).await.is_none());
    let trailers = bounded("trailers", incoming.trailers()).await.unwrap().expect("the status");
    assert_eq!(trailers, status("0"));
}

#[tokio::test]
async fn an_error_without_a_message_keeps_its_status() {
    let (rig, _) = rig().await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(call("Fail")).await;
    send_all(&mut send, message("x").into()).await.unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    let reply = whole(pending.head().await.unwrap()).await.unwrap();
    assert_eq!((reply.status, reply.field("grpc-status"), reply.body.len()), (200, Some("5"), 0));
}

#[tokio::test]
async fn a_call_that_is_cancelled_is_cancelled_at_the_service() {
    let (rig, cancelled) = rig().await;
    let mut client = Http2Client::new(&rig).await;
    let (pending, mut send) = client.begin(call("Chat")).await;
    let mut incoming = pending.head().await.unwrap().into_body();
    send_all(&mut send, message("x").into()).await.unwrap();
    receive(&mut incoming).await.unwrap();
    send.send_reset(h2::Reason::CANCEL);
    bounded("the service to learn it", cancelled.notified()).await;
}
