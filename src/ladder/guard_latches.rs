//! The last action of each route's guard. An action that limits the route, or raised an alarm, is a *latch*: it has its
//! effect until it is released.
//!
//! Always true: a latch is found under every id that its route has or had, and the newest action of all these ids
//! counts. A latch stays while its route is in no file.
//!
//! Example: the guard of this process, which does not reach the store, has released a route, or limited it to `dark`.
//! Before that is recorded, another process records that its own guard limits the route to `shadow`. The action of this
//! process was made without knowing of that latch. It must neither end the latch nor replace it by a higher limit: it
//! is *superseded*, and is dropped instead of recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::is_same;
use crate::flag::{Route, State};
use crate::names::RouteId;
use crate::store::{FlipRecord, GuardAction, GuardRecord};

/// The provisional numbers of unrecorded actions begin here, above all numbers that a store gives.
const UNRECORDED: u64 = 1 << 52;

/// Which actions of other processes come into force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// Those that raise no route: the flips that were recorded before them are not in force yet.
    NotRaising,
    /// All: the flips that were recorded before them are in force, or come into force in the same moment.
    All,
}

/// The last actions of guards, and those that the store does not have yet.
#[derive(Clone, Default)]
pub(super) struct GuardLatches {
    /// By the id that the route had at the time of the action. An unrecorded action has a provisional number.
    last: BTreeMap<RouteId, Arc<FlipRecord>>,
    /// In the order in which they happened. A route has few of them: while the store does not take them, a latch ends
    /// only by a flip down.
    unrecorded: Vec<UnrecordedAction>,
    /// How many actions this process has made: the provisional number of the last one is derived from it.
    made: u64,
    /// The numbers of the newest actions of other processes that were read, by the id that the route had at that time.
    /// Such an action may not be in force yet; no older one comes into force in the meantime.
    newest_read: BTreeMap<RouteId, u64>,
}

/// An action that is in force and that the store does not have yet.
#[derive(Clone)]
struct UnrecordedAction {
    /// With a provisional number.
    action: Arc<FlipRecord>,
    /// All ids of its route.
    ids: Vec<RouteId>,
    /// The number of the newest recorded action of the route that this process knows. This action was made with
    /// knowledge of all recorded ones up to that number.
    known: u64,
}

impl UnrecordedAction {
    fn is_of(&self, ids: &[RouteId]) -> bool {
        self.ids.iter().any(|own| ids.contains(own))
    }

    /// Whether an action of another process supersedes this one: it is a latch that was not known here when this action
    /// was made, and this action is a release or has a higher limit.
    fn is_superseded_by(&self, other: &FlipRecord) -> bool {
        let is_release = self.action.guard.as_ref().is_some_and(|guard| guard.action == GuardAction::Released);
        let loosens = is_release || highest_allowed(&self.action) > highest_allowed(other);
        other.number > self.known && is_latch(other) && loosens
    }
}

impl GuardLatches {
    pub fn from_store(actions: impl IntoIterator<Item = FlipRecord>) -> Self {
        let by_route = |action: FlipRecord| Some((action.guard.as_ref()?.route.clone(), Arc::new(action)));
        Self { last: actions.into_iter().filter_map(by_route).collect(), ..Self::default() }
    }

    /// The latch of a route: the newest action of its guard, if that still has an effect.
    pub fn latch(&self, route: &Route) -> Option<&Arc<FlipRecord>> {
        self.newest_latch(route.ids())
    }

