//! What `traces:` in the files asks for.

use http::Uri;

/// What `traces:` in the files asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesSettings {
    /// The collector: a plain HTTP base; spans are posted to `/v1/traces` below it.
    pub otlp: Uri,
    /// The share of traces that begin here and are recorded, from 0 to 1.
    pub sample: f64,
    /// The attribute `service.name`.
    pub service_name: String,
}
