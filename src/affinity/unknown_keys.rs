//! Requests that legacy served and whose retry keys are not known: as long as their retries may come, the gate to
//! `live` is shut.

use std::time::Duration;

use jiff::Timestamp;

use super::key_log::KeyLog;
use crate::clock;
use crate::names::RouteId;
use crate::slot_file::SlotRoute;

/// After this time requests whose keys are still being written are judged again (whether they count as served unnoted):
/// the write may end at any moment, and its end is not reported.
const PENDING_RECHECK_AFTER: Duration = Duration::from_secs(5);

/// Requests that legacy served and whose retry keys are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestsWithUnknownKeys {
    /// When the last of these requests was served.
    pub served: Timestamp,
    /// When no retry of them may come any more.
    pub until: Timestamp,
}

impl RequestsWithUnknownKeys {
    /// `None` if no retry may come any more.
    pub(super) fn since(served: Timestamp, window: Duration) -> Option<Self> {
        let until = clock::window_end(served, window);
        (until > clock::now()).then_some(Self { served, until })
    }
}

impl KeyLog {
    /// The requests of this route that legacy served although their keys could not be noted; `None` if no retry of one
    /// may come.
    pub(super) fn unnoted(&self, route: &RouteId) -> Option<RequestsWithUnknownKeys> {
        let ring = self.ring();
        let route = SlotRoute::of(route);
        let recorded = ring.unnoted.last_served(&route).max(ring.unnoted.last_served(&SlotRoute::Any));
        let unknown = recorded.and_then(|served| RequestsWithUnknownKeys::since(served, self.window()));
        let Some(pending) = ring.pending.last_served(&route) else { return unknown };
        let until =
            unknown.map_or_else(|| clock::window_end(clock::now(), PENDING_RECHECK_AFTER), |unknown| unknown.until);
        Some(RequestsWithUnknownKeys { served: recorded.map_or(pending, |served| served.max(pending)), until })
    }

    /// If keys that legacy took are lost and their routes are not known: why they are lost, and which requests had
    /// them.
    pub(super) fn lost_keys_of_unknown_routes(&self) -> Option<(String, RequestsWithUnknownKeys)> {
        let ring = self.ring();
        let unknown = RequestsWithUnknownKeys::since(ring.unnoted.last_served(&SlotRoute::Any)?, self.window());
        let lacks = "the file of retry keys lacks keys of requests that legacy served: it was damaged, or they could not be \
                     noted";
        let why = || ring.damage.clone().unwrap_or_else(|| lacks.to_owned());
        unknown.map(|unknown| (why(), unknown))
    }
}
