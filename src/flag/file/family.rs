//! Checks between routes: equal ids, equal requests, and families that are incomplete or contradict themselves.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{RouteDraft, suggest};
use crate::flag::matcher::shape;
use crate::flag::{Instance, Route, ServiceMatch, State};
use crate::problem::{Problems, Site};

/// Checks routes against each other: ids across all drafts, everything else across the routes without errors of their
/// own. `checked` has one entry for each draft.
pub fn check_across_routes(drafts: &[(Site, RouteDraft)], checked: &[Option<Route>], problems: &mut Problems) {
    check_unique_ids(drafts, problems);
    check_earlier_ids(drafts, problems);
    let routes = drafts.iter().zip(checked).filter_map(|((site, _), route)| Some((site, route.as_ref()?)));
    let routes: Vec<(&Site, &Route)> = routes.collect();
    check_distinct_requests(&routes, problems);
    for (site, route) in &routes {
        check_follower(route, site, &routes, drafts, problems);
        warn_without_followers(route, site, drafts, problems);
    }
}

fn check_unique_ids(drafts: &[(Site, RouteDraft)], problems: &mut Problems) {
    let mut seen: HashMap<&str, &Site> = HashMap::new();
    for (site, draft) in drafts {
        match seen.entry(&draft.id) {
            Entry::Vacant(free) => drop(free.insert(site)),
            Entry::Occupied(first) => {
                problems
                    .error(&site.key("id"), format!("two routes are called `{}`", draft.id))
                    .hint(format!("the other is at {}", first.get()));
            }
        }
    }
}

/// Checks that each earlier id belongs to one route: no route has it now, and no other route lists it under `was`.
fn check_earlier_ids(drafts: &[(Site, RouteDraft)], problems: &mut Problems) {
    let ids: HashMap<&str, &Site> = drafts.iter().map(|(site, draft)| (draft.id.as_str(), site)).collect();
    let mut seen: HashMap<&str, (&Site, &str)> = HashMap::new();
    for (site, draft) in drafts {
        for (index, was) in draft.was.iter().enumerate() {
            let at = site.key("was").index(index);
            if *was == draft.id {
                problems
                    .error(&at, format!("`{was}` is the route's id now"))
                    .hint("`was` lists ids that it had before");
            } else if let Some(other) = ids.get(was.as_str()) {
                problems
                    .error(&at, format!("a route is still called `{was}`"))
                    .hint(format!("it is at {other}: rename it too, or leave it out of `was`"));
            }
            match seen.entry(was) {
                Entry::Vacant(free) => drop(free.insert((site, &draft.id))),
                Entry::Occupied(first) => {
                    let (first, id) = first.get();
                    problems
                        .error(&at, format!("`{was}` is an earlier id of two routes, or is listed twice"))
                        .hint(format!("`{id}` at {first} lists it too: one route keeps its history"));
                }
            }
        }
    }
}

/// Refuses two routes of the same method, host and shape, because they would match the same requests.
fn check_distinct_requests(routes: &[(&Site, &Route)], problems: &mut Problems) {
    let mut seen: HashMap<_, (&Site, &Route)> = HashMap::new();
    for (site, route) in routes {
        let key = (&route.matches.method, route.matches.host.as_deref(), shape(&route.matches.path));
        match seen.entry(key) {
            Entry::Vacant(free) => drop(free.insert((site, route))),
            Entry::Occupied(first) => {
                let (other_site, other) = first.get();
                problems
                    .error(&site.key("match"), format!("`{}` matches the same requests as `{}`", route.id, other.id))
                    .hint(format!("`{}` is at {other_site}; method, path or host must differ", other.id));
            }
        }
    }
    // Routes that match different spellings of one path, according to the `paths:` of their services.
    let mut seen: HashMap<_, Vec<(&Site, &Route)>> = HashMap::new();
    for (site, route) in routes {
        let own = ServiceMatch::of(route);
        let alike = seen.entry((&route.matches.method, route.matches.host.as_deref(), own.loosest_form())).or_default();
        if let Some((other_site, other)) = alike.iter().find(|(_, other)| own.collides_with(&ServiceMatch::of(other))) {
            let message = format!(
                "by the `paths:` of their services, `{}` matches the same requests as `{}` in another spelling",
                route.id, other.id
            );
            problems.error(&site.key("match"), message).hint(format!(
                "`{}` is at {other_site}: remove one of the two, or make method, path or host differ by more than that",
                other.id
            ));
        }
        alike.push((site, route));
    }
}

/// Checks that a follower's creator exists, creates instances, and is not declared above the follower; and that no
/// cohort of the creator is in `live` or above if the follower has no workflow.
fn check_follower(
    route: &Route,
    site: &Site,
    routes: &[(&Site, &Route)],
    drafts: &[(Site, RouteDraft)],
    problems: &mut Problems,
) {
    let Some(Instance::Follows { creator, .. }) = &route.instance else { return };
    let at = site.key("instance").key("follows");
    let creates = |route: &Route| matches!(route.instance, Some(Instance::Creates { .. }));
    let Some((site_of_creator, found)) = routes.iter().find(|(_, other)| other.id == *creator) else {
        // A creator with errors of its own has been reported.
        if !drafts.iter().any(|(_, draft)| draft.id == creator.as_str()) {
            let creators = routes.iter().filter(|(_, other)| creates(other)).map(|(_, other)| other.id.as_str());
            problems.error(&at, format!("no route is called `{creator}`")).hint(suggest(creator.as_str(), creators));
        }
        return;
    };
    if !creates(found) {
        problems
            .error(&at, format!("`{creator}` creates no instances"))
            .hint(format!("say at `{creator}` where the id is: instance: {{ creates: $.id }}"));
    } else if found.declared > route.declared {
        let message = format!("`{creator}` is declared `{}`, above its follower `{}`", found.declared, route.id);
        problems
            .error(&site.key("state"), message)
            .hint(format!("raise followers first: `{}` to `{}` too", route.id, found.declared));
    } else if route.workflow.is_none() {
        let above = found.cohorts.iter().enumerate().filter(|(_, cohort)| cohort.state >= State::Live);
        for (index, cohort) in above {
            let at = site_of_creator.key("cohorts").index(index).key("state");
            let (follower, state) = (&route.id, cohort.state);
            problems
                .error(&at, format!("a cohort of `{creator}` is in `{state}`, and its follower `{follower}` has no workflow"))
                .hint(format!(
                    "legacy would get the requests of `{follower}` for what the engine creates: give it a `workflow` (its \
                     state may be `off`), or leave the cohort below `live`"
                ));
        }
    }
}

/// Warns of a creator that no route follows. Followers with errors of their own count, and so do followers of an
/// unknown creator, whose name may be a misspelling.
fn warn_without_followers(route: &Route, site: &Site, drafts: &[(Site, RouteDraft)], problems: &mut Problems) {
    if route.workflow.is_none() || !matches!(route.instance, Some(Instance::Creates { .. })) {
        return;
    }
    let is_known = |id: &str| drafts.iter().any(|(_, draft)| draft.id == id);
    let mut followed = drafts.iter().filter_map(|(_, draft)| draft.instance.as_ref()?.follows.as_deref());
    if followed.any(|id| id == route.id.as_str() || !is_known(id)) {
        return;
    }
    problems
        .warn(&site.key("instance"), format!("no route follows up the instances that `{}` creates", route.id))
        .hint(format!(
            "requests about an instance that the engine created would go to legacy, which does not know it: give each \
             route of such requests a workflow and `instance: {{ follows: {}, key: path.NAME }}`",
            route.id
        ));
}
