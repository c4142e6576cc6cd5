//! Instances of the engine that no route of new files would follow up. The engine's instances stay with the engine, so
//! the routes that follow them up have to stay too, and have to match the same requests; their ids may change.
//!
//! An open run of a creator, or a rerun of one, counts as an instance, because it may still create one. So does a
//! creator that is in `live`, because it may create one at any moment.
//!
//! The followers of the files in force are stored with the declarations, so that a start is checked as a reload is.
//! Files are not refused for instances that the files before did not follow up either: that would stop every later
//! reload and start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::family::{creator, family};
use super::reassigned_requests::conventions;
use crate::flag::{Arm, Family, Instance, InstanceKeySource, PinKey, Route, RouteMatch, ServiceMatch, TemplateSegment};
use crate::names::{RouteId, RunId};
use crate::store::{FollowerRequests, OpenCreators, StoreError, StoreHandle, families_of_open_runs};

/// The requests by which each route follows up instances. A store that an older binary wrote has none of these.
pub(super) type Followers = BTreeMap<RouteId, FollowerRequests>;

/// The followers of a set of files, with a workflow or without, as the store keeps them.
pub(super) fn followers(routes: &[Arc<Route>]) -> Followers {
    let follower = |route: &Arc<Route>| {
        let Some(Instance::Follows { key, .. }) = &route.instance else { return None };
        let family: Vec<RouteId> = family(route, routes)?.ids().cloned().collect();
        let is_in_family = |other: &Route| family.iter().any(|id| follows_up(other, id, routes));
        let others = routes.iter().filter(|other| !is_in_family(other) && takes_requests(other, route));
        let except = others.map(|other| ServiceMatch::of(other).normal_form()).collect();
        let (matches, paths) = (route.matches.to_string(), Some(conventions(route)));
        let param = key.path_parameter().map_or_else(|| key.to_string(), str::to_owned);
        let (has_no_workflow, is_absent, earlier) = (route.workflow.is_none(), false, Vec::new());
        let followed = FollowerRequests { family, matches, paths, param, except, has_no_workflow, is_absent, earlier };
        Some((route.id.clone(), followed))
    };
    routes.iter().filter_map(follower).collect()
}

/// Those of these followers that follow up instances of the engine by the files in force.
pub(super) fn of_engine(followers: &Followers) -> Followers {
    let of_engine = followers.iter().filter(|(_, followed)| !followed.has_no_workflow && !followed.is_absent);
    of_engine.map(|(id, followed)| (id.clone(), followed.clone())).collect()
}

/// The families of the files before.
pub(super) struct FamiliesBefore {
    /// The followers with a workflow.
    pub followers: Followers,
    /// The ids of the routes that create instances.
    pub creators: BTreeSet<RouteId>,
    /// The ids under which instances are pinned that the engine may create at any moment: the creator, or a cohort of
    /// it, is in `live` or above.
    pub creating: BTreeSet<RouteId>,
    /// The oldest id of each route with a workflow, by its id: new instances are pinned under it.
    pub oldest_ids: BTreeMap<RouteId, RouteId>,
    /// Whether `creators` has every route with a workflow, because it is not known which of them create instances.
    pub may_have_non_creators: bool,
}

impl FamiliesBefore {
    /// Whether a route created instances that are pinned under this id, or one followed them up.
    fn have(&self, pinned_under: &RouteId) -> bool {
        self.creators.contains(pinned_under)
            || self.followers.values().any(|followed| followed.family.contains(pinned_under))
    }
}

/// Why instances of the engine would be without a follower under new files: a sentence for each reason.
pub(super) struct OrphanReasons {
    /// For instances that the files before followed up.
    pub new: Vec<String>,
    /// For instances that the files before did not follow up either.
    pub known: Vec<String>,
    /// Whether `new` would have sentences if the engine owned instances of every family.
    pub may_orphan: bool,
}

/// Looks for instances of the engine that the files `next` do not follow up.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    store: &StoreHandle,
    before: &FamiliesBefore,
    next: &[Arc<Route>],
) -> Result<OrphanReasons, StoreError> {
    let pins = store.pin_counts().await?.into_iter().filter(|(_, arm, count)| *arm == Arm::Engine && *count > 0);
    let mut owned: OwnedByFamily =
        pins.map(|(family, _, instances)| (family, OwnedInFamily { instances, ..OwnedInFamily::default() })).collect();
    // Open runs are looked up only where they matter. A run of a route that creates nothing must not count.
    let creators = before.creators.iter().filter(|_| !before.may_have_non_creators);
    let families = before.followers.values().flat_map(|followed| &followed.family).chain(creators);
    let of_all =
        families.map(|id| (id.clone(), OwnedInFamily { in_open_run: true, ..OwnedInFamily::default() })).collect();
    let affected: BTreeSet<RouteId> =
        compare(&of_all, &before.followers, next).sentences.into_iter().map(|(id, _)| id).collect();
    let OpenCreators { families, unreadable_reruns } =
        families_of_open_runs(&**store, &affected, &before.oldest_ids).await?;
    for (id, unreadable) in families {
        let owned = owned.entry(id).or_default();
        (owned.in_open_run, owned.unreadable) = (true, unreadable);
    }
    for id in before.creating.intersection(&affected) {
        owned.entry(id.clone()).or_default().by_new_runs = true;
    }
    let OrphanCheck { sentences, to_look_up } = compare(&owned, &before.followers, next);
    let (new, known): (Vec<_>, Vec<_>) = sentences.into_iter().partition(|(id, _)| before.have(id));
    let texts = |found: Vec<(RouteId, String)>| found.into_iter().map(|(_, sentence)| sentence).collect();
    let mut orphans = OrphanReasons { new: texts(new), known: texts(known), may_orphan: !affected.is_empty() };
    for TakenId { keys, sentence } in to_look_up {
        for key in keys {
            if store.pin(key).await?.is_some_and(|pin| pin.arm == Arm::Engine) {
                orphans.new.push(sentence);
                break;
            }
        }
    }
    // A rerun that cannot be read is by itself no reason to refuse files.
    if let Some(first) = unreadable_reruns.first().filter(|_| !orphans.new.is_empty()) {
        let others = match unreadable_reruns.len() {
            1 => String::new(),
            count => format!(" (and of {} more)", count - 1),
        };
        orphans.new.push(format!(
            "the events of the open rerun {first}{others} cannot be read: it may create an instance of any of these families"
        ));
    }
    Ok(orphans)
}

