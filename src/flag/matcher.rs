//! PURE. Finds the route of a path.
//!
//! The question it answers: "which route, and what are its parameters?" Always true: a route of the request's host
//! beats one without a host, a static segment beats a parameter, and a GET route also matches HEAD unless there is a
//! HEAD route of the same shape. Finding a route allocates nothing, unless the host has upper-case letters; its
//! parameters are built only on request. The key that is searched for is made by `path::match_key`, under the
//! conventions of a service by `template_key`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use matchit::Router;

use super::RouteMatch;
use super::conventions::PathConventions;
use super::path::match_key;
use super::template_key::template_key;

/// Finds the route of a request.
#[derive(Default)]
pub struct Matcher {
    any_host: MethodRouters,
    hosts: HashMap<Box<str>, MethodRouters>,
    /// For each route, the names of its parameters with the indexes of their segments, in order.
    params: Vec<NamedSegments>,
    /// For each route, whether the last segment of its template is a parameter.
    ends_with_parameter: Vec<bool>,
}

/// The names of a route's parameters with the indexes of their segments, in order.
type NamedSegments = Box<[(Arc<str>, usize)]>;

/// A router for each method. A list, because searching a few entries is faster than hashing.
#[derive(Default)]
struct MethodRouters(Vec<(Method, Router<usize>)>);

/// The parameters of a path, in order.
pub type Params = Vec<(Arc<str>, String)>;

/// The index of a found route, and the key whose segments are the values of the route's parameters.
pub type MatcherHit<'k> = (usize, Cow<'k, str>);

impl Matcher {
    /// Builds the matcher of routes with these matches, in the form that the conventions of a service give them. Of
    /// routes with equal shape the first wins; the check of the files refuses such routes.
    pub fn with_conventions<'a>(
        all: impl IntoIterator<Item = &'a RouteMatch, IntoIter: Clone>,
        conventions: &PathConventions,
    ) -> Self {
        let (all, mut matcher) = (all.into_iter(), Self::default());
        for (index, matches) in all.clone().enumerate() {
            let named = matches.path.split('/').enumerate().filter_map(|(at, s)| Some((parameter(s)?.into(), at)));
            matcher.params.push(named.collect());
            matcher.ends_with_parameter.push(matches.path.rsplit('/').next().and_then(parameter).is_some());
            let key = template_key(&matches.path, conventions);
            matcher.methods(matches).insert(&matches.method, key, index);
        }
        // GET routes are inserted for HEAD after all others, so that HEAD routes of the same shape win.
        for (index, matches) in all.enumerate().filter(|(_, matches)| matches.method == Method::GET) {
            matcher.methods(matches).insert(&Method::HEAD, template_key(&matches.path, conventions), index);
        }
        matcher
    }

    fn methods(&mut self, matches: &RouteMatch) -> &mut MethodRouters {
        match &matches.host {
            Some(host) => self.hosts.entry(host.as_str().into()).or_default(),
            None => &mut self.any_host,
        }
    }

    /// The index of the route of a request, by a key that `path::match_key` made.
    pub fn find(&self, method: &Method, host: Option<&str>, key: &str) -> Option<usize> {
        self.search(method, host, key).map(|matched| *matched.value)
    }

    /// The parameters of a found route. Their values are the segments of `key`: the key that was searched for, or
    /// another key with the same segments.
    pub fn params(&self, index: usize, key: &str) -> Params {
        let names = self.params.get(index).map_or(&[][..], |names| names);
        let value = |at: usize| key.split('/').nth(at).unwrap_or_default().to_owned();
        names.iter().map(|(name, at)| (name.clone(), value(*at))).collect()
    }

    /// Whether the last segment of a route's template is a parameter.
    pub fn ends_with_parameter(&self, index: usize) -> bool {
        self.ends_with_parameter.get(index).is_some_and(|ends| *ends)
    }

    fn search<'s, 'k>(
        &'s self,
        method: &Method,
        host: Option<&str>,
        key: &'k str,
    ) -> Option<matchit::Match<'s, 'k, &'s usize>> {
        let of_host = match host {
            Some(host) if !self.hosts.is_empty() => self.host(host).and_then(|methods| methods.at(method, key)),
            _ => None,
        };
        of_host.or_else(|| self.any_host.at(method, key))
    }

    fn host(&self, host: &str) -> Option<&MethodRouters> {
        let name = host_name(host);
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            self.hosts.get(name.to_ascii_lowercase().as_str())
        } else {
            self.hosts.get(name)
        }
    }
}

impl MethodRouters {
    fn insert(&mut self, method: &Method, template: String, index: usize) {
        // The router cannot hold such a template, which therefore matches nothing. The check of files refuses it, but
        // an earlier version may have stored it.
        if params(&template).count() > PARAMS_MAX {
            return;
        }
        let at = self.0.iter().position(|(m, _)| m == method).unwrap_or_else(|| {
            self.0.push((method.clone(), Router::new()));
            self.0.len() - 1
        });
        // Inserting a second route of the same shape fails: the first one stays.
        let _ = self.0[at].1.insert(template, index);
    }

    fn at<'s, 'k>(&'s self, method: &Method, key: &'k str) -> Option<matchit::Match<'s, 'k, &'s usize>> {
        let (_, router) = self.0.iter().find(|(m, _)| m == method)?;
        router.at(key).ok()
    }
}

/// How many parameters a template may have: with more, the router panics.
pub const PARAMS_MAX: usize = 25;

/// The names of a template's parameters, in order.
pub fn params(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(parameter)
}

/// The name of a parameter; `None` for literal text.
pub fn parameter(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// A template with its parameters unnamed: two templates of equal shape match the same paths.
pub fn shape(template: &str) -> String {
    let segments = template.split('/').map(|s| if s.starts_with('{') { "{}".into() } else { match_key(s) });
    segments.collect::<Vec<_>>().join("/")
}

/// A host without port and without the dot of a fully qualified name.
pub fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The router panics if it gets more parameters than it can hold.
    #[test]
    fn a_template_with_more_parameters_than_the_router_holds_matches_nothing() {
        for (count, matches) in [(PARAMS_MAX, true), (PARAMS_MAX + 1, false)] {
            let template: String = (0..count).map(|n| format!("/{{p{n}}}")).collect();
            let mut routers = MethodRouters::default();
            routers.insert(&Method::GET, template, 7);
            assert_eq!(routers.at(&Method::GET, &"/a".repeat(count)).is_some(), matches, "{count}");
        }
    }
}
