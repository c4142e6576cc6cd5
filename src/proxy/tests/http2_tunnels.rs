//! WebSockets over HTTP/2: an extended CONNECT (RFC 8441) becomes an `Upgrade` at legacy.

use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request};

use super::http2_client::{Http2Client, Pending, send_all, whole};
use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::flag::State;

const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: abc\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

/// Grants an upgrade and then echoes the bytes until the end; answers other requests with [`OK`].
async fn echo() -> Origin {
    Origin::script(|mut wire, seen| async move {
        while let Some(request) = wire.message(true).await {
            let switches = request.field("upgrade").is_some();
            seen.lock().unwrap().push(request);
            if !switches {
                wire.send(OK).await;
                continue;
            }
            wire.send(GRANTED).await;
            let sent = wire.until("\n").await.unwrap();
            wire.send(sent).await;
            let rest = wire.rest().await;
            wire.send(rest).await;
            return;
        }
    })
    .await
}

/// A client that has received the proxy's SETTINGS.
async fn client(rig: &Rig) -> Http2Client {
    let mut client = Http2Client::new(rig).await;
    assert_eq!(client.get("/first").await.status, 200);
    assert!(client.requests.is_extended_connect_protocol_enabled());
    client
}

fn connect(path: &str, protocol: &'static str) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri(format!("http://shop.test{path}"));
    for (name, value) in [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("x-tenant", "7")] {
        request = request.header(name, value);
    }
    request.extension(Protocol::from_static(protocol)).body(()).unwrap()
}

async fn begin(client: &mut Http2Client, path: &str) -> (Pending, SendStream<Bytes>) {
    client.begin(connect(path, "websocket")).await
}

/// The next `count` bytes.
async fn exactly(stream: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < count {
        let data = bounded("bytes from legacy", stream.data()).await.expect("more").unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    got
}

#[tokio::test]
async fn an_extended_connect_becomes_an_upgrade_and_bytes_pass_both_ways() {
    let origin = echo().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = client(&rig).await;
    let (pending, mut send) = begin(&mut client, "/chat?room=1").await;
    let (head, mut receive) = pending.head().await.unwrap().into_parts();
    assert_eq!((head.status.as_u16(), head.headers["sec-websocket-protocol"].to_str().unwrap()), (200, "chat"));
    for name in ["sec-websocket-accept", "connection", "upgrade", "content-length"] {
        assert!(!head.headers.contains_key(name), "{name}: {:?}", head.headers);
    }
    send_all(&mut send, "ping\n".into()).await.unwrap();
    assert_eq!(exactly(&mut receive, 5).await, b"ping\n");
    assert_eq!(client.get("/other").await.status, 200, "other streams go on");
    let large = Bytes::from(vec![b'x'; 300_000]);
    send_all(&mut send, large.clone()).await.unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    assert!(exactly(&mut receive, large.len()).await == large, "more than a window, both ways");
    while let Some(data) = bounded("legacy's end is that of the stream", receive.data()).await {
        assert!(data.unwrap().is_empty(), "nothing but the end");
    }

    let request = origin.requests().into_iter().find(|request| request.field("upgrade").is_some()).unwrap();
    assert_eq!(request.line(), "GET /chat?room=1 HTTP/1.1");
    assert_eq!((request.field("connection"), request.field("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!((request.field("host"), request.field("sec-websocket-version")), (Some("shop.test"), Some("13")));
    assert_eq!((request.field("x-tenant"), request.field("sec-websocket-protocol")), (Some("7"), Some("chat")));
    assert_eq!(request.field("sec-websocket-key").map(str::len), Some(24));
    assert_eq!(client.get("/after").await.status, 200);
}

#[tokio::test]
async fn a_reset_on_one_side_ends_the_other() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(request) = wire.message(true).await {
            match request.field("upgrade") {
                None => wire.send(OK).await,
                Some(_) => {
                    wire.send(GRANTED).await;
                    if wire.until("reset").await.is_some() {
                        rustix::net::sockopt::set_socket_linger(&wire.stream, Some(Duration::ZERO)).unwrap();
                    }
                    return;
                }
            }
        }
    })
    .await;
    let rig = Rig::new(&origin, Setup { requests_max: Some(1), ..Setup::default() }).await;
    let mut client = client(&rig).await;
    let (pending, mut send) = begin(&mut client, "/chat").await;
    let mut receive = pending.head().await.unwrap().into_body();
    send_all(&mut send, "reset".into()).await.unwrap();
    let ended = bounded("the reset", receive.data()).await.expect("no END_STREAM");
    assert_eq!(ended.unwrap_err().reason(), Some(h2::Reason::CANCEL));
    let (pending, mut send) = begin(&mut client, "/chat").await;
    pending.head().await.unwrap();
    send.send_reset(h2::Reason::CANCEL);
    // The service gets one request at a time, so this shows that the tunnel has returned its turn.
    assert_eq!(client.get("/after").await.status, 200);
}

#[tokio::test]
async fn a_reply_that_switches_no_protocol_is_no_success_for_an_extended_connect() {
    for (reply, status, text) in
        [("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, "no"), (OK, 502, "problem:legacy-invalid")]
    {
        let origin = Origin::always_answers(reply).await;
        let rig = Rig::new(&origin, Setup::default()).await;
        let mut client = Http2Client::new(&rig).await;
        client.get("/first").await;
        let reply = begin(&mut client, "/chat").await.0.head().await.unwrap();
        let reply = whole(reply).await.unwrap();
        assert_eq!(reply.status, status);
        assert!(reply.text().contains(text), "{}", reply.text());
        assert_eq!(origin.requests().len(), 2);
    }
}

#[tokio::test]
async fn an_extended_connect_that_cannot_be_switched_is_refused_and_not_forwarded() {
    let origin = echo().await;
    let rig = Rig::new(&origin, Setup { state: State::Live, ..Setup::default() }).await;
    let mut client = client(&rig).await;
    let mut with_length = connect("/chat", "websocket");
    with_length.headers_mut().insert("content-length", "5".parse().unwrap());
    // The engine does not switch protocols.
    for request in [connect("/plain", "websocket"), connect("/chat", "connect-udp"), with_length] {
        let reply = client.begin(request).await.0.head().await.unwrap();
        let reply = whole(reply).await.unwrap();
        assert_eq!(reply.status, 501);
        assert!(reply.text().contains("problem:no-tunnel"), "{}", reply.text());
    }
    assert!(rig.fakes.asked.lock().unwrap().is_empty());
    assert_eq!(origin.requests().len(), 1, "only the first one");
    assert_eq!(rig.ask(&get("/http1")).await.status(), 200);
}
