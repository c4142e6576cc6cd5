//! What `traces:` in the files asks for.

use http::{HeaderMap, Uri};

use crate::flag::ServiceTls;

/// What `traces:` in the files asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesSettings {
    /// The collector's base; spans are posted to `/v1/traces` below it.
    pub otlp: Uri,
    /// What TLS handshakes with it need; `None` for a base of plain HTTP.
    pub tls: Option<ServiceTls>,
    /// Header fields that it gets. Their values may be credentials, and are marked as sensitive.
    pub headers: HeaderMap,
    /// The share of traces that are recorded, from 0 to 1, among those for which no trusted caller decides it.
    pub sample: f64,
    /// Which callers decide whether their traces are recorded.
    pub trust_sampled: TrustSampled,
    /// The attribute `service.name`.
    pub service_name: String,
}

/// Whose `traceparent` decides whether the trace is recorded. From the `traceparent` of others only the ids are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustSampled {
    /// Nobody's.
    Never,
    /// That of peers whose `X-Forwarded-*` are believed too.
    #[default]
    Peers,
    /// Everybody's: whoever may send requests may have them recorded.
    Always,
}

impl TrustSampled {
    /// Whether a peer's flag decides.
    pub(super) fn trusts(self, is_peer_trusted: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Peers => is_peer_trusted,
            Self::Always => true,
        }
    }
}
