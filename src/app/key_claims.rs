//! For which routes this process claims retry keys in the shared store ([`crate::affinity::ClaimingRoutes`]).
//!
//! Always true: a route is claimed from before the engine of any process may answer its requests until no process has
//! it in a state in which the engine answers. Processes may have other files, and other ids of a route: all of its ids
//! count. A claim of a route
//! - begins with an announcement, of this process or another, or when the record of a process says that its engine
//!   answers the route;
//! - ends once no record says so any more, every other process has the flip in force that lowered the route here, and
//!   no request is left here that was decided before that flip.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use uuid::Uuid;

use crate::affinity::{ClaimingRoutes, StoreAffinity};
use crate::clock::Moment;
use crate::flag::{Instance, Route};
use crate::ladder::{AnsweringRoutes, GateCondition, Ladder, UnknownRetries};
use crate::names::{RouteId, WorkerId};
use crate::store::{Announcement, ProcessRecord, StoreError, ToldUnknownRetries};

/// How many causes of unknown retries a process tells the others.
const UNKNOWN_RETRIES_TOLD_MAX: usize = 32;

/// Keeps the list of claimed routes that `affinity` uses up to date.
pub(super) struct KeyClaims {
    affinity: Arc<StoreAffinity>,
    /// Weak, because the ladder holds the membership, which holds these claims.
    ladder: Weak<Ladder>,
    state: Mutex<State>,
    /// Returns the number of the oldest flag set by which a request is still being answered.
    oldest_set_in_use: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
}

#[derive(Default)]
struct State {
    /// What each process, also this one, has announced and not ended.
    announced: BTreeMap<WorkerId, Announcement>,
    /// The ids of the routes that the engines of other processes answer.
    answered_elsewhere: BTreeSet<RouteId>,
    /// The routes of the newest files, which may not be in force yet.
    newest_files: Vec<Arc<Route>>,
    /// Routes that were lowered here from a state in which the engine answers. Another process that has the flip in
    /// force has lowered them too.
    lowered: BTreeMap<RouteId, Lowered>,
}

/// By which flag set and by which flip a route was lowered.
struct Lowered {
    /// The number of the first flag set in which the route was lowered.
    set: u64,
    /// A recorded flip at least as new as the lowering; `None` until the lowering is recorded.
    by: Option<u64>,
}

