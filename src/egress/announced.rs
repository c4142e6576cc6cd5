//! Requests that were announced and that the index does not have yet.
//!
//! Always true: they are bounded, by one bound for compared requests and another for the others; a thread that serves a
//! client holds a lock only to insert a request, and now and then to remove requests that are over.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, PoisonError};

use super::earlier_requests::REQUESTS_MAX;
use super::watched::WatchedRequest;
use crate::names::RouteId;

/// The number of shards. A thread that serves a client adds its request to one of them, so that such threads seldom
/// wait for each other.
const SHARDS: usize = 16;
/// The least time between two searches of a full list for requests whose windows are over.
const SWEEP_PAUSE_US: u64 = 250_000;

/// How many requests there are, or may be at most, by whether they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestCounts {
    pub compared: usize,
    pub uncompared: usize,
}

impl RequestCounts {
    pub(super) fn of(requests: &[Arc<WatchedRequest>]) -> Self {
        let compared = requests.iter().filter(|one| one.is_compared()).count();
        Self { compared, uncompared: requests.len() - compared }
    }
}

/// Requests that were announced and that the index does not have yet.
pub(super) struct AnnouncedRequests {
    lists: [Mutex<List>; SHARDS],
    /// Whether something was added since the last call of `take`.
    has_new: AtomicBool,
    bounds: RequestCounts,
    /// Compared requests that are here or in the index.
    compared: AtomicUsize,
    /// When the last compared request was added, in microseconds; 0 before the first.
    last_compared_us: AtomicU64,
    /// Requests that were refused, because there was no room, since `take_refused` was last called.
    refused_compared: AtomicUsize,
    refused_uncompared: AtomicUsize,
}

#[derive(Default)]
struct List {
    compared: VecDeque<Arc<WatchedRequest>>,
    uncompared: VecDeque<Arc<WatchedRequest>>,
    swept_at: u64,
    /// By route, how many compared requests were removed because their windows were over.
    over_by_route: HashMap<RouteId, u64>,
    /// The requests that were removed last because their windows were over.
    last_over: VecDeque<Arc<WatchedRequest>>,
    /// The requests that were refused last, because there was no room.
    last_refused: VecDeque<Arc<WatchedRequest>>,
}

/// Adds a request to a bounded list, from which the oldest one is removed if it is full.
fn add_bounded(last: &mut VecDeque<Arc<WatchedRequest>>, one: Arc<WatchedRequest>) {
    if last.len() >= REQUESTS_MAX / SHARDS {
        last.pop_front();
    }
    last.push_back(one);
}

/// What [`AnnouncedRequests::take`] takes out, for the index.
#[derive(Default)]
pub(super) struct NewRequests {
    pub requests: Vec<Arc<WatchedRequest>>,
    /// By route, how many compared requests were over before the index took them: no call came for them.
    pub over_by_route: Vec<(RouteId, u64)>,
    /// The last of all requests that were over before the index took them.
    pub last_over: Vec<Arc<WatchedRequest>>,
    /// The requests that were refused last, because there was no room.
    pub last_refused: Vec<Arc<WatchedRequest>>,
}

impl AnnouncedRequests {
    pub(super) fn new(bounds: RequestCounts) -> Self {
        Self {
            lists: Default::default(),
            has_new: AtomicBool::new(false),
            bounds,
            compared: AtomicUsize::new(0),
            last_compared_us: AtomicU64::new(0),
            refused_compared: AtomicUsize::new(0),
            refused_uncompared: AtomicUsize::new(0),
        }
    }

    /// Adds a request; `false` if there is no room, which is counted.
    pub(super) fn add(&self, watched: Arc<WatchedRequest>, now_us: u64) -> bool {
        let is_compared = watched.is_compared();
        let is_added = self.try_add(watched, now_us);
        self.has_new.store(true, SeqCst);
        if is_compared {
            self.last_compared_us.fetch_max(now_us.max(1), Relaxed);
        }
        match (is_added, is_compared) {
            (true, true) => self.compared.fetch_add(1, Relaxed),
            (true, false) => return true,
            (false, true) => self.refused_compared.fetch_add(1, Relaxed),
            (false, false) => self.refused_uncompared.fetch_add(1, Relaxed),
        };
        is_added
    }

    fn try_add(&self, watched: Arc<WatchedRequest>, now_us: u64) -> bool {
        let Some(list) = usize::try_from(watched.number).ok().and_then(|number| self.lists.get(number % SHARDS)) else {
            return false;
        };
        let List { compared, uncompared, swept_at, over_by_route, last_over, last_refused } =
            &mut *list.lock().unwrap_or_else(PoisonError::into_inner);
        let (requests, max) = match watched.is_compared() {
            true => (compared, self.bounds.compared),
            false => (uncompared, self.bounds.uncompared),
        };
        let mut remove = |one: &Arc<WatchedRequest>| {
            if let Some(route) = &one.route {
                *over_by_route.entry(route.clone()).or_default() += 1;
                self.subtract_compared(1);
            }
            add_bounded(last_over, one.clone());
        };
        // Needed while no request is settled and legacy makes no call: then nothing calls `take`.
        for _ in 0..2 {
            if let Some(oldest) = requests.pop_front_if(|oldest| !oldest.accepts_calls(now_us)) {
                remove(&oldest);
            }
        }
        let max = max.div_ceil(SHARDS);
        if requests.len() >= max && now_us.saturating_sub(*swept_at) >= SWEEP_PAUSE_US {
            *swept_at = now_us;
            requests.retain(|one| {
                let accepts_calls = one.accepts_calls(now_us);
                if !accepts_calls {
                    remove(one);
                }
                accepts_calls
            });
        }
        let has_room = requests.len() < max;
        match has_room {
            true => requests.push_back(watched),
            false => add_bounded(last_refused, watched),
        }
        has_room
    }

    /// Takes out all that came since the last call.
    pub(super) fn take(&self) -> NewRequests {
        let mut all = NewRequests::default();
        // Most calls find nothing new, and take none of the locks.
        if !self.has_new.swap(false, SeqCst) {
            return all;
        }
        for list in &self.lists {
            let list = &mut *list.lock().unwrap_or_else(PoisonError::into_inner);
            all.requests.extend(std::mem::take(&mut list.compared));
            all.requests.extend(std::mem::take(&mut list.uncompared));
            all.over_by_route.extend(list.over_by_route.drain());
            all.last_over.extend(list.last_over.drain(..));
            all.last_refused.extend(list.last_refused.drain(..));
        }
        all
    }

    /// How many requests were refused since the last call, because there was no room.
    pub(super) fn take_refused(&self) -> RequestCounts {
        RequestCounts {
            compared: self.refused_compared.swap(0, Relaxed),
            uncompared: self.refused_uncompared.swap(0, Relaxed),
        }
    }

    /// Whether a compared request is here or in the index, or was added less than `within_us` ago.
    pub(super) fn had_compared(&self, now_us: u64, within_us: u64) -> bool {
        let last_us = self.last_compared_us.load(Relaxed);
        self.compared.load(Relaxed) > 0 || last_us > 0 && now_us.saturating_sub(last_us) < within_us
    }

    /// Subtracts compared requests that were removed, here or from the index, from their number.
    pub(super) fn subtract_compared(&self, removed: usize) {
        self.compared.fetch_sub(removed, Relaxed);
    }
}
