//! PURE. Which requests a route matched by earlier files, and what the retry-key scopes of these files read of a path.
//!
//! Always true: a path parameter has the name that it had in those files, whatever it is called now.

use http::Method;

use super::conventions::PathConventions;
use super::matcher::{Matcher, Params};
use super::route_groups::find_by;
use super::template_key::respell;
use super::{RequestFacts, RouteMatch};

/// Which requests a route matched by earlier files, and how its service read their paths.
pub struct EarlierMatch {
    /// Which requests.
    pub matches: RouteMatch,
    paths: PathConventions,
    matcher: Matcher,
}

/// A path as an earlier match reads it.
pub struct EarlierPath {
    params: Params,
    path: String,
}

impl EarlierMatch {
    /// The requests that a route matched by the conventions of its service.
    pub fn new(matches: RouteMatch, paths: PathConventions) -> Self {
        Self { matcher: Matcher::with_conventions([&matches], &paths), matches, paths }
    }

    /// The path parameters of a request; `None` if it was not matched.
    pub fn params(&self, method: &Method, host: Option<&str>, path: &str) -> Option<Params> {
        let (index, values) = find_by(&self.matcher, &self.paths, method, host, path)?;
        Some(self.matcher.params(index, &values))
    }

    /// What the retry-key scopes of the earlier files read of a request's path; `None` if the request was not matched.
    pub fn read(&self, host: Option<&str>, facts: &RequestFacts<'_>) -> Option<EarlierPath> {
        let params = self.params(facts.method, host, facts.matched_path)?;
        Some(EarlierPath { params, path: respell(facts.matched_path, &self.matches.path, &self.paths).into_owned() })
    }
}

impl EarlierPath {
    /// The facts of the request, with this reading of its path.
    pub fn in_facts<'a>(&'a self, facts: &RequestFacts<'a>) -> RequestFacts<'a> {
        RequestFacts { params: &self.params, path: &self.path, ..*facts }
    }
}
