//! Families of instances that new files make one: a creator that several creators have become (`was`), or a follower
//! whose requests were about instances of another creator.
//!
//! Who owns an instance is looked up by its id, under every id of the creator. An id that legacy gave out in one family
//! may be that of an instance of the engine in the other one, and a request about legacy's would reach the engine's.
//! Which ids legacy gave out is known only in part (nothing is noted in `off`), and either arm may give out more at any
//! moment. So such files are refused, at a start too, unless the route's file says with `force`, and a reason that the
//! files before did not have, that the ids of both families come from one space: then one id is one instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::family;
use super::positions::Positions;
use super::reassigned_requests::has_same_requests;
use crate::flag::{Instance, Route, RouteMatch, ServiceMatch};
use crate::names::RouteId;
use crate::store::FollowedPath;

/// The routes of new files that make several families one.
#[derive(Default)]
pub(super) struct JoinedFamilies {
    /// Why the files are refused: a sentence for each route.
    pub refusals: Vec<String>,
    /// Sentences about routes whose files have a new `force`.
    accepted: Vec<String>,
}

/// Finds the routes of new files that make several families of the files before one.
pub(super) fn find(before: &Positions, routes: &[Arc<Route>]) -> JoinedFamilies {
    let mut found = JoinedFamilies::default();
    let with_workflow = routes.iter().filter(|route| route.workflow.is_some());
    for route in with_workflow {
        let sentence = match route.instance {
            Some(Instance::Creates { .. }) => joins_creators(before, route),
            Some(Instance::Follows { .. }) => takes_over(before, route, routes),
            None => None,
        };
        let Some(sentence) = sentence else { continue };
        match &route.force {
            Some(reason) if is_new_force(before, route) => {
                let accepted = format!("{sentence}. Its file says that they are from one space (`force`): {reason}");
                found.accepted.push(accepted);
            }
            _ => found.refusals.push(format!(
                "{sentence}: a request about an instance of legacy would reach the engine's instance with the same id. \
                 If the ids of both come from one space, so that one id is one instance, say so with \
                 `force: {{ reason: … }}` in the file of `{}`, with a reason that is new in this edit; if not, leave \
                 the families apart (`pointsman help files`)",
                route.id
            )),
        }
    }
    found
}

impl JoinedFamilies {
    /// Logs what a person has accepted.
    pub fn log_accepted(&self) {
        self.accepted.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    }
}

/// Says so if several creators of the files before have become this one.
fn joins_creators(before: &Positions, route: &Route) -> Option<String> {
    let mut groups: BTreeMap<&RouteId, bool> = BTreeMap::new();
    for id in route.ids() {
        *groups.entry(route_before(before, id)).or_default() |= is_known(before, id);
    }
    let known: Vec<String> =
        groups.into_iter().filter(|(_, is_known)| *is_known).map(|(id, _)| format!("`{id}`")).collect();
    (known.len() > 1).then(|| {
        format!(
            "`{}` joins several routes ({}), and each of them has given out ids of instances, or may",
            route.id,
            known.join(", ")
        )
    })
}

/// Says so if requests about instances of another family than that of this follower go to it now.
fn takes_over(before: &Positions, route: &Route, routes: &[Arc<Route>]) -> Option<String> {
    let own = family(route, routes)?;
    let is_own = |followed: &FollowedPath| followed.family.iter().any(|id| own.ids().any(|own| own == id));
    let (follower, followed) = before.followers.iter().find(|(follower, followed)| {
        !is_own(followed) && !keeps_requests(before, follower, followed, routes) && may_get(route, follower, followed)
    })?;
    let other = followed.family.first()?;
    Some(format!(
        "`{}` follows up what `{}` creates, and gets requests of `{follower}` about instances of `{other}`",
        route.id,
        own.id()
    ))
}

/// Whether a route of new files still follows up this family by the requests of this follower.
fn keeps_requests(before: &Positions, follower: &RouteId, followed: &FollowedPath, routes: &[Arc<Route>]) -> bool {
    let Some(successor) = routes.iter().find(|route| route.ids().any(|id| id == follower)) else { return false };
    let is_in_family =
        family(successor, routes).is_some_and(|family| family.ids().any(|id| followed.family.contains(id)));
    let Ok(matches) = followed.matches.parse::<RouteMatch>() else { return false };
    let has_same = match before.scopes.get(follower) {
        Some(scopes) => has_same_requests(scopes, &matches, successor),
        None => matches.normal_form() == successor.matches.normal_form(),
    };
    is_in_family && has_same && successor.workflow.is_some()
}

/// Whether this route may get requests of a follower of the files before.
fn may_get(route: &Route, follower: &RouteId, followed: &FollowedPath) -> bool {
    if route.ids().any(|id| id == follower) {
        return true;
    }
    // What cannot be read was written by another version: its requests may be any.
    let Ok(matches) = followed.matches.parse::<RouteMatch>() else { return true };
    ServiceMatch { matches: &matches, paths: followed.paths.unwrap_or_default() }.overlaps(&ServiceMatch::of(route))
}

/// Whether no route that becomes this one had the same reason for `force` by the files before. At a start these reasons
/// are not known: each counts as new.
fn is_new_force(before: &Positions, route: &Route) -> bool {
    let had = |id: &RouteId| before.routes.get(id).is_some_and(|position| position.route.force == route.force);
    !route.ids().any(had)
}

/// The route that had this id by the files before: one that was in these files, else one that had been in earlier ones.
fn route_before<'a>(before: &'a Positions, id: &'a RouteId) -> &'a RouteId {
    let is_present =
        |route: &&RouteId| before.stored_declarations.contains_key(*route) && !before.absent.contains(*route);
    if is_present(&id) {
        return id;
    }
    let had = || before.earlier_ids.iter().filter(|(_, earlier)| earlier.contains(id)).map(|(route, _)| route);
    had().find(is_present).or_else(|| had().next()).unwrap_or(id)
}

/// Whether a route of earlier files had this id.
fn is_known(before: &Positions, id: &RouteId) -> bool {
    before.stored_declarations.contains_key(id)
        || before.scopes.contains_key(id)
        || before.earlier_ids.values().any(|earlier| earlier.contains(id))
}
