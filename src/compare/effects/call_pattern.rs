//! The pattern of calls in a line of `ignore_calls`.

use http::Method;

use super::call_template::{VALUE, path_matches};
use super::path_text::has_dot_segments;
use crate::problem::{Problems, Site, nearest};

/// A pattern `[METHOD ]SERVICE[/PATH]`; in the path, `*` stands for any one segment.
#[derive(Clone, Debug)]
pub(super) struct CallPattern {
    method: Option<Method>,
    /// The name of a service, or the host (and port) of an address that belongs to no service.
    target: String,
    path: Option<String>,
}

impl CallPattern {
    pub(super) fn check(text: &str, site: &Site, services: &[&str], problems: &mut Problems) -> Option<Self> {
        let (method, rest) = match text.trim().split_once(' ') {
            Some((method, rest)) => (Some(method), rest.trim()),
            None => (None, text.trim()),
        };
        let is_method =
            |method: &str| !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if method.is_some_and(|method| !is_method(method)) || rest.is_empty() || rest.contains([' ', '?', '#']) {
            problems
                .error(site, format!("`{text}` names no calls"))
                .hint("write `SERVICE`, `SERVICE/PATH` or `METHOD SERVICE/PATH`; `*` is any one segment of the path");
            return None;
        }
        let method = method.and_then(|method| method.parse().ok());
        let (target, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        if !services.contains(&target) && !target.contains(['.', ':']) {
            let problem = problems.error(site, format!("no service is called `{target}`"));
            match nearest(target, services.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(
                    "it is one of the names under `services:`, or a host with a dot or a port (`collector:4318`)",
                ),
            };
            return None;
        }
        let value = |segment| if segment == "*" { VALUE } else { segment };
        let path = path.map(|path| path.split('/').map(value).collect::<Vec<_>>().join("/"));
        Some(Self { method, target: target.to_ascii_lowercase(), path })
    }

    /// Whether the pattern matches a call to this service or address. None matches a path with dot segments: the server
    /// may take `/mail/../b/refunds` for `/b/refunds`.
    pub(super) fn names(&self, service: Option<&str>, authority: &str, method: &Method, path: &str) -> bool {
        let host = || authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let is_target = match service {
            Some(service) => service.eq_ignore_ascii_case(&self.target),
            None => self.target == authority || self.target == host(),
        };
        is_target
            && !has_dot_segments(path)
            && self.method.as_ref().is_none_or(|named| named == method)
            && self.path.as_ref().is_none_or(|named| path_matches(named, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<CallPattern, String> {
        let mut problems = Problems::default();
        let found = CallPattern::check(text, &Site::file("r.yaml"), &["analytics", "bank"], &mut problems);
        found.ok_or_else(|| problems.iter().map(|p| format!("{} {:?}", p.message, p.hint)).collect())
    }

    #[test]
    fn a_pattern_names_calls_by_service_method_and_path() {
        let named = |text: &str, service, method: &str, path| {
            pattern(text).unwrap().names(service, "audit.example:8443", &method.parse().unwrap(), path)
        };
        assert!(named("analytics", Some("analytics"), "POST", "/any"));
        assert!(!named("analytics", Some("bank"), "POST", "/any"));
        assert!(named("POST analytics/events/*", Some("analytics"), "POST", "/events/7"));
        assert!(!named("POST analytics/events/*", Some("analytics"), "PUT", "/events/7"));
        assert!(!named("POST analytics/events/*", Some("analytics"), "POST", "/events"));
        assert!(named("audit.example", None, "POST", "/") && named("audit.example:8443", None, "POST", "/"));
        assert!(!named("audit.example:80", None, "POST", "/"));
    }

    #[test]
    fn no_pattern_matches_a_path_with_dot_segments() {
        for text in ["analytics", "POST analytics", "analytics/*/*/*", "analytics/../b/refunds"] {
            let pattern = pattern(text).unwrap();
            for path in ["/../b/refunds", "/%2e%2e/b/refunds", "/mail/../b/refunds", "/mail/%2E./refunds"] {
                assert!(!pattern.names(Some("analytics"), "a.example", &Method::POST, path), "{text} {path}");
            }
        }
    }

    #[test]
    fn what_names_no_call_is_refused() {
        for (text, why) in [
            ("", "names no calls"),
            ("post bank", "names no calls"),
            ("POST bank/a b", "names no calls"),
            ("bank?x=1", "names no calls"),
            ("analytcs", "did you mean `analytics`?"),
        ] {
            let refused = pattern(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
