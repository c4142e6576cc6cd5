//! What a listener needs for handshakes.
//!
//! Always true: TLS 1.2 or 1.3, without early data, which an attacker could replay; once certificates or settings are
//! replaced, sessions that began before are not resumed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;

use super::certificate::Certificate;
use super::identity::IdentityHeaders;
use crate::limits::TLS_SESSIONS_MAX;

/// The application protocols, in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The same where HTTP/2 is off.
const HTTP1_ONLY: [&[u8]; 1] = [b"http/1.1"];

/// The TLS of a listener, as the files declare it.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// What handshakes need; `None` where files were only checked and a key was not on the machine.
    pub server: Option<Arc<ServerTls>>,
    /// The header fields for the client's certificate.
    pub identity: IdentityHeaders,
}

/// Certificates and settings, checked.
#[derive(Clone, Debug)]
pub struct TlsParts {
    /// At least one; the first is for clients that ask for no name, or for an unknown one.
    pub certificates: Vec<Certificate>,
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
    /// How clients are verified.
    pub clients: Option<ClientVerification>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// A hash of all files and settings: equal for equal ones.
    pub digest: [u8; 32],
}

/// How clients are verified.
#[derive(Clone, Debug)]
pub struct ClientVerification {
    /// The certificates of the issuers.
    pub issuers: Vec<CertificateDer<'static>>,
    /// Whether a client without a certificate is refused.
    pub require: bool,
}

/// What handshakes need.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    expires: SystemTime,
    digest: [u8; 32],
}

/// The cipher suites, signatures and random numbers that TLS uses here: those of aws-lc.
pub fn crypto() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl ServerTls {
    /// Makes what handshakes need.
    ///
    /// # Errors
    /// The certificates of the issuers cannot be used.
    pub fn new(parts: TlsParts, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let TlsParts { certificates, only_tls13, clients, http2, digest } = parts;
        let expires = certificates.iter().map(|certificate| certificate.not_after).min();
        let versions: &[&SupportedProtocolVersion] = if only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).map_err(|error| error.to_string())?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ClientVerification { issuers, require }) => {
                let mut roots = RootCertStore::empty();
                for issuer in issuers {
                    roots.add(issuer).map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = if require { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
        };
        let by_name = CertificatesByName::new(&certificates).ok_or("there is no certificate")?;
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        let protocols: &[&[u8]] = if http2 { &PROTOCOLS } else { &HTTP1_ONLY };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.session_storage = ServerSessionMemoryCache::new(TLS_SESSIONS_MAX);
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), expires: expires.unwrap_or(SystemTime::UNIX_EPOCH), digest })
    }

    /// The settings for a new handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The earliest time at which one of the certificates expires.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether the other one was made of equal files and settings.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct CertificatesByName {
    /// Several for one name have keys of different kinds (RSA, ECDSA); a client gets the first that it supports.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl CertificatesByName {
    fn new(certificates: &[Certificate]) -> Option<Self> {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        let first = certificates.first()?;
        let default = certificates.iter().filter(|other| other.names == first.names);
        Some(Self { by_name, default: default.map(|certificate| certificate.key.clone()).collect() })
    }

    fn of_name(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard)
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().and_then(|name| self.of_name(name)).unwrap_or(&self.default);
        let schemes = hello.signature_schemes();
        let usable = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        usable.or(candidates.first()).cloned()
    }
}
