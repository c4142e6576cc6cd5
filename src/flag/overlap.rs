//! PURE. Which requests two routes share, and which of the two gets them.
//!
//! Always true: the result agrees with [`Matcher`](super::matcher::Matcher), which finds the route of a single request.
//! A [`RouteMatch`] that was stored as text is parsed to an equal one.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::Method;

use super::RouteMatch;
use super::matcher::{parameter, params, shape};
use super::path::match_key;

/// A parameter of a template in its [`shape`].
const PARAMETER: &str = "{}";

impl RouteMatch {
    /// The text without the names of parameters; equal for two matches exactly if they match the same requests.
    pub fn normal_form(&self) -> String {
        Self { path: shape(&self.path), ..self.clone() }.to_string()
    }

    /// Whether any request can match both.
    pub fn overlaps(&self, other: &RouteMatch) -> bool {
        let hosts_overlap = self.host.is_none() || other.host.is_none() || self.host == other.host;
        let methods_overlap = self.method == other.method || (self.matches_head() && other.matches_head());
        let (own, others) = (shape(&self.path), shape(&other.path));
        let (own, others): (Vec<_>, Vec<_>) = (own.split('/').collect(), others.split('/').collect());
        // The value of a parameter is never empty.
        let segments_overlap =
            |(a, b): (&&str, &&str)| a == b || (*a == PARAMETER && !b.is_empty()) || (*b == PARAMETER && !a.is_empty());
        hosts_overlap && methods_overlap && own.len() == others.len() && own.iter().zip(&others).all(segments_overlap)
    }

    /// Whether a request that matches both belongs to this match.
    pub fn wins_over(&self, other: &RouteMatch) -> bool {
        if self.host.is_some() != other.host.is_some() {
            return self.host.is_some();
        }
        let (own, others) = (shape(&self.path), shape(&other.path));
        let first_difference = own.split('/').zip(others.split('/')).find(|(a, b)| a != b);
        match first_difference {
            Some((segment, _)) => segment != PARAMETER,
            None => self.method == Method::HEAD && other.method == Method::GET,
        }
    }

    /// Whether every request that matches `other` also matches this match.
    pub fn covers(&self, other: &RouteMatch) -> bool {
        let methods_covered =
            self.method == other.method || (self.method == Method::GET && other.method == Method::HEAD);
        let (own, others) = (shape(&self.path), shape(&other.path));
        let segment_covered = |(own, other): (&str, &str)| own == other || (own == PARAMETER && !other.is_empty());
        let path_covered = own.split('/').count() == others.split('/').count()
            && own.split('/').zip(others.split('/')).all(segment_covered);
        methods_covered && (self.host.is_none() || self.host == other.host) && path_covered
    }

    /// The names of the path's parameters.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        params(&self.path)
    }

    /// The segment of this path at the position that the parameter `param` has in the path of `other`.
    pub fn segment_at(&self, other: &RouteMatch, param: &str) -> Option<TemplateSegment<'_>> {
        let index = other.path.split('/').position(|segment| parameter(segment) == Some(param))?;
        let segment = self.path.split('/').nth(index)?;
        Some(parameter(segment).map_or_else(|| TemplateSegment::Text(match_key(segment)), TemplateSegment::Parameter))
    }

    /// Whether HEAD requests match, which they do for a GET route too.
    fn matches_head(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// A segment of a path template.
#[derive(Debug, PartialEq, Eq)]
pub enum TemplateSegment<'a> {
    /// A parameter, by its name.
    Parameter(&'a str),
    /// Literal text, decoded like the value of a parameter.
    Text(Cow<'a, str>),
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, host } = self;
        write!(f, "{method} {}{path}", host.as_deref().unwrap_or_default())
    }
}

