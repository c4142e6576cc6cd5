//! Services that the proxy calls over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::http2_origin::{Http2Origin, frame, read_until};
use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::tls_clients::server;
use super::tls_services::{local, trusting};
use super::wire::bounded;
use crate::flag::{HttpVersion, Service, ServiceTls};
use crate::listener::test_certificates::Authority;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

async fn rig(addresses: &[SocketAddr], http: HttpVersion, tls: Option<ServiceTls>) -> Rig {
    let unused = Origin::always_answers(OK).await;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let urls = addresses.iter().map(|address| format!("{scheme}://{address}").parse().unwrap());
    let service = Service { http, tls, ..Service::at("shop", urls) };
    Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await
}

/// An address that runs `script` on each connection, with the connection's number. If the script returns the stream,
/// the connection is served normally.
async fn scripted<F, Fut>(script: F) -> (Http2Origin, SocketAddr)
where
    F: Fn(usize, TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = Option<TcpStream>> + Send + 'static,
{
    let (origin, listener) = (Http2Origin::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (served, address) = (origin.clone(), listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            *served.connections.lock().unwrap() += 1;
            let (scripted, origin) = (script(number, stream), served.clone());
            tokio::spawn(async move {
                if let Some(stream) = scripted.await {
                    origin.serve(stream, 100).await;
                }
            });
        }
    });
    (origin, address)
}

/// Waits for a request, and answers it with the frames that `answer` returns for the request's stream.
async fn refuse(mut stream: TcpStream, answer: impl Fn(u32) -> Vec<u8>) {
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    let Some(number) = read_until(&mut stream, HEADERS, true).await else { return };
    let _ = stream.write_all(&answer(number)).await;
    // Reads until the client closes.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let (origin, address) = Http2Origin::start(100, None).await;
    let rig = Arc::new(rig(&[address], HttpVersion::Http2, None).await);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.ask(&get("/wait")).await.status() })
        })
        .collect();
    bounded("all requests", async {
        while origin.lines().len() < 40 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.answers.add_permits(100);
    for client in clients {
        assert_eq!(bounded("an answer", client).await.unwrap(), 200);
    }
    assert_eq!(*origin.connections.lock().unwrap(), 1);
    let seen = origin.seen.lock().unwrap()[0].clone();
    assert_eq!(seen.line, "GET http://shop.test/wait");
    assert!(!seen.headers.contains_key("host") && seen.headers["x-forwarded-host"] == "shop.test");
}

#[tokio::test]
async fn a_connection_carries_no_more_requests_than_its_peer_accepts() {
    let (origin, address) = Http2Origin::start(2, None).await;
    let rig = Arc::new(rig(&[address], HttpVersion::Http2, None).await);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let rig = rig.clone();
            tokio::spawn(async move { rig.ask(&get("/wait")).await.status() })
        })
        .collect();
    bounded("all requests", async {
        while origin.lines().len() < 6 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*origin.connections.lock().unwrap(), 3, "nobody waits for another one's answer");
    origin.answers.add_permits(100);
    for client in clients {
        assert_eq!(bounded("an answer", client).await.unwrap(), 200);
    }
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let (origin, address) = Http2Origin::start(100, None).await;
    let rig = rig(&[address], HttpVersion::Http2, None).await;
    let request = "POST /trailers HTTP/1.1\r\nHost: shop.test\r\nTE: trailers\r\nTrailer: x-sum\r\n\
                   Transfer-Encoding: chunked\r\nContent-Type: application/grpc\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 17\r\n\r\n";
    let reply = rig.ask(request).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
    assert_eq!(reply.trailers, "grpc-status: 0\r\n");
    let seen = origin.seen.lock().unwrap()[0].clone();
    assert_eq!((&seen.body[..], seen.trailers.unwrap()["x-sum"].as_bytes()), (&b"abcde"[..], &b"17"[..]));
    assert!(seen.headers["te"] == "trailers" && seen.headers["content-type"] == "application/grpc");
    let large = "x".repeat(3 << 20);
    assert_eq!(rig.ask(&post("/any", &large)).await.status(), 200);
    assert_eq!(origin.seen.lock().unwrap()[1].body.len(), 3 << 20);
}

