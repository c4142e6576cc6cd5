//! Services that the proxy calls over TLS.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use http::uri::Authority;
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::rig::{OK, Origin, Rig, Setup, get, post};
use super::tls_clients::server;
use super::wire::{Message, Wire};
use crate::flag::{BaseUrl, SentHost, Service, ServiceTls};
use crate::listener::test_certificates::{Authority as Issuer, Issued, Subject};
use crate::listener::{Certificate, crypto};
use crate::transport::ClientTls;

/// Settings for a service: the issuer that is trusted, the proxy's own certificate, and the name.
pub fn trusting(issuer: &Issuer, own: Option<&Issued>, name: Option<&'static str>) -> ServiceTls {
    let trusted = vec![CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap()];
    let own = own.map(|own| Certificate::read(own.cert.as_bytes(), own.key.as_bytes(), &crypto()).unwrap());
    let own = own.map(|certificate| certificate.certified_key());
    let (config, unusable) = ClientTls { trusted, own, only_tls13: false }.config(crypto()).unwrap();
    assert!(unusable.is_empty());
    ServiceTls::new(config, name.map(|name| ServerName::try_from(name).unwrap()), [0; 32])
}

/// A certificate for 127.0.0.1.
pub fn local(issuer: &Issuer) -> Issued {
    issuer.issue(&Subject { names: &["127.0.0.1"], ..Subject::default() })
}

/// The server name that the client sent, and the kind of the handshake.
type Handshake = (Option<String>, Option<HandshakeKind>);

/// An origin that answers over TLS.
struct TlsOrigin {
    url: String,
    seen: Arc<Mutex<Vec<Message>>>,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    failed: Arc<AtomicUsize>,
}

impl TlsOrigin {
    /// Starts an origin that closes each connection after `each` requests.
    async fn start(config: Arc<ServerConfig>, each: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            url: format!("https://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            handshakes: Arc::default(),
            failed: Arc::default(),
        };
        let (seen, handshakes, failed) = (origin.seen.clone(), origin.handshakes.clone(), origin.failed.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accepting = TlsAcceptor::from(config.clone()).accept(stream);
                let (seen, handshakes, failed) = (seen.clone(), handshakes.clone(), failed.clone());
                tokio::spawn(async move {
                    let Ok(stream) = accepting.await else {
                        failed.fetch_add(1, SeqCst);
                        return;
                    };
                    let connection = stream.get_ref().1;
                    let handshake = (connection.server_name().map(str::to_owned), connection.handshake_kind());
                    handshakes.lock().unwrap().push(handshake);
                    let mut wire = Wire::new(stream);
                    for _ in 0..each {
                        let Some(request) = wire.message(true).await else { return };
                        seen.lock().unwrap().push(request);
                        wire.send(OK).await;
                    }
                });
            }
        });
        origin
    }
    fn service(&self, tls: ServiceTls) -> Service {
        Service { tls: Some(tls), ..Service::at("shop", [self.url.parse().unwrap()]) }
    }
}

async fn rig(service: Service) -> Rig {
    let unused = Origin::always_answers(OK).await;
    Rig::new(&unused, Setup { service: Some(service), ..Setup::default() }).await
}

#[tokio::test]
async fn requests_go_over_one_tls_connection_with_the_host_of_the_client() {
    let issuer = Issuer::new("Test");
    let origin = TlsOrigin::start(server(&[&local(&issuer)], None, false).config(), 9).await;
    let rig = rig(origin.service(trusting(&issuer, None, None))).await;
    let mut client = rig.connect().await;
    assert_eq!(client.ask(&get("/a//b?c=%2F")).await.text(), "{\"id\":\"o-17\"}");
    assert_eq!(client.ask(&post("/orders", "{\"a\":1}")).await.status(), 200);
    let seen = origin.seen.lock().unwrap().clone();
    assert_eq!((seen[0].line(), seen[0].field("host")), ("GET /a//b?c=%2F HTTP/1.1", Some("shop.test")));
    assert_eq!((seen[1].text().as_str(), seen.len()), ("{\"a\":1}", 2));
    let handshakes = origin.handshakes.lock().unwrap().clone();
    assert_eq!(handshakes, [(None, Some(HandshakeKind::Full))], "an address is no name for SNI");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let issuer = Issuer::new("Test");
    let origin = TlsOrigin::start(server(&[&issuer.issue_for("shop.test")], None, false).config(), 1).await;
    let rig = rig(origin.service(trusting(&issuer, None, Some("shop.test")))).await;
    for _ in 0..3 {
        assert_eq!(rig.ask(&get("/any")).await.status(), 200);
    }
    let handshakes = origin.handshakes.lock().unwrap().clone();
    let resumed = |(_, kind): &&(_, Option<HandshakeKind>)| *kind == Some(HandshakeKind::Resumed);
    assert!(handshakes.iter().filter(resumed).count() >= 1, "{handshakes:?}");
    assert!(handshakes.iter().all(|(name, _)| name.as_deref() == Some("shop.test")), "{handshakes:?}");
}