impl KeyClaims {
    pub fn new(affinity: Arc<StoreAffinity>, ladder: &Arc<Ladder>) -> Arc<Self> {
        let claims = Self {
            affinity,
            ladder: Arc::downgrade(ladder),
            state: Mutex::default(),
            oldest_set_in_use: OnceLock::new(),
        };
        claims.update();
        Arc::new(claims)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the function that returns the number of the oldest flag set by which a request is still being answered
    /// ([`Proxy::oldest_set_in_use`](crate::proxy::Proxy::oldest_set_in_use)).
    pub fn set_oldest_set_in_use(&self, oldest_set_in_use: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.oldest_set_in_use.set(Box::new(oldest_set_in_use));
    }

    fn oldest_set_in_use(&self) -> u64 {
        self.oldest_set_in_use.get().map_or(u64::MAX, |oldest| oldest())
    }

    /// The ids of each route that is in a state in which the engine answers, or that has requests left which were
    /// decided in such a state.
    pub fn answering(&self) -> Vec<Vec<RouteId>> {
        let AnsweringRoutes { present, earlier, .. } =
            self.ladder.upgrade().map(|ladder| ladder.answering_routes()).unwrap_or_default();
        let oldest = if earlier.is_empty() { u64::MAX } else { self.oldest_set_in_use() };
        let left = earlier.into_iter().filter(|(_, set)| oldest < *set).map(|(id, _)| vec![id]);
        present.iter().map(|route| route.ids().cloned().collect()).chain(left).collect()
    }

    /// Claims the keys of the routes with these ids, because the engines of other processes answer them. Replaces the
    /// ids of the last call.
    pub fn set_answered_elsewhere(&self, ids: BTreeSet<RouteId>) {
        self.state().answered_elsewhere = ids;
        self.update();
    }

    /// Files with these routes come into force next: routes that are claimed are claimed under their new ids too.
    pub fn set_newest_files(&self, routes: &[Arc<Route>]) {
        self.state().newest_files = routes.to_vec();
        self.update();
    }

    /// Whether this process claims the keys of all routes of an announcement: it has them, and a workflow for each.
    pub fn can_claim(&self, announcement: &Announcement) -> bool {
        let Some(ladder) = self.ladder.upgrade() else { return false };
        let set = ladder.flags().load();
        let has = |ids: &[RouteId]| {
            let mut routes = set.routes.iter().map(|flag| &flag.route);
            routes.any(|route| route.workflow.is_some() && route.ids().any(|id| ids.contains(id)))
        };
        announcement.each().all(has)
    }

    /// Claims the keys of what a process has announced, from now on.
    pub fn announce(&self, by: WorkerId, announcement: Announcement) {
        self.state().announced.insert(by, announcement);
        self.update();
    }

    /// Ends the announcements of processes for which `keeps` returns false. What they announced is in force here, or
    /// was not done.
    pub fn end_announcements(&self, keeps: impl Fn(WorkerId, &Announcement) -> bool) {
        // Updated before the announcement ends, so that a route that it raised is claimed without a gap: the engine
        // answers it here.
        self.update();
        self.state().announced.retain(|by, announcement| keeps(*by, announcement));
        self.update();
    }

    /// Releases the claims of routes that were lowered by flips up to this number, which all other processes have in
    /// force.
    pub fn release_lowered_up_to(&self, number: u64) {
        let mut released: BTreeMap<RouteId, u64> = {
            let state = self.state();
            let is_up_to = |lowered: &Lowered| lowered.by.is_some_and(|by| by <= number);
            let all = state.lowered.iter().filter(|(_, lowered)| is_up_to(lowered));
            all.map(|(id, lowered)| (id.clone(), lowered.set)).collect()
        };
        if !released.is_empty() {
            let oldest = self.oldest_set_in_use();
            released.retain(|_, set| oldest >= *set);
        }
        if let Some(ladder) = self.ladder.upgrade().filter(|_| !released.is_empty()) {
            ladder.release_claims(&released);
            self.update();
        }
    }

    /// Brings the claims up to date with the states in force.
    pub fn update(&self) {
        let Some(ladder) = self.ladder.upgrade() else { return };
        let mut state = self.state();
        // In this order: if no flip is unrecorded after the routes were read, the flips that lowered these routes are
        // recorded, and the newest recorded flip, which is read last, is at least as new as each of them.
        let routes = ladder.answering_routes();
        let all_recorded = ladder.unrecorded_flips() == 0;
        let newest = *ladder.newest_flip().borrow();
        let State { announced, lowered, answered_elsewhere, newest_files } = &mut *state;
        // A route that was raised and lowered again meanwhile gets a new entry.
        lowered.retain(|id, known| routes.earlier.get(id) == Some(&known.set));
        for (id, set) in routes.earlier {
            lowered.entry(id).or_insert(Lowered { set, by: None });
        }
        if all_recorded {
            lowered.values_mut().for_each(|lowered| lowered.by = lowered.by.or(Some(newest)));
        }
        let announced = announced.values().flat_map(|announcement| &announcement.routes);
        let present = routes.present.iter().flat_map(|route| route.ids());
        let named = announced.chain(answered_elsewhere.iter()).chain(present).chain(lowered.keys());
        let mut always: HashSet<RouteId> = named.cloned().collect();
        let set = ladder.flags().load();
        let known = set.routes.iter().map(|flag| &flag.route).chain(newest_files.iter());
        let claimed: Vec<&Arc<Route>> = known.filter(|route| route.ids().any(|id| always.contains(id))).collect();
        for route in &claimed {
            // The engine of another process may give out ids of instances.
            if matches!(route.instance, Some(Instance::Creates { .. })) {
                route.ids().for_each(|id| self.affinity.expect_engine_pins_of(id));
            }
        }
        let claimed: BTreeSet<&RouteId> = claimed.into_iter().map(|route| &route.id).collect();
        metrics::gauge!("pointsman_routes_claimed").set(claimed.len() as f64);
        always.extend(claimed.into_iter().cloned());
        let without_lease = routes.at_dark.into_iter().collect();
        self.affinity.set_claiming(ClaimingRoutes { always, without_lease });
    }

    /// See [`StoreAffinity::key_file`].
    pub fn key_file(&self) -> Option<Uuid> {
        self.affinity.key_file()
    }

    /// Fills in what the other processes read about the retry keys and pins of this one.
    pub fn fill_in(&self, record: &mut ProcessRecord) {
        record.answers = self.answering().into_iter().flatten().collect();
        // When this process stops and all its keys are in the store, it has no file any more. The record keeps the id
        // of the file. The others see that the store does not list that file any more, and conclude that no keys are
        // lost.
        record.key_file = self.affinity.key_file().or(record.key_file);
        record.collision_changes = self.affinity.stored_collision_changes();
        record.unknown_retries = self.unknown_retries();
    }

    fn unknown_retries(&self) -> Vec<ToldUnknownRetries> {
        let Some(ladder) = self.ladder.upgrade() else { return Vec::new() };
        let set = ladder.flags().load_full();
        let mut told: Vec<ToldUnknownRetries> = Vec::new();
        for route in set.routes.iter().map(|flag| &flag.route).filter(|route| route.workflow.is_some()) {
            let ids: Vec<&RouteId> = route.ids().collect();
            for UnknownRetries { cause_at, until, why } in self.affinity.unknown_retries(&ids) {
                let ids = ids.iter().map(|id| (*id).clone());
                match told.iter_mut().find(|known| known.why == why) {
                    Some(known) => {
                        known.routes.extend(ids);
                        (known.cause_at, known.until) = (known.cause_at.max(cause_at), known.until.max(until));
                    }
                    None => told.push(ToldUnknownRetries { routes: ids.collect(), cause_at, until, why }),
                }
            }
        }
        if told.len() > UNKNOWN_RETRIES_TOLD_MAX {
            told.truncate(UNKNOWN_RETRIES_TOLD_MAX);
            // Those that are left out may be of any route.
            told.iter_mut().for_each(|told| told.routes.clear());
        }
        told
    }

    /// Takes over the pin collisions of other processes.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn follow_collisions(&self) -> Result<(), StoreError> {
        self.affinity.follow_collisions().await
    }

