//! On which routes retry keys are claimed (`claim`), and whether all keys are known that the engines of other processes
//! took.
//!
//! Always true: the engine of another process takes a key only while the keys of its route are claimed here, or while
//! this process has no lease. So the keys that others took become unknown when a route is no longer claimed, and when
//! this process gets a lease again. Each time they are read from the store once (`sets`); from then on all are known
//! except those of routes that are claimed.
//!
//! *Unread* routes are those on which the engine of another process may have taken keys that were not read since: they
//! were claimed a moment ago. Their requests need the store's answer, even where legacy otherwise answers without it.
//!
//! An engine takes no key while its own process has no lease. This did not hold in versions before leases had terms:
//! while such a process runs, or may return, the keys of others never count as known, and no route as read.
//!
//! The others wait for no process that never had a lease, and their gates do not know of it. So it claims the keys of
//! all routes.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::exchange::{KeysOfOtherEnginesVersion, KnownKeysOfOtherEngines};
use crate::names::RouteId;

/// The routes whose keys are claimed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimingRoutes {
    /// Routes on which the engine may answer.
    pub always: HashSet<RouteId>,
    /// Routes that other processes may raise without waiting for this one, once its lease is over.
    pub without_lease: HashSet<RouteId>,
}

/// Which keys are claimed now, and whether those that other engines took are known.
#[derive(Default)]
pub(super) struct Claims {
    state: RwLock<ClaimState>,
    /// Notified when keys that other engines took may have become unknown.
    outdated: Notify,
}

#[derive(Default)]
pub(super) struct ClaimState {
    routes: ClaimingRoutes,
    /// Until when other processes certainly wait for this one; `None` in a store of one process.
    lease_ends: Option<Moment>,
    /// The term of this process's lease.
    term: Option<i64>,
    had_lease: bool,
    /// Whether an engine of another process may take keys without its lease.
    other_engines_need_no_lease: bool,
    /// Grows whenever keys that other engines took may have become unknown.
    version: u64,
    /// The version for which all keys that other engines took are in the set in memory.
    known: Option<u64>,
    /// Whether the keys of others were read since this process had its first lease. Before that, all routes are unread.
    was_ever_read: bool,
    /// Routes that were claimed, are claimed no longer, and of which keys that other engines took may be missing.
    unread: HashSet<RouteId>,
    /// Routes of `without_lease` that were lowered while the lease was over. Legacy answers them until the lease begins
    /// again; then they are unread.
    lowered_without_lease: HashSet<RouteId>,
}

impl ClaimState {
    /// Whether the keys of this route are claimed now.
    pub(super) fn claims(&self, route: &RouteId) -> bool {
        let is_without_lease = || self.lease_ends.is_some() && !self.has_lease();
        let never_had_lease = || self.lease_ends.is_some() && !self.had_lease;
        self.routes.always.contains(route)
            || (self.routes.without_lease.contains(route) && is_without_lease())
            || never_had_lease()
    }

    /// As [`Affinity::keys_of_other_engines`](crate::exchange::Affinity::keys_of_other_engines) says.
    /// `ids`: all ids of the route.
    pub(super) fn keys_of_other_engines<'a>(
        &self,
        route: &RouteId,
        mut ids: impl Iterator<Item = &'a RouteId>,
    ) -> KnownKeysOfOtherEngines {
        KnownKeysOfOtherEngines {
            version: KeysOfOtherEnginesVersion(self.version),
            are_all_known: self.knows_keys_of_other_engines() && !self.routes.always.contains(route),
            is_unread: !self.was_ever_read || ids.any(|id| self.unread.contains(id)),
            is_any_unread: !self.was_ever_read || !self.unread.is_empty(),
        }
    }

    /// Whether all keys that other engines took are known, except those of routes that are claimed.
    pub(super) fn knows_keys_of_other_engines(&self) -> bool {
        self.known == Some(self.version) && !self.other_engines_need_no_lease && self.has_lease()
    }

    fn has_lease(&self) -> bool {
        self.lease_ends.is_some_and(|ends| ends > Moment::now())
    }

    /// Whether other engines may have taken keys since a look-up at this version.
    pub(super) fn is_outdated(&self, known: KeysOfOtherEnginesVersion) -> bool {
        known.0 != self.version
    }
}

