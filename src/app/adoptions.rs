//! Adoptions, as the API shows and controls them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::family_gate::FamilyGate;
use super::parts::Parts;
use crate::admin::types::{AdoptionRow, AdoptionsView, BulkRow};
use crate::admin::{AdoptionControl, AdoptionRefused};
use crate::adoption::{AdoptionList, Adoptions, Bulk, DecideRefusal, InstanceSelection};
use crate::flag::{Arm, Family, FlagSet, InstanceKey};
use crate::names::RouteId;
use crate::store::Adoption;

/// How many instances are listed in each state.
const LISTED_MAX: usize = 100;

/// Serves the part of the API that lists adoptions, starts bulk moves and takes decisions.
pub(super) struct AdoptionsForApi {
    adoptions: Arc<Adoptions>,
    family_gate: Arc<FamilyGate>,
    flags: Arc<arc_swap::ArcSwap<FlagSet>>,
}

impl AdoptionsForApi {
    pub(super) fn new(parts: &Parts) -> Self {
        let (adoptions, family_gate) = (parts.adoptions.clone(), parts.family_gate.clone());
        Self { adoptions, family_gate, flags: parts.ladder.flags().clone() }
    }

    fn family(&self, route: &RouteId) -> Family {
        self.flags.load().route(route).map_or_else(|| route.clone().into(), |flag| flag.family.clone())
    }

    async fn read_view(&self, route: &RouteId) -> Result<AdoptionsView, AdoptionRefused> {
        let flags = self.flags.load_full();
        let family = self.family(route);
        let AdoptionList { counts, open } =
            self.adoptions.listed(&family, LISTED_MAX).await.map_err(AdoptionRefused::Store)?;
        Ok(AdoptionsView {
            route: family.id().clone(),
            workflow: flags.route(route).and_then(|flag| Some(flag.adopt.as_ref()?.workflow.clone())),
            adopted: counts.adopted,
            moving: counts.moving,
            unknown: counts.unknown,
            given_back: counts.given_back,
            bulk: self.adoptions.bulk(&family).map(|bulk| bulk_row(&bulk)),
            instances: open.into_iter().map(row).collect(),
        })
    }

    async fn start_bulk(&self, route: &RouteId, ids: Option<Vec<String>>, by: String) -> Result<(), AdoptionRefused> {
        let flags = self.flags.load_full();
        let creator = flags.route(route).filter(|flag| flag.adopt.is_some() && flag.route.lifetime.alive.is_some());
        if let Some(flag) = creator.filter(|_| ids.is_none()) {
            let listed = self.family_gate.list_instances(&flag.family, &flag.route).await;
            listed.map_err(AdoptionRefused::Refused)?;
        }
        let which = ids.map_or(InstanceSelection::All, InstanceSelection::Ids);
        let begun = self.adoptions.start_bulk(route, which, by);
        begun.map(drop).map_err(|refusal| AdoptionRefused::Refused(refusal.to_string()))
    }
}

impl AdoptionControl for AdoptionsForApi {
    fn view<'a>(&'a self, route: &'a RouteId) -> BoxFuture<'a, Result<AdoptionsView, AdoptionRefused>> {
        self.read_view(route).boxed()
    }

    fn start<'a>(
        &'a self,
        route: &'a RouteId,
        ids: Option<Vec<String>>,
        by: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>> {
        self.start_bulk(route, ids, by).boxed()
    }

    fn decide<'a>(
        &'a self,
        route: &'a RouteId,
        id: &'a str,
        owner: Arm,
        by: String,
        reason: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>> {
        async move {
            let key = InstanceKey { family: self.family(route), id: id.into() };
            match self.adoptions.decide(&key, owner, by, reason).await {
                Ok(_) => Ok(()),
                Err(DecideRefusal::Store(error)) => Err(AdoptionRefused::Store(error)),
                Err(refusal) => Err(AdoptionRefused::Refused(refusal.to_string())),
            }
        }
        .boxed()
    }
}

fn bulk_row(bulk: &Bulk) -> BulkRow {
    // Read before the counts, so that a bulk that is shown as ended is shown with its last counts.
    let is_running = bulk.is_running();
    let progress = bulk.progress();
    BulkRow {
        is_running,
        since: bulk.since,
        by: bulk.by.clone(),
        found: progress.found,
        adopted: progress.adopted,
        engines: progress.engine_owned,
        at_legacy: progress.at_legacy,
        unknown: progress.unknown,
        moving: progress.moving,
        reasons: progress.reasons,
        ended_early: progress.ended_early,
    }
}

fn row(adoption: Adoption) -> AdoptionRow {
    let Adoption { key: _, id, run, workflow: _, state, reason, by, claimed: _, at } = adoption;
    AdoptionRow { id: id.to_string(), state, reason, run, by, at }
}
