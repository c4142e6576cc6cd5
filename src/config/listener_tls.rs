//! `tls:` of a listener: certificates, versions, and how clients are verified.
//!
//! Always true: accepted settings can be used for handshakes: each key belongs to its certificate, and the issuers of
//! clients' certificates could be read.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use super::referenced_files::ReferencedFiles;
use super::setup::Overrides;
use crate::flag::HOP_BY_HOP_HEADERS;
use crate::listener::{
    Certificate, CertificateError, ClientVerification, IdentityHeaders, ListenerTls, ServerTls, TlsParts, crypto,
    read_certificates,
};
use crate::problem::{Problems, Site};

/// Header fields that clients or Pointsman need for something else.
const TAKEN_HEADERS: [&str; 14] = [
    "accept",
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "traceparent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// The TLS of a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsDraft {
    /// The certificates. One is chosen by the name that the client asks for (SNI); the first is for all other clients.
    pub certificates: Vec<CertificateDraft>,
    /// The lowest version of TLS: `"1.2"` (the default) or `"1.3"`.
    #[serde(default)]
    #[schemars(schema_with = "text_or_number")]
    pub min_version: Option<Value>,
    /// Verifies certificates of clients.
    pub clients: Option<ClientsDraft>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateDraft {
    /// The file of the certificate, followed by those of its issuers; relative to the directory of the flag files.
    pub cert: String,
    /// The file of its private key.
    pub key: String,
}

/// How certificates of clients are verified.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientsDraft {
    /// The file of the certificates of their issuers.
    pub ca: String,
    /// Whether a client without a certificate is refused (the default).
    #[serde(default = "default_true")]
    pub require: bool,
    /// The header field that tells legacy and the engine the certificate's subject, such as `CN=app,O=Example`.
    pub header: Option<String>,
    /// The header field for its URIs and DNS names, such as `URI:spiffe://example.org/app,DNS:app.example.org`.
    pub names_header: Option<String>,
}

fn default_true() -> bool {
    true
}

fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}

/// What the checks of listeners, services and `traces:` need in addition to their drafts.
pub(super) struct Context<'a> {
    /// The directory of the flag files.
    pub dir: &'a Path,
    pub overrides: &'a Overrides,
    pub files: &'a mut ReferencedFiles,
}

/// Checks the TLS of a listener.
pub(super) fn check(
    draft: &TlsDraft,
    http2: bool,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<ListenerTls> {
    let mut own = Problems::default();
    let server = server(draft, http2, site, context, &mut own);
    let identity = identity_headers(draft, site, &mut own);
    let has_errors = own.has_errors();
    problems.extend(own);
    // Without an error, `server` is `None` only because files are missing that are allowed to be absent.
    (!has_errors).then_some(ListenerTls { server, identity })
}

/// The header fields for certificates of clients.
pub(super) fn identity_headers(draft: &TlsDraft, site: &Site, problems: &mut Problems) -> IdentityHeaders {
    let Some(clients) = &draft.clients else { return IdentityHeaders::default() };
    let site = site.key("clients");
    let subject = header(clients.header.as_deref(), &site.key("header"), problems);
    let names = header(clients.names_header.as_deref(), &site.key("names_header"), problems);
    if subject.is_some() && subject == names {
        problems
            .error(&site.key("names_header"), "`header` and `names_header` are the same field")
            .hint("give one of them another name");
    }
    IdentityHeaders { subject, names }
}

fn header(text: Option<&str>, site: &Site, problems: &mut Problems) -> Option<HeaderName> {
    let text = text?;
    let example = "for example `x-client-cert-subject`";
    let name = match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => {
            problems.error(site, format!("`{text}` is not the name of a header field")).hint(example);
            return None;
        }
    };
    if HOP_BY_HOP_HEADERS.contains(&name.as_str()) || TAKEN_HEADERS.contains(&name.as_str()) {
        problems
            .error(site, format!("`{name}` has another meaning, and would be removed from every request"))
            .hint(format!("take a name of its own, {example}"));
        return None;
    }
    if name.as_str().contains('_') {
        problems
            .error(site, format!("`{name}` has a `_`, and servers disagree whether it is the same as with a `-`"))
            .hint(format!("write `{}`", name.as_str().replace('_', "-")));
        return None;
    }
    Some(name)
}

