//! Creators that become one by new files (`was`) although their instances do not share one space of ids: an id is that
//! of an instance of the engine under one of the joined ids, and of another instance under another one.
//!
//! Pins are looked up under every id of the joined creator, so that a request about the other instance would reach the
//! engine's. A reload is refused. A start is not, because every other route would be without service: the ids become
//! pin collisions, which a person has to accept, and the log has an error. So does an id that was given out while new
//! files came into force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gate::Gate;
use super::gate_condition::SharedInstanceId;
use super::positions::Positions;
use crate::flag::{Instance, Route};
use crate::names::RouteId;
use crate::store::StoreError;

/// The creators of new files that several creators of the files before have become.
#[derive(Default)]
pub(super) struct JoinedCreators(Vec<JoinedCreator>);

/// One of them.
struct JoinedCreator {
    route: RouteId,
    /// Its ids, by the creator of the files before.
    groups: Vec<Vec<RouteId>>,
}

/// A creator with ids that are those of two instances.
pub(super) struct CreatorWithSharedIds {
    route: RouteId,
    found: Vec<SharedInstanceId>,
}

/// Finds the creators that new files join.
pub(super) fn joined_creators(before: &Positions, routes: &[Arc<Route>]) -> JoinedCreators {
    let creators = routes.iter().filter(|route| matches!(route.instance, Some(Instance::Creates { .. })));
    let joined = |route: &Arc<Route>| {
        let mut groups: BTreeMap<&RouteId, Vec<RouteId>> = BTreeMap::new();
        route.ids().for_each(|id| groups.entry(route_before(before, id)).or_default().push(id.clone()));
        let groups: Vec<_> = groups.into_values().collect();
        (groups.len() > 1).then(|| JoinedCreator { route: route.id.clone(), groups })
    };
    JoinedCreators(creators.filter_map(joined).collect())
}

/// The route that had this id by the files before: one that was in these files, else one that had been in earlier ones.
fn route_before<'a>(before: &'a Positions, id: &'a RouteId) -> &'a RouteId {
    let is_present =
        |route: &&RouteId| before.stored_declarations.contains_key(*route) && !before.absent.contains(*route);
    if is_present(&id) {
        return id;
    }
    let had = || before.earlier_ids.iter().filter(|(_, earlier)| earlier.contains(id)).map(|(route, _)| route);
    had().find(is_present).or_else(|| had().next()).unwrap_or(id)
}

impl JoinedCreators {
    /// Those of which an id is that of two instances.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn with_shared_ids(&self, gate: &Gate) -> Result<Vec<CreatorWithSharedIds>, StoreError> {
        let mut creators = Vec::new();
        for JoinedCreator { route, groups } in &self.0 {
            let mut found = Vec::new();
            for condition in &gate.conditions {
                found.extend(condition.shared_instance_ids(groups).await?);
            }
            if !found.is_empty() {
                creators.push(CreatorWithSharedIds { route: route.clone(), found });
            }
        }
        Ok(creators)
    }

    /// Records the ids that were given out to two instances while the files came into force.
    pub async fn record_given_out_meanwhile(&self, gate: &Gate) {
        match self.with_shared_ids(gate).await {
            Ok(found) => record(&found, gate).await,
            Err(error) => {
                tracing::warn!(%error, "it is not known whether creators that were joined have ids in common");
            }
        }
    }
}

impl CreatorWithSharedIds {
    /// Why the files are refused.
    pub fn refusal(&self) -> String {
        format!(
            "{}. Routes that create instances can become one only if no id is that of two instances: leave them apart \
             (`pointsman help files`)",
            self.sentence()
        )
    }

    fn sentence(&self) -> String {
        let Self { route, found } = self;
        let first = found.first().map_or_else(String::new, |SharedInstanceId { pin, other, .. }| {
            let more = match found.len() {
                1 => String::new(),
                count => format!(" ({count} such ids were found)"),
            };
            format!(
                "the id `{}` is that of an instance of the engine under `{}` and of another instance under \
                 `{other}`{more}",
                pin.id, pin.family
            )
        });
        format!(
            "`{route}` joins several routes that create instances, and {first}: requests about the other one would \
                 reach the engine's"
        )
    }
}

/// Records ids that are those of two instances as pin collisions.
pub(super) async fn record(creators: &[CreatorWithSharedIds], gate: &Gate) {
    for creator in creators {
        tracing::error!(route = %creator.route, "{}", creator.sentence());
        for condition in &gate.conditions {
            condition.record_shared_ids(&creator.found).await;
        }
    }
}
