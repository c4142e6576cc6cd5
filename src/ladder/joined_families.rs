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

use super::family::creator;
use super::positions::Positions;
use super::reassigned_requests::has_same_requests;
use crate::flag::{Family, Instance, Route, RouteMatch, ServiceMatch};
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
    let leaving = LeavingRequests::find(before, routes);
    let with_workflow = routes.iter().filter(|route| route.workflow.is_some());
    for route in with_workflow {
        let sentence = match route.instance {
            Some(Instance::Creates { .. }) => joins_creators(before, route),
            Some(Instance::Follows { .. }) => leaving.taken_by(route),
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
                 `force: {{ reason: … }}` in the file of `{}`, with a reason that is new in this edit (at a start, where \
                 only the files before had no `force`); if not, leave the families apart (`pointsman help files`)",
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

/// Requests of followers of the files before that do not go to the same followers of the same family any more: of most
/// edits there are none.
struct LeavingRequests<'a> {
    of: Vec<(&'a RouteId, &'a FollowedPath)>,
    /// The routes of the new files by each of their ids.
    by_id: BTreeMap<&'a RouteId, &'a Route>,
}

impl<'a> LeavingRequests<'a> {
    fn find(before: &'a Positions, routes: &'a [Arc<Route>]) -> Self {
        let ids = |route: &'a Arc<Route>| route.ids().map(move |id| (id, &**route));
        let mut leaving = Self { of: Vec::new(), by_id: routes.iter().flat_map(ids).collect() };
        leaving.of = before.followers.iter().filter(|(id, followed)| !leaving.stays(before, id, followed)).collect();
        leaving
    }

    /// Whether a route of the new files follows up this family by the requests of this follower.
    fn stays(&self, before: &Positions, follower: &RouteId, followed: &FollowedPath) -> bool {
        let Some(successor) = self.by_id.get(follower).filter(|route| route.workflow.is_some()) else { return false };
        let is_in_family = self.family(successor).is_some_and(|own| own.ids().any(|id| followed.family.contains(id)));
        let Ok(matches) = followed.matches.parse::<RouteMatch>() else { return false };
        let has_same = match before.scopes.get(follower) {
            Some(scopes) => has_same_requests(scopes, &matches, successor),
            None => matches.normal_form() == successor.matches.normal_form(),
        };
        is_in_family && has_same
    }

    fn family(&self, route: &Route) -> Option<Family> {
        let creator = creator(route)?;
        self.by_id.get(creator).filter(|of| of.id == *creator).map(|creator| Family::of(creator))
    }

    /// Says so if this follower gets some of these requests, about instances of another family than its own.
    fn taken_by(&self, route: &Route) -> Option<String> {
        if self.of.is_empty() {
            return None;
        }
        let own = self.family(route)?;
        let is_own = |followed: &FollowedPath| followed.family.iter().any(|id| own.ids().any(|own| own == id));
        let is_taken = |(id, followed): &&(&RouteId, &FollowedPath)| !is_own(followed) && may_get(route, id, followed);
        let (follower, followed) = self.of.iter().find(is_taken)?;
        let other = followed.family.first()?;
        Some(format!(
            "`{}` follows up what `{}` creates, and gets requests of `{follower}` about instances of `{other}`",
            route.id,
            own.id()
        ))
    }
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

/// Whether the reason for `force` is new in this edit. At a start the store says only which routes had a reason: one of
/// a route that had none, or of which nothing is known, is new.
fn is_new_force(before: &Positions, route: &Route) -> bool {
    let had = |id: &RouteId| match before.routes.get(id) {
        Some(position) => position.route.force == route.force,
        None => before.scopes.get(id).is_some_and(|scopes| scopes.has_force == Some(true)),
    };
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
