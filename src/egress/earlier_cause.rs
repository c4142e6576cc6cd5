//! Possible causes of an unattributed call: requests whose window is over.

use std::collections::BTreeSet;

use super::call_traces::CallTraces;
use super::earlier_requests::EarlierRequests;
use super::index::Index;
use super::key::Key;
use crate::compare::Effect;
use crate::names::RouteId;
use crate::traces::TraceContext;

/// The possible causes of an unattributed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EarlierCause {
    /// Compared requests of these routes, whose window is over.
    Late(Vec<RouteId>),
    /// Requests that were not compared, or are unwatched.
    NoComparedRequest,
    /// No request that is known.
    Unknown,
}

impl Index {
    /// The possible causes of an unattributed call.
    pub(super) fn cause_of_unattributed(
        &self,
        effect: &Effect,
        now_us: u64,
        earlier: &EarlierRequests,
    ) -> EarlierCause {
        let key = self.key_of(effect);
        let traces = CallTraces::of(&effect.headers);
        // A call with different `traceparent` fields may be for the request that any of them names.
        let mut sent: Vec<Option<TraceContext>> = traces.all().map(Some).collect();
        if sent.is_empty() {
            // A call without a trace is looked up by its key alone.
            sent.push(None);
        }
        // An unwatched request whose window is not over may have caused it: then it is not late.
        if sent.iter().any(|sent| earlier.may_be_in_time(*sent, key, now_us)) {
            return EarlierCause::NoComparedRequest;
        }
        let of_fields = sent.into_iter().map(|sent| self.routes_of_late(sent, key, now_us, earlier));
        let found: Vec<Option<Vec<RouteId>>> = of_fields.collect();
        let are_all_known = found.iter().all(Option::is_some);
        let routes: BTreeSet<RouteId> = found.into_iter().flatten().flatten().collect();
        match (routes.is_empty(), are_all_known) {
            (false, _) => EarlierCause::Late(routes.into_iter().collect()),
            (true, true) => EarlierCause::NoComparedRequest,
            (true, false) => EarlierCause::Unknown,
        }
    }

    /// The routes of the compared requests with this trace or key whose window is over. Of requests that are still in
    /// the index only the newest one's route is returned.
    ///
    /// - An empty list: all known requests with this trace or key were not compared.
    /// - `None`: no known request has this trace or key.
    fn routes_of_late(
        &self,
        sent: Option<TraceContext>,
        key: Option<Key>,
        now_us: u64,
        earlier: &EarlierRequests,
    ) -> Option<Vec<RouteId>> {
        let routes = earlier.routes_of(sent, key);
        if let Some(routes) = routes.filter(|routes| !routes.is_empty()) {
            return Some(routes.to_vec());
        }
        let over = self.over_with(sent, key, now_us);
        let of_last = over.iter().filter_map(|watched| watched.route.clone()).next_back();
        (routes.is_some() || !over.is_empty()).then(|| of_last.into_iter().collect())
    }
}