/// What the engine owns of each family, by the id under which the instances are pinned.
type OwnedByFamily = BTreeMap<RouteId, OwnedInFamily>;

/// What the engine owns of a family.
#[derive(Clone, Copy, Default)]
struct OwnedInFamily {
    instances: u64,
    /// An open run may create an instance.
    in_open_run: bool,
    /// The open run counts only because its events cannot be read.
    unreadable: Option<RunId>,
    /// The next request may create an instance.
    by_new_runs: bool,
}

impl OwnedInFamily {
    fn sentence(self, pinned_under: &RouteId) -> String {
        let why = match self.unreadable {
            Some(run) => format!(" (the events of run {run} cannot be read, so that it counts for its route)"),
            None => String::new(),
        };
        match self {
            Self { instances: 0, in_open_run: false, by_new_runs: true, unreadable: _ } => format!(
                "the engine may create one of `{pinned_under}` at any moment, because the route that creates them, or a \
                 cohort of it, is in `live` or above (lower it first)"
            ),
            Self { instances: 0, .. } => {
                format!("the engine has an open run that may create an instance of `{pinned_under}`{why}")
            }
            Self { instances, in_open_run: false, .. } => {
                format!("the engine owns instances of `{pinned_under}` ({instances})")
            }
            Self { instances, in_open_run: true, .. } => {
                format!(
                    "the engine owns instances of `{pinned_under}` ({instances}) and has an open run that may create \
                     another{why}"
                )
            }
        }
    }
}

/// What the comparison of the followers with new files found.
struct OrphanCheck {
    /// Each sentence with the id under which the instances are pinned.
    sentences: Vec<(RouteId, String)>,
    /// Sentences that are true only if the engine owns one of these instances.
    to_look_up: Vec<TakenId>,
}

/// A route takes the requests for one instance id. That matters only if the engine owns the instance.
struct TakenId {
    keys: Vec<PinKey>,
    sentence: String,
}

/// Compares the followers of the files in force with new files.
fn compare(owned: &OwnedByFamily, before: &Followers, next: &[Arc<Route>]) -> OrphanCheck {
    let mut found = OrphanCheck { sentences: Vec::new(), to_look_up: Vec::new() };
    // Pins are stored under the first id of their creator, or under the id that it had when they were made.
    for creator in owned.keys().filter(|creator| !next.iter().any(|route| creates(route, creator))) {
        found.sentences.push(((*creator).clone(), no_longer_followed(owned[creator], creator, creator)));
    }
    for (route, followed) in before {
        for pinned_under in followed.family.iter().filter(|id| owned.contains_key(*id)) {
            let is_same_route = |other: &&Arc<Route>| other.ids().any(|own| own == route);
            if next.iter().filter(is_same_route).any(|other| follows_up(other, pinned_under, next)) {
                check_requests(&mut found, route, followed, (pinned_under, owned[pinned_under]), next);
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

/// Adds a sentence for each route that would take requests by which a route followed up instances of a family.
fn check_requests(
    found: &mut OrphanCheck,
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
    let followed_by = ServiceMatch { matches: &matches, paths: paths.unwrap_or_default() };
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
            // Requests in a spelling that is told apart now would go to legacy.
            let reads_as_many = paths.is_none_or(|paths| conventions(other).match_all_of(&paths));
            follows && follows_up(other, pinned_under, next) && other.matches.covers(&matches) && reads_as_many
        })
        .collect();
    let legacy = "their requests would go to legacy, which does not know them";
    if followers.is_empty() {
        // If no route creates these any more, only the creator is reported.
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
        .filter(|other| !follows_up(other, pinned_under, next) && ServiceMatch::of(other).overlaps(&followed_by))
    {
        let may_be_first =
            followers.iter().all(|follower| ServiceMatch::of(other).may_win_over(&ServiceMatch::of(follower)));
        if !may_be_first || except.contains(&ServiceMatch::of(other).normal_form()) {
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
                let keys = family.iter().map(|family| PinKey { family: family.clone(), id: id.as_ref().into() });
                found.to_look_up.push(TakenId { keys: keys.collect(), sentence });
            }
            Some(TemplateSegment::Parameter(_)) | None => {
                found.sentences.push((pinned_under.clone(), sentence(&owned.sentence(pinned_under))));
            }
        }
    }
}

/// Whether the first route may take requests from the second: both match them, and the first may win.
fn takes_requests(first: &Route, second: &Route) -> bool {
    let (first, second) = (ServiceMatch::of(first), ServiceMatch::of(second));
    first.overlaps(&second) && first.may_win_over(&second)
}

/// Whether a route creates instances that are pinned under this id.
fn creates(route: &Route, pinned_under: &RouteId) -> bool {
    route.workflow.is_some()
        && matches!(route.instance, Some(Instance::Creates { .. }))
        && route.ids().any(|own| own == pinned_under)
}

/// Whether a route follows up the instances that are pinned under this id. If no route creates these any more, any
/// follower counts, because then only the creator is reported.
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