impl FromStr for RouteMatch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || format!("`{text}` is not a method, host and path");
        let (method, rest) = text.split_once(' ').ok_or_else(unreadable)?;
        let path_at = rest.find('/').ok_or_else(unreadable)?;
        let (host, path) = rest.split_at(path_at);
        Ok(Self {
            method: method.parse().map_err(|_| unreadable())?,
            path: path.to_owned(),
            host: (!host.is_empty()).then(|| host.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flag::PathConventions;
    use crate::flag::matcher::Matcher;

    fn some_match() -> impl Strategy<Value = RouteMatch> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("{x}"), Just("{y}")];
        let path = proptest::collection::vec(segment, 1..4);
        let method = prop_oneof![Just(Method::GET), Just(Method::HEAD), Just(Method::POST)];
        let host = prop_oneof![2 => Just(None), 1 => Just(Some("h".to_owned())), 1 => Just(Some("i".to_owned()))];
        (method, path, host).prop_map(|(method, path, host)| {
            // A template may not use a name twice.
            let named = path
                .iter()
                .enumerate()
                .map(|(n, s)| if s.starts_with('{') { format!("/{{p{n}}}") } else { format!("/{s}") });
            RouteMatch { method, path: named.collect(), host }
        })
    }

    /// The index of the route that gets a request.
    fn found(matches: &[&RouteMatch], method: &Method, host: Option<&str>, path: &str) -> Option<usize> {
        Matcher::with_conventions(matches.iter().copied(), &PathConventions::default()).find(method, host, path)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn overlap_precedence_and_cover_agree_with_the_matcher(a in some_match(), b in some_match()) {
            let segments = ["a", "b", "c"];
            let depth = a.path.matches('/').count();
            let (mut shared, mut covered) = (false, depth == b.path.matches('/').count());
            for n in 0..segments.len().pow(depth as u32) {
                let path: String =
                    (0..depth as u32).map(|at| format!("/{}", segments[n / segments.len().pow(at) % segments.len()])).collect();
                for method in [Method::GET, Method::HEAD, Method::POST] {
                    for host in [None, Some("h"), Some("i")] {
                        let alone = |m: &RouteMatch| found(&[m], &method, host, &path).is_some();
                        covered &= alone(&a) || !alone(&b);
                        if !(alone(&a) && alone(&b)) {
                            continue;
                        }
                        shared = true;
                        if a.normal_form() != b.normal_form() {
                            let winner = found(&[&a, &b], &method, host, &path);
                            prop_assert_eq!(winner == Some(0), a.wins_over(&b), "{} {} {:?} {}", a, b, host, path);
                            prop_assert_eq!(winner == Some(1), b.wins_over(&a), "{} {} {:?} {}", a, b, host, path);
                        }
                    }
                }
            }
            prop_assert_eq!(shared, a.overlaps(&b), "{} {}", a, b);
            prop_assert_eq!(covered, a.covers(&b), "{} {}", a, b);
            prop_assert_eq!(a.to_string().parse::<RouteMatch>(), Ok(a));
        }
    }

    #[test]
    fn a_segment_is_found_by_the_parameter_of_another_route() {
        let parse = |text: &str| text.parse::<RouteMatch>().unwrap();
        let follower = parse("GET /shops/{shop}/orders/{id}");
        let at = |text: &str| parse(text).segment_at(&follower, "id").map(|found| format!("{found:?}"));
        assert_eq!(at("GET /shops/{x}/orders/{order}").as_deref(), Some("Parameter(\"order\")"));
        assert_eq!(at("GET /shops/1/orders/a%20b").as_deref(), Some("Text(\"a b\")"));
        assert_eq!(at("GET /shops/1"), None);
        assert_eq!(parse("GET /a").segment_at(&follower, "none"), None);
    }

    #[test]
    fn matches_that_differ_only_in_parameter_names_have_one_normal_form() {
        let parse = |text: &str| text.parse::<RouteMatch>().unwrap();
        assert_eq!(parse("GET /orders/{id}").normal_form(), parse("GET /orders/{order}").normal_form());
        assert_ne!(parse("GET /orders/{id}").normal_form(), parse("GET shop/orders/{id}").normal_form());
        for text in ["", "GET", "GET shop", "G(T /x"] {
            assert!(text.parse::<RouteMatch>().is_err(), "{text}");
        }
    }
}
