//! Refuses new files that would make one family of two, where instances of both may have the same id.
//!
//! The owner of an instance is looked up by its id, under each id that the creator has or had. Two families may have
//! given out the same id. Example: the routes `orders.create` and `drafts.create` each count their instances from 1;
//! the engine owns order 17, and legacy has draft 17. New files make one family of the two in either of these ways:
//!
//! - they join the creators: `orders.create` gets `was: [drafts.create]`. A request about draft 17 then finds the pin
//!   of order 17, and goes to the engine.
//! - they give a follower of one creator the follow-ups of the other one: `orders.read` now matches `GET /drafts/{id}`,
//!   too (`reassigned_follow_ups`). `GET /drafts/17` then goes to the engine, which answers with order 17.
//!
//! Whether the ids overlap cannot be checked: which ids legacy gave out is known only in part (nothing is recorded in
//! `off`), and both arms may give out more at any moment. So such files are refused, also at a start, unless a person
//! states that both families take their ids from one sequence, so that no id is given out twice. The statement is
//! `force: { reason: … }` in the file of the route, with a reason that the files before did not have.
//!
//! Files are refused only if the engine may have an instance that such a request could reach. Of the follower's family,
//! or of the joined creators: the engine owns an instance, an open run may create one, or a creator is in `live` or
//! above.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::joined::state_before;
use super::positions::Positions;
use super::reassigned_follow_ups::{self, ReassignedFollowUps};
use crate::flag::{Arm, Cohort, Route, State};
use crate::names::RouteId;
use crate::store::{StoreError, StoreHandle, families_of_open_runs};

/// The routes of new files that make one family of several.
#[derive(Default)]
pub(super) struct JoinedFamilies {
    /// Why the files are refused: a sentence for each route.
    pub refusals: Vec<String>,
    /// A sentence for each route that is accepted because its file has a new `force`.
    accepted: Vec<String>,
}

/// Finds the routes of new files that make one family of several families of the files before.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    store: &StoreHandle,
    before: &Positions,
    routes: &[Arc<Route>],
) -> Result<JoinedFamilies, StoreError> {
    let joined: Vec<JoinedCreators<'_>> =
        routes.iter().map(|route| JoinedCreators::of(before, route)).filter(|of| of.parts.len() > 1).collect();
    let reassigned = reassigned_follow_ups::find(before, routes);
    if joined.is_empty() && reassigned.is_empty() {
        return Ok(JoinedFamilies::default());
    }
    let of_joined = joined.iter().flat_map(|joined| joined.route.ids());
    let of_reassigned = reassigned.iter().flat_map(|reassigned| reassigned.own_family.ids());
    let ids: BTreeSet<RouteId> = of_joined.chain(of_reassigned).cloned().collect();
    let families = FamiliesWithInstances::look_up(store, before, routes, ids).await?;
    let mut found = JoinedFamilies::default();
    for joined in &joined {
        if let Some(sentence) = joined.sentence(&families) {
            found.add(before, joined.route, sentence, String::new());
        }
    }
    for reassigned in reassigned.iter().filter(|of| of.own_family.ids().any(|id| families.of_engine.contains(id))) {
        found.add(before, reassigned.follower, sentence(reassigned), rename_hint(reassigned, routes));
    }
    Ok(found)
}