    /// See [`StoreAffinity::knows_keys_of_other_engines`].
    pub fn knows_keys_of_other_engines(&self) -> bool {
        self.affinity.knows_keys_of_other_engines()
    }

    /// See [`StoreAffinity::expect_engine_pins_of_open_runs`].
    pub async fn expect_engine_pins_of_open_runs(&self) {
        let Some(ladder) = self.ladder.upgrade() else { return };
        let set = ladder.flags().load_full();
        let routes = set.routes.iter().map(|flag| &flag.route);
        let creates = |route: &&Arc<Route>| matches!(route.instance, Some(Instance::Creates { .. }));
        let creators: Vec<Arc<Route>> = routes.filter(creates).filter(|of| of.workflow.is_some()).cloned().collect();
        self.affinity.expect_engine_pins_of_open_runs(&creators).await;
    }

    /// Waits until the store has all keys that legacy has taken up to now. Returns whether it has them.
    pub async fn flush(&self) -> bool {
        self.affinity.flush_taken().await
    }

    /// See [`StoreAffinity::set_lease_end`].
    pub fn set_lease_end(&self, ends: Moment, term: Option<i64>) {
        self.affinity.set_lease_end(ends, term);
    }

    /// See [`StoreAffinity::set_other_engines_need_lease`].
    pub fn set_other_engines_need_lease(&self, need_lease: bool) {
        self.affinity.set_other_engines_need_lease(need_lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Evidence;
    use crate::flag::State as Rung;
    use crate::ladder::MoveRequest;
    use crate::ladder::tests::failing_store::FailingStore;
    use crate::ladder::tests::{edited, files, open_ladder};
    use crate::limits::Limits;

    async fn open() -> (Arc<Ladder>, Arc<StoreAffinity>, Arc<KeyClaims>) {
        let store = Arc::new(FailingStore::default());
        store.inner.set_shared();
        let evidence = Evidence::load(store.clone()).await.unwrap();
        let renamed = edited(files(&[]), "plain", |route| (route.id, route.was) = ("new".into(), vec!["plain".into()]));
        let ladder = open_ladder(renamed, &store, &evidence).await.unwrap();
        let affinity = StoreAffinity::load(store, &Limits::default()).await.unwrap();
        let claims = KeyClaims::new(affinity.clone(), &ladder);
        (ladder, affinity, claims)
    }

    fn ids(ids: &[&str]) -> Vec<RouteId> {
        ids.iter().map(|id| (*id).into()).collect()
    }

    #[tokio::test]
    async fn what_the_engine_of_another_process_answers_is_claimed_under_any_id() {
        let (_ladder, affinity, claims) = open().await;
        let claims_new = || affinity.claims_keys_of(&"new".into());
        assert!(!claims_new());
        let other = WorkerId(uuid::Uuid::from_u128(7));
        // The other process still has earlier files, in which the route's id is `plain`.
        claims.announce(other, Announcement::new(1, vec![ids(&["plain"])]));
        assert!(claims_new());
        claims.set_answered_elsewhere(ids(&["plain"]).into_iter().collect());
        claims.end_announcements(|_, _| false);
        assert!(claims_new(), "it has it in force now");
        claims.set_answered_elsewhere(BTreeSet::new());
        assert!(!claims_new());
    }

    #[tokio::test]
    async fn a_route_without_a_workflow_here_cannot_be_claimed() {
        let (_ladder, _affinity, claims) = open().await;
        for (routes, can) in [
            (vec![ids(&["newest", "new", "plain"])], true),
            (vec![ids(&["plain"]), ids(&["bare"])], true),
            (vec![ids(&["plain"]), ids(&["list"])], false),
            (vec![ids(&["nobody's"])], false),
        ] {
            assert_eq!(claims.can_claim(&Announcement::new(1, routes.clone())), can, "{routes:?}");
        }
        let of_earlier_version =
            Announcement { number: 1, routes: ids(&["plain", "list"]), ids: Vec::new(), standing: Vec::new() };
        assert!(!claims.can_claim(&of_earlier_version));
    }

    /// The route went down, and other processes may have it in `live` still.
    #[tokio::test]
    async fn a_route_that_is_renamed_while_it_is_claimed_stays_claimed() {
        let (ladder, affinity, claims) = open().await;
        let to = |to, force| MoveRequest {
            to,
            percent: None,
            force,
            reason: force.then(|| "a drill".to_owned()),
            acknowledge: false,
            by: "ann".into(),
        };
        ladder.flip(&"bare".into(), to(Rung::Live, true)).await.unwrap();
        ladder.flip(&"bare".into(), to(Rung::Off, false)).await.unwrap();
        claims.update();
        assert!(affinity.claims_keys_of(&"bare".into()));
        let renamed = edited(files(&[]), "bare", |route| (route.id, route.was) = ("next".into(), vec!["bare".into()]));
        claims.set_newest_files(&renamed.routes);
        assert!(affinity.claims_keys_of(&"next".into()));
        claims.release_lowered_up_to(u64::MAX);
        assert!(!affinity.claims_keys_of(&"next".into()) && !affinity.claims_keys_of(&"bare".into()));
    }
}
