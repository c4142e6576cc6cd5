//! Makes hashes and texts of what the evidence of a route depends on.

use crate::flag::{SentHost, Service, ServiceTls};

/// Hashes texts and counts. Each text is hashed with its length, so that no two different lists have the same hash.
pub(super) struct BasisHasher(pub(super) blake3::Hasher);

impl BasisHasher {
    pub(super) fn hash(&self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }

    pub(super) fn add(&mut self, text: &str) {
        self.add_count(text.len());
        self.0.update(text.as_bytes());
    }

    pub(super) fn add_count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    /// Adds the base URLs of a service and by which names it is asked, or an empty list if the files do not have the
    /// service. Default values are not hashed, so that the evidence of earlier versions stays valid.
    pub(super) fn add_addresses(&mut self, service: Option<&Service>) {
        let urls = service.map_or(&[][..], |service| &service.urls);
        self.add_count(urls.len());
        for url in urls {
            self.add(&url.uri.to_string());
        }
        service.into_iter().flat_map(names).for_each(|name| self.add(&name));
    }
}

/// The base URLs of a service as text, and by which names it is asked; empty if the files do not have the service.
pub(super) fn addresses(service: Option<&Service>) -> String {
    let urls = service.map_or(&[][..], |service| &service.urls);
    joined(urls.iter().map(|url| url.uri.to_string()).chain(service.into_iter().flat_map(names)))
}

/// The names that are sent to a service beside its addresses (`host:`, `tls.server_name`): a gateway may route by them.
fn names(service: &Service) -> Vec<String> {
    let host = match &service.host {
        SentHost::Client => None,
        SentHost::Url => Some("host: url".to_owned()),
        SentHost::Fixed(host) => Some(format!("host: {host}")),
    };
    let server_name = service.tls.as_ref().and_then(ServiceTls::server_name);
    host.into_iter().chain(server_name.map(|name| format!("tls.server_name: {}", name.to_str()))).collect()
}

/// These texts as one.
pub(super) fn joined(texts: impl IntoIterator<Item = impl ToString>) -> String {
    texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>().join(", ")
}

/// A text of at most `bytes_max`, with a note if it was longer.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str(&format!("… (cut: {bytes} bytes in all)"));
    }
    text
}
