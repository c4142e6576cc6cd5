//! Who a client is, by its certificate, as header fields.
//!
//! Always true: a value has only visible characters of ASCII and spaces, and at most [`IDENTITY_BYTES_MAX`] bytes. The
//! certificate was verified before.

use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;

use super::certificate::CertificateFacts;
use crate::limits::IDENTITY_BYTES_MAX;

/// The header fields in which legacy and the engine find who the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The field for the subject.
    pub subject: Option<HeaderName>,
    /// The field for the DNS names and URIs.
    pub names: Option<HeaderName>,
}

/// Who a client is.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    subject: Option<HeaderValue>,
    names: Option<HeaderValue>,
    not_after: SystemTime,
}

impl ClientIdentity {
    /// Reads a verified certificate.
    ///
    /// # Errors
    /// It cannot be read, or its subject or its names are too long.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let facts = CertificateFacts::read(certificate)?;
        let dns = facts.names.iter().map(|name| format!("DNS:{name}"));
        let uris = facts.uris.iter().map(|uri| format!("URI:{uri}"));
        let names: Vec<String> = uris.chain(dns).map(|name| name.replace('\\', "\\5C").replace(',', "\\2C")).collect();
        let value = |text: String| -> Result<Option<HeaderValue>, String> {
            let escaped = escape(&text);
            if escaped.is_empty() {
                return Ok(None);
            }
            let value = HeaderValue::from_str(&escaped).ok().filter(|value| value.len() <= IDENTITY_BYTES_MAX);
            value.map(Some).ok_or_else(|| "its subject or its names are too long for a header field".to_owned())
        };
        Ok(Self { subject: value(facts.subject)?, names: value(names.join(","))?, not_after: facts.not_after })
    }

    /// Whether the certificate is still valid. A resumed session is not verified again, so it may have expired since.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        now <= self.not_after
    }

    /// The header fields with their values.
    pub fn fields(&self, headers: &IdentityHeaders) -> Vec<(HeaderName, HeaderValue)> {
        let subject = headers.subject.clone().zip(self.subject.clone());
        subject.into_iter().chain(headers.names.clone().zip(self.names.clone())).collect()
    }
}

/// Writes bytes that a header field should not have as a backslash and two hex digits, as RFC 4514 allows.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject;

    use super::super::test_certificates::{Authority, Subject};
    use super::*;

    #[test]
    fn names_are_visible_ascii_and_bounded() {
        let read = |subject: &Subject<'_>| {
            let issued = Authority::new("Test").issue(subject);
            ClientIdentity::of(&CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap())
        };
        let headers =
            IdentityHeaders { subject: Some(HeaderName::from_static("s")), names: Some(HeaderName::from_static("n")) };
        let fields = |subject: &Subject<'_>| {
            let fields = read(subject).unwrap().fields(&headers);
            fields.into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>()
        };
        let common_name = Some(" a+b;\r\nx: y\u{e9}#");
        assert_eq!(fields(&Subject { common_name, ..Subject::default() }), ["s: CN=\\ a\\+b\\;\\0d\\0ax: y\\C3\\A9#"]);
        let uri = Some("spiffe://a,DNS:root\\2C");
        let subject = Subject { uri, names: &["b.test", "127.0.0.1"], ..Subject::default() };
        assert_eq!(fields(&subject), ["n: URI:spiffe://a\\2CDNS:root\\5C2C,DNS:b.test"]);
        assert!(fields(&Subject::default()).is_empty());
        let long = "x".repeat(IDENTITY_BYTES_MAX);
        assert!(read(&Subject { common_name: Some(&long), ..Subject::default() }).is_err());
    }
}
