//! For which routes this process claims retry keys in the shared store ([`crate::affinity::ClaimingRoutes`]).
//!
//! Always true: a route is among them from before the engine of any process may answer its requests until no process
//! has it where the engine answers. It comes in by an announcement, of this process or another, or because it is there
//! when the process joins; it leaves once every other process has the flip in force that lowered it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::affinity::{ClaimingRoutes, StoreAffinity};
use crate::flag::{Instance, Route};
use crate::ladder::Ladder;
use crate::names::{RouteId, WorkerId};
use crate::store::Announcement;

pub(super) struct KeyClaims {
    affinity: Arc<StoreAffinity>,
    /// Not kept alive: the ladder knows the processes that know these claims.
    ladder: Weak<Ladder>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What each process, also this one, has announced and not ended.
    announced: BTreeMap<WorkerId, Announcement>,
    /// Routes that are there no more in this process, each with the number of a flip: another process that has it in
    /// force has lowered the route too. `None` while the flip is not recorded.
    lowered: BTreeMap<RouteId, Option<u64>>,
}

impl KeyClaims {
    pub fn new(affinity: Arc<StoreAffinity>, ladder: &Arc<Ladder>) -> Arc<Self> {
        let claims = Self { affinity, ladder: Arc::downgrade(ladder), state: Mutex::default() };
        claims.update();
        Arc::new(claims)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The routes that are where the engine answers.
    pub fn answering(&self) -> Vec<RouteId> {
        let routes = self.ladder.upgrade().map(|ladder| ladder.answering_routes().present).unwrap_or_default();
        routes.iter().map(|route| route.id.clone()).collect()
    }

    /// Claims the keys of what a process has announced, from now on.
    pub fn announce(&self, by: WorkerId, announcement: Announcement) {
        self.state().announced.insert(by, announcement);
        self.update();
    }

    /// Ends the announcements of processes for which `keeps` returns false. What they announced is in force here, or
    /// was not done.
    pub fn end_announcements(&self, keeps: impl Fn(WorkerId, &Announcement) -> bool) {
        // A route that was raised is among those where the engine answers before its announcement ends.
        self.update();
        self.state().announced.retain(|by, announcement| keeps(*by, announcement));
        self.update();
    }

    /// All other processes have every flip up to this number in force.
    pub fn all_have(&self, number: u64) {
        let has = |(id, by): (&RouteId, &Option<u64>)| by.is_some_and(|by| by <= number).then(|| id.clone());
        let released: BTreeSet<RouteId> = self.state().lowered.iter().filter_map(has).collect();
        if let Some(ladder) = self.ladder.upgrade().filter(|_| !released.is_empty()) {
            ladder.release_claims(&released);
            self.update();
        }
    }

    /// Brings the claims up to date with the states in force.
    pub fn update(&self) {
        let Some(ladder) = self.ladder.upgrade() else { return };
        let mut state = self.state();
        // Read in this order: a flip that is recorded after the first question is not counted as recorded.
        let all_recorded = ladder.unrecorded_flips() == 0;
        let newest = *ladder.newest_flip().borrow();
        let routes = ladder.answering_routes();
        let State { announced, lowered } = &mut *state;
        lowered.retain(|id, _| routes.earlier.contains(id));
        for id in routes.earlier {
            lowered.entry(id).or_default();
        }
        if all_recorded {
            lowered.values_mut().for_each(|lowered_by| *lowered_by = lowered_by.or(Some(newest)));
        }
        let named: BTreeSet<&RouteId> = announced.values().flat_map(|announcement| &announcement.routes).collect();
        let set = ladder.flags().load();
        let announced = set.routes.iter().map(|flag| &flag.route);
        let announced: Vec<&Arc<Route>> = announced.filter(|route| route.ids().any(|id| named.contains(id))).collect();
        // The engine of another process may give out ids of instances from now on.
        for creator in routes.present.iter().chain(announced.iter().copied()) {
            if matches!(creator.instance, Some(Instance::Creates { .. })) {
                creator.ids().for_each(|id| self.affinity.engine_may_own_of(id));
            }
        }
        let present = routes.present.iter().chain(announced).map(|route| &route.id);
        let always = present.chain(lowered.keys()).cloned().collect();
        let without_lease = routes.at_dark.into_iter().collect();
        self.affinity.set_claiming(ClaimingRoutes { always, without_lease });
    }

    /// Waits until the store has all keys that legacy has taken up to now. Returns whether it has them.
    pub async fn flush(&self) -> bool {
        self.affinity.flush_taken().await
    }

    /// The lease of this process is over then, unless it is renewed.
    pub fn set_lease_end(&self, ends: Instant) {
        self.affinity.set_lease_end(ends);
    }
}
