//! Handshakes: certificates, versions, sessions, bounds, and who a client is.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{OK, Origin, Rig, get};
use super::tls_clients::{NAMES, SHOP, SUBJECT, client, connect, rig_with, roots, server, setup, try_connect};
use super::wire::{Wire, bounded};
use crate::limits::Limits;
use crate::listener::crypto;
use crate::listener::test_certificates::{Authority, Subject};

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_the_first_is_the_default() {
    let (first, second) = (Authority::new("First"), Authority::new("Second"));
    let (shop, api) = (first.issue_for(SHOP), second.issue_for("*.api.test"));
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(server(&[&shop, &api], None, false))).await;
    let (trusts_first, trusts_second) = (Arc::new(client(&first, None)), Arc::new(client(&second, None)));
    connect(&rig, &trusts_first, SHOP).await.ask(&get("/")).await;
    connect(&rig, &trusts_first, "SHOP.test").await.ask(&get("/")).await;
    connect(&rig, &trusts_second, "v1.api.test").await.ask(&get("/")).await;
    for unknown in ["other.test", "a.b.api.test", "api.test"] {
        let refused = try_connect(&rig, trusts_first.clone(), unknown).await.map(drop).unwrap_err();
        assert!(refused.to_string().contains("not valid for name"), "{unknown} gets the first: {refused}");
    }
}

