//! A bound that routes share, so that one route whose runs hang leaves room for the others.
//!
//! Always true: all routes together hold no more than the bound; a route holds at most [`HELD_PER_FREE_MAX`] times the
//! amount that is free at that moment. So a route alone holds at most three quarters of the bound, and several busy
//! ones hold equal shares and leave a rest for whoever comes. Where two take at the same time, one of them may get
//! slightly less than that, never more than the bound.
//!
//! Nobody waits for a lock: the counters of the routes are found in a table that is replaced only when a new route
//! comes. A route keeps its counter: there are as many as the files have ever named since the start.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::names::RouteId;

/// A route may hold this many times the amount that is free.
const HELD_PER_FREE_MAX: u64 = 3;

/// A bound that routes share.
pub(super) struct SharedBound {
    max: u64,
    used: AtomicU64,
    routes: ArcSwap<HashMap<RouteId, Arc<AtomicU64>>>,
    /// Notified when something is given back.
    freed: Notify,
}

/// What a route holds of a bound; given back when it is dropped.
pub(super) struct RouteReservation {
    bound: Arc<SharedBound>,
    of_route: Arc<AtomicU64>,
    amount: u64,
}

impl SharedBound {
    pub(super) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, used: AtomicU64::new(0), routes: ArcSwap::default(), freed: Notify::new() })
    }

    /// Takes this much for a route; `None` if less is free, or the route would hold more than its share.
    pub(super) fn take(self: &Arc<Self>, route: &RouteId, amount: u64) -> Option<RouteReservation> {
        if amount > self.max {
            return None;
        }
        let of_route = self.counter_of(route);
        // Added first, so that of two callers that take at the same time each sees what the other takes.
        let held = of_route.fetch_add(amount, Ordering::AcqRel).saturating_add(amount);
        let more =
            |used: u64| used.checked_add(amount).filter(|all| *all <= self.max && is_within(held, self.max - used));
        if self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            of_route.fetch_sub(amount, Ordering::AcqRel);
            return None;
        }
        Some(RouteReservation { bound: Arc::clone(self), of_route, amount })
    }

    /// Whether a route could take some now.
    pub(super) fn has_room(&self, route: &RouteId) -> bool {
        let free = self.max.saturating_sub(self.used());
        let held = self.routes.load().get(route).map_or(0, |held| held.load(Ordering::Acquire));
        free > 0 && is_within(held.saturating_add(1), free)
    }

    /// How much all routes hold.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Waits until something was given back since the last call returned. One task at a time waits.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The counter of a route.
    fn counter_of(&self, route: &RouteId) -> Arc<AtomicU64> {
        if let Some(held) = self.routes.load().get(route) {
            return Arc::clone(held);
        }
        let new = Arc::new(AtomicU64::new(0));
        let mut found = Arc::clone(&new);
        self.routes.rcu(|routes| {
            if let Some(held) = routes.get(route) {
                found = Arc::clone(held);
                return Arc::clone(routes);
            }
            found = Arc::clone(&new);
            let mut routes = HashMap::clone(routes);
            routes.insert(route.clone(), Arc::clone(&new));
            Arc::new(routes)
        });
        found
    }
}

/// Whether a route may hold this much if so much was free before.
fn is_within(held: u64, free: u64) -> bool {
    held <= free.saturating_mul(HELD_PER_FREE_MAX)
}

impl Drop for RouteReservation {
    fn drop(&mut self) {
        self.of_route.fetch_sub(self.amount, Ordering::AcqRel);
        self.bound.used.fetch_sub(self.amount, Ordering::AcqRel);
        self.bound.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one after the other for a route, until it gets no more.
    fn greedy(bound: &Arc<SharedBound>, route: &str) -> Vec<RouteReservation> {
        std::iter::from_fn(|| bound.take(&route.into(), 1)).collect()
    }

    #[test]
    fn a_route_alone_holds_three_quarters_and_others_find_room() {
        let bound = SharedBound::new(64);
        let a = greedy(&bound, "a");
        assert_eq!((a.len(), bound.used()), (48, 48));
        assert!(!bound.has_room(&"a".into()) && bound.has_room(&"b".into()));
        let b = greedy(&bound, "b");
        assert_eq!(b.len(), 12);
        let c = greedy(&bound, "c");
        assert!(!c.is_empty());
        // What `a` gives back, the others may take.
        drop(a);
        assert!(greedy(&bound, "b").len() >= 24);
        drop((b, c));
        assert_eq!((bound.used(), greedy(&bound, "a").len()), (0, 48));
    }

    #[test]
    fn routes_that_take_in_turn_get_equal_shares_and_leave_a_rest() {
        let bound = SharedBound::new(64);
        let (mut held, mut shares) = ([0; 3], Vec::new());
        for _ in 0..64 {
            for (at, route) in ["a", "b", "c"].into_iter().enumerate() {
                let share = bound.take(&route.into(), 1);
                held[at] += usize::from(share.is_some());
                shares.extend(share);
            }
        }
        assert!(held.iter().all(|held| (19..=20).contains(held)), "{held:?}");
        assert!(bound.take(&"d".into(), 1).is_some());
    }

    #[test]
    fn a_small_bound_can_be_used_and_is_never_exceeded() {
        for (max, alone) in [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (0, 0)] {
            let bound = SharedBound::new(max);
            assert_eq!(greedy(&bound, "a").len(), alone, "{max}");
        }
        let bound = SharedBound::new(100);
        assert!(bound.take(&"a".into(), 101).is_none());
        assert!(bound.take(&"a".into(), u64::MAX).is_none());
        let large = bound.take(&"a".into(), 100);
        assert!(large.is_some() && bound.take(&"b".into(), 1).is_none());
    }

    #[test]
    fn threads_that_take_and_give_back_leave_nothing_behind() {
        let bound = SharedBound::new(16);
        std::thread::scope(|scope| {
            for at in 0..4 {
                let bound = &bound;
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let share = bound.take(&format!("r{}", (at + n) % 5).as_str().into(), 1 + n % 3);
                        assert!(bound.used() <= 16);
                        drop(share);
                    }
                });
            }
        });
        assert_eq!(bound.used(), 0);
        assert!((0..5).all(|at| bound.has_room(&format!("r{at}").as_str().into())));
    }
}
