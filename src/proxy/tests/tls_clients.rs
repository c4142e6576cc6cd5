//! Clients that speak TLS, and listeners with TLS.

use std::sync::Arc;

use http::HeaderName;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::{Origin, Rig, Setup};
use super::wire::{Wire, bounded};
use crate::listener::test_certificates::{Authority, Issued};
use crate::listener::{
    Certificate, ClientVerification, IdentityHeaders, Listener, ListenerTls, ServerTls, TlsParts, crypto,
};

pub type TlsWire = Wire<TlsStream<TcpStream>>;

/// The name in most of the tests' certificates.
pub const SHOP: &str = "shop.test";
pub const SUBJECT: HeaderName = HeaderName::from_static("x-client-subject");
pub const NAMES: HeaderName = HeaderName::from_static("x-client-names");

/// The settings of a listener for handshakes.
pub fn server(certificates: &[&Issued], clients: Option<(&Authority, bool)>, only_tls13: bool) -> Arc<ServerTls> {
    let read = |issued: &&Issued| Certificate::read(issued.cert.as_bytes(), issued.key.as_bytes(), &crypto()).unwrap();
    let certificates = certificates.iter().map(read).collect();
    let clients = clients.map(|(issuer, require)| {
        let issuers = vec![CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap()];
        ClientVerification { issuers, require }
    });
    Arc::new(
        ServerTls::new(TlsParts { certificates, only_tls13, clients, http2: true, digest: [0; 32] }, crypto()).unwrap(),
    )
}

/// A rig with a TLS listener, and a plain one.
pub fn setup(server: Arc<ServerTls>) -> Setup {
    let plain = Listener::plain("127.0.0.1:0".parse().unwrap());
    let identity = IdentityHeaders { subject: Some(SUBJECT), names: Some(NAMES) };
    let listener = Listener { tls: Some(ListenerTls { server: Some(server), identity }), ..plain.clone() };
    Setup { listeners: vec![listener, plain], identity_headers: vec![SUBJECT, NAMES], ..Setup::default() }
}

pub fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    roots
}

/// A client that trusts an authority, and has a certificate if one is given.
pub fn client(trusted: &Authority, own: Option<&Issued>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots(trusted));
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// Connects, or returns why the handshake failed. In TLS 1.3 the client learns only later that it was refused.
pub async fn try_connect(rig: &Rig, config: Arc<ClientConfig>, name: &str) -> std::io::Result<TlsWire> {
    let stream = bounded("connecting", TcpStream::connect(rig.address)).await.unwrap();
    connect_over(stream, config, name).await
}

pub async fn connect_over(stream: TcpStream, config: Arc<ClientConfig>, name: &str) -> std::io::Result<TlsWire> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    bounded("a handshake", TlsConnector::from(config).connect(name, stream)).await.map(Wire::new)
}

pub async fn connect(rig: &Rig, config: &Arc<ClientConfig>, name: &str) -> TlsWire {
    try_connect(rig, config.clone(), name).await.expect("a handshake")
}

/// A rig with one certificate, and a client that trusts it.
pub async fn rig_with(origin: &Origin, edit: impl FnOnce(&mut Setup)) -> (Rig, Arc<ClientConfig>) {
    let authority = Authority::new("Test");
    let mut setup = setup(server(&[&authority.issue_for(SHOP)], None, false));
    edit(&mut setup);
    (Rig::new(origin, setup).await, Arc::new(client(&authority, None)))
}
