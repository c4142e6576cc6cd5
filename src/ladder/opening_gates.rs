//! Gates whose conditions hold, and that wait only for pairs under way, because these may differ. Such gates are judged
//! periodically: those of cohorts, and those of routes that a guard has lowered and clean evidence releases.
//!
//! Always true: such a gate stays shut until it is judged while no pair is under way, or until its conditions have held
//! for the longest time that a pair takes (`pairs_within`). The bound is needed because, while requests go on coming,
//! some pairs are always under way. The gate waits anew after it was passed, after it was shut, and after a gate below
//! it was shut.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flag::State;
use crate::names::RouteId;

/// The gate of a route to a state: for one of its cohorts, or for the route after its guard has lowered it (`None`).
type GateKey = (RouteId, Option<String>, State);

/// Until when each of these gates waits for pairs.
#[derive(Default)]
pub(super) struct OpeningGates(Mutex<BTreeMap<GateKey, Instant>>);

impl OpeningGates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GateKey, Instant>> {
        // A poisoned lock is safe to use: a change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this gate, whose conditions hold, waits for pairs that are under way. `within`: how long it waits from
    /// the first call on.
    pub fn waits(&self, route: &RouteId, cohort: Option<&str>, to: State, within: Duration) -> bool {
        let now = Instant::now();
        let key = (route.clone(), cohort.map(str::to_owned), to);
        now < *self.lock().entry(key).or_insert(now + within)
    }

    /// Forgets how long the gates of a route, or of a cohort, have waited, except the gates to states above `above` and
    /// up to `up_to`. A forgotten gate waits anew when its conditions hold again.
    pub fn keep_between(&self, route: &RouteId, cohort: Option<&str>, (above, up_to): (State, State)) {
        let is_kept = |(of_route, of_cohort, to): &GateKey| {
            (of_route, of_cohort.as_deref()) != (route, cohort) || (*to > above && *to <= up_to)
        };
        self.lock().retain(|key, _| is_kept(key));
    }

    /// Forgets the gates of routes and cohorts that the files do not have any more.
    pub fn retain(&self, is_there: impl Fn(&RouteId, Option<&str>) -> bool) {
        self.lock().retain(|(route, cohort, _), _| is_there(route, cohort.as_deref()));
    }

    /// Notes that the conditions of this gate do not hold: when they hold again, it waits anew.
    pub fn note_shut(&self, route: &RouteId, cohort: Option<&str>, to: State) {
        self.lock().remove(&(route.clone(), cohort.map(str::to_owned), to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_waits_anew_after_it_was_passed_or_one_below_it_was_shut() {
        let gates = OpeningGates::default();
        let (route, long) = (RouteId::from("orders"), Duration::from_secs(600));
        let cohort = Some("staff");
        let is_over = |to| !gates.waits(&route, cohort, to, long);
        let begin = || {
            for to in [State::Dark, State::Live] {
                gates.note_shut(&route, cohort, to);
                assert!(!gates.waits(&route, cohort, to, Duration::ZERO));
            }
        };
        begin();
        gates.keep_between(&route, cohort, (State::Shadow, State::Live));
        gates.keep_between(&"other".into(), cohort, (State::Only, State::Only));
        gates.keep_between(&route, None, (State::Only, State::Only));
        assert!(is_over(State::Dark) && is_over(State::Live));
        gates.keep_between(&route, cohort, (State::Dark, State::Live));
        assert!(!is_over(State::Dark) && is_over(State::Live), "it was passed");
        begin();
        gates.keep_between(&route, cohort, (State::Shadow, State::Dark));
        assert!(is_over(State::Dark) && !is_over(State::Live), "the one below was shut");
        begin();
        gates.retain(|_, cohort| cohort.is_none());
        assert!(!is_over(State::Dark) && !is_over(State::Live));
    }
}
