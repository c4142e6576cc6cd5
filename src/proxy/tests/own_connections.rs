//! A legacy that authenticates connections instead of requests.

use super::origin::Origin;
use super::rig::{Rig, Setup};
use super::wire::{Message, bounded};

/// A legacy with NTLM: after a handshake of two steps, all requests on the connection are the user's.
async fn ntlm() -> Origin {
    Origin::script(|mut wire, seen| async move {
        let mut user: Option<String> = None;
        while let Some(request) = wire.message(true).await {
            let authorization = request.field("authorization").map(str::to_owned);
            seen.lock().unwrap().push(request);
            let refused = |scheme: &str| {
                format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n")
            };
            let known = user.clone();
            let reply = match (authorization.as_deref(), &known) {
                (Some("NTLM hello"), _) => refused("NTLM challenge"),
                (Some(other), _) if other.starts_with("NTLM ") => {
                    user = Some(other["NTLM ".len()..].to_owned());
                    let name = user.as_deref().unwrap_or_default();
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())
                }
                (_, Some(name)) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()),
                (_, None) => refused("NTLM"),
            };
            wire.send(reply).await;
        }
        seen.lock().unwrap().push(Message { head: "CLOSED / HTTP/1.1\r\n\r\n".into(), ..Message::default() });
    })
    .await
}

fn get(authorization: Option<&str>) -> String {
    let field = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n")
}

#[tokio::test]
async fn a_connection_that_legacy_has_authenticated_serves_one_client_only() {
    let origin = ntlm().await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut ann = rig.connect().await;
    let mut bob = rig.connect().await;
    assert_eq!(ann.ask(&get(None)).await.status(), 401);
    assert_eq!(ann.ask(&get(Some("NTLM hello"))).await.field("www-authenticate"), Some("NTLM challenge"));
    assert_eq!(bob.ask(&get(None)).await.status(), 401, "not in the middle of somebody's handshake");
    assert_eq!(ann.ask(&get(Some("NTLM ann"))).await.text(), "ann");
    // Neither taking turns nor opening new client connections gives a client another client's identity.
    for _ in 0..3 {
        assert_eq!(ann.ask(&get(None)).await.text(), "ann");
        assert_eq!(bob.ask(&get(None)).await.status(), 401);
        assert_eq!(rig.ask(&get(None)).await.status(), 401);
    }
    assert_eq!(bob.ask(&get(Some("NTLM bob"))).await.text(), "bob");
    assert_eq!((ann.ask(&get(None)).await.text(), bob.ask(&get(None)).await.text()), ("ann".into(), "bob".into()));
    // Without a 401 first: the client already knows which scheme legacy wants.
    let mut eve = rig.connect().await;
    assert_eq!(eve.ask(&get(Some("NTLM eve"))).await.text(), "eve");
    drop(eve);
    assert_eq!(rig.ask(&get(None)).await.status(), 401);
    drop((ann, bob));
    bounded("the connections of gone clients to be closed", async {
        while origin.requests().iter().filter(|request| request.line().starts_with("CLOSED")).count() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