    /// The newest action under these ids, if it is a latch.
    pub fn newest_latch<'a>(&self, ids: impl Iterator<Item = &'a RouteId>) -> Option<&Arc<FlipRecord>> {
        let last = ids.filter_map(|id| self.last.get(id)).max_by_key(|action| action.number)?;
        is_latch(last).then_some(last)
    }

    /// The highest state that the guard allows a route; `None` if it limits nothing.
    pub fn limit(&self, route: &Route) -> Option<State> {
        self.latch(route)?.guard.as_ref()?.limit
    }

    /// Puts an action of the guard of a route in force that the store does not have.
    pub fn add_unrecorded(&mut self, route: &Route, action: FlipRecord) {
        self.made += 1;
        let action = Arc::new(FlipRecord { number: UNRECORDED + self.made, ..action });
        let ids: Vec<RouteId> = route.ids().cloned().collect();
        let before = self.unrecorded.iter().rfind(|before| before.is_of(&ids)).map(|before| before.known);
        let newest = || ids.iter().filter_map(|id| self.last.get(id)).map(|last| last.number).max();
        let known = before.or_else(newest).unwrap_or(0);
        self.unrecorded.push(UnrecordedAction { action: action.clone(), ids, known });
        self.set_last(action);
    }

    /// Puts an action in force that the store has.
    pub fn set_last(&mut self, action: Arc<FlipRecord>) {
        if let Some(guard) = &action.guard {
            self.last.insert(guard.route.clone(), action);
        }
    }

    /// Puts an action of another process in force, unless a newer action of its route is in force, or an unrecorded
    /// one, or it would raise the route and `followed` forbids that. First drops the unrecorded actions that it
    /// supersedes. `ids`: those that its route has here. Returns whether anything changed.
    pub fn follow(&mut self, action: FlipRecord, ids: &[RouteId], followed: Followed) -> bool {
        let Some(guard) = &action.guard else { return false };
        let drops = self.drop_superseded_by(&action, ids);
        let newest_read = self.newest_read.entry(guard.route.clone()).or_default();
        *newest_read = action.number.max(*newest_read);
        let is_newest =
            action.number == *newest_read && self.last.get(&guard.route).is_none_or(|last| last.number < action.number);
        let present = self.newest_latch(ids.iter()).map_or(State::Only, |latch| highest_allowed(latch));
        let follows = is_newest && (followed == Followed::All || highest_allowed(&action) <= present);
        if follows {
            self.set_last(Arc::new(action));
        }
        drops || follows
    }

    /// Drops the unrecorded actions of a route that an action of another process supersedes. If one of them was in
    /// force, the newest unrecorded action of the route that is left takes its place, or else the other process's
    /// action; both allow no higher state. Returns whether any was dropped.
    fn drop_superseded_by(&mut self, other: &FlipRecord, ids: &[RouteId]) -> bool {
        // The action may be one of this process, which an earlier attempt recorded although the store's reply was lost:
        // it supersedes nothing.
        let is_own = self.unrecorded.iter().any(|own| is_same(other, &own.action));
        let (dropped, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unrecorded)
            .into_iter()
            .partition(|own| !is_own && own.is_of(ids) && own.is_superseded_by(other));
        self.unrecorded = left;
        for own in self.unrecorded.iter_mut().filter(|own| own.is_of(ids)) {
            own.known = own.known.max(other.number);
        }
        for UnrecordedAction { action, .. } in &dropped {
            let Some(guard) = &action.guard else { continue };
            tracing::warn!(
                route = %guard.route, action = ?guard.action, by = %action.by, number = other.number,
                "another process has recorded an action of its guard on this route in between: that action is in force, and \
                 this one is dropped"
            );
            if self.last.get(&guard.route).is_some_and(|last| last.number == action.number) {
                let newest = self.unrecorded.iter().rfind(|own| own.ids.contains(&guard.route));
                let theirs = || {
                    let theirs = other.guard.clone().map(|of| GuardRecord { route: guard.route.clone(), ..of });
                    Arc::new(FlipRecord { guard: theirs, ..other.clone() })
                };
                self.last.insert(guard.route.clone(), newest.map_or_else(theirs, |own| own.action.clone()));
            }
        }
        !dropped.is_empty()
    }

    /// The actions that the store does not have, as they are recorded, each with its provisional number.
    pub fn unrecorded(&self) -> Vec<(u64, FlipRecord)> {
        let recorded = |action: &FlipRecord| FlipRecord { number: 0, ..action.clone() };
        self.unrecorded.iter().map(|own| (own.action.number, recorded(&own.action))).collect()
    }

    pub fn unrecorded_len(&self) -> usize {
        self.unrecorded.len()
    }

    /// Notes that these actions are recorded now. Each comes with its provisional number.
    pub fn set_recorded(&mut self, recorded: Vec<(u64, FlipRecord)>) {
        for (provisional, recorded) in recorded {
            let Some(guard) = &recorded.guard else { continue };
            self.unrecorded.retain(|own| own.action.number != provisional);
            for own in self.unrecorded.iter_mut().filter(|own| own.ids.contains(&guard.route)) {
                own.known = own.known.max(recorded.number);
            }
            if self.last.get(&guard.route).is_some_and(|last| last.number == provisional) {
                self.last.insert(guard.route.clone(), Arc::new(recorded));
            }
        }
    }
}

/// Whether an action is a latch: it has a limit, or raised an alarm.
fn is_latch(action: &FlipRecord) -> bool {
    matches!(&action.guard, Some(GuardRecord { limit: Some(_), .. } | GuardRecord { action: GuardAction::Alerted, .. }))
}

/// The highest state that an action allows.
fn highest_allowed(action: &FlipRecord) -> State {
    action.guard.as_ref().and_then(|guard| guard.limit).unwrap_or(State::Only)
}

