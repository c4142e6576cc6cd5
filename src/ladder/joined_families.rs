//! Families of instances that new files make one: a creator that several creators have become (`was`), or a follower
//! that gets requests about instances of another creator.
//!
//! Who owns an instance is looked up by its id, under every id of the creator. An id that legacy gave out in one family
//! may be that of an instance of the engine in the other one, and a request about legacy's would reach the engine's.
//! Which ids legacy gave out is known only in part (nothing is noted in `off`), and either arm may give out more at any
//! moment. So such files are refused, at a start too, unless the route's file says with `force`, and a reason that the
//! files before did not have, that the ids of both families come from one space: then one id is one instance.
//!
//! Nothing is refused while the engine has no instance that such a request could reach: it owns none of the follower's
//! family (of the joined creator), no open run may create one, and the creator is not in `live`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::joined::state_before;
use super::positions::Positions;
use super::taken_requests::{self, TakenRequests};
use crate::flag::{Arm, Cohort, Route, State};
use crate::names::RouteId;
use crate::store::{StoreError, StoreHandle, families_of_open_runs};

/// The routes of new files that make several families one.
#[derive(Default)]
pub(super) struct JoinedFamilies {
    /// Why the files are refused: a sentence for each route.
    pub refusals: Vec<String>,
    /// Sentences about routes whose files have a new `force`.
    accepted: Vec<String>,
}

/// Finds the routes of new files that make several families of the files before one.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    store: &StoreHandle,
    before: &Positions,
    routes: &[Arc<Route>],
) -> Result<JoinedFamilies, StoreError> {
    let joined: Vec<JoinedCreators<'_>> =
        routes.iter().map(|route| JoinedCreators::of(before, route)).filter(|of| of.groups.len() > 1).collect();
    let taken = taken_requests::find(before, routes);
    if joined.is_empty() && taken.is_empty() {
        return Ok(JoinedFamilies::default());
    }
    let of_joined = joined.iter().flat_map(|joined| joined.route.ids());
    let ids: BTreeSet<RouteId> = of_joined.chain(taken.iter().flat_map(|taken| taken.own.ids())).cloned().collect();
    let owned = OwnedFamilies::look_up(store, before, routes, ids).await?;
    let mut found = JoinedFamilies::default();
    for joined in &joined {
        if let Some(sentence) = joined.sentence(&owned) {
            found.add(before, joined.route, sentence, String::new());
        }
    }
    for taken in taken.iter().filter(|taken| taken.own.ids().any(|id| owned.by_engine.contains(id))) {
        found.add(before, taken.route, sentence(taken), renamed(taken, routes));
    }
    Ok(found)
}

impl JoinedFamilies {
    /// `first`: what to try before `force`, as a sentence with a space behind it, or nothing.
    fn add(&mut self, before: &Positions, route: &Route, sentence: String, first: String) {
        match &route.force {
            Some(reason) if is_new_force(before, route) => {
                let accepted = format!("{sentence}. Its file says that they are from one space (`force`): {reason}");
                self.accepted.push(accepted);
            }
            _ => self.refusals.push(format!(
                "{sentence}: a request about an instance of legacy would reach the engine's instance with the same id. \
                 {first}If the ids of both come from one space, so that one id is one instance, say so with \
                 `force: {{ reason: … }}` in the file of `{}`, with a reason that is new in this edit (at a start, where \
                 only the files before had no `force`); if not, leave the families apart (`pointsman help files`)",
                route.id
            )),
        }
    }

    /// Logs what a person has accepted.
    pub fn log_accepted(&self) {
        self.accepted.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    }
}

fn sentence(TakenRequests { route, own, earlier_follower, other_family }: &TakenRequests<'_>) -> String {
    let other_creator: Vec<String> = other_family.first().map(|id| format!("`{id}`")).into_iter().collect();
    format!(
        "`{}` follows up what `{}` creates, and gets requests of `{earlier_follower}` about instances of {}",
        route.id,
        own.id(),
        other_creator.join(", ")
    )
}

