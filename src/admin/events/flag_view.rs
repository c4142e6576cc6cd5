//! What the stream tells of a flag set. A copy: to keep the set itself would keep it in use.

use std::collections::BTreeMap;

use crate::flag::{Effective, FlagSet, Freeze, RouteFlag, Shares, State};
use crate::names::RouteId;

/// The flag of a route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RouteView {
    pub requested: State,
    pub effective: Effective,
    shares: Shares,
    cap: State,
}

/// A flag set.
#[derive(Clone, Debug)]
pub(super) struct FlagView {
    pub set_number: u64,
    pub files_version: u64,
    pub freeze: Freeze,
    pub routes: BTreeMap<RouteId, RouteView>,
}

impl FlagView {
    pub fn of(set: &FlagSet) -> Self {
        let route = |flag: &RouteFlag| RouteView {
            requested: flag.requested,
            effective: flag.effective,
            shares: flag.shares,
            cap: flag.cap,
        };
        let routes = set.routes.iter().map(|flag| (flag.route.id.clone(), route(flag))).collect();
        Self { set_number: set.set_number, files_version: set.files_version, freeze: set.freeze, routes }
    }

    /// The routes that are otherwise in `later`, or only in one of both.
    pub fn changed_routes<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = RouteId> + 'a {
        let all = self.routes.keys().chain(later.routes.keys());
        all.filter(|id| self.routes.get(*id) != later.routes.get(*id)).cloned()
    }
}
