//! Connections that a load balancer passes on with a PROXY header.

use std::time::Duration;

use tokio::net::TcpListener;

use super::rig::{OK, Origin, Rig, Setup, get};
use super::wire::bounded;
use crate::limits::Limits;
use crate::listener::{Listener, Network, ProxyProtocol, ProxyVersion};

pub const HEADER: &str = "PROXY TCP4 192.0.2.7 192.0.2.1 12345 443\r\n";

pub fn expecting(version: ProxyVersion, trust: &[&str]) -> Setup {
    let trust = trust.iter().map(|network| Network::parse(network).unwrap()).collect();
    let proxy_protocol = Some(ProxyProtocol { version, trust });
    let listener = Listener { proxy_protocol, ..Listener::plain("127.0.0.1:0".parse().unwrap()) };
    Setup { listeners: vec![listener], ..Setup::default() }
}

/// Returns the `X-Forwarded-For` that legacy gets.
async fn forwarded_for(origin: &Origin, rig: &Rig, header: &[u8]) -> String {
    let mut client = rig.connect().await;
    client.send([header, get("/who").as_bytes()].concat()).await;
    assert_eq!(client.reply().await.status(), 200);
    let request = origin.requests().pop().expect("a request");
    request.field("x-forwarded-for").expect("the field").to_owned()
}

#[tokio::test]
async fn the_source_of_the_header_is_the_peer() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, expecting(ProxyVersion::Any, &["127.0.0.0/8"])).await;
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let source = [192, 0, 2, 8, 192, 0, 2, 1, 1, 2, 3, 4];
    let version_2 = [&signature[..], &[0x21, 0x11, 0, 15], &source, &[4, 0, 0]].concat();
    let local = [&signature[..], &[0x20, 0x00, 0, 0]].concat();
    assert_eq!(forwarded_for(&origin, &rig, HEADER.as_bytes()).await, "192.0.2.7");
    assert_eq!(forwarded_for(&origin, &rig, b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n").await, "2001:db8::7");
    assert_eq!(forwarded_for(&origin, &rig, &version_2).await, "192.0.2.8");
    assert_eq!(forwarded_for(&origin, &rig, &local).await, "127.0.0.1", "the load balancer's own connection");
    assert_eq!(forwarded_for(&origin, &rig, b"PROXY UNKNOWN\r\n").await, "127.0.0.1");
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_read() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, expecting(ProxyVersion::V1, &[])).await;
    let mut client = rig.connect().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in HEADER.as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    assert_eq!(client.ask(&get("/again")).await.status(), 200, "one header for one connection");
    let fields = origin.requests().into_iter().map(|request| request.field("x-forwarded-for").unwrap().to_owned());
    assert_eq!(fields.collect::<Vec<_>>(), ["192.0.2.7"; 2]);
}

#[tokio::test]
async fn a_connection_without_the_declared_header_is_closed_without_an_answer() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, expecting(ProxyVersion::V2, &[])).await;
    for bytes in [get("/"), format!("{HEADER}{}", get("/")), "PROXY".to_owned()] {
        let mut client = rig.connect().await;
        client.send(&bytes).await;
        client.ends().await;
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_peer_outside_of_the_trusted_networks_is_refused() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, expecting(ProxyVersion::Any, &["10.0.0.0/8", "::1/128"])).await;
    let mut client = rig.connect().await;
    // The proxy may close the connection before these bytes are sent.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, HEADER.as_bytes()).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, get("/").as_bytes()).await;
    let mut byte = [0];
    let read = bounded("the end", tokio::io::AsyncReadExt::read(&mut client.stream, &mut byte)).await;
    assert!(!matches!(read, Ok(1)), "no answer");
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn a_header_that_does_not_come_ends_the_connection_in_time() {
    let origin = Origin::always_answers(OK).await;
    let mut setup = expecting(ProxyVersion::Any, &[]);
    setup.limits = Limits { proxy_header_ms: 80, ..Limits::default() };
    let rig = Rig::new(&origin, setup).await;
    let (mut silent, mut slow) = (rig.connect().await, rig.connect().await);
    slow.send("PROXY TCP4 ").await;
    silent.ends().await;
    slow.ends().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_headers() {
    let origin = Origin::always_answers(OK).await;
    let mut setup = expecting(ProxyVersion::Any, &[]);
    setup.limits = Limits { proxy_header_ms: 60_000, ..Limits::default() };
    let rig = Rig::new(&origin, setup).await;
    let (mut silent, mut late) = (rig.connect().await, rig.connect().await);
    rig.shutdown.cancel();
    late.send(format!("{HEADER}{}", get("/late"))).await;
    assert_eq!(late.reply().await.status(), 200, "it was accepted before");
    silent.ends().await;
    let drained = bounded("the drain", rig.serving).await.unwrap();
    assert!(drained.cut == 0 && drained.took < Duration::from_secs(5), "{drained:?}");
}

#[tokio::test]
async fn without_a_declaration_a_header_is_a_malformed_request() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut client = rig.connect().await;
    client.send(HEADER).await;
    client.send(get("/")).await;
    assert_eq!(client.reply().await.status(), 400);
    assert!(origin.requests().is_empty());
}

/// When the load balancer closes the connection, the client of a request that waits for legacy is gone.
#[tokio::test]
async fn a_connection_behind_the_header_is_like_any_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::at(listener.local_addr().unwrap(), expecting(ProxyVersion::V1, &[])).await;
    let mut client = rig.connect().await;
    client.send(format!("{HEADER}{}", get("/slow"))).await;
    let (mut legacy, _) = bounded("the request", listener.accept()).await.unwrap();
    let mut some = [0; 16];
    bounded("its bytes", tokio::io::AsyncReadExt::read(&mut legacy, &mut some)).await.unwrap();
    drop(client);
    let mut rest = Vec::new();
    bounded("legacy's connection to end", tokio::io::AsyncReadExt::read_to_end(&mut legacy, &mut rest)).await.unwrap();
}
