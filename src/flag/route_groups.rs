//! PURE. The routes of a set, grouped by how their services read paths.
//!
//! The question it answers: "which route does a path match, by the conventions of that route's service?" Always true: a
//! route matches its template and each spelling that its service declares as the same; if routes of several groups
//! match, the most specific one wins. If no service declares conventions, there is one group, and a look-up costs what
//! its matcher costs.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use super::conventions::PathConventions;
use super::matcher::{Matcher, MatcherHit, Params};
use super::path::{UnusualParts, match_key};
use super::readings::{RouteTrees, TooManyReadings};
use super::template_key::{PathKey, lower_case, respell};
use super::{Route, RouteMatch};

/// The routes of a set, in groups. A route is identified by its index in the set.
pub struct RouteGroups(Vec<RouteGroup>);

struct RouteGroup {
    conventions: PathConventions,
    /// The indexes of the group's routes in the set.
    indices: Vec<usize>,
    matches: Vec<RouteMatch>,
    matcher: Matcher,
    /// Finds the spellings that some server could take for a route's path. Only for strict routes.
    loose_matcher: Option<Matcher>,
    /// Finds the routes with a workflow or strict paths that a server may see in an unusual path. `None` if there are
    /// none.
    readings: Option<RouteTrees>,
}

/// A path in the two forms that services may match.
#[derive(Clone, Copy)]
pub struct PathForms<'p> {
    /// The path with its dot segments resolved.
    pub resolved: &'p str,
    /// The path with dot segments with parameters (`..;v=1`) resolved too.
    pub resolved_with_parameters: &'p str,
}

impl<'p> PathForms<'p> {
    /// The forms of a plain path, which are equal.
    pub fn plain(path: &'p str) -> Self {
        Self { resolved: path, resolved_with_parameters: path }
    }
}

/// A route that a path matches.
pub struct RouteHit<'g, 'p> {
    /// The route's index in the set.
    pub index: usize,
    /// The key whose segments are the values of the route's parameters.
    values: Cow<'p, str>,
    group: &'g RouteGroup,
    /// The route's position in its group.
    at: usize,
    /// The form of the path that matched.
    path: &'p str,
}

impl<'p> RouteHit<'_, 'p> {
    /// The parameters of the route's template.
    pub fn params(&self) -> Params {
        self.group.matcher.params(self.at, &self.values)
    }
    fn matches(&self) -> &RouteMatch {
        &self.group.matches[self.at]
    }
    /// The form of the path that matched.
    pub fn path(&self) -> &'p str {
        self.path
    }
    /// The path in the spelling of the template.
    pub fn respelled(&self) -> Cow<'p, str> {
        respell(self.path, &self.matches().path, &self.group.conventions)
    }
}

