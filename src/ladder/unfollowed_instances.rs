//! Finds instances of the engine whose follow-ups would go to legacy under new files. Legacy does not know these
//! instances and would answer 404, so such files are refused.
//!
//! Example: `orders.create` (the *creator*) creates orders, and `orders.read` (`GET /orders/{id}`, its *follower*) gets
//! the follow-ups: the requests about these orders. The engine owns order 17. Three edits send `GET /orders/17` to
//! legacy, and leave order 17 *unfollowed*:
//!
//! - `orders.read` is removed, or loses its workflow or its `instance:`;
//! - `orders.read` gets another `match:` that no longer covers `GET /orders/{id}`;
//! - a route without `instance:` is added that wins over `orders.read`, such as `GET /orders/17`.
//!
//! A rename (`was: [orders.read]`) is accepted, and so is any state, `off` included: the engine answers follow-ups of
//! its own instances in every state.
//!
//! An open run of a creator, or a rerun of such a run, counts as an instance, because it may still create one. So does
//! a creator in `live` or above, because the next request may create one.
//!
//! The store keeps the followers of the files in force, so that a start is checked as a reload is. Instances that were
//! unfollowed under the files before are only logged: to refuse files because of them would stop every later reload and
//! start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::family::{creator, family};
use super::reassigned_requests::conventions;
use crate::flag::{Arm, Family, Instance, InstanceKeySource, PinKey, Route, RouteMatch, ServiceMatch, TemplateSegment};
use crate::names::{RouteId, RunId};
use crate::store::{FollowerRequests, OpenCreators, StoreError, StoreHandle, families_of_open_runs};

/// Each follower, by its id, with the follow-ups that it gets. In a store that an older binary wrote, there are none.
pub(super) type Followers = BTreeMap<RouteId, FollowerRequests>;

/// The followers in a set of files, with a workflow or without, as the store keeps them.
pub(super) fn followers_in(routes: &[Arc<Route>]) -> Followers {
    let follower = |route: &Arc<Route>| {
        let Some(Instance::Follows { key, .. }) = &route.instance else { return None };
        let family: Vec<RouteId> = family(route, routes)?.ids().cloned().collect();
        let is_in_family = |other: &Route| family.iter().any(|id| follows_up(other, id, routes));
        let others = routes.iter().filter(|other| !is_in_family(other) && may_take_requests(other, route));
        let except = others.map(|other| ServiceMatch::of(other).normal_form()).collect();
        let (matches, paths) = (route.matches.to_string(), Some(conventions(route)));
        let param = key.path_parameter().map_or_else(|| key.to_string(), str::to_owned);
        let (has_no_workflow, is_absent, earlier) = (route.workflow.is_none(), false, Vec::new());
        let followed = FollowerRequests { family, matches, paths, param, except, has_no_workflow, is_absent, earlier };
        Some((route.id.clone(), followed))
    };
    routes.iter().filter_map(follower).collect()
}

/// The followers that are in the files in force and have a workflow: only these send follow-ups to the engine.
pub(super) fn present_with_workflow(followers: &Followers) -> Followers {
    let present = followers.iter().filter(|(_, followed)| !followed.has_no_workflow && !followed.is_absent);
    present.map(|(id, followed)| (id.clone(), followed.clone())).collect()
}

/// The families of the files before.
pub(super) struct FamiliesBefore {
    /// The followers with a workflow.
    pub followers: Followers,
    /// All ids, present and earlier ones, of the routes that create instances.
    pub creators: BTreeSet<RouteId>,
    /// The oldest id of each creator that is in `live` or above, or that has a cohort there: the engine may create an
    /// instance at any moment, and pins it under this id.
    pub live_creators: BTreeSet<RouteId>,
    /// The oldest id of each route with a workflow, by its present id: new instances are pinned under the oldest one.
    pub oldest_ids: BTreeMap<RouteId, RouteId>,
    /// Whether `creators` has every route with a workflow, because the files are not read yet at a start: it is not
    /// known which of these routes create instances.
    pub may_have_non_creators: bool,
}

