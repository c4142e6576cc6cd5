//! What can be wrong between routes: two of one id, two for the same request, families that do not fit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{RouteDraft, meant};
use crate::flag::matcher::shape;
use crate::flag::{Instance, Route};
use crate::problem::{Problems, Site};

/// Checks routes against each other: ids over all drafts, the rest over those that are right by themselves. `checked`
/// is as long as `drafts`.
pub fn together(drafts: &[(Site, RouteDraft)], checked: &[Option<Route>], problems: &mut Problems) {
    same_ids(drafts, problems);
    let routes = drafts.iter().zip(checked).filter_map(|((site, _), route)| Some((site, route.as_ref()?)));
    let routes: Vec<(&Site, &Route)> = routes.collect();
    same_requests(&routes, problems);
    for (site, route) in &routes {
        follows(route, site, &routes, drafts, problems);
    }
}

fn same_ids(drafts: &[(Site, RouteDraft)], problems: &mut Problems) {
    let mut seen: HashMap<&str, &Site> = HashMap::new();
    for (site, draft) in drafts {
        match seen.entry(&draft.id) {
            Entry::Vacant(free) => drop(free.insert(site)),
            Entry::Occupied(first) => {
                problems
                    .error(&site.key("id"), format!("two routes are called `{}`", draft.id))
                    .hint(format!("the other stands at {}", first.get()));
            }
        }
    }
}

/// Two routes of one method, host and shape would match the same requests.
fn same_requests(routes: &[(&Site, &Route)], problems: &mut Problems) {
    let mut seen: HashMap<_, (&Site, &Route)> = HashMap::new();
    for (site, route) in routes {
        let key = (&route.matches.method, route.matches.host.as_deref(), shape(&route.matches.path));
        match seen.entry(key) {
            Entry::Vacant(free) => drop(free.insert((site, route))),
            Entry::Occupied(first) => {
                let (place, other) = first.get();
                problems
                    .error(&site.key("match"), format!("`{}` matches the same requests as `{}`", route.id, other.id))
                    .hint(format!("`{}` stands at {place}; method, path or host must differ", other.id));
            }
        }
    }
}

/// A follower's creator exists, creates, and is not declared above it.
fn follows(
    route: &Route,
    site: &Site,
    routes: &[(&Site, &Route)],
    drafts: &[(Site, RouteDraft)],
    problems: &mut Problems,
) {
    let Some(Instance::Follows { creator, .. }) = &route.instance else { return };
    let at = site.key("instance").key("follows");
    let creates = |route: &Route| matches!(route.instance, Some(Instance::Creates { .. }));
    let Some((_, found)) = routes.iter().find(|(_, other)| other.id == *creator) else {
        // One that is there but wrong has its own problems.
        if !drafts.iter().any(|(_, draft)| draft.id == creator.as_str()) {
            let creators = routes.iter().filter(|(_, other)| creates(other)).map(|(_, other)| other.id.as_str());
            problems.error(&at, format!("no route is called `{creator}`")).hint(meant(creator.as_str(), creators));
        }
        return;
    };
    if !creates(found) {
        problems
            .error(&at, format!("`{creator}` creates no instances"))
            .hint(format!("say at `{creator}` where the id stands: instance: {{ creates: $.id }}"));
    } else if found.declared > route.declared {
        let message = format!("`{creator}` is declared `{}`, above its follower `{}`", found.declared, route.id);
        problems
            .error(&site.key("state"), message)
            .hint(format!("followers go first: raise `{}` to `{}` too", route.id, found.declared));
    }
}
