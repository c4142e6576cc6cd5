//! Counts failed TLS handshakes with services: for forwarded requests, calls of steps, messages to webhooks and batches
//! of spans.
//!
//! Always true: the reasons are a closed set, which `pointsman help metrics` lists.

use metrics::counter;
use rustls::{AlertDescription, CertificateError, Error};

use super::tls::TlsError;
use crate::names::ServiceName;

/// A TLS handshake with a service. Dropping it counts a failure, unless the handshake has succeeded.
pub(super) struct CountedHandshake<'a> {
    service: &'a ServiceName,
    reason: Option<&'static str>,
}

impl<'a> CountedHandshake<'a> {
    pub(super) fn with(service: &'a ServiceName) -> Self {
        // Counted if the handshake never ends, because the code that waits for it gives up.
        Self { service, reason: Some("unfinished") }
    }
    pub(super) fn ended<T>(mut self, result: Result<T, TlsError>) -> Result<T, TlsError> {
        self.reason = result.as_ref().err().map(reason);
        result
    }
}

impl Drop for CountedHandshake<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            let service = self.service.to_string();
            counter!("pointsman_service_handshake_failures_total", "service" => service, "reason" => reason)
                .increment(1);
        }
    }
}

fn reason(error: &TlsError) -> &'static str {
    use AlertDescription as Alert;
    let io = match error {
        TlsError::Name(_) => return "name",
        TlsError::NoHttp2 => return "protocol",
        TlsError::Handshake(io) => io,
    };
    match io.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "name",
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented | Error::UnsupportedNameType) => {
            "certificate"
        }
        Some(Error::AlertReceived(
            Alert::HandshakeFailure
            | Alert::ProtocolVersion
            | Alert::InsufficientSecurity
            | Alert::NoApplicationProtocol,
        )) => "protocol",
        Some(Error::AlertReceived(_)) => "refused",
        Some(_) => "protocol",
        None => "closed",
    }
}