#[tokio::test]
async fn versions_and_application_protocols_are_negotiated() {
    let authority = Authority::new("Test");
    let origin = Origin::always_answers(OK).await;
    let strict = Rig::new(&origin, setup(server(&[&authority.issue_for(SHOP)], None, true))).await;
    let tls12 = |authority: &Authority| {
        let builder = ClientConfig::builder_with_provider(crypto());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
        Arc::new(builder.with_root_certificates(roots(authority)).with_no_client_auth())
    };
    assert!(try_connect(&strict, tls12(&authority), SHOP).await.is_err());
    let both = Rig::new(&origin, setup(server(&[&authority.issue_for(SHOP)], None, false))).await;
    let mut wire = connect(&both, &tls12(&authority), SHOP).await;
    assert_eq!(wire.stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(wire.ask(&get("/")).await.status(), 200);
    let of_both = [(&["http/1.1", "h2"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)];
    for (offered, chosen) in of_both {
        let mut config = client(&authority, None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let wire = connect(&both, &Arc::new(config), SHOP).await;
        assert_eq!(wire.stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
    }
    let mut others = client(&authority, None);
    others.alpn_protocols = vec![b"spdy/3".to_vec()];
    assert!(try_connect(&both, Arc::new(others), SHOP).await.is_err());
}

#[tokio::test]
async fn sessions_are_resumed() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut wire = connect(&rig, &trusting, SHOP).await;
        // The server sends session tickets before the reply.
        wire.ask(&get("/")).await;
        kinds.push(wire.stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_gets_no_plaintext() {
    let origin = Origin::always_answers(OK).await;
    let (rig, _) = rig_with(&origin, |_| {}).await;
    for bytes in [get("/"), "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n".to_owned(), "\u{1}\u{2}\u{3}".repeat(2_000)] {
        let mut wire = rig.connect().await;
        wire.send(&bytes).await;
        wire.stream.shutdown().await.unwrap();
        let answer = wire.rest().await;
        assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "an alert at most: {answer:?}");
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_handshake_is_bounded_in_time() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { tls_handshake_ms: 80, linger_ms: 20, ..Limits::default() };
    let (rig, _) = rig_with(&origin, |setup| setup.limits = limits).await;
    let (mut silent, mut slow) = (rig.connect().await, rig.connect().await);
    // The beginning of a handshake message.
    slow.send([22, 3, 1, 2, 0, 1, 0]).await;
    silent.ends().await;
    slow.ends().await;
}

#[tokio::test]
async fn handshakes_in_progress_delay_nobody_and_count_as_connections() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut begun = Vec::new();
    for _ in 0..100 {
        let mut wire = rig.connect().await;
        // The beginning of a handshake message.
        wire.send([22, 3, 1, 2, 0, 1, 0]).await;
        begun.push(wire);
    }
    assert_eq!(connect(&rig, &trusting, SHOP).await.ask(&get("/")).await.status(), 200);
    drop(begun);

    let limits = Limits { client_connections_max: 1, tls_handshake_ms: 300, linger_ms: 20, ..Limits::default() };
    let (rig, trusting) = rig_with(&origin, |setup| setup.limits = limits).await;
    let mut silent = rig.connect().await;
    let mut second = Box::pin(connect(&rig, &trusting, SHOP));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "there is no room for another connection");
    silent.ends().await;
    assert_eq!(second.await.ask(&get("/")).await.status(), 200);
}

/// The last message of the handshake, a request and `close_notify` arrive together.
#[tokio::test]
async fn a_close_notify_that_comes_with_the_end_of_the_handshake_is_noticed() {
    let origin = Origin::always_answers(OK).await;
    let (rig, trusting) = rig_with(&origin, |_| {}).await;
    let mut socket = rig.connect().await;
    let mut client = rustls::ClientConnection::new(trusting, SHOP.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    socket.send(&bytes).await;
    while client.is_handshaking() {
        let mut answer = vec![0; 16 << 10];
        let read = bounded("the server's messages", socket.stream.read(&mut answer)).await.unwrap();
        client.read_tls(&mut &answer[..read]).unwrap();
        client.process_new_packets().unwrap();
    }
    client.writer().write_all(get("/").as_bytes()).unwrap();
    client.send_close_notify();
    bytes.clear();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    socket.send(&bytes).await;
    // The answer, then the end of the connection, long before its idle limit.
    client.read_tls(&mut &socket.rest().await[..]).unwrap();
    client.process_new_packets().unwrap();
    let mut answer = Vec::new();
    let _ = client.reader().read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_drain_does_not_wait_for_handshakes() {
    let origin = Origin::always_answers(OK).await;
    let limits = Limits { tls_handshake_ms: 60_000, linger_ms: 20, ..Limits::default() };
    let (rig, _) = rig_with(&origin, |setup| setup.limits = limits).await;
    let mut silent = rig.connect().await;
    rig.shutdown.cancel();
    silent.ends().await;
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert!(drained.cut == 0 && drained.took < Duration::from_secs(5), "{drained:?}");
}

#[tokio::test]
async fn a_client_certificate_is_verified_and_handed_on() {
    let (authority, clients, other) = (Authority::new("Test"), Authority::new("Clients"), Authority::new("Other"));
    let subject = Subject {
        names: &["app.test"],
        common_name: Some("Ann, \"the\" Änne"),
        organization: Some("Example"),
        uri: Some("spiffe://test/app"),
        years: None,
    };
    let good = clients.issue(&subject);
    let expired = clients.issue(&Subject { years: Some((2001, 2002)), ..subject.clone() });
    let foreign = other.issue(&subject);
    let origin = Origin::always_answers(OK).await;
    for require in [true, false] {
        let certificate = authority.issue_for(SHOP);
        let rig = Rig::new(&origin, setup(server(&[&certificate], Some((&clients, require)), false))).await;
        let mut wire = connect(&rig, &Arc::new(client(&authority, Some(&good))), SHOP).await;
        let imitated = format!(
            "GET / HTTP/1.1\r\nHost: {SHOP}\r\nX-Client-Subject: CN=root\r\nX_Client-Subject: CN=root\r\n\
             Connection: x-client-subject\r\nx-client-names: DNS:root\r\n\r\n"
        );
        assert_eq!(wire.ask(&imitated).await.status(), 200);
        let request = origin.requests().pop().unwrap();
        let subject = "CN=Ann\\, \\\"the\\\" \\C3\\84nne,O=Example";
        assert_eq!(request.fields(SUBJECT.as_str()), [subject]);
        assert_eq!(request.fields(NAMES.as_str()), ["URI:spiffe://test/app,DNS:app.test"]);
        assert!(!request.head.to_ascii_lowercase().contains("root"), "{}", request.head);
        for refused in [&expired, &foreign] {
            let config = Arc::new(client(&authority, Some(refused)));
            assert!(is_refused(&rig, config).await, "also where none is required");
        }
        let without = Arc::new(client(&authority, None));
        match require {
            true => assert!(is_refused(&rig, without).await),
            false => {
                assert_eq!(connect(&rig, &without, SHOP).await.ask(&imitated).await.status(), 200);
                let request = origin.requests().pop().unwrap();
                assert!(!request.head.to_ascii_lowercase().contains("root"), "{}", request.head);
            }
        }
        // A resumed session has the same identity.
        let again = Arc::new(client(&authority, Some(&good)));
        for _ in 0..2 {
            connect(&rig, &again, SHOP).await.ask(&get("/")).await;
            assert_eq!(origin.requests().pop().unwrap().fields(SUBJECT.as_str()), [subject]);
        }
        // On a plain listener the fields are removed as well, announced trailers included.
        let mut plain = Wire::new(TcpStream::connect(rig.addresses[1]).await.unwrap());
        let trailers = format!(
            "POST /t HTTP/1.1\r\nHost: {SHOP}\r\nx-client-subject: CN=root\r\nTE: trailers\r\n\
             Trailer: X-Client-Subject\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Client-Subject: CN=root\r\n\r\n"
        );
        assert_eq!(plain.ask(&trailers).await.status(), 200);
        let request = origin.requests().pop().unwrap();
        let all = format!("{}{}", request.head, request.trailers).to_ascii_lowercase();
        assert!(!all.contains("root"), "{all}");
    }
}

async fn is_refused(rig: &Rig, config: Arc<ClientConfig>) -> bool {
    match try_connect(rig, config, SHOP).await {
        Err(_) => true,
        Ok(mut wire) => {
            let _ = wire.stream.write_all(get("/").as_bytes()).await;
            let _ = wire.stream.flush().await;
            let mut byte = [0];
            !matches!(bounded("an alert", wire.stream.read(&mut byte)).await, Ok(1))
        }
    }
}
