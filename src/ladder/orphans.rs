//! What nobody would follow up any more under a new set of files: what the engine owns stays with the engine, so the
//! routes that lead to it have to stay too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::horizon::family;
use crate::flag::{Arm, FlagSet, Route};
use crate::names::RouteId;
use crate::store::PinCount;

/// Sentences for each route that has to do with instances of the engine and would lose them: it is gone, has no
/// workflow any more, or is of another family. Without a set in force only creators are known.
pub(super) fn sentences(pins: &[PinCount], now: Option<&FlagSet>, next: &[Arc<Route>]) -> Vec<String> {
    let owned: BTreeMap<&RouteId, u64> = pins
        .iter()
        .filter(|(_, arm, count)| *arm == Arm::Engine && *count > 0)
        .map(|(family, _, count)| (family, *count))
        .collect();
    let mut leading: Vec<(&RouteId, &RouteId)> = owned.keys().map(|creator| (*creator, *creator)).collect();
    let standing = now.into_iter().flat_map(|set| &set.routes).filter(|flag| flag.route.workflow.is_some());
    leading.extend(standing.filter_map(|flag| {
        let family = family(&flag.route).filter(|family| owned.contains_key(family))?;
        (*family != flag.route.id).then_some((&flag.route.id, family))
    }));
    let still_leads = |id: &RouteId, to: &RouteId| {
        next.iter().any(|route| route.id == *id && route.workflow.is_some() && family(route) == Some(to))
    };
    leading
        .into_iter()
        .filter(|(route, to)| !still_leads(route, to))
        .map(|(route, to)| {
            let count = owned.get(to).copied().unwrap_or_default();
            format!(
                "the engine owns {count} of `{to}`, and `{route}` leads to them no more (gone, or without its workflow or \
                 `instance`): legacy would be asked for what it does not know. Leave the route in the files; its state \
                 may be `off`"
            )
        })
        .collect()
}
