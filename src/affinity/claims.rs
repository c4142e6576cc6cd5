//! On which routes retry keys are claimed (`claim`).

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::clock::Moment;
use crate::names::RouteId;

/// The routes whose keys are claimed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimingRoutes {
    /// The engine may answer there.
    pub always: HashSet<RouteId>,
    /// Other processes may raise them without waiting for this one, once its lease is over.
    pub without_lease: HashSet<RouteId>,
}

/// Which keys are claimed now.
#[derive(Default)]
pub(super) struct Claims(RwLock<State>);

#[derive(Default)]
pub(super) struct State {
    pub(super) routes: ClaimingRoutes,
    /// Until when other processes certainly wait for this one; `None` in a store of one process.
    pub(super) lease_ends: Option<Moment>,
}

impl State {
    pub(super) fn claims(&self, route: &RouteId) -> bool {
        let is_without_lease = || self.lease_ends.is_some_and(|ends| ends <= Moment::now());
        self.routes.always.contains(route) || (self.routes.without_lease.contains(route) && is_without_lease())
    }
}

impl Claims {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        // A poisoned lock is usable: each field is set in one step.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn routes_that_others_may_raise_are_claimed_once_the_lease_is_over() {
        let claims = Claims::default();
        let of = |names: &[&str]| names.iter().map(|name| RouteId::from(*name)).collect();
        let claimed = || ["live", "dark", "off"].map(|name| claims.read().claims(&name.into()));
        claims.change(|state| {
            state.routes = ClaimingRoutes { always: of(&["live"]), without_lease: of(&["dark"]) };
        });
        assert_eq!(claimed(), [true, false, false], "a store of one process");
        claims.change(|state| state.lease_ends = Some(Moment::now().later(Duration::from_secs(60))));
        assert_eq!(claimed(), [true, false, false]);
        claims.change(|state| state.lease_ends = Some(Moment::now()));
        assert_eq!(claimed(), [true, true, false]);
    }
}