/// If no route has an id of the other creator any more, it may have been renamed: what to do then.
fn renamed(taken: &TakenRequests<'_>, routes: &[Arc<Route>]) -> String {
    let is_gone = !routes.iter().any(|route| route.ids().any(|id| taken.other_family.contains(id)));
    match taken.other_family.first().filter(|_| is_gone) {
        Some(other) => format!(
            "No route is `{other}` any more: if `{own}` is that route under another id, add `was: [{other}]` to `{own}`. ",
            own = taken.own.id()
        ),
        None => String::new(),
    }
}

/// The routes of the files before, or of earlier ones, that have become one route. It makes no difference whether it
/// has a workflow, or creates instances: that may be added by the next edit.
struct JoinedCreators<'a> {
    route: &'a Route,
    groups: BTreeMap<&'a RouteId, RouteBefore<'a>>,
}

/// A route of earlier files.
#[derive(Default)]
struct RouteBefore<'a> {
    ids: Vec<&'a RouteId>,
    /// Whether a route follows up, or followed up, what it creates.
    is_followed: bool,
}

impl<'a> JoinedCreators<'a> {
    fn of(before: &'a Positions, route: &'a Route) -> Self {
        let mut groups: BTreeMap<&RouteId, RouteBefore<'_>> = BTreeMap::new();
        for id in route.ids() {
            let group = groups.entry(route_before(before, id)).or_default();
            group.ids.push(id);
            group.is_followed |= is_followed(before, id);
        }
        Self { route, groups }
    }

    /// Says so if at least two of these routes have given out ids of instances, or may, and the engine has instances of
    /// one of them, or may have.
    fn sentence(&self, owned: &OwnedFamilies) -> Option<String> {
        let has_ids =
            |group: &RouteBefore<'_>| group.is_followed || group.ids.iter().any(|id| owned.by_any.contains(*id));
        let creators = self.groups.iter().filter(|(_, group)| has_ids(group));
        let names: Vec<String> = creators.map(|(id, _)| format!("`{id}`")).collect();
        let is_of_engine = self.route.ids().any(|id| owned.by_engine.contains(id));
        (names.len() > 1 && is_of_engine).then(|| {
            format!(
                "`{}` joins several routes ({}), and each of them has given out ids of instances, or may",
                self.route.id,
                names.join(", ")
            )
        })
    }
}

/// Of which families instances are known, by the id under which they are pinned.
struct OwnedFamilies {
    /// Some arm has a pin, or an open run may create an instance. A route in `live` may create none at all.
    by_any: BTreeSet<RouteId>,
    /// The engine has a pin, or may create an instance: by an open run, or because the creator, or a cohort of it, is
    /// in `live` by the files before or by these.
    by_engine: BTreeSet<RouteId>,
}

impl OwnedFamilies {
    async fn look_up(
        store: &StoreHandle,
        before: &Positions,
        routes: &[Arc<Route>],
        ids: BTreeSet<RouteId>,
    ) -> Result<Self, StoreError> {
        let pins: Vec<_> = store.pin_counts().await?.into_iter().filter(|(_, _, count)| *count > 0).collect();
        let families = before.families();
        let open = families_of_open_runs(&**store, &ids, &families.oldest_ids).await?.families;
        let is_live = |id: &RouteId| {
            families.creating.contains(id) || before.live.contains_key(id) || state_before(before, id).0 >= State::Live
        };
        let goes_live = |route: &Route| {
            let is_forced = |cohort: &Cohort| cohort.force.is_some() && cohort.state >= State::Live;
            let by_file = route.force.is_some() && route.declared >= State::Live;
            route.workflow.is_some() && (by_file || route.cohorts.iter().any(is_forced))
        };
        let going = routes.iter().filter(|route| goes_live(route)).flat_map(|route| route.ids());
        let of_engine = pins.iter().filter(|(_, arm, _)| *arm == Arm::Engine).map(|(id, ..)| id);
        let by_engine = of_engine.chain(open.keys()).chain(ids.iter().filter(|id| is_live(id))).chain(going);
        let by_engine = by_engine.cloned().collect();
        Ok(Self { by_engine, by_any: pins.into_iter().map(|(id, ..)| id).chain(open.into_keys()).collect() })
    }
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

/// Whether a route of the files before, or of earlier ones, follows up what a route with this id creates.
fn is_followed(before: &Positions, id: &RouteId) -> bool {
    before.followers.values().any(|followed| {
        followed.family.contains(id) || followed.earlier.iter().any(|earlier| earlier.family.contains(id))
    })
}
