//! Calls of which no comparison sees what passes.

use super::*;

#[tokio::test]
async fn a_tunnel_leads_only_to_allowed_targets_and_its_bytes_are_not_interpreted() {
    let origin = Origin::script(|mut wire, _| async move {
        while let Some(line) = wire.until("\n").await {
            wire.send(line.to_uppercase()).await;
        }
    })
    .await;
    let observer = Observer::watching();
    let listed = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, setup(&observer, &[&listed.address.to_string()], &[])).await;
    let open = async |to: SocketAddr| {
        let mut client = rig.connect().await;
        client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
        let head = client.head().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.to_lowercase().contains("content-length"), "{head}");
        client
    };
    let (to_listed, mut client) = (open(listed.address).await, open(origin.address).await);
    client.send("hello\n").await;
    assert_eq!(client.until("\n").await.as_deref(), Some("HELLO\n"));
    drop((client, to_listed));
    let tunnels = observer.tunnels.lock().unwrap().clone();
    let services: Vec<_> = tunnels.iter().map(|to| to.service.as_ref().map(|name| name.as_str())).collect();
    assert_eq!(services, [None, Some("shop")]);
    for target in ["127.0.0.1:1", "bank.test:443"] {
        let reply = rig.ask(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).await;
        assert_eq!(reply.status(), 403, "{target}");
    }
    rig.shutdown.cancel();
    bounded("the drain", rig.serving).await.unwrap();
    assert!(observer.effects.lock().unwrap().is_empty());
}

/// What passes after the switch is seen as little as what passes through a tunnel.
#[tokio::test]
async fn a_call_that_switches_to_another_protocol_is_a_tunnel() {
    let origin = Origin::script(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
        while let Some(line) = wire.until("\n").await {
            wire.send(line.to_uppercase()).await;
        }
    })
    .await;
    let observer = Observer::watching();
    let rig = Rig::new(&origin, setup(&observer, &[], &[])).await;
    let mut client = rig.connect().await;
    client.send("GET /shop/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n").await;
    assert!(client.head().await.expect("an answer").starts_with("HTTP/1.1 101 "));
    let tunnels = observer.tunnels.lock().unwrap().clone();
    let [CallTarget { service, authority, method, path }] = &tunnels[..] else { panic!("{tunnels:?}") };
    let named = (service.as_ref().map(|name| name.as_str()), authority.as_str(), method.as_str(), path.as_str());
    assert_eq!(named, (Some("shop"), origin.address.to_string().as_str(), "CONNECT", ""));
    client.send("hello\n").await;
    assert_eq!(client.until("\n").await.as_deref(), Some("HELLO\n"));
}
