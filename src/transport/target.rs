//! One base URL of a service, and how it changes the requests that are sent to it.
//!
//! Always true: the path of a request is passed on as it is, appended to the base path where there is one; over HTTP/2
//! the `Host` field becomes the authority of the target.

use http::header::HOST;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, Version};

use crate::flag::{BaseUrl, SentHost};

/// One base URL of a service.
pub struct Target {
    /// The URL's index among the service's URLs.
    pub index: usize,
    /// The URL's host.
    pub host: String,
    /// The URL's port.
    pub port: u16,
    /// Whether requests are sent over TLS.
    pub is_https: bool,
    /// The `Host` field of requests that have none of their own.
    pub authority: HeaderValue,
    /// The `Host` field that replaces each request's own, if the service asks for that.
    fixed_host: Option<HeaderValue>,
    /// The authority of requests over HTTP/2 whose `Host` is not a valid authority.
    url_authority: Option<Authority>,
    /// The base path in front of each path; usually empty.
    pub base: String,
    /// The URL's share of the requests, in relation to the weights of the other URLs.
    pub weight: u64,
}

impl Target {
    pub(super) fn new(index: usize, url: &BaseUrl, host: &SentHost) -> Self {
        let BaseUrl { uri, weight } = url;
        let field = |authority: Option<&Authority>| {
            let text = authority.map_or("", Authority::as_str);
            HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("legacy"))
        };
        let authority = field(uri.authority());
        let fixed_host = match host {
            SentHost::Client => None,
            SentHost::Url => Some(authority.clone()),
            SentHost::Fixed(name) => Some(field(Some(name))),
        };
        Self {
            index,
            host: uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port(),
            is_https: url.is_https(),
            authority,
            fixed_host,
            url_authority: uri.authority().cloned(),
            base: uri.path().trim_end_matches('/').to_owned(),
            weight: u64::from(*weight),
        }
    }

    /// Returns the URI of a request with the base path before its own path; `None` if there is no base path.
    pub fn uri(&self, origin: &Uri) -> Option<Uri> {
        if self.base.is_empty() {
            return None;
        }
        let path = origin.path_and_query().map_or("/", |p| p.as_str());
        format!("{}{path}", self.base).parse().ok()
    }

    /// Returns the `Host` field that a request gets; `None` if the request keeps its own.
    pub fn host(&self, has_own: bool) -> Option<&HeaderValue> {
        match &self.fixed_host {
            Some(fixed) => Some(fixed),
            None if has_own => None,
            None => Some(&self.authority),
        }
    }

    /// Brings a request into the form of HTTP/2.
    pub fn to_http2<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = Parts::default();
        parts.scheme = Some(if self.is_https { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = named.or_else(|| self.url_authority.clone());
        parts.path_and_query = Some(request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_the_authority_and_the_path_stays_as_it_is() {
        let url = BaseUrl::from(Uri::from_static("https://shop.internal:8443"));
        let sent = |target: &Target, host: Option<&str>, path: &str| {
            let mut request = Request::get(path);
            if let Some(host) = target.host(host.is_some()).map(|host| host.to_str().unwrap()).or(host) {
                request = request.header(HOST, host);
            }
            let mut request = request.body(()).unwrap();
            target.to_http2(&mut request);
            assert!(!request.headers().contains_key(HOST));
            request.uri().to_string()
        };
        let of_client = Target::new(0, &url, &SentHost::Client);
        assert_eq!(sent(&of_client, Some("a.test"), "/a//b;c?d=%2F"), "https://a.test/a//b;c?d=%2F");
        assert_eq!(sent(&of_client, None, "/"), "https://shop.internal:8443/");
        assert_eq!(sent(&of_client, Some("a b"), "/"), "https://shop.internal:8443/");
        assert_eq!(sent(&Target::new(0, &url, &SentHost::Url), Some("a.test"), "/"), "https://shop.internal:8443/");
        let fixed = SentHost::Fixed(Authority::from_static("b.test:1"));
        assert_eq!(sent(&Target::new(0, &url, &fixed), Some("a.test"), "/x"), "https://b.test:1/x");
        let plain = BaseUrl::from(Uri::from_static("http://shop.internal"));
        assert_eq!(sent(&Target::new(0, &plain, &SentHost::Client), Some("a.test"), "/x"), "http://a.test/x");
    }
}
