//! `tls`, `http` and `host` of a service: their form in the files, and their checks.

use std::net::IpAddr;

use http::uri::Authority;
use rustls_pki_types::ServerName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use crate::flag::{HttpVersion, SentHost, ServiceTls};
use crate::problem::{Problems, Site};

/// The TLS of a service with `https://` URLs. Paths are relative to the directory of the flag files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceTlsDraft {
    /// The file of the certificates (PEM) of those who may issue the service's certificate: by default, the
    /// certificates that this machine trusts.
    pub ca: Option<String>,
    /// The file of our own certificate, followed by those of its issuers, for a service that asks for one.
    pub cert: Option<String>,
    /// The file of our certificate's private key.
    pub key: Option<String>,
    /// The name that the service's certificate must have, and that is sent to the service (SNI). Default: the URL's
    /// host.
    pub server_name: Option<String>,
    /// The lowest version of TLS: `"1.2"` (the default) or `"1.3"`.
    #[serde(default)]
    #[schemars(schema_with = "text_or_number")]
    pub min_version: Option<Value>,
}

pub(super) fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number"] })
}

/// Builds the TLS of a service from a draft and the files that it names. `None` if these have an error, which is
/// reported.
pub type BuildTls<'a> = dyn FnMut(&ServiceTlsDraft, &Site, &mut Problems) -> Option<ServiceTls> + 'a;