impl FamiliesBefore {
    /// Whether the files before had a creator with this id, or a follower of one.
    fn have_family(&self, pinned_under: &RouteId) -> bool {
        self.creators.contains(pinned_under)
            || self.followers.values().any(|followed| followed.family.contains(pinned_under))
    }
}

/// The unfollowed instances under new files: a sentence for each reason why instances are unfollowed.
pub(super) struct UnfollowedInstances {
    /// The files before had a follower for these instances: the new files are refused.
    pub newly_unfollowed: Vec<String>,
    /// The files before had no follower for these instances either.
    pub already_unfollowed: Vec<String>,
    /// Whether the new files take a creator, a follower or follow-ups from any family, also from one of which the
    /// engine has no instances. If so, instances that are created while the files are checked may be unfollowed.
    pub removes_followers: bool,
}

/// Finds the instances of the engine that are unfollowed under the files `next`.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    store: &StoreHandle,
    before: &FamiliesBefore,
    next: &[Arc<Route>],
) -> Result<UnfollowedInstances, StoreError> {
    let pins = store.pin_counts().await?.into_iter().filter(|(_, arm, count)| *arm == Arm::Engine && *count > 0);
    let mut owned: OwnedByFamily =
        pins.map(|(family, _, instances)| (family, OwnedInFamily { instances, ..OwnedInFamily::default() })).collect();
    // Open runs are looked up only for families whose instances would be unfollowed, since there may be many runs.
    // These families (`affected`) are found by a check as if the engine owned an instance of every family. If it is not
    // known which routes are creators, only families with followers count: a run of a route that creates nothing is no
    // reason to refuse files.
    let creators = before.creators.iter().filter(|_| !before.may_have_non_creators);
    let families = before.followers.values().flat_map(|followed| &followed.family).chain(creators);
    let all_owned = families
        .map(|id| (id.clone(), OwnedInFamily { open_run_may_create: true, ..OwnedInFamily::default() }))
        .collect();
    let affected: BTreeSet<RouteId> =
        check_followers(&all_owned, &before.followers, next).sentences.into_iter().map(|(id, _)| id).collect();
    let OpenCreators { families, unreadable_reruns } =
        families_of_open_runs(&**store, &affected, &before.oldest_ids).await?;
    for (id, unreadable_run) in families {
        let owned = owned.entry(id).or_default();
        (owned.open_run_may_create, owned.unreadable_run) = (true, unreadable_run);
    }
    for id in before.live_creators.intersection(&affected) {
        owned.entry(id.clone()).or_default().next_request_may_create = true;
    }
    let UnfollowedSentences { sentences, if_owned } = check_followers(&owned, &before.followers, next);
    let (newly, already): (Vec<_>, Vec<_>) = sentences.into_iter().partition(|(id, _)| before.have_family(id));
    let texts = |found: Vec<(RouteId, String)>| found.into_iter().map(|(_, sentence)| sentence).collect();
    let mut unfollowed = UnfollowedInstances {
        newly_unfollowed: texts(newly),
        already_unfollowed: texts(already),
        removes_followers: !affected.is_empty(),
    };
    for SentenceIfOwned { pins, sentence } in if_owned {
        for pin in pins {
            if store.pin(pin).await?.is_some_and(|pin| pin.arm == Arm::Engine) {
                unfollowed.newly_unfollowed.push(sentence);
                break;
            }
        }
    }
    // A rerun that cannot be read is by itself no reason to refuse files: it is named beside other reasons.
    if let Some(first) = unreadable_reruns.first().filter(|_| !unfollowed.newly_unfollowed.is_empty()) {
        let others = match unreadable_reruns.len() {
            1 => String::new(),
            count => format!(" (and of {} more)", count - 1),
        };
        unfollowed.newly_unfollowed.push(format!(
            "the events of the open rerun {first}{others} cannot be read: it may create an instance of any of these families"
        ));
    }
    Ok(unfollowed)
}

/// The engine's instances of each family, by the id of the creator under which they are pinned.
type OwnedByFamily = BTreeMap<RouteId, OwnedInFamily>;