impl JoinedFamilies {
    /// Adds a route: to `accepted` if its `force` is new, else to `refusals`. `hint`: what to try before `force`, as a
    /// sentence with a space after it; may be empty.
    fn add(&mut self, before: &Positions, route: &Route, sentence: String, hint: String) {
        match &route.force {
            Some(reason) if has_new_force(before, route) => {
                let accepted = format!("{sentence}. Its file says that they are from one space (`force`): {reason}");
                self.accepted.push(accepted);
            }
            _ => self.refusals.push(format!(
                "{sentence}: a request about an instance of legacy would reach the engine's instance with the same id. \
                 {hint}If the ids of both come from one space, so that one id is one instance, say so with \
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

fn sentence(reassigned: &ReassignedFollowUps<'_>) -> String {
    let ReassignedFollowUps { follower, own_family, earlier_follower, other_family } = reassigned;
    let other_creator: Vec<String> = other_family.first().map(|id| format!("`{id}`")).into_iter().collect();
    format!(
        "`{}` follows up what `{}` creates, and gets requests of `{earlier_follower}` about instances of {}",
        follower.id,
        own_family.id(),
        other_creator.join(", ")
    )
}

/// A sentence that says what to do if the other creator was renamed without `was`; empty if a route still has one of
/// its ids.
fn rename_hint(reassigned: &ReassignedFollowUps<'_>, routes: &[Arc<Route>]) -> String {
    let is_gone = !routes.iter().any(|route| route.ids().any(|id| reassigned.other_family.contains(id)));
    match reassigned.other_family.first().filter(|_| is_gone) {
        Some(other) => format!(
            "No route is `{other}` any more: if `{own}` is that route under another id, add `was: [{other}]` to `{own}`. ",
            own = reassigned.own_family.id()
        ),
        None => String::new(),
    }
}

/// The routes of the files before, or of earlier ones, that have become one route (`was`). They count also if that
/// route has no workflow or no `instance:` yet, because the next edit may add it.
struct JoinedCreators<'a> {
    route: &'a Route,
    /// The routes that it was, by the id that each had.
    parts: BTreeMap<&'a RouteId, JoinedPart<'a>>,
}

/// One of several routes that have become one.
#[derive(Default)]
struct JoinedPart<'a> {
    /// The ids of the joined route that this one had.
    ids: Vec<&'a RouteId>,
    /// Whether any route is, or was, a follower of it.
    has_followers: bool,
}

impl<'a> JoinedCreators<'a> {
    fn of(before: &'a Positions, route: &'a Route) -> Self {
        let mut parts: BTreeMap<&RouteId, JoinedPart<'_>> = BTreeMap::new();
        for id in route.ids() {
            let part = parts.entry(earlier_route(before, id)).or_default();
            part.ids.push(id);
            part.has_followers |= has_followers(before, id);
        }
        Self { route, parts }
    }

    /// Why the files are refused; `None` unless at least two of these routes may have given out ids of instances, and
    /// the engine may have instances of one of them.
    fn sentence(&self, families: &FamiliesWithInstances) -> Option<String> {
        let may_have_ids =
            |part: &JoinedPart<'_>| part.has_followers || part.ids.iter().any(|id| families.of_any_arm.contains(*id));
        let creators = self.parts.iter().filter(|(_, part)| may_have_ids(part));
        let names: Vec<String> = creators.map(|(id, _)| format!("`{id}`")).collect();
        let engine_may_have_one = self.route.ids().any(|id| families.of_engine.contains(id));
        (names.len() > 1 && engine_may_have_one).then(|| {
            format!(
                "`{}` joins several routes ({}), and each of them has given out ids of instances, or may",
                self.route.id,
                names.join(", ")
            )
        })
    }
}

/// The families that have instances, or may get some, by the id under which these are pinned.
struct FamiliesWithInstances {
    /// The store has a pin of either arm, or an open run may create an instance. A creator in `live` is not enough
    /// here: it may never have created an instance.
    of_any_arm: BTreeSet<RouteId>,
    /// The store has a pin of the engine, an open run may create an instance, or the next request may: the creator, or
    /// a cohort of it, is in `live` or above by the files before, or goes there by `force` in the new files.
    of_engine: BTreeSet<RouteId>,
}

impl FamiliesWithInstances {
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
            families.live_creators.contains(id)
                || before.live.contains_key(id)
                || state_before(before, id).0 >= State::Live
        };
        let is_forced_live = |route: &Route| {
            let is_forced = |cohort: &Cohort| cohort.force.is_some() && cohort.state >= State::Live;
            let by_file = route.force.is_some() && route.declared >= State::Live;
            route.workflow.is_some() && (by_file || route.cohorts.iter().any(is_forced))
        };
        let forced_live = routes.iter().filter(|route| is_forced_live(route)).flat_map(|route| route.ids());
        let pinned = pins.iter().filter(|(_, arm, _)| *arm == Arm::Engine).map(|(id, ..)| id);
        let of_engine = pinned.chain(open.keys()).chain(ids.iter().filter(|id| is_live(id))).chain(forced_live);
        let of_engine = of_engine.cloned().collect();
        Ok(Self { of_engine, of_any_arm: pins.into_iter().map(|(id, ..)| id).chain(open.into_keys()).collect() })
    }
}

/// Whether the reason for `force` is new in this edit. At a start only the store tells what the files before had:
/// whether a route had a reason, but not which one. Then a reason is new if the route had none, or if the store has
/// nothing of the route.
fn has_new_force(before: &Positions, route: &Route) -> bool {
    let had = |id: &RouteId| match before.routes.get(id) {
        Some(position) => position.route.force == route.force,
        None => before.scopes.get(id).is_some_and(|scopes| scopes.has_force == Some(true)),
    };
    !route.ids().any(had)
}

/// The route that this id belonged to: a route that was in the files before, else one of earlier files. If none is
/// known, the id itself.
fn earlier_route<'a>(before: &'a Positions, id: &'a RouteId) -> &'a RouteId {
    let is_present =
        |route: &&RouteId| before.stored_declarations.contains_key(*route) && !before.absent.contains(*route);
    if is_present(&id) {
        return id;
    }
    let had = || before.earlier_ids.iter().filter(|(_, earlier)| earlier.contains(id)).map(|(route, _)| route);
    had().find(is_present).or_else(|| had().next()).unwrap_or(id)
}

/// Whether a route of the files before, or of earlier ones, follows up what a route with this id creates.
fn has_followers(before: &Positions, id: &RouteId) -> bool {
    before.followers.values().any(|followed| {
        followed.family.contains(id) || followed.earlier.iter().any(|earlier| earlier.family.contains(id))
    })
}
