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

use super::late_calls::REQUESTS_MAX;
use super::watched::WatchedRequest;
use crate::names::RouteId;

/// How many shards there are. The threads that serve clients add each request to one of them, and so seldom wait for
/// each other.
const SHARDS: usize = 16;
/// How often a full list is searched for requests that are not current any more, at most.
const SWEEP_PAUSE_US: u64 = 250_000;

/// Numbers of requests, or bounds of these numbers, by whether the requests are compared.
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
pub(super) struct Announced {
    lists: [Mutex<List>; SHARDS],
    /// Whether something was added since the last call of `take`.
    is_any: AtomicBool,
    bounds: RequestCounts,
    /// Compared requests that are here or in the index.
    compared: AtomicUsize,
    /// When the last compared request was added, in microseconds; 0 before the first.
    last_compared_us: AtomicU64,
    /// Requests that found no room since this was last asked.
    refused_compared: AtomicUsize,
    refused_uncompared: AtomicUsize,
}

#[derive(Default)]
struct List {
    compared: VecDeque<Arc<WatchedRequest>>,
    uncompared: VecDeque<Arc<WatchedRequest>>,
    swept_at: u64,
    /// Compared requests that were removed because they were over, by route.
    over: HashMap<RouteId, u64>,
    /// The last requests that were removed because they were over.
    earlier: VecDeque<Arc<WatchedRequest>>,
    /// The last requests that found no room.
    refused: VecDeque<Arc<WatchedRequest>>,
}

/// Adds a request to a list of the last ones.
fn add_last(last: &mut VecDeque<Arc<WatchedRequest>>, one: Arc<WatchedRequest>) {
    if last.len() >= REQUESTS_MAX / SHARDS {
        last.pop_front();
    }
    last.push_back(one);
}

/// What the index gets.
#[derive(Default)]
pub(super) struct NewRequests {
    pub requests: Vec<Arc<WatchedRequest>>,
    /// For each route, how many compared requests were over before the index took them: no call came for them.
    pub over: Vec<(RouteId, u64)>,
    /// The last requests that were over before the index took them.
    pub earlier: Vec<Arc<WatchedRequest>>,
    /// The last requests that found no room.
    pub refused: Vec<Arc<WatchedRequest>>,
}

impl Announced {
    pub(super) fn new(bounds: RequestCounts) -> Self {
        Self {
            lists: Default::default(),
            is_any: AtomicBool::new(false),
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
        self.is_any.store(true, SeqCst);
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
        let List { compared, uncompared, swept_at, over, earlier, refused } =
            &mut *list.lock().unwrap_or_else(PoisonError::into_inner);
        let (requests, max) = match watched.is_compared() {
            true => (compared, self.bounds.compared),
            false => (uncompared, self.bounds.uncompared),
        };
        let mut remove = |one: &Arc<WatchedRequest>| {
            if let Some(route) = &one.route {
                *over.entry(route.clone()).or_default() += 1;
                self.forget_compared(1);
            }
            add_last(earlier, one.clone());
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
            false => add_last(refused, watched),
        }
        has_room
    }

    /// Takes all of them out.
    pub(super) fn take(&self) -> NewRequests {
        let mut all = NewRequests::default();
        // Most calls find nothing new, and take none of the locks.
        if !self.is_any.swap(false, SeqCst) {
            return all;
        }
        for list in &self.lists {
            let list = &mut *list.lock().unwrap_or_else(PoisonError::into_inner);
            all.requests.extend(std::mem::take(&mut list.compared));
            all.requests.extend(std::mem::take(&mut list.uncompared));
            all.over.extend(list.over.drain());
            all.earlier.extend(list.earlier.drain(..));
            all.refused.extend(list.refused.drain(..));
        }
        all
    }

    /// How many found no room since this was last asked.
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

    /// Counts compared requests that were removed.
    pub(super) fn forget_compared(&self, removed: usize) {
        self.compared.fetch_sub(removed, Relaxed);
    }
}