impl Claims {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ClaimState> {
        // A poisoned lock is usable: each field is set in one step.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut ClaimState)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.outdated.notify_one();
    }

    /// Sets the routes whose keys are claimed. If a route is no longer claimed, the keys that other engines took on it
    /// are unknown until they are read.
    pub(super) fn set_routes(&self, routes: ClaimingRoutes) {
        self.change(|state| {
            let released: Vec<_> = state.routes.always.difference(&routes.always).cloned().collect();
            state.version += u64::from(!released.is_empty());
            state.unread.extend(released);
            if !state.has_lease() {
                let lowered = state.routes.without_lease.difference(&routes.without_lease).cloned();
                state.lowered_without_lease.extend(lowered);
            }
            state.routes = routes;
        });
    }

    /// Sets when the lease of this process ends unless it is renewed. If the lease had ended before this call, by the
    /// store's clock (then `term` is a new one) or by this process's, other engines may have taken keys of any route.
    pub(super) fn set_lease_end(&self, ends: Moment, term: Option<i64>) {
        self.change(|state| {
            if !state.has_lease() || state.term != term {
                state.version += 1;
                let raised_by_others = state.lowered_without_lease.drain().chain(state.routes.without_lease.clone());
                state.unread.extend(raised_by_others);
            }
            (state.lease_ends, state.term) = (Some(ends), term);
            state.had_lease |= state.has_lease();
        });
    }

    /// Sets whether the engine of each other process takes keys only while that process has its lease (`lease_term` of
    /// the store).
    pub(super) fn set_other_engines_need_lease(&self, need_lease: bool) {
        if self.read().other_engines_need_no_lease == need_lease {
            self.change(|state| {
                state.version += 1;
                state.other_engines_need_no_lease = !need_lease;
            });
        }
    }

    /// Waits until keys that other engines took may be unknown. Returns the version for which they are to be read now.
    pub(super) async fn outdated(&self) -> u64 {
        loop {
            let changed = self.outdated.notified();
            {
                let state = self.read();
                if state.known != Some(state.version) {
                    return state.version;
                }
            }
            changed.await;
        }
    }