fn server(
    draft: &TlsDraft,
    http2: bool,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<Arc<ServerTls>> {
    let provider = crypto();
    let mut digest = blake3::Hasher::new();
    let only_tls13 = only_tls13(draft.min_version.as_ref(), &site.key("min_version"), problems);
    let certificates_site = site.key("certificates");
    if draft.certificates.is_empty() {
        problems
            .error(&certificates_site, "the list has no certificate")
            .hint("add `- { cert: tls/shop.pem, key: tls/shop.key }`");
    }
    let mut certificates: Vec<(Site, Certificate)> = Vec::new();
    for (index, draft) in draft.certificates.iter().enumerate() {
        let site = certificates_site.index(index);
        let cert = read(&draft.cert, &site.key("cert"), context, problems);
        let key = read(&draft.key, &site.key("key"), context, problems);
        let (Some(cert), Some(key)) = (cert, key) else { continue };
        for bytes in [&cert, &key] {
            digest.update(&bytes.len().to_be_bytes()).update(bytes);
        }
        match Certificate::read(&cert, &key, &provider) {
            Ok(certificate) => certificates.push((site.key("cert"), certificate)),
            Err(CertificateError { in_key, message, hint }) => {
                let (site, file) = if in_key { (site.key("key"), &draft.key) } else { (site.key("cert"), &draft.cert) };
                let problem =
                    problems.error(&site, format!("the file `{}` {message}", context.dir.join(file).display()));
                if !hint.is_empty() {
                    problem.hint(hint);
                }
            }
        }
    }
    warn_of_times(&certificates, problems);
    warn_of_names(&certificates, problems);
    let clients = match &draft.clients {
        None => None,
        Some(clients) => {
            let site = site.key("clients").key("ca");
            let file = read(&clients.ca, &site, context, problems)?;
            digest.update(&file.len().to_be_bytes()).update(&file).update(&[u8::from(clients.require)]);
            match read_certificates(&file) {
                Ok(issuers) => Some(ClientVerification { issuers, require: clients.require }),
                Err(message) => {
                    let file = context.dir.join(&clients.ca);
                    problems
                        .error(&site, format!("the file `{}` {message}", file.display()))
                        .hint("it holds the certificates of those who issue certificates to clients");
                    return None;
                }
            }
        }
    };
    digest.update(&[u8::from(only_tls13?), u8::from(http2)]);
    if certificates.len() < draft.certificates.len() || problems.has_errors() {
        return None;
    }
    let certificates = certificates.into_iter().map(|(_, certificate)| certificate).collect();
    let parts = TlsParts { certificates, only_tls13: only_tls13?, clients, http2, digest: digest.finalize().into() };
    match ServerTls::new(parts, provider) {
        Ok(server) => Some(Arc::new(server)),
        Err(message) => {
            problems.error(&site.key("clients").key("ca"), format!("clients cannot be verified: the file {message}"));
            None
        }
    }
}

pub(super) fn only_tls13(value: Option<&Value>, site: &Site, problems: &mut Problems) -> Option<bool> {
    let text = match value {
        None => return Some(false),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    match text.as_str() {
        "1.2" => Some(false),
        "1.3" => Some(true),
        _ => {
            let hint = "write \"1.2\" or \"1.3\": older versions are not safe, and not supported";
            problems.error(site, format!("`{text}` is not a version of TLS that can be served")).hint(hint);
            None
        }
    }
}

/// Reads a file that the set names. If secrets may be absent, the file may be absent too.
pub(super) fn read(file: &str, site: &Site, context: &mut Context<'_>, problems: &mut Problems) -> Option<Vec<u8>> {
    match context.files.read(&context.dir.join(file)) {
        Ok(bytes) => Some(bytes),
        Err(message) if context.overrides.secrets_may_be_absent => {
            problems.warn(site, message);
            None
        }
        Err(message) => {
            problems.error(site, message).hint("paths are relative to the directory of the flag files");
            None
        }
    }
}

/// A time as text.
pub(super) fn shown(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => format!("{time:.0}"),
        Err(_) => "a time that cannot be written".to_owned(),
    }
}

fn warn_of_times(certificates: &[(Site, Certificate)], problems: &mut Problems) {
    let now = SystemTime::now();
    for (site, certificate) in certificates {
        if certificate.not_after < now {
            problems
                .warn(site, format!("the certificate expired at {}", shown(certificate.not_after)))
                .hint("clients refuse it: replace the file, which is read again without a restart");
        } else if certificate.not_before > now {
            problems
                .warn(site, format!("the certificate is valid only from {}", shown(certificate.not_before)))
                .hint("clients refuse it until then; is this machine's clock right?");
        }
    }
}

/// Warns of certificates that no client is ever shown.
fn warn_of_names(certificates: &[(Site, Certificate)], problems: &mut Problems) {
    for (site, certificate) in certificates.iter().skip(1) {
        if certificate.names.is_empty() {
            problems
                .warn(site, "the certificate has no DNS name (subjectAltName), so no client gets it")
                .hint("a certificate that is not the first is chosen by the name that the client asks for");
        }
    }
}