/// Applies to any method, because the service has said that it has not processed the requests.
#[tokio::test]
async fn requests_that_were_not_processed_are_sent_again() {
    let refused = |number: u32| frame(RST_STREAM, 0, number, &REFUSED_STREAM);
    // GOAWAY names stream 0: the service has processed no request.
    let going_away = |_: u32| frame(GOAWAY, 0, 0, &[0; 8]);
    let answers: [fn(u32) -> Vec<u8>; 2] = [refused, going_away];
    for (index, answer) in answers.into_iter().enumerate() {
        for body in ["", "{\"amount\":7}"] {
            let (origin, address) = scripted(move |number, stream| async move {
                if number >= 2 {
                    return Some(stream);
                }
                refuse(stream, answer).await;
                None
            })
            .await;
            let rig = rig(&[address], HttpVersion::Http2, None).await;
            let reply = rig.ask(&post("/charges", body)).await;
            assert_eq!(reply.status(), 200, "{index}: {}", reply.text());
            let seen = origin.seen.lock().unwrap().clone();
            assert_eq!((seen.len(), &seen[0].body[..]), (1, body.as_bytes()), "{index}");
            assert_eq!(*origin.connections.lock().unwrap(), 3, "{index}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_never_processed_is_503() {
    // A body larger than what is kept cannot be sent again.
    for (body, times) in [("{}".to_owned(), 3), ("x".repeat(200 << 10), 1)] {
        let length = body.len();
        let (origin, address) = scripted(move |_, mut stream| async move {
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
            // A window for the whole body.
            stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &[0, 16, 0, 0])).await.ok()?;
            let number = read_until(&mut stream, HEADERS, true).await?;
            stream.write_all(&frame(WINDOW_UPDATE, 0, number, &[0, 16, 0, 0])).await.ok()?;
            let mut read = 0;
            while read < length {
                read += read_until(&mut stream, DATA, false).await.map(|_| 16 << 10)?;
            }
            stream.write_all(&frame(RST_STREAM, 0, number, &REFUSED_STREAM)).await.ok()?;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            None
        })
        .await;
        let rig = rig(&[address], HttpVersion::Http2, None).await;
        let refused = rig.ask(&post("/charges", &body)).await;
        assert_eq!(refused.status(), 503, "{}", refused.text());
        assert!(refused.text().contains("legacy-not-processed"), "{}", refused.text());
        assert!(refused.text().contains("cannot do the work twice"), "{}", refused.text());
        assert_eq!(*origin.connections.lock().unwrap(), times);
    }
}

/// The end of a connection, or a reset of a stream for another reason, does not show what was processed.
#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let internal_error = |number: u32| frame(RST_STREAM, 0, number, &[0, 0, 0, 2]);
    // GOAWAY names the request as one that was begun, and then the service closes the connection.
    let going_away = |number: u32| frame(GOAWAY, 0, 0, &[number.to_be_bytes(), [0; 4]].concat());
    let nothing = |_: u32| Vec::new();
    let answers: [fn(u32) -> Vec<u8>; 3] = [internal_error, going_away, nothing];
    for (index, answer) in answers.into_iter().enumerate() {
        let (origin, address) = scripted(move |number, mut stream| async move {
            if number > 0 {
                return Some(stream);
            }
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
            let number = read_until(&mut stream, HEADERS, true).await?;
            read_until(&mut stream, DATA, false).await?;
            stream.write_all(&answer(number)).await.ok()?;
            None
        })
        .await;
        let rig = rig(&[address], HttpVersion::Http2, None).await;
        let refused = rig.ask(&post("/charges", "{}")).await;
        assert_eq!(refused.status(), 502, "{index}: {}", refused.text());
        assert!(refused.text().contains("may have been carried out"), "{index}: {}", refused.text());
        assert!(origin.lines().is_empty(), "{index}");
        assert_eq!(rig.ask(&post("/charges", "{}")).await.status(), 200, "{index}: the next one gets a connection");
    }
}

/// A second request on the same connection is not affected.
#[tokio::test]
async fn a_client_that_goes_away_resets_its_stream_only() {
    let reset = Arc::new(tokio::sync::Notify::new());
    let seen = reset.clone();
    let (_, address) = scripted(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.ok()?;
            let first = read_until(&mut stream, HEADERS, true).await?;
            let second = read_until(&mut stream, HEADERS, false).await?;
            let reset = read_until(&mut stream, RST_STREAM, false).await?;
            let other = if reset == first { second } else { first };
            seen.notify_one();
            // `:status: 204`, by its index in HPACK's static table.
            stream.write_all(&frame(HEADERS, 5, other, &[0x89])).await.ok()?;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            None
        }
    })
    .await;
    let rig = rig(&[address], HttpVersion::Http2, None).await;
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    first.send(get("/first")).await;
    bounded("the first stream", async {
        while rig.proxy.shared.table().no_route().upstream.in_flight() < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.send(get("/second")).await;
    bounded("the second stream", async {
        while rig.proxy.shared.table().no_route().upstream.in_flight() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(first);
    bounded("the reset", reset.notified()).await;
    assert_eq!(second.message(false).await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_service_that_does_not_speak_http2_gets_no_request() {
    let origin = Origin::script(|mut wire, seen| async move {
        // The HTTP/1.1 server answers the preface with an error: the preface is no valid request.
        let preface = wire.head().await;
        wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        seen.lock().unwrap().push(super::wire::Message { head: preface.unwrap(), ..Default::default() });
    })
    .await;
    let rig = rig(&[origin.address], HttpVersion::Http2, None).await;
    let refused = rig.ask(&post("/charges", "{}")).await;
    assert_eq!(refused.status(), 502);
    assert!(refused.text().contains("legacy-unreachable") && refused.text().contains("Nothing was sent"));
    assert!(origin.only_request().head.starts_with("PRI * HTTP/2.0"));
}

/// The configuration of a server that offers these protocols.
fn offering(issuer: &Authority, protocols: &[&str]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(&server(&[&local(issuer)], None, false).config());
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

#[tokio::test]
async fn the_version_is_chosen_in_the_tls_handshake() {
    let issuer = Authority::new("Test");
    let tls = || Some(trusting(&issuer, None, None));
    for http in [HttpVersion::Http2, HttpVersion::Negotiated] {
        let (origin, address) = Http2Origin::start(100, Some(offering(&issuer, &["h2", "http/1.1"]))).await;
        let rig = rig(&[address], http, tls()).await;
        for _ in 0..3 {
            assert_eq!(rig.ask(&get("/any")).await.status(), 200);
        }
        assert_eq!(origin.lines(), ["GET https://shop.test/any"; 3]);
        assert_eq!(*origin.connections.lock().unwrap(), 1);
    }
    // A service that does not offer HTTP/2.
    let (origin, address) = Http2Origin::start(100, Some(offering(&issuer, &["http/1.1"]))).await;
    let rig = rig(&[address], HttpVersion::Http2, tls()).await;
    let refused = rig.ask(&post("/any", "{}")).await;
    assert_eq!(refused.status(), 502);
    assert!(refused.text().contains("legacy-tls"), "{}", refused.text());
    assert!(origin.lines().is_empty());
}
