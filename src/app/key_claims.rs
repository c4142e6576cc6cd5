//! For which routes this process claims retry keys in the shared store ([`crate::affinity::ClaimingRoutes`]).
//!
//! Always true: a route is among them from before the engine of any process may answer its requests until no process
//! has it where the engine answers. It comes in by an announcement, of this process or another, or because the record
//! of a process says that its engine answers it; it leaves once no record says so, and every other process has the flip
//! in force that lowered it here. Processes may have other files, and other ids of a route: all of its ids count.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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
    /// The ids of the routes that the engines of other processes answer.
    answered_elsewhere: BTreeSet<RouteId>,
    /// The routes of the newest files, which may not be in force yet.
    newest_files: Vec<Arc<Route>>,
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

    /// The ids of each route that is where the engine answers.
    pub fn answering(&self) -> Vec<Vec<RouteId>> {
        let routes = self.ladder.upgrade().map(|ladder| ladder.answering_routes().present).unwrap_or_default();
        routes.iter().map(|route| route.ids().cloned().collect()).collect()
    }

    /// Claims the keys of the routes with these ids, which the engines of other processes answer, and of no others
    /// because of that.
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
        let State { announced, lowered, answered_elsewhere, newest_files } = &mut *state;
        lowered.retain(|id, _| routes.earlier.contains(id));
        for id in routes.earlier {
            lowered.entry(id).or_default();
        }
        if all_recorded {
            lowered.values_mut().for_each(|lowered_by| *lowered_by = lowered_by.or(Some(newest)));
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
                route.ids().for_each(|id| self.affinity.engine_may_own_of(id));
            }
        }
        always.extend(claimed.into_iter().map(|route| route.id.clone()));
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
        // The other process has the files before.
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
        let of_earlier_version = Announcement { number: 1, routes: ids(&["plain", "list"]), ids: Vec::new() };
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
        claims.all_have(u64::MAX);
        assert!(!affinity.claims_keys_of(&"next".into()) && !affinity.claims_keys_of(&"bare".into()));
    }
}
