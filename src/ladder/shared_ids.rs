//! Creators that become one by new files (`was`) although their instances do not share one space of ids: an id is that
//! of an instance of the engine under one of the joined ids, and of another instance under another one.
//!
//! Pins are looked up under every id of the joined creator, so that a request about the other instance would reach the
//! engine's. A reload is refused. A start is not, because every other route would be without service: the ids become
//! pin collisions, which a person has to accept, and the log has an error. So does an id that was given out while new
//! files came into force. Whether two instances with one id are the same one is not known: where the ids come from one
//! space they are, and the `force` of the joined creator's file says so. Then nothing is examined.
//!
//! An open run that has not answered yet may create an instance with an id that another one has already, and a pin
//! collision that is found then does not stop the requests about the other one. So a reload is refused while there is
//! such a run; at a start the log has an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gate::Gate;
use super::gate_condition::SharedInstanceId;
use super::positions::Positions;
use crate::flag::{Instance, Route};
use crate::names::RouteId;
use crate::store::{StoreError, StoreHandle, count_open_creators};

/// The creators of new files that several creators of the files before have become.
#[derive(Default)]
pub(super) struct JoinedCreators {
    to_examine: Vec<JoinedCreator>,
    /// Those with `force` in their file, each with the reason.
    accepted: Vec<(RouteId, String)>,
}

/// One of them.
struct JoinedCreator {
    route: RouteId,
    /// Its ids, by the creator of the files before.
    groups: Vec<Vec<RouteId>>,
    /// Whether several of these creators are known. If not, the creator is only renamed, as far as is known, and its
    /// new id is a group.
    joins_known: bool,
}

/// A creator with ids that are those of two instances.
pub(super) struct CreatorWithSharedIds {
    route: RouteId,
    found: Vec<SharedInstanceId>,
}

/// A creator of which open runs may create instances with ids that are not known yet.
pub(super) struct CreatorWithOpenRuns {
    route: RouteId,
    /// How many, by the id under which they pin their instance.
    runs: BTreeMap<RouteId, u64>,
}

/// Finds the creators that new files join.
pub(super) fn joined_creators(before: &Positions, routes: &[Arc<Route>]) -> JoinedCreators {
    let creators = routes.iter().filter(|route| matches!(route.instance, Some(Instance::Creates { .. })));
    let mut joined = JoinedCreators::default();
    for route in creators {
        let mut groups: BTreeMap<&RouteId, Vec<RouteId>> = BTreeMap::new();
        route.ids().for_each(|id| groups.entry(route_before(before, id)).or_default().push(id.clone()));
        let groups: Vec<_> = groups.into_values().collect();
        let joins_known = groups.iter().filter(|ids| ids.iter().any(|id| is_known(before, id))).count() > 1;
        match &route.force {
            _ if groups.len() < 2 => {}
            Some(reason) if joins_known => joined.accepted.push((route.id.clone(), reason.clone())),
            Some(_) => {}
            None => joined.to_examine.push(JoinedCreator { route: route.id.clone(), groups, joins_known }),
        }
    }
    joined
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

/// Whether a route of earlier files had this id.
fn is_known(before: &Positions, id: &RouteId) -> bool {
    before.stored_declarations.contains_key(id)
        || before.scopes.contains_key(id)
        || before.earlier_ids.values().any(|earlier| earlier.contains(id))
}

impl JoinedCreators {
    /// Those of which an id is that of two instances.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn with_shared_ids(&self, gate: &Gate) -> Result<Vec<CreatorWithSharedIds>, StoreError> {
        let mut creators = Vec::new();
        for JoinedCreator { route, groups, .. } in &self.to_examine {
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

    /// Those of which an open run may create an instance. `oldest_ids` has the oldest id of each route of the files
    /// before.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn with_open_runs(
        &self,
        store: &StoreHandle,
        oldest_ids: &BTreeMap<RouteId, RouteId>,
    ) -> Result<Vec<CreatorWithOpenRuns>, StoreError> {
        let mut creators = Vec::new();
        let joining = self.to_examine.iter().filter(|creator| creator.joins_known);
        for JoinedCreator { route, groups, .. } in joining {
            let families: BTreeSet<RouteId> = groups.iter().flatten().cloned().collect();
            let runs = count_open_creators(&**store, &families, oldest_ids).await?;
            if !runs.is_empty() {
                creators.push(CreatorWithOpenRuns { route: route.clone(), runs });
            }
        }
        Ok(creators)
    }

    /// Records ids that are those of two instances as pin collisions, and logs what was not examined.
    pub async fn record(&self, found: &[CreatorWithSharedIds], gate: &Gate) {
        for (route, reason) in &self.accepted {
            tracing::warn!(
                %route, reason,
                "the route joins several routes that create instances, and its file has `force`: it is not examined whether \
                 an id is that of two instances"
            );
        }
        for creator in found {
            tracing::error!(
                route = %creator.route,
                "{}. This is a pin collision (`pointsman help ladder`): if it is one instance, because the ids come from one \
                 space, accept it with a flip by force",
                creator.sentence()
            );
            for condition in &gate.conditions {
                condition.record_shared_ids(&creator.found).await;
            }
        }
    }

    /// As [`JoinedCreators::record`], for ids that were given out to two instances while the files came into force.
    pub async fn record_given_out_meanwhile(&self, gate: &Gate) {
        match self.with_shared_ids(gate).await {
            Ok(found) => self.record(&found, gate).await,
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
            "{}. Routes that create instances can become one only if all of them take the ids of their instances from one \
             space. If these do, {}; if not, leave them apart (`pointsman help files`)",
            self.sentence(),
            say_so(&self.route)
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
                "the id `{}` is that of an instance of the engine under `{}` and may be that of another instance under \
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

/// How the file of a joined creator says that its instances take their ids from one space.
fn say_so(route: &RouteId) -> String {
    format!("say so with `force: {{ reason: … }}` in the file of `{route}`")
}

impl CreatorWithOpenRuns {
    /// Why the files are refused.
    pub fn refusal(&self) -> String {
        let sentence = self.sentence();
        format!(
            "{sentence}. Wait until they have ended, or cancel them (`pointsman runs list`), then reload. If all of these \
             routes take the ids of their instances from one space, {}",
            say_so(&self.route)
        )
    }

    /// What is wrong with the join.
    pub fn sentence(&self) -> String {
        let Self { route, runs } = self;
        let of_each = |(id, count): (&RouteId, &u64)| match count {
            1 => format!("1 run of `{id}`"),
            count => format!("{count} runs of `{id}`"),
        };
        let counts: Vec<String> = runs.iter().map(of_each).collect();
        format!(
            "`{route}` joins several routes that create instances, and open runs may still create some ({}): if one \
             gets an id that an instance of another of these routes has, requests about that instance would reach the \
             engine's",
            counts.join(", ")
        )
    }
}
