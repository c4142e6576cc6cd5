//! Certificates and keys, read from the bytes of PEM files.
//!
//! Always true: the key of a [`Certificate`] belongs to the first certificate of its chain. Messages continue a
//! sentence whose subject is the file (`FILE holds no certificate`), and never quote a key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate chain with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The DNS names that it is for, in lower case; a wildcard is `*.example.org`.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
}

/// What is wrong with a certificate or its key, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// Whether the key's file is wrong, and not the certificate's.
    pub in_key: bool,
    /// What is wrong: the rest of a sentence whose subject is the file.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl CertificateError {
    fn of_chain(message: impl Into<String>, hint: &'static str) -> Self {
        Self { in_key: false, message: message.into(), hint }
    }
    fn of_key(message: impl Into<String>, hint: &'static str) -> Self {
        Self { in_key: true, message: message.into(), hint }
    }
}

impl Certificate {
    /// Reads a chain, the certificate of the key first, and the key.
    ///
    /// # Errors
    /// The chain or the key cannot be used, or they do not belong together: the error says which file, and why.
    pub fn read(chain: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let chain = read_certificates(chain)
            .map_err(|message| CertificateError::of_chain(message, "it must begin with the certificate of the key"))?;
        let first = chain.first().ok_or_else(|| CertificateError::of_chain("holds no certificate", ""))?;
        let facts = CertificateFacts::read(first).map_err(|message| CertificateError::of_chain(message, ""))?;
        let key = read_key(key)?;
        let certified = CertifiedKey::from_der(chain.clone(), key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::of_key(
                "does not belong to the certificate",
                match chain.len() {
                    1 => "the files of two certificates may be mixed up",
                    _ => "the certificate of the key must be the first in its file, those of its issuers follow",
                },
            ),
            rustls::Error::InvalidCertificate(error) => {
                CertificateError::of_chain(format!("holds a certificate that cannot be used: {error}"), "")
            }
            error => CertificateError::of_key(
                format!("cannot be used: {error}"),
                "keys of RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) and Ed25519 are supported",
            ),
        });
        let key = Arc::new(certified?);
        let CertificateFacts { names, not_before, not_after, .. } = facts;
        Ok(Self { key, names, not_before, not_after })
    }

    /// The chain with its key, for handshakes.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }
}

/// Reads all certificates of a PEM file; there is at least one.
///
/// # Errors
/// What is wrong: the rest of a sentence whose subject is the file.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) if has_block(pem, "PRIVATE KEY") => Err("holds a private key and no certificate".to_owned()),
        Ok(_) => Err("holds no certificate in PEM form".to_owned()),
        Err(error) => Err(format!("is not PEM: {error}")),
    }
}

fn read_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let error = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
    Err(match error {
        _ if is_encrypted(pem) => CertificateError::of_key(
            "holds a key that is encrypted",
            "decrypt it with `openssl pkey -in FILE -out FILE`",
        ),
        rustls_pki_types::pem::Error::NoItemsFound if has_block(pem, "CERTIFICATE") => {
            CertificateError::of_key("holds a certificate and no private key", "name the file of its key")
        }
        rustls_pki_types::pem::Error::NoItemsFound => {
            CertificateError::of_key("holds no private key in PEM form", "name the file of the certificate's key")
        }
        error => CertificateError::of_key(format!("is not PEM: {error}"), ""),
    })
}

/// Whether a PEM file has an encrypted block. The earlier form (RFC 1421) says so in a field of the block, not in its
/// name.
fn is_encrypted(pem: &[u8]) -> bool {
    let has_field = || String::from_utf8_lossy(pem).lines().any(|line| line.trim() == "Proc-Type: 4,ENCRYPTED");
    has_block(pem, "ENCRYPTED") || has_field()
}

/// Whether a PEM file has a block of this kind.
fn has_block(pem: &[u8], kind: &str) -> bool {
    String::from_utf8_lossy(pem).lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(kind))
}

/// From when until when a certificate is valid.
///
/// # Errors
/// It cannot be read; the error is the rest of a sentence whose subject is the file.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let CertificateFacts { not_before, not_after, .. } = CertificateFacts::read(certificate)?;
    Ok((not_before, not_after))
}

/// What a certificate says of itself.
#[derive(Clone, Debug)]
pub(super) struct CertificateFacts {
    /// The subject, as RFC 4514 writes it; empty if it has none.
    pub(super) subject: String,
    /// Its DNS names, in lower case.
    pub(super) names: Vec<String>,
    /// Its URIs.
    pub(super) uris: Vec<String>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl CertificateFacts {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let unreadable = |error: x509_cert::der::Error| format!("holds a certificate that cannot be read: {error}");
        let parsed = x509_cert::Certificate::from_der(certificate).map_err(unreadable)?;
        let parsed = parsed.tbs_certificate();
        let (mut names, mut uris) = (Vec::new(), Vec::new());
        let alternative = parsed.get_extension::<SubjectAltName>().map_err(unreadable)?;
        for name in alternative.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => names.push(name.as_str().to_ascii_lowercase()),
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().to_owned()),
                _ => {}
            }
        }
        let time = |since_epoch: Duration| SystemTime::UNIX_EPOCH + since_epoch;
        Ok(Self {
            subject: parsed.subject().to_string(),
            names,
            uris,
            not_before: time(parsed.validity().not_before.to_unix_duration()),
            not_after: time(parsed.validity().not_after.to_unix_duration()),
        })
    }
}
