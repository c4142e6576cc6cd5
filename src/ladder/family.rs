//! Which family a route belongs to.

use std::sync::Arc;

use crate::flag::{Family, Instance, Route};
use crate::names::RouteId;

/// The creator of the instances that a route creates or follows up; `None` if it does neither.
pub(super) fn creator(route: &Route) -> Option<&RouteId> {
    match &route.instance {
        Some(Instance::Creates { .. }) => Some(&route.id),
        Some(Instance::Follows { creator, .. }) => Some(creator),
        None => None,
    }
}

/// The family of a route; `None` if it has none, or if its creator is not among `routes`.
pub(super) fn family(route: &Route, routes: &[Arc<Route>]) -> Option<Family> {
    let creator = creator(route)?;
    routes.iter().find(|other| other.id == *creator).map(|creator| Family::of(creator))
}
