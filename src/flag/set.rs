//! The set of flags that one request keeps from its first byte to its last.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Serialize};

use super::{Percent, Route, Service, Shares, State};
use crate::names::{RouteId, ServiceName};

/// Every route with its flag, in force together. Immutable; swapped whole.
pub struct FlagSet {
    /// Counts up with each swap.
    pub generation: u64,
    /// In file order.
    pub routes: Vec<Arc<RouteFlag>>,
    /// What no route matches goes there untouched.
    pub default_legacy: Arc<Service>,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// The kill switch.
    pub freeze: Freeze,
    // the matcher and the hash key are private to the implementation
}

/// A route and its flag.
pub struct RouteFlag {
    /// The route as checked.
    pub route: Arc<Route>,
    /// What was asked for.
    pub requested: State,
    /// What is in force, and why.
    pub effective: Effective,
    /// The shares in force.
    pub shares: Shares,
}

/// The lowest of requested, guard, health and kill switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The state in force.
    pub state: State,
    /// What made it so.
    pub why: Why,
}

/// Why the effective state is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// As requested.
    Requested,
    /// As the file declares it; no flip has been recorded, so nothing proves it.
    Unproven,
    /// The file asks for more than the evidence allows.
    Gate,
    /// The guard lowered it.
    Guard,
    /// The engine is not healthy.
    Health,
    /// The kill switch is on.
    Freeze,
}

/// The kill switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freeze {
    /// Off.
    #[default]
    No,
    /// No new engine instances.
    Instances,
    /// That, and every private and shared step that has not begun is held.
    Effects,
}

/// Where a route stands, apart from what its file says: made from flips, guard and health.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The last flip's state, or the file's.
    pub requested: State,
    /// The shares in force.
    pub shares: Shares,
    /// Whether any flip stands behind it.
    pub unproven: bool,
    /// The highest state that the gate let through, where the file asks for more.
    pub gate: Option<State>,
    /// The highest state that the guard allows.
    pub guard: Option<State>,
    /// Whether the engine can take instances.
    pub healthy: bool,
}

/// The route that a request belongs to.
pub struct Found<'a> {
    /// Route and flag.
    pub flag: &'a Arc<RouteFlag>,
    /// The template's parameters.
    pub params: Vec<(Arc<str>, String)>,
}

impl FlagSet {
    /// Builds a set. `secret` keys the hashes of shares and cohorts, so that nobody outside can choose a side.
    pub fn new(
        _generation: u64,
        _routes: Vec<Arc<Route>>,
        _standings: &BTreeMap<RouteId, Standing>,
        _default_legacy: Arc<Service>,
        _services: BTreeMap<ServiceName, Arc<Service>>,
        _freeze: Freeze,
        _secret: [u8; 32],
    ) -> Self {
        todo!()
    }

    /// The route of a request, by host, method and normalised path. A static segment beats a parameter; a GET route
    /// takes HEAD. No allocation where the route has no parameters.
    pub fn find<'a>(&'a self, _method: &Method, _host: Option<&str>, _path: &str) -> Option<Found<'a>> {
        todo!()
    }

    /// A route by id.
    pub fn route(&self, _id: &RouteId) -> Option<&Arc<RouteFlag>> {
        todo!()
    }
}

impl Standing {
    /// The lowest of all that bears on the state; `only` is never lowered.
    pub fn effective(&self, _freeze: Freeze) -> Effective {
        todo!()
    }
    /// The shares with one changed, where a flip names a percent for the rung it goes to.
    pub fn with_percent(mut self, percent: Option<Percent>) -> Self {
        if let Some(percent) = percent {
            self.shares = self.shares.with(self.requested, percent);
        }
        self
    }
}