#[tokio::test]
async fn a_service_that_is_not_trusted_gets_nothing() {
    let (issuer, other) = (Issuer::new("Test"), Issuer::new("Other"));
    let expired = issuer.issue(&Subject { names: &["127.0.0.1"], years: Some((2001, 2002)), ..Subject::default() });
    let cases = [
        (local(&issuer), trusting(&other, None, None)),
        (issuer.issue_for("shop.test"), trusting(&issuer, None, None)),
        (local(&issuer), trusting(&issuer, None, Some("bank.test"))),
        (expired, trusting(&issuer, None, None)),
    ];
    for (index, (issued, tls)) in cases.into_iter().enumerate() {
        let origin = TlsOrigin::start(server(&[&issued], None, false).config(), 9).await;
        let rig = rig(origin.service(tls)).await;
        let refused = rig.ask(&post("/orders", "{}")).await;
        assert_eq!(refused.status(), 502, "{index}");
        assert!(refused.text().contains("legacy-tls") && refused.text().contains("Nothing was sent"), "{index}");
        assert!(origin.seen.lock().unwrap().is_empty(), "{index}");
    }
    // A service that does not speak TLS.
    let plain = Origin::always_answers(OK).await;
    let tls = Some(trusting(&issuer, None, None));
    let url = format!("https://{}", plain.address).parse().unwrap();
    let rig = rig(Service { tls, ..Service::at("shop", [url]) }).await;
    let refused = rig.ask(&post("/orders", "{}")).await;
    assert!(refused.status() == 502 || refused.status() == 504, "{}", refused.text());
    assert!(refused.text().contains("Nothing was sent"), "{}", refused.text());
}

#[tokio::test]
async fn an_address_that_is_not_trusted_fails_no_request_if_there_is_another() {
    let (issuer, other) = (Issuer::new("Test"), Issuer::new("Other"));
    let good = TlsOrigin::start(server(&[&local(&issuer)], None, false).config(), 9).await;
    let bad = TlsOrigin::start(server(&[&local(&other)], None, false).config(), 9).await;
    let mut service = good.service(trusting(&issuer, None, None));
    service.urls.push(BaseUrl::from(bad.url.parse::<http::Uri>().unwrap()));
    let rig = rig(service).await;
    for _ in 0..20 {
        assert_eq!(rig.ask(&post("/any", "{}")).await.status(), 200);
    }
    assert_eq!((good.seen.lock().unwrap().len(), bad.failed.load(SeqCst)), (20, 1), "it is ejected");
}

#[tokio::test]
async fn a_service_that_asks_for_our_certificate_gets_it() {
    let (issuer, clients) = (Issuer::new("Test"), Issuer::new("Clients"));
    let own = clients.issue_for("pointsman.test");
    let origin = TlsOrigin::start(server(&[&local(&issuer)], Some((&clients, true)), false).config(), 9).await;
    let with = rig(origin.service(trusting(&issuer, Some(&own), None))).await;
    assert_eq!(with.ask(&get("/any")).await.status(), 200);
    // With TLS 1.3 the service refuses only after the client's side of the handshake has ended.
    let without = rig(origin.service(trusting(&issuer, None, None))).await;
    let refused = without.ask(&post("/any", "{}")).await;
    assert_eq!(refused.status(), 502);
    assert!(refused.text().contains("legacy-closed") || refused.text().contains("legacy-tls"), "{}", refused.text());
    assert_eq!(origin.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_host_is_the_clients_or_that_of_the_url_or_a_fixed_one() {
    let origin = Origin::always_answers(OK).await;
    let url = || format!("http://{}", origin.address).parse().unwrap();
    let of_url = origin.address.to_string();
    for (host, sent) in [
        (SentHost::Client, "shop.test"),
        (SentHost::Url, &*of_url),
        (SentHost::Fixed(Authority::from_static("inside:81")), "inside:81"),
    ] {
        let rig = rig(Service { host, ..Service::at("shop", [url()]) }).await;
        assert_eq!(rig.ask(&get("/any")).await.status(), 200);
        let seen = origin.requests().pop().unwrap();
        assert_eq!((seen.fields("host"), seen.field("x-forwarded-host")), (vec![sent], Some("shop.test")));
    }
}