/// The engine's instances of a family: those that it has, and whether it may get more.
#[derive(Clone, Copy, Default)]
struct OwnedInFamily {
    instances: u64,
    open_run_may_create: bool,
    /// The run because of which `open_run_may_create` is set, if it is set only because its events cannot be read.
    unreadable_run: Option<RunId>,
    next_request_may_create: bool,
}

impl OwnedInFamily {
    fn sentence(self, pinned_under: &RouteId) -> String {
        let why = match self.unreadable_run {
            Some(run) => format!(" (the events of run {run} cannot be read, so that it counts for its route)"),
            None => String::new(),
        };
        match self {
            Self { instances: 0, open_run_may_create: false, next_request_may_create: true, unreadable_run: _ } => {
                format!(
                    "the engine may create one of `{pinned_under}` at any moment, because the route that creates them, or a \
                 cohort of it, is in `live` or above (lower it first)"
                )
            }
            Self { instances: 0, .. } => {
                format!("the engine has an open run that may create an instance of `{pinned_under}`{why}")
            }
            Self { instances, open_run_may_create: false, .. } => {
                format!("the engine owns instances of `{pinned_under}` ({instances})")
            }
            Self { instances, open_run_may_create: true, .. } => {
                format!(
                    "the engine owns instances of `{pinned_under}` ({instances}) and has an open run that may create \
                     another{why}"
                )
            }
        }
    }
}

/// Why instances would be unfollowed.
struct UnfollowedSentences {
    /// Each sentence with the id under which the instances are pinned.
    sentences: Vec<(RouteId, String)>,
    /// About routes that win the follow-ups of a single instance.
    if_owned: Vec<SentenceIfOwned>,
}

/// A sentence about one instance. It is true only if the engine owns the instance: the store has one of these pins.
struct SentenceIfOwned {
    /// One for each id of the creator.
    pins: Vec<PinKey>,
    sentence: String,
}

/// Checks that each creator of `owned` is still a creator in the new files, and that the new files send the follow-ups
/// of each follower to a follower of the same family.
fn check_followers(owned: &OwnedByFamily, before: &Followers, next: &[Arc<Route>]) -> UnfollowedSentences {
    let mut found = UnfollowedSentences { sentences: Vec::new(), if_owned: Vec::new() };
    // A pin may be stored under any id that its creator has or had: `creates` compares all ids of a route.
    for creator in owned.keys().filter(|creator| !next.iter().any(|route| creates(route, creator))) {
        found.sentences.push(((*creator).clone(), no_longer_followed(owned[creator], creator, creator)));
    }
    for (route, followed) in before {
        for pinned_under in followed.family.iter().filter(|id| owned.contains_key(*id)) {
            let is_same_route = |other: &&Arc<Route>| other.ids().any(|own| own == route);
            if next.iter().filter(is_same_route).any(|other| follows_up(other, pinned_under, next)) {
                check_follow_ups(&mut found, route, followed, (pinned_under, owned[pinned_under]), next);
            } else {
                let sentence = no_longer_followed(owned[pinned_under], pinned_under, route);
                found.sentences.push((pinned_under.clone(), sentence));
            }
        }
    }
    found
}

fn no_longer_followed(owned: OwnedInFamily, pinned_under: &RouteId, route: &RouteId) -> String {
    format!(
        "{}, and `{route}` no longer follows them up (it is gone, or has lost its workflow or `instance`): their requests \
         would go to legacy, which does not know them. Leave the route in the files; its state may be `off`. If it has \
         another id now, add `was: [{route}]` to it",
        owned.sentence(pinned_under)
    )
}

