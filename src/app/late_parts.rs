//! Stands in for engine, affinity and shadow executor until they are started: a process that takes over from another
//! one serves routes without a workflow before it has the store.
//!
//! Always true: before [`LateParts::set`], every question is answered as if the store did not answer, and nothing is
//! taken, begun or compared. The proxy does not use these parts then: requests of routes with a workflow wait.

use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::exchange::{
    AdoptionAnswer, AdoptionRequest, Affinity, Answered, ArmReply, ArmRequest, ArmUnknown, ComparisonOutcome,
    ComparisonTicket, CreatedByLegacy, EarlierKeys, EngineAnswer, EngineAnswered, EngineArm, InstanceAccess, KnownBody,
    KnownKeysOfOtherEngines, LegacyAdmission, LegacyAdmissionRequest, LegacyTake, NotedInstance, Offer, OfferedRequest,
    OpenRequest, OpenWriteGuard, ProblemDocument, Remembered, RunReport, Served, ServedObserver, Source, TicketCounter,
};
use crate::flag::{Arm, Family, InstanceKey, Owner, RetryKey, RetryKeys, Route};
use crate::names::{PlanSet, RouteId, RunId};

/// The parts, once they exist.
#[derive(Clone, Default)]
pub(super) struct LateParts(Arc<OnceLock<PartsForProxy>>);

/// The parts that the proxy uses.
pub(super) struct PartsForProxy {
    pub engine: EngineArm,
    pub affinity: Arc<dyn Affinity>,
    pub offer: Arc<dyn Offer>,
    pub served_observer: Arc<dyn ServedObserver>,
}

impl LateParts {
    /// Sets the parts. Called once.
    pub(super) fn set(&self, parts: PartsForProxy) {
        let _set_before = self.0.set(parts);
    }

    /// The engine's arm.
    pub(super) fn engine(&self) -> EngineArm {
        let parts = self.0.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: ArmRequest| {
            let engine = parts.get().map(|parts| parts.engine.clone());
            async move {
                match engine {
                    Some(engine) => engine.oneshot(request).await,
                    None => Ok(ArmReply::Refused(not_started(), RunReport::default())),
                }
            }
        }))
    }

    fn affinity(&self) -> Option<&dyn Affinity> {
        self.0.get().map(|parts| &*parts.affinity)
    }

    fn shadow(&self) -> Option<&dyn Offer> {
        self.0.get().map(|parts| &*parts.offer)
    }
}

fn not_started() -> ProblemDocument {
    ProblemDocument {
        status: 503,
        kind: "engine-unavailable".into(),
        title: "The engine cannot run this now".into(),
        detail: "The engine has not started yet. Nothing was begun, so trying again cannot do the work twice.".into(),
        source: Source::Workflow,
        run: None,
        retry_after_s: Some(1),
        shared_step_begun: Some(false),
    }
}

