//! TLS towards services: what is trusted, and the handshake.
//!
//! Always true: TLS 1.2 or 1.3 is used, without early data, which an attacker could replay; the service's certificate
//! and the name in it are verified; nothing of a request is sent before the handshake has ended. Sessions are resumed.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::flag::{HttpVersion, ServiceTls};

/// The settings of a TLS client.
pub struct ClientTls {
    /// The certificates that are trusted to have issued the service's.
    pub trusted: Vec<CertificateDer<'static>>,
    /// Our own certificate.
    pub own: Option<Arc<CertifiedKey>>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
}

impl ClientTls {
    /// Returns the configuration for handshakes, and the reasons why some of the trusted certificates cannot be used.
    ///
    /// # Errors
    /// The settings cannot be used with these cipher suites.
    pub fn config(self, provider: Arc<CryptoProvider>) -> Result<(ClientConfig, Vec<String>), String> {
        let versions: &[&SupportedProtocolVersion] = if self.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let mut roots = RootCertStore::empty();
        let unusable =
            self.trusted.into_iter().filter_map(|certificate| Some(roots.add(certificate).err()?.to_string()));
        let unusable = unusable.collect();
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots);
        let config = match self.own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        Ok((config, unusable))
    }
}

/// Returns the certificates that this machine trusts.
///
/// # Errors
/// No certificate that this machine trusts was found, or none could be read.
pub fn platform_certificates() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!("no certificates that this machine trusts were found{why}"));
    }
    Ok(found.certs)
}

/// Which version of HTTP a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The URL's host is not a name that a certificate can have.
    #[error("`{0}` is not a name that a certificate can have: write `server_name`")]
    Name(String),
    /// The handshake failed.
    #[error("{0}")]
    Handshake(std::io::Error),
    /// The service does not offer HTTP/2.
    #[error("the service does not offer HTTP/2 in the TLS handshake (ALPN)")]
    NoHttp2,
}

/// Performs the handshake with a service whose URL has this host.
///
/// # Errors
/// The service is not the one that is expected, or does not speak TLS or the version of HTTP.
pub(super) async fn handshake(
    socket: TcpStream,
    tls: &ServiceTls,
    host: &str,
    http: HttpVersion,
) -> Result<(TlsStream<TcpStream>, ConnectionProtocol), TlsError> {
    let name = match tls.server_name() {
        Some(name) => name.clone(),
        // A name may be written with a dot at its end, for the resolver.
        None => {
            ServerName::try_from(host.trim_end_matches('.').to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?
        }
    };
    let connecting = TlsConnector::from(tls.config(http).clone()).connect(name, socket);
    let stream = connecting.await.map_err(TlsError::Handshake)?;
    let spoken = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => ConnectionProtocol::Http2,
        _ if http == HttpVersion::Http2 => return Err(TlsError::NoHttp2),
        _ => ConnectionProtocol::Http1,
    };
    Ok((stream, spoken))
}
