//! The pattern of calls in a line of `ignore_calls`.

use http::Method;

use super::call_template::{VALUE, path_matches};
use super::path_text::has_dot_segments;
use crate::problem::{Problems, Site, nearest};

const DEFAULT_PORTS: [&str; 2] = [":80", ":443"];

/// A pattern `[METHOD ]SERVICE[/PATH]`; in the path, `*` stands for any one segment.
#[derive(Clone, Debug)]
pub(super) struct CallPattern {
    method: Option<Method>,
    /// The name of a service, or the host (and port) of an address that belongs to no service.
    target: String,
    /// Whether the address was given with a default port, so that addresses with another port are not meant.
    has_default_port: bool,
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
        // A name without a dot and a port may be that of a host, unless it is almost that of a service.
        if !services.contains(&target)
            && !target.contains(['.', ':'])
            && let Some(near) = nearest(target, services.iter().copied())
        {
            problems.error(site, format!("no service is called `{target}`")).hint(format!("did you mean `{near}`?"));
            return None;
        }
        let value = |segment| if segment == "*" { VALUE } else { segment };
        let path = path.map(|path| path.split('/').map(value).collect::<Vec<_>>().join("/"));
        // The address of a call leaves out a default port.
        let host = DEFAULT_PORTS.into_iter().find_map(|port| target.strip_suffix(port));
        let has_default_port = host.is_some();
        Some(Self { method, target: host.unwrap_or(target).to_ascii_lowercase(), has_default_port, path })
    }

    /// Whether the pattern matches a call to this service or address. A path with dot segments never matches: the
    /// server may take `/mail/../b/refunds` for `/b/refunds`.
    pub(super) fn names(&self, service: Option<&str>, authority: &str, method: &Method, path: &str) -> bool {
        let host = || authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let is_target = match service {
            Some(service) => !self.has_default_port && service.eq_ignore_ascii_case(&self.target),
            None => self.target == authority || !self.has_default_port && self.target == host(),
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

    /// A call to a default port is shown without it.
    #[test]
    fn a_host_without_a_dot_can_be_named_also_at_its_default_port() {
        let names = |text: &str, service, authority: &str| {
            pattern(text).unwrap().names(service, authority, &Method::POST, "/send")
        };
        for text in ["POST localhost/send", "localhost:80", "localhost:443/send", "Localhost"] {
            assert!(names(text, None, "localhost"), "{text}");
        }
        assert!(names("localhost", None, "localhost:8025") && !names("localhost:80", None, "localhost:8025"));
        assert!(!names("bank:80", Some("bank"), "127.0.0.1:9"), "no service is named by an address");
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
