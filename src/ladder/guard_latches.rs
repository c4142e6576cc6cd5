//! The last action of each route's guard: what it lowered stays lowered until that is released.
//!
//! Always true: a latch is found under every id that its route has or had, and the newest action of them counts. A
//! latch stays while its route is in no file.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// By the id that the route had then. An unrecorded action has a provisional number.
    last: BTreeMap<RouteId, Arc<FlipRecord>>,
    /// In the order in which they happened. A route has few: while the store does not take them, nothing is released
    /// except by a flip down.
    unrecorded: Vec<Arc<FlipRecord>>,
    /// How many actions there were in this process.
    made: u64,
    /// The numbers of the newest actions of other processes that were read, by the id that the route had then. They may
    /// not be in force yet; then an older one does not come into force in their place.
    newest_read: BTreeMap<RouteId, u64>,
}

impl GuardLatches {
    pub fn from_store(actions: impl IntoIterator<Item = FlipRecord>) -> Self {
        let by_route = |action: FlipRecord| Some((action.guard.as_ref()?.route.clone(), Arc::new(action)));
        Self { last: actions.into_iter().filter_map(by_route).collect(), ..Self::default() }
    }

    /// The action that limits a route now, or raised an alarm, and was not released.
    pub fn of(&self, route: &Route) -> Option<&Arc<FlipRecord>> {
        self.newest(route.ids())
    }

    /// The newest action under these ids, if it limits something, or raised an alarm, and was not released.
    pub fn newest<'a>(&self, ids: impl Iterator<Item = &'a RouteId>) -> Option<&Arc<FlipRecord>> {
        let last = ids.filter_map(|id| self.last.get(id)).max_by_key(|action| action.number)?;
        is_latch(last).then_some(last)
    }

    /// The highest state that the guard allows a route; `None` if it limits nothing.
    pub fn limit(&self, route: &Route) -> Option<State> {
        self.of(route)?.guard.as_ref()?.limit
    }

    /// Puts an action in force that the store does not have.
    pub fn add_unrecorded(&mut self, action: FlipRecord) {
        self.made += 1;
        let action = Arc::new(FlipRecord { number: UNRECORDED + self.made, ..action });
        self.unrecorded.push(action.clone());
        self.set_last(action);
    }

    /// Puts an action in force that the store has.
    pub fn set_last(&mut self, action: Arc<FlipRecord>) {
        if let Some(guard) = &action.guard {
            self.last.insert(guard.route.clone(), action);
        }
    }

    /// Puts an action of another process in force, unless a newer one of its route is, or one that the store does not
    /// have. `ids` are those of its route here. Returns whether that changed anything.
    pub fn follow(&mut self, action: FlipRecord, ids: &[RouteId], followed: Followed) -> bool {
        let Some(guard) = &action.guard else { return false };
        let newest_read = self.newest_read.entry(guard.route.clone()).or_default();
        *newest_read = action.number.max(*newest_read);
        let is_newest = action.number == *newest_read
            && self.last.get(&guard.route).is_none_or(|last| last.number < action.number);
        let present = self.newest(ids.iter()).map_or(State::Only, |latch| allowed(latch));
        let follows = is_newest && (followed == Followed::All || allowed(&action) <= present);
        if follows {
            self.set_last(Arc::new(action));
        }
        follows
    }

    /// The actions that the store does not have, as they are recorded.
    pub fn unrecorded(&self) -> Vec<FlipRecord> {
        self.unrecorded.iter().map(|action| FlipRecord { number: 0, ..FlipRecord::clone(action) }).collect()
    }

    pub fn unrecorded_len(&self) -> usize {
        self.unrecorded.len()
    }

    /// The oldest unrecorded actions are recorded now, with these numbers.
    pub fn set_recorded(&mut self, recorded: Vec<FlipRecord>) {
        let count = recorded.len().min(self.unrecorded.len());
        for (provisional, recorded) in self.unrecorded.drain(..count).zip(recorded) {
            let Some(guard) = &recorded.guard else { continue };
            if self.last.get(&guard.route).is_some_and(|last| last.number == provisional.number) {
                self.last.insert(guard.route.clone(), Arc::new(recorded));
            }
        }
    }
}

/// Whether an action still has an effect: a limit, or an alarm.
fn is_latch(action: &FlipRecord) -> bool {
    matches!(&action.guard, Some(GuardRecord { limit: Some(_), .. } | GuardRecord { action: GuardAction::Alerted, .. }))
}

/// The highest state that an action allows.
fn allowed(action: &FlipRecord) -> State {
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
        latches.add_unrecorded(action("a", 0, Some(State::Dark)));
        let a = route("a", &[]);
        assert!(latches.limit(&a) == Some(State::Dark) && latches.of(&a).is_some_and(|action| is_unrecorded(action)));
        latches.set_recorded(vec![action("a", 10, Some(State::Dark))]);
        assert_eq!((latches.unrecorded_len(), latches.of(&a).map(|action| action.number)), (0, Some(10)));
    }

    #[test]
    fn a_newer_action_is_not_overwritten_by_the_record_of_the_one_before() {
        let mut latches = GuardLatches::default();
        latches.add_unrecorded(action("a", 0, Some(State::Dark)));
        latches.add_unrecorded(action("a", 0, None));
        latches.set_recorded(vec![action("a", 1, Some(State::Dark))]);
        assert_eq!((latches.limit(&route("a", &[])), latches.unrecorded_len()), (None, 1));
    }
}
