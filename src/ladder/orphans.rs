//! Instances of the engine that no route of new files would follow up. The engine's instances stay with the engine, so
//! the routes that follow them up have to stay too, and have to match the same requests; their ids may change.
//!
//! The followers of the files in force are stored with the declarations, so that a start is checked as a reload is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::{creator, family};
use crate::flag::{Arm, Family, Instance, Match, PinKey, Route, Segment};
use crate::names::RouteId;
use crate::store::{FollowedPath, PinCount, SharedStore, StoreError};

/// The requests by which each route follows up instances. A store that an older binary wrote has none of these.
pub(super) type Followers = BTreeMap<RouteId, FollowedPath>;

/// The followers of a set of files, as the store keeps them.
pub(super) fn followers(routes: &[Arc<Route>]) -> Followers {
    let follower = |route: &Arc<Route>| {
        let Some(Instance::Follows { param, .. }) = route.instance.as_ref().filter(|_| route.workflow.is_some()) else {
            return None;
        };
        let family: Vec<RouteId> = family(route, routes)?.ids().cloned().collect();
        let is_in_family = |other: &Route| family.iter().any(|id| follows_up(other, id, routes));
        let others =
            routes.iter().filter(|other| !is_in_family(other) && takes_requests(&other.matches, &route.matches));
        let except = others.map(|other| other.matches.normal_form()).collect();
        let (matches, param) = (route.matches.to_string(), param.clone());
        Some((route.id.clone(), FollowedPath { family, matches, param, except }))
    };
    routes.iter().filter_map(follower).collect()
}

/// A sentence for each way in which requests for instances of the engine would no longer be followed up under the files
/// `next`.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    store: &SharedStore,
    before: &Followers,
    next: &[Arc<Route>],
) -> Result<Vec<String>, StoreError> {
    let Found { mut sentences, to_look_up } = compare(&store.pin_counts().await?, before, next);
    for TakenId { keys, sentence } in to_look_up {
        for key in keys {
            if store.pin(key).await?.is_some_and(|pin| pin.arm == Arm::Engine) {
                sentences.push(sentence);
                break;
            }
        }
    }
    Ok(sentences)
}

/// What the comparison of the followers with new files found.
struct Found {
    sentences: Vec<String>,
    /// Sentences that are true only if the engine owns one of these instances.
    to_look_up: Vec<TakenId>,
}

/// A route takes the requests for one instance id. That matters only if the engine owns the instance.
struct TakenId {
    keys: Vec<PinKey>,
    sentence: String,
}

/// Compares the followers of the files in force with new files.
fn compare(pins: &[PinCount], before: &Followers, next: &[Arc<Route>]) -> Found {
    let owned: BTreeMap<&RouteId, u64> = pins
        .iter()
        .filter(|(_, arm, count)| *arm == Arm::Engine && *count > 0)
        .map(|(family, _, count)| (family, *count))
        .collect();
    let mut found = Found { sentences: Vec::new(), to_look_up: Vec::new() };
    // Pins are stored under the first id of their creator, or under the id that it had when they were made.
    for creator in owned.keys().filter(|creator| !next.iter().any(|route| creates(route, creator))) {
        found.sentences.push(no_longer_followed(owned[creator], creator, creator));
    }
    for (route, followed) in before {
        for pinned_under in followed.family.iter().filter(|id| owned.contains_key(id)) {
            let is_same_route = |other: &&Arc<Route>| other.ids().any(|own| own == route);
            if next.iter().filter(is_same_route).any(|other| follows_up(other, pinned_under, next)) {
                check_requests(&mut found, route, followed, (pinned_under, owned[pinned_under]), next);
            } else {
                found.sentences.push(no_longer_followed(owned[pinned_under], pinned_under, route));
            }
        }
    }
    found
}

fn no_longer_followed(count: u64, pinned_under: &RouteId, route: &RouteId) -> String {
    format!(
        "the engine owns {count} of `{pinned_under}`, and `{route}` no longer follows them up (it is gone, or has lost its \
         workflow or `instance`): their requests would go to legacy, which does not know them. Leave the route in the files; its \
         state may be `off`. If it has another id now, add `was: [{route}]` to it"
    )
}

/// Adds a sentence for each route that would take requests by which a route followed up instances of a family.
fn check_requests(
    found: &mut Found,
    route: &RouteId,
    followed: &FollowedPath,
    (pinned_under, count): (&RouteId, u64),
    next: &[Arc<Route>],
) {
    let FollowedPath { family, matches, param, except } = followed;
    let Ok(matches) = matches.parse::<Match>() else {
        tracing::warn!(%route, matches, "the stored `match` of a follower cannot be read; its requests are not checked");
        return;
    };
    let followers: Vec<&Arc<Route>> = next
        .iter()
        .filter(|other| {
            let follows = match (&other.instance, other.matches.segment_at(&matches, param)) {
                (Some(Instance::Follows { param, .. }), Some(Segment::Parameter(name))) => param == name,
                _ => false,
            };
            follows && follows_up(other, pinned_under, next) && other.matches.covers(&matches)
        })
        .collect();
    let legacy = "their requests would go to legacy, which does not know them";
    if followers.is_empty() {
        // If no route creates these any more, only the creator is reported.
        if !next.iter().any(|route| creates(route, pinned_under)) {
            return;
        }
        found.sentences.push(format!(
            "the engine owns {count} of `{pinned_under}`, and `{matches}`, by which `{route}` followed them up, no longer \
             leads to a route that does: {legacy}. Keep that `match` and `key`, and make another path a route of its own, with the same \
             workflow and `instance`"
        ));
        return;
    }
    for other in next.iter().filter(|other| !follows_up(other, pinned_under, next) && other.matches.overlaps(&matches))
    {
        let is_first = followers.iter().all(|follower| other.matches.wins_over(&follower.matches));
        if !is_first || except.contains(&other.matches.normal_form()) {
            continue;
        }
        let sentence = |what: &str| {
            format!(
                "the engine owns {what} of `{pinned_under}`, and `{}` (`{}`) would take requests for them from `{route}` \
                 (`{matches}`) without following them up: {legacy}. Give it the workflow and the `instance` of `{route}`, \
                 or leave it out",
                other.id, other.matches
            )
        };
        match other.matches.segment_at(&matches, param) {
            Some(Segment::Text(id)) => {
                let keys = family.iter().map(|family| PinKey { family: family.clone(), id: id.as_ref().into() });
                found.to_look_up.push(TakenId { keys: keys.collect(), sentence: sentence(&format!("`{id}`")) });
            }
            Some(Segment::Parameter(_)) | None => found.sentences.push(sentence(&count.to_string())),
        }
    }
}

/// Whether the first match takes requests from the second: both match them, and the first wins.
fn takes_requests(first: &Match, second: &Match) -> bool {
    first.overlaps(second) && first.wins_over(second)
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
