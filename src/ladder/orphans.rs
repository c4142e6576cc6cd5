//! Instances of the engine that no route of a new set of files would follow up. The engine's instances stay with the
//! engine, so the routes that lead to them have to stay too; their ids may change.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::{creator, family};
use crate::flag::{Arm, FlagSet, Instance, Route};
use crate::names::RouteId;
use crate::store::PinCount;

/// A sentence for each route that creates or follows up instances of the engine and would not do so any more: it is
/// removed, loses its workflow, or moves to another family. Without a set in force only creators are known.
pub(super) fn sentences(pins: &[PinCount], now: Option<&FlagSet>, next: &[Arc<Route>]) -> Vec<String> {
    let owned: BTreeMap<&RouteId, u64> = pins
        .iter()
        .filter(|(_, arm, count)| *arm == Arm::Engine && *count > 0)
        .map(|(family, _, count)| (family, *count))
        .collect();
    // Pins are stored under the first id of their creator, or under the id that it had when they were made.
    let mut leading: Vec<(&RouteId, &RouteId)> = owned.keys().map(|creator| (*creator, *creator)).collect();
    let set = now.into_iter().flat_map(|set| &set.routes).filter(|flag| flag.route.workflow.is_some());
    for flag in set.filter(|flag| flag.route.id != *flag.family.id()) {
        leading.extend(flag.family.ids().filter(|id| owned.contains_key(id)).map(|id| (&flag.route.id, id)));
    }
    let creates = |route: &Route, to: &RouteId| {
        matches!(route.instance, Some(Instance::Creates { .. })) && route.ids().any(|own| own == to)
    };
    // Where no route creates these any more, only the creator is reported.
    let leads = |route: &Route, to: &RouteId| match family(route, next) {
        Some(family) if next.iter().any(|route| creates(route, to)) => family.ids().any(|id| id == to),
        Some(_) | None => creator(route).is_some(),
    };
    let still_leads = |id: &RouteId, to: &RouteId| {
        let is_it = |route: &&Arc<Route>| route.workflow.is_some() && route.ids().any(|own| own == id);
        next.iter().filter(is_it).any(|route| if id == to { creates(route, to) } else { leads(route, to) })
    };
    leading
        .into_iter()
        .filter(|(route, to)| !still_leads(route, to))
        .map(|(route, to)| {
            let count = owned.get(to).copied().unwrap_or_default();
            format!(
                "the engine owns {count} of `{to}`, and `{route}` leads to them no more (gone, or without its workflow or \
                 `instance`): legacy would be asked for what it does not know. Leave the route in the files; its state \
                 may be `off`. Where it has another id now, say so there: `was: [{route}]`"
            )
        })
        .collect()
}