/// Whether the store does not have an action.
pub(super) fn is_unrecorded(action: &FlipRecord) -> bool {
    action.number >= UNRECORDED
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::clock;
    use crate::flag::{RouteMatch, Service};
    use crate::store::guard_key;

    fn action(route: &str, number: u64, limit: Option<State>) -> FlipRecord {
        let action = if limit.is_some() { GuardAction::Lowered } else { GuardAction::Released };
        let route = RouteId::from(route);
        let guard =
            GuardRecord { route: route.clone(), action, limit, condition: None, bad: 5, of: 5, runs: Vec::new() };
        FlipRecord {
            number,
            route: Some(guard_key(&route)),
            from: "live".into(),
            to: "dark".into(),
            shares: None,
            by: "guard".into(),
            at: clock::now(),
            reason: None,
            forced: false,
            overridden: None,
            evidence: serde_json::Value::Null,
            gates: Vec::new(),
            guard: Some(guard),
            candidate: None,
        }
    }

    fn route(id: &str, was: &[&str]) -> Route {
        let service = Service::at("shop", [Uri::from_static("http://127.0.0.1:9000")]);
        let matches = RouteMatch { method: Method::GET, path: "/a".into(), host: None };
        let was = was.iter().map(|id| RouteId::from(*id)).collect();
        Route { was, ..Route::without_workflow(id.into(), matches, Arc::new(service)) }
    }

    #[test]
    fn a_renamed_route_keeps_its_latch_until_the_release_under_its_new_id() {
        let mut latches = GuardLatches::from_store([action("old", 3, Some(State::Dark))]);
        let renamed = route("new", &["old"]);
        assert_eq!((latches.limit(&renamed), latches.limit(&route("new", &[]))), (Some(State::Dark), None));
        latches.set_last(Arc::new(action("new", 4, None)));
        assert_eq!(latches.limit(&renamed), None);
        let latches = GuardLatches::from_store([action("old", 3, Some(State::Dark)), action("new", 4, None)]);
        assert_eq!(latches.limit(&renamed), None, "also after a restart");
    }

    #[test]
    fn an_unrecorded_action_counts_as_the_newest_and_gets_its_number() {
        let mut latches = GuardLatches::from_store([action("a", 9, None)]);
        let a = route("a", &[]);
        latches.add_unrecorded(&a, action("a", 0, Some(State::Dark)));
        assert!(
            latches.limit(&a) == Some(State::Dark) && latches.latch(&a).is_some_and(|action| is_unrecorded(action))
        );
        let numbers: Vec<u64> = latches.unrecorded().into_iter().map(|(provisional, _)| provisional).collect();
        latches.set_recorded(vec![(numbers[0], action("a", 10, Some(State::Dark)))]);
        assert_eq!((latches.unrecorded_len(), latches.latch(&a).map(|action| action.number)), (0, Some(10)));
    }

    #[test]
    fn a_newer_action_is_not_overwritten_by_the_record_of_the_one_before() {
        let mut latches = GuardLatches::default();
        let a = route("a", &[]);
        latches.add_unrecorded(&a, action("a", 0, Some(State::Dark)));
        latches.add_unrecorded(&a, action("a", 0, None));
        let numbers: Vec<u64> = latches.unrecorded().into_iter().map(|(provisional, _)| provisional).collect();
        latches.set_recorded(vec![(numbers[0], action("a", 1, Some(State::Dark)))]);
        assert_eq!((latches.limit(&a), latches.unrecorded_len()), (None, 1));
        // What was just recorded supersedes nothing that was made after it.
        latches.follow(action("a", 1, Some(State::Dark)), &["a".into()], Followed::All);
        assert_eq!((latches.limit(&a), latches.unrecorded_len()), (None, 1));
    }

    #[test]
    fn a_latch_of_another_process_supersedes_releases_and_higher_limits() {
        let (a, ids) = (route("a", &["b"]), ["a".into(), "b".into()]);
        for followed in [Followed::NotRaising, Followed::All] {
            let with = |own: &[Option<State>]| {
                let mut latches = GuardLatches::from_store([action("b", 9, Some(State::Dark))]);
                own.iter().for_each(|limit| latches.add_unrecorded(&a, action("a", 0, *limit)));
                latches
            };
            let mut released = with(&[None]);
            released.follow(action("b", 12, Some(State::Shadow)), &ids, followed);
            assert_eq!((released.limit(&a), released.unrecorded_len()), (Some(State::Shadow), 0));
            let mut higher = with(&[None, Some(State::Dark)]);
            higher.follow(action("b", 12, Some(State::Shadow)), &ids, followed);
            assert_eq!((higher.limit(&a), higher.unrecorded_len()), (Some(State::Shadow), 0));
            // The guard here has lowered it further since: that stays, and so does its release, which knows of both.
            let mut lower = with(&[None, Some(State::Shadow)]);
            lower.follow(action("b", 12, Some(State::Dark)), &ids, followed);
            assert_eq!((lower.limit(&a), lower.unrecorded_len()), (Some(State::Shadow), 1));
            lower.add_unrecorded(&a, action("a", 0, None));
            lower.follow(action("b", 12, Some(State::Dark)), &ids, followed);
            assert_eq!((lower.limit(&a), lower.unrecorded_len()), (None, 2));
            // The latch that it releases.
            let mut known = with(&[None]);
            known.follow(action("b", 9, Some(State::Dark)), &ids, followed);
            assert_eq!((known.limit(&a), known.unrecorded_len()), (None, 1));
        }
    }
}