/// Checks `tls`, and builds what handshakes need.
pub(super) fn tls(
    draft: Option<&ServiceTlsDraft>,
    has_https: bool,
    site: &Site,
    build: &mut BuildTls<'_>,
    problems: &mut Problems,
) -> Option<ServiceTls> {
    let site = site.key("tls");
    if !has_https {
        if draft.is_some() {
            let message = "`tls` has no effect: none of the service's URLs is an https URL";
            problems.error(&site.at_key(), message).hint("write https://HOST:PORT under `urls`, or leave `tls` out");
        }
        return None;
    }
    let draft = draft.cloned().unwrap_or_default();
    match (&draft.cert, &draft.key) {
        (Some(_), None) => {
            problems.error(&site, "`cert` is given without `key`").hint("name the file of its private key");
        }
        (None, Some(_)) => {
            problems.error(&site, "`key` is given without `cert`").hint("name the file of its certificate");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    build(&draft, &site, problems)
}

/// The name that a service's certificate must have.
pub fn server_name(text: &str, site: &Site, problems: &mut Problems) -> Option<ServerName<'static>> {
    let is_name = |name: &ServerName<'_>| !matches!(name, ServerName::DnsName(_)) || !text.ends_with('.');
    let name = ServerName::try_from(text.to_owned()).ok().filter(is_name);
    if name.is_none() {
        problems
            .error(site, format!("`{text}` is not a name that a certificate can have"))
            .hint("a DNS name or an IP address, without a port");
    }
    name
}

/// Checks `http`.
pub(super) fn http(draft: Option<&Value>, has_plain: bool, site: &Site, problems: &mut Problems) -> HttpVersion {
    let site = site.key("http");
    let text = match draft {
        None => return HttpVersion::Http1,
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    match text.as_str() {
        "1" | "1.1" => HttpVersion::Http1,
        "2" => HttpVersion::Http2,
        "auto" if has_plain => {
            problems
                .error(
                    &site,
                    "`http: auto` needs https:// URLs only: the version of HTTP is negotiated in the TLS handshake",
                )
                .hint("write 1 or 2, or give https:// URLs only");
            HttpVersion::Negotiated
        }
        "auto" => HttpVersion::Negotiated,
        _ => {
            problems.error(&site, format!("`{text}` is not a version of HTTP")).hint("write 1, 2 or auto");
            HttpVersion::Http1
        }
    }
}

/// Checks `host`.
pub(super) fn host(draft: Option<&String>, site: &Site, problems: &mut Problems) -> SentHost {
    match draft.map(String::as_str) {
        None | Some("client") => SentHost::Client,
        Some("url") => SentHost::Url,
        Some(text) => {
            let authority = text.parse::<Authority>().ok().filter(|authority| {
                let has_host = !authority.host().is_empty() && !authority.as_str().contains('@');
                let is_ip = authority.host().trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
                has_host && (is_ip || !authority.host().contains([':', '[', ']'])) && authority.port_u16() != Some(0)
            });
            match authority {
                Some(authority) => SentHost::Fixed(authority),
                None => {
                    let hint = "`client` (the client's, the default), `url` (that of the URL), or a name such as \
                                shop.internal or shop.internal:8080";
                    problems.error(&site.key("host"), format!("`{text}` is not a host")).hint(hint);
                    SentHost::Client
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, RootCertStore};
    use serde_json::json;

    use super::*;
    use crate::flag::Service;
    use crate::flag::file::{ServiceDraft, check_service};

    fn check(draft: Value) -> (Option<Service>, Vec<String>) {
        let draft: ServiceDraft = serde_json::from_value(draft).unwrap();
        let (mut problems, site) = (Problems::default(), Site::file("p.yaml").key("services").key("shop"));
        let mut build = |draft: &ServiceTlsDraft, site: &Site, problems: &mut Problems| {
            let name =
                draft.server_name.as_ref().and_then(|text| server_name(text, &site.key("server_name"), problems));
            let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
            let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            Some(ServiceTls::new(config, name, [0; 32]))
        };
        let service = check_service("shop", &draft, &site, &mut build, &mut problems);
        (service, problems.iter().map(|problem| problem.message.clone()).collect())
    }

    #[test]
    fn tls_http_and_host_of_a_service_are_read() {
        let (service, messages) = check(json!("https://shop.internal/api"));
        let service = service.unwrap_or_else(|| panic!("{messages:?}"));
        assert_eq!(service.urls[0].uri.to_string(), "https://shop.internal/api");
        assert!(service.tls.is_some() && service.http == HttpVersion::Http1 && service.host == SentHost::Client);
        let of = |more: Value| {
            let mut draft = json!({ "urls": ["https://shop.internal"] });
            draft.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check(draft).0.unwrap()
        };
        assert_eq!(of(json!({ "http": 2 })).http, HttpVersion::Http2);
        assert_eq!(of(json!({ "http": "auto" })).http, HttpVersion::Negotiated);
        assert_eq!(of(json!({ "http": "1.1" })).http, HttpVersion::Http1);
        assert_eq!(of(json!({ "host": "url" })).host, SentHost::Url);
        assert_eq!(of(json!({ "host": "a.b:81" })).host, SentHost::Fixed(Authority::from_static("a.b:81")));
        assert_eq!(of(json!({ "host": "[::1]:81" })).host, SentHost::Fixed(Authority::from_static("[::1]:81")));
        let tls = of(json!({ "tls": { "server_name": "bank.test" } })).tls.unwrap();
        assert_eq!(tls.server_name(), Some(&ServerName::try_from("bank.test").unwrap()));
    }

    #[test]
    fn each_error_of_tls_http_and_host_is_reported() {
        for (draft, message) in [
            (json!({ "urls": ["http://a"], "tls": {} }), "`tls` has no effect"),
            (json!({ "urls": ["http://a", "https://b"], "http": "auto" }), "negotiated in the TLS handshake"),
            (json!({ "urls": ["https://b"], "http": 3 }), "`3` is not a version of HTTP"),
            (json!({ "urls": ["https://b"], "http": "h2" }), "`h2` is not a version of HTTP"),
            (json!({ "urls": ["https://b"], "tls": { "cert": "a" } }), "`cert` is given without `key`"),
            (json!({ "urls": ["https://b"], "tls": { "key": "a" } }), "`key` is given without `cert`"),
            (json!({ "urls": ["https://b"], "tls": { "server_name": "a:1" } }), "not a name that a certificate can"),
            (json!({ "urls": ["https://b"], "tls": { "server_name": "a." } }), "not a name that a certificate can"),
            (json!({ "urls": ["http://b"], "host": "a/b" }), "`a/b` is not a host"),
            (json!({ "urls": ["http://b"], "host": "u@b" }), "`u@b` is not a host"),
            (json!({ "urls": ["http://b"], "host": "b:0" }), "`b:0` is not a host"),
            (json!({ "urls": ["http://b"], "host": "" }), "`` is not a host"),
        ] {
            let (_, messages) = check(draft.clone());
            assert!(messages.len() == 1 && messages[0].contains(message), "{draft}: {messages:?}");
        }
    }
}