    /// Records that all keys that other engines had taken when this version began are in the set in memory.
    pub(super) fn set_known(&self, version: u64) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.known = Some(version);
        // Without a lease, others may take keys of any route now.
        if state.knows_keys_of_other_engines() {
            state.was_ever_read = true;
            state.unread.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(names: &[&str]) -> HashSet<RouteId> {
        names.iter().map(|name| RouteId::from(*name)).collect()
    }

    fn of_others(claims: &Claims, name: &str) -> KnownKeysOfOtherEngines {
        let id = RouteId::from(name);
        claims.read().keys_of_other_engines(&id, [&id].into_iter())
    }

    fn in_a_minute() -> Moment {
        Moment::now().later(Duration::from_secs(60))
    }

    #[test]
    fn routes_that_others_may_raise_are_claimed_once_the_lease_is_over() {
        let claims = Claims::default();
        let claimed = || ["live", "dark", "off"].map(|name| claims.read().claims(&name.into()));
        claims.set_routes(ClaimingRoutes { always: of(&["live"]), without_lease: of(&["dark"]) });
        assert_eq!(claimed(), [true, false, false], "a store of one process");
        claims.set_lease_end(Moment::now(), None);
        assert_eq!(claimed(), [true; 3], "others do not wait for a process that never had a lease");
        claims.set_lease_end(in_a_minute(), Some(1));
        assert_eq!(claimed(), [true, false, false]);
        claims.set_lease_end(Moment::now(), Some(1));
        assert_eq!(claimed(), [true, true, false]);
    }

    /// Between two states in which they are known, they are read anew.
    #[tokio::test]
    async fn keys_of_other_engines_are_unknown_from_before_they_take_any_until_all_are_read() {
        let claims = Claims::default();
        let known = || ["live", "off"].map(|name| of_others(&claims, name).are_all_known);
        let read = async || claims.set_known(claims.outdated().await);
        read().await;
        assert_eq!(known(), [false, false], "without a lease");
        claims.set_lease_end(in_a_minute(), Some(1));
        assert_eq!(known(), [false, false]);
        read().await;
        assert_eq!(known(), [true, true]);
        let at_first = of_others(&claims, "live").version;
        claims.set_routes(ClaimingRoutes { always: of(&["live"]), ..ClaimingRoutes::default() });
        assert_eq!(known(), [false, true]);
        assert!(!claims.read().is_outdated(at_first), "whoever takes a key now claims it");
        claims.set_routes(ClaimingRoutes::default());
        assert_eq!(known(), [false, false]);
        assert!(claims.read().is_outdated(at_first));
        // A route that is claimed while the keys are read and goes down after that: they are read once more.
        let version = claims.outdated().await;
        claims.set_routes(ClaimingRoutes { always: of(&["off"]), ..ClaimingRoutes::default() });
        claims.set_routes(ClaimingRoutes::default());
        claims.set_known(version);
        assert_eq!(known(), [false, false]);
        read().await;
        assert_eq!(known(), [true, true]);
        claims.set_lease_end(Moment::now(), Some(1));
        assert_eq!(known(), [false, false]);
        claims.set_lease_end(in_a_minute(), Some(1));
        assert_eq!(known(), [false, false], "meanwhile the others did not wait for this process");
        read().await;
        assert_eq!(known(), [true, true]);
        claims.set_lease_end(in_a_minute(), Some(2));
        assert_eq!(known(), [false, false], "it was over by the clock of the store");
        read().await;
        assert_eq!(known(), [true, true]);
        claims.set_other_engines_need_lease(false);
        read().await;
        assert_eq!(known(), [false, false], "an engine may take keys at any time");
        claims.set_other_engines_need_lease(true);
        assert_eq!(known(), [false, false]);
        read().await;
        assert_eq!(known(), [true, true]);
    }

    #[tokio::test]
    async fn a_route_is_unread_from_when_it_is_not_claimed_any_more_until_the_keys_of_others_are_read() {
        let claims = Claims::default();
        let unread = || ["live", "dark", "off"].map(|name| of_others(&claims, name).is_unread);
        let read = async || claims.set_known(claims.outdated().await);
        let routes = |live: &[&str], dark: &[&str]| {
            claims.set_routes(ClaimingRoutes { always: of(live), without_lease: of(dark) });
        };
        read().await;
        assert_eq!(unread(), [true; 3], "without a lease");
        claims.set_lease_end(in_a_minute(), Some(1));
        assert_eq!(unread(), [true; 3], "at the start");
        read().await;
        routes(&["live"], &["dark"]);
        assert_eq!(unread(), [false; 3]);
        let version = claims.read().version;
        routes(&[], &["dark"]);
        assert_eq!(unread(), [true, false, false]);
        claims.set_known(version);
        assert_eq!(unread(), [true, false, false], "they were read before the route went down");
        read().await;
        assert_eq!(unread(), [false; 3]);
        // Meanwhile other processes may have raised `dark` and lowered it again.
        claims.set_lease_end(in_a_minute(), Some(3));
        assert_eq!(unread(), [false, true, false]);
        claims.set_other_engines_need_lease(false);
        read().await;
        assert_eq!(unread(), [false, true, false], "one may still take a key");
        claims.set_other_engines_need_lease(true);
        read().await;
        assert_eq!(unread(), [false; 3]);
        claims.set_lease_end(Moment::now(), Some(3));
        routes(&[], &[]);
        assert_eq!(unread(), [false; 3], "legacy answers it, whatever the others do");
        claims.set_lease_end(in_a_minute(), Some(4));
        assert_eq!(unread(), [false, true, false]);
        read().await;
        assert_eq!(unread(), [false; 3]);
    }
}