impl RouteGroups {
    /// Groups the routes of a set.
    pub fn new(routes: &[Arc<Route>]) -> Self {
        let mut groups: Vec<(PathConventions, Vec<usize>)> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let conventions = route.legacy.paths.of_route(route.strict_paths);
            match groups.iter_mut().find(|(known, _)| *known == conventions) {
                Some((_, indices)) => indices.push(index),
                None => groups.push((conventions, vec![index])),
            }
        }
        // Exact groups first: of equal matches the first one wins.
        groups.sort_by_key(|(conventions, _)| !conventions.is_exact());
        Self(groups.into_iter().map(|(conventions, indices)| RouteGroup::new(conventions, indices, routes)).collect())
    }

    /// Whether any service drops parameters, so that both forms of a path may matter.
    pub fn strip_parameters(&self) -> bool {
        self.0.iter().any(|group| group.conventions.strips_parameters())
    }

    /// The route that a path matches.
    pub fn find<'p>(&self, method: &Method, host: Option<&str>, path: PathForms<'p>) -> Option<RouteHit<'_, 'p>> {
        let mut best: Option<RouteHit<'_, 'p>> = None;
        for group in &self.0 {
            let Some(hit) = group.find(method, host, path) else { continue };
            let is_better = |best: &RouteHit<'_, 'p>| {
                hit.matches().wins_over(best.matches()) && !best.matches().wins_over(hit.matches())
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some(hit);
            }
        }
        best
    }

    /// The methods that any route has.
    pub fn methods(&self) -> Vec<&Method> {
        let mut methods: Vec<&Method> = Vec::new();
        for matches in self.0.iter().flat_map(|group| &group.matches) {
            if !methods.contains(&&matches.method) {
                methods.push(&matches.method);
            }
        }
        methods
    }

    /// Whether some server could take a plain path for that of a strict route that is more specific than the route that
    /// the path matches.
    pub fn could_be_taken_for_strict(
        &self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        found: Option<&RouteMatch>,
    ) -> bool {
        let near = |group: &RouteGroup| {
            let (index, _) = find_by(group.loose_matcher.as_ref()?, &PathConventions::loosest(), method, host, path)?;
            Some(group.matches[index].clone())
        };
        self.0.iter().filter_map(near).any(|near| found.is_none_or(|found| near != *found && near.wins_over(found)))
    }

    /// The routes with a workflow or strict paths that some server may find in an unusual path. `unusual` is what is
    /// unusual in the path; `declared` are the kinds for which the service that gets the path declares how it reads
    /// them.
    ///
    /// # Errors
    /// The path has too many readings.
    pub fn readings(
        &self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        unusual: UnusualParts,
        declared: UnusualParts,
    ) -> Result<Vec<usize>, TooManyReadings> {
        let mut found = Vec::new();
        for group in &self.0 {
            // A strict route refuses an unusual spelling even if services declare how they read it.
            let unusual = if group.conventions.strict { unusual } else { unusual.without(declared) };
            if let Some(readings) = group.readings.as_ref().filter(|_| !unusual.is_plain()) {
                let of_group = readings.routes_in(method, host, path, unusual)?;
                found.extend(of_group.into_iter().map(|index| group.indices[index]));
            }
        }
        Ok(found)
    }
}

impl RouteGroup {
    fn new(conventions: PathConventions, indices: Vec<usize>, routes: &[Arc<Route>]) -> Self {
        let own = indices.iter().map(|index| &routes[*index]);
        let matches: Vec<RouteMatch> = own.clone().map(|route| route.matches.clone()).collect();
        let mut readings = None;
        for (at, route) in own.enumerate() {
            if route.workflow.is_some() || conventions.strict {
                readings.get_or_insert_with(|| RouteTrees::new(&conventions)).insert(&route.matches, at);
            }
        }
        let loose = PathConventions::loosest();
        Self {
            matcher: Matcher::with_conventions(&matches, &conventions),
            loose_matcher: conventions.strict.then(|| Matcher::with_conventions(&matches, &loose)),
            conventions,
            indices,
            matches,
            readings,
        }
    }

    fn find<'p>(&self, method: &Method, host: Option<&str>, path: PathForms<'p>) -> Option<RouteHit<'_, 'p>> {
        let path = match self.conventions.strips_parameters() {
            true => path.resolved_with_parameters,
            false => path.resolved,
        };
        let (at, values) = find_by(&self.matcher, &self.conventions, method, host, path)?;
        Some(RouteHit { index: self.indices[at], values, group: self, at, path })
    }
}

/// Finds a route with a matcher that was built with these conventions.
pub(super) fn find_by<'p>(
    matcher: &Matcher,
    conventions: &PathConventions,
    method: &Method,
    host: Option<&str>,
    path: &'p str,
) -> Option<MatcherHit<'p>> {
    if conventions.is_exact() {
        let key = match_key(path);
        return Some((matcher.find(method, host, &key)?, key));
    }
    let key = PathKey::new(path, conventions);
    let at = |text: &str| {
        let index = matcher.find(method, host, &lower_case(text, conventions))?;
        Some((index, Cow::Owned(text.to_owned())))
    };
    let whole = at(&key.as_written);
    // A literal segment may end in something like a suffix; the value of a parameter may not.
    match whole {
        None | Some(_) if !conventions.strips_suffix() => whole,
        Some((index, _)) if !matcher.ends_with_parameter(index) => whole,
        whole => key.without_suffix().find_map(at).or(whole),
    }
}