impl Affinity for LateParts {
    fn owner<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), ArmUnknown>> {
        self.affinity().map_or_else(|| ready(Err(ArmUnknown)).boxed(), |affinity| affinity.owner(key))
    }
    fn began_with<'a>(&'a self, run: RunId, plans: &'a Arc<PlanSet>) -> BoxFuture<'a, Option<bool>> {
        self.affinity().map_or_else(|| ready(None).boxed(), |affinity| affinity.began_with(run, plans))
    }
    fn engine_owns_any(&self, family: &Family) -> bool {
        self.affinity().is_none_or(|affinity| affinity.engine_owns_any(family))
    }
    fn remembered(&self, key: &RetryKey) -> Remembered {
        self.affinity().map_or(Remembered::Unknown, |affinity| affinity.remembered(key))
    }
    fn keys_of_other_engines(&self, route: &Route) -> KnownKeysOfOtherEngines {
        self.affinity().map(|affinity| affinity.keys_of_other_engines(route)).unwrap_or_default()
    }
    fn is_store_shared(&self) -> bool {
        self.affinity().is_none_or(|affinity| affinity.is_store_shared())
    }
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, ArmUnknown>> {
        self.affinity().map_or_else(|| ready(Err(ArmUnknown)).boxed(), |affinity| affinity.first_try(key))
    }
    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, ArmUnknown>> {
        let affinity = self.affinity();
        affinity.map_or_else(|| ready(Err(ArmUnknown)).boxed(), |affinity| affinity.engine_took_any(range))
    }
    fn take_for_legacy<'a>(
        &'a self,
        route: &'a RouteId,
        keys: RetryKeys,
        earlier: &'a EarlierKeys,
        body: KnownBody,
    ) -> BoxFuture<'a, LegacyTake> {
        let unknown = || ready(LegacyTake::Unknown).boxed();
        self.affinity().map_or_else(unknown, |affinity| affinity.take_for_legacy(route, keys, earlier, body))
    }
    fn give_to_legacy(&self, keys: RetryKeys, body: KnownBody) -> BoxFuture<'_, LegacyTake> {
        let unknown = || ready(LegacyTake::Unknown).boxed();
        self.affinity().map_or_else(unknown, |affinity| affinity.give_to_legacy(keys, body))
    }
    fn noted_earlier<'a>(&'a self, keys: &'a RetryKeys) -> BoxFuture<'a, bool> {
        self.affinity().map_or_else(|| ready(false).boxed(), |affinity| affinity.noted_earlier(keys))
    }
    fn record_served_unnoted<'a>(
        &'a self,
        keys: &'a RetryKeys,
        route: &'a RouteId,
        oldest_id: &'a RouteId,
    ) -> BoxFuture<'a, ()> {
        let nothing = || ready(()).boxed();
        self.affinity().map_or_else(nothing, |affinity| affinity.record_served_unnoted(keys, route, oldest_id))
    }
    fn note_instance(&self, noted: NotedInstance) {
        if let Some(affinity) = self.affinity() {
            affinity.note_instance(noted);
        }
    }
    fn admit_to_legacy(&self, request: &LegacyAdmissionRequest<'_>) -> LegacyAdmission {
        self.affinity().map_or(LegacyAdmission::Unknown, |affinity| affinity.admit_to_legacy(request))
    }
    fn begin_write(&self) -> Option<OpenWriteGuard> {
        self.affinity()?.begin_write()
    }
    fn adopt(&self, request: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer> {
        let later = || ready(AdoptionAnswer::AtLegacy).boxed();
        self.affinity().map_or_else(later, |affinity| affinity.adopt(request))
    }
    fn record_legacy_instance(&self, created: CreatedByLegacy) {
        if let Some(affinity) = self.affinity() {
            affinity.record_legacy_instance(created);
        }
    }
}

impl Offer for LateParts {
    fn open(&self, request: OfferedRequest) -> ComparisonTicket {
        match self.shadow() {
            Some(offer) => offer.open(request),
            None => ComparisonTicket::new(request, Arc::new(Uncounted)),
        }
    }
    fn offer(&self, ticket: ComparisonTicket, answered: Answered) {
        if let Some(offer) = self.shadow() {
            offer.offer(ticket, answered);
        }
    }
    fn check(&self, answered: EngineAnswered) {
        if let Some(offer) = self.shadow() {
            offer.check(answered);
        }
    }
    fn has_room(&self, route: &RouteId) -> bool {
        self.shadow().is_some_and(|offer| offer.has_room(route))
    }
    fn announce(&self, access: InstanceAccess, is_write: bool, now: u64) -> Option<OpenRequest> {
        self.shadow()?.announce(access, is_write, now)
    }
    fn may_add_twins(&self) -> bool {
        self.shadow().is_some_and(Offer::may_add_twins)
    }
}

impl ServedObserver for LateParts {
    fn served(&self, route: &RouteId, files_version: u64, served: Served) {
        if let Some(parts) = self.0.get() {
            parts.served_observer.served(route, files_version, served);
        }
    }
    fn answered(&self, route: &RouteId, answer: EngineAnswer) {
        if let Some(parts) = self.0.get() {
            parts.served_observer.answered(route, answer);
        }
    }
    fn exceeds_usual_wait_at_legacy(&self, route: &RouteId, waited: Duration) -> bool {
        self.0.get().is_some_and(|parts| parts.served_observer.exceeds_usual_wait_at_legacy(route, waited))
    }
}

/// Counts nothing, because nothing is offered before there is evidence.
struct Uncounted;

impl TicketCounter for Uncounted {
    fn settle(&self, _request: &OfferedRequest, _outcome: ComparisonOutcome) {}
}