/// Adds a sentence if no follower of the new files gets all follow-ups that `route` had, and one for each other route
/// that would win some of them.
fn check_follow_ups(
    found: &mut UnfollowedSentences,
    route: &RouteId,
    followed: &FollowerRequests,
    (pinned_under, owned): (&RouteId, OwnedInFamily),
    next: &[Arc<Route>],
) {
    let FollowerRequests { family, matches, paths, param, except, .. } = followed;
    let Ok(matches) = matches.parse::<RouteMatch>() else {
        tracing::warn!(%route, matches, "the stored `match` of a follower cannot be read; its requests are not checked");
        return;
    };
    let match_before = ServiceMatch { matches: &matches, paths: paths.unwrap_or_default() };
    let followers: Vec<&Arc<Route>> = next
        .iter()
        .filter(|other| {
            let Some(Instance::Follows { key, .. }) = &other.instance else { return false };
            let follows = match (key, other.matches.segment_at(&matches, param)) {
                (InstanceKeySource::Path(own), Some(TemplateSegment::Parameter(name))) => own == name,
                (InstanceKeySource::Path(_), _) => false,
                (InstanceKeySource::Query(_) | InstanceKeySource::Header(_) | InstanceKeySource::Body(_), _) => {
                    key.to_string() == *param
                }
            };
            // Its service may no longer treat two spellings of a path as the same: then requests in one of the
            // spellings would go to legacy.
            let reads_all_spellings = paths.is_none_or(|paths| conventions(other).match_all_of(&paths));
            follows && follows_up(other, pinned_under, next) && other.matches.covers(&matches) && reads_all_spellings
        })
        .collect();
    let legacy = "their requests would go to legacy, which does not know them";
    if followers.is_empty() {
        // If the creator is gone too, `check_followers` has added a sentence about the creator: one is enough.
        if !next.iter().any(|route| creates(route, pinned_under)) {
            return;
        }
        let sentence = format!(
            "{}, and `{matches}`, by which `{route}` followed them up, no longer leads to a route that does: {legacy}. Keep \
             that `match` and `key` and the `paths:` of its service, and make another path a route of its own, with the \
             same workflow and `instance`",
            owned.sentence(pinned_under)
        );
        found.sentences.push((pinned_under.clone(), sentence));
        return;
    }
    for other in next
        .iter()
        .filter(|other| !follows_up(other, pinned_under, next) && ServiceMatch::of(other).overlaps(&match_before))
    {
        let may_win =
            followers.iter().all(|follower| ServiceMatch::of(other).may_win_over(&ServiceMatch::of(follower)));
        if !may_win || except.contains(&ServiceMatch::of(other).normal_form()) {
            continue;
        }
        let sentence = |what: &str| {
            format!(
                "{what}, and `{}` (`{}`) would take requests for them from `{route}` \
                 (`{matches}`) without following them up: {legacy}. Give it the workflow and the `instance` of `{route}`, \
                 or leave it out",
                other.id, other.matches
            )
        };
        match other.matches.segment_at(&matches, param) {
            Some(TemplateSegment::Text(id)) => {
                let sentence = sentence(&format!("the engine owns the instance `{id}` of `{pinned_under}`"));
                let pins = family.iter().map(|family| PinKey { family: family.clone(), id: id.as_ref().into() });
                found.if_owned.push(SentenceIfOwned { pins: pins.collect(), sentence });
            }
            Some(TemplateSegment::Parameter(_)) | None => {
                found.sentences.push((pinned_under.clone(), sentence(&owned.sentence(pinned_under))));
            }
        }
    }
}

/// Whether there may be requests that both routes match and that go to the first one.
fn may_take_requests(first: &Route, second: &Route) -> bool {
    let (first, second) = (ServiceMatch::of(first), ServiceMatch::of(second));
    first.overlaps(&second) && first.may_win_over(&second)
}

/// Whether a route creates instances that are pinned under this id.
fn creates(route: &Route, pinned_under: &RouteId) -> bool {
    route.workflow.is_some()
        && matches!(route.instance, Some(Instance::Creates { .. }))
        && route.ids().any(|own| own == pinned_under)
}

/// Whether a route follows up the instances that are pinned under this id. If their creator is gone, every follower of
/// any creator counts as following them up, so that only the missing creator is reported.
fn follows_up(route: &Route, pinned_under: &RouteId, routes: &[Arc<Route>]) -> bool {
    if route.workflow.is_none() || !matches!(route.instance, Some(Instance::Follows { .. })) {
        return false;
    }
    let is_family = |family: Family| family.ids().any(|id| id == pinned_under);
    match family(route, routes) {
        Some(family) if routes.iter().any(|route| creates(route, pinned_under)) => is_family(family),
        Some(_) | None => creator(route).is_some(),
    }
}
