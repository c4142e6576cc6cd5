//! Warns of spellings of a path that bypass a route with a workflow if the route's service treats them as the same
//! path.

use std::collections::BTreeSet;

use super::checked_files::PlacedRoute;
use crate::flag::{PathConventions, Route};
use crate::problem::Problems;

/// Warns once for each service that is the legacy of a route with a workflow and does not say how it reads paths.
pub(crate) fn warn_bypassing_spellings(routes: &[PlacedRoute], problems: &mut Problems) {
    let mut warned = BTreeSet::new();
    for (site, route) in routes {
        let service = &route.legacy.name;
        let other_spellings = other_spellings(route, routes);
        if route.workflow.is_none() || route.strict_paths || other_spellings.is_empty() || !warned.insert(service) {
            continue;
        }
        let listed = listed(&other_spellings);
        let message = format!(
            "`{service}` does not say how it reads paths: if it takes {listed} for `{}`, such requests bypass `{}`",
            route.matches.path, route.id
        );
        problems.warn(&site.key("match").key("path"), message).hint(format!(
            "under `services:`, `{service}: {{ urls: […], paths: spring }}` (or tomcat, express, rails, iis, strict), or \
             setting by setting: `paths: {{ trailing_slash: different, case: different, suffix: keep }}`"
        ));
    }
}

/// Other spellings of a route's path that match no route and of which the service does not say how it reads them.
fn other_spellings(route: &Route, routes: &[PlacedRoute]) -> Vec<String> {
    let path = &route.matches.path;
    let PathConventions { trailing_slash, case, suffix, .. } = route.legacy.paths;
    let is_parameter = |segment: &str| segment.starts_with('{');
    let other_slash = || match path.strip_suffix('/') {
        Some("") => None,
        Some(without) => Some(without.to_owned()),
        None => Some(format!("{path}/")),
    };
    let upper = || {
        let segments = path.split('/').map(|s| if is_parameter(s) { s.to_owned() } else { s.to_ascii_uppercase() });
        segments.collect::<Vec<_>>().join("/")
    };
    let with_suffix = || {
        let last = path.rsplit('/').next().unwrap_or_default();
        (!last.is_empty() && !is_parameter(last)).then(|| format!("{path}.json"))
    };
    let all = [
        trailing_slash.is_none().then(other_slash).flatten(),
        case.is_none().then(upper).filter(|upper| upper != path),
        suffix.is_none().then(with_suffix).flatten(),
    ];
    let has_route = |spelling: &String| {
        let (method, host) = (&route.matches.method, &route.matches.host);
        routes
            .iter()
            .map(|(_, other)| &other.matches)
            .any(|other| (&other.method, &other.host) == (method, host) && other.path == *spelling)
    };
    all.into_iter().flatten().filter(|spelling| !has_route(spelling)).collect()
}

fn listed(other_spellings: &[String]) -> String {
    let quoted: Vec<_> = other_spellings.iter().map(|spelling| format!("`{spelling}`")).collect();
    match quoted.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        all => all.concat(),
    }
}
