//! The requests by which routes follow up instances, according to the files in force and to earlier ones, as the store
//! keeps them.
//!
//! Always true: the requests by which a route followed up instances are remembered when the route leaves the files,
//! matches other requests, or follows another creator. Clients may send these requests for as long as the instances
//! exist, and the next files may give them to a follower of another creator (`reassigned_follow_ups`).

use std::sync::Arc;

use super::scope_matches;
use super::unfollowed_instances::{self, Followers};
use crate::flag::Route;
use crate::names::RouteId;
use crate::store::{EarlierFollowerRequests, FollowerRequests};

/// How many earlier matches of one route are remembered; of more, the oldest are dropped.
const EARLIER_MAX: usize = 32;

/// The followers after new files are read.
pub(super) fn after_files(before: &Followers, routes: &[Arc<Route>]) -> Followers {
    let mut after = unfollowed_instances::followers_in(routes);
    for (id, was) in before {
        match after.get_mut(id) {
            Some(now) => add_earlier(id, now, was),
            None => {
                drop(after.insert(id.clone(), FollowerRequests { is_absent: true, except: Vec::new(), ..was.clone() }))
            }
        }
    }
    after
}

fn add_earlier(id: &RouteId, now: &mut FollowerRequests, was: &FollowerRequests) {
    let FollowerRequests { family, matches, paths, .. } = was.clone();
    let mut earlier = was.earlier.clone();
    earlier.retain(|known| !is_same(known, &family, &matches, was));
    earlier.push(EarlierFollowerRequests { family, matches, paths });
    earlier.retain(|known| !is_same(known, &now.family, &now.matches, now));
    if earlier.len() > EARLIER_MAX {
        tracing::warn!(
            route = %id, kept = EARLIER_MAX,
            "the route's `match` or the creator that it follows changed more often than is remembered: files that give \
             the oldest of these requests to a follower of another creator are not refused any more"
        );
        earlier.drain(..earlier.len() - EARLIER_MAX);
    }
    now.earlier = earlier;
}

/// Whether these are the same requests, about instances of the same family.
fn is_same(known: &EarlierFollowerRequests, family: &[RouteId], matches: &str, of: &FollowerRequests) -> bool {
    let is_alike = known.matches == matches || scope_matches::match_alike(&known.matches, matches);
    is_alike && known.paths == of.paths && known.family.iter().any(|id| family.contains(id))
}
